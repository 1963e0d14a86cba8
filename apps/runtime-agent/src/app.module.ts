import { join } from 'node:path';
import { Inject, Module, type DynamicModule, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common';
import { LayerTool } from '@gantry/layers';
import { GrpcConnection } from '@gantry/service-kit';
import { BuildContextsController } from './build-steps/build-contexts.controller.js';
import { BuildStepsController } from './build-steps/build-steps.controller.js';
import { BuildStepsService } from './build-steps/build-steps.service.js';
import { CONFIG, type AgentConfig } from './config.js';
import { ContainerStore } from './containers/container.store.js';
import { ContainersController } from './containers/containers.controller.js';
import { ContainersService } from './containers/containers.service.js';
import { Launcher } from './containers/launcher.js';
import { EventsService } from './events/events.service.js';
import { ExecController } from './exec/exec.controller.js';
import { ExecService } from './exec/exec.service.js';
import { NetworksController } from './networks/networks.controller.js';
import { NetworksService } from './networks/networks.service.js';
import { SnapshotsService } from './snapshots/snapshots.service.js';
import { LogsController } from './stdio/logs.controller.js';
import { UpgradeService } from './stdio/upgrade.service.js';
import { SystemController } from './system/system.controller.js';
import { REGISTRY } from './tokens.js';

/** Containers, networks, snapshots and build steps of one host. */
@Module({})
export class AppModule implements OnApplicationBootstrap, OnModuleDestroy {
  constructor(
    @Inject(ContainersService) private readonly containers: ContainersService,
    @Inject(LayerTool) private readonly layerTool: LayerTool,
    @Inject(REGISTRY) private readonly registry: GrpcConnection,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    await this.containers.recover();
  }

  async onModuleDestroy(): Promise<void> {
    this.registry.close();
    await this.layerTool.close();
  }

  static for(config: AgentConfig): DynamicModule {
    return {
      module: AppModule,
      controllers: [BuildContextsController, LogsController],
      providers: [
        { provide: CONFIG, useValue: config },
        { provide: REGISTRY, useFactory: () => new GrpcConnection(config.registryGrpc, 'registry') },
        { provide: LayerTool, useFactory: () => LayerTool.start({ socketPath: join(config.runDir, 'layer.sock') }) },
        BuildStepsController,
        BuildStepsService,
        ContainersController,
        ContainersService,
        ContainerStore,
        EventsService,
        ExecController,
        ExecService,
        Launcher,
        NetworksController,
        NetworksService,
        SnapshotsService,
        SystemController,
        UpgradeService,
      ],
    };
  }
}
