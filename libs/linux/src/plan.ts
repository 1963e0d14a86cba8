/**
 * The plan that TypeScript compiles and gantry-shim carries out. The wire form is described in docs/native.md and decoded by
 * native/shim/plan.c; the two change together.
 */

export type NamespaceKind = 'pid' | 'net' | 'ipc' | 'mnt' | 'uts' | 'cgroup';

/** `new`, the host's own, or the one a path (`/proc/1/ns/net`, a pinned mount) names. */
export type NamespaceMode = 'new' | 'host' | { readonly path: string };

export interface PlanMount {
  /** A bind of `source`, or a new file system of `type` with mount(8) options in `data`. */
  readonly type: string;
  readonly source: string;
  readonly target: string;
  readonly data?: string;
  readonly readOnly?: boolean;
  readonly noSuid?: boolean;
  readonly noDev?: boolean;
  readonly noExec?: boolean;
  readonly relatime?: boolean;
  /** Bind: with what is mounted below the source; `readOnly` then holds for all of it unless `shallowReadOnly`. */
  readonly recursive?: boolean;
  readonly shallowReadOnly?: boolean;
  readonly propagation?: 'private' | 'slave' | 'shared';
  /** A missing target is made as a file. */
  readonly isFile?: boolean;
  /** The target's path may not lead over a symbolic link of the image's (procfs, sysfs). */
  readonly noSymlink?: boolean;
  /** Skipped where the kernel lacks the file system. */
  readonly optional?: boolean;
}

export interface PlanDevice {
  readonly path: string;
  readonly type: 'c' | 'b';
  readonly major: number;
  readonly minor: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Bit n is capability n of capabilities(7). */
export interface CapabilitySets {
  readonly bounding: bigint;
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
  readonly ambient: bigint;
}

export interface PlanProcess {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  /** Absolute; made where missing. */
  readonly cwd: string;
  /** `""`, `name`, `uid`, `name:group` …: looked up in the image's own files. */
  readonly user: string;
  readonly additionalGids: readonly number[];
  readonly tty: boolean;
  readonly consoleSize?: { readonly rows: number; readonly columns: number };
  readonly openStdin: boolean;
  readonly stdinOnce: boolean;
  readonly capabilities: CapabilitySets;
  readonly noNewPrivileges: boolean;
  /** A compiled filter (struct sock_filter[]). */
  readonly seccomp?: Buffer;
}

export interface ContainerPlan {
  readonly id: string;
  /** Where the shim keeps its socket and the exit status. Exists. */
  readonly runDir: string;
  readonly namespaces: Readonly<Record<NamespaceKind, NamespaceMode>>;
  readonly cgroup: CgroupPlan;
  readonly rootfs: {
    /** Top first. */
    readonly lowerdirs: readonly string[];
    readonly upperdir: string;
    readonly workdir: string;
    readonly readOnly: boolean;
  };
  readonly mounts: readonly PlanMount[];
  readonly devices: readonly PlanDevice[];
  readonly symlinks: readonly { readonly target: string; readonly path: string }[];
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  /** By path below /proc/sys (`net/ipv4/ip_forward`). */
  readonly sysctls: Readonly<Record<string, string>>;
  readonly hostname?: string;
  readonly domainname?: string;
  readonly rlimits: readonly { readonly resource: number; readonly soft: bigint; readonly hard: bigint }[];
  readonly oomScoreAdj?: number;
  readonly process: PlanProcess;
  readonly log?: { readonly path: string; readonly maxSizeBytes?: number; readonly maxFiles?: number };
  /** Output waits in its pipe until `Shim.release()`: for who attaches before the first byte. */
  readonly holdOutput?: boolean;
}

export interface CgroupPlan {
  /** Made in this order and entered; removed at the end. */
  readonly directories: readonly string[];
  readonly writes: readonly { readonly path: string; readonly value: string; readonly optional?: boolean }[];
  /** Version 2: the process is born here. */
  readonly v2?: string;
}

export interface ExecPlan extends PlanProcess {
  readonly id: string;
}

const MAGIC = 0x314c5047;

const enum Op {
  Id = 1,
  RunDir,
  Namespace,
  CgroupDir,
  CgroupWrite,
  CgroupV2,
  Rootfs,
  Lower,
  Mount,
  Device,
  Symlink,
  Mask,
  Readonly,
  Sysctl,
  Hostname,
  Domainname,
  Rlimit,
  Capabilities,
  NoNewPrivileges,
  Seccomp,
  OomScore,
  Arg,
  Env,
  Cwd,
  User,
  Group,
  Tty,
  Stdin,
  Log,
  Hold,
}

/** CLONE_NEW* of sched.h. */
const CLONE_FLAGS: Readonly<Record<NamespaceKind, number>> = {
  mnt: 0x00020000,
  cgroup: 0x02000000,
  uts: 0x04000000,
  ipc: 0x08000000,
  pid: 0x20000000,
  net: 0x40000000,
};

const MountFlag = { bind: 1, recursive: 2, recursiveAttributes: 4, file: 8, noSymlink: 16, optional: 32 } as const;
/** MOUNT_ATTR_* of linux/mount.h. */
const MountAttribute = { readOnly: 0x1n, noSuid: 0x2n, noDev: 0x4n, noExec: 0x8n } as const;
/** MS_* of sys/mount.h. */
const PROPAGATION = { private: 1n << 18n, slave: 1n << 19n, shared: 1n << 20n } as const;
const DEVICE_TYPE = { c: 0o020000, b: 0o060000 } as const;

type Field = string | number | bigint | Buffer;

/** Writes operations one after the other. Numbers are u32, bigints u64, strings length-prefixed and NUL-terminated. */
class PlanWriter {
  readonly #parts: Buffer[] = [];
  #length = 0;

