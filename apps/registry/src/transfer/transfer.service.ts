import { Inject, Injectable } from '@nestjs/common';
import { Transform } from 'node:stream';
import { InvalidArgument, NotFound, Unavailable } from '@gantry/errors';
import type { common, registry } from '@gantry/contracts';
import {
  digestOf,
  familiarName,
  formatFamiliar,
  formatReference,
  hostPlatform,
  isIndex,
  parseReference,
  satisfies,
  withDefaultTag,
  type Descriptor,
  type Digest,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  type Platform,
  type Reference,
} from '@gantry/oci';
import { BlobStore } from '../blobs/blob-store.js';
import { CONFIG, ownHosts, type RegistryConfig } from '../config.js';
import { RepositoriesService } from '../distribution/repositories.service.js';
import { ImageEvents } from '../events/image-events.js';
import { isDigestReference, type Image } from '../images/image.js';
import { ImagesService } from '../images/images.service.js';
import { LayersService } from '../images/layers.service.js';
import { RegistryClient, type RemoteManifest } from './registry-client.js';

type Progress = registry.TransferProgress;

const line = (id: string, status: string, current = 0, total = 0): Progress => ({
  id,
  status,
  current,
  total,
  pushed: undefined,
});
const shortId = (digest: string) => digest.slice('sha256:'.length, 'sha256:'.length + 12);

/** Where a pull reads: another registry, or this one's own repositories. */
interface Source {
  manifest(tagOrDigest: string): Promise<RemoteManifest>;
  fetch(descriptor: Descriptor, onProgress: (bytes: number) => void): Promise<void>;
}

/** Images to and from registries, in Docker's own words of progress. Between this registry and the local images no bytes move. */
@Injectable()
export class TransferService {
  readonly #ownHosts: ReadonlySet<string>;

  constructor(
    @Inject(CONFIG) config: RegistryConfig,
    @Inject(ImagesService) private readonly images: ImagesService,
    @Inject(LayersService) private readonly layers: LayersService,
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(RepositoriesService) private readonly repositories: RepositoriesService,
    @Inject(ImageEvents) private readonly events: ImageEvents,
  ) {
    this.#ownHosts = ownHosts(config);
  }

  async *pull(request: registry.PullImageRequest, signal: AbortSignal): AsyncGenerator<Progress> {
    const reference = parseReference(request.reference);
    const source = this.#source(reference, request.credentials, signal);
    const platform = request.platform ? { ...request.platform } : hostPlatform();
    const tags = request.allTags ? await this.#allTags(reference, request.credentials) : [undefined];
    for (const tag of tags) {
      yield* this.#pullOne(tag ? { ...reference, tag } : withDefaultTag(reference), source, platform);
    }
  }

