import { agent, common } from '@gantry/contracts';

export const ZERO_TIME = '0001-01-01T00:00:00Z';
const NO_IPAM = null;

const STATUS_NAMES: Readonly<Record<string, string>> = {
  [agent.ContainerStatus.CREATED]: 'created',
  [agent.ContainerStatus.RUNNING]: 'running',
  [agent.ContainerStatus.PAUSED]: 'paused',
  [agent.ContainerStatus.RESTARTING]: 'restarting',
  [agent.ContainerStatus.REMOVING]: 'removing',
  [agent.ContainerStatus.EXITED]: 'exited',
  [agent.ContainerStatus.DEAD]: 'dead',
};
const RESTART_NAMES: Readonly<Record<string, string>> = {
  [common.RestartCondition.NO]: 'no',
  [common.RestartCondition.ON_FAILURE]: 'on-failure',
  [common.RestartCondition.ALWAYS]: 'always',
  [common.RestartCondition.UNLESS_STOPPED]: 'unless-stopped',
};

const orNull = <T>(list: readonly T[] | undefined) => (list && list.length > 0 ? list : null);
const emptyObjects = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, {}]));

/** "About a minute", "3 hours": docker/go-units HumanDuration. */
export function humanDuration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.round(seconds / 3600);
  if (seconds < 1) return 'Less than a second';
  if (seconds < 2) return '1 second';
  if (seconds < 60) return `${Math.floor(seconds)} seconds`;
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

const ago = (time: string) => humanDuration(Math.max(0, (Date.now() - Date.parse(time)) / 1000));

