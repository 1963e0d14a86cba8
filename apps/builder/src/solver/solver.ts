import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { builder, type agent, type registry } from '@gantry/contracts';
import {
  expandWord,
  findStage,
  neededStages,
  parseDockerfile,
  parseIgnoreFile,
  toStages,
  type Dockerfile,
  type Instruction,
  type Stage,
  type Stages,
} from '@gantry/dockerfile';
import { DomainError, InvalidArgument, NotFound } from '@gantry/errors';
import {
  chainIds,
  digestOf,
  formatFamiliar,
  formatPlatform,
  hostPlatform,
  parseReference,
  withDefaultTag,
  type Digest,
  type ImageConfig,
} from '@gantry/oci';
import type { RpcClient } from '@gantry/service-kit';
import type { LogWriter } from '../log/build-log.js';
import type { CacheRepository, StepResult } from './cache.repository.js';
import { applyMetadata, copyOperands, declareArgs, runArgv } from './instructions.js';
import { StageState, type Layer } from './stage-state.js';

const MAX_DOCKERFILE_BYTES = 4 * 1024 * 1024;
const MAX_REMOTE_BYTES = 32 * 1024 * 1024;
const STEP_DEADLINE_MS = 24 * 3600 * 1000;

export interface SolverServices {
  readonly steps: RpcClient<typeof agent.BuildStepsDefinition>;
  readonly images: RpcClient<typeof registry.ImagesDefinition>;
  readonly cache: CacheRepository;
}

export interface SolvedImage {
  readonly imageId: string;
  readonly manifestDigest: string;
}

type CopySource = { readonly source: agent.TreeSource; readonly isContext: boolean };

/** One attempt at one build: from a Dockerfile to an image. It touches no root file system itself. */
export class Solver {
  readonly #platform = hostPlatform();
  readonly #states = new Map<Stage, StageState>();
  readonly #given: ReadonlyMap<string, string>;
  #dockerfile!: Dockerfile;
  #ignore: string[] = [];
  #index = 0;
  #total = 0;

  constructor(
    private readonly services: SolverServices,
    private readonly request: builder.SubmitBuildRequest,
    private readonly attemptId: string,
    /** The context on the agent; undefined for a build without one. */
    private readonly contextId: string | undefined,
    private readonly log: LogWriter,
    private readonly signal: AbortSignal,
  ) {
    const given = Object.entries(request.buildArgs).flatMap(([name, { value }]) =>
      value === undefined ? [] : [[name, value] as const],
    );
    this.#given = new Map(given);
  }

  async solve(): Promise<SolvedImage> {
    const source = await this.#readDockerfile();
    this.#dockerfile = parseDockerfile(source);
    const stages = toStages(this.#dockerfile);
    const target = this.request.target ? findStage(stages.stages, this.request.target) : stages.stages.at(-1);
    if (!target) throw new InvalidArgument(`target stage "${this.request.target}" could not be found`);
    const needed = neededStages(stages, target);
    this.#total = needed.reduce((sum, stage) => sum + 1 + stage.instructions.length, 0);
    const globals = this.#globalArgs(stages);
    for (const stage of needed) this.#states.set(stage, await this.#buildStage(stage, stages, globals));
    const state = this.#states.get(target);
    if (!state) throw new InvalidArgument('nothing was built');
    return this.#createImage(state);
  }

  async #readDockerfile(): Promise<string> {
    const path = this.request.dockerfile || 'Dockerfile';
    if (this.contextId === undefined) return this.request.dockerfileContent ?? '';
    const source = this.#context();
    const read = async (name: string) =>
      (await this.services.steps.readFile({ source, path: name, limitBytes: MAX_DOCKERFILE_BYTES })).content.toString();
    const optional = (name: string) =>
      read(name).catch((error: unknown) => {
        if (error instanceof DomainError && error.code === 'NotFound') return undefined;
        throw error;
      });
    this.#ignore = parseIgnoreFile((await optional(`${path}.dockerignore`)) ?? (await optional('.dockerignore')) ?? '');
    const text = this.request.dockerfileContent ?? (await optional(path));
    if (text === undefined) throw new NotFound('file', path, `Cannot locate specified Dockerfile: ${path}`);
    return text;
  }

