import { InvalidArgument } from '@gantry/errors';
import { z } from 'zod';

/**
 * Reads typed configuration from environment variables. Throws one `InvalidArgument` that lists every wrong variable with its
 * value and what was expected, so that an operator mends all of them at once. Unknown variables are left alone.
 */
export function loadConfig<Shape extends z.ZodRawShape>(
  shape: Shape,
  env: NodeJS.ProcessEnv = process.env,
): z.output<z.ZodObject<Shape>> {
  const known = Object.fromEntries(Object.keys(shape).map((name) => [name, env[name] === '' ? undefined : env[name]]));
  const result = z.object(shape).safeParse(known);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => {
    const name = String(issue.path[0] ?? '');
    const value = known[name];
    return value === undefined
      ? `  ${name} is missing: ${issue.message}`
      : `  ${name}=${JSON.stringify(value)}: ${issue.message}`;
  });
  throw new InvalidArgument(`invalid configuration:\n${lines.join('\n')}`);
}

/** `true/false/1/0/yes/no/on/off`, as people write them. */
export const flag = z.stringbool();

/** An integer within bounds, from text. */
export function integer(min: number, max: number): z.ZodType<number> {
  return z.coerce.number().int().min(min).max(max);
}

/** Where a gRPC or HTTP server listens or is found: `unix:///path` or `tcp://host:port`. */
export const address = z
  .string()
  .regex(/^(unix:\/\/\/.+|tcp:\/\/(\[[0-9a-fA-F:]+\]|[^:/]+):\d{1,5})$/, 'expected unix:///PATH or tcp://HOST:PORT');

/** What every service of an installation is told by the supervisor. All of it follows from the data root. */
export const instanceShape = {
  GANTRY_DATA_ROOT: z.string().startsWith('/', 'expected an absolute path'),
  GANTRY_RUN_DIR: z
    .string()
    .startsWith('/', 'expected an absolute path')
    // sun_path holds 107 bytes (unix(7)); the longest socket name below is `/registry.http.sock`.
    .max(80, 'too long for the sockets below it (80 bytes)'),
  GANTRY_INSTANCE_ID: z.string().regex(/^[a-f0-9]{6}$/, 'expected six hexadecimal digits'),
  GANTRY_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
};

/** The services' names, and with them their sockets. */
export type ServiceName = 'gateway' | 'builder' | 'registry' | 'agent';

/** `unix://<runDir>/<service>.grpc.sock` and its HTTP sibling: where each service of this host listens. */
export function socketAddress(runDir: string, service: ServiceName, protocol: 'grpc' | 'http'): string {
  return `unix://${runDir}/${service}.${protocol}.sock`;
}
