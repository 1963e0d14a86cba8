import { createHash, randomUUID, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { NotFound } from '@gantry/errors';
import { algorithmOf, parseDigest, type Digest } from '@gantry/oci';
import type { BlobStore } from './blob-store.js';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Upload sessions: a file each, whose size is the session's offset, so that a session survives a restart. */
export class UploadStore {
  readonly #root: string;
  /** Digests of sessions of this process, as far as they have come; a session from before is read again at its end. */
  readonly #hashes = new Map<string, { hash: Hash; size: number }>();

  constructor(
    root: string,
    private readonly blobs: BlobStore,
  ) {
    this.#root = join(root, 'uploads');
  }

  async open(): Promise<void> {
    await mkdir(this.#root, { recursive: true });
  }

  async create(): Promise<string> {
    const id = randomUUID();
    await (await open(this.#path(id), 'wx')).close();
    this.#hashes.set(id, { hash: createHash('sha256'), size: 0 });
    return id;
  }

  /** Bytes received so far. Throws `NotFound` for a session that is not. */
  async offset(id: string): Promise<number> {
    try {
      return (await stat(this.#path(id))).size;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      throw new NotFound('upload', id, `upload session ${id} unknown`);
    }
  }

  /** Appends; resolves with the new offset. What came before a broken connection stays. */
  async append(id: string, input: Readable): Promise<number> {
    const before = await this.offset(id);
    const running = this.#hashes.get(id);
    const isKnown = running?.size === before;
    const counting = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        if (running && isKnown) {
          running.hash.update(chunk);
          running.size += chunk.length;
        }
        done(null, chunk);
      },
    });
    await pipeline(input, counting, createWriteStream(this.#path(id), { flags: 'a' }));
    return this.offset(id);
  }

  /** Ends the session as a blob. Throws `InvalidArgument` where it is not what the digest says; the session is gone then, too. */
  async finish(id: string, expected: Digest): Promise<number> {
    const size = await this.offset(id);
    try {
      await this.blobs.adopt(this.#path(id), await this.#digest(id, size, algorithmOf(expected)), expected);
    } finally {
      await this.cancel(id);
    }
    return size;
  }

  async cancel(id: string): Promise<void> {
    this.#hashes.delete(id);
    await rm(this.#path(id), { force: true });
  }

  async #digest(id: string, size: number, algorithm: string): Promise<Digest> {
    const running = this.#hashes.get(id);
    if (running?.size === size && algorithm === 'sha256') return parseDigest(`sha256:${running.hash.digest('hex')}`);
    const hash = createHash(algorithm);
    await pipeline(createReadStream(this.#path(id), { highWaterMark: 1024 * 1024 }), hash);
    return parseDigest(`${algorithm}:${hash.digest('hex')}`);
  }

  #path(id: string): string {
    if (!UUID.test(id)) throw new NotFound('upload', id, `upload session ${id} unknown`);
    return join(this.#root, id);
  }
}
