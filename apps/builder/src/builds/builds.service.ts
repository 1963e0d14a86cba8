import { randomUUID } from 'node:crypto';
import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { builder } from '@gantry/contracts';
import { Conflict, InvalidArgument, NotFound } from '@gantry/errors';
import { formatReference, parseReference, withDefaultTag } from '@gantry/oci';
import { LOGGER, type Logger } from '@gantry/service-kit';
import { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { DataSource } from 'typeorm';
import { CONFIG, type BuilderConfig } from '../config.js';
import { ContextStore } from '../contexts/context-store.js';
import { BuildRow } from '../database/entities.js';
import { BuildLog } from '../log/build-log.js';
import { channel, openRedis, PRIORITY, QUEUE_NAME, redisOptions } from '../queue/connection.js';
import { hasEnded } from './build.js';

const RECONCILE_MS = 3_000;
/** A running build whose worker has been silent for so long, and that no queue knows, is started again. */
const SILENT_MS = 15_000;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Takes builds in and answers questions about them. Postgres is the record: an emptied Redis loses nothing. */
@Injectable()
export class BuildsService implements OnModuleInit, OnModuleDestroy {
  readonly #queue: Queue;
  readonly #redis: Redis;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(CONFIG) config: BuilderConfig,
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BuildLog) private readonly log: BuildLog,
    @Inject(ContextStore) private readonly contexts: ContextStore,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#queue = new Queue(QUEUE_NAME, { connection: redisOptions(config.REDIS_URL) as never });
    this.#queue.on('error', () => undefined); // Redis away: the reconciler makes up for it
    this.#redis = openRedis(config.REDIS_URL);
  }

  onModuleInit(): void {
    const reconcile = () => {
      this.#reconcile().catch((error: unknown) => this.logger.warn({ err: error }, 'the queue was not reconciled'));
    };
    reconcile();
    this.#timer = setInterval(reconcile, RECONCILE_MS).unref();
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.#timer);
    this.#redis.disconnect();
    await this.#queue.close();
  }

  /** Records a build and queues it. The same idempotency key is the same build. */
  async submit(request: builder.SubmitBuildRequest): Promise<BuildRow> {
    if (!request.source) throw new InvalidArgument('a build needs a context, a Git repository or a Dockerfile');
    if (request.source.$case === 'contextId' && !this.contexts.has(request.source.value))
      throw new NotFound('build context', request.source.value);
    const tags = request.tags.map((tag) => formatReference(withDefaultTag(parseReference(tag))));
    if (request.push && tags.length === 0) throw new InvalidArgument('a build that is to be pushed needs a tag');
    const builds = this.database.getRepository(BuildRow);
    const known = request.idempotencyKey ? await builds.findOneBy({ idempotencyKey: request.idempotencyKey }) : null;
    if (known) return known;
    const row = builds.create({
      id: randomUUID(),
      status: 'queued',
      request: Buffer.from(builder.SubmitBuildRequest.encode(request).finish()),
      project: request.project,
      tags: request.tags,
      imageId: '',
      imageDigest: '',
      error: '',
      attempt: 0,
      priority: request.priority === builder.BuildPriority.INTERACTIVE ? PRIORITY.interactive : PRIORITY.batch,
      worker: '',
      idempotencyKey: request.idempotencyKey || null,
      queuedAt: new Date(),
      startedAt: null,
      finishedAt: null,
      heartbeatAt: null,
    });
    await builds.insert(row);
    // Should this fail, the row is there and the reconciler queues it.
    await this.#enqueue(row).catch((error: unknown) =>
      this.logger.warn({ err: error, build: row.id }, 'not queued yet'),
    );
    return row;
  }

  async get(id: string): Promise<BuildRow> {
    const row = UUID.test(id) ? await this.database.getRepository(BuildRow).findOneBy({ id }) : null;
    if (!row) throw new NotFound('build', id);
    return row;
  }

  async list(request: builder.ListBuildsRequest): Promise<BuildRow[]> {
    const query = this.database
      .getRepository(BuildRow)
      .createQueryBuilder('build')
      .orderBy('build.queued_at', 'DESC')
      .limit(Math.min(request.limit || 100, 1000));
    if (request.project) query.andWhere('build.project = :project', { project: request.project });
    if (request.statuses.length > 0)
      query.andWhere('build.status IN (:...statuses)', {
        statuses: request.statuses.map((status) => status.replace('BUILD_STATUS_', '').toLowerCase()),
      });
    if (request.beforeId)
      query.andWhere('build.queued_at < (SELECT queued_at FROM builder.builds WHERE id = :before)', {
        before: request.beforeId,
      });
    return query.getMany();
  }

  /** Throws `Conflict` where it has ended. */
  async cancel(id: string, reason: string): Promise<BuildRow> {
    const row = await this.get(id);
    if (hasEnded(row)) throw new Conflict(`build ${id} has ended already: ${row.status}`);
    const rows: { attempt: number }[][] = await this.database.query(
      `UPDATE builder.builds SET status = 'cancelled', error = $2, finished_at = now(), attempt = attempt + 1 WHERE id = $1 AND status IN ('queued', 'running') RETURNING attempt`,
      [id, reason || 'cancelled'],
    );
    if (rows[0]?.length) {
      await this.#redis.publish(channel.cancel, id).catch(() => 0); // the worker notices at its next heartbeat else
      const writer = await this.log.writer(id);
      writer.write({
        $case: 'ended',
        value: {
          status: builder.BuildStatus.CANCELLED,
          error: reason || 'cancelled',
          exitCode: 0,
          errorCode: 'Cancelled',
        },
      });
      await writer.close();
    }
    return this.get(id);
  }

  async #enqueue({ id, priority }: BuildRow): Promise<void> {
    await this.#queue.add('build', { id }, { jobId: id, priority, removeOnComplete: true, removeOnFail: true });
  }

  /** Puts into the queue what ought to be there and is not. */
  async #reconcile(): Promise<void> {
    const rows = await this.database
      .getRepository(BuildRow)
      .createQueryBuilder('build')
      .where(
        "build.status = 'queued' OR (build.status = 'running' AND build.heartbeat_at < now() - make_interval(secs => :silent))",
        { silent: SILENT_MS / 1000 },
      )
      .getMany();
    for (const row of rows) if (!(await this.#queue.getJob(row.id))) await this.#enqueue(row);
  }
}
