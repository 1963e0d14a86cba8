import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';

const LOG_LIMIT_BYTES = 20 * 1024 * 1024;
const FIRST_DELAY_MS = 200;
const LAST_DELAY_MS = 10_000;
const STABLE_MS = 20_000;

export interface ChildOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly logPath: string;
  /** Resolves when it serves; rejects never: the supervisor asks again. */
  readonly isReady: () => Promise<boolean>;
  readonly uid?: number;
  readonly gid?: number;
  readonly stopSignal?: NodeJS.Signals;
}

/** One supervised process: started, watched, started again when it ends by itself, stopped in good time. */
export class Child {
  readonly options: ChildOptions;
  #process: ChildProcess | undefined;
  #isStopping = false;
  #delayMs = FIRST_DELAY_MS;
  restarts = 0;

  constructor(options: ChildOptions) {
    this.options = options;
  }

  get name(): string {
    return this.options.name;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  start(): void {
    const { command, args, env, logPath, uid, gid } = this.options;
    mkdirSync(dirname(logPath), { recursive: true });
    const log = openLog(logPath);
    const startedAt = Date.now();
    const child = spawn(command, [...args], {
      env,
      stdio: ['ignore', log, log],
      detached: true,
      ...(uid === undefined ? {} : { uid, gid }),
    });
    closeSync(log);
    this.#process = child;
    child.on('error', () => undefined); // `exit` or the readiness check tells
    child.once('exit', () => {
      this.#process = undefined;
      if (this.#isStopping) return;
      if (Date.now() - startedAt > STABLE_MS) this.#delayMs = FIRST_DELAY_MS;
      this.restarts++;
      setTimeout(() => {
        if (!this.#isStopping) this.start();
      }, this.#delayMs);
      this.#delayMs = Math.min(this.#delayMs * 2, LAST_DELAY_MS);
    });
  }

  /** Waits until it serves; false after the time. */
  async ready(timeoutMs: number): Promise<boolean> {
    for (const until = Date.now() + timeoutMs; Date.now() < until;) {
      if (this.#process && (await this.options.isReady().catch(() => false))) return true;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    return false;
  }

  async stop(timeoutMs: number): Promise<void> {
    this.#isStopping = true;
    const child = this.#process;
    if (!child || child.exitCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(this.options.stopSignal ?? 'SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    await gone;
    clearTimeout(timer);
  }

  /** The last lines it wrote: why it does not serve. */
  lastWords(lines: number): string {
    try {
      return readFileSync(this.options.logPath, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } catch {
      return '(it wrote nothing)';
    }
  }
}

function openLog(path: string): number {
  const fd = openSync(path, 'a', 0o640);
  if (fstatSync(fd).size < LOG_LIMIT_BYTES) return fd;
  closeSync(fd);
  renameSync(path, `${path}.1`);
  return openSync(path, 'a', 0o640);
}
