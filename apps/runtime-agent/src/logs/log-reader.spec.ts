import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readLog, type LogOptions } from './log-reader.js';

const root = mkdtempSync(join(tmpdir(), 'gantry-log-'));
let count = 0;
afterAll(() => rmSync(root, { recursive: true }));

function record(text: string, stream = 1, ns = 1_000_000_000n): Buffer {
  const payload = Buffer.from(text);
  const bytes = Buffer.alloc(20 + payload.length);
  bytes.writeBigUInt64LE(ns, 0);
  bytes[8] = stream;
  bytes[9] = text.endsWith('\n') ? 0 : 1;
  bytes.writeUInt32LE(payload.length, 12);
  payload.copy(bytes, 16);
  bytes.writeUInt32LE(bytes.length, 16 + payload.length);
  return bytes;
}

const options: LogOptions = {
  stdout: true,
  stderr: true,
  follow: false,
  tail: undefined,
  sinceNs: 0n,
  untilNs: 0n,
  timestamps: false,
  raw: true,
};
const never = new AbortController().signal;

async function read(
  path: string,
  change: Partial<LogOptions> = {},
  ended: Promise<unknown> = Promise.resolve(),
): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of readLog(path, { ...options, ...change }, ended, never)) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}

function file(...records: Buffer[]): string {
  const path = join(root, `log${++count}`);
  writeFileSync(path, Buffer.concat(records));
  return path;
}

describe('the log', () => {
  it('is read across rotated files, oldest first', async () => {
    const path = file(record('3\n'));
    writeFileSync(`${path}.1`, record('2\n'));
    writeFileSync(`${path}.2`, record('1\n'));
    expect(await read(path)).toBe('1\n2\n3\n');
    expect(await read(path, { tail: 2 })).toBe('2\n3\n');
    expect(await read(path, { tail: 0 })).toBe('');
  });

  it('counts lines, not parts of them, from the end', async () => {
    const path = file(record('one\n'), record('two-'), record('more\n'), record('last'));
    expect(await read(path, { tail: 2 })).toBe('two-more\nlast');
    expect(await read(path, { tail: 9 })).toBe('one\ntwo-more\nlast');
  });

  it('selects streams and times, and stamps a line once', async () => {
    const path = file(record('a\n', 1, 5n), record('b', 2, 7n), record('c\n', 2, 8n), record('d\n', 1, 9n));
    expect(await read(path, { stdout: false })).toBe('bc\n');
    expect(await read(path, { sinceNs: 7n, untilNs: 8n })).toBe('bc\n');
    expect(await read(path, { stdout: false, timestamps: true })).toBe('1970-01-01T00:00:00.000000007Z bc\n');
    expect(await read(path, { raw: false, stderr: false })).toBe(
      '\u0001\0\0\0\0\0\0\u0002a\n\u0001\0\0\0\0\0\0\u0002d\n',
    );
  });

  it('is followed over a rotation without loss, to the end', async () => {
    const path = file(record('1\n'));
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const reading = read(path, { follow: true }, ended);
    for (let n = 2; n <= 200; n++) {
      if (n % 50 === 0) {
        renameSync(path, `${path}.1`);
        writeFileSync(path, record(`${n}\n`));
      } else appendFileSync(path, record(`${n}\n`));
      if (n % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 30));
    }
    end();
    expect(await reading).toBe(Array.from({ length: 200 }, (_, index) => `${index + 1}\n`).join(''));
  });
});
