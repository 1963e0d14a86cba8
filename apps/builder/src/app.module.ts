import { join } from 'node:path';
import { Inject, Module, type DynamicModule, type OnModuleDestroy } from '@nestjs/common';
import { agent, registry } from '@gantry/contracts';
import { connectDatabase, GrpcConnection, HealthService, socketAddress } from '@gantry/service-kit';
import { DataSource } from 'typeorm';
import { BuildsController } from './builds/builds.controller.js';
import { BuildsService } from './builds/builds.service.js';
import { CONFIG, type BuilderConfig } from './config.js';
import { ContextStore } from './contexts/context-store.js';
import { ContextsController } from './contexts/contexts.controller.js';
import { BuildLogRow, BuildRow, CacheRow } from './database/entities.js';
import { Initial1764000000000 } from './database/initial.migration.js';
import { BuildLog } from './log/build-log.js';
import { CacheRepository } from './solver/cache.repository.js';
import { BLOBS, IMAGES, STEPS } from './tokens.js';
import { WorkerService } from './worker/worker.service.js';

const CONNECTIONS = Symbol('connections');

/** The brain of builds. As `api` it takes them in, as `worker` it carries them out. */
@Module({})
export class AppModule implements OnModuleDestroy {
  constructor(
    @Inject(CONNECTIONS) private readonly connections: readonly GrpcConnection[],
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(HealthService) health: HealthService,
  ) {
    health.register('postgres', async () => void (await database.query('SELECT 1')));
  }

  async onModuleDestroy(): Promise<void> {
    for (const connection of this.connections) connection.close();
    await this.database.destroy();
  }

  static for(config: BuilderConfig): DynamicModule {
    const isApi = config.GANTRY_BUILDER_ROLE === 'api';
    const open = (service: 'agent' | 'registry') =>
      new GrpcConnection(socketAddress(config.GANTRY_RUN_DIR, service, 'grpc'), service);
    return {
      module: AppModule,
      controllers: isApi ? [ContextsController] : [],
      providers: [
        { provide: CONFIG, useValue: config },
        { provide: CONNECTIONS, useFactory: () => [open('agent'), open('registry')] },
        {
          provide: STEPS,
          inject: [CONNECTIONS],
          useFactory: ([first]: GrpcConnection[]) => first?.client(agent.BuildStepsDefinition),
        },
        {
          provide: IMAGES,
          inject: [CONNECTIONS],
          useFactory: ([, second]: GrpcConnection[]) => second?.client(registry.ImagesDefinition),
        },
        {
          provide: BLOBS,
          inject: [CONNECTIONS],
          useFactory: ([, second]: GrpcConnection[]) => second?.client(registry.BlobsDefinition),
        },
        {
          provide: DataSource,
          useFactory: () =>
            connectDatabase({
              url: config.DATABASE_URL,
              schema: 'builder',
              entities: [BuildRow, BuildLogRow, CacheRow],
              migrations: [Initial1764000000000],
              poolSize: 5,
            }),
        },
        {
          provide: ContextStore,
          useFactory: async () => {
            const store = new ContextStore(join(config.GANTRY_DATA_ROOT, 'builder/contexts'));
            await store.open();
            return store;
          },
        },
        BuildLog,
        CacheRepository,
        ...(isApi ? [BuildsController, BuildsService] : [WorkerService]),
      ],
    };
  }
}
