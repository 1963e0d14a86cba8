import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InvalidArgument, NotFound } from '@gantry/errors';

const ID = /^[0-9a-zA-Z-]{1,64}$/;

/** Uploaded build contexts, as they came, until their build has ended. */
export class ContextStore {
  constructor(private readonly root: string) {}

  async open(): Promise<void> {
    await mkdir(this.root, { recursive: true, mode: 0o700 });
  }

  has(id: string): boolean {
    return existsSync(this.#path(id));
  }

  /** Visible only when it has come whole. */
  async put(id: string, body: Readable): Promise<void> {
    const aside = `${this.#path(id)}.part`;
    try {
      await pipeline(body, createWriteStream(aside, { highWaterMark: 1024 * 1024 }));
      await rename(aside, this.#path(id));
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
  }

  read(id: string): Readable {
    if (!this.has(id)) throw new NotFound('build context', id);
    return createReadStream(this.#path(id), { highWaterMark: 1024 * 1024 });
  }

  async delete(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
  }

  #path(id: string): string {
    if (!ID.test(id)) throw new InvalidArgument(`invalid build context id "${id}"`);
    return join(this.root, id);
  }
}
