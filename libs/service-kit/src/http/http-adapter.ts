import { FastifyAdapter } from '@nestjs/platform-fastify';
import { InvalidArgument } from '@gantry/errors';
import type { FastifyServerOptions } from 'fastify';

/** Larger JSON bodies are an attack or a mistake: the largest container create is some 100 KiB. */
const JSON_LIMIT_BYTES = 4 * 1024 * 1024;

export interface HttpAdapterOptions {
  /** Changes a request's path before routing (an API version prefix). */
  readonly rewriteUrl?: FastifyServerOptions['rewriteUrl'];
  readonly jsonLimitBytes?: number;
}

/**
 * Fastify for Nest: JSON is parsed (an empty body is none), everything else reaches the handler as the untouched stream
 * `request.body`, so that tars and blobs pass with back-pressure and are never held in memory.
 */
export function createHttpAdapter(options: HttpAdapterOptions = {}): FastifyAdapter {
  const adapter = new FastifyAdapter({
    logger: false,
    // Blobs and contexts have no bound here; whoever reads them bounds them.
    bodyLimit: Number.MAX_SAFE_INTEGER,
    // Long streams (attach, logs, events, pushes) are the rule: only headers have to arrive in time.
    requestTimeout: 0,
    connectionTimeout: 0,
    keepAliveTimeout: 75_000,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 1024, caseSensitive: true },
    ...(options.rewriteUrl ? { rewriteUrl: options.rewriteUrl } : {}),
  });
  const fastify = adapter.getInstance();
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser(
    'application/json',
    { parseAs: 'string', bodyLimit: options.jsonLimitBytes ?? JSON_LIMIT_BYTES },
    (_request, body, done) => {
      if (body.length === 0) return done(null, undefined);
      try {
        done(null, JSON.parse(String(body)));
      } catch (error) {
        done(new InvalidArgument(`invalid JSON: ${(error as Error).message}`, {}, { cause: error }));
      }
    },
  );
  fastify.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  return adapter;
}
