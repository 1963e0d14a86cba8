import { DataSource, type EntitySchema, type MixedList } from 'typeorm';

export interface DatabaseOptions {
  readonly url: string;
  /** The service's own schema: its tables and its migration history live there. */
  readonly schema: string;
  readonly entities: MixedList<(new () => object) | EntitySchema>;
  readonly migrations: readonly (new () => object)[];
  readonly poolSize?: number;
}

/**
 * Opens the service's schema and brings it up to date. Several processes may start at once: an advisory lock lets one of them
 * migrate while the others wait.
 */
export async function connectDatabase(options: DatabaseOptions): Promise<DataSource> {
  const source = new DataSource({
    type: 'postgres',
    url: options.url,
    schema: options.schema,
    entities: options.entities as never,
    migrations: [...options.migrations] as never,
    migrationsTableName: 'migrations',
    poolSize: options.poolSize ?? 8,
    logging: false,
  });
  await source.initialize();
  const runner = source.createQueryRunner();
  try {
    await runner.query('SELECT pg_advisory_lock(hashtext($1))', [`gantry:${options.schema}`]);
    await runner.query(`CREATE SCHEMA IF NOT EXISTS "${options.schema}"`);
    await source.runMigrations({ transaction: 'each' });
  } finally {
    await runner.query('SELECT pg_advisory_unlock(hashtext($1))', [`gantry:${options.schema}`]);
    await runner.release();
  }
  return source;
}
