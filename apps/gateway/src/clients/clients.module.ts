import { Global, Inject, Module, type OnModuleDestroy } from '@nestjs/common';
import { agent, builder, registry } from '@gantry/contracts';
import { GrpcConnection, HealthService, socketAddress, type RpcClient, type ServiceName } from '@gantry/service-kit';
import { CONFIG, type GatewayConfig } from '../config.js';

/** Clients of the other services' contracts. */
export class Clients {
  readonly containers: RpcClient<typeof agent.ContainersDefinition>;
  readonly execs: RpcClient<typeof agent.ExecsDefinition>;
  readonly host: RpcClient<typeof agent.AgentSystemDefinition>;
  readonly networks: RpcClient<typeof agent.NetworksDefinition>;
  readonly images: RpcClient<typeof registry.ImagesDefinition>;
  readonly builds: RpcClient<typeof builder.BuildsDefinition>;
  readonly #connections: GrpcConnection[];

  constructor(private readonly runDir: string) {
    const open = (service: ServiceName) => new GrpcConnection(socketAddress(runDir, service, 'grpc'), service);
    const [agentConnection, registryConnection, builderConnection] = [open('agent'), open('registry'), open('builder')];
    this.#connections = [agentConnection, registryConnection, builderConnection];
    this.containers = agentConnection.client(agent.ContainersDefinition);
    this.execs = agentConnection.client(agent.ExecsDefinition);
    this.host = agentConnection.client(agent.AgentSystemDefinition);
    this.networks = agentConnection.client(agent.NetworksDefinition);
    this.images = registryConnection.client(registry.ImagesDefinition);
    this.builds = builderConnection.client(builder.BuildsDefinition);
  }

  /** Path of a service's HTTP socket, for bulk bytes. */
  httpSocket(service: ServiceName): string {
    return `${this.runDir}/${service}.http.sock`;
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}

@Global()
@Module({
  providers: [
    { provide: Clients, inject: [CONFIG], useFactory: (config: GatewayConfig) => new Clients(config.GANTRY_RUN_DIR) },
  ],
  exports: [Clients],
})
export class ClientsModule implements OnModuleDestroy {
  constructor(
    @Inject(Clients) private readonly clients: Clients,
    @Inject(HealthService) health: HealthService,
  ) {
    health.register('agent', async () => void (await clients.host.info({}, { deadline: 1500 })));
    health.register('registry', async () => void (await clients.images.list({}, { deadline: 1500 })));
  }

  onModuleDestroy(): void {
    this.clients.close();
  }
}
