import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { chmod, chown } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { parseAddress, prepareUnixSocket } from '../lifecycle/listen-address.js';

export type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

export interface HttpListen {
  /** `unix:///path` or `tcp://host:port`. */
  readonly address: string;
  /** Mode and group of a unix socket; default 0600, the service's own group. */
  readonly mode?: number;
  readonly gid?: number;
}

const HEADERS_TIMEOUT_MS = 60_000;
const KEEP_ALIVE_MS = 75_000;
const CLOSE_GRACE_MS = 2_000;

/** The HTTP doors of a service: several addresses, one handler. Owner: the service's lifecycle. */
export class HttpListeners {
  readonly #servers: Server[] = [];
  readonly #upgraded = new Set<Duplex>();

  constructor(
    private readonly handler: (request: IncomingMessage, response: ServerResponse) => void,
    private readonly onUpgrade?: UpgradeHandler,
  ) {}

  /** Opens one door. Resolves with its port (0 for a unix socket). */
  async listen({ address, mode, gid }: HttpListen): Promise<number> {
    await prepareUnixSocket(address);
    // A half-closed client (echo x | docker run -i) still reads: the socket must stay open for writing.
    const server = createServer(
      {
        requestTimeout: 0,
        headersTimeout: HEADERS_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_MS,
        allowHalfOpen: true,
        highWaterMark: 256 * 1024,
      } as object,
      this.handler,
    );
    if (this.onUpgrade)
      server.on('upgrade', (request, socket: Duplex, head: Buffer) => this.#upgrade(request, socket, head));
    const parsed = parseAddress(address);
    const previous = process.umask(0o177); // a socket is never open wider than meant, not even for an instant
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen('path' in parsed ? { path: parsed.path } : { host: parsed.host, port: parsed.port }, () => {
          server.off('error', reject);
          resolve();
        });
        process.umask(previous);
      });
    } finally {
      process.umask(previous);
    }
    if ('path' in parsed) {
      if (gid !== undefined) await chown(parsed.path, process.getuid?.() ?? 0, gid);
      if (mode !== undefined) await chmod(parsed.path, mode);
    }
    this.#servers.push(server);
    return 'path' in parsed ? 0 : (server.address() as AddressInfo).port;
  }

  /** Stops accepting, gives running requests a grace time, then closes what is left (streams never end by themselves). */
  async close(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const server of this.#servers) server.closeIdleConnections();
    const force = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
      for (const socket of this.#upgraded) socket.destroy();
    }, CLOSE_GRACE_MS);
    await Promise.all(closed).finally(() => clearTimeout(force));
    for (const socket of this.#upgraded) socket.destroy();
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#upgraded.add(socket);
    socket.once('close', () => this.#upgraded.delete(socket));
    this.onUpgrade?.(request, socket, head);
  }
}
