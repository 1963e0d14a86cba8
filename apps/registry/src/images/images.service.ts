import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import { Conflict, InvalidArgument } from '@gantry/errors';
import type { registry } from '@gantry/contracts';
import {
  digestOf,
  formatReference,
  MediaType,
  parseReference,
  satisfies,
  withDefaultTag,
  type Digest,
  type ImageConfig,
  type ImageManifest,
  type Platform,
} from '@gantry/oci';
import { DataSource } from 'typeorm';
import { BlobStore } from '../blobs/blob-store.js';
import { ImageReferenceRow, ImageRow, type StoredLayer } from '../database/entities.js';
import { ImageEvents } from '../events/image-events.js';
import { imageFilter, isDangling } from './image-filters.js';
import { ImageIndex } from './image-index.js';
import { familiar, isDigestReference, noSuchImage, sizeOf, type Image } from './image.js';

export interface NewImage {
  readonly config: Buffer;
  readonly layers: readonly StoredLayer[];
  /** Where it came with one; else an OCI manifest is made. */
  readonly manifest?: { readonly mediaType: string; readonly bytes: Buffer };
  readonly parentId?: string;
}

/** The platform's images: rows in Postgres, found in memory. A change is written before it is seen. */
@Injectable()
export class ImagesService implements OnModuleInit {
  readonly #index = new ImageIndex();

  constructor(
    @Inject(DataSource) private readonly database: DataSource,
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(ImageEvents) private readonly events: ImageEvents,
  ) {}

  async onModuleInit(): Promise<void> {
    const [rows, references] = await Promise.all([
      this.database.getRepository(ImageRow).find(),
      this.database.getRepository(ImageReferenceRow).find(),
    ]);
    const byImage = Map.groupBy(references, ({ imageId }) => imageId);
    for (const row of rows) {
      this.#index.add(toImage(row, byImage.get(row.id)?.map(({ reference }) => reference) ?? []));
    }
  }

  get all(): Image[] {
    return this.#index.all;
  }

  /** Throws `NotFound` where there is none, or none for the platform. */
  resolve(text: string, platform?: Platform): Image {
    const image = this.#index.resolve(text);
    if (platform && !satisfies(image.config, platform)) {
      const { os, architecture } = image.config;
      throw noSuchImage(
        `${text}: image with reference ${text} was found but its platform (${os}/${architecture}) does not match the specified platform (${platform.os}/${platform.architecture})`,
      );
    }
    return image;
  }

