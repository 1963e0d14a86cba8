import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CgroupPlan } from './plan.js';

const ROOT = '/sys/fs/cgroup';
/** What Docker's containers are accounted by, where the host has it. */
const V1_CONTROLLERS = [
  'cpuset',
  'cpu',
  'cpuacct',
  'memory',
  'devices',
  'freezer',
  'blkio',
  'pids',
  'hugetlb',
  'systemd',
] as const;
const DEFAULT_PERIOD_US = 100_000;
/** cgroup v1 shares 2…262144 as v2 weight 1…10000, as runc and systemd convert them. */
const weightOf = (shares: number) => Math.floor(1 + ((shares - 2) * 9999) / 262142);

/** Unset: no limit of ours. */
export interface CgroupLimits {
  readonly memoryBytes?: number;
  /** Memory and swap together; -1: unlimited swap. */
  readonly memorySwapBytes?: number;
  readonly memoryReservationBytes?: number;
  readonly cpuShares?: number;
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly pids?: number;
  /** Device rules, `c 1:3 rwm`; undefined: everything is allowed (privileged). */
  readonly devices?: readonly string[];
}

type Write = { path: string; value: string; optional?: boolean };

/** The host's cgroups: version 2, or version 1 with its hierarchies. One installation's containers live below `gantry/<instance>`. */
export class Cgroups {
  readonly version: 1 | 2;
  readonly controllers: readonly string[];

  constructor(
    private readonly instanceId: string,
    root = ROOT,
  ) {
    this.version = existsSync(join(root, 'cgroup.controllers')) ? 2 : 1;
    this.controllers =
      this.version === 2 ? [''] : V1_CONTROLLERS.filter((name) => existsSync(join(root, name, 'cgroup.procs')));
    this.root = root;
  }

  private readonly root: string;

  /** The parents that all containers share; made once, at start, as cpuset has to be filled from above. */
  prepare(): void {
    for (const controller of this.controllers) {
      const base = join(this.root, controller);
      for (const path of [join(base, 'gantry'), join(base, 'gantry', this.instanceId)]) {
        mkdirSync(path, { recursive: true });
        if (controller === 'cpuset') inherit(path);
      }
    }
    if (this.version === 2) {
      const wanted = ['cpuset', 'cpu', 'io', 'memory', 'pids', 'hugetlb'];
      for (const path of [this.root, join(this.root, 'gantry'), join(this.root, 'gantry', this.instanceId)]) {
        const present = readFileSync(join(path, 'cgroup.controllers'), 'utf8').trim().split(' ');
        const enable = wanted.filter((name) => present.includes(name)).map((name) => `+${name}`);
        writeFileSync(join(path, 'cgroup.subtree_control'), enable.join(' '));
      }
    }
  }

  /** Takes the installation's own parents away where no container is left in them. */
  dismantle(): void {
    if (this.list().length > 0) return;
    for (const controller of this.controllers) rmdirSync(join(this.root, controller, 'gantry', this.instanceId));
  }

  directory(containerId: string, controller: string): string {
    return join(this.root, this.version === 2 ? '' : controller, 'gantry', this.instanceId, containerId);
  }

