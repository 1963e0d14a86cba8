import { agent } from '@gantry/contracts';
import type { PublishedPort, Sandbox } from '../networks/networks.service.js';
import { argvOf, type ContainerRecord } from './container.js';

const STATUS: Readonly<Record<string, agent.ContainerStatus>> = {
  created: agent.ContainerStatus.CREATED,
  running: agent.ContainerStatus.RUNNING,
  paused: agent.ContainerStatus.PAUSED,
  restarting: agent.ContainerStatus.RESTARTING,
  exited: agent.ContainerStatus.EXITED,
  dead: agent.ContainerStatus.DEAD,
};

export function statusName({ state }: ContainerRecord): string {
  return state.status === 'running' && state.isPaused ? 'paused' : state.status;
}

export function stateMessage(record: ContainerRecord): agent.ContainerState {
  const { state } = record;
  const exited = state.status === 'restarting' ? state.last : state.status === 'exited' ? state : undefined;
  return {
    status: STATUS[statusName(record)] ?? agent.ContainerStatus.UNSPECIFIED,
    pid: state.status === 'running' ? state.pid : 0,
    exitCode: exited?.exitCode ?? 0,
    error: state.status === 'dead' ? state.error : (exited?.error ?? ''),
    startedAt: state.status === 'running' ? state.startedAt : (exited?.startedAt ?? ''),
    finishedAt: exited?.finishedAt ?? '',
    oomKilled: exited?.oomKilled ?? false,
    health: undefined,
  };
}

function mountPoints({ config }: ContainerRecord): agent.MountPoint[] {
  const host = config.host;
  const binds = (host?.binds ?? []).map((spec) => {
    const [source = '', destination = '', mode = ''] = spec.split(':');
    return {
      type: 'bind',
      name: '',
      source,
      destination,
      driver: '',
      mode,
      rw: !mode.split(',').includes('ro'),
      propagation: 'rprivate',
    };
  });
  const mounts = (host?.mounts ?? []).map((mount) => ({
    type: mount.type,
    name: '',
    source: mount.source,
    destination: mount.target,
    driver: '',
    mode: '',
    rw: !mount.readOnly,
    propagation: mount.type === 'bind' ? 'rprivate' : '',
  }));
  return [...binds, ...mounts];
}

function networks(
  record: ContainerRecord,
  sandbox: Sandbox | undefined,
  networkId: string,
): Record<string, agent.EndpointStatus> {
  const mode = record.config.host?.networkMode || 'default';
  const name = mode === 'default' ? 'bridge' : mode;
  return {
    [name]: agent.EndpointStatus.fromPartial({
      networkId,
      ...(sandbox
        ? {
            endpointId: record.id,
            ipAddress: sandbox.address,
            ipPrefixLength: sandbox.prefixLength,
            gateway: sandbox.gateway,
            macAddress: sandbox.mac,
          }
        : {}),
    }),
  };
}

/** Published ports, and exposed ones that are not (host port 0). */
function ports({ config }: ContainerRecord, sandbox: Sandbox | undefined): PublishedPort[] {
  const published = sandbox?.ports ?? [];
  const exposed = config.exposedPorts.map((text) => {
    const [port = '0', protocol = 'tcp'] = text.split('/');
    return { containerPort: Number(port), protocol, hostIp: '', hostPort: 0 };
  });
  return [
    ...published,
    ...exposed.filter(
      (port) =>
        !published.some((other) => other.containerPort === port.containerPort && other.protocol === port.protocol),
    ),
  ];
}

export interface Surroundings {
  readonly sandbox: Sandbox | undefined;
  readonly networkId: string;
  readonly directory: string;
  readonly tree: agent.SnapshotInfo | undefined;
  readonly execIds: readonly string[];
  readonly namespacePath: string;
}

/** A record as others see it. Pure. */
export function toContainer(record: ContainerRecord, around: Surroundings): agent.Container {
  const [path = '', ...args] = argvOf(record.config);
  return {
    id: record.id,
    name: record.name,
    created: record.created,
    imageId: record.image.id,
    config: record.config,
    state: stateMessage(record),
    path,
    args,
    restartCount: record.restartCount,
    logPath: `${around.directory}/log`,
    resolvConfPath: `${around.directory}/resolv.conf`,
    hostnamePath: `${around.directory}/hostname`,
    hostsPath: `${around.directory}/hosts`,
    snapshot: around.tree,
    mounts: mountPoints(record),
    network: {
      sandboxId: record.id,
      sandboxKey: around.namespacePath,
      ports: ports(record, around.sandbox),
      networks: networks(record, around.sandbox, around.networkId),
    },
    execIds: [...around.execIds],
    size: undefined,
    platform: record.image.platform,
    imageEnv: [...(record.image.config.Env ?? [])],
    imageManifestDigest: record.image.manifestDigest,
  };
}

export function toSummary(
  record: ContainerRecord,
  sandbox: Sandbox | undefined,
  networkId: string,
): agent.ContainerSummary {
  return {
    id: record.id,
    name: record.name,
    image: record.config.image,
    imageId: record.image.id,
    command: argvOf(record.config).join(' '),
    created: record.created,
    state: stateMessage(record),
    labels: record.config.labels,
    ports: ports(record, sandbox),
    mounts: mountPoints(record),
    networks: networks(record, sandbox, networkId),
    networkMode: record.config.host?.networkMode || 'default',
    size: undefined,
    imageManifestDigest: record.image.manifestDigest,
    exposedPorts: record.config.exposedPorts,
  };
}