  op(op: Op, flags: number, ...fields: readonly Field[]): void {
    const payload = fields.map(encodeField);
    const header = Buffer.alloc(8);
    header.writeUInt16LE(op, 0);
    header.writeUInt16LE(flags, 2);
    header.writeUInt32LE(
      payload.reduce((sum, part) => sum + part.length, 0),
      4,
    );
    for (const part of [header, ...payload]) {
      this.#parts.push(part);
      this.#length += part.length;
    }
  }

  finish(): Buffer {
    const header = Buffer.alloc(8);
    header.writeUInt32LE(MAGIC, 0);
    header.writeUInt32LE(this.#length, 4);
    return Buffer.concat([header, ...this.#parts]);
  }
}

function encodeField(field: Field): Buffer {
  if (Buffer.isBuffer(field)) return field;
  if (typeof field === 'number') {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(field | 0);
    return bytes;
  }
  if (typeof field === 'bigint') {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, field));
    return bytes;
  }
  if (field.includes('\0')) throw new RangeError(`a string of a plan holds a NUL: ${JSON.stringify(field)}`);
  const length = Buffer.byteLength(field);
  const bytes = Buffer.alloc(length + 5);
  bytes.writeUInt32LE(length, 0);
  bytes.write(field, 4);
  return bytes;
}

function writeMount(writer: PlanWriter, mount: PlanMount): void {
  const isBind = mount.type === 'bind';
  const flags =
    (isBind ? MountFlag.bind : 0) |
    (mount.recursive ? MountFlag.recursive : 0) |
    (mount.recursive && !mount.shallowReadOnly ? MountFlag.recursiveAttributes : 0) |
    (mount.isFile ? MountFlag.file : 0) |
    (mount.noSymlink ? MountFlag.noSymlink : 0) |
    (mount.optional ? MountFlag.optional : 0);
  const attributes =
    (mount.readOnly ? MountAttribute.readOnly : 0n) |
    (mount.noSuid ? MountAttribute.noSuid : 0n) |
    (mount.noDev ? MountAttribute.noDev : 0n) |
    (mount.noExec ? MountAttribute.noExec : 0n);
  const propagation = mount.propagation ? PROPAGATION[mount.propagation] : 0n;
  writer.op(Op.Mount, flags, attributes, propagation, mount.type, mount.source, mount.target, mount.data ?? '');
}

function writeProcess(writer: PlanWriter, process: PlanProcess): void {
  for (const argument of process.argv) writer.op(Op.Arg, 0, argument);
  for (const variable of process.env) writer.op(Op.Env, 0, variable);
  writer.op(Op.Cwd, 0, process.cwd);
  writer.op(Op.User, 0, process.user);
  for (const gid of process.additionalGids) writer.op(Op.Group, 0, gid);
  if (process.tty) writer.op(Op.Tty, 0, process.consoleSize?.rows ?? 0, process.consoleSize?.columns ?? 0);
  if (process.openStdin) writer.op(Op.Stdin, process.stdinOnce ? 1 : 0);
  const { bounding, effective, permitted, inheritable, ambient } = process.capabilities;
  writer.op(Op.Capabilities, 0, bounding, effective, permitted, inheritable, ambient);
  if (process.noNewPrivileges) writer.op(Op.NoNewPrivileges, 0);
  if (process.seccomp) writer.op(Op.Seccomp, 0, process.seccomp);
}

function writeHost(writer: PlanWriter, plan: ContainerPlan): void {
  writer.op(Op.Id, 0, plan.id);
  writer.op(Op.RunDir, 0, plan.runDir);
  for (const [kind, mode] of Object.entries(plan.namespaces) as [NamespaceKind, NamespaceMode][]) {
    const code = mode === 'host' ? 0 : mode === 'new' ? 1 : 2;
    writer.op(Op.Namespace, 0, CLONE_FLAGS[kind], code, typeof mode === 'object' ? mode.path : '');
  }
  for (const directory of plan.cgroup.directories) writer.op(Op.CgroupDir, 0, directory);
  for (const { path, value, optional } of plan.cgroup.writes) writer.op(Op.CgroupWrite, optional ? 1 : 0, path, value);
  if (plan.cgroup.v2 !== undefined) writer.op(Op.CgroupV2, 0, plan.cgroup.v2);
  if (plan.log) writer.op(Op.Log, 0, plan.log.path, BigInt(plan.log.maxSizeBytes ?? 0), plan.log.maxFiles ?? 1);
}

function writeRoot(writer: PlanWriter, plan: ContainerPlan): void {
  const { rootfs } = plan;
  writer.op(Op.Rootfs, rootfs.readOnly ? 1 : 0, rootfs.upperdir, rootfs.workdir);
  for (const lowerdir of rootfs.lowerdirs) writer.op(Op.Lower, 0, lowerdir);
  for (const mount of plan.mounts) writeMount(writer, mount);
  for (const { path, type, mode, major, minor, uid, gid } of plan.devices) {
    writer.op(Op.Device, 0, path, DEVICE_TYPE[type] | mode, major, minor, uid, gid);
  }
  for (const { target, path } of plan.symlinks) writer.op(Op.Symlink, 0, target, path);
  for (const path of plan.maskedPaths) writer.op(Op.Mask, 0, path);
  for (const path of plan.readonlyPaths) writer.op(Op.Readonly, 0, path);
  for (const [path, value] of Object.entries(plan.sysctls)) writer.op(Op.Sysctl, 0, path, value);
  if (plan.hostname !== undefined) writer.op(Op.Hostname, 0, plan.hostname);
  if (plan.domainname !== undefined) writer.op(Op.Domainname, 0, plan.domainname);
}

/** The plan as gantry-shim reads it. Throws `RangeError` for a string with a NUL. Pure. */
export function encodePlan(plan: ContainerPlan): Buffer {
  const writer = new PlanWriter();
  writeHost(writer, plan);
  writeRoot(writer, plan);
  for (const { resource, soft, hard } of plan.rlimits) writer.op(Op.Rlimit, 0, resource, soft, hard);
  if (plan.holdOutput) writer.op(Op.Hold, 0);
  if (plan.oomScoreAdj !== undefined) writer.op(Op.OomScore, 0, plan.oomScoreAdj);
  writeProcess(writer, plan.process);
  return writer.finish();
}

/** One more process for a running container. The same form, without the header: it travels in a frame. */
export function encodeExecPlan(plan: ExecPlan): Buffer {
  const writer = new PlanWriter();
  writer.op(Op.Id, 0, plan.id);
  writeProcess(writer, plan);
  return writer.finish().subarray(8);
}
