import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { DomainError, NotFound, PermissionDenied, Unauthenticated, Unavailable } from '@gantry/errors';
import type { common } from '@gantry/contracts';
import { MediaType, type Digest, type Reference } from '@gantry/oci';

type RequestBody = NonNullable<RequestInit['body']>;

const ACCEPT = [MediaType.ociIndex, MediaType.ociManifest, MediaType.dockerManifestList, MediaType.dockerManifest].join(
  ', ',
);
const HEADERS_TIMEOUT_MS = 30_000;
const DEFAULT_DOMAIN = 'docker.io';

export interface RemoteManifest {
  readonly digest: Digest | undefined;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** As Docker: registries on this machine may be spoken to without TLS. */
function isLoopback(host: string): boolean {
  return /^(localhost|127(?:\.\d+){3}|\[::1\])(:\d+)?$/.test(host);
}

/** A client of one repository of another registry: authentication by token or password, as the distribution specification has it. */
export class RegistryClient {
  #authorization: string | undefined;
  #scheme: 'http' | 'https';
  readonly #host: string;

  constructor(
    private readonly reference: Reference,
    private readonly credentials: common.RegistryCredentials | undefined,
    private readonly actions: 'pull' | 'pull,push',
  ) {
    this.#host = reference.domain === DEFAULT_DOMAIN ? 'registry-1.docker.io' : reference.domain;
    this.#scheme = isLoopback(this.#host) ? 'http' : 'https';
  }

  async manifest(tagOrDigest: string, signal?: AbortSignal): Promise<RemoteManifest> {
    const response = await this.#request('GET', `manifests/${tagOrDigest}`, { headers: { accept: ACCEPT }, signal });
    if (response.status === 404) {
      await response.body?.cancel();
      const name =
        `${this.reference.domain}/${this.reference.path}${tagOrDigest.includes(':') ? '@' : ':'}${tagOrDigest}`
          .replace('docker.io/library/', '')
          .replace('docker.io/', '');
      throw new NotFound('manifest', name, `manifest for ${name} not found: manifest unknown: manifest unknown`);
    }
    await expect(response, [200], this.reference);
    return {
      digest: (response.headers.get('docker-content-digest') ?? undefined) as Digest | undefined,
      mediaType: (response.headers.get('content-type') ?? MediaType.ociManifest).split(';', 1)[0] ?? '',
      bytes: Buffer.from(await response.arrayBuffer()),
    };
  }

  async blob(digest: Digest, signal?: AbortSignal): Promise<Readable> {
    const response = await this.#request('GET', `blobs/${digest}`, { signal });
    await expect(response, [200], this.reference);
    return Readable.fromWeb(response.body as ReadableStream, { highWaterMark: 1024 * 1024 });
  }

  async hasBlob(digest: Digest): Promise<boolean> {
    const response = await this.#request('HEAD', `blobs/${digest}`, {});
    if (response.status !== 404) await expect(response, [200, 404], this.reference);
    return response.status === 200;
  }

