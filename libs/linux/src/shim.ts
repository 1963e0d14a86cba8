import { connect, type Socket } from 'node:net';
import { readFile } from 'node:fs/promises';
import { Duplex } from 'node:stream';
import { constants } from 'node:os';
import { NotFound, Unavailable } from '@gantry/errors';
import { encodeFrame, FrameDecoder, FrameType, type Frame } from './frames.js';
import { encodeExecPlan, type ExecPlan } from './plan.js';

/** How a process ended. `code` is 128 + signal for one that a signal ended. */
export interface ExitStatus {
  readonly code: number;
  readonly signal: number;
  readonly oomKilled: boolean;
  readonly finishedAt: Date;
  /** Unix time in nanoseconds. */
  readonly finishedAtNs: bigint;
}

/** What the shim says of a process that runs. */
export interface StartedProcess {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid it names one process for as long as the host is up. */
  readonly startTicks: string;
  readonly startedAtNs: bigint;
}

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** A start that failed before execve: Docker's exit code for it, and where it failed. */
export class LaunchError extends Error {
  readonly exitCode: 125 | 126 | 127;

  constructor(
    readonly step: string,
    readonly errno: string,
    message: string,
  ) {
    super(message);
    this.name = 'LaunchError';
    this.exitCode = exitCodeOf(step, errno);
  }

  static parse(payload: Buffer): LaunchError {
    const [number = '0', step = '', ...text] = payload.toString().split('\n');
    return new LaunchError(step, ERRNO_NAMES.get(Number(number)) ?? '', text.join('\n'));
  }
}

/** 127: no such command; 126: it can't be executed; 125: the container could not be set up (docker-run(1), Exit Status). */
function exitCodeOf(step: string, errno: string): 125 | 126 | 127 {
  if (step === 'path') return 127;
  if (step !== 'exec' && step !== 'cwd') return 125;
  return errno === 'ENOENT' || errno === 'ENOTDIR' ? 127 : 126;
}

export function parseStarted(payload: Buffer): StartedProcess {
  const [pid = '0', startTicks = '0', startedAt = '0'] = payload.toString().split('\n');
  return { pid: Number(pid), startTicks, startedAtNs: BigInt(startedAt) };
}

function parseExit(payload: Buffer): ExitStatus {
  const finishedAtNs = payload.readBigUInt64LE(12);
  return {
    code: payload.readUInt32LE(0),
    signal: payload.readUInt32LE(4),
    oomKilled: payload.readUInt32LE(8) !== 0,
    finishedAt: new Date(Number(finishedAtNs / 1_000_000n)),
    finishedAtNs,
  };
}

/** The exit status that a shim left behind, or undefined where it left none. */
export async function readExit(runDir: string): Promise<ExitStatus | undefined> {
  let text: string;
  try {
    text = await readFile(`${runDir}/exit`, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const fields = new Map(text.split('\n').map((line) => line.split('=', 2) as [string, string]));
  const finishedAtNs = BigInt(fields.get('finished') ?? '0');
  return {
    code: Number(fields.get('code')),
    signal: Number(fields.get('signal')),
    oomKilled: fields.get('oom') === '1',
    finishedAt: new Date(Number(finishedAtNs / 1_000_000n)),
    finishedAtNs,
  };
}

/** Opens a connection; undefined where nobody listens. */
export function openSocket(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined);
      else reject(error);
    });
  });
}

type Waiter = { resolve: (frame: Frame) => void; reject: (error: Error) => void };

