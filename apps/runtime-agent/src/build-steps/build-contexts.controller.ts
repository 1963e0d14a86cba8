import type { Readable } from 'node:stream';
import { Controller, Delete, Inject, Param, Put, Req, Res } from '@nestjs/common';
import { decompress } from '@gantry/layers';
import { asDomainError, HTTP_STATUS } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { BuildStepsService } from './build-steps.service.js';

@Controller()
export class BuildContextsController {
  constructor(@Inject(BuildStepsService) private readonly steps: BuildStepsService) {}

  @Put('build-contexts/:id')
  async put(@Param('id') id: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    try {
      const body = (request.body as Readable | undefined) ?? request.raw;
      await reply.status(201).send(await this.steps.putContext(id, await decompress(body)));
    } catch (error) {
      const { code, message } = asDomainError(error);
      await reply.status(HTTP_STATUS[code]).send({ code, message });
    }
  }

  @Delete('build-contexts/:id')
  async delete(@Param('id') id: string, @Res() reply: FastifyReply): Promise<void> {
    await this.steps.deleteContext(id);
    await reply.status(204).send();
  }
}
