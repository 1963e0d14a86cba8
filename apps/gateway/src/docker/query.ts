import { InvalidArgument } from '@gantry/errors';
import type { common } from '@gantry/contracts';
import { z } from 'zod';

/** Go's strconv.ParseBool, as Docker reads query values: what is neither empty, 0 nor false is true. */
export function isTrue(value: unknown): boolean {
  return typeof value === 'string' && !['', '0', 'false', 'no', 'none'].includes(value.toLowerCase().trim());
}

const FILTERS = z.record(z.string(), z.union([z.array(z.string()), z.record(z.string(), z.boolean())]));

/** The `filters` parameter, in either of its forms. Throws `InvalidArgument` where it is no such JSON. */
export function parseFilters(text: string | undefined): common.Filters {
  if (!text) return { byKey: {} };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InvalidArgument(`invalid filter: ${(error as Error).message}`);
  }
  const parsed = FILTERS.safeParse(json);
  if (!parsed.success) throw new InvalidArgument('invalid filter: expected lists or maps of values by name');
  const entries = Object.entries(parsed.data).map(
    ([key, values]) => [key, { values: Array.isArray(values) ? values : Object.keys(values) }] as const,
  );
  return { byKey: Object.fromEntries(entries) };
}

/** A request body checked at the border. Unknown fields pass; a wrong one is named. */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const result = schema.safeParse(body ?? {});
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new InvalidArgument(`invalid request body: ${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'invalid'}`);
}

/** base64url JSON of `X-Registry-Auth`; empty and `{}` are anonymous. */
export function parseCredentials(header: string | string[] | undefined): common.RegistryCredentials {
  const none = { username: '', password: '', identityToken: '', registryToken: '', serverAddress: '' };
  if (!header || Array.isArray(header)) return none;
  try {
    const json = JSON.parse(Buffer.from(header, 'base64url').toString()) as Record<string, string | undefined>;
    return {
      username: json.username ?? '',
      password: json.password ?? '',
      identityToken: json.identitytoken ?? '',
      registryToken: json.registrytoken ?? '',
      serverAddress: json.serveraddress ?? '',
    };
  } catch (error) {
    throw new InvalidArgument(`invalid X-Registry-Auth header: ${(error as Error).message}`);
  }
}
