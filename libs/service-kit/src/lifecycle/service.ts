import { DomainError } from '@gantry/errors';
import { DiscoveryService, NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { GrpcServer } from '../grpc/grpc-server.js';
import { GRPC_SERVICE, type GrpcDefinition } from '../grpc/grpc-service.decorator.js';
import { createHttpAdapter, type HttpAdapterOptions } from '../http/http-adapter.js';
import { HttpListeners, type HttpListen, type UpgradeHandler } from '../http/http-listeners.js';
import { KitModule } from '../kit.module.js';
import { createLogger, NestLogger, type Logger } from '../logging/logger.js';
import { trapSignals } from './shutdown.js';

export interface ServiceOptions {
  readonly name: string;
  /** The service's root module: a class or a dynamic module. */
  readonly module: object;
  readonly logLevel: string;
  readonly http: readonly HttpListen[];
  readonly grpc: readonly string[];
  readonly adapter?: HttpAdapterOptions;
  /** Gets `Upgrade` requests (attach, exec, BuildKit sessions): they reach no router. */
  readonly onUpgrade?: (app: NestFastifyApplication) => UpgradeHandler;
  /** Last touches before the doors open: filters, interceptors, OpenAPI. */
  readonly configure?: (app: NestFastifyApplication, logger: Logger) => void | Promise<void>;
}

export interface RunningService {
  readonly app: NestFastifyApplication;
  readonly logger: Logger;
  /** Ports of `http` in order; 0 for unix sockets. */
  readonly httpPorts: readonly number[];
  readonly grpcPorts: readonly number[];
  close(): Promise<void>;
}

/**
 * Starts a service: module, gRPC services found by their decorator, HTTP doors. Doors open last, when everything behind them
 * is ready, and close first. Throws what hindered it.
 */
export async function startService(options: ServiceOptions): Promise<RunningService> {
  const logger = createLogger(options.name, options.logLevel);
  const app = await NestFactory.create<NestFastifyApplication>(
    KitModule.around(options.module, logger),
    createHttpAdapter(options.adapter),
    { bodyParser: false, logger: new NestLogger(logger), abortOnError: false },
  );
  const grpc = new GrpcServer(logger);
  try {
    await options.configure?.(app, logger);
    await app.init();
    const fastify = app.getHttpAdapter().getInstance();
    await fastify.ready();
    for (const { definition, instance } of grpcServices(app)) grpc.add(definition, instance);
    const listeners = new HttpListeners(
      (request, response) => fastify.routing(request, response),
      options.onUpgrade?.(app),
    );
    const grpcPorts = await inOrder(options.grpc, (address) => grpc.listen(address));
    const httpPorts = await inOrder(options.http, (listen) => listeners.listen(listen));
    let closing: Promise<void> | undefined;
    const close = async () => {
      await Promise.all([listeners.close(), grpc.close()]);
      await app.close();
    };
    return { app, logger, httpPorts, grpcPorts, close: () => (closing ??= close()) };
  } catch (error) {
    await app.close().catch((later: unknown) => logger.error({ err: later }, 'clean-up after a failed start failed'));
    throw error;
  }
}

/** `startService` as a process: logs when ready, closes on SIGTERM and SIGINT, exits 1 with the reason where it cannot start. */
export async function runService(options: ServiceOptions | (() => ServiceOptions)): Promise<void> {
  let name = 'service';
  try {
    const resolved = typeof options === 'function' ? options() : options;
    name = resolved.name;
    const service = await startService(resolved);
    trapSignals(service);
    service.logger.info({ http: resolved.http.map((door) => door.address), grpc: resolved.grpc }, 'ready');
  } catch (error) {
    const text = error instanceof DomainError ? error.message : error instanceof Error ? error.stack : String(error);
    process.stderr.write(`${name} cannot start: ${text}\n`);
    process.exit(1);
  }
}

function grpcServices(app: NestFastifyApplication): { definition: GrpcDefinition; instance: object }[] {
  return app
    .get(DiscoveryService, { strict: false })
    .getProviders()
    .flatMap(({ metatype, instance }) => {
      const definition = metatype
        ? (Reflect.getMetadata(GRPC_SERVICE, metatype) as GrpcDefinition | undefined)
        : undefined;
      return definition ? [{ definition, instance: instance as object }] : [];
    });
}

async function inOrder<T>(items: readonly T[], open: (item: T) => Promise<number>): Promise<number[]> {
  const ports: number[] = [];
  for (const item of items) ports.push(await open(item));
  return ports;
}
