import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { Controller, Delete, Get, Headers, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBody, ApiConsumes, ApiOperation, ApiQuery, ApiResponse, ApiTags } from '@nestjs/swagger';
import { builder } from '@gantry/contracts';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { bulk } from '../../clients/bulk.js';
import { Clients } from '../../clients/clients.module.js';
import { toBuildLines } from '../../docker/build/build-text.js';
import { abortOnClose } from '../../docker/containers/containers.controller.js';
import { parseBody } from '../../docker/query.js';

const SUBMIT = z.object({
  git: z.object({ url: z.string(), ref: z.string().default(''), subdirectory: z.string().default('') }).optional(),
  dockerfile: z.string().default(''),
  tags: z.array(z.string()).default([]),
  buildArgs: z.record(z.string(), z.string()).default({}),
  labels: z.record(z.string(), z.string()).default({}),
  target: z.string().default(''),
  noCache: z.boolean().default(false),
  pull: z.boolean().default(false),
  push: z.boolean().default(false),
  project: z.string().default(''),
  timeoutSeconds: z.number().int().nonnegative().default(0),
  webhookUrl: z.string().default(''),
});

const STATUS = Object.fromEntries(
  Object.entries(builder.BuildStatus).map(([name, value]) => [value, name.toLowerCase()]),
);

function toBuildJson(build: builder.Build) {
  return {
    id: build.id,
    status: STATUS[build.status] ?? 'unknown',
    project: build.project,
    tags: build.tags,
    imageId: build.imageId || null,
    imageDigest: build.imageDigest || null,
    error: build.error || null,
    attempt: build.attempt,
    worker: build.worker || null,
    queuedAt: build.queuedAt,
    startedAt: build.startedAt || null,
    finishedAt: build.finishedAt || null,
  };
}

/** Builds as a CI job submits and follows them. */
@ApiTags('builds')
@Controller('api/v1/builds')
export class BuildsController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @Post()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Submit a build',
    description:
      'The body is a context tar (any compression) with options in the query, or JSON that names a Git repository.',
  })
  @ApiConsumes('application/x-tar', 'application/json')
  @ApiBody({ schema: { oneOf: [{ type: 'string', format: 'binary' }, z.toJSONSchema(SUBMIT) as object] } })
  @ApiQuery({ name: 'tag', required: false, isArray: true })
  @ApiResponse({ status: 202, description: 'The queued build' })
  async submit(
    @Query() query: Record<string, string | string[] | undefined>,
    @Req() request: FastifyRequest,
    @Headers('idempotency-key') key?: string,
  ): Promise<unknown> {
    const isJson = (request.headers['content-type'] ?? '').startsWith('application/json');
    const options = parseBody(SUBMIT, isJson ? request.body : fromQuery(query));
    const { git, buildArgs, ...rest } = options;
    const submit = builder.SubmitBuildRequest.fromPartial({
      ...rest,
      buildArgs: Object.fromEntries(Object.entries(buildArgs).map(([name, value]) => [name, { value }])),
      priority: builder.BuildPriority.BATCH,
      idempotencyKey: key ?? '',
    });
    if (git) submit.source = { $case: 'git', value: git };
    else {
      const contextId = randomUUID();
      const body = (request.body as Readable | undefined) ?? request.raw;
      await bulk({
        socketPath: this.clients.httpSocket('builder'),
        method: 'PUT',
        path: `/contexts/${contextId}`,
        body,
        headers: { 'content-type': 'application/x-tar' },
      });
      submit.source = { $case: 'contextId', value: contextId };
    }
    return toBuildJson(await this.clients.builds.submit(submit));
  }

  @Get()
  @ApiOperation({ summary: 'List builds, newest first' })
  async list(@Query('limit') limit?: string, @Query('project') project?: string): Promise<unknown> {
    const { builds } = await this.clients.builds.list({
      statuses: [],
      project: project ?? '',
      limit: Number(limit ?? 100),
      beforeId: '',
    });
    return builds.map(toBuildJson);
  }

  @Get(':id')
  @ApiOperation({ summary: 'One build' })
  async get(@Param('id') id: string): Promise<unknown> {
    return toBuildJson(await this.clients.builds.get({ id }));
  }

  @Delete(':id')
  @ApiOperation({ summary: 'Cancel a build that has not ended' })
  async cancel(@Param('id') id: string): Promise<unknown> {
    return toBuildJson(await this.clients.builds.cancel({ id, reason: 'cancelled by the API' }));
  }

  @Get(':id/log')
  @ApiOperation({
    summary: 'The log: server-sent events where they are accepted (resumed by Last-Event-ID), plain text else',
  })
  async log(
    @Param('id') id: string,
    @Headers('accept') accept: string | undefined,
    @Headers('last-event-id') last: string | undefined,
    @Query('follow') follow: string | undefined,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    await this.clients.builds.get({ id });
    const isEvents = (accept ?? '').includes('text/event-stream');
    const entries = this.clients.builds.follow(
      { id, fromSequence: Number(last ?? 0) + (last ? 1 : 0), follow: isEvents || follow === '1' },
      { signal: abortOnClose(request) },
    );
    reply.hijack();
    reply.raw.writeHead(200, {
      'Content-Type': isEvents ? 'text/event-stream' : 'text/plain; charset=utf-8',
      'Cache-Control': 'no-cache',
    });
    for await (const entry of entries) {
      const text = toBuildLines(entry)
        .map((line) =>
          'stream' in line ? String(line.stream) : 'error' in line ? `ERROR: ${String(line.error)}\n` : '',
        )
        .join('');
      if (!isEvents) reply.raw.write(text);
      else if (entry.event?.$case === 'ended')
        reply.raw.write(
          `id: ${entry.sequence}\nevent: end\ndata: ${JSON.stringify({ status: STATUS[entry.event.value.status], error: entry.event.value.error || null })}\n\n`,
        );
      else if (text) reply.raw.write(`id: ${entry.sequence}\nevent: log\ndata: ${JSON.stringify(text)}\n\n`);
    }
    reply.raw.end();
  }
}

function fromQuery(query: Record<string, string | string[] | undefined>): unknown {
  const one = (name: string) => [query[name]].flat()[0];
  const args = [query.buildArg ?? []]
    .flat()
    .map((pair) => [pair.split('=', 1)[0] ?? '', pair.slice(pair.indexOf('=') + 1)]);
  return {
    dockerfile: one('dockerfile'),
    tags: [query.tag ?? []].flat(),
    target: one('target'),
    project: one('project'),
    noCache: one('noCache') === 'true',
    pull: one('pull') === 'true',
    push: one('push') === 'true',
    buildArgs: Object.fromEntries(args) as Record<string, string>,
  };
}