  #context(): agent.TreeSource {
    return { source: { $case: 'contextId', value: this.contextId ?? '' }, subdirectory: '' };
  }

  /** Predefined and declared before the first FROM (Dockerfile reference, "Automatic platform ARGs"). */
  #globalArgs({ globals }: Stages): Map<string, string> {
    const { os, architecture, variant = '' } = this.#platform;
    const names = { '': formatPlatform(this.#platform), OS: os, ARCH: architecture, VARIANT: variant };
    const args = new Map(
      ['BUILD', 'TARGET'].flatMap((prefix) =>
        Object.entries(names).map(([name, value]) => [`${prefix}${name || 'PLATFORM'}`, value] as const),
      ),
    );
    const scope = new StageState(undefined, [], this.#platform);
    for (const instruction of globals) declareArgs(scope, instruction, this.#given, args, this.#dockerfile.escape);
    for (const [name, value] of scope.args) args.set(name, value);
    return args;
  }

  async #buildStage(stage: Stage, stages: Stages, globals: ReadonlyMap<string, string>): Promise<StageState> {
    this.#announce(stage.from, stage);
    const base = expandWord(stage.base, (name) => globals.get(name), this.#dockerfile.escape);
    if (base === '') throw new InvalidArgument(`base name (${stage.base}) should not be blank`);
    const earlier = findStage(stages.stages.slice(0, stage.index), base);
    const state = earlier ? this.#stateOf(earlier).fork() : await this.#fromImage(base);
    if (state.layers.length > 0) this.#finish(state, undefined, undefined);
    const triggers = [...(state.config.OnBuild ?? [])];
    delete state.config.OnBuild;
    const inherited = triggers.length > 0 ? parseDockerfile(triggers.join('\n')).instructions : [];
    this.#total += inherited.length;
    for (const instruction of [...inherited, ...stage.instructions]) {
      this.#announce(instruction, stage);
      try {
        await this.#step(state, instruction, stage, stages, globals);
      } catch (error) {
        throw error instanceof DomainError &&
          error.code === 'InvalidArgument' &&
          !error.details.exitCode &&
          !error.message.startsWith('dockerfile')
          ? new InvalidArgument(`dockerfile line ${instruction.line}: ${error.message}`, error.details, {
              cause: error,
            })
          : error;
      }
    }
    return state;
  }

  async #step(
    state: StageState,
    instruction: Instruction,
    stage: Stage,
    stages: Stages,
    globals: ReadonlyMap<string, string>,
  ): Promise<void> {
    if (this.signal.aborted) throw new DomainError('Cancelled', 'the build was cancelled');
    const { escape } = this.#dockerfile;
    if (instruction.name === 'ARG') {
      state.remember(declareArgs(state, instruction, this.#given, globals, escape), undefined);
      return this.#finish(state, undefined, undefined);
    }
    const createdBy = applyMetadata(state, instruction, escape);
    if (createdBy !== undefined) {
      state.remember(createdBy, undefined);
      return this.#finish(state, undefined, undefined);
    }
    if (instruction.name === 'RUN') return this.#run(state, instruction);
    if (instruction.name === 'WORKDIR') return this.#workdir(state, instruction);
    return this.#copy(state, instruction, stage, stages);
  }

  async #run(state: StageState, instruction: Instruction): Promise<void> {
    const argv = runArgv(state, instruction);
    const env = [
      ...[...state.args]
        .map(([name, value]) => `${name}=${value}`)
        .filter((entry) => state.env(entry.split('=', 1)[0] ?? '') === undefined),
      ...(state.config.Env ?? []),
    ];
    const inputs = ['RUN', argv, env, state.config.WorkingDir ?? '', state.config.User ?? '', this.request.networkMode];
    const createdBy = `RUN ${argv.join(' ')}`;
    await this.#withLayer(state, inputs, createdBy, async (snapshotId) => {
      let containerId = '';
      const limits = this.request.limits;
      const events = this.services.steps.run(
        {
          snapshotId,
          argv,
          env,
          workingDir: state.config.WorkingDir ?? '',
          user: state.config.User ?? '',
          networkMode: this.request.networkMode,
          extraHosts: this.request.extraHosts,
          memoryBytes: limits?.memoryBytes ?? 0,
          memorySwapBytes: limits?.memorySwapBytes ?? 0,
          cpuShares: limits?.cpuShares ?? 0,
          cpuQuotaUs: limits?.cpuQuotaUs ?? 0,
          cpuPeriodUs: limits?.cpuPeriodUs ?? 0,
          cpusetCpus: limits?.cpusetCpus ?? '',
          cpusetMems: limits?.cpusetMems ?? '',
          shmSizeBytes: limits?.shmSizeBytes ?? 0,
          hostname: 'buildkitsandbox',
        },
        { signal: this.signal },
      );
      for await (const { event } of events) {
        if (event?.$case === 'started') {
          containerId = event.value.containerId;
          this.log.write({ $case: 'stepRunning', value: { index: this.#index, containerId } });
        } else if (event?.$case === 'output') {
          this.log.write({
            $case: 'stepOutput',
            value: { index: this.#index, stream: event.value.stream, data: event.value.data },
          });
        } else if (event?.$case === 'exited' && event.value.exitCode !== 0) {
          const { exitCode } = event.value;
          throw new InvalidArgument(`The command '${argv.join(' ')}' returned a non-zero code: ${exitCode}`, {
            exitCode: String(exitCode),
          });
        }
      }
      return containerId;
    });
  }

  async #workdir(state: StageState, instruction: Instruction): Promise<void> {
    const path = posix.resolve(
      '/',
      state.config.WorkingDir ?? '/',
      expandWord(instruction.rest, state.variable, this.#dockerfile.escape),
    );
    state.config.WorkingDir = path;
    await this.#withLayer(state, ['WORKDIR', path], `WORKDIR ${path}`, async (snapshotId) => {
      await this.services.steps.makeDirectory({ snapshotId, path, user: '' });
      return '';
    });
  }

  async #copy(state: StageState, instruction: Instruction, stage: Stage, stages: Stages): Promise<void> {
    const { escape } = this.#dockerfile;
    const flag = (name: string) => {
      const value = instruction.flags.find((item) => item.name === name)?.value;
      return value === undefined ? '' : expandWord(value, state.variable, escape);
    };
    const { patterns, destination } = copyOperands(state, instruction, escape);
    const from = flag('from');
    const isAdd = instruction.name === 'ADD';
    const parts: { source: agent.TreeSource; patterns: string[]; ignore: string[] }[] = [];
    const remote = isAdd ? patterns.filter((pattern) => /^https?:\/\//.test(pattern)) : [];
    const local = patterns.filter((pattern) => !remote.includes(pattern));
    if (local.length > 0) {
      const { source, isContext } = await this.#copySource(from, stage, stages);
      parts.push({ source, patterns: local, ignore: isContext ? this.#ignore : [] });
    }
    const inline = [
      ...instruction.heredocs.map(({ name, content, expands }) => ({
        name,
        content: Buffer.from(
          expands ? expandWord(content.replaceAll(/(["'])/g, `${escape}$1`), state.variable, escape) : content,
        ),
        mode: 0o644,
      })),
      ...(await Promise.all(remote.map((url) => download(url, this.signal)))),
    ];
    if (inline.length > 0)
      parts.push({
        source: { source: { $case: 'inline', value: { files: inline } }, subdirectory: '' },
        patterns: inline.map(({ name }) => name),
        ignore: [],
      });
    const exclude = instruction.flags.filter(({ name }) => name === 'exclude').map(({ value }) => value);
    const digests = await Promise.all(
      parts.map(
        async (part) =>
          (
            await this.services.steps.digest(
              { ...part, exclude, extractArchives: isAdd },
              { deadline: STEP_DEADLINE_MS, signal: this.signal },
            )
          ).digest,
      ),
    );
    const inputs = [instruction.name, digests, destination, flag('chown'), flag('chmod'), flag('parents')];
    await this.#withLayer(state, inputs, `${instruction.text} # gantry`, async (snapshotId) => {
      for (const part of parts) {
        await this.services.steps.copy(
          {
            snapshotId,
            ...part,
            exclude,
            destination,
            chown: flag('chown'),
            chmod: flag('chmod'),
            extractArchives: isAdd,
            parents: flag('parents') === 'true',
            preserveOwnership: from !== '',
          },
          { deadline: STEP_DEADLINE_MS, signal: this.signal },
        );
      }
      return '';
    });
  }

  async #copySource(from: string, stage: Stage, stages: Stages): Promise<CopySource> {
    if (from === '') {
      if (this.contextId === undefined) throw new InvalidArgument('this build has no context to copy from');
      return { source: this.#context(), isContext: true };
    }
    const earlier = findStage(stages.stages.slice(0, stage.index), from);
    const { layers } = earlier ? this.#stateOf(earlier) : await this.#fromImage(from);
    return {
      source: { source: { $case: 'layers', value: { layers: layers.map(toRef) } }, subdirectory: '' },
      isContext: false,
    };
  }

  #stateOf(stage: Stage): StageState {
    const state = this.#states.get(stage);
    if (!state) throw new InvalidArgument(`stage ${stage.name || stage.index} is not built yet`);
    return state;
  }

  /** Does a step that makes a layer, or takes the layer it made before. */
  async #withLayer(
    state: StageState,
    inputs: readonly unknown[],
    createdBy: string,
    work: (snapshotId: string) => Promise<string>,
  ): Promise<void> {
    const chain = chainIds(state.layers.map(({ diffId }) => diffId)).at(-1) ?? '';
    const key = createHash('sha256')
      .update(JSON.stringify([1, chain, formatPlatform(this.#platform), ...inputs]))
      .digest('hex');
    const cached = this.request.noCache ? undefined : await this.services.cache.find(key);
    if (cached) {
      this.log.write({ $case: 'stepCached', value: { index: this.#index } });
      state.remember(createdBy, cached.isEmpty ? undefined : cached);
      return this.#finish(state, cached, undefined);
    }
    const { snapshotId } = await this.services.steps.prepare(
      { attemptId: this.attemptId, layers: state.layers.map(toRef) },
      { deadline: STEP_DEADLINE_MS, signal: this.signal },
    );
    try {
      const containerId = await work(snapshotId);
      const result = await this.#commit(snapshotId);
      await this.services.cache.save(key, result, createdBy.slice(0, 1000));
      state.remember(
        createdBy,
        result.isEmpty && !createdBy.startsWith('RUN') && !createdBy.startsWith('COPY') && !createdBy.startsWith('ADD')
          ? undefined
          : result,
      );
      this.#finish(state, result, containerId || undefined);
    } catch (error) {
      await this.services.steps.release({ snapshotId, attemptId: '' });
      throw error;
    }
  }

  async #commit(snapshotId: string): Promise<StepResult> {
    const { layer, isEmpty } = await this.services.steps.commit(
      { snapshotId, sourceDateEpoch: undefined },
      { deadline: STEP_DEADLINE_MS, signal: this.signal },
    );
    const descriptor = layer?.descriptor;
    if (!layer || !descriptor) throw new InvalidArgument('the agent committed no layer');
    return {
      diffId: layer.diffId as Digest,
      descriptor: { mediaType: descriptor.mediaType, digest: descriptor.digest as Digest, size: descriptor.size },
      isEmpty,
    };
  }

  /** An image by name, pulled where it is not here (or `--pull` asks for it). */
  async #fromImage(name: string): Promise<StageState> {
    if (name === 'scratch') return new StageState(undefined, [], this.#platform);
    const reference = formatFamiliar(withDefaultTag(parseReference(name)));
    let image = this.request.pull ? undefined : await this.#resolve(name);
    if (!image) {
      await this.#pull(reference);
      image = await this.services.images.resolve({ reference, platform: undefined });
    }
    const config = JSON.parse(image.config.toString()) as ImageConfig;
    const layers = image.layers.map(({ diffId, descriptor }) => ({
      diffId: diffId as Digest,
      descriptor: {
        mediaType: descriptor?.mediaType ?? '',
        digest: (descriptor?.digest ?? '') as Digest,
        size: descriptor?.size ?? 0,
      },
    }));
    return new StageState(config, layers, this.#platform);
  }

  async #resolve(name: string): Promise<registry.Image | undefined> {
    try {
      return await this.services.images.resolve({ reference: name, platform: undefined });
    } catch (error) {
      if (error instanceof DomainError && error.code === 'NotFound') return undefined;
      throw error;
    }
  }

  async #pull(reference: string): Promise<void> {
    const host = parseReference(reference).domain;
    const progress = this.services.images.pull(
      { reference, allTags: false, platform: undefined, credentials: this.request.credentials[host] },
      { signal: this.signal },
    );
    for await (const { id, status, current, total } of progress)
      this.log.write({ $case: 'pullProgress', value: { id, status, current, total } });
  }

  async #createImage(state: StageState): Promise<SolvedImage> {
    const config = state.toImageConfig(this.request.labels);
    const image = await this.services.images.create({
      config: Buffer.from(JSON.stringify(config)),
      layers: state.layers.map(toRef),
      tags: this.request.tags,
      parentId: '',
      manifestAnnotations: {},
    });
    if (this.request.push) {
      for (const tag of this.request.tags) {
        const progress = this.services.images.push(
          {
            reference: tag,
            allTags: false,
            credentials: this.request.credentials[parseReference(tag).domain],
            platform: undefined,
          },
          { signal: this.signal },
        );
        for await (const { id, status, current, total } of progress)
          this.log.write({ $case: 'pullProgress', value: { id, status, current, total } });
      }
    }
    const tags = this.request.tags.map((tag) => formatFamiliar(withDefaultTag(parseReference(tag))));
    this.log.write({ $case: 'imageDone', value: { imageId: image.id, tags } });
    return { imageId: image.id, manifestDigest: image.manifest?.digest ?? '' };
  }

  #announce(instruction: Instruction, stage: Stage): void {
    this.#index++;
    this.log.write({
      $case: 'stepStarted',
      value: { index: this.#index, total: this.#total, instruction: instruction.text, stage: stage.name },
    });
  }

  #finish(state: StageState, layer: StepResult | undefined, containerId: string | undefined): void {
    const imageId = digestOf(JSON.stringify(state.toImageConfig()));
    this.log.write({
      $case: 'stepDone',
      value: { index: this.#index, imageId, containerId: containerId ?? '', diffId: layer?.diffId ?? '' },
    });
  }
}

function toRef({ diffId, descriptor }: Layer): agent.LayerRef {
  return { diffId, descriptor: { ...descriptor, annotations: {}, platform: undefined } };
}

/** ADD of a URL: a file of that name, mode 0600 as Docker gives it. Throws `InvalidArgument` that names the URL. */
async function download(url: string, signal: AbortSignal): Promise<{ name: string; content: Buffer; mode: number }> {
  const response = await fetch(url, { signal });
  if (!response.ok) throw new InvalidArgument(`ADD ${url}: the server answers ${response.status}`);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += (chunk as Uint8Array).length;
    if (size > MAX_REMOTE_BYTES) throw new InvalidArgument(`ADD ${url}: larger than ${MAX_REMOTE_BYTES} bytes`);
    chunks.push(chunk as Uint8Array);
  }
  const name = posix.basename(new URL(url).pathname);
  if (!name) throw new InvalidArgument(`ADD ${url}: cannot determine a file name`);
  return { name, content: Buffer.concat(chunks), mode: 0o600 };
}
