import type { agent } from '@gantry/contracts';
import type { Descriptor, Digest, RuntimeConfig } from '@gantry/oci';

/** Where a container is in its life; each form carries exactly what is true of it then. */
export type ContainerState =
  | { readonly status: 'created' }
  | {
      readonly status: 'running';
      readonly pid: number;
      readonly startTicks: string;
      readonly startedAt: string;
      readonly isPaused: boolean;
    }
  | { readonly status: 'restarting'; readonly last: ExitedState }
  | ExitedState
  | { readonly status: 'dead'; readonly error: string };

export interface ExitedState {
  readonly status: 'exited';
  readonly exitCode: number;
  readonly error: string;
  readonly oomKilled: boolean;
  readonly startedAt: string;
  readonly finishedAt: string;
}

/** What a container needs of its image, so that it can be started with the registry down. */
export interface ImageSnapshot {
  readonly id: string;
  readonly manifestDigest: string;
  readonly config: RuntimeConfig;
  readonly layers: readonly { readonly diffId: Digest; readonly descriptor: Descriptor }[];
  readonly chain: Digest | undefined;
  readonly platform: string;
}

export interface ContainerRecord {
  readonly id: string;
  name: string;
  readonly created: string;
  readonly image: ImageSnapshot;
  /** As asked for, with what the image gives filled in. */
  readonly config: agent.CreateContainerRequest;
  state: ContainerState;
  restartCount: number;
  /** `docker stop`ped: `unless-stopped` and `always` leave it alone until the next start. */
  wasStopped: boolean;
}

export function isRunning(
  record: ContainerRecord,
): record is ContainerRecord & { state: Extract<ContainerState, { status: 'running' }> } {
  return record.state.status === 'running';
}

/** argv of a container: entrypoint and command, the image's where the caller gave none (Docker drops the image's command with its entrypoint). */
export function argvOf(config: agent.CreateContainerRequest): string[] {
  return [...(config.process?.entrypoint?.values ?? []), ...(config.process?.command?.values ?? [])];
}

/** Fills in what the image says where the caller was silent. Pure. */
export function mergeImage(request: agent.CreateContainerRequest, image: RuntimeConfig): agent.CreateContainerRequest {
  const given = request.process;
  const hasEntrypoint = given?.entrypoint !== undefined;
  const entrypoint = hasEntrypoint
    ? given.entrypoint
    : image.Entrypoint?.length
      ? { values: [...image.Entrypoint] }
      : undefined;
  const command = given?.command?.values.length
    ? given.command
    : hasEntrypoint || !image.Cmd?.length
      ? given?.command
      : { values: [...image.Cmd] };
  const names = new Set((given?.env ?? []).map((entry) => entry.split('=', 1)[0]));
  const env = [
    ...(image.Env ?? []).filter((entry) => !names.has(entry.split('=', 1)[0])),
    ...(given?.env ?? []),
  ].filter((entry) => entry.includes('='));
  return {
    ...request,
    process: {
      tty: false,
      openStdin: false,
      stdinOnce: false,
      attachStdin: false,
      attachStdout: false,
      attachStderr: false,
      ...given,
      entrypoint,
      command,
      env,
      workingDir: given?.workingDir || image.WorkingDir || '',
      user: given?.user || image.User || '',
    },
    labels: { ...image.Labels, ...request.labels },
    stopSignal: request.stopSignal || image.StopSignal || '',
    exposedPorts: [...new Set([...Object.keys(image.ExposedPorts ?? {}), ...request.exposedPorts])],
    volumes: [...new Set([...Object.keys(image.Volumes ?? {}), ...request.volumes])],
  };
}
