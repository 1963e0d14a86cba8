import { agent, common } from '@gantry/contracts';
import { InvalidArgument } from '@gantry/errors';
import { parsePlatform } from '@gantry/oci';
import { z } from 'zod';

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
const number = z
  .number()
  .nullish()
  .transform((value) => value ?? 0);
const bool = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
const strings = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? []);
const map = z
  .record(z.string(), z.string().nullish())
  .nullish()
  .transform((value) => Object.fromEntries(Object.entries(value ?? {}).map(([key, item]) => [key, item ?? ''])));
/** A list, a single string (as old clients send), or nothing at all, which is not the same as an empty list. */
const command = z
  .union([z.array(z.string()), z.string()])
  .nullish()
  .transform((value) => (typeof value === 'string' ? [value] : (value ?? undefined)));
const keys = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((value) => Object.keys(value ?? {}));

const MOUNT = z.looseObject({
  Type: z.string(),
  Source: text,
  Target: text,
  ReadOnly: bool,
  BindOptions: z.looseObject({ Propagation: text, NonRecursive: bool, CreateMountpoint: bool }).nullish(),
  TmpfsOptions: z.looseObject({ SizeBytes: number, Mode: number }).nullish(),
});

const PORTS = z
  .record(
    z.string(),
    z
      .array(
        z.looseObject({
          HostIp: text,
          HostPort: z
            .union([z.string(), z.number()])
            .nullish()
            .transform((value) => String(value ?? '')),
        }),
      )
      .nullish(),
  )
  .nullish();

const HOST_CONFIG = z.looseObject({
  NetworkMode: text,
  PortBindings: PORTS,
  PublishAllPorts: bool,
  AutoRemove: bool,
  RestartPolicy: z.looseObject({ Name: text, MaximumRetryCount: number }).nullish(),
  Memory: number,
  MemoryReservation: number,
  MemorySwap: number,
  NanoCpus: number,
  CpuShares: number,
  CpuQuota: number,
  CpuPeriod: number,
  CpusetCpus: text,
  CpusetMems: text,
  PidsLimit: z.number().nullish(),
  Binds: strings,
  Mounts: z.array(MOUNT).nullish(),
  Tmpfs: map,
  CapAdd: strings,
  CapDrop: strings,
  Privileged: bool,
  SecurityOpt: strings,
  ReadonlyRootfs: bool,
  Dns: strings,
  DnsOptions: strings,
  DnsSearch: strings,
  ExtraHosts: strings,
  GroupAdd: strings,
  IpcMode: text,
  PidMode: text,
  UTSMode: text,
  CgroupnsMode: text,
  UsernsMode: text,
  ShmSize: number,
  Sysctls: map,
  Ulimits: z.array(z.looseObject({ Name: z.string(), Soft: number, Hard: number })).nullish(),
  Init: z.boolean().nullish(),
  OomScoreAdj: number,
  MaskedPaths: z.array(z.string()).nullish(),
  ReadonlyPaths: z.array(z.string()).nullish(),
  LogConfig: z.looseObject({ Type: text, Config: map }).nullish(),
  ConsoleSize: z.array(z.number()).nullish(),
});

export const CREATE_CONTAINER = z.looseObject({
  Image: text,
  Hostname: text,
  Domainname: text,
  User: text,
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  Tty: bool,
  OpenStdin: bool,
  StdinOnce: bool,
  Env: strings,
  Cmd: command,
  Entrypoint: command,
  WorkingDir: text,
  Labels: map,
  ExposedPorts: keys,
  Volumes: keys,
  StopSignal: text,
  StopTimeout: z.number().nullish(),
  MacAddress: text,
  HostConfig: HOST_CONFIG.nullish(),
});

const RESTART: Readonly<Record<string, common.RestartCondition>> = {
  '': common.RestartCondition.NO,
  no: common.RestartCondition.NO,
  'on-failure': common.RestartCondition.ON_FAILURE,
  always: common.RestartCondition.ALWAYS,
  'unless-stopped': common.RestartCondition.UNLESS_STOPPED,
};

/** `80/tcp` → ports; `8000-8002/tcp` is three. */
function portBindings(bindings: z.output<typeof PORTS>): agent.PortBinding[] {
  return Object.entries(bindings ?? {}).flatMap(([spec, targets]) => {
    const [range = '', protocol = 'tcp'] = spec.split('/');
    const containerPort = Number(range);
    if (!Number.isInteger(containerPort) || containerPort < 1 || containerPort > 65535)
      throw new InvalidArgument(`invalid port specification: "${spec}"`);
    const wishes = targets?.length ? targets : [{ HostIp: '', HostPort: '' }];
    return wishes.map(({ HostIp, HostPort }) => ({ containerPort, protocol, hostIp: HostIp, hostPort: HostPort }));
  });
}

