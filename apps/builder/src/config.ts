import { instanceShape, integer, loadConfig } from '@gantry/service-kit';
import { z } from 'zod';

const shape = {
  ...instanceShape,
  DATABASE_URL: z.string().min(1),
  /** A unix socket's path or a redis:// URL. */
  REDIS_URL: z.string().min(1),
  GANTRY_BUILDER_ROLE: z.enum(['api', 'worker']).default('api'),
  GANTRY_BUILDER_WORKER: z
    .string()
    .regex(/^[a-z0-9-]+$/)
    .default('1'),
  /** Builds that one worker process runs side by side. */
  GANTRY_BUILDER_CONCURRENCY: integer(1, 64).default(1),
};

export type BuilderConfig = ReturnType<typeof readConfig>;
export const CONFIG = Symbol('builder config');

/** Throws `InvalidArgument` that lists every wrong variable. */
export function readConfig(env: NodeJS.ProcessEnv = process.env) {
  return loadConfig(shape, env);
}
