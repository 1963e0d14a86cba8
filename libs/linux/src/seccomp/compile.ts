import { arch, release } from 'node:os';
import { InvalidArgument } from '@gantry/errors';
import { compileFilter } from '../addon.js';
import type { SeccompCondition, SeccompProfile, SeccompRule } from './profile.js';

/** SCMP_ACT_* of seccomp.h; an errno or trace number goes into the low half. */
const ACTIONS: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0x00000000,
  SCMP_ACT_KILL_THREAD: 0x00000000,
  SCMP_ACT_KILL_PROCESS: 0x80000000,
  SCMP_ACT_TRAP: 0x00030000,
  SCMP_ACT_ERRNO: 0x00050000,
  SCMP_ACT_TRACE: 0x7ff00000,
  SCMP_ACT_LOG: 0x7ffc0000,
  SCMP_ACT_ALLOW: 0x7fff0000,
};
const WITH_NUMBER = new Set(['SCMP_ACT_ERRNO', 'SCMP_ACT_TRACE']);
const OPERATORS: Readonly<Record<string, number>> = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
};
const MASKED_EQ = 7;
const EPERM = 1;

/** Go's names (as profiles have them) and libseccomp's own, by Node's. */
const HOST_ARCHITECTURES: Readonly<Record<string, { go: string; native: string }>> = {
  x64: { go: 'amd64', native: 'SCMP_ARCH_X86_64' },
  arm64: { go: 'arm64', native: 'SCMP_ARCH_AARCH64' },
  riscv64: { go: 'riscv64', native: 'SCMP_ARCH_RISCV64' },
};

function action(name: string, number: number | undefined): number {
  const value = ACTIONS[name];
  if (value === undefined) throw new InvalidArgument(`seccomp profile: unknown action "${name}"`);
  return WITH_NUMBER.has(name) ? value | (number ?? EPERM) : value;
}

function isKernelAtLeast(wanted: string, kernel: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10));
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

function applies({ includes, excludes }: SeccompRule, capabilities: ReadonlySet<string>, goArch: string): boolean {
  const matches = (condition: SeccompCondition) =>
    (!condition.arches?.length || condition.arches.includes(goArch)) &&
    (!condition.caps?.length || condition.caps.every((name) => capabilities.has(name))) &&
    (condition.minKernel === undefined || isKernelAtLeast(condition.minKernel, release()));
  if (includes && !matches(includes)) return false;
  if (excludes?.arches?.includes(goArch)) return false;
  return !excludes?.caps?.some((name) => capabilities.has(name));
}

function formatRule(rule: SeccompRule): string[] {
  const value = action(rule.action, rule.errnoRet);
  const conditions = (rule.args ?? []).map(({ index, op, value: first, valueTwo = 0 }) => {
    const operator = OPERATORS[op];
    if (operator === undefined) throw new InvalidArgument(`seccomp profile: unknown operator "${op}"`);
    // libseccomp takes the mask first and then what has to remain; Docker's profiles say the mask in `value`.
    return operator === MASKED_EQ ? `${index} ${operator} ${first} ${valueTwo}` : `${index} ${operator} ${first} 0`;
  });
  const names = rule.names ?? (rule.name === undefined ? [] : [rule.name]);
  return names.map((name) => {
    if (!/^[a-z0-9_]+$/i.test(name)) throw new InvalidArgument(`seccomp profile: "${name}" is no system call`);
    return [value, name, ...conditions].join(' ');
  });
}

function architecturesOf(profile: SeccompProfile, native: string): string[] {
  const names = profile.archMap?.length
    ? (profile.archMap.find(({ architecture }) => architecture === native)?.subArchitectures ?? [])
    : (profile.architectures ?? []);
  return [native, ...names.filter((name) => name !== native)].map((name) =>
    name.replace('SCMP_ARCH_', '').toLowerCase(),
  );
}

const compiled = new WeakMap<SeccompProfile, Map<string, Promise<Buffer>>>();

/**
 * The profile as BPF for this host and this set of capabilities (`CAP_SYS_ADMIN` …). Remembered per profile object. Throws
 * `InvalidArgument` that names what is wrong in it.
 */
export function compileSeccomp(profile: SeccompProfile, capabilities: ReadonlySet<string>): Promise<Buffer> {
  const byCapabilities = compiled.get(profile) ?? new Map<string, Promise<Buffer>>();
  compiled.set(profile, byCapabilities);
  const key = [...capabilities].sort().join();
  const known = byCapabilities.get(key) ?? compile(profile, capabilities);
  byCapabilities.set(key, known);
  known.catch(() => byCapabilities.delete(key));
  return known;
}

async function compile(profile: SeccompProfile, capabilities: ReadonlySet<string>): Promise<Buffer> {
  const host = HOST_ARCHITECTURES[arch()];
  if (!host) throw new InvalidArgument(`seccomp is not supported on ${arch()}`);
  const rules = (profile.syscalls ?? []).filter((rule) => applies(rule, capabilities, host.go)).flatMap(formatRule);
  return compileFilter(
    architecturesOf(profile, host.native).join(' '),
    rules.join('\n'),
    action(profile.defaultAction, profile.defaultErrnoRet),
  );
}
