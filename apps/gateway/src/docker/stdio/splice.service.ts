import { request, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { Inject, Injectable } from '@nestjs/common';
import { DomainError, isErrorCode } from '@gantry/errors';
import { Clients } from '../../clients/clients.module.js';
import { readText } from '../../clients/bulk.js';
import { speaksAtLeast, stripVersion } from '../api-version/api-version.js';
import { dockerError } from '../errors/docker.filter.js';
import { isTrue } from '../query.js';

const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';
const RAW = 'application/vnd.docker.raw-stream';
const ATTACH = /^\/containers\/([^/]+)\/attach$/;
const EXEC = /^\/exec\/([^/]+)\/start$/;
const MAX_BODY_BYTES = 64 * 1024;

/**
 * Hijacked connections: attach and exec. The agent's stream is Docker's own wire already, so the two sockets are joined and no byte is
 * looked at. A client asks in one of two ways: with `Upgrade: tcp` (101) or without (200 on the bare socket).
 */
@Injectable()
export class SpliceService {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  /** A request with `Upgrade`: it reaches no router. */
  accept(incoming: IncomingMessage, socket: Duplex, head: Buffer): void {
    const url = new URL(stripVersion(incoming), 'http://gateway');
    const attach = ATTACH.exec(url.pathname);
    const exec = EXEC.exec(url.pathname);
    socket.on('error', () => socket.destroy());
    const serve = async () => {
      if (attach) return this.attach(decodeURIComponent(attach[1] ?? ''), url.searchParams, incoming, socket, head);
      if (exec) {
        const { body, rest } = await readUpgradeBody(incoming, socket, head);
        return this.exec(exec[1] ?? '', JSON.parse(body || '{}') as ExecStart, incoming, socket, rest);
      }
      throw new DomainError('NotFound', 'page not found');
    };
    serve().catch((error: unknown) => refuse(socket, error));
  }

  async attach(
    id: string,
    query: URLSearchParams,
    incoming: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ): Promise<void> {
    const names = ['stdin', 'stdout', 'stderr', 'stream', 'logs'].filter((name) => isTrue(query.get(name)));
    const path = `/containers/${encodeURIComponent(id)}/attach?${names.map((name) => `${name}=1`).join('&')}`;
    await this.#join(path, incoming, socket, head);
  }

  async exec(id: string, start: ExecStart, incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const [rows = 0, columns = 0] = start.ConsoleSize ?? [];
    await this.#join(`/exec/${id}/start?rows=${rows}&cols=${columns}`, incoming, socket, head);
  }

  async #join(path: string, incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { upstream, first, tty } = await this.#open(path);
    const isUpgrade = incoming.headers.upgrade !== undefined;
    const type = tty || !speaksAtLeast(incoming, 42) ? RAW : MULTIPLEXED;
    socket.write(
      isUpgrade
        ? `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`
        : `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\n\r\n`,
    );
    if (head.length > 0) upstream.write(head);
    if (first.length > 0) socket.write(first);
    // Either side's end is passed on as a half-close: `echo x | docker run -i … cat` still reads its answer.
    upstream.pipe(socket, { end: true });
    socket.pipe(upstream, { end: true });
    upstream.on('error', () => socket.destroy());
    upstream.once('close', () => socket.end());
    socket.once('close', () => upstream.destroy());
  }

  #open(path: string): Promise<{ upstream: Duplex; first: Buffer; tty: boolean }> {
    return new Promise((resolve, reject) => {
      const call = request({
        socketPath: this.clients.httpSocket('agent'),
        path,
        method: 'POST',
        headers: { connection: 'Upgrade', upgrade: 'gantry-stdio' },
      });
      call.once('upgrade', (response, upstream, first) =>
        resolve({ upstream, first, tty: response.headers['gantry-tty'] === 'true' }),
      );
      call.once('response', (response) => {
        readText(response).then((text) => {
          const { code, message } = JSON.parse(text) as { code: string; message: string };
          reject(new DomainError(isErrorCode(code) ? code : 'Internal', message));
        }, reject);
      });
      call.once('error', reject);
      call.end();
    });
  }
}

export interface ExecStart {
  readonly Detach?: boolean;
  readonly Tty?: boolean;
  readonly ConsoleSize?: readonly number[] | null;
}

/** Node hands an upgrade over without its body; it stands at the head of the stream. */
async function readUpgradeBody(
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<{ body: string; rest: Buffer }> {
  const length = Math.min(Number(incoming.headers['content-length'] ?? 0), MAX_BODY_BYTES);
  let bytes = head;
  while (bytes.length < length) {
    const chunk = await new Promise<Buffer | undefined>((resolve) => {
      socket.once('data', (data: Buffer) => {
        socket.pause();
        resolve(data);
      });
      socket.once('end', () => resolve(undefined));
      socket.resume();
    });
    if (!chunk) break;
    bytes = Buffer.concat([bytes, chunk]);
  }
  return { body: bytes.subarray(0, length).toString(), rest: bytes.subarray(length) };
}

function refuse(socket: Duplex, error: unknown): void {
  const { status, message } = dockerError(error);
  const body = JSON.stringify({ message });
  socket.end(
    `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
