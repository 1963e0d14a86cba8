import { randomUUID } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import { createHash } from 'node:crypto';
import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { registry } from '@gantry/contracts';
import { DataLoss, Internal, NotFound } from '@gantry/errors';
import { decompress, LayerTool, type MergedTree } from '@gantry/layers';
import { chainIds, compressionOf, digestOf, encodedOf, MediaType, type Descriptor, type Digest } from '@gantry/oci';
import { LOGGER, type GrpcConnection, type Logger, type RpcClient } from '@gantry/service-kit';
import { request } from 'node:http';
import { CONFIG, type AgentConfig } from '../config.js';
import { REGISTRY } from '../tokens.js';

export interface Layer {
  readonly diffId: Digest;
  readonly descriptor: Descriptor;
}

/** The record beside an unpacked layer. */
interface LayerRecord {
  readonly chainId: Digest;
  readonly parent: Digest | '';
  readonly diffId: Digest;
  /** Short name in `l/`: overlay's option string holds more of these. */
  readonly bytes: number;
}

/**
 * Unpacked layers by chain ID, once however many images share them, and writable snapshots on top. A layer is visible only when it is
 * whole: unpacked aside, renamed, and its record written inside before.
 */
@Injectable()
export class SnapshotsService implements OnModuleInit, OnModuleDestroy {
  readonly #root: string;
  readonly #known = new Map<Digest, LayerRecord>();
  readonly #unpacking = new Map<Digest, Promise<void>>();
  /** Deletions under way: a shutdown waits for them. */
  readonly #deleting = new Set<Promise<void>>();
  readonly #blobs: RpcClient<typeof registry.BlobsDefinition>;

  constructor(
    @Inject(CONFIG) private readonly config: AgentConfig,
    @Inject(LayerTool) private readonly tool: LayerTool,
    @Inject(REGISTRY) connection: GrpcConnection,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#root = join(config.dataDir, 'snapshots');
    this.#blobs = connection.client(registry.BlobsDefinition);
  }