  async pushBlob(digest: Digest, size: number, body: Readable): Promise<void> {
    const begun = await this.#request('POST', 'blobs/uploads/', {});
    await expect(begun, [202], this.reference);
    const location = new URL(begun.headers.get('location') ?? '', begun.url);
    location.searchParams.set('digest', digest);
    const response = await this.#request('PUT', location, {
      body: Readable.toWeb(body) as RequestBody,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
    });
    await expect(response, [201], this.reference);
  }

  async pushManifest(tagOrDigest: string, mediaType: string, bytes: Buffer): Promise<void> {
    const response = await this.#request('PUT', `manifests/${tagOrDigest}`, {
      body: new Uint8Array(bytes),
      headers: { 'content-type': mediaType },
    });
    await expect(response, [201], this.reference);
  }

  async tags(): Promise<string[]> {
    const response = await this.#request('GET', 'tags/list', {});
    await expect(response, [200], this.reference);
    return ((await response.json()) as { tags: string[] | null }).tags ?? [];
  }

  /** Checks the credentials against the registry's root. */
  async ping(): Promise<void> {
    const response = await this.#request('GET', new URL(`${this.#scheme}://${this.#host}/v2/`), {});
    await response.body?.cancel();
    if (response.status === 401)
      throw new Unauthenticated(
        `Get "${this.#scheme}://${this.#host}/v2/": unauthorized: incorrect username or password`,
      );
    if (response.status !== 200) throw new Unavailable(`${this.#host} answers ${response.status}`);
  }

  async #request(
    method: string,
    target: string | URL,
    init: { headers?: Record<string, string>; body?: RequestBody; signal?: AbortSignal | undefined },
  ): Promise<Response> {
    const url =
      typeof target === 'string' ? `${this.#scheme}://${this.#host}/v2/${this.reference.path}/${target}` : target.href;
    const response = await this.#send(method, url, init);
    if (response.status !== 401 || init.body instanceof ReadableStreamClass) return response;
    const challenge = response.headers.get('www-authenticate') ?? '';
    const authorization = await this.#authorize(challenge);
    if (!authorization) return response;
    await response.body?.cancel();
    this.#authorization = authorization;
    return this.#send(method, url, init);
  }

  async #send(
    method: string,
    url: string,
    {
      headers,
      body,
      signal,
    }: { headers?: Record<string, string>; body?: RequestBody; signal?: AbortSignal | undefined },
  ): Promise<Response> {
    const late = AbortSignal.timeout(HEADERS_TIMEOUT_MS);
    try {
      return await fetch(url, {
        method,
        headers: { ...headers, ...(this.#authorization ? { authorization: this.#authorization } : {}) },
        ...(body === undefined ? {} : { body, duplex: 'half' }),
        signal:
          body === undefined && method !== 'GET'
            ? AbortSignal.any([late, ...(signal ? [signal] : [])])
            : (signal ?? null),
      });
    } catch (error) {
      if (error instanceof DomainError) throw error;
      const cause = (error as Error).cause as (Error & { code?: string }) | undefined;
      throw new Unavailable(`${method} "${url}": ${cause?.message ?? (error as Error).message}`, {}, { cause: error });
    }
  }

  /** RFC 9110 Basic, or the token flow of distribution's "Token Authentication". */
  async #authorize(challenge: string): Promise<string | undefined> {
    const { username = '', password = '', registryToken = '' } = this.credentials ?? {};
    const basic = username ? `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` : undefined;
    if (registryToken) return `Bearer ${registryToken}`;
    if (/^basic/i.test(challenge)) return basic;
    const fields: { realm?: string; service?: string } = Object.fromEntries(
      [...challenge.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', value = '']) => [key, value] as const),
    );
    if (!fields.realm) return undefined;
    const url = new URL(fields.realm);
    if (fields.service) url.searchParams.set('service', fields.service);
    url.searchParams.set('scope', `repository:${this.reference.path}:${this.actions}`);
    const response = await fetch(url, {
      ...(basic ? { headers: { authorization: basic } } : {}),
      signal: AbortSignal.timeout(HEADERS_TIMEOUT_MS),
    });
    if (!response.ok) throw new Unauthenticated(`Get "${fields.realm}": unauthorized: incorrect username or password`);
    const { token, access_token } = (await response.json()) as { token?: string; access_token?: string };
    return `Bearer ${token ?? access_token ?? ''}`;
  }
}

const ReadableStreamClass = globalThis.ReadableStream;

async function expect(response: Response, statuses: readonly number[], reference: Reference): Promise<void> {
  if (statuses.includes(response.status)) return;
  const text = await response.text().catch(() => '');
  const name = `${reference.domain}/${reference.path}`.replace('docker.io/', '');
  if (response.status === 401 || response.status === 403) {
    throw new PermissionDenied(
      `pull access denied for ${name}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
    );
  }
  const message = /"message":\s*"([^"]*)"/.exec(text)?.[1] ?? text.slice(0, 200);
  if (response.status === 404) throw new NotFound('repository', name, message || `${name} not found`);
  throw new Unavailable(`registry ${reference.domain} answers ${response.status}: ${message}`);
}
