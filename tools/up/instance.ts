import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

/** An installation: everything it is called follows from its data root, so that several live side by side. */
export interface Instance {
  readonly dataRoot: string;
  readonly id: string;
  readonly runDir: string;
}

export const DEFAULT_DATA_ROOT = '/var/lib/gantry';

/** The instance of a data root, which is made where it is missing. */
export function instanceOf(dataRoot: string): Instance {
  mkdirSync(dataRoot, { recursive: true, mode: 0o711 });
  // PostgreSQL runs as a user of its own and has to get through; what is private below has modes of its own.
  chmodSync(dataRoot, 0o711);
  const real = realpathSync(dataRoot);
  const id = createHash('sha256').update(real).digest('hex').slice(0, 6);
  const runDir = join('/run/gantry', id);
  mkdirSync(runDir, { recursive: true, mode: 0o711 });
  return { dataRoot: real, id, runDir };
}
