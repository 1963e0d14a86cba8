import { Controller, Get, Inject } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { HealthService } from '@gantry/service-kit';
import { Clients } from '../../clients/clients.module.js';
import { toSummaryJson } from '../../docker/containers/container-json.js';
import { toImageSummary } from '../../docker/images/image-json.js';

/** What runs where, for people and dashboards. */
@ApiTags('platform')
@Controller('api/v1')
export class PlatformController {
  constructor(
    @Inject(Clients) private readonly clients: Clients,
    @Inject(HealthService) private readonly health: HealthService,
  ) {}

  @Get('images')
  @ApiOperation({ summary: 'Images of the platform' })
  async images(): Promise<unknown> {
    return (await this.clients.images.list({ all: false })).images.map((image) => toImageSummary(image));
  }

  @Get('containers')
  @ApiOperation({ summary: 'Containers of every host' })
  async containers(): Promise<unknown> {
    return (await this.clients.containers.list({ all: true })).containers.map(toSummaryJson);
  }

  @Get('hosts')
  @ApiOperation({ summary: 'Hosts that run containers' })
  async hosts(): Promise<unknown> {
    const { hostId, hostname, kernelVersion, cpus, memoryBytes, containersRunning, version } =
      await this.clients.host.info({});
    return [{ id: hostId, hostname, kernelVersion, cpus, memoryBytes, containersRunning, version }];
  }

  @Get('health')
  @ApiOperation({ summary: 'Whether every service answers' })
  report(): unknown {
    return this.health.report();
  }
}
