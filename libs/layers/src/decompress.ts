import { spawn } from 'node:child_process';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { InvalidArgument } from '@gantry/errors';

const MAGIC: readonly (readonly [name: string, bytes: Buffer])[] = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['bzip2', Buffer.from('BZh')],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
];
const LONGEST_MAGIC = 6;

/** The compression of bytes that begin so, or undefined. */
export function compressionOfBytes(head: Buffer): string | undefined {
  return MAGIC.find(([, magic]) => head.subarray(0, magic.length).equals(magic))?.[0];
}

/** The stream's first bytes, and the stream with them still in it. */
async function peek(input: Readable): Promise<{ head: Buffer; stream: Readable }> {
  const iterator = input[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let head = Buffer.alloc(0);
  while (head.length < LONGEST_MAGIC) {
    const step = await iterator.next();
    if (step.done) break;
    head = Buffer.concat([head, step.value]);
  }
  const stream = new PassThrough({ highWaterMark: 1024 * 1024 });
  const rest = async function* () {
    yield head;
    for (let step = await iterator.next(); !step.done; step = await iterator.next()) yield step.value;
  };
  pipeline(rest, stream).catch((error: Error) => stream.destroy(error));
  return { head, stream };
}

/** The stream uncompressed, whatever compressed it (told by its first bytes, as Docker does). */
export async function decompress(input: Readable): Promise<Readable> {
  const { head, stream } = await peek(input);
  const kind = compressionOfBytes(head);
  if (kind === undefined) return stream;
  const output = new PassThrough({ highWaterMark: 1024 * 1024 });
  const fail = (error: Error) =>
    output.destroy(new InvalidArgument(`invalid ${kind} data: ${error.message}`, {}, { cause: error }));
  if (kind === 'gzip' || kind === 'zstd') {
    pipeline(stream, kind === 'gzip' ? createGunzip({ chunkSize: 256 * 1024 }) : createZstdDecompress(), output).catch(
      fail,
    );
    return output;
  }
  const child = spawn(kind, ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'] });
  child.once('error', fail);
  child.once('exit', (code) => (code === 0 ? undefined : fail(new Error(`${kind} ended with ${code}`))));
  pipeline(stream, child.stdin).catch(fail);
  pipeline(child.stdout, output).catch(fail);
  return output;
}