/** One connection to a shim: requests answered in order, an exit pushed, output to whoever listens. Owner: whoever opened it. */
export class ShimConnection {
  readonly #decoder = new FrameDecoder();
  readonly #waiters: Waiter[] = [];
  #exit: ExitStatus | undefined;
  #isClosed = false;
  readonly #exitWaiters: { resolve: (status: ExitStatus) => void; reject: (error: Error) => void }[] = [];
  onOutput: ((frame: Frame) => void) | undefined;
  onWarning: ((text: string) => void) | undefined;
  onClose: (() => void) | undefined;

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      for (const frame of this.#decoder.push(chunk)) this.#take(frame);
    });
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.end());
    socket.on('close', () => this.#ended());
  }

  /** Sends one frame and waits for its answer. */
  request(type: number, payload?: Uint8Array): Promise<Frame> {
    if (this.#isClosed) return Promise.reject(gone());
    return new Promise<Frame>((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.socket.write(encodeFrame(type, payload));
    });
  }

  /** The answer to bytes written already (a plan). */
  answer(): Promise<Frame> {
    return new Promise<Frame>((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /** Resolves with the exit that the shim pushes; rejects `Unavailable` where the connection ends without one. */
  exit(): Promise<ExitStatus> {
    if (this.#exit) return Promise.resolve(this.#exit);
    if (this.#isClosed) return Promise.reject(gone());
    return new Promise((resolve, reject) => this.#exitWaiters.push({ resolve, reject }));
  }

  close(): void {
    this.socket.destroy();
  }

  #take(frame: Frame): void {
    switch (frame.type) {
      case FrameType.stdout:
      case FrameType.stderr:
        this.onOutput?.(frame);
        return;
      case FrameType.warning:
        this.onWarning?.(frame.payload.toString());
        return;
      case FrameType.exit:
        this.#exit = parseExit(frame.payload);
        for (const waiter of this.#exitWaiters.splice(0)) waiter.resolve(this.#exit);
        return;
      default:
        this.#waiters.shift()?.resolve(frame);
    }
  }

  #ended(): void {
    this.#isClosed = true;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(gone());
    for (const waiter of this.#exitWaiters.splice(0)) waiter.reject(gone());
    this.onClose?.();
  }
}

function gone(): Unavailable {
  return new Unavailable('the container’s shim has gone');
}

function expectOk(frame: Frame): void {
  if (frame.type === FrameType.ok) return;
  const [, , text = 'refused'] = frame.payload.toString().split('\n');
  throw text.includes('No such process')
    ? new NotFound('process', '', 'process already finished')
    : new Unavailable(text);
}

/**
 * Output of a process as the shim sends it, input as bytes. Reading gives Docker's frames (`raw`: their payloads only); writing goes to
 * standard input, and `end()` is its end. Back-pressure reaches the process. Ends after the last byte of output.
 */
export class ShimStream extends Duplex {
  readonly exited: Promise<ExitStatus>;

  constructor(
    private readonly connection: ShimConnection,
    private readonly options: { readonly raw: boolean },
  ) {
    super({ readableHighWaterMark: 256 * 1024, writableHighWaterMark: 256 * 1024, allowHalfOpen: true });
    connection.onOutput = (frame) => this.#output(frame);
    connection.onClose = () => this.push(null);
    this.exited = connection.exit();
    this.exited.then(
      () => this.push(null),
      () => undefined, // onClose ends the stream; whoever needs the status sees the rejection
    );
  }

  override _read(): void {
    this.connection.socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#send(Buffer.alloc(0), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.connection.close();
    done(error);
  }

  #send(chunk: Buffer, done: (error?: Error | null) => void): void {
    // A process that has ended reads no more: its input is dropped, as a closed pipe's would be.
    if (this.connection.socket.destroyed) return done();
    this.connection.socket.write(encodeFrame(FrameType.stdin, chunk), () => done());
  }

  #output(frame: Frame): void {
    const bytes = this.options.raw ? frame.payload : encodeFrame(frame.type, frame.payload);
    if (!this.push(bytes)) this.connection.socket.pause();
  }
}

/** An exec: its stream, its process, its end. */
export class ExecSession {
  constructor(
    private readonly connection: ShimConnection,
    readonly started: StartedProcess,
    readonly stream: ShimStream,
  ) {}

  get exited(): Promise<ExitStatus> {
    return this.stream.exited;
  }

  async kill(signal: number): Promise<void> {
    expectOk(await this.connection.request(FrameType.signal, u32(signal)));
  }

  async resize(rows: number, columns: number): Promise<void> {
    expectOk(await this.connection.request(FrameType.resize, windowSize(rows, columns)));
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function windowSize(rows: number, columns: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16LE(rows, 0);
  bytes.writeUInt16LE(columns, 2);
  return bytes;
}

/** The parent of one running container, in its own process: it outlives the agent. */
export class Shim {
  readonly exited: Promise<ExitStatus>;

  constructor(
    private readonly connection: ShimConnection,
    readonly runDir: string,
    readonly started: StartedProcess,
    readonly warnings: readonly string[] = [],
  ) {
    this.exited = connection.exit().catch((error: unknown) => this.#lastWord(error));
    // Whoever holds the shim decides what its loss means; nobody holding it is no crash.
    this.exited.catch(() => undefined);
  }

  /** Finds the shim of a run directory again; undefined where there is none: see `readExit`. */
  static async connect(runDir: string): Promise<Shim | undefined> {
    const socket = await openSocket(`${runDir}/shim.sock`);
    if (!socket) return undefined;
    const connection = new ShimConnection(socket);
    try {
      const state = await connection.request(FrameType.state);
      expectOk(await connection.request(FrameType.wait));
      return new Shim(connection, runDir, parseStarted(state.payload));
    } catch {
      // It ended between connect and answer: the exit status is on disk.
      connection.close();
      return undefined;
    }
  }

  get pid(): number {
    return this.started.pid;
  }

  /** Rejects `NotFound` where the process has ended. */
  async kill(signal: number): Promise<void> {
    expectOk(await this.connection.request(FrameType.signal, u32(signal)));
  }

  async resize(rows: number, columns: number): Promise<void> {
    expectOk(await this.connection.request(FrameType.resize, windowSize(rows, columns)));
  }

  /** Lets held output flow (`ContainerPlan.holdOutput`). */
  async release(): Promise<void> {
    expectOk(await this.connection.request(FrameType.release));
  }

  /** A new connection to the container's streams. Output begins with what comes from now on. */
  async attach(options: { stdin: boolean; stdout: boolean; stderr: boolean; raw: boolean }): Promise<ShimStream> {
    const connection = await this.#open();
    const stream = new ShimStream(connection, options);
    const mask = (options.stdin ? 1 : 0) | (options.stdout ? 2 : 0) | (options.stderr ? 4 : 0);
    expectOk(await connection.request(FrameType.attach, Buffer.of(mask)));
    return stream;
  }

  /** Starts one more process inside. Rejects `LaunchError`. */
  async exec(plan: ExecPlan): Promise<ExecSession> {
    const connection = await this.#open();
    const stream = new ShimStream(connection, { raw: plan.tty });
    const answer = await connection.request(FrameType.exec, encodeExecPlan(plan));
    if (answer.type !== FrameType.started) {
      stream.exited.catch(() => undefined);
      stream.destroy();
      throw LaunchError.parse(answer.payload);
    }
    return new ExecSession(connection, parseStarted(answer.payload), stream);
  }

  /** Lets go of the shim; it and its container go on. */
  close(): void {
    this.connection.close();
  }

  async #open(): Promise<ShimConnection> {
    const socket = await openSocket(`${this.runDir}/shim.sock`);
    if (!socket) throw gone();
    return new ShimConnection(socket);
  }

  async #lastWord(error: unknown): Promise<ExitStatus> {
    const status = await readExit(this.runDir);
    if (status) return status;
    throw error;
  }
}
