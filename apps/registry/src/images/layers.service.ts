import { Inject, Injectable } from '@nestjs/common';
import { createHash } from 'node:crypto';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InvalidArgument } from '@gantry/errors';
import { MediaType, type Digest } from '@gantry/oci';
import { compressionOfBytes, decompress } from '@gantry/layers';
import { BlobStore } from '../blobs/blob-store.js';
import type { StoredLayer } from '../database/entities.js';

const MEDIA_TYPES: Readonly<Record<string, string>> = { gzip: MediaType.ociLayerGzip, zstd: MediaType.ociLayerZstd };

/** Layers as the store has them: a blob, what it unpacks to, and how large that is. */
@Injectable()
export class LayersService {
  constructor(@Inject(BlobStore) private readonly blobs: BlobStore) {}

  /**
   * A stored blob as the layer that a configuration calls `diffId`. Reads it once to know its uncompressed digest and size. Throws
   * `InvalidArgument` (naming `name`) where it is another.
   */
  async fromBlob(digest: Digest, diffId: Digest, name: string, mediaType?: string): Promise<StoredLayer> {
    const size = await this.blobs.size(digest);
    if (size === undefined) throw new InvalidArgument(`layer ${name} is missing`);
    const head = await this.#head(digest);
    const compression = compressionOfBytes(head);
    const descriptor = { mediaType: mediaType ?? MEDIA_TYPES[compression ?? ''] ?? MediaType.ociLayer, digest, size };
    if (compression === undefined && digest === diffId) return { diffId, descriptor, uncompressedSize: size };
    const hash = createHash('sha256');
    let uncompressedSize = 0;
    const counting = new Writable({
      write(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        uncompressedSize += chunk.length;
        done();
      },
    });
    await pipeline(await decompress(await this.blobs.read(digest)), counting);
    const actual = `sha256:${hash.digest('hex')}`;
    if (actual !== diffId)
      throw new InvalidArgument(`layer ${name} is not what its image says: expected ${diffId}, got ${actual}`);
    return { diffId, descriptor, uncompressedSize };
  }

  async #head(digest: Digest): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.blobs.read(digest, { start: 0, end: 15 })) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }
}
