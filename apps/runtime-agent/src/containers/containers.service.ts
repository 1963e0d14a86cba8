import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { Inject, Injectable } from '@nestjs/common';
import { agent, common, registry } from '@gantry/contracts';
import { Conflict, DomainError, Internal, InvalidArgument, NotFound, NotModified } from '@gantry/errors';
import { LaunchError, readExit, Shim, type ExitStatus, type ShimStream } from '@gantry/linux';
import { chainIds, type Descriptor, type Digest, type ImageConfig } from '@gantry/oci';
import { LOGGER, type GrpcConnection, type Logger, type RpcClient } from '@gantry/service-kit';
import { CONFIG, type AgentConfig } from '../config.js';
import { EventsService, formatNs } from '../events/events.service.js';
import { NetworksService } from '../networks/networks.service.js';
import { SnapshotsService } from '../snapshots/snapshots.service.js';
import { REGISTRY } from '../tokens.js';
import { effectiveCapabilities } from './capabilities.js';
import {
  argvOf,
  isRunning,
  mergeImage,
  type ContainerRecord,
  type ExitedState,
  type ImageSnapshot,
} from './container.js';
import { limitsOf } from './container-plan.js';
import { ContainerStore } from './container.store.js';
import { Launcher } from './launcher.js';
import { randomName } from './names.js';
import { SerialQueue } from './serial-queue.js';
import { signalNumber } from './signals.js';

const DEFAULT_STOP_TIMEOUT_S = 10;
const KILL_WAIT_MS = 10_000;
const RESTART_FIRST_MS = 100;
const RESTART_LAST_MS = 60_000;
/** Docker: who ran this long starts again with the first delay. */
const RESTART_RESET_MS = 10_000;

/** The containers of this host. Changes of one are serialised by its own queue; nothing global is locked. */
@Injectable()
export class ContainersService {
  readonly #shims = new Map<string, Shim>();
  readonly #pendingAttaches = new Map<string, ((shim: Shim | undefined) => Promise<void>)[]>();
  readonly #queue = new SerialQueue();
  readonly #changes = new EventEmitter().setMaxListeners(0);
  readonly #restarts = new Map<string, { timer: NodeJS.Timeout; delayMs: number }>();
  readonly #images: RpcClient<typeof registry.ImagesDefinition>;

  constructor(
    @Inject(CONFIG) private readonly config: AgentConfig,
    @Inject(ContainerStore) private readonly store: ContainerStore,
    @Inject(Launcher) private readonly launcher: Launcher,
    @Inject(NetworksService) private readonly networks: NetworksService,
    @Inject(SnapshotsService) private readonly snapshots: SnapshotsService,
    @Inject(EventsService) private readonly events: EventsService,
    @Inject(REGISTRY) connection: GrpcConnection,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#images = connection.client(registry.ImagesDefinition);
  }

  directory(id: string): string {
    return join(this.config.dataDir, 'containers', id);
  }

  get all(): ContainerRecord[] {
    return this.store.all;
  }

  resolve(id: string): ContainerRecord {
    return this.store.resolve(id);
  }

  /** The shim of a running container. Throws `Conflict` in Docker's words where it does not run. */
  shim(record: ContainerRecord): Shim {
    const shim = this.#shims.get(record.id);
    if (!shim) throw new Conflict(`container ${record.id} is not running`);
    return shim;
  }