  async onModuleInit(): Promise<void> {
    for (const name of ['layers', 'active', 'aside', 'empty']) await mkdir(join(this.#root, name), { recursive: true });
    // What a crash left half made or half removed.
    await rm(join(this.#root, 'aside'), { recursive: true, force: true });
    await mkdir(join(this.#root, 'aside'));
    for (const name of await readdir(join(this.#root, 'layers'))) {
      const record = JSON.parse(await readFile(join(this.#root, 'layers', name, 'layer.json'), 'utf8')) as LayerRecord;
      this.#known.set(record.chainId, record);
    }
  }

  async onModuleDestroy(): Promise<void> {
    await Promise.all(this.#deleting);
  }

  /** Makes sure all layers (bottom first) are unpacked. Resolves with the chain's ID; undefined for no layers. */
  async ensure(layers: readonly Layer[], signal?: AbortSignal): Promise<Digest | undefined> {
    const chain = chainIds(layers.map(({ diffId }) => diffId));
    for (const [index, layer] of layers.entries()) {
      const chainId = chain[index] as Digest;
      if (this.#known.has(chainId)) continue;
      const running = this.#unpacking.get(chainId) ?? this.#unpack(layer, chainId, chain[index - 1] ?? '', signal);
      this.#unpacking.set(chainId, running);
      await running.finally(() => this.#unpacking.delete(chainId));
    }
    return chain.at(-1);
  }

  /** Folders of a chain, top first. */
  lowerdirs(chain: Digest | undefined): string[] {
    const directories: string[] = [];
    for (let at: Digest | '' | undefined = chain; at;) {
      const record = this.#known.get(at);
      if (!record) throw new NotFound('layer', at);
      directories.push(this.#layerDir(at));
      at = record.parent;
    }
    // Overlay wants a lower layer; a container from scratch gets an empty one.
    return directories.length > 0 ? directories : [this.#empty()];
  }

  /** A writable snapshot on a chain. Idempotent per id. */
  prepare(id: string, chain: Digest | undefined): MergedTree {
    const root = join(this.#root, 'active', id);
    // On the way of every start: a few small calls cost less here than a round trip each through libuv's pool.
    if (!existsSync(root)) {
      mkdirSync(join(root, 'work'), { recursive: true });
      mkdirSync(join(root, 'upper'));
      writeFileSync(join(root, 'chain'), chain ?? '');
    }
    return this.#tree(id, chain);
  }

  async tree(id: string): Promise<MergedTree> {
    return this.#tree(id, await this.chainOf(id));
  }

  async chainOf(id: string): Promise<Digest | undefined> {
    try {
      return ((await readFile(join(this.#root, 'active', id, 'chain'), 'utf8')) || undefined) as Digest | undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new NotFound('snapshot', id);
      throw error;
    }
  }

  /** Gives a snapshot up: out of the way at once, deleted behind the caller's back. Idempotent. */
  remove(id: string): void {
    const aside = join(this.#root, 'aside', randomUUID());
    try {
      renameSync(join(this.#root, 'active', id), aside);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    const deleting = rm(aside, { recursive: true, force: true })
      .catch((error: unknown) =>
        this.logger.warn({ err: error, snapshot: id }, 'a snapshot was not deleted; the next start does it'),
      )
      .finally(() => this.#deleting.delete(deleting));
    this.#deleting.add(deleting);
  }

  /** Snapshots that exist; recovery removes those that belong to nothing. */
  active(): Promise<string[]> {
    return readdir(join(this.#root, 'active'));
  }

  /** A snapshot's changes as a layer in the registry's store; its upper directory becomes the unpacked layer, unread. */
  async commit(id: string, sourceDateEpoch?: number): Promise<{ layer: Layer; chainId: Digest; isEmpty: boolean }> {
    const parent = await this.chainOf(id);
    const upper = join(this.#root, 'active', id, 'upper');
    const isEmpty = (await readdir(upper)).length === 0;
    const stored = await this.#store(this.tool.diff(upper, sourceDateEpoch === undefined ? {} : { sourceDateEpoch }));
    const chainId = parent === undefined ? stored.digest : digestOf(`${parent} ${stored.digest}`);
    if (!this.#known.has(chainId))
      await this.#adopt(id, { chainId, parent: parent ?? '', diffId: stored.digest, bytes: stored.size });
    this.remove(id);
    const descriptor = { mediaType: MediaType.ociLayer, digest: stored.digest, size: stored.size };
    return { layer: { diffId: stored.digest, descriptor }, chainId, isEmpty };
  }

  /** Removes unpacked layers that neither a snapshot nor one of `keep` needs. */
  async prune(keep: ReadonlySet<Digest>): Promise<void> {
    const needed = new Set<string>();
    const mark = (chain: Digest | undefined) => {
      for (let at: Digest | '' | undefined = chain; at && !needed.has(at); at = this.#known.get(at)?.parent)
        needed.add(at);
    };
    for (const chain of keep) mark(chain);
    for (const id of await this.active()) mark(await this.chainOf(id));
    for (const chainId of [...this.#known.keys()].filter((known) => !needed.has(known))) {
      this.#known.delete(chainId);
      const aside = join(this.#root, 'aside', randomUUID());
      await rename(join(this.#layerDir(chainId), '..'), aside);
      await rm(aside, { recursive: true, force: true });
    }
  }

  async #adopt(id: string, record: LayerRecord): Promise<void> {
    const aside = join(this.#root, 'aside', randomUUID());
    await mkdir(aside);
    await writeFile(join(aside, 'layer.json'), JSON.stringify(record));
    await rename(join(this.#root, 'active', id, 'upper'), join(aside, 'fs'));
    await rename(aside, join(this.#root, 'layers', encodedOf(record.chainId)));
    this.#known.set(record.chainId, record);
  }

  async #unpack(layer: Layer, chainId: Digest, parent: Digest | '', signal?: AbortSignal): Promise<void> {
    const aside = join(this.#root, 'aside', randomUUID());
    const into = join(aside, 'fs');
    await mkdir(into, { recursive: true });
    try {
      const lowerdirs = parent ? this.lowerdirs(parent) : [];
      const input = await this.#open(layer.descriptor);
      const { diffId, bytes } = await this.tool.apply(input, {
        into,
        lowerdirs,
        whiteouts: true,
        ...(signal ? { signal } : {}),
      });
      if (diffId !== layer.diffId)
        throw new DataLoss(`layer ${layer.descriptor.digest} unpacks to ${diffId}, not to ${layer.diffId}`);
      const record: LayerRecord = { chainId, parent, diffId, bytes };
      await writeFile(join(aside, 'layer.json'), JSON.stringify(record));
      await rename(aside, join(this.#root, 'layers', encodedOf(chainId)));
      this.#known.set(chainId, record);
    } catch (error) {
      await rm(aside, { recursive: true, force: true });
      throw error;
    }
  }

  async #open(descriptor: Descriptor): Promise<Readable> {
    const { path } = await this.#blobs.locate({ digest: descriptor.digest });
    const file = createReadStream(path, { highWaterMark: 1024 * 1024 });
    return compressionOf(descriptor.mediaType) === 'none' ? file : decompress(file);
  }

  /** Streams a layer into the registry's store over its private socket. */
  #store(body: Readable): Promise<{ digest: Digest; size: number }> {
    const hash = createHash('sha256');
    return new Promise((resolve, reject) => {
      const call = request(
        {
          socketPath: `${this.config.runDir}/registry.http.sock`,
          path: '/blobs',
          method: 'POST',
          headers: { 'content-type': 'application/octet-stream' },
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          response.on('end', () => {
            if (response.statusCode !== 201) return reject(new Internal(`the registry refused a layer: ${text}`));
            const stored = JSON.parse(text) as { digest: Digest; size: number };
            const sent = `sha256:${hash.digest('hex')}`;
            if (stored.digest !== sent)
              return reject(new DataLoss(`the registry stored ${stored.digest} of what was ${sent}`));
            resolve(stored);
          });
        },
      );
      call.once('error', reject);
      body.on('data', (chunk: Buffer) => hash.update(chunk));
      pipeline(body, call).catch(reject);
    });
  }

  #tree(id: string, chain: Digest | undefined): MergedTree {
    const root = join(this.#root, 'active', id);
    return { lowerdirs: this.lowerdirs(chain), upperdir: join(root, 'upper'), workdir: join(root, 'work') };
  }

  #layerDir(chainId: Digest): string {
    return join(this.#root, 'layers', encodedOf(chainId), 'fs');
  }

  #empty(): string {
    return join(this.#root, 'empty');
  }
}
