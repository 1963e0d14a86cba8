import { Inject, Injectable } from '@nestjs/common';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InvalidArgument } from '@gantry/errors';
import { decompress } from '@gantry/layers';
import {
  familiarName,
  formatFamiliar,
  formatReference,
  hostPlatform,
  MediaType,
  parseReference,
  withDefaultTag,
  type Digest,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  type Platform,
} from '@gantry/oci';
import { extract, pack, type Pack } from 'tar-stream';
import { BlobStore } from '../blobs/blob-store.js';
import { ImageEvents } from '../events/image-events.js';
import { isDigestReference, type Image } from '../images/image.js';
import { ImagesService } from '../images/images.service.js';
import { LayersService } from '../images/layers.service.js';
import { applyChanges } from './image-changes.js';
import { guardTar } from './tar-check.js';

const MAX_JSON_BYTES = 8 * 1024 * 1024;

/** One image of a docker-archive's manifest.json. */
interface ArchivedImage {
  readonly Config: string;
  readonly RepoTags: readonly string[] | null;
  readonly Layers: readonly string[];
}

export interface LoadedImage {
  readonly id: string;
  /** Familiar references; empty for an image without a name. */
  readonly references: readonly string[];
}

/** What an archive holds, by path: small JSON in memory, everything else in the blob store. */
interface ArchiveContent {
  readonly json: Map<string, Buffer>;
  readonly blobs: Map<string, Digest>;
}

export interface ImportRequest {
  readonly reference: string | undefined;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform: Platform | undefined;
}

/** Images as archives: `docker load`, `save` and `import`. Nothing of a refused archive becomes visible. */
@Injectable()
export class ArchivesService {
  constructor(
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(ImagesService) private readonly images: ImagesService,
    @Inject(LayersService) private readonly layers: LayersService,
    @Inject(ImageEvents) private readonly events: ImageEvents,
  ) {}

  /** A root file system's tar as an image of one layer. */
  async import(body: Readable, request: ImportRequest): Promise<Image> {
    const reference = request.reference ? withDefaultTag(parseReference(request.reference)) : undefined;
    if (reference?.digest !== undefined) throw new InvalidArgument('cannot import digest reference');
    const config = applyChanges({}, request.changes);
    const plain = await decompress(body);
    const { sink, finished } = guardTar();
    const forBlob = new PassThrough({ highWaterMark: 1024 * 1024 });
    finished.catch((error: Error) => forBlob.destroy(error));
    plain.on('error', (error: Error) => forBlob.destroy(error));
    plain.pipe(sink, { end: true });
    plain.pipe(forBlob);
    // The blob is written while the guard reads; both have to agree before an image is made of it.
    const [stored] = await Promise.all([this.blobs.write(forBlob), finished]);
    const created = new Date().toISOString();
    const image: ImageConfig = {
      ...(request.platform ?? hostPlatform()),
      created,
      config,
      rootfs: { type: 'layers', diff_ids: [stored.digest] },
      history: [{ created, comment: request.message || 'Imported from -' }],
    };
    const descriptor = { mediaType: MediaType.ociLayer, digest: stored.digest, size: stored.size };
    const made = await this.images.create({
      config: Buffer.from(JSON.stringify(image)),
      layers: [{ diffId: stored.digest, descriptor, uncompressedSize: stored.size }],
    });
    if (reference) await this.images.point(formatReference(reference), made);
    this.events.publish('import', made.row.id, reference ? formatFamiliar(reference) : made.row.id);
    return made;
  }

  /** A docker-archive or an OCI layout. */
  async load(body: Readable): Promise<LoadedImage[]> {
    const content = await this.#read(await decompress(body));
    const manifest = content.json.get('manifest.json');
    const loaded = manifest ? await this.#loadDocker(content, manifest) : await this.#loadOci(content);
    for (const { id, references } of loaded) this.events.publish('load', id, references[0] ?? id);
    return loaded;
  }