  plan(containerId: string, limits: CgroupLimits): CgroupPlan {
    const directories = this.controllers.map((controller) => this.directory(containerId, controller));
    return this.version === 2
      ? { directories, writes: this.#writesV2(containerId, limits), v2: this.directory(containerId, '') }
      : { directories, writes: this.#writesV1(containerId, limits) };
  }

  #writesV1(id: string, limits: CgroupLimits): Write[] {
    const writes: Write[] = [];
    const put = (controller: string, file: string, value: string | number | undefined, optional = false) => {
      if (value === undefined || !this.controllers.includes(controller)) return;
      writes.push({ path: join(this.directory(id, controller), file), value: String(value), optional });
    };
    // A task can't enter a cpuset that has neither CPUs nor memory nodes.
    const parent = join(this.root, 'cpuset/gantry', this.instanceId);
    put('cpuset', 'cpuset.cpus', limits.cpusetCpus || readOr(join(parent, 'cpuset.cpus')));
    put('cpuset', 'cpuset.mems', limits.cpusetMems || readOr(join(parent, 'cpuset.mems')));
    put('memory', 'memory.limit_in_bytes', limits.memoryBytes);
    put('memory', 'memory.soft_limit_in_bytes', limits.memoryReservationBytes);
    const swap = limits.memorySwapBytes ?? (limits.memoryBytes === undefined ? undefined : limits.memoryBytes * 2);
    // Hosts without swap accounting have no such file.
    put('memory', 'memory.memsw.limit_in_bytes', swap, true);
    put('cpu', 'cpu.shares', limits.cpuShares);
    put('cpu', 'cpu.cfs_period_us', limits.cpuPeriodUs ?? (limits.cpuQuotaUs ? DEFAULT_PERIOD_US : undefined));
    put('cpu', 'cpu.cfs_quota_us', limits.cpuQuotaUs);
    put('pids', 'pids.max', limits.pids);
    if (limits.devices) {
      put('devices', 'devices.deny', 'a');
      for (const rule of limits.devices) put('devices', 'devices.allow', rule);
    }
    return writes;
  }

  #writesV2(id: string, limits: CgroupLimits): Write[] {
    const writes: Write[] = [];
    const put = (file: string, value: string | number | undefined, optional = false) => {
      if (value !== undefined)
        writes.push({ path: join(this.directory(id, ''), file), value: String(value), optional });
    };
    put('cpuset.cpus', limits.cpusetCpus || undefined);
    put('cpuset.mems', limits.cpusetMems || undefined);
    put('memory.max', limits.memoryBytes);
    put('memory.low', limits.memoryReservationBytes);
    const swap = limits.memorySwapBytes ?? (limits.memoryBytes === undefined ? undefined : limits.memoryBytes * 2);
    if (swap !== undefined)
      put('memory.swap.max', swap < 0 ? 'max' : Math.max(0, swap - (limits.memoryBytes ?? 0)), true);
    if (limits.cpuShares !== undefined) put('cpu.weight', weightOf(limits.cpuShares));
    if (limits.cpuQuotaUs !== undefined)
      put('cpu.max', `${limits.cpuQuotaUs} ${limits.cpuPeriodUs ?? DEFAULT_PERIOD_US}`);
    put('pids.max', limits.pids);
    return writes;
  }

  /** Stops (or lets go on) every process of a container. */
  freeze(containerId: string, frozen: boolean): void {
    if (this.version === 2) writeFileSync(join(this.directory(containerId, ''), 'cgroup.freeze'), frozen ? '1' : '0');
    else writeFileSync(join(this.directory(containerId, 'freezer'), 'freezer.state'), frozen ? 'FROZEN' : 'THAWED');
  }

  /** Containers that have a cgroup. */
  list(): string[] {
    const first = this.controllers[0] ?? '';
    const parent = join(this.root, this.version === 2 ? '' : first, 'gantry', this.instanceId);
    if (!existsSync(parent)) return [];
    return readdirSync(parent, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  }

  /** Kills what is left in a container's cgroups and removes them. For what a crash left behind. */
  reap(containerId: string): void {
    for (const controller of this.controllers) {
      const directory = this.directory(containerId, controller);
      if (!existsSync(directory)) continue;
      for (const pid of readOr(join(directory, 'cgroup.procs'))?.split('\n').filter(Boolean) ?? []) {
        try {
          process.kill(Number(pid), 'SIGKILL');
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
        }
      }
      try {
        rmdirSync(directory);
      } catch (error) {
        // Dying tasks keep it busy for a moment; the next sweep takes it.
        if (!['EBUSY', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    }
  }

  /** A counter file of a container as text; undefined where the host has none. */
  read(containerId: string, controller: string, file: string): string | undefined {
    return readOr(join(this.directory(containerId, controller), file));
  }
}

function readOr(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined; // the host has no such controller or file
  }
}

/** cgroup v1: a new cpuset is empty until filled from its parent. */
function inherit(path: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (readOr(join(path, file)) === '') writeFileSync(join(path, file), readOr(join(path, '..', file)) ?? '');
  }
}
