import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PassThrough, type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Socket } from 'node:net';
import { Cancelled, InvalidArgument, NotFound, Unavailable, Internal, type DomainError } from '@gantry/errors';
import { FrameDecoder, NATIVE_DIRECTORY, openSocket } from '@gantry/linux';
import type { Digest } from '@gantry/oci';

const FrameType = { data: 1, result: 2, failed: 3 } as const;
const ENOENT = 2;
/** What an archive's own content can provoke: nothing (our own check), ENOENT, EXDEV, ENOTDIR, ENAMETOOLONG, ELOOP. */
const ARCHIVE_FAULTS = new Set([0, ENOENT, 18, 20, 36, 40]);

export interface JobOptions {
  readonly input?: Readable;
  readonly onData?: (chunk: Buffer) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Layers of an overlay, top first. */
export interface MergedTree {
  readonly lowerdirs: readonly string[];
  readonly upperdir: string;
  readonly workdir: string;
}

/** Where files are read from: one directory, or layers seen as one. */
export type TreeSource = { readonly directory: string } | { readonly lowerdirs: readonly string[] };

/** One entry of a listed tree; `sha256` is there for regular files where it was asked for. */
export interface TreeEntry {
  readonly path: string;
  readonly type: 'file' | 'directory' | 'link' | 'socket' | 'other';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly link: string;
  readonly sha256?: string;
}

const ENTRY_TYPES: Readonly<Record<string, TreeEntry['type']>> = { f: 'file', d: 'directory', l: 'link', s: 'socket' };

/**
 * The resident gantry-layer: work on file trees and layer archives in forked processes of their own. Owner: the module that started it.
 */
export class LayerTool {
  #isClosed = false;

  private constructor(
    private readonly child: ChildProcess,
    private readonly socketPath: string,
  ) {}

  static async start({ socketPath }: { socketPath: string }): Promise<LayerTool> {
    const child = spawn(`${NATIVE_DIRECTORY}gantry-layer`, [socketPath], { stdio: ['pipe', 'pipe', 'inherit'] });
    const first = await Promise.race([
      once(createInterface({ input: child.stdout }), 'line').then(([line]) => String(line)),
      once(child, 'exit').then(([code]) => `exited with ${String(code)}`),
      once(child, 'error').then(([error]) => (error as Error).message),
    ]);
    if (first !== 'ready') throw new Unavailable(`gantry-layer does not start: ${first}`);
    return new LayerTool(child, socketPath);
  }

  onExit(listener: () => void): void {
    this.child.once('exit', () => {
      if (!this.#isClosed) listener();
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.stdin?.end();
    await exited;
  }

  /**
   * Unpacks a tar into an empty directory. `whiteouts`: as an OCI layer, with overlay's whiteouts; `strict`: absolute names are
   * refused too. Rejects `InvalidArgument` that names the entry.
   */
  async apply(
    input: Readable,
    options: {
      into: string;
      lowerdirs?: readonly string[];
      whiteouts?: boolean;
      strict?: boolean;
      signal?: AbortSignal;
    },
  ): Promise<{ diffId: Digest; bytes: number; entries: number; archiveBytes: number }> {
    const hash = createHash('sha256');
    let archiveBytes = 0;
    const digesting = new Transform({
      highWaterMark: 1024 * 1024,
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        archiveBytes += chunk.length;
        done(null, chunk);
      },
    });
    const args = [
      'apply',
      '--into',
      options.into,
      ...(options.lowerdirs ?? []).flatMap((directory) => ['--lower', directory]),
    ];
    if (options.whiteouts) args.push('--whiteouts');
    if (options.strict) args.push('--strict');
    const fed = pipeline(input, digesting);
    fed.catch(() => undefined); // a failure of the input ends the job below, which reports it
    const result = await this.#run(args, { input: digesting, signal: options.signal }).catch((error: unknown) => {
      input.destroy();
      throw error;
    });
    await fed;
    return {
      diffId: `sha256:${hash.digest('hex')}` as Digest,
      bytes: Number(result.get('bytes')),
      entries: Number(result.get('entries')),
      archiveBytes,
    };
  }

  /** An overlay's upper directory as an uncompressed layer; the same tree gives the same bytes. */
  diff(upperdir: string, options: { sourceDateEpoch?: number; signal?: AbortSignal } = {}): Readable {
    const output = new PassThrough({ highWaterMark: 1024 * 1024 });
    const args = ['diff', '--dir', upperdir];
    if (options.sourceDateEpoch !== undefined) args.push('--epoch', String(options.sourceDateEpoch));
    this.#stream(args, output, options.signal);
    return output;
  }

  /** What is below `paths` (without a leading slash; `""` is everything), in name order. */
  async list(
    source: TreeSource,
    paths: readonly string[],
    options: { hash?: boolean; signal?: AbortSignal } = {},
  ): Promise<TreeEntry[]> {
    const chunks: Buffer[] = [];
    await this.#run(
      ['list', ...sourceArguments(source, '--dir', '--lower'), ...(options.hash ? ['--hash'] : []), '--', ...paths],
      {
        onData: (chunk) => chunks.push(Buffer.from(chunk)),
        signal: options.signal,
      },
    );
    return parseEntries(Buffer.concat(chunks).toString());
  }

