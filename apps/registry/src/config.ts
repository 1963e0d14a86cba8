import { address, instanceShape, loadConfig } from '@gantry/service-kit';
import { z } from 'zod';

const shape = {
  ...instanceShape,
  DATABASE_URL: z.string().min(1),
  /** Where /v2/ is open to other machines' clients. */
  GANTRY_REGISTRY_ADDRESS: address.default('tcp://127.0.0.1:5000'),
};

export type RegistryConfig = ReturnType<typeof readConfig>;

/** Throws `InvalidArgument` that lists every wrong variable. */
export function readConfig(env: NodeJS.ProcessEnv = process.env) {
  return loadConfig(shape, env);
}

export const CONFIG = Symbol('registry config');

/** References whose host is this registry itself: a push or pull of them moves no bytes. */
export function ownHosts(config: RegistryConfig): ReadonlySet<string> {
  const port = config.GANTRY_REGISTRY_ADDRESS.slice(config.GANTRY_REGISTRY_ADDRESS.lastIndexOf(':') + 1);
  const host = config.GANTRY_REGISTRY_ADDRESS.replace('tcp://', '');
  return new Set([host, `127.0.0.1:${port}`, `localhost:${port}`]);
}
