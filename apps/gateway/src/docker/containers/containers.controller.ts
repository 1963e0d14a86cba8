import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { agent } from '@gantry/contracts';
import { InvalidArgument } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { bulk } from '../../clients/bulk.js';
import { Clients } from '../../clients/clients.module.js';
import { speaksAtLeast } from '../api-version/api-version.js';
import { isTrue, parseBody, parseFilters } from '../query.js';
import { SpliceService } from '../stdio/splice.service.js';
import { toContainerJson, toStatsJson, toSummaryJson } from './container-json.js';
import { CREATE_CONTAINER, toCreateRequest } from './container-request.js';

type Q = Record<string, string | undefined>;

/** A stop may wait as long as its caller wants; the agent's own bound ends it. */
const NO_DEADLINE_MS = 24 * 3600 * 1000;
const CONDITIONS: Readonly<Record<string, agent.WaitCondition>> = {
  '': agent.WaitCondition.NOT_RUNNING,
  'not-running': agent.WaitCondition.NOT_RUNNING,
  'next-exit': agent.WaitCondition.NEXT_EXIT,
  removed: agent.WaitCondition.REMOVED,
};

const seconds = (text: string | undefined) => {
  if (text === undefined || text === '') return undefined;
  if (!/^-?\d+$/.test(text)) throw new InvalidArgument(`strconv.Atoi: parsing "${text}": invalid syntax`);
  return Number(text);
};

@Controller('containers')
export class ContainersController {
  constructor(
    @Inject(Clients) private readonly clients: Clients,
    @Inject(SpliceService) private readonly splice: SpliceService,
  ) {}

  @Get('json')
  async list(@Query() query: Q): Promise<unknown> {
    const { containers } = await this.clients.containers.list({
      all: isTrue(query.all),
      limit: Number(query.limit ?? 0),
      size: isTrue(query.size),
      filters: parseFilters(query.filters),
    });
    return containers.map(toSummaryJson);
  }

  @Post('create')
  async create(@Query() query: Q, @Body() body: unknown): Promise<unknown> {
    const request = toCreateRequest(parseBody(CREATE_CONTAINER, body), query.name ?? '', query.platform ?? '');
    const { id, warnings } = await this.clients.containers.create(request, { deadline: 10 * 60_000 });
    return { Id: id, Warnings: warnings };
  }

  @Get(':id/json')
  async inspect(@Param('id') id: string, @Query() query: Q): Promise<unknown> {
    return toContainerJson(await this.clients.containers.inspect({ id, size: isTrue(query.size) }));
  }

  @Post(':id/start')
  @HttpCode(204)
  async start(@Param('id') id: string): Promise<void> {
    await this.clients.containers.start({ id }, { deadline: 120_000 });
  }

  @Post(':id/stop')
  @HttpCode(204)
  async stop(@Param('id') id: string, @Query() query: Q): Promise<void> {
    await this.clients.containers.stop(
      { id, signal: query.signal ?? '', timeoutSeconds: seconds(query.t) },
      { deadline: NO_DEADLINE_MS },
    );
  }

  @Post(':id/restart')
  @HttpCode(204)
  async restart(@Param('id') id: string, @Query() query: Q): Promise<void> {
    await this.clients.containers.restart(
      { id, signal: query.signal ?? '', timeoutSeconds: seconds(query.t) },
      { deadline: NO_DEADLINE_MS },
    );
  }

  @Post(':id/kill')
  @HttpCode(204)
  async kill(@Param('id') id: string, @Query('signal') signal?: string): Promise<void> {
    await this.clients.containers.kill({ id, signal: signal ?? '' });
  }

  @Post(':id/pause')
  @HttpCode(204)
  async pause(@Param('id') id: string): Promise<void> {
    await this.clients.containers.pause({ id });
  }

  @Post(':id/unpause')
  @HttpCode(204)
  async unpause(@Param('id') id: string): Promise<void> {
    await this.clients.containers.unpause({ id });
  }

  @Post(':id/rename')
  @HttpCode(204)
  async rename(@Param('id') id: string, @Query('name') name?: string): Promise<void> {
    await this.clients.containers.rename({ id, name: name ?? '' });
  }

  @Post(':id/resize')
  @HttpCode(200)
  async resize(@Param('id') id: string, @Query() { h, w }: Q): Promise<void> {
    await this.clients.containers.resize({ id, rows: seconds(h) ?? 0, columns: seconds(w) ?? 0 });
  }