  list(request: registry.ListImagesRequest): Image[] {
    const matches = imageFilter(request.filters, (text) => this.#index.resolve(text));
    const parents = new Set(this.all.map(({ row }) => row.parentId));
    return this.all
      .filter((image) => request.all || !isDangling(image) || !parents.has(image.row.id))
      .filter(matches)
      .sort((a, b) => Date.parse(b.config.created ?? '') - Date.parse(a.config.created ?? ''));
  }

  /** Records an image whose layers are in the store. The same configuration is the same image. */
  async create(image: NewImage): Promise<Image> {
    const config = parseConfig(image.config);
    const diffIds = config.rootfs.diff_ids;
    if (diffIds.length !== image.layers.length || image.layers.some(({ diffId }, index) => diffId !== diffIds[index])) {
      throw new InvalidArgument('the image configuration names other layers than were given');
    }
    const id = digestOf(image.config);
    const known = this.#index.byId(id);
    if (known) return known;
    await this.blobs.writeBytes(image.config);
    const { mediaType, bytes } = image.manifest ?? makeManifest(id, image);
    await this.blobs.writeBytes(bytes);
    const row = this.database.getRepository(ImageRow).create({
      id,
      config: image.config,
      manifest: { mediaType, digest: digestOf(bytes), size: bytes.length },
      layers: [...image.layers],
      parentId: image.parentId ?? '',
      lastTagged: '',
    });
    await this.database.getRepository(ImageRow).upsert(row, ['id']);
    const made = toImage(row, []);
    this.#index.add(made);
    return made;
  }

  /** Points a full reference (with tag or digest) at an image. */
  async point(reference: string, image: Image): Promise<void> {
    if (image.references.has(reference)) return;
    await this.database.getRepository(ImageReferenceRow).upsert({ reference, imageId: image.row.id }, ['reference']);
    // What loses its last name by this stays as a dangling image, as in Docker.
    this.#index.point(reference, image);
    if (!isDigestReference(reference)) {
      image.row.lastTagged = new Date().toISOString();
      this.events.publish('tag', image.row.id, familiar(reference), image.config.config?.Labels);
    }
  }

  async tag(source: string, target: string): Promise<void> {
    const image = this.resolve(source);
    const reference = withDefaultTag(parseReference(target));
    if (reference.digest !== undefined) throw new InvalidArgument('refusing to create a tag with a digest reference');
    await this.point(formatReference(reference), image);
  }

  /** `docker rmi`: takes names away; the image itself goes with its last one. */
  async remove(request: registry.RemoveImageRequest): Promise<registry.RemovedImage[]> {
    const image = this.resolve(request.reference);
    const uses = request.inUse.filter(({ imageId }) => imageId === image.row.id);
    const isById = image.row.id.startsWith(request.reference) || image.row.id.startsWith(`sha256:${request.reference}`);
    const tags = [...image.references].filter((reference) => !isDigestReference(reference));
    if (!isById) {
      const reference = formatReference(withDefaultTag(parseReference(request.reference)));
      if (tags.length > 1 || (tags.length === 1 && isDigestReference(reference) && !image.references.has(reference))) {
        return this.#untag(image, [reference]);
      }
      const use = uses[0];
      if (use && !request.force) {
        throw new Conflict(
          `conflict: unable to remove repository reference "${request.reference}" (must force) - container ${use.containerId.slice(0, 12)} is using its referenced image ${shortId(image)}`,
        );
      }
      if (use) return this.#untag(image, [reference]);
    } else {
      this.#checkRemovalById(image, tags, uses, request.force);
    }
    const removed = await this.#untag(image, [...image.references]);
    return [...removed, ...(await this.#deleteWithParents(image, request.noPrune))];
  }

  async prune(request: registry.PruneImagesRequest): Promise<{ removed: registry.RemovedImage[]; reclaimed: number }> {
    const { dangling, ...others } = request.filters?.byKey ?? {};
    const danglingOnly = !['0', 'false'].includes(dangling?.values[0] ?? 'true');
    const matches = imageFilter({ byKey: others }, (text) => this.#index.resolve(text));
    const used = new Set(request.inUse.map(({ imageId }) => imageId));
    const removed: registry.RemovedImage[] = [];
    let reclaimed = 0;
    for (const image of this.all) {
      if (used.has(image.row.id) || this.#isParent(image) || (danglingOnly && !isDangling(image)) || !matches(image))
        continue;
      reclaimed += sizeOf(image);
      removed.push(
        ...(await this.#untag(image, [...image.references])),
        ...(await this.#deleteWithParents(image, false)),
      );
    }
    return { removed, reclaimed };
  }

  #checkRemovalById(image: Image, tags: readonly string[], uses: readonly registry.ImageUse[], force: boolean): void {
    const running = uses.find(({ isRunning }) => isRunning);
    if (running) {
      throw new Conflict(
        `conflict: unable to delete ${shortId(image)} (cannot be forced) - image is being used by running container ${running.containerId.slice(0, 12)}`,
      );
    }
    if (this.#isParent(image)) {
      throw new Conflict(
        `conflict: unable to delete ${shortId(image)} (cannot be forced) - image has dependent child images`,
      );
    }
    if (force) return;
    if (new Set(tags.map((tag) => tag.slice(0, tag.lastIndexOf(':')))).size > 1) {
      throw new Conflict(
        `conflict: unable to delete ${shortId(image)} (must be forced) - image is referenced in multiple repositories`,
      );
    }
    if (uses[0]) {
      throw new Conflict(
        `conflict: unable to delete ${shortId(image)} (must be forced) - image is being used by stopped container ${uses[0].containerId.slice(0, 12)}`,
      );
    }
  }

  async #untag(image: Image, references: readonly string[]): Promise<registry.RemovedImage[]> {
    const removed: registry.RemovedImage[] = [];
    for (const reference of references) {
      if (!image.references.has(reference)) continue;
      await this.database.getRepository(ImageReferenceRow).delete({ reference });
      this.#index.drop(reference);
      removed.push({ untagged: familiar(reference), deleted: '' });
      this.events.publish('untag', image.row.id, image.row.id);
    }
    return removed;
  }

  async #deleteWithParents(image: Image, keepParents: boolean): Promise<registry.RemovedImage[]> {
    const removed: registry.RemovedImage[] = [];
    for (let current: Image | undefined = image; current;) {
      if (this.#isParent(current) || (current !== image && current.references.size > 0)) break;
      await this.database.getRepository(ImageRow).delete({ id: current.row.id });
      this.#index.remove(current);
      removed.push({ untagged: '', deleted: current.row.id });
      this.events.publish('delete', current.row.id, current.row.id);
      current = keepParents || !current.row.parentId ? undefined : this.#index.byId(current.row.parentId);
    }
    return removed;
  }

  #isParent(image: Image): boolean {
    return this.all.some(({ row }) => row.parentId === image.row.id);
  }
}

function shortId(image: Image): string {
  return image.row.id.slice('sha256:'.length, 'sha256:'.length + 12);
}

function toImage(row: ImageRow, references: readonly string[]): Image {
  return { row, config: parseConfig(row.config), references: new Set(references) };
}

/** Throws `InvalidArgument` where the bytes are no image configuration. */
export function parseConfig(bytes: Buffer): ImageConfig {
  let config: Partial<ImageConfig>;
  try {
    config = JSON.parse(bytes.toString()) as Partial<ImageConfig>;
  } catch (error) {
    throw new InvalidArgument(`invalid image configuration: ${(error as Error).message}`);
  }
  if (!Array.isArray(config.rootfs?.diff_ids))
    throw new InvalidArgument('invalid image configuration: no rootfs.diff_ids');
  return { os: 'linux', architecture: 'amd64', ...config } as ImageConfig;
}

function makeManifest(id: Digest, image: NewImage): { mediaType: string; bytes: Buffer } {
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: MediaType.ociManifest,
    config: { mediaType: MediaType.ociConfig, digest: id, size: image.config.length },
    layers: image.layers.map(({ descriptor: { mediaType, digest, size } }) => ({ mediaType, digest, size })),
  };
  return { mediaType: MediaType.ociManifest, bytes: Buffer.from(JSON.stringify(manifest)) };
}
