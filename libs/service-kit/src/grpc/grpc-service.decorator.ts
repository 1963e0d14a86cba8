import { applyDecorators, Injectable, SetMetadata } from '@nestjs/common';
import type { CompatServiceDefinition } from 'nice-grpc/lib/service-definitions/index.js';

export type GrpcDefinition = CompatServiceDefinition;

export const GRPC_SERVICE = Symbol('gantry:grpc-service');

/**
 * Marks a provider as the implementation of a contract's service: the kit finds it and serves it. The class should
 * `implements ServiceImplementation<typeof XDefinition>` so that the compiler holds it to the contract.
 */
export function GrpcService(definition: GrpcDefinition): ClassDecorator {
  return applyDecorators(Injectable(), SetMetadata(GRPC_SERVICE, definition));
}
