import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';

const CACHE = '/var/cache/gantry-test';

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; a failure is a result, not an exception. */
export function run(
  command: string,
  args: readonly string[],
  options: { input?: string | Buffer; env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(
      command,
      [...args],
      {
        env: { ...process.env, ...options.env },
        cwd: options.cwd,
        maxBuffer: 256 * 1024 * 1024,
        encoding: 'utf8',
        timeout: 110_000,
      },
      (error, stdout, stderr) => {
        resolve({ code: error ? (typeof error.code === 'number' ? error.code : 255) : 0, stdout, stderr });
      },
    );
    child.stdin?.on('error', () => undefined); // the program may end before it has read everything
    child.stdin?.end(options.input ?? '');
  });
}

const environment = () => ({ DOCKER_HOST: inject('dockerHost'), DOCKER_BUILDKIT: '0', DOCKER_CLI_HINTS: 'false' });

/** The stock docker CLI against the platform under test. */
export function docker(...args: string[]): Promise<Result> {
  return run('docker', args, { env: environment() });
}

export function dockerWithInput(input: string | Buffer, ...args: string[]): Promise<Result> {
  return run('docker', args, { input, env: environment() });
}

/** The CLI's standard output; throws with its error where it fails. */
export async function dockerOk(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await docker(...args);
  if (code !== 0) throw new Error(`docker ${args.join(' ')} ended with ${code}: ${stderr || stdout}`);
  return stdout.trim();
}

export function dockerChild(...args: string[]): ChildProcess {
  return spawn('docker', args, { env: { ...process.env, ...environment() }, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A request to the platform's HTTP door. */
export function http(
  method: string,
  path: string,
  body?: string | Buffer,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: string; headers: NodeJS.Dict<string | string[]> }> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath: inject('dockerHost').replace('unix://', ''), method, path, headers },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text, headers: response.headers }));
      },
    );
    call.once('error', reject);
    call.end(body);
  });
}

/** Every service of the installation with its pid, as `npm run status` shows them. */
export function services(): Promise<{ name: string; pid: number }[]> {
  return new Promise((resolve, reject) => {
    const socket = connect(join(inject('runDir'), 'up.sock'));
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    socket.once('error', reject);
    socket.once('connect', () => socket.write('status\n'));
    socket.once('close', () => resolve((JSON.parse(text) as { services: { name: string; pid: number }[] }).services));
    socket.once('end', () => socket.end());
  });
}

/** Waits until a condition holds. Throws after the time. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 30_000,
): Promise<void> {
  for (const until = Date.now() + timeoutMs; Date.now() < until;) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within ${timeoutMs} ms`);
}

let busybox: Promise<void> | undefined;

/** Makes sure that the image `busybox` is there: Debian's static binary and a few links. */
export function ensureBusybox(): Promise<void> {
  busybox ??= (async () => {
    if ((await docker('image', 'inspect', 'busybox')).code === 0) return;
    const root = mkdtempSync(join(tmpdir(), 'gantry-busybox-'));
    const script = `mkdir -p bin etc tmp root; cp /bin/busybox bin/; for a in $(/bin/busybox --list | grep -vx busybox); do ln -s busybox bin/$a; done
      echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd; echo 'root:x:0:' > etc/group; chmod 1777 tmp; tar -cf rootfs.tar bin etc tmp root`;
    await run('sh', ['-ec', script], { cwd: root });
    await dockerOk('import', join(root, 'rootfs.tar'), 'busybox');
    rmSync(root, { recursive: true });
  })();
  return busybox;
}

/** A Debian root file system with make and Python as a tar; made once a machine. */
export async function debianRootfs(): Promise<string> {
  const path = join(CACHE, 'debian-make-python.tar');
  if (existsSync(path)) return path;
  mkdirSync(CACHE, { recursive: true });
  const suite = /VERSION_CODENAME=(\w+)/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm';
  const { code, stderr } = await run('mmdebstrap', [
    '--quiet',
    '--variant=minbase',
    '--include=make,python3-minimal',
    suite,
    `${path}.part.tar`,
  ]);
  if (code !== 0) throw new Error(`mmdebstrap: ${stderr}`);
  await run('mv', [`${path}.part.tar`, path]);
  return path;
}

/** A tar with one entry that honest tools do not write. */
export function hostileTar(name: string, type = '0', link = '', rest: Buffer = Buffer.alloc(1024)): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write(['0000644', '0000000', '0000000', '00000000000', '00000000001', '        '].join('\0'), 100);
  header.write(type, 156);
  header.write(link, 157, 100);
  header.write('ustar\u0000' + '00', 257);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return Buffer.concat([header, rest]);
}
