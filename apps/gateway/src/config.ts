import { address, flag, instanceShape, loadConfig } from '@gantry/service-kit';
import { InvalidArgument } from '@gantry/errors';
import { z } from 'zod';

const shape = {
  ...instanceShape,
  DATABASE_URL: z.string().min(1),
  /** Doors of the Docker and platform APIs, comma-separated. */
  GANTRY_LISTEN: z
    .string()
    .transform((text) => text.split(',').map((part) => part.trim()))
    .pipe(z.array(address).min(1)),
  /** TCP without TLS beyond the loopback: whoever reaches it is root on this host. */
  GANTRY_INSECURE_TCP: flag.default(false),
};

export type GatewayConfig = ReturnType<typeof readConfig>;
export const CONFIG = Symbol('gateway config');

/** Throws `InvalidArgument` that lists every wrong variable. */
export function readConfig(env: NodeJS.ProcessEnv = process.env) {
  const config = loadConfig(shape, env);
  for (const door of config.GANTRY_LISTEN) {
    if (door.startsWith('tcp://') && !config.GANTRY_INSECURE_TCP && !/^tcp:\/\/(127\.|localhost:|\[::1\])/.test(door)) {
      throw new InvalidArgument(
        `GANTRY_LISTEN: ${door} is open to the network without TLS: set GANTRY_INSECURE_TCP=true if that is meant`,
      );
    }
  }
  return config;
}
