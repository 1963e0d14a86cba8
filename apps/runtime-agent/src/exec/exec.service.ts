import { randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import type { agent } from '@gantry/contracts';
import { Conflict, InvalidArgument, NotFound } from '@gantry/errors';
import { compileSeccomp, DEFAULT_PROFILE, LaunchError, type ExecSession } from '@gantry/linux';
import { capabilitySets, effectiveCapabilities } from '../containers/capabilities.js';
import { isRunning, type ContainerRecord } from '../containers/container.js';
import { ContainersService } from '../containers/containers.service.js';

interface ExecRecord {
  readonly id: string;
  readonly container: ContainerRecord;
  readonly request: agent.CreateExecRequest;
  session?: ExecSession;
  isRunning: boolean;
  exitCode?: number;
}

/** Kept for a while, so that who started one can still ask how it ended. */
const REMEMBERED = 1024;

/** Processes started inside running containers. */
@Injectable()
export class ExecService {
  readonly #execs = new Map<string, ExecRecord>();

  constructor(@Inject(ContainersService) private readonly containers: ContainersService) {}

  create(request: agent.CreateExecRequest): string {
    const container = this.containers.resolve(request.containerId);
    if (request.command.length === 0) throw new InvalidArgument('No exec command specified');
    if (!isRunning(container)) throw new Conflict(`container ${container.id} is not running`);
    if (container.state.isPaused)
      throw new Conflict(`container ${container.id} is paused, unpause the container before exec`);
    const id = randomBytes(32).toString('hex');
    if (this.#execs.size >= REMEMBERED) {
      const oldest = [...this.#execs.values()].find((exec) => !exec.isRunning);
      if (oldest) this.#execs.delete(oldest.id);
    }
    this.#execs.set(id, { id, container, request, isRunning: false });
    this.containers.emit(container, `exec_create: ${request.command.join(' ')}`, { execID: id });
    return id;
  }

  /** Starts it; the session's stream is the caller's. Rejects in Docker's words where the command can't be executed. */
  async start(id: string, consoleSize?: { rows: number; columns: number }): Promise<ExecSession> {
    const exec = this.#get(id);
    if (exec.session || exec.exitCode !== undefined) throw new Conflict(`exec instance ${id} has already been started`);
    const { request, container } = exec;
    const process = container.config.process;
    const host = container.config.host;
    const capabilities = effectiveCapabilities(
      host?.capAdd ?? [],
      host?.capDrop ?? [],
      request.privileged || (host?.privileged ?? false),
    );
    const isConfined =
      !request.privileged && !host?.privileged && !host?.securityOpt.some((option) => option.includes('unconfined'));
    const size = consoleSize ?? request.consoleSize;
    const inherited = [
      ...new Set([
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        `HOSTNAME=${container.config.hostname || container.id.slice(0, 12)}`,
      ]),
    ];
    const env = mergeEnv([...inherited, ...(request.tty ? ['TERM=xterm'] : []), ...(process?.env ?? [])], request.env);
    try {
      exec.session = await this.containers.shim(container).exec({
        id,
        argv: request.command,
        env,
        cwd: request.workingDir || process?.workingDir || '/',
        user: request.user || process?.user || '',
        additionalGids: [],
        tty: request.tty,
        ...(size ? { consoleSize: size } : {}),
        openStdin: request.attachStdin,
        stdinOnce: true,
        capabilities: capabilitySets(capabilities),
        noNewPrivileges: host?.securityOpt.some((option) => option.startsWith('no-new-privileges')) ?? false,
        ...(isConfined ? { seccomp: await compileSeccomp(DEFAULT_PROFILE, capabilities) } : {}),
      });
    } catch (error) {
      exec.exitCode = error instanceof LaunchError ? error.exitCode : 126;
      if (!(error instanceof LaunchError)) throw error;
      throw new InvalidArgument(
        `OCI runtime exec failed: exec failed: unable to start container process: ${error.message}: unknown`,
        { exitCode: String(error.exitCode) },
      );
    }
    exec.isRunning = true;
    this.containers.emit(container, `exec_start: ${request.command.join(' ')}`, { execID: id });
    exec.session.exited.then(
      (status) => this.#ended(exec, status.code),
      () => this.#ended(exec, 137),
    );
    return exec.session;
  }

  inspect(id: string): agent.Exec {
    const { container, request, session, isRunning: running, exitCode } = this.#get(id);
    return {
      id,
      containerId: container.id,
      isRunning: running,
      exitCode,
      pid: session?.started.pid ?? 0,
      config: request,
      canRemove: false,
    };
  }

  async resize(id: string, rows: number, columns: number): Promise<void> {
    const { session } = this.#get(id);
    if (!session) throw new Conflict(`exec instance ${id} has not been started`);
    await session.resize(rows, columns);
  }

  hasTty(id: string): boolean {
    return this.#get(id).request.tty;
  }

  idsOf(containerId: string): string[] {
    return [...this.#execs.values()]
      .filter((exec) => exec.container.id === containerId && exec.isRunning)
      .map(({ id }) => id);
  }

  #ended(exec: ExecRecord, exitCode: number): void {
    exec.isRunning = false;
    exec.exitCode = exitCode;
    this.containers.emit(exec.container, 'exec_die', { execID: exec.id, exitCode: String(exitCode) });
  }

  #get(id: string): ExecRecord {
    const exec = this.#execs.get(id);
    if (!exec) throw new NotFound('exec', id);
    return exec;
  }
}

/** Later values take the place of earlier ones. */
function mergeEnv(base: readonly string[], over: readonly string[]): string[] {
  const merged = new Map([...base, ...over].map((entry) => [entry.split('=', 1)[0] ?? '', entry]));
  return [...merged.values()].filter((entry) => entry.includes('='));
}