  /** One tar that is a docker-archive and an OCI layout at once. Throws `NotFound` before the first byte. */
  save(references: readonly string[]): Readable {
    const wanted = references.map((text) => ({ image: this.images.resolve(text), tags: this.#tagsFor(text) }));
    const archive = pack();
    const output = new PassThrough({ highWaterMark: 1024 * 1024 });
    pipeline(archive, output).catch((error: Error) => output.destroy(error));
    this.#write(archive, wanted).catch((error: Error) => archive.destroy(error));
    for (const { image } of wanted) this.events.publish('save', image.row.id, image.row.id);
    return output;
  }

  async #read(archive: Readable): Promise<ArchiveContent> {
    const content: ArchiveContent = { json: new Map(), blobs: new Map() };
    const links = new Map<string, string>();
    const parser = extract();
    parser.on('entry', (header, stream, next) => {
      const path = cleanName(header.name, parser);
      const done = () => next();
      if (header.type === 'symlink' || header.type === 'link') {
        links.set(path, resolveLink(path, header.linkname ?? '', header.type));
        stream.on('end', done).resume();
      } else if (
        header.type === 'file' &&
        /\.json$|^oci-layout$|^repositories$/.test(path) &&
        (header.size ?? 0) <= MAX_JSON_BYTES
      ) {
        readAll(stream as unknown as Readable).then(
          (bytes) => (content.json.set(path, bytes), done()),
          (error: Error) => parser.destroy(error),
        );
      } else if (header.type === 'file') {
        this.blobs.write(stream as unknown as Readable).then(
          ({ digest }) => (content.blobs.set(path, digest), done()),
          (error: Error) => parser.destroy(error),
        );
      } else {
        stream.on('end', done).resume();
      }
    });
    try {
      await pipeline(archive, parser as unknown as NodeJS.WritableStream);
    } catch (error) {
      if (error instanceof InvalidArgument) throw error;
      throw new InvalidArgument(`invalid tar archive: ${(error as Error).message}`, {}, { cause: error });
    }
    for (const [path, target] of links) {
      const digest = content.blobs.get(target);
      if (digest) content.blobs.set(path, digest);
    }
    return content;
  }

  async #loadDocker(content: ArchiveContent, manifest: Buffer): Promise<LoadedImage[]> {
    const entries = parseJson<readonly ArchivedImage[]>(manifest, 'manifest.json');
    if (!Array.isArray(entries)) throw new InvalidArgument('invalid archive: manifest.json is no list');
    const prepared = await Promise.all(
      (entries as ArchivedImage[]).map(async ({ Config, Layers, RepoTags }) => {
        const config = await this.#bytes(content, Config);
        const diffIds = parseJson<ImageConfig>(config, Config).rootfs?.diff_ids ?? [];
        if (diffIds.length !== Layers.length)
          throw new InvalidArgument(
            `invalid archive: ${Config} names ${diffIds.length} layers, manifest.json ${Layers.length}`,
          );
        const layers = await Promise.all(
          Layers.map((path, index) => {
            const digest = content.blobs.get(path);
            if (!digest) throw new InvalidArgument(`invalid archive: layer "${path}" is missing`);
            return this.layers.fromBlob(digest, diffIds[index] as Digest, path);
          }),
        );
        return { config, layers, references: (RepoTags ?? []).map((tag) => withDefaultTag(parseReference(tag))) };
      }),
    );
    const loaded: LoadedImage[] = [];
    for (const { config, layers, references } of prepared) {
      const image = await this.images.create({ config, layers });
      for (const reference of references) await this.images.point(formatReference(reference), image);
      loaded.push({ id: image.row.id, references: references.map(formatFamiliar) });
    }
    return loaded;
  }

  async #loadOci(content: ArchiveContent): Promise<LoadedImage[]> {
    const bytes = content.json.get('index.json');
    if (!bytes) throw new InvalidArgument('invalid archive: neither manifest.json nor index.json is in it');
    const loaded: LoadedImage[] = [];
    for (const { digest, annotations } of parseJson<ImageIndex>(bytes, 'index.json').manifests ?? []) {
      const raw = await this.#bytes(content, `blobs/${digest.replace(':', '/')}`);
      const manifest = parseJson<ImageManifest>(raw, digest);
      const config = await this.#bytes(content, `blobs/${manifest.config.digest.replace(':', '/')}`);
      const diffIds = parseJson<ImageConfig>(config, manifest.config.digest).rootfs?.diff_ids ?? [];
      const layers = await Promise.all(
        manifest.layers.map((layer, index) =>
          this.layers.fromBlob(layer.digest, diffIds[index] as Digest, layer.digest, layer.mediaType),
        ),
      );
      const image = await this.images.create({
        config,
        layers,
        manifest: { mediaType: manifest.mediaType ?? MediaType.ociManifest, bytes: raw },
      });
      const name = annotations?.['io.containerd.image.name'] ?? annotations?.['org.opencontainers.image.ref.name'];
      const reference = name === undefined ? undefined : withDefaultTag(parseReference(name));
      if (reference) await this.images.point(formatReference(reference), image);
      loaded.push({ id: image.row.id, references: reference ? [formatFamiliar(reference)] : [] });
    }
    return loaded;
  }

