import { Inject } from '@nestjs/common';
import { agent, type common } from '@gantry/contracts';
import { NotFound, PermissionDenied, Unimplemented } from '@gantry/errors';
import { GrpcService } from '@gantry/service-kit';
import { createHash } from 'node:crypto';
import { bridgeNetworkId } from './network-ids.js';
import { NetworksService } from './networks.service.js';

const PREDEFINED = ['bridge', 'host', 'none'];

/** The networks that every installation has. */
@GrpcService(agent.NetworksDefinition)
export class NetworksController implements agent.NetworksServiceImplementation {
  readonly #created = new Date().toISOString();

  constructor(@Inject(NetworksService) private readonly networks: NetworksService) {}

  create({ name }: agent.CreateNetworkRequest): Promise<agent.CreateNetworkResponse> {
    if (PREDEFINED.includes(name))
      throw new PermissionDenied(`operation is not permitted on predefined ${name} network`);
    throw new Unimplemented('user-defined networks are not supported by this version');
  }

  list({ filters }: agent.ListNetworksRequest): Promise<agent.ListNetworksResponse> {
    const wanted = filters?.byKey ?? {};
    const networks = this.#all().filter((network) => {
      const names = wanted.name?.values ?? [];
      const drivers = wanted.driver?.values ?? [];
      const ids = wanted.id?.values ?? [];
      return (
        (names.length === 0 || names.some((name) => network.config?.name.includes(name))) &&
        (drivers.length === 0 || drivers.includes(network.config?.driver ?? '')) &&
        (ids.length === 0 || ids.some((id) => network.id.startsWith(id)))
      );
    });
    return Promise.resolve({ networks });
  }

  inspect({ id }: agent.InspectNetworkRequest): Promise<agent.Network> {
    const network = this.#all().find((entry) => entry.id.startsWith(id) || entry.config?.name === id);
    if (!network) throw new NotFound('network', id);
    return Promise.resolve(network);
  }

  async remove({ id }: agent.RemoveNetworkRequest): Promise<common.Empty> {
    const network = await this.inspect({ id });
    throw new PermissionDenied(`${network.config?.name} is a pre-defined network and cannot be removed`);
  }

  prune(): Promise<agent.PruneNetworksResponse> {
    return Promise.resolve({ deleted: [] });
  }

  #all(): agent.Network[] {
    const of = (name: string, driver: string, id: string, more: object = {}) =>
      agent.Network.fromPartial({
        id,
        created: this.#created,
        config: { name, driver, ipamDriver: 'default', enableIpv4: true, ...more },
      });
    const fixed = (name: string) => createHash('sha256').update(`${this.networks.bridge}/${name}`).digest('hex');
    return [
      of('bridge', 'bridge', bridgeNetworkId(this.networks.bridge), {
        pools: [{ subnet: this.networks.subnet, gateway: this.networks.gateway }],
        options: {
          'com.docker.network.bridge.default_bridge': 'true',
          'com.docker.network.bridge.name': this.networks.bridge,
          'com.docker.network.driver.mtu': '1500',
        },
      }),
      of('host', 'host', fixed('host')),
      of('none', 'null', fixed('none')),
    ];
  }
}
