import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Unavailable } from '@gantry/errors';
import { FrameType } from './frames.js';
import { encodePlan, type ContainerPlan } from './plan.js';
import { LaunchError, openSocket, parseStarted, Shim, ShimConnection } from './shim.js';

/** Where the workspace's build leaves the native programs, from src/ and from dist/ alike. */
export const NATIVE_DIRECTORY = fileURLToPath(new URL('../native/build/', import.meta.url));

/**
 * The resident process that forks shims, so that starting a container never forks this large one. It ends with its owner (its standard
 * input closes); shims do not.
 */
export class Zygote {
  #isClosed = false;

  private constructor(
    private readonly child: ChildProcess,
    private readonly socketPath: string,
  ) {}

  /** Starts the zygote and waits until it listens. Rejects with what it printed where it can't. */
  static async start({ socketPath }: { socketPath: string }): Promise<Zygote> {
    const child = spawn(`${NATIVE_DIRECTORY}gantry-zygote`, [socketPath], { stdio: ['pipe', 'pipe', 'pipe'] });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
    const lines = createInterface({ input: child.stdout });
    const first = await Promise.race([
      once(lines, 'line').then(([line]) => String(line)),
      once(child, 'exit').then(([code]) => `exited with ${String(code)}`),
      once(child, 'error').then(([error]) => (error as Error).message),
    ]);
    if (first !== 'ready') throw new Unavailable(`gantry-zygote does not start: ${complaint.trim() || first}`);
    return new Zygote(child, socketPath);
  }

  /** Called when the zygote has ended without being closed: its owner starts another. */
  onExit(listener: () => void): void {
    this.child.once('exit', () => {
      if (!this.#isClosed) listener();
    });
  }

  /** Carries out a plan. Resolves when the process has been executed; rejects `LaunchError` where it was not, with nothing left behind. */
  async launch(plan: ContainerPlan): Promise<Shim> {
    const socket = await openSocket(this.socketPath);
    if (!socket) throw new Unavailable('gantry-zygote does not answer');
    const connection = new ShimConnection(socket);
    const warnings: string[] = [];
    connection.onWarning = (text) => warnings.push(text);
    const answer = connection.answer();
    socket.write(encodePlan(plan));
    const frame = await answer;
    if (frame.type !== FrameType.started) {
      connection.close();
      throw LaunchError.parse(frame.payload);
    }
    return new Shim(connection, plan.runDir, parseStarted(frame.payload), warnings);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.stdin?.end();
    await exited;
  }
}
