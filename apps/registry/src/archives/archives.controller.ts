import { Controller, Get, Inject, Post, Query, Req, Res } from '@nestjs/common';
import { PassThrough, type Readable } from 'node:stream';
import { asDomainError, HTTP_STATUS, InvalidArgument } from '@gantry/errors';
import { parsePlatform } from '@gantry/oci';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { BlobStore } from '../blobs/blob-store.js';
import { parseDigest } from '@gantry/oci';
import { ArchivesService } from './archives.service.js';

type Many = string | readonly string[] | undefined;
const list = (value: Many): string[] => (value === undefined ? [] : typeof value === 'string' ? [value] : [...value]);

/** Bulk bytes for the platform's own services, on the registry's private socket (see images.proto). */
@Controller()
export class ArchivesController {
  constructor(
    @Inject(ArchivesService) private readonly archives: ArchivesService,
    @Inject(BlobStore) private readonly blobs: BlobStore,
  ) {}

  @Get('blobs/:digest')
  async blob(
    @Req() request: FastifyRequest<{ Params: { digest: string } }>,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    await answer(reply, async () =>
      reply
        .header('Content-Type', 'application/octet-stream')
        .send(await this.blobs.read(parseDigest(request.params.digest))),
    );
  }

  @Post('blobs')
  async putBlob(
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
    @Query('digest') digest?: string,
  ): Promise<void> {
    await answer(reply, async () => {
      const stored = await this.blobs.write(bodyOf(request), digest ? { expected: parseDigest(digest) } : {});
      await reply.status(201).send(stored);
    });
  }

  @Post('images/load')
  async load(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.#lines(reply, async (write) => {
      for (const { id, references } of await this.archives.load(bodyOf(request))) {
        if (references.length === 0) write({ loaded: { imageId: id } });
        for (const reference of references) write({ loaded: { reference, imageId: id } });
      }
    });
  }

  @Get('images/save')
  async save(@Query('reference') references: Many, @Res() reply: FastifyReply): Promise<void> {
    await answer(reply, async () => {
      const wanted = list(references);
      if (wanted.length === 0) throw new InvalidArgument('no image to save');
      await reply.header('Content-Type', 'application/x-tar').send(this.archives.save(wanted));
    });
  }

  @Post('images/import')
  async import(
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
    @Query() query: { reference?: string; message?: string; change?: Many; platform?: string },
  ): Promise<void> {
    await answer(reply, async () => {
      const image = await this.archives.import(bodyOf(request), {
        reference: query.reference || undefined,
        message: query.message ?? '',
        changes: list(query.change),
        platform: query.platform ? parsePlatform(query.platform) : undefined,
      });
      await reply.send({ imageId: image.row.id });
    });
  }

  async #lines(reply: FastifyReply, body: (write: (line: unknown) => void) => Promise<void>): Promise<void> {
    const lines = new PassThrough();
    const write = (line: unknown) => lines.write(`${JSON.stringify(line)}\n`);
    body(write)
      .catch((error: unknown) => {
        const { code, message } = asDomainError(error);
        write({ error: { code, message } });
      })
      .finally(() => lines.end());
    await reply.header('Content-Type', 'application/x-ndjson').send(lines);
  }
}

function bodyOf(request: FastifyRequest): Readable {
  return (request.body as Readable | undefined) ?? request.raw;
}

/** Errors before the first byte, as every bulk route of the platform has them. */
async function answer(reply: FastifyReply, body: () => Promise<unknown>): Promise<void> {
  try {
    await body();
  } catch (error) {
    const { code, message, details } = asDomainError(error);
    if (!reply.sent) await reply.status(HTTP_STATUS[code]).send({ code, message, details });
  }
}
