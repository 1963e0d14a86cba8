import { createHash, randomUUID, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { link, mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InvalidArgument, NotFound } from '@gantry/errors';
import { algorithmOf, encodedOf, parseDigest, type Digest } from '@gantry/oci';

const CHUNK_BYTES = 1024 * 1024;

export interface StoredBlob {
  readonly digest: Digest;
  readonly size: number;
}

/** Passes bytes on while it digests them. */
class DigestingStream extends Transform {
  readonly hash: Hash;
  size = 0;

  constructor(algorithm: string) {
    super({ highWaterMark: CHUNK_BYTES });
    this.hash = createHash(algorithm);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.hash.update(chunk);
    this.size += chunk.length;
    this.push(chunk);
    done();
  }
}

/**
 * Content-addressed blobs on a file system. A blob is visible only when it is whole, verified and on disk: written aside, synced,
 * renamed. A crash leaves at most a file aside, which the next start sweeps.
 */
export class BlobStore {
  readonly #root: string;
  readonly #temporary: string;

  constructor(root: string) {
    this.#root = join(root, 'blobs');
    this.#temporary = join(root, 'incoming');
  }

  /** Makes the folders and sweeps what a crash left aside. */
  async open(): Promise<void> {
    await rm(this.#temporary, { recursive: true, force: true });
    await mkdir(this.#temporary, { recursive: true });
    await mkdir(this.#root, { recursive: true });
  }

  pathOf(digest: Digest): string {
    const encoded = encodedOf(digest);
    return join(this.#root, algorithmOf(digest), encoded.slice(0, 2), encoded);
  }

  /** Size in bytes, or undefined where there is no such blob. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.pathOf(digest))).size;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** The blob's bytes from `start` to `end` (inclusive). Throws `NotFound`. */
  async read(digest: Digest, range?: { start: number; end: number }): Promise<Readable> {
    if ((await this.size(digest)) === undefined) throw new NotFound('blob', digest, `blob ${digest} unknown`);
    return createReadStream(this.pathOf(digest), { highWaterMark: CHUNK_BYTES, ...range });
  }

  /** Takes a stream in. Throws `InvalidArgument` where it is not what `expected` says; then nothing is kept. */
  async write(
    input: Readable,
    options: { expected?: Digest; algorithm?: 'sha256' | 'sha512' } = {},
  ): Promise<StoredBlob> {
    const algorithm = options.expected ? algorithmOf(options.expected) : (options.algorithm ?? 'sha256');
    const path = join(this.#temporary, randomUUID());
    const digesting = new DigestingStream(algorithm);
    try {
      await pipeline(input, digesting, createWriteStream(path, { highWaterMark: CHUNK_BYTES, flush: true }));
      const digest = parseDigest(`${algorithm}:${digesting.hash.digest('hex')}`);
      await this.#publish(path, digest, options.expected);
      return { digest, size: digesting.size };
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  }

  async writeBytes(bytes: Uint8Array): Promise<StoredBlob> {
    const { Readable: Source } = await import('node:stream');
    return this.write(Source.from([bytes]));
  }

  /** Makes a finished file (an upload) a blob; its digest has been computed by the caller. */
  async adopt(path: string, digest: Digest, expected: Digest): Promise<void> {
    const file = await open(path, 'r');
    await file.sync().finally(() => file.close());
    await this.#publish(path, digest, expected);
  }

  async delete(digest: Digest): Promise<void> {
    await rm(this.pathOf(digest), { force: true });
  }

  /** Every blob with its age in milliseconds. */
  async *list(): AsyncGenerator<{ digest: Digest; size: number; ageMs: number }> {
    for (const algorithm of await readdir(this.#root)) {
      for (const shard of await readdir(join(this.#root, algorithm))) {
        for (const encoded of await readdir(join(this.#root, algorithm, shard))) {
          const digest = `${algorithm}:${encoded}` as Digest;
          const { size, mtimeMs } = await stat(this.pathOf(digest));
          yield { digest, size, ageMs: Date.now() - mtimeMs };
        }
      }
    }
  }

  async #publish(path: string, digest: Digest, expected: Digest | undefined): Promise<void> {
    if (expected !== undefined && digest !== expected) {
      throw new InvalidArgument(`provided digest did not match uploaded content: expected ${expected}, got ${digest}`, {
        digest,
      });
    }
    const target = this.pathOf(digest);
    await mkdir(dirname(target), { recursive: true });
    try {
      // A blob that is there already keeps its inode (readers, hard links); its age starts anew, for garbage collection.
      await link(path, target);
      await unlink(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      await rename(path, target);
    }
  }
}
