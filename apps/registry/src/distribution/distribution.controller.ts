import { All, Controller, Inject, Req, Res } from '@nestjs/common';
import { finished } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import { asDomainError, HTTP_STATUS } from '@gantry/errors';
import { isDigest, MediaType, type Digest } from '@gantry/oci';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { BlobStore } from '../blobs/blob-store.js';
import { UploadStore } from '../blobs/upload-store.js';
import { blobUnknown, DistributionError, RepositoriesService } from './repositories.service.js';

type Params = Record<string, string>;
type Handler = (request: FastifyRequest, reply: FastifyReply, params: Params) => Promise<unknown>;

const NAME = '(?<name>[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*)*)';
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** OCI Distribution 1.1. `#routes` is the specification's table of endpoints (§"Endpoints"). */
@Controller()
export class DistributionController {
  readonly #routes: readonly [method: string, path: RegExp, handler: Handler][] = [
    [
      'GET',
      /^\/v2\/?$/,
      (_request, reply) => Promise.resolve(reply.header('Docker-Distribution-Api-Version', 'registry/2.0').send({})),
    ],
    ['GET', /^\/v2\/_catalog$/, (request, reply) => this.#catalog(request, reply)],
    ['GET|HEAD', new RegExp(`^/v2/${NAME}/blobs/(?<digest>[^/]+)$`), (...call) => this.#getBlob(...call)],
    ['DELETE', new RegExp(`^/v2/${NAME}/blobs/(?<digest>[^/]+)$`), (...call) => this.#deleteBlob(...call)],
    ['POST', new RegExp(`^/v2/${NAME}/blobs/uploads/?$`), (...call) => this.#beginUpload(...call)],
    ['GET', new RegExp(`^/v2/${NAME}/blobs/uploads/(?<id>[^/]+)$`), (...call) => this.#uploadStatus(...call)],
    ['PATCH', new RegExp(`^/v2/${NAME}/blobs/uploads/(?<id>[^/]+)$`), (...call) => this.#appendUpload(...call)],
    ['PUT', new RegExp(`^/v2/${NAME}/blobs/uploads/(?<id>[^/]+)$`), (...call) => this.#endUpload(...call)],
    ['DELETE', new RegExp(`^/v2/${NAME}/blobs/uploads/(?<id>[^/]+)$`), (...call) => this.#cancelUpload(...call)],
    ['GET|HEAD', new RegExp(`^/v2/${NAME}/manifests/(?<reference>[^/]+)$`), (...call) => this.#getManifest(...call)],
    ['PUT', new RegExp(`^/v2/${NAME}/manifests/(?<reference>[^/]+)$`), (...call) => this.#putManifest(...call)],
    ['DELETE', new RegExp(`^/v2/${NAME}/manifests/(?<reference>[^/]+)$`), (...call) => this.#deleteManifest(...call)],
    ['GET', new RegExp(`^/v2/${NAME}/tags/list$`), (...call) => this.#tags(...call)],
    ['GET', new RegExp(`^/v2/${NAME}/referrers/(?<digest>[^/]+)$`), (...call) => this.#referrers(...call)],
  ];

  constructor(
    @Inject(RepositoriesService) private readonly repositories: RepositoriesService,
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(UploadStore) private readonly uploads: UploadStore,
  ) {}

  @All(['v2', 'v2/*'])
  async serve(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const path = decodeURI(request.url.split('?', 1)[0] ?? '');
    try {
      const byPath = this.#routes.filter(([, pattern]) => pattern.test(path));
      const route = byPath.find(([methods]) => methods.split('|').includes(request.method));
      if (!route) {
        const status = byPath.length > 0 ? 405 : 404;
        await reply.status(status).send({
          errors: [
            {
              code: status === 405 ? 'UNSUPPORTED' : 'NAME_INVALID',
              message: `${request.method} ${path} is not supported`,
              detail: null,
            },
          ],
        });
        return;
      }
      await route[2](request, reply, { ...route[1].exec(path)?.groups });
    } catch (error) {
      await sendError(reply, error);
    }
  }

  async #catalog(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const page = paginate(await this.repositories.catalog(), request, reply);
    return reply.send({ repositories: page });
  }

  async #getBlob(request: FastifyRequest, reply: FastifyReply, { name = '', digest = '' }: Params): Promise<unknown> {
    const wanted = parse(digest);
    const size = await this.blobs.size(wanted);
    if (size === undefined || !(await this.repositories.hasBlob(name, wanted))) throw blobUnknown(digest);
    const range = parseRange(request.headers.range, size);
    reply
      .header('Docker-Content-Digest', wanted)
      .header('Content-Type', 'application/octet-stream')
      .header('Accept-Ranges', 'bytes')
      .header('ETag', `"${wanted}"`)
      .header('Content-Length', range ? range.end - range.start + 1 : size);
    if (range) reply.status(206).header('Content-Range', `bytes ${range.start}-${range.end}/${size}`);
    return reply.send(request.method === 'HEAD' ? '' : await this.blobs.read(wanted, range));
  }

  async #deleteBlob(
    _request: FastifyRequest,
    reply: FastifyReply,
    { name = '', digest = '' }: Params,
  ): Promise<unknown> {
    await this.repositories.unlinkBlob(name, parse(digest));
    return reply.status(202).send();
  }

  async #beginUpload(request: FastifyRequest, reply: FastifyReply, { name = '' }: Params): Promise<unknown> {
    const query = request.query as Partial<Record<'mount' | 'from' | 'digest', string>>;
    if (query.mount && isDigest(query.mount) && (await this.#mayMount(query.mount, query.from))) {
      await this.repositories.linkBlob(name, query.mount);
      return created(reply, name, 'blobs', query.mount);
    }
    const id = await this.uploads.create();
    if (query.digest) {
      const expected = parse(query.digest);
      await this.uploads.append(id, bodyOf(request));
      return this.#publish(reply, name, id, expected);
    }
    return this.#sessionReply(reply, name, id, 0, 202);
  }

  /** OCI dist-spec §"Mounting a blob from another repository"; without `from`, from whichever repository has it. */
  async #mayMount(digest: Digest, from: string | undefined): Promise<boolean> {
    if ((await this.blobs.size(digest)) === undefined) return false;
    return from === undefined || (await this.repositories.hasBlob(from, digest));
  }

  async #uploadStatus(_request: FastifyRequest, reply: FastifyReply, { name = '', id = '' }: Params): Promise<unknown> {
    return this.#sessionReply(reply, name, id, await this.#offset(id), 204);
  }

  async #appendUpload(request: FastifyRequest, reply: FastifyReply, { name = '', id = '' }: Params): Promise<unknown> {
    await this.#checkRange(request, reply, name, id);
    return this.#sessionReply(reply, name, id, await this.uploads.append(id, bodyOf(request)), 202);
  }

  async #endUpload(request: FastifyRequest, reply: FastifyReply, { name = '', id = '' }: Params): Promise<unknown> {
    const expected = parse((request.query as { digest?: string }).digest ?? '');
    await this.#checkRange(request, reply, name, id);
    await this.#offset(id);
    if (request.headers['content-length'] !== '0') await this.uploads.append(id, bodyOf(request));
    return this.#publish(reply, name, id, expected);
  }

  async #cancelUpload(_request: FastifyRequest, reply: FastifyReply, { id = '' }: Params): Promise<unknown> {
    await this.#offset(id);
    await this.uploads.cancel(id);
    return reply.status(204).send();
  }

  async #publish(reply: FastifyReply, name: string, id: string, expected: Digest): Promise<unknown> {
    try {
      await this.uploads.finish(id, expected);
    } catch (error) {
      throw new DistributionError('DIGEST_INVALID', 'InvalidArgument', asDomainError(error).message, {
        digest: expected,
      });
    }
    await this.repositories.linkBlob(name, expected);
    return created(reply, name, 'blobs', expected);
  }

  async #offset(id: string): Promise<number> {
    try {
      return await this.uploads.offset(id);
    } catch (error) {
      throw new DistributionError('BLOB_UPLOAD_UNKNOWN', 'NotFound', asDomainError(error).message);
    }
  }

  /** OCI dist-spec §"Pushing a blob in chunks": a chunk out of order is 416 and keeps the session. */
  async #checkRange(request: FastifyRequest, reply: FastifyReply, name: string, id: string): Promise<void> {
    const offset = await this.#offset(id);
    const range = request.headers['content-range'];
    const start = range === undefined ? offset : Number(/^(?:bytes )?(\d+)-\d+/.exec(range)?.[1] ?? Number.NaN);
    if (start === offset) return;
    sessionHeaders(reply, name, id, offset);
    throw new DistributionError(
      'BLOB_UPLOAD_INVALID',
      'InvalidArgument',
      `chunk starts at ${start}, but ${offset} bytes have been received`,
      { status: 416 },
    );
  }

  #sessionReply(reply: FastifyReply, name: string, id: string, offset: number, status: number): Promise<unknown> {
    return Promise.resolve(sessionHeaders(reply, name, id, offset).status(status).send());
  }

