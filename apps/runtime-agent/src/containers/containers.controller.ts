import { readFileSync } from 'node:fs';
import { Inject } from '@nestjs/common';
import { agent, type common } from '@gantry/contracts';
import { Conflict } from '@gantry/errors';
import { GrpcService } from '@gantry/service-kit';
import type { CallContext } from 'nice-grpc-common';
import { ExecService } from '../exec/exec.service.js';
import { bridgeNetworkId } from '../networks/network-ids.js';
import { NetworksService } from '../networks/networks.service.js';
import { SnapshotsService } from '../snapshots/snapshots.service.js';
import { containerFilter } from './container-filters.js';
import { toContainer, toSummary } from './container-message.js';
import { isRunning, type ContainerRecord } from './container.js';
import { ContainersService } from './containers.service.js';
import { Launcher } from './launcher.js';
import { sample } from './stats.js';

@GrpcService(agent.ContainersDefinition)
export class ContainersController implements agent.ContainersServiceImplementation {
  constructor(
    @Inject(ContainersService) private readonly containers: ContainersService,
    @Inject(ExecService) private readonly execs: ExecService,
    @Inject(NetworksService) private readonly networks: NetworksService,
    @Inject(SnapshotsService) private readonly snapshots: SnapshotsService,
    @Inject(Launcher) private readonly launcher: Launcher,
  ) {}

  create(request: agent.CreateContainerRequest): Promise<agent.CreateContainerResponse> {
    return this.containers.create(request);
  }

  async start({ id }: agent.StartContainerRequest): Promise<common.Empty> {
    await this.containers.start(id);
    return {};
  }

  async stop({ id, signal, timeoutSeconds }: agent.StopContainerRequest): Promise<common.Empty> {
    await this.containers.stop(id, signal, timeoutSeconds);
    return {};
  }

  async restart({ id, signal, timeoutSeconds }: agent.StopContainerRequest): Promise<common.Empty> {
    await this.containers.restart(id, signal, timeoutSeconds);
    return {};
  }

  async kill({ id, signal }: agent.KillContainerRequest): Promise<common.Empty> {
    await this.containers.kill(id, signal);
    return {};
  }

  async pause({ id }: agent.ContainerRequest): Promise<common.Empty> {
    await this.containers.pause(id, true);
    return {};
  }

  async unpause({ id }: agent.ContainerRequest): Promise<common.Empty> {
    await this.containers.pause(id, false);
    return {};
  }

  rename({ id, name }: agent.RenameContainerRequest): Promise<common.Empty> {
    this.containers.rename(id, name);
    return Promise.resolve({});
  }

  async remove({ id, force }: agent.RemoveContainerRequest): Promise<common.Empty> {
    await this.containers.remove(id, force);
    return {};
  }

  async inspect({ id }: agent.InspectContainerRequest): Promise<agent.Container> {
    const record = this.containers.resolve(id);
    const sandbox = this.networks.sandboxOf(record.id);
    return toContainer(record, {
      sandbox,
      networkId: bridgeNetworkId(this.networks.bridge),
      directory: this.containers.directory(record.id),
      tree: await this.#tree(record),
      execIds: this.execs.idsOf(record.id),
      namespacePath: sandbox?.namespacePath ?? '',
    });
  }

  list(request: agent.ListContainersRequest): Promise<agent.ListContainersResponse> {
    const matches = containerFilter(request.filters, (text) => this.containers.resolve(text));
    const asksForStatus = Object.keys(request.filters?.byKey ?? {}).some((key) => key === 'status' || key === 'exited');
    const shown = this.containers.all
      .filter((record) => request.all || request.limit > 0 || asksForStatus || isRunning(record))
      .filter(matches)
      .sort((a, b) => (a.created < b.created ? 1 : -1));
    const networkId = bridgeNetworkId(this.networks.bridge);
    const containers = (request.limit > 0 ? shown.slice(0, request.limit) : shown).map((record) =>
      toSummary(record, this.networks.sandboxOf(record.id), networkId),
    );
    return Promise.resolve({ containers });
  }

  async *wait(
    { id, condition }: agent.WaitContainerRequest,
    { signal }: CallContext,
  ): AsyncGenerator<agent.WaitContainerEvent> {
    let registered = () => {};
    const isRegistered = new Promise<void>((resolve) => (registered = resolve));
    const exit = this.containers.wait(id, condition, signal, () => registered());
    await Promise.race([isRegistered, exit]);
    yield { event: { $case: 'registered', value: {} } };
    yield { event: { $case: 'exited', value: await exit } };
  }

  async resize({ id, rows, columns }: agent.ResizeRequest): Promise<common.Empty> {
    await this.containers.shim(this.containers.resolve(id)).resize(rows, columns);
    return {};
  }

  async *stats(
    { id, stream, oneShot }: agent.StatsRequest,
    { signal }: CallContext,
  ): AsyncGenerator<agent.StatsSample> {
    const record = this.containers.resolve(id);
    const take = () =>
      isRunning(record)
        ? sample(this.launcher.cgroups, record.id, record.name, record.state.pid)
        : agent.StatsSample.fromPartial({ containerId: record.id, name: record.name });
    yield take();
    // Docker's one answer has two samples, a second apart, unless one was asked for.
    for (let more = !oneShot; more && !signal.aborted; more = stream && isRunning(record)) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      yield take();
    }
  }

  top({ id }: agent.TopRequest): Promise<agent.TopResponse> {
    const record = this.containers.resolve(id);
    if (!isRunning(record)) throw new Conflict(`container ${record.id} is not running`);
    const first = this.launcher.cgroups.controllers[0] ?? '';
    const pids = this.launcher.cgroups.read(record.id, first, 'cgroup.procs')?.split('\n').filter(Boolean) ?? [];
    const processes = pids.flatMap((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)?.[1] ?? '';
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
        return [{ values: [field('Uid'), pid, field('PPid'), '0', '', '?', '00:00:00', command || field('Name')] }];
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []; // ended meanwhile
        throw error;
      }
    });
    return Promise.resolve({ titles: ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'], processes });
  }

  async prune({ filters }: agent.PruneContainersRequest): Promise<agent.PruneContainersResponse> {
    const matches = containerFilter(filters, (text) => this.containers.resolve(text));
    return { deleted: await this.containers.prune(matches), spaceReclaimed: 0 };
  }

  imagesInUse(): Promise<agent.ImagesInUseResponse> {
    const images = this.containers.all.map((record) => ({
      imageId: record.image.id,
      containerId: record.id,
      isRunning: isRunning(record),
    }));
    return Promise.resolve({ images });
  }

  async #tree(record: ContainerRecord): Promise<agent.SnapshotInfo | undefined> {
    if (record.state.status === 'created') return undefined;
    try {
      const { lowerdirs, upperdir, workdir } = await this.snapshots.tree(record.id);
      return {
        lowerdirs: [...lowerdirs],
        upperdir,
        workdir,
        merged: isRunning(record) ? `/proc/${record.state.pid}/root` : '',
      };
    } catch {
      return undefined; // never started: nothing was made of it yet
    }
  }
}
