import type { MigrationInterface, QueryRunner } from 'typeorm';

export class Initial1764000000000 implements MigrationInterface {
  readonly name = 'Initial1764000000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE builder.builds (id uuid PRIMARY KEY, status text NOT NULL, request bytea NOT NULL, project text NOT NULL DEFAULT '',
        tags text[] NOT NULL, image_id text NOT NULL DEFAULT '', image_digest text NOT NULL DEFAULT '', error text NOT NULL DEFAULT '',
        attempt int NOT NULL DEFAULT 0, priority int NOT NULL, worker text NOT NULL DEFAULT '', idempotency_key text UNIQUE,
        queued_at timestamptz NOT NULL, started_at timestamptz, finished_at timestamptz, heartbeat_at timestamptz);
      CREATE INDEX ON builder.builds (queued_at);
      CREATE INDEX ON builder.builds (status) WHERE status IN ('queued', 'running');
      CREATE TABLE builder.build_log (build_id uuid REFERENCES builder.builds (id) ON DELETE CASCADE, sequence int, entry bytea NOT NULL,
        PRIMARY KEY (build_id, sequence));
      CREATE TABLE builder.cache (key text PRIMARY KEY, diff_id text NOT NULL, descriptor jsonb NOT NULL, is_empty boolean NOT NULL,
        description text NOT NULL, created_at timestamptz NOT NULL, last_used_at timestamptz NOT NULL);`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE builder.cache, builder.build_log, builder.builds');
  }
}
