import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { builder } from '@gantry/contracts';
import type { Redis } from 'ioredis';
import { DataSource } from 'typeorm';
import { BuildLogRow } from '../database/entities.js';
import { CONFIG, type BuilderConfig } from '../config.js';
import { channel, openRedis } from '../queue/connection.js';

const FLUSH_MS = 20;
const RECHECK_MS = 1_000;
type Event = NonNullable<builder.BuildLogEntry['event']>;

/** Builds' logs: kept in Postgres, numbered without gaps; Redis only wakes who follows. */
@Injectable()
export class BuildLog implements OnModuleDestroy {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(
    @Inject(CONFIG) config: BuilderConfig,
    @Inject(DataSource) private readonly database: DataSource,
  ) {
    this.#publisher = openRedis(config.REDIS_URL);
    this.#subscriber = openRedis(config.REDIS_URL);
    this.#subscriber.on('message', (name: string) => {
      for (const wake of this.#waiting.get(name) ?? []) wake();
    });
  }

  onModuleDestroy(): void {
    this.#publisher.disconnect();
    this.#subscriber.disconnect();
  }

  /** A writer that continues after what is there. Entries go out in batches; `close` waits for the last. */
  async writer(buildId: string): Promise<LogWriter> {
    const rows: { last: number | null }[] = await this.database.query(
      'SELECT max(sequence) AS last FROM builder.build_log WHERE build_id = $1',
      [buildId],
    );
    return new LogWriter(rows[0]?.last ?? 0, async (entries) => {
      await this.database.getRepository(BuildLogRow).insert(
        entries.map((entry) => ({
          buildId,
          sequence: entry.sequence,
          entry: Buffer.from(builder.BuildLogEntry.encode(entry).finish()),
        })),
      );
      // The log is in Postgres; a follower who misses the call looks again by himself.
      this.#publisher.publish(channel.log(buildId), '1').catch(() => undefined);
    });
  }

  /** Entries from `from` on; with `follow` until the entry that ends the build. */
  async *read(
    buildId: string,
    from: number,
    follow: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<builder.BuildLogEntry> {
    let next = Math.max(1, from);
    while (!signal.aborted) {
      const woken = follow ? this.#listen(buildId, signal) : undefined;
      const rows = await this.database
        .getRepository(BuildLogRow)
        .createQueryBuilder('log')
        .where('log.build_id = :buildId AND log.sequence >= :next', { buildId, next })
        .orderBy('log.sequence')
        .limit(1000)
        .getMany();
      for (const row of rows) {
        const entry = builder.BuildLogEntry.decode(row.entry);
        yield entry;
        next = row.sequence + 1;
        if (entry.event?.$case === 'ended') return;
      }
      if (rows.length > 0) continue;
      if (!woken) return;
      await woken;
    }
  }

  /** Resolves at the next word about the build, or after a while all the same. */
  #listen(buildId: string, signal: AbortSignal): Promise<void> {
    const name = channel.log(buildId);
    const waiting = this.#waiting.get(name) ?? new Set();
    this.#waiting.set(name, waiting);
    if (waiting.size === 0) this.#subscriber.subscribe(name).catch(() => undefined); // the recheck covers a lost Redis
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        waiting.delete(done);
        if (waiting.size === 0) {
          this.#waiting.delete(name);
          this.#subscriber.unsubscribe(name).catch(() => undefined);
        }
        resolve();
      };
      const timer = setTimeout(done, RECHECK_MS);
      signal.addEventListener('abort', done, { once: true });
      waiting.add(done);
    });
  }
}

export class LogWriter {
  #pending: builder.BuildLogEntry[] = [];
  #flushing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private sequence: number,
    private readonly store: (entries: builder.BuildLogEntry[]) => Promise<void>,
  ) {}

  write(event: Event): void {
    this.#pending.push({ sequence: ++this.sequence, time: new Date().toISOString(), event });
    this.#timer ??= setTimeout(() => void this.#flush(), FLUSH_MS);
  }

  /** Rejects where an entry could not be kept. */
  async close(): Promise<void> {
    await this.#flush();
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const entries = this.#pending.splice(0);
    if (entries.length > 0) this.#flushing = this.#flushing.then(() => this.store(entries));
    return this.#flushing;
  }
}
