import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { Controller, Inject, Post, Query, Req, Res } from '@nestjs/common';
import { builder, type common } from '@gantry/contracts';
import { InvalidArgument } from '@gantry/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { bulk } from '../../clients/bulk.js';
import { Clients } from '../../clients/clients.module.js';
import { sendJsonLines } from '../json-lines.js';
import { isTrue } from '../query.js';
import { toBuildLines } from './build-text.js';

type Q = Record<string, string | string[] | undefined>;
const one = (value: string | string[] | undefined) => (Array.isArray(value) ? value[0] : value) ?? '';
const number = (value: string | string[] | undefined) => Number(one(value) || 0);

@Controller()
export class BuildController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @Post('build')
  async build(@Query() query: Q, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const submit = toSubmitRequest(query, parseConfigs(request.headers['x-registry-config']));
    const remote = one(query.remote);
    if (remote) {
      const [url = '', fragment = ''] = remote.split('#');
      const [ref = '', subdirectory = ''] = fragment.split(':');
      submit.source = { $case: 'git', value: { url, ref, subdirectory } };
    } else {
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
    const { id } = await this.clients.builds.submit(submit);
    const gone = () => void this.clients.builds.cancel({ id, reason: 'the client went away' }).catch(() => undefined); // it may have ended meanwhile
    request.raw.socket.once('close', gone);
    try {
      await sendJsonLines(reply, this.#lines(id, isTrue(one(query.q))));
    } finally {
      request.raw.socket.off('close', gone);
    }
  }

  async *#lines(id: string, isQuiet: boolean): AsyncGenerator<object> {
    for await (const entry of this.clients.builds.follow({ id, fromSequence: 0, follow: true })) {
      if (isQuiet) {
        if (entry.event?.$case === 'imageDone') yield { stream: `${entry.event.value.imageId}\n` };
        else if (entry.event?.$case === 'ended') yield* toBuildLines(entry);
      } else yield* toBuildLines(entry);
    }
  }
}

function json<T>(text: string, name: string, fallback: T): T {
  if (!text) return fallback;
  try {
    return (JSON.parse(text) as T | null) ?? fallback;
  } catch (error) {
    throw new InvalidArgument(`invalid ${name}: ${(error as Error).message}`);
  }
}

function parseConfigs(header: string | string[] | undefined): Record<string, common.RegistryCredentials> {
  if (!header || Array.isArray(header)) return {};
  const configs = json<Record<string, { username?: string; password?: string }>>(
    Buffer.from(header, 'base64url').toString(),
    'X-Registry-Config',
    {},
  );
  return Object.fromEntries(
    Object.entries(configs).map(([host, { username = '', password = '' }]) => [
      host,
      { username, password, identityToken: '', registryToken: '', serverAddress: host },
    ]),
  );
}

function toSubmitRequest(
  query: Q,
  credentials: Record<string, common.RegistryCredentials>,
): builder.SubmitBuildRequest {
  if (one(query.version) === '2')
    throw new InvalidArgument('BuildKit builds are not supported by this engine: set DOCKER_BUILDKIT=0');
  const args = json<Record<string, string | null>>(one(query.buildargs), 'buildargs', {});
  return builder.SubmitBuildRequest.fromPartial({
    dockerfile: one(query.dockerfile),
    tags: [query.t ?? []].flat(),
    buildArgs: Object.fromEntries(Object.entries(args).map(([name, value]) => [name, value === null ? {} : { value }])),
    labels: json<Record<string, string>>(one(query.labels), 'labels', {}),
    target: one(query.target),
    noCache: isTrue(one(query.nocache)),
    pull: isTrue(one(query.pull)),
    networkMode: one(query.networkmode),
    platform: one(query.platform),
    extraHosts: one(query.extrahosts) ? one(query.extrahosts).split(',') : [],
    limits: {
      memoryBytes: number(query.memory),
      memorySwapBytes: number(query.memswap),
      cpuShares: number(query.cpushares),
      cpuQuotaUs: number(query.cpuquota),
      cpuPeriodUs: number(query.cpuperiod),
      cpusetCpus: one(query.cpusetcpus),
      cpusetMems: one(query.cpusetmems),
      shmSizeBytes: number(query.shmsize),
    },
    priority: builder.BuildPriority.INTERACTIVE,
    ephemeral: true,
    credentials,
  });
}
