import { Inject, Injectable } from '@nestjs/common';
import { DomainError } from '@gantry/errors';
import { digestOf, isDigest, type Descriptor, type Digest } from '@gantry/oci';
import { DataSource } from 'typeorm';
import { BlobStore } from '../blobs/blob-store.js';
import { ManifestRow, RepositoryBlobRow, TagRow } from '../database/entities.js';

/** OCI dist-spec §"Error Codes": what a client branches on. */
export class DistributionError extends DomainError {
  constructor(
    readonly ociCode: string,
    code: DomainError['code'],
    message: string,
    readonly detail: unknown = null,
  ) {
    super(code, message);
  }
}

const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
const CACHED = 4096;

interface ParsedManifest {
  readonly mediaType: string;
  readonly artifactType: string | undefined;
  readonly annotations: Record<string, string> | undefined;
  readonly subject: Descriptor | undefined;
  readonly blobs: readonly Descriptor[];
  readonly manifests: readonly Descriptor[];
}

/** Repositories of the registry: manifests, tags and which blobs may be read through them. */
@Injectable()
export class RepositoriesService {
  /** Manifests by `repository@digest`: bytes never change under a digest; deletion drops them. */
  readonly #cache = new Map<string, ManifestRow>();

  constructor(
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BlobStore) private readonly blobs: BlobStore,
  ) {}

  /** By tag or digest. Throws MANIFEST_UNKNOWN. */
  async manifest(repository: string, reference: string): Promise<ManifestRow> {
    const digest = isDigest(reference) ? reference : await this.#digestOfTag(repository, reference);
    const key = `${repository}@${digest}`;
    const cached = digest && this.#cache.get(key);
    if (cached) return cached;
    const row = digest ? await this.database.getRepository(ManifestRow).findOneBy({ repository, digest }) : null;
    if (!row)
      throw new DistributionError('MANIFEST_UNKNOWN', 'NotFound', 'manifest unknown', { name: repository, reference });
    if (this.#cache.size >= CACHED) this.#cache.delete(this.#cache.keys().next().value ?? '');
    this.#cache.set(key, row);
    return row;
  }

  /** Stores a manifest as it came, after what it names has been found. Resolves with its digest. */
  async putManifest(
    repository: string,
    reference: string,
    mediaType: string,
    content: Buffer,
  ): Promise<{ digest: Digest; subject: string }> {
    if (content.length > MAX_MANIFEST_BYTES)
      throw new DistributionError('MANIFEST_INVALID', 'InvalidArgument', 'manifest too large');
    const parsed = parseManifest(content, mediaType);
    const digest = isDigest(reference)
      ? digestOf(content, reference.startsWith('sha512') ? 'sha512' : 'sha256')
      : digestOf(content);
    if (isDigest(reference) && reference !== digest) {
      throw new DistributionError(
        'DIGEST_INVALID',
        'InvalidArgument',
        `provided digest did not match uploaded content: expected ${reference}, got ${digest}`,
      );
    }
    for (const blob of parsed.blobs) await this.#requireBlob(repository, blob);
    for (const child of parsed.manifests) await this.#requireManifest(repository, child);
    const refersTo = [...parsed.blobs, ...parsed.manifests].map((descriptor) => descriptor.digest);
    await this.blobs.writeBytes(content);
    await this.database.transaction(async (manager) => {
      const row = {
        repository,
        digest,
        mediaType: parsed.mediaType,
        content,
        subject: parsed.subject?.digest ?? '',
        refersTo,
      };
      await manager.getRepository(ManifestRow).upsert(row, ['repository', 'digest']);
      if (!isDigest(reference))
        await manager.getRepository(TagRow).upsert({ repository, name: reference, digest }, ['repository', 'name']);
    });
    return { digest, subject: parsed.subject?.digest ?? '' };
  }

  async deleteManifest(repository: string, reference: string): Promise<void> {
    if (!isDigest(reference)) {
      const { affected } = await this.database.getRepository(TagRow).delete({ repository, name: reference });
      if (!affected) throw new DistributionError('MANIFEST_UNKNOWN', 'NotFound', 'manifest unknown', { reference });
      return;
    }
    await this.manifest(repository, reference);
    await this.database.transaction(async (manager) => {
      await manager.getRepository(TagRow).delete({ repository, digest: reference });
      await manager.getRepository(ManifestRow).delete({ repository, digest: reference });
    });
    this.#cache.delete(`${repository}@${reference}`);
  }

  /** Tags in name order. Throws NAME_UNKNOWN for a repository that has never been pushed to. */
  async tags(repository: string): Promise<string[]> {
    const rows = await this.database.getRepository(TagRow).find({ where: { repository }, order: { name: 'ASC' } });
    if (rows.length === 0 && !(await this.database.getRepository(ManifestRow).existsBy({ repository }))) {
      throw new DistributionError('NAME_UNKNOWN', 'NotFound', 'repository name not known to registry', {
        name: repository,
      });
    }
    return rows.map(({ name }) => name).sort();
  }

  async catalog(): Promise<string[]> {
    const rows: { repository: string }[] = await this.database.query(
      'SELECT DISTINCT repository FROM registry.manifests ORDER BY 1',
    );
    return rows.map(({ repository }) => repository);
  }

  /** OCI dist-spec §"Listing Referrers". */
  async referrers(repository: string, subject: Digest, artifactType: string | undefined): Promise<Descriptor[]> {
    const rows = await this.database.getRepository(ManifestRow).findBy({ repository, subject });
    return rows
      .map((row) => {
        const parsed = parseManifest(row.content, row.mediaType);
        return {
          mediaType: row.mediaType,
          digest: row.digest as Digest,
          size: row.content.length,
          ...(parsed.artifactType ? { artifactType: parsed.artifactType } : {}),
          ...(parsed.annotations ? { annotations: parsed.annotations } : {}),
        };
      })
      .filter((descriptor) => artifactType === undefined || descriptor.artifactType === artifactType);
  }

  async hasBlob(repository: string, digest: Digest): Promise<boolean> {
    return this.database.getRepository(RepositoryBlobRow).existsBy({ repository, digest });
  }

  async linkBlob(repository: string, digest: Digest): Promise<void> {
    await this.database.getRepository(RepositoryBlobRow).upsert({ repository, digest }, ['repository', 'digest']);
  }

  async unlinkBlob(repository: string, digest: Digest): Promise<void> {
    const { affected } = await this.database.getRepository(RepositoryBlobRow).delete({ repository, digest });
    if (!affected) throw new DistributionError('BLOB_UNKNOWN', 'NotFound', 'blob unknown to registry', { digest });
  }

  async #digestOfTag(repository: string, name: string): Promise<string | undefined> {
    return (await this.database.getRepository(TagRow).findOneBy({ repository, name }))?.digest;
  }

  async #requireBlob(repository: string, { digest, urls }: Descriptor): Promise<void> {
    if (urls?.length) return; // foreign layers live elsewhere
    if ((await this.blobs.size(digest)) === undefined || !(await this.hasBlob(repository, digest))) {
      throw new DistributionError('MANIFEST_BLOB_UNKNOWN', 'NotFound', `blob unknown to registry: ${digest}`, {
        digest,
      });
    }
  }

  async #requireManifest(repository: string, { digest }: Descriptor): Promise<void> {
    if (!(await this.database.getRepository(ManifestRow).existsBy({ repository, digest }))) {
      throw new DistributionError('MANIFEST_BLOB_UNKNOWN', 'NotFound', `manifest unknown to registry: ${digest}`, {
        digest,
      });
    }
  }
}

