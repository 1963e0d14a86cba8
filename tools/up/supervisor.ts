import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect, type Server } from 'node:net';
import { get } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child, type ChildOptions } from './child.ts';
import type { Instance } from './instance.ts';
import { postgres, redis } from './stores.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 12_000;

export interface UpOptions {
  readonly instance: Instance;
  readonly hosts: readonly string[];
  readonly registry: string;
  readonly workers: number;
}

/** What an installation says of itself on its control socket. */
export interface Status {
  readonly dataRoot: string;
  readonly instanceId: string;
  readonly version: string;
  readonly hosts: readonly string[];
  readonly registry: string;
  readonly pid: number;
  readonly services: readonly { readonly name: string; readonly pid: number | undefined; readonly restarts: number }[];
}

function readyOver(socketPath: string): () => Promise<boolean> {
  return () =>
    new Promise((resolve) => {
      const call = get({ socketPath, path: '/readyz', timeout: 3000 }, (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      });
      call.once('error', () => resolve(false));
      call.once('timeout', () => call.destroy());
    });
}

/** Runs an installation's processes: in order up, in reverse order down, again where one ends by itself. */
export class Supervisor {
  readonly options: UpOptions;
  readonly #children: Child[] = [];
  #control: Server | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: UpOptions) {
    this.options = options;
  }

  get controlPath(): string {
    return join(this.options.instance.runDir, 'up.sock');
  }

  /** Rejects with the culprit's last words where something does not come up; everything is stopped then. */
  async start(onProgress: (text: string) => void): Promise<void> {
    await this.#claim();
    try {
      const database = process.env.DATABASE_URL ? undefined : postgres(this.options.instance);
      const queue = process.env.REDIS_URL ? undefined : redis(this.options.instance);
      this.#reapOrphans();
      await this.#up(
        [database?.child, queue?.child].filter((child) => child !== undefined),
        onProgress,
      );
      const services = this.#services(
        process.env.DATABASE_URL ?? database?.url ?? '',
        process.env.REDIS_URL ?? queue?.url ?? '',
      );
      // The gateway is ready when all the others are.
      await this.#up(services, onProgress);
      this.#remember();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  stop(): Promise<void> {
    this.#stopping ??= (async () => {
      for (const child of [...this.#children].reverse()) await child.stop(STOP_TIMEOUT_MS);
      this.#control?.close();
      rmSync(this.controlPath, { force: true });
      rmSync(this.#pidsPath, { force: true });
    })();
    return this.#stopping;
  }

  status(): Status {
    const { instance, hosts, registry } = this.options;
    const version = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;
    return {
      dataRoot: instance.dataRoot,
      instanceId: instance.id,
      version,
      hosts,
      registry,
      pid: process.pid,
      services: this.#children.map(({ name, pid, restarts }) => ({ name, pid, restarts })),
    };
  }

  async #up(options: readonly ChildOptions[], onProgress: (text: string) => void): Promise<void> {
    const children = options.map((option) => new Child(option));
    this.#children.push(...children);
    for (const child of children) child.start();
    this.#remember();
    await Promise.all(
      children.map(async (child) => {
        if (await child.ready(READY_TIMEOUT_MS)) return onProgress(`${child.name} is ready`);
        throw new Error(`${child.name} does not start:\n${child.lastWords(15)}`);
      }),
    );
  }

  #services(databaseUrl: string, redisUrl: string): ChildOptions[] {
    const { instance, hosts, registry, workers } = this.options;
    const common = {
      PATH: process.env.PATH,
      LC_ALL: 'C.UTF-8',
      GANTRY_DATA_ROOT: instance.dataRoot,
      GANTRY_RUN_DIR: instance.runDir,
      GANTRY_INSTANCE_ID: instance.id,
      GANTRY_LOG_LEVEL: process.env.GANTRY_LOG_LEVEL ?? 'info',
      DATABASE_URL: databaseUrl,
      REDIS_URL: redisUrl,
      GANTRY_REGISTRY_ADDRESS: `tcp://${registry}`,
      GANTRY_LISTEN: hosts.join(','),
      ...(process.env.GANTRY_INSECURE_TCP ? { GANTRY_INSECURE_TCP: process.env.GANTRY_INSECURE_TCP } : {}),
      // Compiled code kept between starts: a second start takes a fraction of the first.
      NODE_COMPILE_CACHE: join(instance.dataRoot, 'compile-cache'),
      // Compression, tar and file reads share these; the four of the default are soon taken.
      UV_THREADPOOL_SIZE: '8',
    };
    const service = (name: string, folder: string, socket: string, env: NodeJS.ProcessEnv = {}): ChildOptions => ({
      name,
      command: process.execPath,
      args: ['--max-semi-space-size=2', '--optimize-for-size', join(ROOT, 'apps', folder, 'dist/main.js')],
      env: { ...common, ...env },
      logPath: join(instance.dataRoot, `logs/${name}.log`),
      isReady: readyOver(join(instance.runDir, socket)),
    });
    const builders = existsSync(join(ROOT, 'apps/builder/dist/app.module.js'))
      ? [
          service('builder', 'builder', 'builder.http.sock', { GANTRY_BUILDER_ROLE: 'api' }),
          ...Array.from({ length: workers }, (_, index) =>
            service(`worker-${index + 1}`, 'builder', `worker-${index + 1}.http.sock`, {
              GANTRY_BUILDER_ROLE: 'worker',
              GANTRY_BUILDER_WORKER: String(index + 1),
            }),
          ),
        ]
      : [];
    return [
      service('registry', 'registry', 'registry.http.sock'),
      service('agent', 'runtime-agent', 'agent.http.sock'),
      ...builders,
      service('gateway', 'gateway', 'gateway.http.sock'),
    ];
  }

  get #pidsPath(): string {
    return join(this.options.instance.dataRoot, 'up.pids');
  }

  /** Written so that a later start finds what a killed supervisor left running. */
  #remember(): void {
    const running = this.#children.flatMap(({ pid, name }) =>
      pid === undefined ? [] : [{ pid, name, started: startTicks(pid) }],
    );
    writeFileSync(this.#pidsPath, JSON.stringify(running));
  }

  #reapOrphans(): void {
    if (!existsSync(this.#pidsPath)) return;
    const before = JSON.parse(readFileSync(this.#pidsPath, 'utf8')) as { pid: number; started: string }[];
    for (const { pid, started } of before) {
      if (startTicks(pid) === started && started !== '') process.kill(pid, 'SIGKILL');
    }
    rmSync(this.#pidsPath);
  }

  /** One supervisor a data root; it answers questions and takes the order to stop on a socket. */
  async #claim(): Promise<void> {
    mkdirSync(this.options.instance.runDir, { recursive: true });
    if (await ask(this.controlPath, 'status'))
      throw new Error(`an installation on ${this.options.instance.dataRoot} runs already`);
    rmSync(this.controlPath, { force: true });
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy());
      socket.once('data', (bytes) => {
        const order = bytes.toString().trim();
        if (order === 'status') socket.end(JSON.stringify(this.status()));
        else if (order === 'stop') void this.stop().then(() => socket.end('{"stopped":true}', () => process.exit(0)));
        else socket.end('{}');
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.controlPath, resolve);
    });
    this.#control = server;
  }
}

/** Field 22 of /proc/PID/stat: with it a pid names one process for good. */
function startTicks(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

/** Sends an order to a running supervisor; undefined where none runs. */
export function ask(controlPath: string, order: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(controlPath);
    let answer = '';
    socket.setEncoding('utf8');
    socket.once('connect', () => socket.write(`${order}\n`));
    socket.on('data', (text: string) => (answer += text));
    socket.once('error', () => resolve(undefined));
    socket.once('close', () => resolve(answer || undefined));
    socket.once('end', () => socket.end());
  });
}
