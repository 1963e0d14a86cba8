import { All, Body, Controller, Get, Head, HttpCode, Inject, Post, Query, Req, Res } from '@nestjs/common';
import { common } from '@gantry/contracts';
import { Unavailable } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Clients } from '../../clients/clients.module.js';
import { API_VERSION, MIN_API_VERSION, versionOf } from '../api-version/api-version.js';
import { abortOnClose } from '../containers/containers.controller.js';
import { toImageSummary } from '../images/image-json.js';
import { parseFilters } from '../query.js';
import { readFileSync } from 'node:fs';

const VERSION = (
  JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;
const NOT_A_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

@Controller()
export class SystemController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @Head('_ping')
  async headPing(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await pingHeaders(request, reply).header('Content-Length', '0').send();
  }

  @Get('_ping')
  async ping(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await pingHeaders(request, reply).header('Content-Type', 'text/plain; charset=utf-8').send('OK');
  }

  @Get('version')
  async version(): Promise<unknown> {
    const host = await this.clients.host.info({});
    const arch =
      host.architecture === 'x86_64' ? 'amd64' : host.architecture === 'aarch64' ? 'arm64' : host.architecture;
    return {
      Platform: { Name: 'Gantry' },
      Components: [
        {
          Name: 'Engine',
          Version: VERSION,
          Details: {
            ApiVersion: API_VERSION,
            Arch: arch,
            KernelVersion: host.kernelVersion,
            MinAPIVersion: MIN_API_VERSION,
            Os: 'linux',
            Experimental: 'false',
          },
        },
      ],
      Version: VERSION,
      ApiVersion: API_VERSION,
      MinAPIVersion: MIN_API_VERSION,
      GitCommit: '',
      GoVersion: '',
      Os: 'linux',
      Arch: arch,
      KernelVersion: host.kernelVersion,
      BuildTime: '',
    };
  }

  @Get('info')
  async info(): Promise<unknown> {
    const [host, { images }] = await Promise.all([this.clients.host.info({}), this.clients.images.list({ all: true })]);
    return {
      ID: host.hostId,
      Containers: host.containersRunning + host.containersPaused + host.containersStopped,
      ContainersRunning: host.containersRunning,
      ContainersPaused: host.containersPaused,
      ContainersStopped: host.containersStopped,
      Images: images.length,
      Driver: 'overlay2',
      DriverStatus: [['Native Overlay Diff', 'true']],
      Plugins: { Volume: ['local'], Network: host.networkDrivers, Authorization: null, Log: host.logDrivers },
      MemoryLimit: true,
      SwapLimit: true,
      CpuCfsPeriod: true,
      CpuCfsQuota: true,
      CPUShares: true,
      CPUSet: true,
      PidsLimit: true,
      IPv4Forwarding: true,
      Debug: false,
      NFd: 0,
      OomKillDisable: false,
      NGoroutines: 0,
      SystemTime: new Date().toISOString(),
      LoggingDriver: 'json-file',
      CgroupDriver: host.cgroupDriver,
      CgroupVersion: host.cgroupVersion,
      NEventsListener: 0,
      KernelVersion: host.kernelVersion,
      OperatingSystem: host.operatingSystem,
      OSVersion: host.osVersion,
      OSType: 'linux',
      Architecture: host.architecture,
      IndexServerAddress: 'https://index.docker.io/v1/',
      RegistryConfig: { IndexConfigs: {}, InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8'], Mirrors: null },
      NCPU: host.cpus,
      MemTotal: host.memoryBytes,
      GenericResources: null,
      DockerRootDir: host.dataRoot,
      HttpProxy: '',
      HttpsProxy: '',
      NoProxy: '',
      Name: host.hostname,
      Labels: [],
      ExperimentalBuild: false,
      ServerVersion: VERSION,
      Runtimes: { gantry: { path: 'gantry-zygote' } },
      DefaultRuntime: 'gantry',
      Swarm: {
        NodeID: '',
        NodeAddr: '',
        LocalNodeState: 'inactive',
        ControlAvailable: false,
        Error: '',
        RemoteManagers: null,
      },
      LiveRestoreEnabled: true,
      Isolation: '',
      InitBinary: '',
      ContainerdCommit: { ID: '' },
      RuncCommit: { ID: '' },
      InitCommit: { ID: '' },
      SecurityOptions: host.securityOptions,
      CDISpecDirs: [],
      Warnings: host.warnings.length > 0 ? host.warnings : null,
    };
  }

  @Get('events')
  async events(
    @Query() query: Record<string, string | undefined>,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const filters = parseFilters(query.filters);
    const wanted = { since: toTime(query.since), until: toTime(query.until), filters };
    const signal = abortOnClose(request);
    reply.hijack();
    reply.raw.writeHead(200, { 'Content-Type': 'application/json' });
    reply.raw.flushHeaders();
    const follow = async (events: AsyncIterable<common.Event>) => {
      for await (const event of events)
        if (matches(event, filters))
          reply.raw.write(`${JSON.stringify(toEventJson(event)).replace(/"#(\d+)#"/, '$1')}\n`);
    };
    await Promise.allSettled([
      follow(this.clients.host.events(wanted, { signal })),
      follow(this.clients.images.events(wanted, { signal })),
    ]);
    reply.raw.end();
  }

  @Post('auth')
  @HttpCode(200)
  async auth(@Body() body: Record<string, string | undefined> | undefined): Promise<unknown> {
    const { status, identityToken } = await this.clients.images.login({
      credentials: {
        username: body?.username ?? '',
        password: body?.password ?? '',
        identityToken: body?.identitytoken ?? '',
        registryToken: '',
        serverAddress: body?.serveraddress ?? '',
      },
    });
    return { Status: status, IdentityToken: identityToken };
  }

  @Get('system/df')
  async diskUsage(): Promise<unknown> {
    const [usage, { containers }] = await Promise.all([
      this.clients.images.diskUsage({}),
      this.clients.containers.list({ all: true }),
    ]);
    return {
      LayersSize: usage.layersSize,
      Images: usage.images.flatMap(({ image, sharedSize }) =>
        image
          ? [
              {
                ...toImageSummary(image, containers.filter(({ imageId }) => imageId === image.id).length),
                SharedSize: sharedSize,
              },
            ]
          : [],
      ),
      Containers: containers.map(({ id, name, image, imageId, created }) => ({
        Id: id,
        Names: [`/${name}`],
        Image: image,
        ImageID: imageId,
        Created: Math.floor(Date.parse(created) / 1000),
        SizeRw: 0,
        SizeRootFs: 0,
      })),
      Volumes: [],
      BuildCache: [],
      BuilderSize: 0,
    };
  }

  @Post('build/prune')
  @HttpCode(200)
  async pruneBuilds(@Query() query: Record<string, string | undefined>): Promise<unknown> {
    const { deleted, spaceReclaimed } = await this.clients.builds.pruneCache({
      all: query.all === '1' || query.all === 'true',
      filters: parseFilters(query.filters),
      keepStorageBytes: Number(query['keep-storage'] ?? 0),
    });
    return { CachesDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: spaceReclaimed };
  }

  @All([
    'swarm',
    'swarm/*',
    'nodes',
    'nodes/*',
    'services',
    'services/*',
    'tasks',
    'tasks/*',
    'secrets',
    'secrets/*',
    'configs',
    'configs/*',
  ])
  swarm(): never {
    throw new Unavailable(NOT_A_MANAGER);
  }

  @Get('plugins')
  plugins(): unknown {
    return [];
  }
}

function pingHeaders(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  versionOf(request.raw);
  return reply
    .header('Api-Version', API_VERSION)
    .header('Builder-Version', '1')
    .header('Docker-Experimental', 'false')
    .header('Ostype', 'linux')
    .header('Swarm', 'inactive')
    .header('Server', `Gantry/${VERSION} (linux)`)
    .header('Cache-Control', 'no-cache, no-store, must-revalidate')
    .header('Pragma', 'no-cache');
}

/** Unix seconds with a fraction, or RFC 3339, as RFC 3339. */
function toTime(text: string | undefined): string {
  if (!text) return '';
  return /^\d+(\.\d+)?$/.test(text) ? new Date(Number(text) * 1000).toISOString() : new Date(text).toISOString();
}

function matches(event: common.Event, filters: common.Filters): boolean {
  return Object.entries(filters.byKey).every(([key, { values }]) => {
    if (values.length === 0) return true;
    const action = event.action.split(':', 1)[0] ?? '';
    if (key === 'type') return values.includes(event.type);
    if (key === 'event') return values.includes(action) || values.includes(event.action);
    if (key === 'container' || key === 'image' || key === 'network' || key === 'volume') {
      if (key === 'image' && event.type === 'container') return values.includes(event.attributes.image ?? '');
      return (
        event.type === key &&
        values.some((value) => event.actorId.startsWith(value) || event.attributes.name === value.replace(/^\//, ''))
      );
    }
    if (key === 'label')
      return values.every(
        (value) =>
          value.split('=')[0]! in event.attributes &&
          (!value.includes('=') || event.attributes[value.split('=')[0]!] === value.slice(value.indexOf('=') + 1)),
      );
    return true;
  });
}

function toEventJson(event: common.Event) {
  const [seconds = '0', fraction = ''] = [
    String(Math.floor(Date.parse(event.time) / 1000)),
    /\.(\d+)/.exec(event.time)?.[1] ?? '',
  ];
  const timeNano = BigInt(seconds) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9) || '0');
  const legacy =
    event.type === 'container' || event.type === 'image'
      ? { status: event.action, id: event.actorId, ...(event.attributes.image ? { from: event.attributes.image } : {}) }
      : {};
  // JSON numbers of JavaScript do not hold nanoseconds: the digits are put in as they are.
  return {
    ...legacy,
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.actorId, Attributes: event.attributes },
    scope: 'local',
    time: Number(seconds),
    timeNano: `#${timeNano}#`,
  };
}