function parseManifest(content: Buffer, contentType: string): ParsedManifest {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(content.toString()) as Record<string, unknown>;
  } catch (error) {
    throw new DistributionError('MANIFEST_INVALID', 'InvalidArgument', `manifest invalid: ${(error as Error).message}`);
  }
  const mediaType = typeof json.mediaType === 'string' ? json.mediaType : contentType;
  const config = json.config as Descriptor | undefined;
  const layers = (json.layers ?? []) as Descriptor[];
  const manifests = (json.manifests ?? []) as Descriptor[];
  const subject = json.subject as Descriptor | undefined;
  const all = [...(config ? [config] : []), ...layers, ...manifests, ...(subject ? [subject] : [])];
  if (
    json.schemaVersion !== 2 ||
    !Array.isArray(layers) ||
    !Array.isArray(manifests) ||
    all.some((item) => !isDigest(item?.digest ?? ''))
  ) {
    throw new DistributionError(
      'MANIFEST_INVALID',
      'InvalidArgument',
      'manifest invalid: not an image manifest or index of schema version 2',
    );
  }
  return {
    mediaType,
    artifactType: (json.artifactType as string | undefined) ?? config?.mediaType,
    annotations: json.annotations as Record<string, string> | undefined,
    subject,
    blobs: [...(config ? [config] : []), ...layers],
    manifests,
  };
}

/** A missing blob as the registry's API names it. */
export function blobUnknown(digest: string): DistributionError {
  return new DistributionError('BLOB_UNKNOWN', 'NotFound', 'blob unknown to registry', { digest });
}
