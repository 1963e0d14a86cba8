import { readFileSync } from 'node:fs';
import { cpus, hostname, machine, release, totalmem } from 'node:os';
import { Inject } from '@nestjs/common';
import { agent, type common } from '@gantry/contracts';
import { GrpcService } from '@gantry/service-kit';
import type { CallContext } from 'nice-grpc-common';
import { CONFIG, type AgentConfig } from '../config.js';
import { isRunning } from '../containers/container.js';
import { ContainersService } from '../containers/containers.service.js';
import { Launcher } from '../containers/launcher.js';
import { EventsService } from '../events/events.service.js';

function osRelease(): Record<string, string> {
  const text = readFileSync('/etc/os-release', 'utf8');
  return Object.fromEntries(
    text
      .split('\n')
      .flatMap((line) =>
        line.includes('=') ? [[line.split('=')[0] ?? '', line.slice(line.indexOf('=') + 1).replace(/^"|"$/g, '')]] : [],
      ),
  );
}

@GrpcService(agent.AgentSystemDefinition)
export class SystemController implements agent.AgentSystemServiceImplementation {
  constructor(
    @Inject(CONFIG) private readonly config: AgentConfig,
    @Inject(ContainersService) private readonly containers: ContainersService,
    @Inject(Launcher) private readonly launcher: Launcher,
    @Inject(EventsService) private readonly eventsService: EventsService,
  ) {}

  info(): Promise<agent.HostInfo> {
    const os = osRelease();
    const { all } = this.containers;
    const running = all.filter(isRunning);
    const paused = running.filter(({ state }) => state.isPaused);
    return Promise.resolve(
      agent.HostInfo.fromPartial({
        hostId: this.config.instanceId,
        hostname: hostname(),
        kernelVersion: release(),
        operatingSystem: os.PRETTY_NAME ?? 'Linux',
        osVersion: os.VERSION_ID ?? '',
        architecture: machine(),
        cpus: cpus().length,
        memoryBytes: totalmem(),
        cgroupVersion: String(this.launcher.cgroups.version),
        cgroupDriver: 'cgroupfs',
        containersRunning: running.length - paused.length,
        containersPaused: paused.length,
        containersStopped: all.length - running.length,
        dataRoot: this.config.dataRoot,
        securityOptions: [
          'name=seccomp,profile=builtin',
          ...(this.launcher.cgroups.version === 2 ? ['name=cgroupns'] : []),
        ],
        logDrivers: ['json-file', 'local', 'none'],
        networkDrivers: ['bridge', 'host', 'null'],
        version: '0.1.0',
      }),
    );
  }

  events(request: common.EventsRequest, { signal }: CallContext): AsyncGenerator<common.Event> {
    return this.eventsService.subscribe(request, signal);
  }
}