  /** A file's content. `NotFound` where it is not there; `InvalidArgument` beyond the limit. */
  async readFile(source: TreeSource, path: string, limitBytes: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    await this.#run(['cat', ...sourceArguments(source, '--dir', '--lower'), '--', path], {
      onData: (chunk) => {
        size += chunk.length;
        if (size <= limitBytes) chunks.push(Buffer.from(chunk));
      },
    });
    if (size > limitBytes) throw new InvalidArgument(`${path} is larger than ${limitBytes} bytes`);
    return Buffer.concat(chunks);
  }

  /** Copies single entries (a directory is made, not walked) into a merged tree. */
  async copy(
    tree: MergedTree,
    source: TreeSource,
    pairs: readonly (readonly [from: string, to: string])[],
    options: { chown?: string | undefined; chmod?: string | undefined; keepOwner?: boolean; signal?: AbortSignal },
  ): Promise<{ files: number; bytes: number }> {
    const args = ['copy', ...treeArguments(tree), ...sourceArguments(source, '--from', '--from-lower')];
    if (options.chown) args.push('--chown', options.chown);
    if (options.chmod) args.push('--chmod', options.chmod);
    if (options.keepOwner) args.push('--keep-owner');
    const result = await this.#run([...args, '--', ...pairs.flat()], { signal: options.signal });
    return { files: Number(result.get('files')), bytes: Number(result.get('bytes')) };
  }

  /** Makes a directory with its parents; one that is there stays as it is. Resolves with whether it was made. */
  async makeDirectory(tree: MergedTree, path: string, owner?: string): Promise<boolean> {
    const args = ['mkdir', ...treeArguments(tree), ...(owner ? ['--chown', owner] : []), '--', path];
    return (await this.#run(args, {})).get('made') === '1';
  }

  #stream(args: readonly string[], output: PassThrough, signal?: AbortSignal): void {
    let socket: Socket | undefined;
    output.on('drain', () => socket?.resume());
    output.on('close', () => socket?.destroy());
    this.#run(args, {
      signal,
      onSocket: (opened) => (socket = opened),
      onData: (chunk) => {
        if (!output.write(chunk)) socket?.pause();
      },
    }).then(
      () => output.end(),
      (error: Error) => output.destroy(error),
    );
  }

  async #run(
    args: readonly string[],
    options: JobOptions & { onSocket?: (socket: Socket) => void },
  ): Promise<Map<string, string>> {
    const socket = await openSocket(this.socketPath);
    if (!socket) throw new Unavailable('gantry-layer does not answer');
    options.onSocket?.(socket);
    const abort = () => socket.destroy(new Cancelled('cancelled'));
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      const answer = readAnswer(socket, options.onData);
      const bytes = Buffer.from(args.map((argument) => `${argument}\0`).join(''));
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      socket.write(Buffer.concat([length, bytes]));
      if (options.input) {
        // The job's answer says best what went wrong; a cut input makes it fail.
        pipeline(options.input, socket, { end: true }).catch(() => undefined);
      } else {
        socket.end();
      }
      return parseResult(await answer);
    } finally {
      options.signal?.removeEventListener('abort', abort);
      socket.destroy();
    }
  }
}

function readAnswer(socket: Socket, onData: ((chunk: Buffer) => void) | undefined): Promise<string> {
  const decoder = new FrameDecoder();
  return new Promise((resolve, reject) => {
    socket.on('data', (chunk: Buffer) => {
      for (const { type, payload } of decoder.push(chunk)) {
        if (type === FrameType.data) onData?.(payload);
        else if (type === FrameType.result) resolve(payload.toString());
        else reject(jobError(payload.toString()));
      }
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Unavailable('gantry-layer ended without an answer')));
  });
}

function jobError(text: string): DomainError {
  const [number = '0', step = '', ...rest] = text.split('\n');
  const message = rest.join('\n');
  if (step === 'archive' && ARCHIVE_FAULTS.has(Number(number))) return new InvalidArgument(message, { step });
  if (step === 'user') return new InvalidArgument(message, { step });
  if (Number(number) === ENOENT) return new NotFound('file', '', message);
  return step === 'copy' || step === 'cat'
    ? new InvalidArgument(message, { step })
    : new Internal(message, { step, errno: number });
}

function parseResult(text: string): Map<string, string> {
  return new Map(text.split(' ').map((field) => field.split('=', 2) as [string, string]));
}

function parseEntries(text: string): TreeEntry[] {
  const fields = text.split('\0');
  const entries: TreeEntry[] = [];
  for (let at = 0; at + 2 < fields.length; at += 3) {
    const [type = '', mode = '', uid = '', gid = '', size = '', sha256 = '-'] = (fields[at] ?? '').split(' ');
    entries.push({
      path: fields[at + 1] ?? '',
      type: ENTRY_TYPES[type] ?? 'other',
      mode: Number.parseInt(mode, 8),
      uid: Number(uid),
      gid: Number(gid),
      size: Number(size),
      link: fields[at + 2] ?? '',
      ...(sha256 === '-' ? {} : { sha256 }),
    });
  }
  return entries;
}

function treeArguments(tree: MergedTree): string[] {
  return [
    ...tree.lowerdirs.flatMap((directory) => ['--lower', directory]),
    '--upper',
    tree.upperdir,
    '--work',
    tree.workdir,
  ];
}

function sourceArguments(source: TreeSource, directoryOption: string, layerOption: string): string[] {
  return 'directory' in source
    ? [directoryOption, source.directory]
    : source.lowerdirs.flatMap((directory) => [layerOption, directory]);
}