  async #getManifest(
    request: FastifyRequest,
    reply: FastifyReply,
    { name = '', reference = '' }: Params,
  ): Promise<unknown> {
    const { content, mediaType, digest } = await this.repositories.manifest(name, reference);
    reply
      .header('Docker-Content-Digest', digest)
      .header('Content-Type', mediaType)
      .header('ETag', `"${digest}"`)
      .header('Content-Length', content.length);
    if (request.headers['if-none-match'] === `"${digest}"`)
      return reply.status(304).removeHeader('Content-Length').send();
    return reply.send(request.method === 'HEAD' ? '' : content);
  }

  async #putManifest(
    request: FastifyRequest,
    reply: FastifyReply,
    { name = '', reference = '' }: Params,
  ): Promise<unknown> {
    const mediaType = (request.headers['content-type'] ?? MediaType.ociManifest).split(';', 1)[0] ?? '';
    const content = await readBounded(bodyOf(request), MAX_MANIFEST_BYTES);
    const { digest, subject } = await this.repositories.putManifest(name, reference, mediaType, content);
    if (subject) reply.header('OCI-Subject', subject);
    return created(reply, name, 'manifests', digest);
  }

  async #deleteManifest(
    _request: FastifyRequest,
    reply: FastifyReply,
    { name = '', reference = '' }: Params,
  ): Promise<unknown> {
    await this.repositories.deleteManifest(name, reference);
    return reply.status(202).send();
  }

  async #tags(request: FastifyRequest, reply: FastifyReply, { name = '' }: Params): Promise<unknown> {
    const tags = paginate(await this.repositories.tags(name), request, reply);
    return reply.send({ name, tags });
  }

  async #referrers(request: FastifyRequest, reply: FastifyReply, { name = '', digest = '' }: Params): Promise<unknown> {
    const { artifactType } = request.query as { artifactType?: string };
    const manifests = await this.repositories.referrers(name, parse(digest), artifactType);
    if (artifactType !== undefined) reply.header('OCI-Filters-Applied', 'artifactType');
    return reply
      .header('Content-Type', MediaType.ociIndex)
      .send(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.ociIndex, manifests })));
  }
}

