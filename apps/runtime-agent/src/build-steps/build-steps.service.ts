import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, posix } from 'node:path';
import { Inject, Injectable } from '@nestjs/common';
import { agent } from '@gantry/contracts';
import { InvalidArgument, NotFound } from '@gantry/errors';
import { ignoreMatcher } from '@gantry/dockerfile';
import { decompress, LayerTool, type TreeEntry, type TreeSource } from '@gantry/layers';
import { LaunchError } from '@gantry/linux';
import type { Digest } from '@gantry/oci';
import type { Readable } from 'node:stream';
import { CONFIG, type AgentConfig } from '../config.js';
import { noProcess } from '../containers/containers.service.js';
import { Launcher } from '../containers/launcher.js';
import { NetworksService } from '../networks/networks.service.js';
import { SnapshotsService, type Layer } from '../snapshots/snapshots.service.js';

const MAX_FILE_BYTES = 1024 * 1024;

/** One entry that a COPY takes, with where it goes below the destination. */
interface Match {
  readonly entry: TreeEntry;
  /** Relative to the destination; empty for a file that is named itself. */
  readonly target: string;
}

/** What touches a root file system in a build. */
@Injectable()
export class BuildStepsService {
  /** Snapshots by attempt, so that a lost attempt can be given up whole. */
  readonly #attempts = new Map<string, Set<string>>();

  constructor(
    @Inject(CONFIG) private readonly config: AgentConfig,
    @Inject(SnapshotsService) private readonly snapshots: SnapshotsService,
    @Inject(LayerTool) private readonly tool: LayerTool,
    @Inject(Launcher) private readonly launcher: Launcher,
    @Inject(NetworksService) private readonly networks: NetworksService,
  ) {}

