import type { IncomingMessage } from 'node:http';
import { InvalidArgument } from '@gantry/errors';

export const API_VERSION = '1.51';
export const MIN_API_VERSION = '1.24';

const versions = new WeakMap<IncomingMessage, string>();
const PREFIX = /^\/v(\d+\.\d+)(?=\/|$)/;

const minor = (version: string) => Number(version.split('.')[1]);

/** Takes `/v1.41` off a path and remembers it: the routes know no versions. */
export function stripVersion(request: IncomingMessage): string {
  const url = request.url ?? '/';
  const match = PREFIX.exec(url);
  if (!match) return url;
  versions.set(request, match[1] ?? API_VERSION);
  return url.slice(match[0].length) || '/';
}

/** The version a client speaks; ours where it named none. Throws in Docker's words where it is none of ours. */
export function versionOf(request: IncomingMessage): string {
  const version = versions.get(request);
  if (version === undefined) return API_VERSION;
  if (!version.startsWith('1.') || minor(version) > minor(API_VERSION)) {
    throw new InvalidArgument(`client version ${version} is too new. Maximum supported API version is ${API_VERSION}`);
  }
  if (minor(version) < minor(MIN_API_VERSION)) {
    throw new InvalidArgument(
      `client version ${version} is too old. Minimum supported API version is ${MIN_API_VERSION}, please upgrade your client to a newer version`,
    );
  }
  return version;
}

/** True for a client of this minor version of API 1 or a later one. */
export function speaksAtLeast(request: IncomingMessage, wanted: number): boolean {
  return minor(versionOf(request)) >= wanted;
}
