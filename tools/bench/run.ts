import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * npm run bench: starts an installation of its own and times the run cycle through the gateway's socket, through the stock CLI, and the
 * kernel's floor. Medians of ROUNDS; a bench fails nobody.
 */
const ROUNDS = 50;
const CLI = new URL('../up/cli.ts', import.meta.url).pathname;

const up = (...args: string[]) => execFileSync(process.execPath, [CLI, ...args], { encoding: 'utf8' });

interface Row {
  readonly name: string;
  readonly samples: number[];
  readonly budgetMs: number | undefined;
}

function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

async function time(rounds: number, work: () => Promise<unknown> | void): Promise<number[]> {
  for (let warm = 0; warm < 5; warm++) await work();
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    await work();
    samples.push(performance.now() - begin);
  }
  return samples;
}

function client(socketPath: string) {
  const agent = new Agent({ keepAlive: true });
  return (method: string, path: string, body?: unknown): Promise<string> =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const call = request(
        {
          socketPath,
          agent,
          method,
          path,
          headers: text ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } : {},
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (answer += chunk));
          response.on('end', () =>
            (response.statusCode ?? 500) < 400 ? resolve(answer) : reject(new Error(`${method} ${path}: ${answer}`)),
          );
        },
      );
      call.once('error', reject);
      call.end(text);
    });
}

type Call = ReturnType<typeof client>;

async function cycle(call: Call, network: string): Promise<void> {
  const { Id } = JSON.parse(
    await call('POST', '/containers/create', { Image: 'busybox', Cmd: ['true'], HostConfig: { NetworkMode: network } }),
  ) as { Id: string };
  await call('POST', `/containers/${Id}/start`);
  await call('POST', `/containers/${Id}/wait`);
  await call('DELETE', `/containers/${Id}`);
}

async function exec(call: Call, container: string): Promise<void> {
  const { Id } = JSON.parse(
    await call('POST', `/containers/${container}/exec`, { Cmd: ['true'], AttachStdout: true }),
  ) as { Id: string };
  await call('POST', `/exec/${Id}/start`, { Detach: false });
}

function floor(root: string): number[] {
  mkdirSync(root, { recursive: true });
  const binary = join(root, 'floor');
  execFileSync('gcc', ['-O2', '-static', '-o', binary, new URL('native-floor/floor.c', import.meta.url).pathname]);
  const folders = ['lower/bin', 'upper', 'work', 'root'].map((name) => join(root, name));
  for (const path of folders) mkdirSync(path, { recursive: true });
  execFileSync('cp', ['/bin/busybox', join(root, 'lower/bin')]);
  const args = ['lower', 'upper', 'work', 'root'].map((name) => join(root, name));
  return [Number(execFileSync(binary, [...args, String(ROUNDS)], { encoding: 'utf8' })) / 1000];
}

/** Proportional memory of the whole installation, MiB. */
function memoryMiB(pids: readonly number[]): number {
  const total = pids.reduce(
    (sum, pid) =>
      sum +
      Number(/^Pss:\s+(\d+)/m.exec(execFileSync('cat', [`/proc/${pid}/smaps_rollup`], { encoding: 'utf8' }))?.[1] ?? 0),
    0,
  );
  return total / 1024;
}

const dataRoot = mkdtempSync(join(tmpdir(), 'gantry-bench-'));
const screen = up(
  'start',
  '--data-root',
  dataRoot,
  '--registry',
  `127.0.0.1:${30_000 + (process.pid % 10_000)}`,
  '--detach',
);
const host = /export DOCKER_HOST=(\S+)/.exec(screen)?.[1] ?? '';
const environment = { ...process.env, DOCKER_HOST: host };
const rows: Row[] = [];
try {
  const pids = [...screen.matchAll(/pid (\d+)/g)].flatMap(([, pid]) =>
    execFileSync('sh', ['-c', `echo ${pid}; pgrep -P ${pid} || true`], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map(Number),
  );
  const memory = memoryMiB(pids);
  const image = join(dataRoot, 'busybox.tar');
  execFileSync('sh', [
    '-c',
    `d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin; for a in true sh sleep; do ln -s busybox $d/bin/$a; done; tar -C $d -cf ${image} .`,
  ]);
  execFileSync('docker', ['import', image, 'busybox'], { env: environment });
  const call = client(host.replace('unix://', ''));
  rows.push({
    name: 'kernel floor (clone, overlay, proc, dev, sys, pivot_root, exec, wait)',
    samples: floor(join(dataRoot, 'floor')),
    budgetMs: undefined,
  });
  rows.push({
    name: 'create, start, wait, remove by API, network none',
    samples: await time(ROUNDS, () => cycle(call, 'none')),
    budgetMs: 10,
  });
  rows.push({
    name: 'create, start, wait, remove by API, network bridge',
    samples: await time(ROUNDS, () => cycle(call, 'bridge')),
    budgetMs: 12,
  });
  const run = (network: string) =>
    void execFileSync('docker', ['run', '--rm', '--network', network, 'busybox', 'true'], { env: environment });
  rows.push({
    name: 'docker run --rm busybox true, network none',
    samples: await time(ROUNDS, () => run('none')),
    budgetMs: 30,
  });
  rows.push({
    name: 'docker run --rm busybox true, network bridge',
    samples: await time(ROUNDS, () => run('bridge')),
    budgetMs: 33,
  });
  rows.push({
    name: 'docker ps (the CLI alone)',
    samples: await time(ROUNDS, () => void execFileSync('docker', ['ps'], { env: environment })),
    budgetMs: undefined,
  });
  const { Id } = JSON.parse(await call('POST', '/containers/create', { Image: 'busybox', Cmd: ['sleep', '600'] })) as {
    Id: string;
  };
  await call('POST', `/containers/${Id}/start`);
  rows.push({
    name: 'exec true in a running container by API',
    samples: await time(ROUNDS, () => exec(call, Id)),
    budgetMs: 4,
  });
  await call('DELETE', `/containers/${Id}?force=1`);
  process.stdout.write(`| path | median ms | p95 ms | budget ms |\n| --- | --- | --- | --- |\n`);
  for (const { name, samples, budgetMs } of rows)
    process.stdout.write(
      `| ${name} | ${quantile(samples, 0.5).toFixed(1)} | ${quantile(samples, 0.95).toFixed(1)} | ${budgetMs ?? '–'} |\n`,
    );
  process.stdout.write(
    `| proportional memory of the whole idle installation | ${memory.toFixed(0)} MiB | | 300 MiB |\n`,
  );
} finally {
  up('stop', '--data-root', dataRoot, '--containers');
  rmSync(dataRoot, { recursive: true, force: true });
}
