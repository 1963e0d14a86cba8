import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { address, instanceShape, loadConfig, socketAddress } from '@gantry/service-kit';

const shape = { ...instanceShape, GANTRY_REGISTRY_GRPC: address.optional(), GANTRY_REGISTRY_HTTP: address.optional() };

/** What the agent is told, and the places and names that follow from it. */
export interface AgentConfig {
  readonly instanceId: string;
  readonly dataDir: string;
  readonly runDir: string;
  readonly registryGrpc: string;
  readonly logLevel: string;
  readonly dataRoot: string;
}

export const CONFIG = Symbol('agent config');

/** Throws `InvalidArgument` that lists every wrong variable. Makes the agent's folders. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): AgentConfig {
  const config = loadConfig(shape, env);
  const dataDir = join(config.GANTRY_DATA_ROOT, 'agent');
  for (const name of ['containers', 'snapshots', 'build-contexts', 'volumes'])
    mkdirSync(join(dataDir, name), { recursive: true, mode: 0o710 });
  for (const name of ['c', 'netns']) mkdirSync(join(config.GANTRY_RUN_DIR, name), { recursive: true, mode: 0o711 });
  return {
    instanceId: config.GANTRY_INSTANCE_ID,
    dataRoot: config.GANTRY_DATA_ROOT,
    dataDir,
    runDir: config.GANTRY_RUN_DIR,
    registryGrpc: config.GANTRY_REGISTRY_GRPC ?? socketAddress(config.GANTRY_RUN_DIR, 'registry', 'grpc'),
    logLevel: config.GANTRY_LOG_LEVEL,
  };
}
