import { Inject, Module, type DynamicModule } from '@nestjs/common';
import { HealthService } from '@gantry/service-kit';
import { BuildsController } from './api/v1/builds.controller.js';
import { PlatformController } from './api/v1/platform.controller.js';
import { Clients, ClientsModule } from './clients/clients.module.js';
import { CONFIG, type GatewayConfig } from './config.js';
import { BuildController } from './docker/build/build.controller.js';
import { ContainersController } from './docker/containers/containers.controller.js';
import { ExecController } from './docker/exec/exec.controller.js';
import { ImagesController } from './docker/images/images.controller.js';
import { NetworksController } from './docker/networks/networks.controller.js';
import { SpliceService } from './docker/stdio/splice.service.js';
import { SystemController } from './docker/system/system.controller.js';
import { VolumesController } from './docker/volumes/volumes.controller.js';
import { RegistryDoorController } from './registry-door/registry-door.controller.js';
import { Global } from '@nestjs/common';

@Global()
@Module({})
class ConfigModule {
  static for(config: GatewayConfig): DynamicModule {
    return { module: ConfigModule, providers: [{ provide: CONFIG, useValue: config }], exports: [CONFIG] };
  }
}

/** The HTTP doors: Docker's API, the platform's, the registry's. */
@Module({})
export class AppModule {
  constructor(@Inject(HealthService) health: HealthService, @Inject(Clients) clients: Clients) {
    health.register('builder', async () => void (await clients.builds.list({ limit: 1 }, { deadline: 1500 })));
  }

  static for(config: GatewayConfig): DynamicModule {
    return {
      module: AppModule,
      imports: [ConfigModule.for(config), ClientsModule],
      controllers: [
        BuildController,
        BuildsController,
        ContainersController,
        ExecController,
        ImagesController,
        NetworksController,
        PlatformController,
        RegistryDoorController,
        SystemController,
        VolumesController,
      ],
      providers: [SpliceService],
    };
  }
}