  @Delete(':id')
  @HttpCode(204)
  async remove(@Param('id') id: string, @Query() query: Q): Promise<void> {
    await this.clients.containers.remove(
      { id, force: isTrue(query.force), volumes: isTrue(query.v), link: isTrue(query.link) },
      { deadline: 120_000 },
    );
  }

  @Get(':id/top')
  async top(@Param('id') id: string, @Query('ps_args') psArgs?: string): Promise<unknown> {
    const { titles, processes } = await this.clients.containers.top({ id, psArgs: psArgs ? [psArgs] : [] });
    return { Titles: titles, Processes: processes.map(({ values }) => values) };
  }

  /** The headers are sent when the wait is registered: the CLI starts the container only then. */
  @Post(':id/wait')
  async wait(
    @Param('id') id: string,
    @Query('condition') text: string | undefined,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const condition = CONDITIONS[text ?? ''];
    if (condition === undefined) throw new InvalidArgument(`invalid condition: "${text}"`);
    const gone = abortOnClose(request);
    for await (const { event } of this.clients.containers.wait({ id, condition }, { signal: gone })) {
      if (event?.$case === 'registered') {
        reply.hijack();
        reply.raw.writeHead(200, { 'Content-Type': 'application/json' });
        reply.raw.flushHeaders();
      } else if (event?.$case === 'exited') {
        const { exitCode, error } = event.value;
        reply.raw.end(`${JSON.stringify({ StatusCode: exitCode, ...(error ? { Error: { Message: error } } : {}) })}\n`);
      }
    }
  }

  @Get(':id/logs')
  async logs(
    @Param('id') id: string,
    @Query() query: Q,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const flags = ['stdout', 'stderr', 'follow', 'timestamps']
      .filter((name) => isTrue(query[name]))
      .map((name) => `${name}=1`);
    const values = ['tail', 'since', 'until']
      .filter((name) => query[name])
      .map((name) => `${name}=${encodeURIComponent(query[name] ?? '')}`);
    const response = await bulk({
      socketPath: this.clients.httpSocket('agent'),
      method: 'GET',
      path: `/containers/${encodeURIComponent(id)}/logs?${[...flags, ...values].join('&')}`,
      signal: abortOnClose(request),
    });
    const isRaw = response.headers['gantry-tty'] === 'true' || !speaksAtLeast(request.raw, 42);
    await reply
      .header('Content-Type', isRaw ? 'application/vnd.docker.raw-stream' : 'application/vnd.docker.multiplexed-stream')
      .send(response);
  }

  /** Without `Upgrade`: the answer is written on the bare socket. */
  @Post(':id/attach')
  async attach(@Param('id') id: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const query = new URL(request.url, 'http://gateway').searchParams;
    await this.clients.containers.inspect({ id });
    reply.hijack();
    await this.splice.attach(id, query, request.raw, request.raw.socket, Buffer.alloc(0));
  }

  @Get(':id/stats')
  async stats(
    @Param('id') id: string,
    @Query() query: Q,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const stream = query.stream === undefined || isTrue(query.stream);
    const samples = this.clients.containers
      .stats({ id, stream, oneShot: isTrue(query['one-shot']) }, { signal: abortOnClose(request) })
      [Symbol.asyncIterator]();
    let before: agent.StatsSample | undefined;
    const first = await samples.next();
    if (first.done) return;
    if (!stream) {
      const second = isTrue(query['one-shot']) ? undefined : await samples.next();
      await reply.send(
        second && !second.done ? toStatsJson(second.value, first.value) : toStatsJson(first.value, undefined),
      );
      return;
    }
    reply.hijack();
    reply.raw.writeHead(200, { 'Content-Type': 'application/json' });
    for (let step: IteratorResult<agent.StatsSample, unknown> = first; !step.done; step = await samples.next()) {
      reply.raw.write(`${JSON.stringify(toStatsJson(step.value, before))}\n`);
      before = step.value;
    }
    reply.raw.end();
  }

  @Post('prune')
  @HttpCode(200)
  async prune(@Query('filters') filters?: string): Promise<unknown> {
    const { deleted, spaceReclaimed } = await this.clients.containers.prune(
      { filters: parseFilters(filters) },
      { deadline: 300_000 },
    );
    return { ContainersDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: spaceReclaimed };
  }
}

/** Cancels what is done for a client when the client goes away. */
export function abortOnClose(request: FastifyRequest): AbortSignal {
  const gone = new AbortController();
  request.raw.socket.once('close', () => gone.abort());
  return gone.signal;
}
