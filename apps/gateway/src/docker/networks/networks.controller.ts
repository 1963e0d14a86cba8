import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query } from '@nestjs/common';
import { agent } from '@gantry/contracts';
import { z } from 'zod';
import { Clients } from '../../clients/clients.module.js';
import { parseBody, parseFilters } from '../query.js';

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
const bool = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
const map = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value) => value ?? {});
const CREATE = z.looseObject({
  Name: z.string(),
  Driver: text,
  Internal: bool,
  Attachable: bool,
  EnableIPv6: bool,
  Options: map,
  Labels: map,
});

@Controller('networks')
export class NetworksController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @Get()
  async list(@Query('filters') filters?: string): Promise<unknown> {
    const { networks } = await this.clients.networks.list({ filters: parseFilters(filters) });
    return networks.map(toNetworkJson);
  }

  @Post('create')
  async create(@Body() body: unknown): Promise<unknown> {
    const request = parseBody(CREATE, body);
    const { id, warnings } = await this.clients.networks.create({
      ...agent.CreateNetworkRequest.fromPartial({}),
      name: request.Name,
      driver: request.Driver || 'bridge',
      internal: request.Internal,
      attachable: request.Attachable,
      enableIpv6: request.EnableIPv6,
      options: request.Options,
      labels: request.Labels,
    });
    return { Id: id, Warning: warnings.join('\n') };
  }

  @Post('prune')
  @HttpCode(200)
  async prune(@Query('filters') filters?: string): Promise<unknown> {
    const { deleted } = await this.clients.networks.prune({ filters: parseFilters(filters) });
    return { NetworksDeleted: deleted.length > 0 ? deleted : null };
  }

  @Get(':id')
  async inspect(@Param('id') id: string): Promise<unknown> {
    return toNetworkJson(await this.clients.networks.inspect({ id }));
  }

  @Delete(':id')
  @HttpCode(204)
  async remove(@Param('id') id: string): Promise<void> {
    await this.clients.networks.remove({ id });
  }
}

function toNetworkJson(network: agent.Network) {
  const config = network.config ?? agent.CreateNetworkRequest.fromPartial({});
  return {
    Name: config.name,
    Id: network.id,
    Created: network.created,
    Scope: 'local',
    Driver: config.driver,
    EnableIPv4: true,
    EnableIPv6: config.enableIpv6,
    IPAM: {
      Driver: config.ipamDriver || 'default',
      Options: null,
      Config: config.pools.map(({ subnet, gateway }) => ({ Subnet: subnet, Gateway: gateway })),
    },
    Internal: config.internal,
    Attachable: config.attachable,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: {},
    Options: config.options,
    Labels: config.labels,
  };
}