/** The STATUS column of `docker ps`. */
function statusText(state: agent.ContainerState): string {
  switch (STATUS_NAMES[state.status]) {
    case 'running':
      return `Up ${ago(state.startedAt)}`;
    case 'paused':
      return `Up ${ago(state.startedAt)} (Paused)`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${ago(state.finishedAt)} ago`;
    case 'exited':
      return `Exited (${state.exitCode}) ${ago(state.finishedAt)} ago`;
    case 'created':
      return 'Created';
    default:
      return 'Dead';
  }
}

function endpoint(status: agent.EndpointStatus) {
  return {
    IPAMConfig: NO_IPAM,
    Links: null,
    Aliases: orNull(status.aliases),
    MacAddress: status.macAddress,
    DriverOpts: null,
    GwPriority: 0,
    NetworkID: status.networkId,
    EndpointID: status.endpointId,
    Gateway: status.gateway,
    IPAddress: status.ipAddress,
    IPPrefixLen: status.ipPrefixLength,
    IPv6Gateway: status.ipv6Gateway,
    GlobalIPv6Address: status.ipv6Address,
    GlobalIPv6PrefixLen: status.ipv6PrefixLength,
    DNSNames: orNull(status.dnsNames),
  };
}

const endpoints = (networks: Readonly<Record<string, agent.EndpointStatus>>) =>
  Object.fromEntries(Object.entries(networks).map(([name, status]) => [name, endpoint(status)]));

function mount(point: agent.MountPoint) {
  return {
    Type: point.type,
    ...(point.name ? { Name: point.name } : {}),
    Source: point.source,
    Destination: point.destination,
    ...(point.driver ? { Driver: point.driver } : {}),
    Mode: point.mode,
    RW: point.rw,
    Propagation: point.propagation,
  };
}

function portMap(ports: readonly agent.PublishedPort[]) {
  const map: Record<string, { HostIp: string; HostPort: string }[] | null> = {};
  for (const { containerPort, protocol, hostIp, hostPort } of ports) {
    const key = `${containerPort}/${protocol}`;
    map[key] =
      hostPort === 0 ? (map[key] ?? null) : [...(map[key] ?? []), { HostIp: hostIp, HostPort: String(hostPort) }];
  }
  return map;
}

/** One entry of `GET /containers/json`. */
export function toSummaryJson(summary: agent.ContainerSummary) {
  const state = summary.state ?? agent.ContainerState.fromPartial({});
  return {
    Id: summary.id,
    Names: [`/${summary.name}`],
    Image: summary.image,
    ImageID: summary.imageId,
    Command: summary.command,
    Created: Math.floor(Date.parse(summary.created) / 1000),
    Ports: summary.ports.map(({ hostIp, containerPort, hostPort, protocol }) => ({
      ...(hostPort ? { IP: hostIp } : {}),
      PrivatePort: containerPort,
      ...(hostPort ? { PublicPort: hostPort } : {}),
      Type: protocol,
    })),
    Labels: summary.labels,
    State: STATUS_NAMES[state.status] ?? 'dead',
    Status: statusText(state),
    HostConfig: { NetworkMode: summary.networkMode === 'default' ? 'bridge' : summary.networkMode },
    NetworkSettings: { Networks: endpoints(summary.networks) },
    Mounts: summary.mounts.map(mount),
  };
}

function stateJson(state: agent.ContainerState) {
  const status = STATUS_NAMES[state.status] ?? 'dead';
  return {
    Status: status,
    Running: ['running', 'paused', 'restarting'].includes(status),
    Paused: status === 'paused',
    Restarting: status === 'restarting',
    OOMKilled: state.oomKilled,
    Dead: status === 'dead',
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: state.startedAt || ZERO_TIME,
    FinishedAt: state.finishedAt || ZERO_TIME,
  };
}

function configJson(container: agent.Container) {
  const config = container.config ?? agent.CreateContainerRequest.fromPartial({});
  const process = config.process;
  return {
    Hostname: config.hostname || container.id.slice(0, 12),
    Domainname: config.domainname,
    User: process?.user ?? '',
    AttachStdin: process?.attachStdin ?? false,
    AttachStdout: process?.attachStdout ?? false,
    AttachStderr: process?.attachStderr ?? false,
    ...(config.exposedPorts.length > 0 ? { ExposedPorts: emptyObjects(config.exposedPorts) } : {}),
    Tty: process?.tty ?? false,
    OpenStdin: process?.openStdin ?? false,
    StdinOnce: process?.stdinOnce ?? false,
    Env: process?.env ?? [],
    Cmd: orNull(process?.command?.values),
    Image: config.image,
    Volumes: config.volumes.length > 0 ? emptyObjects(config.volumes) : null,
    WorkingDir: process?.workingDir ?? '',
    Entrypoint: orNull(process?.entrypoint?.values),
    OnBuild: null,
    Labels: config.labels,
    ...(config.stopSignal ? { StopSignal: config.stopSignal } : {}),
    ...(config.stopTimeoutSeconds === undefined ? {} : { StopTimeout: config.stopTimeoutSeconds }),
  };
}

function hostConfigJson(host: agent.HostConfig) {
  const r = host.resources ?? agent.ResourceLimits.fromPartial({});
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const { containerPort, protocol, hostIp, hostPort } of host.portBindings)
    (bindings[`${containerPort}/${protocol}`] ??= []).push({ HostIp: hostIp, HostPort: hostPort });
  return {
    Binds: orNull(host.binds),
    ContainerIDFile: '',
    LogConfig: { Type: host.log?.driver || 'json-file', Config: host.log?.options ?? {} },
    NetworkMode: host.networkMode === 'default' || !host.networkMode ? 'bridge' : host.networkMode,
    PortBindings: bindings,
    RestartPolicy: {
      Name: RESTART_NAMES[host.restartPolicy?.condition ?? common.RestartCondition.NO] ?? 'no',
      MaximumRetryCount: host.restartPolicy?.maximumRetryCount ?? 0,
    },
    AutoRemove: host.autoRemove,
    VolumeDriver: '',
    VolumesFrom: null,
    ConsoleSize: [host.consoleSize?.rows ?? 0, host.consoleSize?.columns ?? 0],
    CapAdd: orNull(host.capAdd),
    CapDrop: orNull(host.capDrop),
    CgroupnsMode: host.cgroupnsMode || 'private',
    Dns: host.dns,
    DnsOptions: host.dnsOptions,
    DnsSearch: host.dnsSearch,
    ExtraHosts: orNull(host.extraHosts),
    GroupAdd: orNull(host.groupAdd),
    IpcMode: host.ipcMode || 'private',
    Cgroup: '',
    Links: null,
    OomScoreAdj: host.oomScoreAdj,
    PidMode: host.pidMode,
    Privileged: host.privileged,
    PublishAllPorts: host.publishAllPorts,
    ReadonlyRootfs: host.readonlyRootfs,
    SecurityOpt: orNull(host.securityOpt),
    UTSMode: host.utsMode,
    UsernsMode: host.usernsMode,
    ShmSize: host.shmSizeBytes || 67108864,
    Runtime: 'gantry',
    Isolation: '',
    CpuShares: r.cpuShares,
    Memory: r.memoryBytes,
    NanoCpus: r.nanoCpus,
    CgroupParent: '',
    BlkioWeight: r.blkioWeight,
    BlkioWeightDevice: [],
    BlkioDeviceReadBps: [],
    BlkioDeviceWriteBps: [],
    BlkioDeviceReadIOps: [],
    BlkioDeviceWriteIOps: [],
    CpuPeriod: r.cpuPeriodUs,
    CpuQuota: r.cpuQuotaUs,
    CpuRealtimePeriod: 0,
    CpuRealtimeRuntime: 0,
    CpusetCpus: r.cpusetCpus,
    CpusetMems: r.cpusetMems,
    Devices: [],
    DeviceCgroupRules: null,
    DeviceRequests: null,
    MemoryReservation: r.memoryReservationBytes,
    MemorySwap: r.memorySwapBytes || (r.memoryBytes ? r.memoryBytes * 2 : 0),
    MemorySwappiness: null,
    OomKillDisable: false,
    PidsLimit: r.pidsLimit ?? null,
    Ulimits: orNull(host.ulimits.map(({ name, soft, hard }) => ({ Name: name, Soft: soft, Hard: hard }))),
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
    ...(host.init === undefined ? {} : { Init: host.init }),
    ...(Object.keys(host.tmpfs).length > 0 ? { Tmpfs: host.tmpfs } : {}),
    ...(Object.keys(host.sysctls).length > 0 ? { Sysctls: host.sysctls } : {}),
    MaskedPaths: host.maskedPaths?.values ?? [],
    ReadonlyPaths: host.readonlyPaths?.values ?? [],
  };
}

/** `GET /containers/{id}/json`. */
export function toContainerJson(container: agent.Container) {
  const host = container.config?.host ?? agent.HostConfig.fromPartial({});
  const networks = container.network?.networks ?? {};
  const first = Object.values(networks)[0];
  return {
    Id: container.id,
    Created: container.created,
    Path: container.path,
    Args: container.args,
    State: stateJson(container.state ?? agent.ContainerState.fromPartial({})),
    Image: container.imageId,
    ResolvConfPath: container.resolvConfPath,
    HostnamePath: container.hostnamePath,
    HostsPath: container.hostsPath,
    LogPath: container.logPath,
    Name: `/${container.name}`,
    RestartCount: container.restartCount,
    Driver: 'overlay2',
    Platform: container.platform,
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: orNull(container.execIds),
    HostConfig: hostConfigJson(host),
    GraphDriver: {
      Name: 'overlay2',
      Data: container.snapshot
        ? {
            ID: container.id,
            LowerDir: container.snapshot.lowerdirs.join(':'),
            UpperDir: container.snapshot.upperdir,
            WorkDir: container.snapshot.workdir,
            MergedDir: container.snapshot.merged,
          }
        : null,
    },
    Mounts: container.mounts.map(mount),
    Config: configJson(container),
    NetworkSettings: {
      Bridge: '',
      SandboxID: container.network?.sandboxId ?? '',
      SandboxKey: container.network?.sandboxKey ?? '',
      Ports: portMap(container.network?.ports ?? []),
      HairpinMode: false,
      LinkLocalIPv6Address: '',
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: first?.endpointId ?? '',
      Gateway: first?.gateway ?? '',
      GlobalIPv6Address: '',
      GlobalIPv6PrefixLen: 0,
      IPAddress: first?.ipAddress ?? '',
      IPPrefixLen: first?.ipPrefixLength ?? 0,
      IPv6Gateway: '',
      MacAddress: first?.macAddress ?? '',
      Networks: endpoints(networks),
    },
  };
}

/** `GET /containers/{id}/stats`, with the sample before it for a client's delta. */
export function toStatsJson(sample: agent.StatsSample, before: agent.StatsSample | undefined) {
  const cpu = (stats: agent.CpuStats | undefined) => ({
    cpu_usage: {
      total_usage: stats?.totalUsageNs ?? 0,
      usage_in_kernelmode: stats?.systemUsageNs ?? 0,
      usage_in_usermode: stats?.userUsageNs ?? 0,
    },
    ...(stats ? { system_cpu_usage: stats.hostUsageNs, online_cpus: stats.onlineCpus } : {}),
    throttling_data: {
      periods: stats?.periods ?? 0,
      throttled_periods: stats?.throttledPeriods ?? 0,
      throttled_time: stats?.throttledTimeNs ?? 0,
    },
  });
  const memory = sample.memory;
  return {
    name: `/${sample.name}`,
    id: sample.containerId,
    read: sample.readAt || ZERO_TIME,
    preread: before?.readAt || ZERO_TIME,
    num_procs: 0,
    storage_stats: {},
    pids_stats: sample.pids
      ? { current: sample.pids.current, ...(sample.pids.limit ? { limit: sample.pids.limit } : {}) }
      : {},
    blkio_stats: {
      io_service_bytes_recursive: null,
      io_serviced_recursive: null,
      io_queue_recursive: null,
      io_service_time_recursive: null,
      io_wait_time_recursive: null,
      io_merged_recursive: null,
      io_time_recursive: null,
      sectors_recursive: null,
    },
    cpu_stats: cpu(sample.cpu),
    precpu_stats: cpu(before?.cpu),
    memory_stats: memory
      ? {
          usage: memory.usageBytes,
          max_usage: memory.maxUsageBytes,
          stats: memory.detail,
          failcnt: memory.failcnt,
          limit: memory.limitBytes,
        }
      : {},
    networks: Object.fromEntries(
      Object.entries(sample.interfaces).map(([name, i]) => [
        name,
        {
          rx_bytes: i.rxBytes,
          rx_packets: i.rxPackets,
          rx_errors: i.rxErrors,
          rx_dropped: i.rxDropped,
          tx_bytes: i.txBytes,
          tx_packets: i.txPackets,
          tx_errors: i.txErrors,
          tx_dropped: i.txDropped,
        },
      ]),
    ),
  };
}
