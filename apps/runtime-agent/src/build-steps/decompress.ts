import { spawn } from 'node:child_process';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { InvalidArgument } from '@gantry/errors';

const MAGIC: readonly (readonly [string, Buffer])[] = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['bzip2', Buffer.from('BZh')],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
];

/** The stream uncompressed, whatever its first bytes say it is compressed by. */
export async function decompressByMagic(input: Readable): Promise<Readable> {
  const iterator = input[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let head = Buffer.alloc(0);
  while (head.length < 6) {
    const step = await iterator.next();
    if (step.done) break;
    head = Buffer.concat([head, step.value]);
  }
  const whole = async function* () {
    yield head;
    for (let step = await iterator.next(); !step.done; step = await iterator.next()) yield step.value;
  };
  const output = new PassThrough({ highWaterMark: 1024 * 1024 });
  const kind = MAGIC.find(([, magic]) => head.subarray(0, magic.length).equals(magic))?.[0];
  const fail = (error: Error) =>
    output.destroy(new InvalidArgument(`invalid ${kind ?? 'tar'} data: ${error.message}`, {}, { cause: error }));
  if (kind === undefined) pipeline(whole, output).catch(fail);
  else if (kind === 'gzip') pipeline(whole, createGunzip({ chunkSize: 256 * 1024 }), output).catch(fail);
  else if (kind === 'zstd') pipeline(whole, createZstdDecompress(), output).catch(fail);
  else {
    const child = spawn(kind, ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'] });
    child.once('error', fail);
    child.once('exit', (code) => (code === 0 ? undefined : fail(new Error(`${kind} ended with ${code}`))));
    pipeline(whole, child.stdin).catch(fail);
    pipeline(child.stdout, output).catch(fail);
  }
  return output;
}
