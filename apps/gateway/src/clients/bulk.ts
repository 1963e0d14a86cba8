import { request, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { DomainError, Internal, isErrorCode, Unavailable, type ErrorDetails } from '@gantry/errors';

export interface BulkRequest {
  readonly socketPath: string;
  readonly method: string;
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Readable | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Sends bytes to a service of the platform; resolves with its answer. Rejects with the domain error it answered. */
export async function bulk({ socketPath, method, path, headers, body, signal }: BulkRequest): Promise<IncomingMessage> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const call = request({ socketPath, method, path, headers: headers ?? {}, ...(signal ? { signal } : {}) }, resolve);
    call.once('error', (error) =>
      reject(new Unavailable(`${socketPath} does not answer: ${error.message}`, {}, { cause: error })),
    );
    // The service may refuse before it has read everything: then its answer counts, not the broken pipe.
    if (body) pipeline(body, call).catch(() => undefined);
    else call.end();
  });
  if ((response.statusCode ?? 500) < 400) return response;
  const text = (await readText(response)) || '{}';
  let problem: { code?: string; message?: string; details?: ErrorDetails };
  try {
    problem = JSON.parse(text) as typeof problem;
  } catch {
    throw new Internal(`${path} answered ${response.statusCode}: ${text.slice(0, 200)}`);
  }
  const code = problem.code && isErrorCode(problem.code) ? problem.code : 'Internal';
  throw new DomainError(code, problem.message ?? 'unknown error', problem.details);
}

export async function readText(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