  /** A JSON document of the archive, wherever it was kept. */
  async #bytes(content: ArchiveContent, path: string): Promise<Buffer> {
    const inMemory = content.json.get(path);
    if (inMemory) return inMemory;
    const digest = content.blobs.get(path);
    const size = digest && (await this.blobs.size(digest));
    if (!digest || size === undefined) throw new InvalidArgument(`invalid archive: "${path}" is missing`);
    if (path.startsWith('blobs/') && path !== `blobs/${digest.replace(':', '/')}`)
      throw new InvalidArgument(`invalid archive: "${path}" has the digest ${digest}`);
    if (size > MAX_JSON_BYTES) throw new InvalidArgument(`invalid archive: "${path}" is too large`);
    return readAll(await this.blobs.read(digest));
  }

  #tagsFor(text: string): string[] {
    if (/^(sha256:)?[a-f0-9]{12,64}$/.test(text)) return [];
    const reference = parseReference(text);
    if (reference.digest !== undefined) return [];
    if (reference.tag !== undefined || text.includes(':')) return [formatFamiliar(reference)];
    const prefix = `${familiarName(reference)}:`;
    const image = this.images.resolve(text);
    return [...image.references]
      .filter((name) => !isDigestReference(name))
      .map((name) => formatFamiliar(parseReference(name)))
      .filter((name) => name.startsWith(prefix));
  }

  async #write(archive: Pack, wanted: readonly { image: Image; tags: readonly string[] }[]): Promise<void> {
    const written = new Set<string>();
    const path = (digest: string) => `blobs/${digest.replace(':', '/')}`;
    const blob = async (digest: Digest) => {
      if (written.has(digest)) return;
      written.add(digest);
      const size = (await this.blobs.size(digest)) ?? 0;
      await pipeline(
        await this.blobs.read(digest),
        archive.entry({ name: path(digest), size, mode: 0o444, mtime: new Date(0) }),
      );
    };
    const text = (name: string, value: unknown) =>
      archive.entry({ name, mode: 0o644, mtime: new Date(0) }, JSON.stringify(value));
    for (const { image } of wanted) {
      for (const { descriptor } of image.row.layers) await blob(descriptor.digest);
      await blob(image.row.id as Digest);
      await blob(image.row.manifest.digest);
    }
    text('oci-layout', { imageLayoutVersion: '1.0.0' });
    text('index.json', {
      schemaVersion: 2,
      mediaType: MediaType.ociIndex,
      manifests: wanted.flatMap(({ image, tags }) =>
        (tags.length ? tags : [undefined]).map((tag) => ({
          ...image.row.manifest,
          ...(tag
            ? {
                annotations: {
                  'io.containerd.image.name': formatReference(parseReference(tag)),
                  'org.opencontainers.image.ref.name': parseReference(tag).tag,
                },
              }
            : {}),
        })),
      ),
    });
    text(
      'manifest.json',
      wanted.map(({ image, tags }) => ({
        Config: path(image.row.id),
        RepoTags: tags.length ? tags : null,
        Layers: image.row.layers.map(({ descriptor }) => path(descriptor.digest)),
      })),
    );
    archive.finalize();
  }
}

function cleanName(name: string, parser: { destroy(error: Error): void }): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..') || name.startsWith('/'))
    parser.destroy(new InvalidArgument(`entry "${name}" of the archive leads out of its root`));
  return parts.join('/');
}

/** Where a link of a legacy archive (`ID/layer.tar -> ../OTHER/layer.tar`) points, as a path of the archive. */
function resolveLink(path: string, target: string, type: string): string {
  const base = type === 'link' ? [] : path.split('/').slice(0, -1);
  for (const part of target.split('/')) {
    if (part === '..') base.pop();
    else if (part !== '' && part !== '.') base.push(part);
  }
  return base.join('/');
}

function parseJson<T>(bytes: Buffer, name: string): T {
  try {
    return JSON.parse(bytes.toString()) as T;
  } catch (error) {
    throw new InvalidArgument(`invalid archive: ${name}: ${(error as Error).message}`, {}, { cause: error });
  }
}

async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
