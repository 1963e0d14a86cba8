import { request } from 'node:http';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NotFound, Unavailable } from '@gantry/errors';
import { registry } from '@gantry/contracts';
import { Module } from '@nestjs/common';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GrpcConnection } from '../grpc/grpc-client.js';
import { GrpcService } from '../grpc/grpc-service.decorator.js';
import { HealthService } from '../health/health.service.js';
import { currentTrace, traceFrom, withTrace } from '../tracing/trace.js';
import { startService, type RunningService } from './service.js';

let isWell = true;
let traceSeen: string | undefined;

const { tag, remove, pull } = registry.ImagesDefinition.methods;
const ExampleDefinition = { ...registry.ImagesDefinition, methods: { tag, remove, pull } } as const;

@GrpcService(ExampleDefinition)
class ImagesController {
  tag(request: registry.TagImageRequest): never {
    traceSeen = currentTrace()?.traceId;
    throw new NotFound('image', request.source);
  }

  async remove(): Promise<registry.RemoveImageResponse> {
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    return { removed: [], spaceReclaimed: 0 };
  }

  async *pull(): AsyncIterable<registry.TransferProgress> {
    await Promise.resolve();
    yield { id: 'a', status: 'Downloading', current: 1, total: 2, pushed: undefined };
    throw new Unavailable('upstream went away');
  }
}

@Module({ providers: [ImagesController] })
class ExampleModule {
  constructor(health: HealthService) {
    health.register('moon', () => {
      if (!isWell) throw new Error('eclipsed');
    });
  }
}

describe('a service', () => {
  let dir: string;
  let service: RunningService;
  let connection: GrpcConnection;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'gantry-kit-'));
    service = await startService({
      name: 'example',
      module: ExampleModule,
      logLevel: 'silent',
      http: [{ address: `unix://${dir}/http.sock`, mode: 0o660 }, { address: 'tcp://127.0.0.1:0' }],
      grpc: [`unix://${dir}/grpc.sock`, 'tcp://127.0.0.1:0'],
    });
    connection = new GrpcConnection(`unix://${dir}/grpc.sock`, 'example');
  });

  afterAll(async () => {
    connection.close();
    await service.close();
    await rm(dir, { recursive: true });
  });

  function get(path: string): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      request({ socketPath: `${dir}/http.sock`, path }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      })
        .once('error', reject)
        .end();
    });
  }

  it('carries a domain error across gRPC with its code, words and details', async () => {
    const images = connection.client(ExampleDefinition);
    await expect(images.tag({ source: 'ghost', target: 'x' })).rejects.toMatchObject({
      code: 'NotFound',
      message: 'No such image: ghost',
      details: { kind: 'image', id: 'ghost' },
    });
  });

  it('ends a stream with the error that ended it, after what came before', async () => {
    const seen: string[] = [];
    const stream = async () => {
      for await (const line of connection.client(ExampleDefinition).pull({})) seen.push(line.status);
    };
    await expect(stream()).rejects.toMatchObject({ code: 'Unavailable', message: 'upstream went away' });
    expect(seen).toEqual(['Downloading']);
  });

  it('gives up at the deadline', async () => {
    const images = connection.client(ExampleDefinition);
    await expect(images.remove({}, { deadline: 50 })).rejects.toMatchObject({ code: 'DeadlineExceeded' });
  });

  it('passes the trace on', async () => {
    const trace = traceFrom('00-0123456789abcdef0123456789abcdef-0123456789abcdef-01');
    const images = connection.client(ExampleDefinition);
    await withTrace(trace, () => images.tag({ source: 'a', target: 'b' })).catch(() => undefined);
    expect(traceSeen).toBe('0123456789abcdef0123456789abcdef');
  });

  it('answers over TCP as over its socket', async () => {
    const tcp = new GrpcConnection(`tcp://127.0.0.1:${service.grpcPorts[1]}`, 'example');
    await expect(tcp.client(ExampleDefinition).tag({ source: 'q', target: 'x' })).rejects.toThrow('No such image: q');
    tcp.close();
    const response = await fetch(`http://127.0.0.1:${service.httpPorts[1]}/healthz`);
    expect(response.status).toBe(200);
  });

  it('names a service that does not answer', async () => {
    const nobody = new GrpcConnection(`unix://${dir}/nobody.sock`, 'registry');
    await expect(nobody.client(ExampleDefinition).tag({})).rejects.toThrow('the registry service does not answer');
    nobody.close();
  });

  it('is live always and ready when what it needs is', async () => {
    expect(await get('/healthz')).toEqual({ status: 200, body: '{"status":"ok"}' });
    expect(await get('/readyz')).toMatchObject({ status: 200 });
    isWell = false;
    expect(await get('/readyz')).toEqual({ status: 503, body: '{"status":"failing","checks":{"moon":"eclipsed"}}' });
    isWell = true;
  });

  it('opens its socket no wider than told', async () => {
    expect((await stat(`${dir}/http.sock`)).mode & 0o777).toBe(0o660);
  });

  it('does not take a socket from a living process', async () => {
    const second = startService({
      name: 'b',
      module: ExampleModule,
      logLevel: 'silent',
      http: [],
      grpc: [`unix://${dir}/grpc.sock`],
    });
    await expect(second).rejects.toThrow('another process listens on');
  });
});
