import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { agent } from '@gantry/contracts';
import type { Cgroups } from '@gantry/linux';
import { formatNs } from '../events/events.service.js';

const TICK_NS = 10_000_000; // USER_HZ is 100 on every architecture that Linux runs containers on

const number = (text: string | undefined) => (text === undefined || text === 'max' ? 0 : Number(text));
const table = (text: string | undefined) =>
  Object.fromEntries(
    (text ?? '')
      .split('\n')
      .map((line) => line.split(' '))
      .filter((pair) => pair.length === 2)
      .map(([key = '', value]) => [key, Number(value)]),
  );

function hostCpuNs(): number {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '';
  // user nice system idle iowait irq softirq steal (proc(5)): what a host's CPUs have spent in all
  return (
    line
      .split(/\s+/)
      .slice(1, 9)
      .reduce((sum, ticks) => sum + Number(ticks), 0) * TICK_NS
  );
}

function interfaces(pid: number): Record<string, agent.InterfaceStats> {
  const result: Record<string, agent.InterfaceStats> = {};
  for (const line of readFileSync(`/proc/${pid}/net/dev`, 'utf8').split('\n').slice(2)) {
    const [name = '', ...values] = line.trim().split(/[:\s]+/);
    const at = values.map(Number);
    if (!name || name === 'lo') continue;
    result[name] = {
      rxBytes: at[0] ?? 0,
      rxPackets: at[1] ?? 0,
      rxErrors: at[2] ?? 0,
      rxDropped: at[3] ?? 0,
      txBytes: at[8] ?? 0,
      txPackets: at[9] ?? 0,
      txErrors: at[10] ?? 0,
      txDropped: at[11] ?? 0,
    };
  }
  return result;
}

/** What a container has used so far, from its cgroups (v1 or v2) and its network namespace. */
export function sample(cgroups: Cgroups, id: string, name: string, pid: number): agent.StatsSample {
  const v2 = cgroups.version === 2;
  const cpu = table(v2 ? cgroups.read(id, '', 'cpu.stat') : cgroups.read(id, 'cpu', 'cpu.stat'));
  const split = table(v2 ? undefined : cgroups.read(id, 'cpuacct', 'cpuacct.stat'));
  const read = (controller: string, v1File: string, v2File: string) =>
    number(cgroups.read(id, v2 ? '' : controller, v2 ? v2File : v1File));
  return agent.StatsSample.fromPartial({
    readAt: formatNs(BigInt(Date.now()) * 1_000_000n),
    containerId: id,
    name,
    cpu: {
      totalUsageNs: v2 ? (cpu.usage_usec ?? 0) * 1000 : number(cgroups.read(id, 'cpuacct', 'cpuacct.usage')),
      userUsageNs: v2 ? (cpu.user_usec ?? 0) * 1000 : (split.user ?? 0) * TICK_NS,
      systemUsageNs: v2 ? (cpu.system_usec ?? 0) * 1000 : (split.system ?? 0) * TICK_NS,
      hostUsageNs: hostCpuNs(),
      onlineCpus: cpus().length,
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledTimeNs: v2 ? (cpu.throttled_usec ?? 0) * 1000 : (cpu.throttled_time ?? 0),
    },
    memory: {
      usageBytes: read('memory', 'memory.usage_in_bytes', 'memory.current'),
      maxUsageBytes: read('memory', 'memory.max_usage_in_bytes', 'memory.peak'),
      limitBytes: read('memory', 'memory.limit_in_bytes', 'memory.max'),
      failcnt: v2 ? 0 : number(cgroups.read(id, 'memory', 'memory.failcnt')),
      detail: table(cgroups.read(id, v2 ? '' : 'memory', 'memory.stat')),
    },
    pids: { current: read('pids', 'pids.current', 'pids.current'), limit: read('pids', 'pids.max', 'pids.max') },
    interfaces: interfaces(pid),
  });
}
