import { builder } from '@gantry/contracts';
import type { BuildRow, BuildState } from '../database/entities.js';

const STATUS: Readonly<Record<BuildState, builder.BuildStatus>> = {
  queued: builder.BuildStatus.QUEUED,
  running: builder.BuildStatus.RUNNING,
  succeeded: builder.BuildStatus.SUCCEEDED,
  failed: builder.BuildStatus.FAILED,
  cancelled: builder.BuildStatus.CANCELLED,
};

export function hasEnded({ status }: BuildRow): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled';
}

export function statusOf(state: BuildState): builder.BuildStatus {
  return STATUS[state];
}

/** A row as others see it. Pure. */
export function toBuild(row: BuildRow): builder.Build {
  return {
    id: row.id,
    status: STATUS[row.status],
    project: row.project,
    tags: row.tags,
    imageId: row.imageId,
    imageDigest: row.imageDigest,
    error: row.error,
    queuedAt: row.queuedAt.toISOString(),
    startedAt: row.startedAt?.toISOString() ?? '',
    finishedAt: row.finishedAt?.toISOString() ?? '',
    attempt: row.attempt,
    priority: row.priority === 1 ? builder.BuildPriority.INTERACTIVE : builder.BuildPriority.BATCH,
    worker: row.worker,
    queuePosition: 0,
  };
}
