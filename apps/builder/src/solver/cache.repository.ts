import { Inject, Injectable } from '@nestjs/common';
import { builder, registry } from '@gantry/contracts';
import type { Descriptor, Digest } from '@gantry/oci';
import type { RpcClient } from '@gantry/service-kit';
import { DataSource } from 'typeorm';
import { CacheRow } from '../database/entities.js';
import { BLOBS } from '../tokens.js';

export interface StepResult {
  readonly diffId: Digest;
  readonly descriptor: Descriptor;
  /** The step changed nothing. */
  readonly isEmpty: boolean;
}

/** What steps gave before, shared by all workers. */
@Injectable()
export class CacheRepository {
  constructor(
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BLOBS) private readonly blobs: RpcClient<typeof registry.BlobsDefinition>,
  ) {}

  /** The result under a key, where its layer is still in the store. */
  async find(key: string): Promise<StepResult | undefined> {
    const row = await this.database.getRepository(CacheRow).findOneBy({ key });
    if (!row) return undefined;
    const { present } = await this.blobs.exist({ digests: [row.descriptor.digest] });
    if (present.length === 0) {
      await this.database.getRepository(CacheRow).delete({ key });
      return undefined;
    }
    await this.database.getRepository(CacheRow).update({ key }, { lastUsedAt: new Date() });
    return { diffId: row.diffId, descriptor: row.descriptor, isEmpty: row.isEmpty };
  }

  async save(key: string, result: StepResult, description: string): Promise<void> {
    const now = new Date();
    await this.database
      .getRepository(CacheRow)
      .upsert({ key, ...result, description, createdAt: now, lastUsedAt: now }, ['key']);
  }

  /** Forgets records: all, or those unused for a day. Resolves with their keys. */
  async prune(all: boolean): Promise<string[]> {
    const rows: [{ key: string }[], number] = await this.database.query(
      `DELETE FROM builder.cache WHERE $1 OR last_used_at < now() - interval '1 day' RETURNING key`,
      [all],
    );
    return rows[0].map(({ key }) => key);
  }

  async usage(): Promise<builder.CacheRecord[]> {
    const rows = await this.database.getRepository(CacheRow).find({ order: { lastUsedAt: 'DESC' }, take: 1000 });
    return rows.map((row) => ({
      id: row.key,
      parent: '',
      type: 'regular',
      description: row.description,
      inUse: false,
      size: row.descriptor.size,
      createdAt: row.createdAt.toISOString(),
      lastUsedAt: row.lastUsedAt.toISOString(),
      usageCount: 1,
    }));
  }
}