function hostConfig(host: z.output<typeof HOST_CONFIG> | null | undefined): agent.HostConfig {
  if (!host) return agent.HostConfig.fromPartial({});
  const policy = host.RestartPolicy;
  const condition = RESTART[policy?.Name ?? ''];
  if (condition === undefined)
    throw new InvalidArgument(
      `invalid restart policy: unknown policy '${policy?.Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  return agent.HostConfig.fromPartial({
    networkMode: host.NetworkMode,
    portBindings: portBindings(host.PortBindings),
    publishAllPorts: host.PublishAllPorts,
    autoRemove: host.AutoRemove,
    restartPolicy: { condition, maximumRetryCount: policy?.MaximumRetryCount ?? 0 },
    resources: {
      memoryBytes: host.Memory,
      memoryReservationBytes: host.MemoryReservation,
      memorySwapBytes: host.MemorySwap,
      nanoCpus: host.NanoCpus,
      cpuShares: host.CpuShares,
      cpuQuotaUs: host.CpuQuota,
      cpuPeriodUs: host.CpuPeriod,
      cpusetCpus: host.CpusetCpus,
      cpusetMems: host.CpusetMems,
      pidsLimit: host.PidsLimit ?? undefined,
    },
    binds: host.Binds,
    mounts: (host.Mounts ?? []).map((mount) =>
      agent.Mount.fromPartial({
        type: mount.Type,
        source: mount.Source,
        target: mount.Target,
        readOnly: mount.ReadOnly,
        bindNonRecursive: mount.BindOptions?.NonRecursive ?? false,
        bindPropagation: mount.BindOptions?.Propagation ?? '',
        tmpfsSizeBytes: mount.TmpfsOptions?.SizeBytes ?? 0,
        tmpfsMode: mount.TmpfsOptions?.Mode ?? 0,
      }),
    ),
    tmpfs: host.Tmpfs,
    capAdd: host.CapAdd,
    capDrop: host.CapDrop,
    privileged: host.Privileged,
    securityOpt: host.SecurityOpt,
    readonlyRootfs: host.ReadonlyRootfs,
    dns: host.Dns,
    dnsOptions: host.DnsOptions,
    dnsSearch: host.DnsSearch,
    extraHosts: host.ExtraHosts,
    groupAdd: host.GroupAdd,
    ipcMode: host.IpcMode,
    pidMode: host.PidMode,
    utsMode: host.UTSMode,
    cgroupnsMode: host.CgroupnsMode,
    usernsMode: host.UsernsMode,
    shmSizeBytes: host.ShmSize,
    sysctls: host.Sysctls,
    ulimits: (host.Ulimits ?? []).map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
    init: host.Init ?? undefined,
    oomScoreAdj: host.OomScoreAdj,
    ...(host.MaskedPaths ? { maskedPaths: { values: host.MaskedPaths } } : {}),
    ...(host.ReadonlyPaths ? { readonlyPaths: { values: host.ReadonlyPaths } } : {}),
    log: { driver: host.LogConfig?.Type || 'json-file', options: host.LogConfig?.Config ?? {} },
    ...(host.ConsoleSize?.[0] ? { consoleSize: { rows: host.ConsoleSize[0], columns: host.ConsoleSize[1] ?? 0 } } : {}),
  });
}

/** Docker's create request as the domain's. Throws `InvalidArgument` that names what is wrong. */
export function toCreateRequest(
  body: z.output<typeof CREATE_CONTAINER>,
  name: string,
  platform: string,
): agent.CreateContainerRequest {
  if (!body.Image) throw new InvalidArgument('no image specified');
  return agent.CreateContainerRequest.fromPartial({
    name,
    image: body.Image,
    ...(platform ? { platform: parsePlatform(platform) } : {}),
    process: {
      // The CLI clears an entrypoint with [""].
      ...(body.Entrypoint && !(body.Entrypoint.length === 0)
        ? { entrypoint: { values: body.Entrypoint.filter((word, index) => index > 0 || word !== '') } }
        : {}),
      ...(body.Cmd ? { command: { values: body.Cmd } } : {}),
      env: body.Env,
      workingDir: body.WorkingDir,
      user: body.User,
      tty: body.Tty,
      openStdin: body.OpenStdin,
      stdinOnce: body.StdinOnce,
      attachStdin: body.AttachStdin,
      attachStdout: body.AttachStdout,
      attachStderr: body.AttachStderr,
    },
    hostname: body.Hostname,
    domainname: body.Domainname,
    labels: body.Labels,
    stopSignal: body.StopSignal,
    stopTimeoutSeconds: body.StopTimeout ?? undefined,
    exposedPorts: body.ExposedPorts,
    volumes: body.Volumes,
    host: hostConfig(body.HostConfig),
    macAddress: body.MacAddress,
  });
}
