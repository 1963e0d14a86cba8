import { InvalidArgument } from '@gantry/errors';
import type { CapabilitySets } from '@gantry/linux';

/** capabilities(7), by number. */
export const CAPABILITIES =
  `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
  NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
  SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND
  AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`
    .split(/\s+/)
    .map((name) => `CAP_${name}`);

/** What Docker gives a container that asks for nothing (docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities). */
export const DEFAULT_CAPABILITIES =
  `CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
  KILL AUDIT_WRITE`
    .split(/\s+/)
    .map((name) => `CAP_${name}`);

function normalise(name: string): string {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return upper;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!CAPABILITIES.includes(full)) throw new InvalidArgument(`invalid CapAdd: unknown capability: "${name}"`);
  return full;
}

/** Names of what a container may do: the default, plus, minus; `ALL` means every one. */
export function effectiveCapabilities(
  add: readonly string[],
  drop: readonly string[],
  privileged: boolean,
): Set<string> {
  if (privileged) return new Set(CAPABILITIES);
  const added = add.map(normalise);
  const dropped = drop.map(normalise);
  const base = dropped.includes('ALL') ? [] : added.includes('ALL') ? CAPABILITIES : DEFAULT_CAPABILITIES;
  const result = new Set<string>(base);
  for (const name of dropped) result.delete(name);
  for (const name of added) if (name !== 'ALL') result.add(name);
  return result;
}

/** As Docker since 20.10: nothing inheritable, nothing ambient. */
export function capabilitySets(names: ReadonlySet<string>): CapabilitySets {
  const mask = [...names].reduce((bits, name) => bits | (1n << BigInt(CAPABILITIES.indexOf(name))), 0n);
  return { bounding: mask, effective: mask, permitted: mask, inheritable: 0n, ambient: 0n };
}
