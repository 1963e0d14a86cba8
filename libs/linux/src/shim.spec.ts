import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FrameDecoder, FrameType } from './frames.js';
import type { ContainerPlan } from './plan.js';
import { LaunchError, readExit, Shim, type ShimStream } from './shim.js';
import { NATIVE_DIRECTORY, Zygote } from './zygote.js';

const root = mkdtempSync(join(tmpdir(), 'gantry-shim-'));
const lower = join(root, 'lower');
const cgroups = ['memory', 'pids', 'freezer'].map(
  (controller) => `/sys/fs/cgroup/${controller}/gantry/shimtest-${process.pid}`,
);
const ALL = (1n << 41n) - 1n;
let zygote: Zygote;
let count = 0;

type PlanChange = Partial<Omit<ContainerPlan, 'process'>> & { process?: Partial<ContainerPlan['process']> };

function planFor(argv: string[], change: PlanChange = {}): ContainerPlan {
  const id = `c${++count}`;
  const runDir = join(root, id);
  for (const name of ['', 'upper', 'work']) mkdirSync(join(runDir, name), { recursive: true });
  const { process: processChange, ...rest } = change;
  return {
    id,
    runDir,
    namespaces: { pid: 'new', net: 'new', ipc: 'new', mnt: 'new', uts: 'new', cgroup: 'new' },
    cgroup: {
      directories: cgroups.map((path) => `${path}/${id}`),
      writes: [{ path: `${cgroups[1]}/${id}/pids.max`, value: '64' }],
    },
    rootfs: { lowerdirs: [lower], upperdir: join(runDir, 'upper'), workdir: join(runDir, 'work'), readOnly: false },
    mounts: [
      { type: 'proc', source: 'proc', target: '/proc', noSuid: true, noDev: true, noExec: true, noSymlink: true },
      { type: 'tmpfs', source: 'tmpfs', target: '/dev', data: 'mode=755,size=65536k', noSuid: true },
      {
        type: 'devpts',
        source: 'devpts',
        target: '/dev/pts',
        data: 'newinstance,ptmxmode=0666,mode=0620,gid=5',
        noSuid: true,
        noExec: true,
      },
      {
        type: 'sysfs',
        source: 'sysfs',
        target: '/sys',
        readOnly: true,
        noSuid: true,
        noDev: true,
        noExec: true,
        noSymlink: true,
      },
    ],
    devices: [{ path: '/dev/null', type: 'c', major: 1, minor: 3, mode: 0o666, uid: 0, gid: 0 }],
    symlinks: [{ target: '/proc/self/fd', path: '/dev/fd' }],
    maskedPaths: ['/proc/kcore', '/proc/acpi', '/proc/not-there'],
    readonlyPaths: ['/proc/sys'],
    sysctls: {},
    hostname: 'box',
    rlimits: [],
    process: {
      argv,
      env: ['PATH=/bin'],
      cwd: '/',
      user: '',
      additionalGids: [],
      tty: false,
      openStdin: false,
      stdinOnce: false,
      capabilities: { bounding: ALL, effective: ALL, permitted: ALL, inheritable: 0n, ambient: 0n },
      noNewPrivileges: false,
      ...processChange,
    },
    log: { path: join(runDir, 'log') },
    ...rest,
  };
}

function readLog(path: string): string {
  const bytes = readFileSync(path);
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt32LE(at + 12);
    text += bytes.toString('utf8', at + 16, at + 16 + length);
    expect(bytes.readUInt32LE(at + 16 + length)).toBe(length + 20);
    at += length + 20;
  }
  return text;
}

async function run(
  argv: string[],
  change?: PlanChange,
): Promise<{ code: number; output: string; plan: ContainerPlan }> {
  const plan = planFor(argv, change);
  const shim = await zygote.launch(plan);
  const { code } = await shim.exited;
  return { code, output: plan.log ? readLog(plan.log.path) : '', plan };
}

async function collect(stream: ShimStream): Promise<string> {
  const parts: Buffer[] = [];
  for await (const chunk of stream) parts.push(chunk as Buffer);
  return Buffer.concat(parts).toString();
}

function payloads(frames: string): string {
  return [...new FrameDecoder().push(Buffer.from(frames, 'latin1'))].map((frame) => frame.payload.toString()).join('');
}

