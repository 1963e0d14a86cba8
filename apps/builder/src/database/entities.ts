import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { Descriptor, Digest } from '@gantry/oci';

export type BuildState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

/** A build: this row first, a job in the queue second. `attempt` fences: only the latest attempt may write. */
@Entity({ name: 'builds' })
export class BuildRow {
  @PrimaryColumn('uuid') id!: string;
  @Column('text') status!: BuildState;
  /** The submitted request, encoded as the contract has it. */
  @Column('bytea') request!: Buffer;
  @Column('text') project!: string;
  @Column('text', { array: true }) tags!: string[];
  @Column('text', { name: 'image_id' }) imageId!: string;
  @Column('text', { name: 'image_digest' }) imageDigest!: string;
  @Column('text') error!: string;
  @Column('int') attempt!: number;
  @Column('int') priority!: number;
  @Column('text') worker!: string;
  @Column('text', { name: 'idempotency_key', nullable: true }) idempotencyKey!: string | null;
  @Column('timestamptz', { name: 'queued_at' }) queuedAt!: Date;
  @Column('timestamptz', { name: 'started_at', nullable: true }) startedAt!: Date | null;
  @Column('timestamptz', { name: 'finished_at', nullable: true }) finishedAt!: Date | null;
  @Column('timestamptz', { name: 'heartbeat_at', nullable: true }) heartbeatAt!: Date | null;
}

/** One entry of a build's log, encoded as the contract has it. */
@Entity({ name: 'build_log' })
export class BuildLogRow {
  @PrimaryColumn('uuid', { name: 'build_id' }) buildId!: string;
  @PrimaryColumn('int') sequence!: number;
  @Column('bytea') entry!: Buffer;
}

/** What a step with this key gave: its layer. */
@Entity({ name: 'cache' })
export class CacheRow {
  @PrimaryColumn('text') key!: string;
  @Column('text', { name: 'diff_id' }) diffId!: Digest;
  @Column('jsonb') descriptor!: Descriptor;
  @Column('boolean', { name: 'is_empty' }) isEmpty!: boolean;
  @Column('text') description!: string;
  @Column('timestamptz', { name: 'created_at' }) createdAt!: Date;
  @Column('timestamptz', { name: 'last_used_at' }) lastUsedAt!: Date;
}
