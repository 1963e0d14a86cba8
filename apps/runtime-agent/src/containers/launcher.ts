import { mkdirSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import type { agent } from '@gantry/contracts';
import { InvalidArgument, Unavailable } from '@gantry/errors';
import type { MergedTree } from '@gantry/layers';
import {
  Cgroups,
  compileSeccomp,
  DEFAULT_PROFILE,
  Zygote,
  type NamespaceMode,
  type SeccompProfile,
  type Shim,
} from '@gantry/linux';
import { LOGGER, type Logger } from '@gantry/service-kit';
import { CONFIG, type AgentConfig } from '../config.js';
import { NetworksService } from '../networks/networks.service.js';
import { effectiveCapabilities } from './capabilities.js';
import { writeContainerFiles } from './container-files.js';
import { compilePlan, limitsOf, type PlanInput } from './container-plan.js';

const DEFAULT_LOG_BYTES = 10 * 1024 * 1024;
const DEFAULT_LOG_FILES = 3;

export interface Launch {
  readonly id: string;
  /** Where hostname, hosts, resolv.conf and the log are kept. */
  readonly directory: string;
  readonly process: agent.ProcessConfig;
  readonly host: agent.HostConfig;
  readonly hostname: string;
  readonly domainname: string;
  readonly argv: readonly string[];
  readonly tree: MergedTree;
  readonly keepsLog: boolean;
  /** Someone attaches before the first byte: the caller releases the output. */
  readonly holdOutput: boolean;
}

/** Brings a process to run in a container of its own: used for containers and for build steps alike, with the same isolation. */
@Injectable()
export class Launcher implements OnModuleInit, OnModuleDestroy {
  readonly cgroups: Cgroups;
  #zygote: Zygote | undefined;

  constructor(
    @Inject(CONFIG) private readonly config: AgentConfig,
    @Inject(NetworksService) private readonly networks: NetworksService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.cgroups = new Cgroups(config.instanceId);
  }

  async onModuleInit(): Promise<void> {
    this.cgroups.prepare();
    await this.#startZygote();
  }

  async onModuleDestroy(): Promise<void> {
    await this.#zygote?.close();
    if (this.#zygote) this.cgroups.dismantle();
  }

  runDir(id: string): string {
    return join(this.config.runDir, 'c', id);
  }

  /** Starts the process. Rejects `LaunchError` where it could not be executed; the network sandbox is the caller's to release. */
  async launch(launch: Launch): Promise<Shim> {
    const { id, host } = launch;
    const runDir = this.runDir(id);
    mkdirSync(runDir, { recursive: true, mode: 0o700 });
    const network = await this.#network(launch);
    const sandbox = this.networks.sandboxOf(id);
    const capabilities = effectiveCapabilities(host.capAdd, host.capDrop, host.privileged);
    const input: PlanInput = {
      ...launch,
      runDir,
      network,
      cgroup: this.cgroups.plan(id, limitsOf(host.resources, host.privileged)),
      cgroupVersion: this.cgroups.version,
      cgroupControllers: this.cgroups.controllers,
      files: writeContainerFiles(launch.directory, launch.hostname, host, sandbox),
      capabilities,
      seccomp: await this.#seccomp(host, capabilities),
      log: launch.keepsLog && host.log?.driver !== 'none' ? logOptions(launch.directory, host.log) : undefined,
    };
    if (!this.#zygote) throw new Unavailable('the zygote is not there');
    const shim = await this.#zygote.launch(compilePlan(input, isFile));
    for (const warning of shim.warnings) this.logger.warn({ container: id }, warning);
    return shim;
  }

  async #network({ id, host }: Launch): Promise<NamespaceMode> {
    const mode = host.networkMode || 'default';
    if (mode === 'host') return 'host';
    if (mode === 'none') return 'new';
    if (mode !== 'default' && mode !== 'bridge') throw new InvalidArgument(`network ${mode} not found`);
    const { namespacePath } = await this.networks.acquire(id, host.portBindings);
    return { path: namespacePath };
  }

  async #seccomp(host: agent.HostConfig, capabilities: ReadonlySet<string>): Promise<Buffer | undefined> {
    const option = host.securityOpt.find((entry) => /^seccomp[=:]/.test(entry))?.slice('seccomp='.length);
    if (host.privileged || option === 'unconfined') return undefined;
    if (option === undefined || option === 'builtin') return compileSeccomp(DEFAULT_PROFILE, capabilities);
    // The CLI sends the profile itself, not its path.
    const text = option.trimStart().startsWith('{') ? option : await readFile(option, 'utf8');
    try {
      return await compileSeccomp(JSON.parse(text) as SeccompProfile, capabilities);
    } catch (error) {
      throw error instanceof SyntaxError
        ? new InvalidArgument(`Decoding seccomp profile failed: ${error.message}`)
        : error;
    }
  }

  async #startZygote(): Promise<void> {
    const zygote = await Zygote.start({ socketPath: join(this.config.runDir, 'zygote.sock') });
    this.#zygote = zygote;
    zygote.onExit(() => {
      this.logger.error('the zygote has died: starting another');
      this.#startZygote().catch((error: unknown) => this.logger.fatal({ err: error }, 'no zygote'));
    });
  }
}

function isFile(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new InvalidArgument(`invalid mount config for type "bind": bind source path does not exist: ${path}`);
    throw error;
  }
}

function logOptions(
  directory: string,
  log: agent.LogConfig | undefined,
): { path: string; maxSizeBytes: number; maxFiles: number } {
  const [, number = '', unit = ''] = /^(\d+)([kmg]?)b?$/i.exec(log?.options['max-size'] ?? '') ?? [];
  const factor = { k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[unit.toLowerCase()] ?? 1;
  return {
    path: join(directory, 'log'),
    maxSizeBytes: number ? Number(number) * factor : DEFAULT_LOG_BYTES,
    maxFiles: Number(log?.options['max-file'] ?? DEFAULT_LOG_FILES),
  };
}
