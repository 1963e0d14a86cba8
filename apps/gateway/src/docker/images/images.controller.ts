import type { Readable } from 'node:stream';
import { Controller, Delete, Get, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import type { registry } from '@gantry/contracts';
import { InvalidArgument, NotFound } from '@gantry/errors';
import { formatFamiliar, parsePlatform, parseReference } from '@gantry/oci';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { bulk, readText } from '../../clients/bulk.js';
import { Clients } from '../../clients/clients.module.js';
import { abortOnClose } from '../containers/containers.controller.js';
import { sendJsonLines } from '../json-lines.js';
import { isTrue, parseCredentials, parseFilters } from '../query.js';
import { toHistory, toImageInspect, toImageSummary } from './image-json.js';

type Q = Record<string, string | undefined>;

/** Image names hold slashes: their routes end with what is asked of them. */
@Controller()
export class ImagesController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @Get('images/json')
  async list(@Query() query: Q): Promise<unknown> {
    const filters = parseFilters(query.filters);
    // `filter` is what clients before 1.27 sent for a name.
    if (query.filter) filters.byKey.reference = { values: [query.filter] };
    const { images } = await this.clients.images.list({ all: isTrue(query.all), filters });
    return images.map((image) => toImageSummary(image));
  }

  @Get('images/search')
  search(): never {
    throw new NotFound('registry', 'search', 'this engine is connected to no registry that can be searched');
  }

  @Get('images/get')
  async saveMany(
    @Query('names') names: string | string[] | undefined,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    await this.#save(names === undefined ? [] : Array.isArray(names) ? names : names.split(','), request, reply);
  }

  @Get('images/*')
  async getOne(
    @Param('*') path: string,
    @Query() query: Q,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const { name, action } = splitName(path);
    if (action === 'get') return this.#save([name], request, reply);
    const platform = query.platform?.startsWith('{') ? undefined : query.platform;
    const image = await this.clients.images.resolve({
      reference: name,
      platform: platform ? toPlatform(platform) : undefined,
    });
    if (action === 'json') await reply.send(toImageInspect(image));
    else if (action === 'history') await reply.send(toHistory(image, new Map()));
    else throw new NotFound('page', path, 'page not found');
  }

  /** Pull (`fromImage`) or import (`fromSrc=-`). */
  @Post('images/create')
  async create(@Query() query: Q, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    if (query.fromSrc) return this.#import(query, request, reply);
    if (!query.fromImage) throw new InvalidArgument('repository name must have at least one component');
    const reference = withTag(query.fromImage, query.tag);
    const progress = this.clients.images.pull(
      {
        reference,
        allTags: false,
        platform: query.platform ? toPlatform(query.platform) : undefined,
        credentials: parseCredentials(request.headers['x-registry-auth']),
      },
      { signal: abortOnClose(request) },
    );
    await sendJsonLines(reply, mapLines(progress));
  }

  @Post('images/load')
  async load(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const response = await bulk({
      socketPath: this.clients.httpSocket('registry'),
      method: 'POST',
      path: '/images/load',
      body: bodyOf(request),
      headers: { 'content-type': 'application/x-tar' },
    });
    const events = (await readText(response))
      .trim()
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as LoadEvent);
    const failure = events.find((event) => event.error)?.error;
    // Nothing has been sent yet, so that a bad archive is a status and not only a line.
    if (failure) throw new InvalidArgument(failure.message);
    const lines = events.flatMap(({ loaded }) =>
      loaded
        ? [
            {
              stream: loaded.reference ? `Loaded image: ${loaded.reference}\n` : `Loaded image ID: ${loaded.imageId}\n`,
            },
          ]
        : [],
    );
    await sendJsonLines(reply, asAsync(lines));
  }

  @Post('images/prune')
  async prune(@Query('filters') filters: string | undefined, @Res() reply: FastifyReply): Promise<void> {
    const { removed, spaceReclaimed } = await this.clients.images.prune(
      { filters: parseFilters(filters), inUse: await this.#inUse() },
      { deadline: 300_000 },
    );
    await reply
      .status(200)
      .send({ ImagesDeleted: removed.length > 0 ? removed.map(toRemoved) : null, SpaceReclaimed: spaceReclaimed });
  }

  @Post('images/*')
  async postOne(
    @Param('*') path: string,
    @Query() query: Q,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const { name, action } = splitName(path);
    if (action === 'tag') {
      if (!query.repo) throw new InvalidArgument('repository name must have at least one component');
      await this.clients.images.tag({ source: name, target: withTag(query.repo, query.tag) });
      await reply.status(201).send();
    } else if (action === 'push') {
      const progress = this.clients.images.push(
        {
          reference: withTag(name, query.tag),
          allTags: !query.tag,
          credentials: parseCredentials(request.headers['x-registry-auth']),
          platform: undefined,
        },
        { signal: abortOnClose(request) },
      );
      await sendJsonLines(reply, mapLines(progress));
    } else throw new NotFound('page', path, 'page not found');
  }

  @Delete('images/*')
  async remove(@Param('*') name: string, @Query() query: Q, @Res() reply: FastifyReply): Promise<void> {
    const { removed } = await this.clients.images.remove({
      reference: decodeURIComponent(name),
      force: isTrue(query.force),
      noPrune: isTrue(query.noprune),
      inUse: await this.#inUse(),
    });
    await reply.status(200).send(removed.map(toRemoved));
  }

  @Get('distribution/*')
  async distribution(
    @Param('*') path: string,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const { name } = splitName(path);
    const { descriptor, platforms } = await this.clients.images.inspectRemote({
      reference: name,
      credentials: parseCredentials(request.headers['x-registry-auth']),
    });
    await reply.send({
      Descriptor: {
        mediaType: descriptor?.mediaType ?? '',
        digest: descriptor?.digest ?? '',
        size: descriptor?.size ?? 0,
      },
      Platforms: platforms.map(({ os, architecture, variant }) => ({
        os,
        architecture,
        ...(variant ? { variant } : {}),
      })),
    });
  }

  async #import(query: Q, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    if (query.fromSrc !== '-')
      throw new InvalidArgument(`import from ${query.fromSrc} is not possible: send the archive as the request's body`);
    const parameters = new URLSearchParams();
    if (query.repo) parameters.set('reference', withTag(query.repo, query.tag));
    if (query.message) parameters.set('message', query.message);
    if (query.platform) parameters.set('platform', query.platform);
    for (const change of [query.changes as string | string[] | undefined].flat())
      if (change) parameters.append('change', change);
    const response = await bulk({
      socketPath: this.clients.httpSocket('registry'),
      method: 'POST',
      path: `/images/import?${parameters.toString()}`,
      body: bodyOf(request),
      headers: { 'content-type': 'application/x-tar' },
    });
    const { imageId } = JSON.parse(await readText(response)) as { imageId: string };
    await sendJsonLines(reply, asAsync([{ status: imageId }]));
  }

  async #save(names: readonly string[], request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const query = names.map((name) => `reference=${encodeURIComponent(name)}`).join('&');
    const response = await bulk({
      socketPath: this.clients.httpSocket('registry'),
      method: 'GET',
      path: `/images/save?${query}`,
      signal: abortOnClose(request),
    });
    await reply.header('Content-Type', 'application/x-tar').send(response);
  }

  async #inUse(): Promise<registry.ImageUse[]> {
    return (await this.clients.containers.imagesInUse({})).images;
  }
}

