import { Writable } from 'node:stream';
import { InvalidArgument } from '@gantry/errors';
import { extract, type Header } from 'tar-stream';

/**
 * Throws `InvalidArgument` that names the first entry with which a root file system's archive would reach out of its root: `..`, an
 * absolute name, a write through one of its own symbolic links. Unpacking is safe all the same; this is so that a hostile archive never
 * becomes an image.
 */
export class TarGuard {
  readonly #links = new Set<string>();

  check(header: Header): void {
    const { name, type, linkname } = header;
    if (name.startsWith('/')) throw new InvalidArgument(`entry "${name}" of the archive has an absolute path`);
    const parts = name.split('/').filter((part) => part !== '' && part !== '.');
    if (parts.includes('..')) throw new InvalidArgument(`entry "${name}" of the archive leads out of its root`);
    if (type === 'link' && linkname?.split('/').includes('..')) {
      throw new InvalidArgument(`entry "${name}" of the archive links to "${linkname}" outside of its root`);
    }
    for (let depth = 1; depth < parts.length; depth++) {
      if (this.#links.has(parts.slice(0, depth).join('/'))) {
        throw new InvalidArgument(`entry "${name}" of the archive leads over a symbolic link`);
      }
    }
    const path = parts.join('/');
    if (type === 'symlink') this.#links.add(path);
    else this.#links.delete(path);
  }
}

/** A sink that reads a tar through the guard and fails at its first fault. Resolve `finished` after the stream has ended. */
export function guardTar(): { sink: Writable; finished: Promise<number> } {
  const guard = new TarGuard();
  const parser = extract();
  let entries = 0;
  const finished = new Promise<number>((resolve, reject) => {
    parser.on('entry', (header, stream, next) => {
      try {
        guard.check(header);
      } catch (error) {
        parser.destroy(error as Error);
        return;
      }
      entries++;
      stream.on('end', next);
      stream.resume();
    });
    parser.on('finish', () => resolve(entries));
    parser.on('error', (error: Error) => {
      reject(
        error instanceof InvalidArgument
          ? error
          : new InvalidArgument(`invalid tar archive: ${error.message}`, {}, { cause: error }),
      );
    });
  });
  return { sink: parser as unknown as Writable, finished };
}
