import type { MigrationInterface, QueryRunner } from 'typeorm';

export class Initial1764000000000 implements MigrationInterface {
  readonly name = 'Initial1764000000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE registry.images (id text PRIMARY KEY, config bytea NOT NULL, manifest jsonb NOT NULL, layers jsonb NOT NULL,
        parent_id text NOT NULL DEFAULT '', last_tagged text NOT NULL DEFAULT '');
      CREATE TABLE registry.image_references (reference text PRIMARY KEY, image_id text NOT NULL REFERENCES registry.images (id) ON DELETE CASCADE);
      CREATE INDEX ON registry.image_references (image_id);
      CREATE TABLE registry.manifests (repository text, digest text, media_type text NOT NULL, content bytea NOT NULL,
        subject text NOT NULL DEFAULT '', refers_to text[] NOT NULL, PRIMARY KEY (repository, digest));
      CREATE INDEX ON registry.manifests (repository, subject) WHERE subject <> '';
      CREATE TABLE registry.tags (repository text, name text, digest text NOT NULL, PRIMARY KEY (repository, name));
      CREATE TABLE registry.repository_blobs (repository text, digest text, PRIMARY KEY (repository, digest));
      CREATE INDEX ON registry.repository_blobs (digest);`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(
      `DROP TABLE registry.repository_blobs, registry.tags, registry.manifests, registry.image_references, registry.images`,
    );
  }
}
