import { Body, Controller, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { agent } from '@gantry/contracts';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { Clients } from '../../clients/clients.module.js';
import { parseBody } from '../query.js';
import { SpliceService } from '../stdio/splice.service.js';

const bool = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
const strings = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? []);
const CREATE = z.looseObject({
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  Tty: bool,
  Cmd: strings,
  Env: strings,
  User: text,
  WorkingDir: text,
  Privileged: bool,
  DetachKeys: text,
  ConsoleSize: z.array(z.number()).nullish(),
});
const START = z.looseObject({ Detach: bool, Tty: bool, ConsoleSize: z.array(z.number()).nullish() });

@Controller()
export class ExecController {
  constructor(
    @Inject(Clients) private readonly clients: Clients,
    @Inject(SpliceService) private readonly splice: SpliceService,
  ) {}

  @Post('containers/:id/exec')
  async create(@Param('id') id: string, @Body() body: unknown): Promise<unknown> {
    const exec = parseBody(CREATE, body);
    const created = await this.clients.execs.create(
      agent.CreateExecRequest.fromPartial({
        containerId: id,
        command: exec.Cmd,
        env: exec.Env,
        workingDir: exec.WorkingDir,
        user: exec.User,
        tty: exec.Tty,
        privileged: exec.Privileged,
        attachStdin: exec.AttachStdin,
        attachStdout: exec.AttachStdout,
        attachStderr: exec.AttachStderr,
        detachKeys: exec.DetachKeys,
        ...(exec.ConsoleSize?.[0]
          ? { consoleSize: { rows: exec.ConsoleSize[0], columns: exec.ConsoleSize[1] ?? 0 } }
          : {}),
      }),
    );
    return { Id: created.id };
  }

  @Post('exec/:id/start')
  @HttpCode(200)
  async start(
    @Param('id') id: string,
    @Body() body: unknown,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const start = parseBody(START, body);
    if (start.Detach) {
      await this.clients.execs.start({ id, consoleSize: undefined });
      await reply.status(200).send();
      return;
    }
    await this.clients.execs.inspect({ id });
    reply.hijack();
    await this.splice.exec(
      id,
      { ConsoleSize: start.ConsoleSize ?? null },
      request.raw,
      request.raw.socket,
      Buffer.alloc(0),
    );
  }

  @Post('exec/:id/resize')
  @HttpCode(200)
  async resize(@Param('id') id: string, @Query() { h, w }: Record<string, string>): Promise<void> {
    await this.clients.execs.resize({ id, rows: Number(h ?? 0), columns: Number(w ?? 0) });
  }

  @Get('exec/:id/json')
  async inspect(@Param('id') id: string): Promise<unknown> {
    const exec = await this.clients.execs.inspect({ id });
    const config = exec.config ?? agent.CreateExecRequest.fromPartial({});
    return {
      ID: exec.id,
      Running: exec.isRunning,
      ExitCode: exec.exitCode ?? null,
      ProcessConfig: {
        tty: config.tty,
        entrypoint: config.command[0] ?? '',
        arguments: config.command.slice(1),
        privileged: config.privileged,
        ...(config.user ? { user: config.user } : {}),
      },
      OpenStdin: config.attachStdin,
      OpenStderr: config.attachStderr,
      OpenStdout: config.attachStdout,
      CanRemove: exec.canRemove,
      ContainerID: exec.containerId,
      DetachKeys: '',
      Pid: exec.pid,
    };
  }
}
