import { connect } from 'node:net';
import { mkdir, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Conflict, InvalidArgument } from '@gantry/errors';

export type ListenAddress = { readonly path: string } | { readonly host: string; readonly port: number };

const MAX_SOCKET_PATH = 107; // unix(7), sun_path

/** Parses `unix:///path` or `tcp://host:port`. Throws `InvalidArgument` that names it. */
export function parseAddress(address: string): ListenAddress {
  if (address.startsWith('unix://')) {
    const path = address.slice('unix://'.length);
    if (!path.startsWith('/')) throw new InvalidArgument(`address "${address}" needs an absolute socket path`);
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
      throw new InvalidArgument(`socket path "${path}" is longer than ${MAX_SOCKET_PATH} bytes`);
    }
    return { path };
  }
  const match = /^tcp:\/\/(?:\[([^\]]+)\]|([^:/]*)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (!match || port > 65_535)
    throw new InvalidArgument(`address "${address}" is neither unix:///PATH nor tcp://HOST:PORT`);
  return { host: match[1] ?? (match[2] || '0.0.0.0'), port };
}

/** The form grpc-js takes: `unix:/path` or `host:port`. */
export function toGrpcTarget(address: string): string {
  const parsed = parseAddress(address);
  if ('path' in parsed) return `unix:${parsed.path}`;
  return parsed.host.includes(':') ? `[${parsed.host}]:${parsed.port}` : `${parsed.host}:${parsed.port}`;
}

/** Makes the socket's folder and unlinks a stale socket. `Conflict` where a living process still answers on it. */
export async function prepareUnixSocket(address: string): Promise<void> {
  const parsed = parseAddress(address);
  if (!('path' in parsed)) return;
  await mkdir(dirname(parsed.path), { recursive: true });
  const answers = await new Promise<boolean>((resolve, reject) => {
    const probe = connect(parsed.path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(false);
      else reject(error);
    });
  });
  if (answers) throw new Conflict(`another process listens on ${parsed.path} already`);
  await unlink(parsed.path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}
