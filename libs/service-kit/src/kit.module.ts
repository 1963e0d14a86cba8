import { Global, Module, type DynamicModule } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import type { Logger } from './logging/logger.js';
import { HealthController } from './health/health.controller.js';
import { HealthService } from './health/health.service.js';

/** Injection tokens of what the kit gives every service. */
export const LOGGER = Symbol('gantry:logger');

/** What every service has: its logger, its health. Added by `runService` around the service's own module. */
@Global()
@Module({})
export class KitModule {
  static around(root: object, logger: Logger): DynamicModule {
    return {
      module: KitModule,
      imports: [DiscoveryModule, root as DynamicModule],
      controllers: [HealthController],
      providers: [HealthService, { provide: LOGGER, useValue: logger }],
      exports: [HealthService, LOGGER],
    };
  }
}
