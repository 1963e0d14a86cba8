import { Catch, HttpException, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import { asDomainError, DomainError, HTTP_STATUS } from '@gantry/errors';
import type { Logger } from '@gantry/service-kit';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** Status and sentence of an error, as Docker's clients know them. */
export function dockerError(error: unknown): { status: number; message: string } {
  if (error instanceof HttpException) {
    const status = error.getStatus();
    return { status, message: status === 404 ? 'page not found' : error.message };
  }
  const fastify = error as { statusCode?: number; message?: string };
  if (!(error instanceof DomainError) && fastify.statusCode && fastify.statusCode < 500)
    return { status: fastify.statusCode, message: fastify.message ?? '' };
  const domain = asDomainError(error);
  // Docker knows neither 504 nor 507: what failed on the engine's side is 500 there.
  const status = HTTP_STATUS[domain.code];
  return {
    status: domain.code === 'ResourceExhausted' || domain.code === 'DeadlineExceeded' ? 500 : status,
    message: domain.message,
  };
}

/** The one place where errors become answers: Docker's `{"message"}`, or RFC 9457 below /api. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  async catch(error: unknown, host: ArgumentsHost): Promise<void> {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const { status, message } = dockerError(error);
    if (status >= 500) this.logger.error({ err: error, url: request.url }, 'request failed');
    if (reply.sent || reply.raw.headersSent) {
      reply.raw.destroy(); // too late for a status: a cut stream is at least no success
      return;
    }
    if (status === 304) {
      await reply.status(304).send();
      return;
    }
    if (request.url.startsWith('/api/')) {
      const body = { type: 'about:blank', title: asDomainError(error).code, status, detail: message };
      await reply
        .status(status)
        .header('Content-Type', 'application/problem+json')
        .send(Buffer.from(JSON.stringify(body)));
      return;
    }
    await reply
      .status(status)
      .header('Content-Type', 'application/json')
      .send(Buffer.from(JSON.stringify({ message })));
  }
}