interface LoadEvent {
  readonly loaded?: { readonly reference?: string; readonly imageId: string };
  readonly error?: { readonly code: string; readonly message: string };
}

function bodyOf(request: FastifyRequest): Readable {
  return (request.body as Readable | undefined) ?? request.raw;
}

/** `library/busybox:1/json` → name and what is asked of it. */
function splitName(path: string): { name: string; action: string } {
  const slash = path.lastIndexOf('/');
  return { name: decodeURIComponent(path.slice(0, slash)), action: path.slice(slash + 1) };
}

/** A name with its tag or digest, which clients send apart. */
function withTag(name: string, tag: string | undefined): string {
  if (!tag) return formatFamiliar(parseReference(name));
  return tag.includes(':') ? `${name}@${tag}` : formatFamiliar(parseReference(`${name.replace(/@.*$/, '')}:${tag}`));
}

function toPlatform(text: string) {
  const { os, architecture, variant } = parsePlatform(text);
  return { os, architecture, variant: variant ?? '' };
}

function toRemoved({ untagged, deleted }: registry.RemovedImage) {
  return untagged ? { Untagged: untagged } : { Deleted: deleted };
}

async function* mapLines(progress: AsyncIterable<registry.TransferProgress>): AsyncGenerator<unknown> {
  for await (const { id, status, current, total, pushed } of progress) {
    const detail = total > 0 ? { current, total } : {};
    yield { status, ...(id || total > 0 ? { progressDetail: detail } : {}), ...(id ? { id } : {}) };
    if (pushed) yield { progressDetail: {}, aux: { Tag: pushed.tag, Digest: pushed.digest, Size: pushed.size } };
  }
}

// eslint-disable-next-line @typescript-eslint/require-await -- a list as what a stream is
async function* asAsync<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
