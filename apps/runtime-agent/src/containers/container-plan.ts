import type { agent } from '@gantry/contracts';
import { InvalidArgument } from '@gantry/errors';
import type { MergedTree } from '@gantry/layers';
import type { CgroupLimits, CgroupPlan, ContainerPlan, NamespaceMode, PlanDevice, PlanMount } from '@gantry/linux';
import { capabilitySets } from './capabilities.js';

const MIB = 1024 * 1024;
const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const DEFAULT_SHM_BYTES = 64 * MIB;
const DEFAULT_PERIOD_US = 100_000;

/** Docker's documented defaults (moby, oci/defaults.go lists the same paths). */
export const MASKED_PATHS = [
  'asound',
  'acpi',
  'interrupts',
  'kcore',
  'keys',
  'latency_stats',
  'timer_list',
  'timer_stats',
  'sched_debug',
  'scsi',
]
  .map((name) => `/proc/${name}`)
  .concat('/sys/firmware', '/sys/devices/virtual/powercap');
export const READONLY_PATHS = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`);

const DEVICES: readonly PlanDevice[] = (
  [
    ['null', 1, 3],
    ['zero', 1, 5],
    ['full', 1, 7],
    ['random', 1, 8],
    ['urandom', 1, 9],
    ['tty', 5, 0],
  ] as const
).map(([name, major, minor]) => ({ path: `/dev/${name}`, type: 'c', major, minor, mode: 0o666, uid: 0, gid: 0 }));

/** The device cgroup of a container without devices of its own: make any node, use these. */
const DEVICE_RULES = [
  'c *:* m',
  'b *:* m',
  ...['1:3', '1:5', '1:7', '1:8', '1:9', '5:0', '5:1', '5:2', '136:*', '10:200'].map((number) => `c ${number} rwm`),
];

const SYMLINKS = [
  { target: '/proc/self/fd', path: '/dev/fd' },
  { target: '/proc/self/fd/0', path: '/dev/stdin' },
  { target: '/proc/self/fd/1', path: '/dev/stdout' },
  { target: '/proc/self/fd/2', path: '/dev/stderr' },
  { target: '/proc/kcore', path: '/dev/core' },
  { target: 'pts/ptmx', path: '/dev/ptmx' },
];

const RLIMITS: Readonly<Record<string, number>> = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  as: 9,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
};

/** What a plan is compiled from; everything that takes I/O has been done. */
export interface PlanInput {
  readonly id: string;
  readonly runDir: string;
  readonly process: agent.ProcessConfig;
  readonly host: agent.HostConfig;
  readonly hostname: string;
  readonly domainname: string;
  readonly argv: readonly string[];
  readonly tree: MergedTree;
  readonly cgroup: CgroupPlan;
  readonly cgroupVersion: 1 | 2;
  readonly cgroupControllers: readonly string[];
  /** A prepared namespace, a new one (`none`), the host's. */
  readonly network: NamespaceMode;
  readonly files: { readonly hostname: string; readonly hosts: string; readonly resolvConf: string };
  readonly capabilities: ReadonlySet<string>;
  readonly seccomp: Buffer | undefined;
  readonly log: { readonly path: string; readonly maxSizeBytes: number; readonly maxFiles: number } | undefined;
  readonly holdOutput: boolean;
}

/** Limits as the cgroups take them. Throws `InvalidArgument` in Docker's words. */
export function limitsOf(resources: agent.ResourceLimits | undefined, privileged: boolean): CgroupLimits {
  const r = resources;
  if (r && r.memoryBytes > 0 && r.memoryBytes < 6 * MIB)
    throw new InvalidArgument('Minimum memory limit allowed is 6MB');
  if (r && r.memorySwapBytes > 0 && r.memorySwapBytes < r.memoryBytes) {
    throw new InvalidArgument('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  if (r && r.nanoCpus > 0 && r.cpuQuotaUs > 0)
    throw new InvalidArgument('Conflicting options: Nano CPUs and CPU Quota cannot both be set');
  const quota = r?.nanoCpus ? Math.round((r.nanoCpus * DEFAULT_PERIOD_US) / 1e9) : r?.cpuQuotaUs;
  const pids = r?.pidsLimit;
  return {
    ...(r?.memoryBytes ? { memoryBytes: r.memoryBytes } : {}),
    ...(r?.memorySwapBytes ? { memorySwapBytes: r.memorySwapBytes } : {}),
    ...(r?.memoryReservationBytes ? { memoryReservationBytes: r.memoryReservationBytes } : {}),
    ...(r?.cpuShares ? { cpuShares: r.cpuShares } : {}),
    ...(quota ? { cpuQuotaUs: quota } : {}),
    ...(r?.cpuPeriodUs ? { cpuPeriodUs: r.cpuPeriodUs } : {}),
    ...(r?.cpusetCpus ? { cpusetCpus: r.cpusetCpus } : {}),
    ...(r?.cpusetMems ? { cpusetMems: r.cpusetMems } : {}),
    ...(pids !== undefined && pids > 0 ? { pids } : {}),
    ...(privileged ? {} : { devices: DEVICE_RULES }),
  };
}

function defaultMounts(input: PlanInput): PlanMount[] {
  const { privileged } = input.host;
  const plain = { noSuid: true, noDev: true, noExec: true };
  const shm = input.host.shmSizeBytes || DEFAULT_SHM_BYTES;
  const cgroupMounts: PlanMount[] =
    input.cgroupVersion === 2
      ? [{ type: 'cgroup2', source: 'cgroup', target: '/sys/fs/cgroup', readOnly: !privileged, ...plain }]
      : [
          { type: 'tmpfs', source: 'tmpfs', target: '/sys/fs/cgroup', data: 'mode=755', ...plain },
          ...input.cgroupControllers.map((name) => ({
            type: 'cgroup',
            source: 'cgroup',
            target: `/sys/fs/cgroup/${name}`,
            data: name === 'systemd' ? 'none,name=systemd' : name,
            readOnly: !privileged,
            optional: true,
            ...plain,
          })),
        ];
  return [
    { type: 'proc', source: 'proc', target: '/proc', noSymlink: true, ...plain },
    { type: 'tmpfs', source: 'tmpfs', target: '/dev', data: 'mode=755,size=65536k', noSuid: true },
    {
      type: 'devpts',
      source: 'devpts',
      target: '/dev/pts',
      data: 'newinstance,ptmxmode=0666,mode=0620,gid=5',
      noSuid: true,
      noExec: true,
    },
    // A host's network seen through a sysfs of another namespace is refused by the kernel: the host's own is bound then.
    input.network === 'host'
      ? {
          type: 'bind',
          source: '/sys',
          target: '/sys',
          recursive: true,
          readOnly: !privileged,
          noSymlink: true,
          ...plain,
        }
      : { type: 'sysfs', source: 'sysfs', target: '/sys', readOnly: !privileged, noSymlink: true, ...plain },
    ...(input.network === 'host' ? [] : cgroupMounts),
    { type: 'mqueue', source: 'mqueue', target: '/dev/mqueue', ...plain },
    { type: 'tmpfs', source: 'shm', target: '/dev/shm', data: `mode=1777,size=${shm}`, ...plain },
  ];
}

/** `src:dst[:opts]` */
function bindMount(spec: string): PlanMount {
  const [source = '', target = '', options = ''] = spec.split(':');
  if (!target.startsWith('/')) throw new InvalidArgument(`invalid volume specification: '${spec}'`);
  const words = options.split(',');
  const propagation = words
    .map((word) => word.replace(/^r/, ''))
    .find((word) => ['private', 'slave', 'shared'].includes(word));
  return {
    type: 'bind',
    source,
    target,
    recursive: true,
    readOnly: words.includes('ro'),
    shallowReadOnly: true,
    ...(propagation ? { propagation: propagation as 'private' } : {}),
  };
}

function userMounts(host: agent.HostConfig, isFile: (path: string) => boolean): PlanMount[] {
  const plain = { noSuid: true, noDev: true };
  return [
    ...host.binds.map(bindMount),
    ...host.mounts.map((mount): PlanMount =>
      mount.type === 'tmpfs'
        ? { type: 'tmpfs', source: 'tmpfs', target: mount.target, data: tmpfsOptions(mount), noExec: true, ...plain }
        : {
            type: 'bind',
            source: mount.source,
            target: mount.target,
            recursive: !mount.bindNonRecursive,
            readOnly: mount.readOnly,
            shallowReadOnly: true,
          },
    ),
    ...Object.entries(host.tmpfs).map(([target, options]): PlanMount => {
      const words = options.split(',').filter(Boolean);
      const data = words.filter((word) => word.includes('='));
      return {
        type: 'tmpfs',
        source: 'tmpfs',
        target,
        data: data.join(','),
        noExec: !words.includes('exec'),
        readOnly: words.includes('ro'),
        ...plain,
      };
    }),
  ].map((mount) => (mount.type === 'bind' && isFile(mount.source) ? { ...mount, isFile: true } : mount));
}

function tmpfsOptions(mount: agent.Mount): string {
  const size = mount.tmpfsSizeBytes ? [`size=${mount.tmpfsSizeBytes}`] : [];
  return [...size, `mode=${(mount.tmpfsMode || 0o1777).toString(8)}`].join(',');
}

function environment(input: PlanInput): string[] {
  const given = input.process.env;
  const has = (name: string) => given.some((entry) => entry.startsWith(`${name}=`));
  return [
    ...(has('PATH') ? [] : [DEFAULT_PATH]),
    ...(has('HOSTNAME') ? [] : [`HOSTNAME=${input.hostname}`]),
    ...(input.process.tty && !has('TERM') ? ['TERM=xterm'] : []),
    ...given,
  ];
}

function rlimits(host: agent.HostConfig): ContainerPlan['rlimits'] {
  return host.ulimits.map(({ name, soft, hard }) => {
    const resource = RLIMITS[name];
    if (resource === undefined) throw new InvalidArgument(`invalid ulimit type: ${name}`);
    return { resource, soft: BigInt(soft), hard: BigInt(hard) };
  });
}

/** The plan of a container: what Docker means, as what the kernel is to do. Pure but for `isFile`. Throws `InvalidArgument`. */
export function compilePlan(input: PlanInput, isFile: (path: string) => boolean): ContainerPlan {
  const { host, process } = input;
  const mode = (value: string): NamespaceMode => (value === 'host' ? 'host' : 'new');
  const files = [
    ['/etc/resolv.conf', input.files.resolvConf],
    ['/etc/hostname', input.files.hostname],
    ['/etc/hosts', input.files.hosts],
  ] as const;
  return {
    id: input.id,
    runDir: input.runDir,
    namespaces: {
      pid: mode(host.pidMode),
      net: input.network,
      ipc: mode(host.ipcMode),
      mnt: 'new',
      uts: mode(host.utsMode),
      cgroup: mode(host.cgroupnsMode),
    },
    cgroup: input.cgroup,
    rootfs: { ...input.tree, readOnly: host.readonlyRootfs },
    mounts: [
      ...defaultMounts(input),
      ...files.map(([target, source]): PlanMount => ({ type: 'bind', source, target, isFile: true })),
      ...userMounts(host, isFile),
    ],
    devices: DEVICES,
    symlinks: SYMLINKS,
    maskedPaths: host.maskedPaths?.values ?? (host.privileged ? [] : MASKED_PATHS),
    readonlyPaths: host.readonlyPaths?.values ?? (host.privileged ? [] : READONLY_PATHS),
    sysctls: Object.fromEntries(
      Object.entries(host.sysctls).map(([name, value]) => [name.replaceAll('.', '/'), value]),
    ),
    ...(host.utsMode === 'host' ? {} : { hostname: input.hostname }),
    ...(input.domainname ? { domainname: input.domainname } : {}),
    rlimits: rlimits(host),
    ...(host.oomScoreAdj ? { oomScoreAdj: host.oomScoreAdj } : {}),
    process: {
      argv: input.argv,
      env: environment(input),
      cwd: process.workingDir || '/',
      user: process.user,
      additionalGids: host.groupAdd.map(Number).filter(Number.isInteger),
      tty: process.tty,
      ...(host.consoleSize ? { consoleSize: { rows: host.consoleSize.rows, columns: host.consoleSize.columns } } : {}),
      openStdin: process.openStdin,
      stdinOnce: process.stdinOnce,
      capabilities: capabilitySets(input.capabilities),
      noNewPrivileges: host.securityOpt.some((option) => /^no-new-privileges([=:]true)?$/.test(option)),
      ...(input.seccomp ? { seccomp: input.seccomp } : {}),
    },
    ...(input.log ? { log: input.log } : {}),
    holdOutput: input.holdOutput,
  };
}
