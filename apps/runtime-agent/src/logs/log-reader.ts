import { watch } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { formatNs } from '../events/events.service.js';

const CHUNK_BYTES = 1024 * 1024;
const HEADER_BYTES = 16;
const TRAILER_BYTES = 4;
/** A follower looks again after this, should the kernel not have told it. */
const RECHECK_MS = 200;

export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Last lines only; undefined: all. */
  readonly tail: number | undefined;
  /** Unix nanoseconds. */
  readonly sinceNs: bigint;
  readonly untilNs: bigint;
  readonly timestamps: boolean;
  /** Payloads only, as a terminal's log is sent; else Docker's frames. */
  readonly raw: boolean;
}

const PARTIAL = 1;

/** The log's files, oldest first (docs/container-log.md). */
async function openFiles(path: string): Promise<FileHandle[]> {
  const names = [path];
  for (let n = 1; ; n++) {
    try {
      await stat(`${path}.${n}`);
    } catch {
      break; // no older file
    }
    names.unshift(`${path}.${n}`);
  }
  const files: FileHandle[] = [];
  for (const name of names) {
    try {
      files.push(await open(name, 'r'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return files;
}

/** Walks backwards by each record's trailing length. Resolves with where the last `lines` lines of the file begin, and how many they are. */
async function findTail(file: FileHandle, lines: number, end: number): Promise<{ offset: number; found: number }> {
  let at = Math.min((await file.stat()).size, end);
  let found = 0;
  const word = Buffer.alloc(4);
  const flags = Buffer.alloc(1);
  while (at > 0) {
    await file.read(word, 0, 4, at - TRAILER_BYTES);
    const start = at - word.readUInt32LE(0);
    await file.read(flags, 0, 1, start + 9);
    // A line ends with the record that is not partial; the records before it that are belong to it.
    if (((flags[0] ?? 0) & PARTIAL) === 0 && found === lines) break;
    if (((flags[0] ?? 0) & PARTIAL) === 0) found++;
    else if (found === 0) found = 1;
    at = start;
  }
  return { offset: at, found };
}

/** Turns whole records of a buffer into what goes out. Returns the bytes consumed. */
function convert(buffer: Buffer, options: LogOptions, emit: (chunk: Buffer) => void): number {
  // A frame of eight bytes replaces each header of sixteen and trailer of four, so the output never outgrows the input by more than times.
  const output = Buffer.allocUnsafe(
    buffer.length + (options.timestamps ? Math.ceil(buffer.length / (HEADER_BYTES + TRAILER_BYTES + 1)) * 31 : 0),
  );
  let used = 0;
  let at = 0;
  let wasPartial = false;
  while (at + HEADER_BYTES <= buffer.length) {
    const length = buffer.readUInt32LE(at + 12);
    const end = at + HEADER_BYTES + length + TRAILER_BYTES;
    if (end > buffer.length) break;
    const stream = buffer[at + 8] ?? 1;
    const wanted = stream === 1 ? options.stdout : options.stderr;
    const needsTime = options.sinceNs > 0n || options.untilNs > 0n || options.timestamps;
    const time = needsTime ? buffer.readBigUInt64LE(at) : 0n;
    if (wanted && time >= options.sinceNs && (options.untilNs === 0n || time <= options.untilNs)) {
      const stamp = options.timestamps && !wasPartial ? `${formatNs(time)} ` : '';
      if (!options.raw) {
        output.writeUInt32LE(stream, used);
        output.writeUInt32BE(length + stamp.length, used + 4);
        used += 8;
      }
      if (stamp) used += output.write(stamp, used, 'latin1');
      used += buffer.copy(output, used, at + HEADER_BYTES, at + HEADER_BYTES + length);
    }
    wasPartial = ((buffer[at + 9] ?? 0) & PARTIAL) !== 0;
    at = end;
  }
  if (used > 0) emit(output.subarray(0, used));
  return at;
}

/**
 * A container's log from its files. A follower holds the file it reads open, so a rotation loses nothing: it reads the old file to its end
 * before it turns to the new one. `ended` resolves when no more will be written.
 */
export async function* readLog(
  path: string,
  options: LogOptions,
  ended: Promise<unknown>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const files = await openFiles(path);
  let isOver = false;
  void ended.finally(() => (isOver = true)).catch(() => undefined);
  try {
    // "The last line" is the last one now: what is written while it is looked for does not count.
    const end = options.follow ? Infinity : ((await files.at(-1)?.stat())?.size ?? 0);
    const offsets = await startOffsets(files, options.tail, end);
    for (const [index, file] of files.entries()) {
      if (index < files.length - 1) yield* readToEnd(file, offsets[index] ?? 0, options);
    }
    let current = files.at(-1);
    let offset = offsets.at(-1) ?? 0;
    while (current && !signal.aborted) {
      const wasOver = isOver;
      for await (const [chunk, next] of readFrom(current, offset, options, end)) {
        offset = next;
        if (chunk) yield chunk;
      }
      if (!options.follow) return;
      const next = await successor(path, current);
      if (next) {
        // The shim turned to a new file: what it still wrote to the old one comes first.
        for await (const [chunk] of readFrom(current, offset, options)) if (chunk) yield chunk;
        files.push(next);
        current = next;
        offset = 0;
      } else if (wasOver) return;
      else await changed(path, signal, ended);
    }
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}

async function startOffsets(files: readonly FileHandle[], tail: number | undefined, end: number): Promise<number[]> {
  const offsets = files.map(() => 0);
  if (tail === undefined) return offsets;
  let missing = tail;
  for (let index = files.length - 1; index >= 0; index--) {
    const file = files[index];
    if (!file) continue;
    const { offset, found } = await findTail(file, missing, index === files.length - 1 ? end : Infinity);
    offsets[index] = missing === 0 ? (await file.stat()).size : offset;
    missing -= found;
    if (missing <= 0) {
      for (let older = 0; older < index; older++) offsets[older] = Number.MAX_SAFE_INTEGER;
      break;
    }
  }
  return offsets;
}

async function* readToEnd(file: FileHandle, from: number, options: LogOptions): AsyncGenerator<Buffer> {
  for await (const [chunk] of readFrom(file, from, options)) if (chunk) yield chunk;
}

async function* readFrom(
  file: FileHandle,
  from: number,
  options: LogOptions,
  end = Infinity,
): AsyncGenerator<[chunk: Buffer | undefined, offset: number]> {
  let offset = from;
  for (;;) {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    const { bytesRead } = await file.read(buffer, 0, Math.min(CHUNK_BYTES, end - offset), offset);
    if (bytesRead === 0) return;
    let out: Buffer | undefined;
    const consumed = convert(buffer.subarray(0, bytesRead), options, (chunk) => (out = chunk));
    if (consumed === 0) return;
    offset += consumed;
    yield [out, offset];
  }
}

/** The file that took the path's place, where that is another one by now. */
async function successor(path: string, current: FileHandle): Promise<FileHandle | undefined> {
  try {
    const [there, here] = await Promise.all([stat(path), current.stat()]);
    return there.ino === here.ino ? undefined : await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function changed(path: string, signal: AbortSignal, ended: Promise<unknown>): Promise<void> {
  await new Promise<void>((resolve) => {
    const watcher = watch(path, () => done());
    const timer = setTimeout(() => done(), RECHECK_MS);
    const done = () => {
      clearTimeout(timer);
      watcher.close();
      signal.removeEventListener('abort', done);
      resolve();
    };
    watcher.on('error', done);
    signal.addEventListener('abort', done, { once: true });
    ended.then(done, done);
  });
}
