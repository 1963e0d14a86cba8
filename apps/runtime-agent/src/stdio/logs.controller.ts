import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import { agent } from '@gantry/contracts';
import { asDomainError, HTTP_STATUS, InvalidArgument } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { isRunning } from '../containers/container.js';
import { ContainersService } from '../containers/containers.service.js';
import { readLog } from '../logs/log-reader.js';

/** `GET /containers/{id}/logs`: frames, or raw bytes of a terminal; the header `Gantry-Tty` says which. */
@Controller()
export class LogsController {
  constructor(@Inject(ContainersService) private readonly containers: ContainersService) {}

  @Get('containers/:id/logs')
  async logs(
    @Req() request: FastifyRequest<{ Params: { id: string }; Querystring: Record<string, string> }>,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    try {
      const record = this.containers.resolve(request.params.id);
      const { stdout, stderr, follow, tail = 'all', since = '', until = '', timestamps } = request.query;
      if (stdout !== '1' && stderr !== '1')
        throw new InvalidArgument('Bad parameters: you must choose at least one stream');
      const tty = record.config.process?.tty ?? false;
      const gone = new AbortController();
      request.raw.socket.once('close', () => gone.abort());
      const running = isRunning(record);
      const ended = running
        ? this.containers.wait(record.id, agent.WaitCondition.NOT_RUNNING, gone.signal, () => undefined)
        : Promise.resolve();
      const lines = readLog(
        join(this.containers.directory(record.id), 'log'),
        {
          stdout: stdout === '1',
          stderr: stderr === '1',
          follow: follow === '1' && running,
          tail: /^\d+$/.test(tail) ? Number(tail) : undefined,
          sinceNs: nanoseconds(since),
          untilNs: nanoseconds(until),
          timestamps: timestamps === '1',
          raw: tty,
        },
        ended,
        gone.signal,
      );
      const output = Readable.from(lines, { objectMode: false, highWaterMark: 1024 * 1024 }).pipe(
        new PassThrough({ highWaterMark: 1024 * 1024 }),
      );
      await reply.header('Gantry-Tty', String(tty)).header('Content-Type', 'application/octet-stream').send(output);
    } catch (error) {
      const { code, message, details } = asDomainError(error);
      if (!reply.sent) await reply.status(HTTP_STATUS[code]).send({ code, message, details });
    }
  }
}

/** Unix seconds with a fraction, or RFC 3339. 0: none. */
function nanoseconds(text: string): bigint {
  if (text === '' || text === '0') return 0n;
  if (/^\d+(\.\d+)?$/.test(text)) {
    const [seconds = '0', fraction = ''] = text.split('.');
    return BigInt(seconds) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9));
  }
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new InvalidArgument(`invalid value for "since" or "until": ${text}`);
  return BigInt(ms) * 1_000_000n;
}