  /** Records a container; nothing of it is in the kernel yet. Everything that is wrong with the request shows here. */
  async create(request: agent.CreateContainerRequest): Promise<{ id: string; warnings: string[] }> {
    const image = await this.#resolveImage(request);
    const config = mergeImage({ ...request, host: request.host ?? noHost() }, image.config);
    const host = config.host ?? noHost();
    if (argvOf(config).length === 0) throw new InvalidArgument('no command specified');
    limitsOf(host.resources, host.privileged);
    effectiveCapabilities(host.capAdd, host.capDrop, host.privileged);
    if (config.stopSignal) signalNumber(config.stopSignal);
    if (config.process?.workingDir && !config.process.workingDir.startsWith('/')) {
      throw new InvalidArgument(
        `the working directory '${config.process.workingDir}' is invalid, it needs to be an absolute path`,
      );
    }
    const id = randomBytes(32).toString('hex');
    const name = request.name.replace(/^\//, '') || randomName((taken) => this.store.isTaken(taken));
    this.store.claimName(name, id);
    try {
      await this.snapshots.ensure(image.layers);
      const record: ContainerRecord = {
        id,
        name,
        created: formatNs(BigInt(Date.now()) * 1_000_000n),
        image,
        config,
        state: { status: 'created' },
        restartCount: 0,
        wasStopped: false,
      };
      this.store.save(record);
      this.#emit(record, 'create');
      return { id, warnings: [] };
    } catch (error) {
      this.store.releaseName(name);
      throw error;
    }
  }

  /** Resolves when the process has been executed. */
  start(idOrName: string): Promise<void> {
    const record = this.store.resolve(idOrName);
    return this.#queue.run(record.id, async () => {
      if (isRunning(record)) throw new NotModified(`container ${record.id} is already running`);
      this.#cancelRestart(record.id);
      record.wasStopped = false;
      await this.#start(record);
    });
  }

  async #start(record: ContainerRecord): Promise<void> {
    const host = record.config.host ?? noHost();
    const holdOutput = this.#pendingAttaches.has(record.id);
    try {
      const tree = this.snapshots.prepare(record.id, record.image.chain);
      const shim = await this.launcher.launch({
        id: record.id,
        directory: this.directory(record.id),
        process: record.config.process ?? noProcess(),
        host,
        hostname: record.config.hostname || record.id.slice(0, 12),
        domainname: record.config.domainname,
        argv: argvOf(record.config),
        tree,
        keepsLog: true,
        holdOutput,
      });
      this.#adopt(record, shim);
      await this.#joinAttaches(record.id, shim);
      if (holdOutput) await shim.release();
      await this.networks.publish(record.id);
    } catch (error) {
      await this.#failedStart(record, error);
    }
    this.#emit(record, 'start');
  }

  async #joinAttaches(id: string, shim: Shim | undefined): Promise<void> {
    const waiting = this.#pendingAttaches.get(id) ?? [];
    this.#pendingAttaches.delete(id);
    await Promise.all(waiting.map((settle) => settle(shim)));
  }

  /** Takes a running shim over: from a start, or from recovery. */
  #adopt(record: ContainerRecord, shim: Shim): void {
    this.#shims.set(record.id, shim);
    const { pid, startTicks, startedAtNs } = shim.started;
    record.state = { status: 'running', pid, startTicks, startedAt: formatNs(startedAtNs), isPaused: false };
    this.store.save(record);
    shim.exited
      .then(
        (status) => this.#queue.run(record.id, () => this.#exited(record, shim, status)),
        () => this.#queue.run(record.id, () => this.#exited(record, shim, lost())),
      )
      .catch((error: unknown) => this.logger.error({ err: error, container: record.id }, 'an exit was not recorded'));
  }

  async #failedStart(record: ContainerRecord, error: unknown): Promise<never> {
    await this.networks.release(record.id);
    rmSync(this.launcher.runDir(record.id), { recursive: true, force: true });
    await this.#joinAttaches(record.id, undefined);
    const failure = startError(error);
    const now = formatNs(BigInt(Date.now()) * 1_000_000n);
    const exitCode = error instanceof LaunchError ? error.exitCode : 128;
    record.state = {
      status: 'exited',
      exitCode,
      error: failure.message,
      oomKilled: false,
      startedAt: '',
      finishedAt: now,
    };
    this.store.save(record);
    this.#changes.emit(record.id, 'exited', record.state);
    if (record.config.host?.autoRemove) await this.#remove(record);
    throw failure;
  }

  async #exited(record: ContainerRecord, shim: Shim, status: ExitStatus): Promise<void> {
    if (this.#shims.get(record.id) !== shim) return;
    this.#shims.delete(record.id);
    shim.close();
    const startedAt = isRunning(record) ? record.state.startedAt : '';
    const exited: ExitedState = {
      status: 'exited',
      exitCode: status.code,
      error: '',
      oomKilled: status.oomKilled,
      startedAt,
      finishedAt: formatNs(status.finishedAtNs),
    };
    record.state = exited;
    this.store.save(record);
    if (status.oomKilled) this.#emit(record, 'oom');
    this.#emit(record, 'die', { exitCode: String(status.code) });
    if (this.#shouldRestart(record, status.code)) this.#scheduleRestart(record, exited);
    // Whoever hears of it and acts comes behind this in the container's queue: what follows is done before a start or a removal.
    this.#changes.emit(record.id, 'exited', exited);
    await this.networks.release(record.id);
    rmSync(this.launcher.runDir(record.id), { recursive: true, force: true });
    if (record.config.host?.autoRemove && record.state.status === 'exited') await this.#remove(record);
  }

  #shouldRestart(record: ContainerRecord, exitCode: number): boolean {
    const policy = record.config.host?.restartPolicy;
    if (record.wasStopped || record.config.host?.autoRemove) return false;
    switch (policy?.condition) {
      case common.RestartCondition.ALWAYS:
      case common.RestartCondition.UNLESS_STOPPED:
        return true;
      case common.RestartCondition.ON_FAILURE:
        return exitCode !== 0 && (policy.maximumRetryCount === 0 || record.restartCount < policy.maximumRetryCount);
      default:
        return false;
    }
  }

  #scheduleRestart(record: ContainerRecord, last: ExitedState): void {
    const ranMs = Date.parse(last.finishedAt) - Date.parse(last.startedAt || last.finishedAt);
    const before = this.#restarts.get(record.id)?.delayMs ?? 0;
    const delayMs =
      ranMs >= RESTART_RESET_MS || before === 0 ? RESTART_FIRST_MS : Math.min(before * 2, RESTART_LAST_MS);
    record.state = { status: 'restarting', last };
    record.restartCount++;
    this.store.save(record);
    const timer = setTimeout(() => {
      this.#queue
        .run(record.id, async () => {
          if (record.state.status === 'restarting') await this.#start(record);
        })
        .catch((error: unknown) => this.logger.warn({ err: error, container: record.id }, 'a restart failed'));
    }, delayMs);
    timer.unref();
    this.#restarts.set(record.id, { timer, delayMs });
  }

  #cancelRestart(id: string): void {
    clearTimeout(this.#restarts.get(id)?.timer);
    this.#restarts.delete(id);
  }

  /** Asks, waits, kills. `timeoutSeconds` undefined: the container's own; -1: waits for ever. Throws `NotModified` where nothing runs. */
  async stop(idOrName: string, signal: string, timeoutSeconds: number | undefined): Promise<void> {
    const record = this.store.resolve(idOrName);
    record.wasStopped = true;
    this.#cancelRestart(record.id);
    if (record.state.status === 'restarting') {
      record.state = record.state.last;
      this.store.save(record);
      return;
    }
    const shim = this.#shims.get(record.id);
    if (!shim || !isRunning(record)) throw new NotModified(`container ${record.id} is already stopped`);
    const gone = this.#nextExit(record);
    const timeout = timeoutSeconds ?? record.config.stopTimeoutSeconds ?? DEFAULT_STOP_TIMEOUT_S;
    await ignoreGone(shim.kill(signalNumber(signal || record.config.stopSignal || 'TERM')));
    if (!(await settles(gone, timeout < 0 ? undefined : timeout * 1000))) {
      await ignoreGone(shim.kill(signalNumber('KILL')));
      if (!(await settles(gone, KILL_WAIT_MS))) throw new Internal(`container ${record.id} does not die`);
    }
    this.#emit(record, 'stop');
  }

  async restart(idOrName: string, signal: string, timeoutSeconds: number | undefined): Promise<void> {
    const record = this.store.resolve(idOrName);
    await this.stop(record.id, signal, timeoutSeconds).catch((error: unknown) => {
      if (!(error instanceof NotModified)) throw error;
    });
    await this.start(record.id);
    this.#emit(record, 'restart');
  }

  async kill(idOrName: string, signal: string): Promise<void> {
    const record = this.store.resolve(idOrName);
    const number = signalNumber(signal || 'KILL');
    const shim = this.#shims.get(record.id);
    if (!shim) throw new Conflict(`cannot kill container: ${idOrName}: container ${record.id} is not running`);
    if (number === signalNumber('KILL')) record.wasStopped = true;
    await shim.kill(number);
    this.#emit(record, 'kill', { signal: String(number) });
  }

  pause(idOrName: string, paused: boolean): Promise<void> {
    const record = this.store.resolve(idOrName);
    return this.#queue.run(record.id, () => {
      if (!isRunning(record)) throw new Conflict(`container ${record.id} is not running`);
      if (record.state.isPaused === paused)
        throw new Conflict(`container ${record.id} is ${paused ? 'already' : 'not'} paused`);
      this.launcher.cgroups.freeze(record.id, paused);
      record.state = { ...record.state, isPaused: paused };
      this.store.save(record);
      this.#emit(record, paused ? 'pause' : 'unpause');
      return Promise.resolve();
    });
  }

  rename(idOrName: string, name: string): void {
    const record = this.store.resolve(idOrName);
    const wanted = name.replace(/^\//, '');
    if (wanted === '') throw new InvalidArgument('Neither old nor new names may be empty');
    const before = record.name;
    this.store.claimName(wanted, record.id);
    this.store.releaseName(before);
    record.name = wanted;
    this.store.save(record);
    this.#emit(record, 'rename', { oldName: `/${before}` });
  }

  async remove(idOrName: string, force: boolean): Promise<void> {
    const record = this.store.resolve(idOrName);
    if (isRunning(record)) {
      if (!force)
        throw new Conflict(
          `cannot remove container "${record.name}": container is running: stop the container before removing or force remove`,
        );
      record.wasStopped = true;
      const gone = this.#nextExit(record);
      if (record.state.isPaused) this.launcher.cgroups.freeze(record.id, false);
      await ignoreGone(this.shim(record).kill(signalNumber('KILL')));
      if (!(await settles(gone, KILL_WAIT_MS))) throw new Internal(`container ${record.id} does not die`);
    }
    this.#cancelRestart(record.id);
    await this.#queue.run(record.id, () => this.#remove(record));
  }

  async #remove(record: ContainerRecord): Promise<void> {
    if (!this.store.find(record.id)) return; // removed by itself meanwhile
    // In reverse of making; a crash in between leaves the record, and recovery or a second removal goes on from there.
    await this.networks.release(record.id);
    this.snapshots.remove(record.id);
    rmSync(this.launcher.runDir(record.id), { recursive: true, force: true });
    rmSync(this.directory(record.id), { recursive: true, force: true });
    this.store.delete(record);
    this.#emit(record, 'destroy');
    this.#changes.emit(record.id, 'removed');
  }

  async prune(matches: (record: ContainerRecord) => boolean): Promise<string[]> {
    const deleted: string[] = [];
    for (const record of this.all) {
      if (isRunning(record) || record.state.status === 'restarting' || !matches(record)) continue;
      await this.remove(record.id, false);
      deleted.push(record.id);
    }
    return deleted;
  }

  /**
   * Waits for an exit or a removal. `onRegistered` is called when nothing that happens from now on can be missed.
   */
  async wait(
    idOrName: string,
    condition: agent.WaitCondition,
    signal: AbortSignal,
    onRegistered: () => void,
  ): Promise<{ exitCode: number; error: string }> {
    const record = this.store.resolve(idOrName);
    let last = exitOf(record);
    if (condition === agent.WaitCondition.NOT_RUNNING && !isRunning(record) && record.state.status !== 'restarting') {
      onRegistered();
      return last;
    }
    return new Promise((resolve, reject) => {
      const onExit = (kind: 'exited' | 'removed', exited?: ExitedState) => {
        if (exited) last = { exitCode: exited.exitCode, error: exited.error };
        if (condition === agent.WaitCondition.REMOVED ? kind !== 'removed' : kind !== 'exited') return;
        stopListening();
        resolve(last);
      };
      const onAbort = () => {
        stopListening();
        reject(new DomainError('Cancelled', 'the caller went away'));
      };
      const stopListening = () => {
        this.#changes.off(record.id, onExit);
        signal.removeEventListener('abort', onAbort);
      };
      this.#changes.on(record.id, onExit);
      signal.addEventListener('abort', onAbort, { once: true });
      onRegistered();
    });
  }

  /**
   * Joins a container's streams, at once or as soon as it starts, before its first byte is lost: a CLI attaches first and starts then.
   * Undefined where the socket closes, or the start fails, first.
   */
  attachWhenRunning(
    record: ContainerRecord,
    options: { stdin: boolean; stdout: boolean; stderr: boolean; raw: boolean },
    socket: Duplex,
  ): Promise<ShimStream | undefined> {
    const shim = this.#shims.get(record.id);
    if (shim) return shim.attach(options);
    return new Promise((resolve, reject) => {
      const pending = this.#pendingAttaches.get(record.id) ?? [];
      this.#pendingAttaches.set(record.id, pending);
      const settle = (started: Shim | undefined) =>
        started ? started.attach(options).then(resolve, reject) : Promise.resolve(resolve(undefined));
      pending.push(settle);
      socket.once('close', () => resolve(undefined));
    });
  }

  /** After a start of the agent: finds what runs, records what ended meanwhile, reaps what belongs to nothing. */
  async recover(): Promise<void> {
    const live = new Set<string>();
    await Promise.all(
      this.all.map(async (record) => {
        const shim = await Shim.connect(this.launcher.runDir(record.id));
        if (shim) {
          live.add(record.id);
          const isPaused = isRunning(record) && record.state.isPaused;
          this.#adopt(record, shim);
          if (isPaused && isRunning(record)) record.state = { ...record.state, isPaused };
        } else if (isRunning(record)) {
          const status = (await readExit(this.launcher.runDir(record.id))) ?? lost();
          const placeholder = { close: () => undefined } as unknown as Shim;
          this.#shims.set(record.id, placeholder);
          await this.#queue.run(record.id, () => this.#exited(record, placeholder, status));
        } else if (record.state.status === 'restarting') {
          this.#scheduleRestart(record, record.state.last);
        }
      }),
    );
    await this.networks.recover(live);
    const known = new Set(this.all.map(({ id }) => id));
    for (const id of this.launcher.cgroups.list()) if (!known.has(id)) this.launcher.cgroups.reap(id);
    for (const id of await this.snapshots.active()) if (!known.has(id)) this.snapshots.remove(id);
  }

  #nextExit(record: ContainerRecord): Promise<void> {
    return new Promise((resolve) => {
      const onChange = (kind: string) => {
        if (kind !== 'exited') return;
        this.#changes.off(record.id, onChange);
        resolve();
      };
      this.#changes.on(record.id, onChange);
    });
  }

  async #resolveImage(request: agent.CreateContainerRequest): Promise<ImageSnapshot> {
    const image = await this.#images.resolve({ reference: request.image, platform: request.platform });
    const config = JSON.parse(image.config.toString()) as ImageConfig;
    const layers = image.layers.map(({ diffId, descriptor }) => ({
      diffId: diffId as Digest,
      descriptor: toDescriptor(descriptor),
    }));
    return {
      id: image.id,
      manifestDigest: image.manifest?.digest ?? '',
      config: config.config ?? {},
      layers,
      chain: chainIds(layers.map(({ diffId }) => diffId)).at(-1),
      platform: config.os,
    };
  }

  #emit(record: ContainerRecord, action: string, attributes: Readonly<Record<string, string>> = {}): void {
    this.events.publish('container', action, record.id, {
      ...record.config.labels,
      image: record.config.image,
      name: record.name,
      ...attributes,
    });
  }

  /** For execs and attaches, which are events too. */
  emit(record: ContainerRecord, action: string, attributes?: Readonly<Record<string, string>>): void {
    this.#emit(record, action, attributes);
  }
}