  /** Unpacks a context. Nothing of a refused archive stays. */
  async putContext(id: string, body: Readable): Promise<{ files: number; bytes: number }> {
    const aside = join(this.config.dataDir, 'build-contexts', `.${randomUUID()}`);
    await mkdir(aside, { recursive: true });
    try {
      const { entries, bytes } = await this.tool.apply(body, { into: aside, strict: true });
      if (existsSync(this.#context(id))) await rm(aside, { recursive: true });
      else await rename(aside, this.#context(id));
      return { files: entries, bytes };
    } catch (error) {
      await rm(aside, { recursive: true, force: true });
      throw error;
    }
  }

  async deleteContext(id: string): Promise<void> {
    await rm(this.#context(id), { recursive: true, force: true });
  }

  async prepare(attemptId: string, layers: readonly Layer[]): Promise<string> {
    const id = `b${randomBytes(31).toString('hex')}b`;
    const chain = await this.snapshots.ensure(layers);
    this.snapshots.prepare(id, chain);
    this.#attempts.set(attemptId, (this.#attempts.get(attemptId) ?? new Set()).add(id));
    return id;
  }

  /** Runs a process in the snapshot, isolated as a container is. Aborting kills it. */
  async *run(request: agent.RunStepRequest, signal: AbortSignal): AsyncGenerator<agent.RunStepEvent> {
    const id = request.snapshotId;
    const directory = join(this.config.dataDir, 'containers', id);
    const tree = await this.snapshots.tree(id);
    const host = agent.HostConfig.fromPartial({
      networkMode: request.networkMode || 'default',
      extraHosts: request.extraHosts,
      shmSizeBytes: request.shmSizeBytes,
      resources: agent.ResourceLimits.fromPartial(request),
    });
    try {
      const process = {
        ...noProcess(),
        env: request.env,
        workingDir: request.workingDir,
        user: request.user,
        openStdin: true,
        stdinOnce: true,
      };
      const launch = {
        id,
        directory,
        process,
        host,
        hostname: request.hostname || id.slice(0, 12),
        domainname: '',
        argv: request.argv,
        tree,
        keepsLog: false,
        holdOutput: true,
      };
      const shim = await this.launcher.launch(launch);
      const kill = () => void shim.kill(9).catch(() => undefined); // gone already
      signal.addEventListener('abort', kill, { once: true });
      yield { event: { $case: 'started', value: { containerId: id } } };
      const stream = await shim.attach({ stdin: true, stdout: true, stderr: true, raw: false });
      await shim.release();
      stream.end(request.stdin.length > 0 ? request.stdin : undefined);
      for await (const chunk of stream) {
        for (const { type, data } of splitFrames(chunk as Buffer))
          yield { event: { $case: 'output', value: { stream: type, data } } };
      }
      const { code, oomKilled } = await shim.exited;
      shim.close();
      yield { event: { $case: 'exited', value: { exitCode: code, oomKilled } } };
    } catch (error) {
      if (!(error instanceof LaunchError)) throw error;
      throw new InvalidArgument(`failed to run build step: ${error.message}`, { exitCode: String(error.exitCode) });
    } finally {
      await this.networks.release(id);
      await rm(directory, { recursive: true, force: true });
      await rm(this.launcher.runDir(id), { recursive: true, force: true });
    }
  }

  async copy(request: agent.CopyStepRequest): Promise<{ files: number; bytes: number }> {
    const inline =
      request.source?.source?.$case === 'inline' ? await this.#writeInline(request.source.source.value) : undefined;
    try {
      const source = inline ?? (await this.#source(request.source));
      const matches = await this.#select(source, request);
      const tree = await this.snapshots.tree(request.snapshotId);
      const isDirectory =
        request.destination.endsWith('/') ||
        matches.length > 1 ||
        matches.some(({ entry }) => entry.type === 'directory');
      const plain = matches.filter(({ entry }) => !(request.extractArchives && isArchive(entry)));
      const pairs = plain.map(
        ({ entry, target }) => [`/${entry.path}`, destinationOf(request.destination, target, isDirectory)] as const,
      );
      const result = await this.tool.copy(tree, source, pairs, {
        ...(request.preserveOwnership && !request.chown ? { keepOwner: true } : { chown: request.chown || '0:0' }),
        ...(request.chmod ? { chmod: request.chmod } : {}),
      });
      for (const { entry } of matches.filter((match) => !plain.includes(match)))
        await this.#extract(source, entry, request);
      return result;
    } finally {
      if (inline) await rm(inline.directory, { recursive: true, force: true });
    }
  }

  async makeDirectory(snapshotId: string, path: string, user: string): Promise<void> {
    await this.tool.makeDirectory(await this.snapshots.tree(snapshotId), path, user);
  }

  async commit(snapshotId: string, sourceDateEpoch: number | undefined): Promise<agent.CommitStepResponse> {
    const { layer, chainId, isEmpty } = await this.snapshots.commit(snapshotId, sourceDateEpoch);
    return {
      layer: { diffId: layer.diffId, descriptor: { ...layer.descriptor, annotations: {}, platform: undefined } },
      chainId,
      isEmpty,
    };
  }

  /** What a COPY would copy, as a digest: names, types, modes and contents; not times (and no owner, as COPY sets it). */
  async digest(request: agent.DigestRequest): Promise<agent.DigestResponse> {
    const hash = createHash('sha256');
    if (request.source?.source?.$case === 'inline') {
      for (const { name, content, mode } of request.source.source.value.files)
        hash.update(`${name}\0${mode}\0`).update(content);
      return { digest: `sha256:${hash.digest('hex')}`, files: request.source.source.value.files.length };
    }
    const matches = await this.#select(await this.#source(request.source), { ...request, parents: false }, true);
    for (const { entry, target } of matches) {
      hash.update([target, entry.type, entry.mode.toString(8), entry.link, entry.sha256 ?? ''].join('\0') + '\n');
    }
    return { digest: `sha256:${hash.digest('hex')}`, files: matches.length };
  }

  async readFile(source: agent.TreeSource | undefined, path: string, limit: number): Promise<Buffer> {
    return this.tool.readFile(await this.#source(source), path, limit || MAX_FILE_BYTES);
  }

  release(snapshotId: string, attemptId: string): void {
    if (snapshotId) this.snapshots.remove(snapshotId);
    for (const id of this.#attempts.get(attemptId) ?? []) this.snapshots.remove(id);
    this.#attempts.delete(attemptId);
  }

  async #source(source: agent.TreeSource | undefined): Promise<TreeSource> {
    const from = source?.source;
    switch (from?.$case) {
      case 'contextId':
        if (!existsSync(this.#context(from.value))) throw new NotFound('build context', from.value);
        return { directory: join(this.#context(from.value), posix.normalize(`/${source?.subdirectory ?? ''}`)) };
      case 'snapshotId':
        return { lowerdirs: this.snapshots.lowerdirs(await this.snapshots.chainOf(from.value)) };
      case 'layers':
        return { lowerdirs: this.snapshots.lowerdirs(await this.snapshots.ensure(from.value.layers.map(toLayer))) };
      default:
        throw new InvalidArgument('no source to copy from');
    }
  }

  /** Entries that the patterns name, without what is ignored, in order. Throws `InvalidArgument` in Docker's words where one names nothing. */
  async #select(
    source: TreeSource,
    request: { patterns: string[]; ignore: string[]; exclude: string[]; parents: boolean },
    hash = false,
  ): Promise<Match[]> {
    const roots = request.patterns.map((pattern) => literalPrefix(clean(pattern)));
    const entries = await this.tool.list(source, [...new Set(roots)], { hash });
    const isIgnored = ignoreMatcher(request.ignore);
    const isExcluded = ignoreMatcher(request.exclude);
    const visible = entries.filter(({ path, type }) => type !== 'socket' && !isIgnored(path));
    const matches: Match[] = [];
    for (const pattern of request.patterns) {
      const wanted = clean(pattern);
      const found = visible
        .flatMap((entry) => matchEntry(entry, wanted, request.parents))
        .filter(({ entry }) => !isExcluded(entry.path));
      if (found.length === 0 && wanted !== '')
        throw new InvalidArgument(`failed to compute cache key: failed to calculate checksum: "/${wanted}": not found`);
      matches.push(...found);
    }
    return matches;
  }

  async #extract(source: TreeSource, entry: TreeEntry, request: agent.CopyStepRequest): Promise<void> {
    if (!('directory' in source)) throw new InvalidArgument(`ADD cannot unpack ${entry.path} from an image`);
    const into = await mkdtemp(join(this.config.dataDir, 'build-contexts', '.add-'));
    try {
      await this.tool.apply(await decompress(createReadStream(join(source.directory, entry.path))), {
        into,
        strict: false,
      });
      const entries = await this.tool.list({ directory: into }, ['']);
      const pairs = entries.map(({ path }) => [`/${path}`, posix.join(request.destination, path)] as const);
      await this.tool.copy(
        await this.snapshots.tree(request.snapshotId),
        { directory: into },
        pairs,
        request.chown ? { chown: request.chown } : { keepOwner: true },
      );
    } finally {
      await rm(into, { recursive: true, force: true });
    }
  }

  async #writeInline({ files }: agent.InlineFiles): Promise<{ directory: string }> {
    const directory = await mkdtemp(join(tmpdir(), 'gantry-inline-'));
    for (const { name, content, mode } of files)
      await writeFile(join(directory, basename(name)), content, { mode: mode || 0o644 });
    return { directory };
  }

  #context(id: string): string {
    if (!/^[0-9a-zA-Z-]{1,64}$/.test(id)) throw new InvalidArgument(`invalid build context id "${id}"`);
    return join(this.config.dataDir, 'build-contexts', id);
  }
}

export function toLayer({ diffId, descriptor }: agent.LayerRef): Layer {
  return {
    diffId: diffId as Digest,
    descriptor: {
      mediaType: descriptor?.mediaType ?? '',
      digest: (descriptor?.digest ?? '') as Digest,
      size: descriptor?.size ?? 0,
    },
  };
}

function* splitFrames(chunk: Buffer): Generator<{ type: number; data: Buffer }> {
  for (let at = 0; at + 8 <= chunk.length;) {
    const end = at + 8 + chunk.readUInt32BE(at + 4);
    yield { type: chunk[at] ?? 1, data: chunk.subarray(at + 8, end) };
    at = end;
  }
}

function clean(pattern: string): string {
  const path = posix.normalize(`/${pattern}`).slice(1);
  return path.endsWith('/') ? path.slice(0, -1) : path;
}

/** The part of a pattern before its first wildcard: what has to be listed. */
function literalPrefix(pattern: string): string {
  const wildcard = pattern.search(/[*?[\\]/);
  if (wildcard < 0) return pattern;
  const slash = pattern.lastIndexOf('/', wildcard);
  return slash < 0 ? '' : pattern.slice(0, slash);
}

/** Go's filepath.Match on whole components: a pattern's slashes are the path's. */
function matchEntry(entry: TreeEntry, pattern: string, parents: boolean): Match[] {
  const depth = pattern === '' ? 0 : pattern.split('/').length;
  const components = entry.path.split('/');
  const head = components.slice(0, depth).join('/');
  if (pattern !== '' && !posix.matchesGlob(head, pattern)) return [];
  const below = components.slice(depth).join('/');
  if (parents) return [{ entry, target: entry.path }];
  // A directory gives what is in it, a file itself.
  if (below === '' && entry.type === 'directory') return [];
  return [{ entry, target: below }];
}

function destinationOf(destination: string, target: string, isDirectory: boolean): string {
  if (target !== '') return posix.join(destination, target);
  return isDirectory && !destination.endsWith('/') ? `${destination}/` : destination;
}

const ARCHIVE = /\.(tar|tar\.gz|tgz|tar\.bz2|tbz2?|tar\.xz|txz|tar\.zst)$/;

function isArchive(entry: TreeEntry): boolean {
  return entry.type === 'file' && ARCHIVE.test(entry.path);
}
