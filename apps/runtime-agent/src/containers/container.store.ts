import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { join } from 'node:path';
import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { Conflict, InvalidArgument, NotFound } from '@gantry/errors';
import { CONFIG, type AgentConfig } from '../config.js';
import type { ContainerRecord } from './container.js';

/**
 * The host's containers: in memory to be read, in SQLite to survive. It needs no other service. Without a sync for each write a power cut
 * may lose the last moments, a crash of the agent nothing (sqlite.org, PRAGMA synchronous).
 */
@Injectable()
export class ContainerStore implements OnModuleDestroy {
  readonly #database: DatabaseSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #byId = new Map<string, ContainerRecord>();
  readonly #byName = new Map<string, string>();

  constructor(@Inject(CONFIG) config: AgentConfig) {
    this.#database = new DatabaseSync(join(config.dataDir, 'containers.db'));
    this.#database.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT',
    );
    this.#put = this.#database.prepare(
      'INSERT INTO containers VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record',
    );
    this.#delete = this.#database.prepare('DELETE FROM containers WHERE id = ?');
    for (const row of this.#database.prepare('SELECT record FROM containers').all())
      this.#remember(JSON.parse(String(row.record)) as ContainerRecord);
  }

  onModuleDestroy(): void {
    this.#database.close();
  }

  get all(): ContainerRecord[] {
    return [...this.#byId.values()];
  }

  /** Takes a name for a container. Throws `Conflict` in Docker's words. */
  claimName(name: string, id: string): void {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name)) {
      throw new InvalidArgument(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
    }
    const owner = this.#byName.get(name);
    if (owner !== undefined && owner !== id) {
      throw new Conflict(
        `Conflict. The container name "/${name}" is already in use by container "${owner}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    this.#byName.set(name, id);
  }

  isTaken(name: string): boolean {
    return this.#byName.has(name);
  }

  releaseName(name: string): void {
    this.#byName.delete(name);
  }

  save(record: ContainerRecord): void {
    this.#put.run(record.id, JSON.stringify(record));
    this.#remember(record);
  }

  delete(record: ContainerRecord): void {
    this.#delete.run(record.id);
    this.#byId.delete(record.id);
    this.#byName.delete(record.name);
  }

  find(id: string): ContainerRecord | undefined {
    return this.#byId.get(id);
  }

  /** By full ID, name, or unique ID prefix. Throws `NotFound` in Docker's words. */
  resolve(text: string): ContainerRecord {
    const name = text.startsWith('/') ? text.slice(1) : text;
    const exact = this.#byId.get(text) ?? this.#byId.get(this.#byName.get(name) ?? '');
    if (exact) return exact;
    const matches = /^[a-f0-9]+$/.test(text) ? this.all.filter(({ id }) => id.startsWith(text)) : [];
    if (matches.length > 1) throw new InvalidArgument(`Multiple IDs found with provided prefix: ${text}`);
    if (!matches[0]) throw new NotFound('container', text);
    return matches[0];
  }

  #remember(record: ContainerRecord): void {
    this.#byId.set(record.id, record);
    this.#byName.set(record.name, record.id);
  }
}