function parse(text: string): Digest {
  if (!isDigest(text)) throw new DistributionError('DIGEST_INVALID', 'InvalidArgument', `invalid digest "${text}"`);
  return text;
}

function bodyOf(request: FastifyRequest): Readable {
  return (request.body as Readable | undefined) ?? request.raw;
}

function created(reply: FastifyReply, name: string, kind: 'blobs' | 'manifests', digest: Digest): unknown {
  return reply
    .status(201)
    .header('Location', `/v2/${name}/${kind}/${digest}`)
    .header('Docker-Content-Digest', digest)
    .send();
}

function sessionHeaders(reply: FastifyReply, name: string, id: string, offset: number): FastifyReply {
  return reply
    .header('Location', `/v2/${name}/blobs/uploads/${id}`)
    .header('Docker-Upload-UUID', id)
    .header('Range', `0-${Math.max(0, offset - 1)}`);
}

function parseRange(header: string | undefined, size: number): { start: number; end: number } | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === '' || match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (start > end || start >= size)
    throw new DistributionError('RANGE_INVALID', 'InvalidArgument', 'range not satisfiable', { status: 416 });
  return { start, end };
}

/** OCI dist-spec §"Listing Tags": `n` and `last`, with a Link to the next page. */
function paginate(names: readonly string[], request: FastifyRequest, reply: FastifyReply): string[] {
  const { n, last } = request.query as { n?: string; last?: string };
  const after = last === undefined ? [...names] : names.filter((name) => name > last);
  const limit = n === undefined ? after.length : Number(n);
  if (!Number.isInteger(limit) || limit < 0)
    throw new DistributionError(
      'PAGINATION_NUMBER_INVALID',
      'InvalidArgument',
      `invalid number of results requested: ${n}`,
    );
  const page = after.slice(0, limit);
  const end = page.at(-1);
  if (after.length > limit && end !== undefined) {
    const path = request.url.split('?', 1)[0];
    reply.header('Link', `<${path}?n=${limit}&last=${encodeURIComponent(end)}>; rel="next"`);
  }
  return page;
}

async function readBounded(stream: Readable, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
  });
  await finished(stream);
  if (size > limit)
    throw new DistributionError('MANIFEST_INVALID', 'InvalidArgument', `manifest larger than ${limit} bytes`);
  return Buffer.concat(chunks);
}

async function sendError(reply: FastifyReply, error: unknown): Promise<void> {
  const domain = asDomainError(error);
  const known = error instanceof DistributionError ? error : undefined;
  const status = (known?.detail as { status?: number } | null)?.status ?? HTTP_STATUS[domain.code];
  if (reply.sent) return;
  await reply
    .removeHeader('Content-Length')
    .header('Content-Type', 'application/json')
    .status(status)
    .send(
      JSON.stringify({
        errors: [{ code: known?.ociCode ?? 'UNKNOWN', message: domain.message, detail: known?.detail ?? null }],
      }),
    );
}
