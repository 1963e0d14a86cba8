import type { Readable } from 'node:stream';
import { Controller, Inject, Param, Put, Req, Res } from '@nestjs/common';
import { asDomainError, HTTP_STATUS } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ContextStore } from './context-store.js';

@Controller()
export class ContextsController {
  constructor(@Inject(ContextStore) private readonly contexts: ContextStore) {}

  @Put('contexts/:id')
  async put(@Param('id') id: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    try {
      await this.contexts.put(id, (request.body as Readable | undefined) ?? request.raw);
      await reply.status(201).send({ id });
    } catch (error) {
      const { code, message } = asDomainError(error);
      await reply.status(HTTP_STATUS[code]).send({ code, message });
    }
  }
}
