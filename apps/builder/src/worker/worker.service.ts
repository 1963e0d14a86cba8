import { request as httpRequest } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Inject, Injectable, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common';
import { builder, type agent, type registry } from '@gantry/contracts';
import { asDomainError, DomainError, isErrorCode, Unavailable } from '@gantry/errors';
import { LOGGER, type Logger, type RpcClient } from '@gantry/service-kit';
import { Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { DataSource } from 'typeorm';
import { statusOf } from '../builds/build.js';
import { CONFIG, type BuilderConfig } from '../config.js';
import { ContextStore } from '../contexts/context-store.js';
import { BuildRow, type BuildState } from '../database/entities.js';
import { BuildLog, type LogWriter } from '../log/build-log.js';
import { channel, openRedis, QUEUE_NAME, redisOptions } from '../queue/connection.js';
import { CacheRepository } from '../solver/cache.repository.js';
import { cloneContext } from '../solver/git.js';
import { Solver } from '../solver/solver.js';
import { IMAGES, STEPS } from '../tokens.js';

/** A lost worker's job is another's after so long; a living one renews its lock from a timer. */
const LOCK_MS = 6_000;
const STALLED_CHECK_MS = 2_000;
const HEARTBEAT_MS = 2_000;
const DEFAULT_TIMEOUT_S = 3600;
const MAX_LOST_WORKERS = 5;

/** Takes builds from the queue and carries them out, one attempt at a time. */
@Injectable()
export class WorkerService implements OnApplicationBootstrap, OnModuleDestroy {
  #worker: Worker | undefined;
  readonly #redis: Redis;
  readonly #running = new Map<string, AbortController>();

  constructor(
    @Inject(CONFIG) private readonly config: BuilderConfig,
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BuildLog) private readonly log: BuildLog,
    @Inject(ContextStore) private readonly contexts: ContextStore,
    @Inject(CacheRepository) private readonly cache: CacheRepository,
    @Inject(STEPS) private readonly steps: RpcClient<typeof agent.BuildStepsDefinition>,
    @Inject(IMAGES) private readonly images: RpcClient<typeof registry.ImagesDefinition>,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#redis = openRedis(config.REDIS_URL);
  }

  onApplicationBootstrap(): void {
    this.#worker = new Worker(QUEUE_NAME, (job: { data: { id: string } }) => this.#work(job.data.id), {
      connection: redisOptions(this.config.REDIS_URL) as never,
      concurrency: this.config.GANTRY_BUILDER_CONCURRENCY,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      maxStalledCount: MAX_LOST_WORKERS,
    });
    this.#worker.on('error', (error) => this.logger.warn({ err: error }, 'the queue is not reached'));
    this.#redis.on('message', (_name: string, id: string) => this.#running.get(id)?.abort());
    this.#redis
      .subscribe(channel.cancel)
      .catch((error: unknown) => this.logger.warn({ err: error }, 'no word of cancels'));
  }

  async onModuleDestroy(): Promise<void> {
    for (const controller of this.#running.values()) controller.abort();
    await this.#worker?.close();
    this.#redis.disconnect();
  }

  async #work(id: string): Promise<void> {
    const attempt = await this.#claim(id);
    if (attempt === undefined) return; // cancelled, or ended by another
    const row = await this.database.getRepository(BuildRow).findOneByOrFail({ id });
    const request = builder.SubmitBuildRequest.decode(row.request);
    const controller = new AbortController();
    this.#running.set(id, controller);
    const heartbeat = setInterval(() => void this.#beat(id, attempt, controller), HEARTBEAT_MS);
    const deadline = setTimeout(
      () => controller.abort(new DomainError('DeadlineExceeded', 'the build took too long')),
      (request.timeoutSeconds || DEFAULT_TIMEOUT_S) * 1000,
    );
    const writer = await this.log.writer(id);
    writer.write({ $case: 'attemptStarted', value: { attempt, worker: this.config.GANTRY_BUILDER_WORKER } });
    const attemptId = `${id}-${attempt}`;
    try {
      const contextId = await this.#sendContext(request, attemptId, controller.signal);
      const solver = new Solver(
        { steps: this.steps, images: this.images, cache: this.cache },
        request,
        attemptId,
        contextId,
        writer,
        controller.signal,
      );
      const { imageId, manifestDigest } = await solver.solve();
      await this.#end(id, attempt, writer, 'succeeded', { imageId, imageDigest: manifestDigest }, undefined);
      if (request.source?.$case === 'contextId') await this.contexts.delete(request.source.value);
    } catch (error) {
      const failure =
        controller.signal.reason instanceof DomainError && controller.signal.aborted
          ? controller.signal.reason
          : asDomainError(error);
      if (isOurFault(failure) && attempt < MAX_LOST_WORKERS) throw error; // the queue tries again
      await this.#end(id, attempt, writer, 'failed', { error: failure.message }, failure);
    } finally {
      clearInterval(heartbeat);
      clearTimeout(deadline);
      this.#running.delete(id);
      await this.#release(attemptId);
    }
  }

  /** Makes the build this worker's. The new attempt number shuts every earlier attempt out. */
  async #claim(id: string): Promise<number | undefined> {
    const rows: [{ attempt: number }[], number] = await this.database.query(
      `UPDATE builder.builds SET status = 'running', attempt = attempt + 1, worker = $2, heartbeat_at = now(), started_at = coalesce(started_at, now())
       WHERE id = $1 AND status IN ('queued', 'running') RETURNING attempt`,
      [id, this.config.GANTRY_BUILDER_WORKER],
    );
    return rows[0][0]?.attempt;
  }

  async #beat(id: string, attempt: number, controller: AbortController): Promise<void> {
    try {
      const rows: [unknown[], number] = await this.database.query(
        `UPDATE builder.builds SET heartbeat_at = now() WHERE id = $1 AND attempt = $2 AND status = 'running'`,
        [id, attempt],
      );
      if (rows[1] === 0) controller.abort(); // cancelled, or another's by now
    } catch (error) {
      this.logger.warn({ err: error, build: id }, 'no heartbeat');
    }
  }

  async #end(
    id: string,
    attempt: number,
    writer: LogWriter,
    status: BuildState,
    change: Partial<BuildRow>,
    failure: DomainError | undefined,
  ): Promise<void> {
    const result = await this.database
      .getRepository(BuildRow)
      .update({ id, attempt, status: 'running' }, { status, finishedAt: new Date(), ...change });
    if (result.affected === 0) return; // another attempt's business
    writer.write({
      $case: 'ended',
      value: {
        status: statusOf(status),
        error: failure?.message ?? '',
        exitCode: Number(failure?.details.exitCode ?? 0),
        errorCode: failure?.code ?? '',
      },
    });
    await writer.close();
  }

  async #sendContext(
    request: builder.SubmitBuildRequest,
    attemptId: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { source } = request;
    if (source?.$case === 'contextId') await this.#put(attemptId, this.contexts.read(source.value));
    else if (source?.$case === 'git') {
      const { tar, close } = await cloneContext(source.value.url, source.value.ref, source.value.subdirectory, signal);
      await this.#put(attemptId, tar).finally(close);
    } else return undefined;
    return attemptId;
  }

  #put(id: string, body: Readable): Promise<void> {
    return this.#agent('PUT', `/build-contexts/${id}`, body);
  }

  async #release(attemptId: string): Promise<void> {
    try {
      await this.steps.release({ snapshotId: '', attemptId });
      await this.#agent('DELETE', `/build-contexts/${attemptId}`);
    } catch (error) {
      this.logger.warn({ err: error, attemptId }, 'an attempt was not cleared away');
    }
  }

  #agent(method: string, path: string, body?: Readable): Promise<void> {
    return new Promise((resolve, reject) => {
      const call = httpRequest(
        { socketPath: `${this.config.GANTRY_RUN_DIR}/agent.http.sock`, method, path },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          response.on('end', () => {
            if ((response.statusCode ?? 500) < 400) return resolve();
            const { code = 'Internal', message = text } = JSON.parse(text || '{}') as {
              code?: string;
              message?: string;
            };
            reject(new DomainError(isErrorCode(code) ? code : 'Internal', message));
          });
        },
      );
      call.once('error', (error) =>
        reject(new Unavailable(`the agent does not answer: ${error.message}`, {}, { cause: error })),
      );
      if (body) pipeline(body, call).catch(() => undefined);
      else call.end();
    });
  }
}

/** What another try may mend: a service that was away. A failing Dockerfile never is. */
function isOurFault({ code }: DomainError): boolean {
  return code === 'Unavailable';
}
