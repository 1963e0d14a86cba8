import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { finished, type Duplex } from 'node:stream';
import { Inject, Injectable } from '@nestjs/common';
import { asDomainError, DomainError, HTTP_STATUS, NotFound } from '@gantry/errors';
import { encodeFrame, FrameType, type ShimStream } from '@gantry/linux';
import { isRunning } from '../containers/container.js';
import { ContainersService } from '../containers/containers.service.js';
import { ExecService } from '../exec/exec.service.js';
import { readLog } from '../logs/log-reader.js';

const ROUTE = /^\/(containers|exec)\/([^/]+)\/(attach|start)$/;

/** Connections that become a process's standard streams: attach and exec (`Upgrade: gantry-stdio`). */
@Injectable()
export class UpgradeService {
  constructor(
    @Inject(ContainersService) private readonly containers: ContainersService,
    @Inject(ExecService) private readonly execs: ExecService,
  ) {}

  accept(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const url = new URL(request.url ?? '', 'http://agent');
    const [, kind, id = '', action] = ROUTE.exec(url.pathname) ?? [];
    if (head.length > 0) socket.unshift(head);
    // A client that vanishes is no error of ours.
    socket.on('error', () => socket.destroy());
    const serve =
      kind === 'containers' && action === 'attach'
        ? this.#attach(id, url.searchParams, socket)
        : kind === 'exec' && action === 'start'
          ? this.#exec(id, url.searchParams, socket)
          : Promise.reject(new NotFound('route', url.pathname));
    serve.catch((error: unknown) => refuse(socket, error));
  }

  async #attach(id: string, query: URLSearchParams, socket: Duplex): Promise<void> {
    const record = this.containers.resolve(decodeURIComponent(id));
    const wants = (name: string) => query.get(name) === '1';
    const tty = record.config.process?.tty ?? false;
    // Attached before the start: the streams are joined when the process is there.
    if (!isRunning(record) && record.state.status !== 'created') {
      begin(socket, tty);
      if (wants('logs')) await this.#replay(record.id, tty, wants, socket);
      socket.end();
      return;
    }
    begin(socket, tty);
    if (wants('logs')) await this.#replay(record.id, tty, wants, socket);
    if (!wants('stream')) {
      socket.end();
      return;
    }
    const stream = await this.containers.attachWhenRunning(
      record,
      { stdin: wants('stdin'), stdout: wants('stdout'), stderr: wants('stderr'), raw: tty },
      socket,
    );
    if (stream) splice(socket, stream, wants('stdin'));
    else socket.end();
  }

  async #exec(id: string, query: URLSearchParams, socket: Duplex): Promise<void> {
    const rows = Number(query.get('rows') ?? 0);
    const columns = Number(query.get('cols') ?? 0);
    const tty = this.execs.hasTty(id);
    let stream: ShimStream;
    try {
      ({ stream } = await this.execs.start(id, rows && columns ? { rows, columns } : undefined));
    } catch (error) {
      if (!(error instanceof DomainError) || error.details.exitCode === undefined) throw error;
      // As Docker: the reason comes on the stream, and the exit code (126, 127) by inspecting the exec.
      const text = Buffer.from(`${error.message}\r\n`);
      begin(socket, tty);
      socket.end(tty ? text : encodeFrame(FrameType.stdout, text));
      return;
    }
    begin(socket, tty);
    splice(socket, stream, true);
  }

  async #replay(id: string, tty: boolean, wants: (name: string) => boolean, socket: Duplex): Promise<void> {
    const options = {
      stdout: wants('stdout'),
      stderr: wants('stderr'),
      follow: false,
      tail: undefined,
      sinceNs: 0n,
      untilNs: 0n,
      timestamps: false,
      raw: tty,
    };
    for await (const chunk of readLog(
      join(this.containers.directory(id), 'log'),
      options,
      Promise.resolve(),
      new AbortController().signal,
    )) {
      if (!socket.write(chunk)) await new Promise<void>((resolve) => socket.once('drain', resolve));
    }
  }
}

function begin(socket: Duplex, tty: boolean): void {
  socket.write(`HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: gantry-stdio\r\nGantry-Tty: ${tty}\r\n\r\n`);
}

/** Output ends the connection's writing side after its last byte; the client's half-close is end of input. */
function splice(socket: Duplex, stream: ShimStream, takesInput: boolean): void {
  stream.pipe(socket, { end: true });
  if (takesInput) socket.pipe(stream, { end: true });
  else socket.resume();
  stream.exited.catch(() => undefined); // the stream ends all the same
  finished(stream, { writable: false }, () => socket.end());
  socket.once('close', () => stream.destroy());
}

function refuse(socket: Duplex, error: unknown): void {
  const { code, message, details } = asDomainError(error);
  const body = JSON.stringify({ code, message, details });
  socket.end(
    `HTTP/1.1 ${HTTP_STATUS[code]} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