function toDescriptor(descriptor: { mediaType: string; digest: string; size: number } | undefined): Descriptor {
  if (!descriptor) throw new NotFound('descriptor', '');
  return { mediaType: descriptor.mediaType, digest: descriptor.digest as Digest, size: descriptor.size };
}

function exitOf(record: ContainerRecord): { exitCode: number; error: string } {
  const state = record.state.status === 'restarting' ? record.state.last : record.state;
  return state.status === 'exited' ? { exitCode: state.exitCode, error: state.error } : { exitCode: 0, error: '' };
}

/** The shim was killed, and its container with it: Docker's code for a SIGKILL. */
function lost(): ExitStatus {
  const finishedAt = new Date();
  return {
    code: 137,
    signal: 9,
    oomKilled: false,
    finishedAt,
    finishedAtNs: BigInt(finishedAt.getTime()) * 1_000_000n,
  };
}

async function ignoreGone(call: Promise<void>): Promise<void> {
  await call.catch((error: unknown) => {
    if (!(error instanceof DomainError)) throw error;
  });
}

/** True where the promise settles within the time. */
async function settles(promise: Promise<void>, timeoutMs: number | undefined): Promise<boolean> {
  if (timeoutMs === undefined) return promise.then(() => true);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), timeoutMs)));
  return Promise.race([promise.then(() => true), late]).finally(() => clearTimeout(timer));
}

/** Docker's sentence around a failed start; the CLI tells 126 and 127 by its words. */
function startError(error: unknown): DomainError {
  if (!(error instanceof LaunchError))
    return error instanceof DomainError ? error : new Internal((error as Error).message, {}, { cause: error });
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'no such file or directory',
    EACCES: 'permission denied',
    ENOEXEC: 'exec format error',
    EISDIR: 'is a directory',
  };
  const reason = words[error.errno] ? `${error.message.replace(/: [^:]*$/, '')}: ${words[error.errno]}` : error.message;
  const message = `failed to create task for container: failed to start container process: ${reason}: unknown`;
  return error.exitCode === 125 && error.step !== 'user'
    ? new Internal(message, { exitCode: '125' }, { cause: error })
    : new InvalidArgument(message, { exitCode: String(error.exitCode) }, { cause: error });
}

export function noProcess(): agent.ProcessConfig {
  return {
    entrypoint: undefined,
    command: undefined,
    env: [],
    workingDir: '',
    user: '',
    tty: false,
    openStdin: false,
    stdinOnce: false,
    attachStdin: false,
    attachStdout: false,
    attachStderr: false,
  };
}

export function noHost(): agent.HostConfig {
  return agent.HostConfig.fromPartial({});
}