beforeAll(async () => {
  for (const name of ['bin', 'etc', 'tmp']) mkdirSync(join(lower, name), { recursive: true });
  cpSync('/bin/busybox', join(lower, 'bin/busybox'));
  for (const applet of [
    'sh',
    'echo',
    'true',
    'cat',
    'id',
    'sleep',
    'hostname',
    'ls',
    'ps',
    'stty',
    'tty',
    'seq',
    'head',
    'kill',
    'env',
    'pwd',
    'touch',
    'mount',
  ]) {
    symlinkSync('busybox', join(lower, 'bin', applet));
  }
  writeFileSync(join(lower, 'bin/not-a-program'), 'x', { mode: 0o755 });
  writeFileSync(join(lower, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nada:x:1000:1001::/home/ada:/bin/sh\n');
  writeFileSync(join(lower, 'etc/group'), 'root:x:0:\nstaff:x:1001:\naudio:x:29:ada\n');
  for (const path of cgroups) mkdirSync(path, { recursive: true });
  zygote = await Zygote.start({ socketPath: join(root, 'zygote.sock') });
});

afterAll(async () => {
  await zygote.close();
  for (const path of cgroups) {
    expect(readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())).toEqual([]);
    rmdirSync(path);
  }
  rmSync(root, { recursive: true });
});

describe('a container', () => {
  it('runs in namespaces of its own and ends with its exit code', async () => {
    const { code, output } = await run(['sh', '-c', 'hostname; ps | busybox wc -l; echo $$; exit 7']);
    expect(code).toBe(7);
    const [hostname, processes, pid] = output.trim().split('\n');
    expect(hostname).toBe('box');
    expect(Number(processes)).toBeLessThan(6);
    expect(pid).toBe('1');
  });

  it.each(['pid', 'net', 'ipc', 'mnt', 'uts', 'cgroup'])('has a %s namespace that is not the host’s', async (kind) => {
    const plan = planFor(['sleep', '60']);
    const shim = await zygote.launch(plan);
    const inside = readlinkSync(`/proc/${shim.pid}/ns/${kind}`);
    await shim.kill(9);
    expect((await shim.exited).code).toBe(137);
    expect(inside).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
  });

  it('writes to its upper layer only', async () => {
    const { plan } = await run(['sh', '-c', 'echo new > /etc/new; echo x >> /etc/passwd']);
    expect(existsSync(join(lower, 'etc/new'))).toBe(false);
    expect(readFileSync(join(plan.rootfs.upperdir, 'etc/new'), 'utf8')).toBe('new\n');
  });

  it('sees masked files as empty and protected paths as read-only', async () => {
    const { output } = await run([
      'sh',
      '-c',
      'head -c1 /proc/kcore | busybox wc -c; ls /proc/acpi 2>/dev/null | busybox wc -l; echo 1 > /proc/sys/kernel/panic || echo refused',
    ]);
    expect(output).toContain('0\n0\n');
    expect(output).toContain('refused');
  });

  it('is held by the limits of its cgroup', async () => {
    const plan = planFor(['sleep', '60']);
    const shim = await zygote.launch(plan);
    expect(readFileSync(`${plan.cgroup.directories[1]}/pids.max`, 'utf8').trim()).toBe('64');
    expect(readFileSync(`${plan.cgroup.directories[1]}/cgroup.procs`, 'utf8').trim()).toBe(String(shim.pid));
    await shim.kill(9);
    await shim.exited;
    expect(plan.cgroup.directories.filter((path) => existsSync(path))).toEqual([]);
  });

  it.each([
    ['ada', 'uid=1000(ada) gid=1001(staff) groups=29(audio)'],
    ['1000:0', 'uid=1000(ada) gid=0(root)'],
    ['4242', 'uid=4242 gid=0(root)'],
  ])('runs as user %s', async (user, expected) => {
    const { output } = await run(['id'], { process: { user } });
    expect(output.trim().replace('groups=1001(staff),29(audio)', 'groups=29(audio)')).toContain(expected);
  });

  it.each([
    [['nothing-here'], {}, 127, 'executable file not found in $PATH'],
    [['/bin/nothing'], {}, 127, 'No such file or directory'],
    [['/etc'], {}, 126, 'Permission denied'],
    [['/bin/not-a-program'], {}, 126, 'Exec format error'],
    [['true'], { user: 'nobody-here' }, 125, 'unable to find user nobody-here: no matching entries in passwd file'],
  ])('refuses %j %j with %i', async (argv, process, exitCode, message) => {
    const plan = planFor(argv, { process });
    const failure = await zygote.launch(plan).then(
      () => undefined,
      (error: unknown) => error as LaunchError,
    );
    expect(failure).toBeInstanceOf(LaunchError);
    expect(failure?.exitCode).toBe(exitCode);
    expect(failure?.message).toContain(message);
    expect(plan.cgroup.directories.filter((path) => existsSync(path))).toEqual([]);
  });

  it('logs every line once, long ones in parts', async () => {
    const { output, plan } = await run([
      'sh',
      '-c',
      'seq 1 20000; busybox yes a | busybox tr -d "\\n" | head -c 40000',
    ]);
    const lines = output.split('\n');
    expect(lines.slice(0, 20000)).toEqual(Array.from({ length: 20000 }, (_, index) => String(index + 1)));
    expect(lines[20000]).toHaveLength(40000);
    expect(plan.log && readFileSync(plan.log.path).length).toBeGreaterThan(100_000);
  });

  it('rotates its log', async () => {
    const base = planFor(['true']);
    const path = join(base.runDir, 'rotated');
    await run(['seq', '1', '100000'], { log: { path, maxSizeBytes: 300_000, maxFiles: 3 } });
    expect(readdirSync(base.runDir).filter((name) => name.startsWith('rotated'))).toEqual([
      'rotated',
      'rotated.1',
      'rotated.2',
    ]);
    const text = ['rotated.2', 'rotated.1', 'rotated'].map((name) => readLog(join(base.runDir, name))).join('');
    const lines = text.trim().split('\n').map(Number);
    expect(lines.at(-1)).toBe(100_000);
    expect(lines.every((line, index) => index === 0 || line === (lines[index - 1] ?? 0) + 1)).toBe(true);
  });

  it('reads what is attached to its input up to its end, and answers to the last byte', async () => {
    const shim = await zygote.launch(planFor(['cat'], { process: { openStdin: true, stdinOnce: true } }));
    const stream = await shim.attach({ stdin: true, stdout: true, stderr: true, raw: true });
    const sent = Buffer.alloc(3_000_000, 'gantry ');
    stream.end(sent);
    expect(await collect(stream)).toBe(sent.toString());
    expect((await stream.exited).code).toBe(0);
  });

  it('keeps stdout and stderr apart in frames', async () => {
    const shim = await zygote.launch(
      planFor(['sh', '-c', 'read x; echo out; echo err >&2'], { process: { openStdin: true } }),
    );
    const stream = await shim.attach({ stdin: true, stdout: true, stderr: true, raw: false });
    stream.write('go\n');
    const frames: string[] = [];
    const decoder = new FrameDecoder();
    for await (const chunk of stream) {
      for (const frame of decoder.push(chunk as Buffer)) frames.push(`${frame.type}:${frame.payload.toString()}`);
    }
    expect(frames.sort()).toEqual([`${FrameType.stdout}:out\n`, `${FrameType.stderr}:err\n`]);
  });

  it('has a terminal that can be resized', async () => {
    const shim = await zygote.launch(
      planFor(['sh', '-c', 'read x; tty; stty size; ls -l /dev/console'], {
        process: { tty: true, openStdin: true, consoleSize: { rows: 10, columns: 20 } },
      }),
    );
    const stream = await shim.attach({ stdin: true, stdout: true, stderr: true, raw: true });
    await shim.resize(40, 132);
    stream.write('go\n');
    const output = await collect(stream);
    expect(output).toContain('/dev/pts/0');
    expect(output).toContain('40 132');
  });
});

describe('an exec', () => {
  it('runs inside, with its own code, user and directory', async () => {
    const shim = await zygote.launch(planFor(['sleep', '60']));
    const session = await shim.exec({
      ...planFor(['x']).process,
      id: 'e1',
      argv: ['sh', '-c', 'hostname; pwd; id -u; exit 3'],
      cwd: '/tmp',
      user: 'ada',
    });
    const output = payloads(Buffer.from(await collect(session.stream)).toString('latin1'));
    expect(output).toBe('box\n/tmp\n1000\n');
    expect((await session.exited).code).toBe(3);
    expect(readlinkSync(`/proc/${shim.pid}/ns/mnt`)).not.toBe(readlinkSync('/proc/self/ns/mnt'));
    await shim.kill(9);
    await shim.exited;
  });

  it('fails as docker does where the command is not there', async () => {
    const shim = await zygote.launch(planFor(['sleep', '60']));
    await expect(shim.exec({ ...planFor(['x']).process, id: 'e2', argv: ['nope'] })).rejects.toMatchObject({
      exitCode: 127,
    });
    await shim.kill(15).then(() => shim.kill(9));
    await shim.exited;
  });
});

describe('the agent’s death', () => {
  it('leaves the container running, to be found again with its exit code', async () => {
    const second = await Zygote.start({ socketPath: join(root, 'second.sock') });
    const plan = planFor(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9; do echo $i; busybox usleep 50000; done; exit 5']);
    const shim = await second.launch(plan);
    shim.close();
    await second.close();
    const found = await Shim.connect(plan.runDir);
    expect(found?.pid).toBe(shim.pid);
    expect((await found?.exited)?.code).toBe(5);
    expect(readLog(join(plan.runDir, 'log'))).toBe('1\n2\n3\n4\n5\n6\n7\n8\n9\n');
    expect(await Shim.connect(plan.runDir)).toBeUndefined();
    expect((await readExit(plan.runDir))?.code).toBe(5);
  });

  it('ends the zygote with it', async () => {
    const owner = spawn(`${NATIVE_DIRECTORY}gantry-zygote`, [join(root, 'third.sock')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(owner.stdout, 'data');
    owner.stdin.end();
    const [code] = (await once(owner, 'exit')) as [number];
    expect(code).toBe(0);
  });

  it('and the shim’s death end the container', async () => {
    const plan = planFor(['sleep', '60']);
    const shim = await zygote.launch(plan);
    const parent = Number(/PPid:\s+(\d+)/.exec(readFileSync(`/proc/${shim.pid}/status`, 'utf8'))?.[1]);
    process.kill(parent, 'SIGKILL');
    await expect(shim.exited).rejects.toThrow('shim has gone');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(existsSync(`/proc/${shim.pid}`) && readFileSync(`/proc/${shim.pid}/stat`, 'utf8').includes(') S')).toBe(
      false,
    );
    for (const path of plan.cgroup.directories) spawnSync('rmdir', [path]);
  });
});
