import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { LOGGER, type Logger } from '@gantry/service-kit';
import { DataSource } from 'typeorm';
import { BlobStore } from '../blobs/blob-store.js';
import { ImagesService } from '../images/images.service.js';

const INTERVAL_MS = 60_000;
/** A blob younger than this may belong to a push, a build or a load that has not named it yet. */
const GRACE_MS = 10 * 60_000;

/** Deletes blobs that no image, manifest or repository needs any more. */
@Injectable()
export class CollectionService implements OnModuleInit, OnModuleDestroy {
  #timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(ImagesService) private readonly images: ImagesService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  onModuleInit(): void {
    this.#timer = setInterval(() => {
      this.collect(GRACE_MS).catch((error: unknown) => this.logger.error({ err: error }, 'garbage collection failed'));
    }, INTERVAL_MS).unref();
  }

  onModuleDestroy(): void {
    clearInterval(this.#timer);
  }

  /** Deletes what is older than the grace time and referred to by nothing. Resolves with the bytes freed. */
  async collect(graceMs: number): Promise<number> {
    let freed = 0;
    for await (const { digest, size, ageMs } of this.blobs.list()) {
      if (ageMs < graceMs || (await this.#isNeeded(digest))) continue;
      await this.blobs.delete(digest);
      freed += size;
    }
    if (freed > 0) this.logger.info({ freed }, 'garbage collected');
    return freed;
  }

  async #isNeeded(digest: string): Promise<boolean> {
    const inImage = this.images.all.some(
      ({ row }) =>
        row.id === digest ||
        row.manifest.digest === digest ||
        row.layers.some(({ descriptor }) => descriptor.digest === digest),
    );
    if (inImage) return true;
    const rows: unknown[] = await this.database.query(
      'SELECT 1 FROM registry.manifests WHERE digest = $1 OR $1 = ANY (refers_to) LIMIT 1',
      [digest],
    );
    return rows.length > 0;
  }
}