  async *#pullOne(reference: Reference, source: Source, platform: Platform): AsyncGenerator<Progress> {
    const wanted = reference.digest ?? reference.tag ?? 'latest';
    const top = await source.manifest(wanted);
    const topDigest = digestOf(top.bytes);
    if (reference.digest !== undefined && topDigest !== reference.digest) {
      throw new InvalidArgument(`manifest verification failed for digest ${reference.digest}`);
    }
    yield line(wanted, `Pulling from ${reference.path}`);
    const chosen = isIndex(top.mediaType) ? await source.manifest(choose(top, platform, reference)) : top;
    const manifest = JSON.parse(chosen.bytes.toString()) as ImageManifest;
    if (!manifest.config?.digest) throw new InvalidArgument(`${formatFamiliar(reference)} is no image this can run`);
    const before = this.images.all.find(({ row }) => row.id === manifest.config.digest);
    yield* this.#fetchLayers(manifest, source);
    await this.#fetchBlob(source, manifest.config);
    const image = await this.#record(manifest, chosen);
    const { domain, path, tag } = reference;
    await this.images.point(formatReference({ domain, path, digest: topDigest }), image);
    if (tag !== undefined) await this.images.point(formatReference({ domain, path, tag }), image);
    this.events.publish('pull', formatFamiliar(reference), familiarName(reference), image.config.config?.Labels);
    yield line('', `Digest: ${topDigest}`);
    yield line(
      '',
      `Status: ${before ? 'Image is up to date' : 'Downloaded newer image'} for ${formatFamiliar(reference)}`,
    );
  }

  async *#fetchLayers(manifest: ImageManifest, source: Source): AsyncGenerator<Progress> {
    for (const { digest } of manifest.layers) yield line(shortId(digest), 'Pulling fs layer');
    const queue: Progress[] = [];
    let wake = () => {};
    const push = (progress: Progress) => {
      queue.push(progress);
      wake();
    };
    let pending = true;
    const work = Promise.all(
      manifest.layers.map(async (layer) => {
        const id = shortId(layer.digest);
        if ((await this.blobs.size(layer.digest)) !== undefined) return push(line(id, 'Already exists'));
        let reported = 0;
        await source.fetch(layer, (bytes) => {
          if (bytes - reported < 1024 * 1024 && bytes < layer.size) return;
          reported = bytes;
          push(line(id, 'Downloading', bytes, layer.size));
        });
        push(line(id, 'Verifying Checksum'));
        push(line(id, 'Download complete'));
        push(line(id, 'Pull complete'));
      }),
    ).finally(() => {
      pending = false;
      wake();
    });
    work.catch(() => undefined); // awaited below
    while (pending || queue.length > 0) {
      const next = queue.shift();
      if (next) yield next;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    await work;
  }

  async #fetchBlob(source: Source, descriptor: Descriptor): Promise<void> {
    if ((await this.blobs.size(descriptor.digest)) === undefined) await source.fetch(descriptor, () => undefined);
  }

  async #record(manifest: ImageManifest, chosen: RemoteManifest): Promise<Image> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.blobs.read(manifest.config.digest)) chunks.push(chunk as Buffer);
    const config = Buffer.concat(chunks);
    const diffIds = (JSON.parse(config.toString()) as ImageConfig).rootfs?.diff_ids ?? [];
    if (diffIds.length !== manifest.layers.length)
      throw new InvalidArgument('the manifest and the configuration name different layers');
    const known = this.images.all.find(({ row }) => row.id === manifest.config.digest);
    if (known) return known;
    const layers = await Promise.all(
      manifest.layers.map((layer, index) =>
        this.layers.fromBlob(layer.digest, diffIds[index] as Digest, shortId(layer.digest), layer.mediaType),
      ),
    );
    return this.images.create({ config, layers, manifest: { mediaType: chosen.mediaType, bytes: chosen.bytes } });
  }

  #source(reference: Reference, credentials: common.RegistryCredentials | undefined, signal: AbortSignal): Source {
    if (this.#ownHosts.has(reference.domain)) return this.#ownSource(reference);
    const client = new RegistryClient(reference, credentials, 'pull');
    return {
      manifest: (wanted) => client.manifest(wanted, signal),
      fetch: async (descriptor, onProgress) => {
        let bytes = 0;
        const counting = new Transform({
          transform(chunk: Buffer, _encoding, done) {
            onProgress((bytes += chunk.length));
            done(null, chunk);
          },
        });
        const body = await client.blob(descriptor.digest, signal);
        body.on('error', (error) => counting.destroy(error));
        await this.blobs.write(body.pipe(counting), { expected: descriptor.digest });
      },
    };
  }

  #ownSource(reference: Reference): Source {
    return {
      manifest: async (wanted) => {
        try {
          const { content, mediaType, digest } = await this.repositories.manifest(reference.path, wanted);
          return { bytes: content, mediaType, digest: digest as Digest };
        } catch (error) {
          if (!(error instanceof Error) || !error.message.includes('manifest unknown')) throw error;
          const name = formatFamiliar(reference);
          throw new NotFound('manifest', name, `manifest for ${name} not found: manifest unknown: manifest unknown`);
        }
      },
      // Its blobs are this store's: one that is not here is nowhere.
      fetch: (descriptor) =>
        Promise.reject(
          new Unavailable(`blob ${descriptor.digest} of ${formatFamiliar(reference)} is missing from the registry`),
        ),
    };
  }

  async #allTags(reference: Reference, credentials: common.RegistryCredentials | undefined): Promise<string[]> {
    return this.#ownHosts.has(reference.domain)
      ? this.repositories.tags(reference.path)
      : new RegistryClient(reference, credentials, 'pull').tags();
  }

  async *push(request: registry.PushImageRequest): AsyncGenerator<Progress> {
    const base = parseReference(request.reference);
    const prefix = formatReference({ domain: base.domain, path: base.path });
    const names = request.allTags
      ? this.images.all.flatMap(({ references }) =>
          [...references].filter((name) => name.startsWith(`${prefix}:`) && !isDigestReference(name)),
        )
      : [formatReference(withDefaultTag(base))];
    const pushed = names.map((name) => ({ name, image: this.#local(name) }));
    if (pushed.length === 0)
      throw new NotFound('image', prefix, `An image does not exist locally with the tag: ${familiarName(base)}`);
    yield line('', `The push refers to repository [${prefix}]`);
    for (const { name, image } of pushed) yield* this.#pushOne(parseReference(name), image, request.credentials);
  }

  #local(name: string): Image {
    try {
      return this.images.resolve(name);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
      throw new NotFound(
        'image',
        name,
        `An image does not exist locally with the tag: ${familiarName(parseReference(name))}`,
      );
    }
  }

  async *#pushOne(
    reference: Reference,
    image: Image,
    credentials: common.RegistryCredentials | undefined,
  ): AsyncGenerator<Progress> {
    const { manifest, layers } = image.row;
    const bytes = await this.#manifestBytes(image);
    for (const { descriptor } of layers) yield line(shortId(descriptor.digest), 'Preparing');
    if (this.#ownHosts.has(reference.domain)) yield* this.#pushHere(reference, image, bytes);
    else yield* this.#pushThere(reference, image, bytes, credentials);
    const digest = manifest.digest;
    await this.images.point(formatReference({ domain: reference.domain, path: reference.path, digest }), image);
    this.events.publish('push', formatFamiliar(reference), familiarName(reference), image.config.config?.Labels);
    const tag = reference.tag ?? '';
    yield {
      ...line('', `${tag}: digest: ${digest} size: ${bytes.length}`),
      pushed: { tag, digest, size: bytes.length },
    };
  }

  async *#pushHere(reference: Reference, image: Image, bytes: Buffer): AsyncGenerator<Progress> {
    for (const { descriptor } of image.row.layers) {
      const isThere = await this.repositories.hasBlob(reference.path, descriptor.digest);
      await this.repositories.linkBlob(reference.path, descriptor.digest);
      yield line(shortId(descriptor.digest), isThere ? 'Layer already exists' : 'Pushed');
    }
    await this.repositories.linkBlob(reference.path, image.row.id as Digest);
    await this.repositories.putManifest(reference.path, reference.tag ?? 'latest', image.row.manifest.mediaType, bytes);
  }

  async *#pushThere(
    reference: Reference,
    image: Image,
    bytes: Buffer,
    credentials: common.RegistryCredentials | undefined,
  ): AsyncGenerator<Progress> {
    const client = new RegistryClient(reference, credentials, 'pull,push');
    const upload = async (digest: Digest) => {
      if (await client.hasBlob(digest)) return false;
      await client.pushBlob(digest, (await this.blobs.size(digest)) ?? 0, await this.blobs.read(digest));
      return true;
    };
    for (const { descriptor } of image.row.layers) {
      const id = shortId(descriptor.digest);
      yield line(id, 'Pushing', 0, descriptor.size);
      yield line(id, (await upload(descriptor.digest)) ? 'Pushed' : 'Layer already exists');
    }
    await upload(image.row.id as Digest);
    await client.pushManifest(reference.tag ?? 'latest', image.row.manifest.mediaType, bytes);
  }

  async #manifestBytes(image: Image): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.blobs.read(image.row.manifest.digest)) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }

  async login(credentials: common.RegistryCredentials): Promise<string> {
    const host = credentials.serverAddress.replace(/^https?:\/\//, '').replace(/\/.*$/, '') || 'docker.io';
    await new RegistryClient({ domain: host, path: '' }, credentials, 'pull').ping();
    return 'Login Succeeded';
  }

  async inspectRemote(
    request: registry.InspectRemoteRequest,
    signal: AbortSignal,
  ): Promise<registry.InspectRemoteResponse> {
    const reference = withDefaultTag(parseReference(request.reference));
    const top = await this.#source(reference, request.credentials, signal).manifest(
      reference.digest ?? reference.tag ?? 'latest',
    );
    const platforms = isIndex(top.mediaType)
      ? (JSON.parse(top.bytes.toString()) as ImageIndex).manifests.flatMap(({ platform }) =>
          platform ? [{ os: platform.os, architecture: platform.architecture, variant: platform.variant ?? '' }] : [],
        )
      : [];
    return {
      descriptor: {
        mediaType: top.mediaType,
        digest: digestOf(top.bytes),
        size: top.bytes.length,
        annotations: {},
        platform: undefined,
      },
      platforms,
    };
  }
}

function choose(top: RemoteManifest, platform: Platform, reference: Reference): Digest {
  const index = JSON.parse(top.bytes.toString()) as ImageIndex;
  const match = index.manifests.find((entry) => entry.platform && satisfies(entry.platform, platform));
  if (match) return match.digest;
  throw new NotFound(
    'manifest',
    formatFamiliar(reference),
    `no matching manifest for ${platform.os}/${platform.architecture} in the manifest list entries`,
  );
}
