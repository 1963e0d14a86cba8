import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { dockerOk, ensureBusybox, eventually, http, run, services } from './platform.js';

interface Build {
  readonly id: string;
  readonly status: string;
  readonly attempt: number;
  readonly worker: string | null;
  readonly error: string | null;
}

const directory = mkdtempSync(join(tmpdir(), 'gantry-builds-'));
const socket = () => inject('dockerHost').replace('unix://', '');

function contextTar(dockerfile: string): Buffer {
  const path = mkdtempSync(join(directory, 'c-'));
  writeFileSync(join(path, 'Dockerfile'), dockerfile);
  return execFileSync('tar', ['-C', path, '-cz', '.']);
}

async function submit(dockerfile: string, query = ''): Promise<Build> {
  const { status, body } = await http('POST', `/api/v1/builds${query}`, contextTar(dockerfile), {
    'content-type': 'application/x-tar',
  });
  expect([status, body]).toEqual([202, expect.any(String)]);
  return JSON.parse(body) as Build;
}

const get = async (id: string) => JSON.parse((await http('GET', `/api/v1/builds/${id}`)).body) as Build;
const ended = async (id: string) => {
  await eventually(`build ${id} ends`, async () => !['queued', 'running'].includes((await get(id)).status), 60_000);
  return get(id);
};

beforeAll(ensureBusybox);
afterAll(() => rmSync(directory, { recursive: true }));

describe('a build as a CI job submits it', () => {
  it('queues, streams its log and ends as an image that skopeo copies out', async () => {
    const tar = join(directory, 'context.tar.gz');
    writeFileSync(tar, contextTar('FROM busybox\nRUN echo from the job && echo x > /x\n'));
    const name = `${inject('registry')}/ci/job:1`;
    const curl = (...args: string[]) => run('curl', ['-sS', '--unix-socket', socket(), ...args]);
    const submitted = await curl(
      '-X',
      'POST',
      '-H',
      'Content-Type: application/x-tar',
      '--data-binary',
      `@${tar}`,
      `http://gantry/api/v1/builds?tag=${name}&push=true`,
    );
    const { id, status } = JSON.parse(submitted.stdout) as Build;
    expect(status).toBe('queued');
    const log = await curl('-N', '-H', 'Accept: text/event-stream', `http://gantry/api/v1/builds/${id}/log`);
    expect(log.stdout).toContain('from the job');
    expect(log.stdout).toContain('event: end');
    expect((await get(id)).status).toBe('succeeded');
    const target = join(directory, 'copied');
    const copy = await run('skopeo', ['copy', '--src-tls-verify=false', `docker://${name}`, `dir:${target}`]);
    expect([copy.code, copy.stderr]).toEqual([0, expect.any(String)]);
    expect((await http('GET', `/api/v1/builds/${id}/log`)).body).toContain('Successfully built');
  });

  it('ten at once on two workers all finish', async () => {
    const builds = await Promise.all(
      Array.from({ length: 10 }, (_, index) => submit(`FROM busybox\nRUN echo ${index} > /n\n`, `?tag=ten:${index}`)),
    );
    const results = await Promise.all(builds.map(({ id }) => ended(id)));
    expect(results.map(({ status }) => status)).toEqual(Array<string>(10).fill('succeeded'));
    expect(new Set(results.map(({ worker }) => worker)).size).toBe(2);
  });

  it('the same idempotency key is the same build', async () => {
    const send = () =>
      http('POST', '/api/v1/builds', contextTar('FROM busybox\n'), {
        'content-type': 'application/x-tar',
        'idempotency-key': 'once-only',
      });
    const [first, second] = [JSON.parse((await send()).body) as Build, JSON.parse((await send()).body) as Build];
    expect(second.id).toBe(first.id);
  });

  it('is cancelled within a second or so', async () => {
    const { id } = await submit('FROM busybox\nRUN sleep 300\n');
    await eventually('it runs', async () =>
      (await http('GET', `/api/v1/builds/${id}/log`)).body.includes('Running in'),
    );
    expect((await http('DELETE', `/api/v1/builds/${id}`)).status).toBe(200);
    expect((await get(id)).status).toBe('cancelled');
    expect((await http('DELETE', `/api/v1/builds/${id}`)).status).toBe(409);
  });

  it('runs again elsewhere when its worker is killed', async () => {
    const { id } = await submit('FROM busybox\nRUN sleep 4; echo survived\n');
    await eventually('it runs', async () =>
      (await http('GET', `/api/v1/builds/${id}/log`)).body.includes('Running in'),
    );
    const { worker } = await get(id);
    const victim = (await services()).find(({ name }) => name === `worker-${worker}`);
    process.kill(victim?.pid ?? 0, 'SIGKILL');
    const result = await ended(id);
    expect([result.status, result.attempt]).toEqual(['succeeded', 2]);
    expect((await http('GET', `/api/v1/builds/${id}/log`)).body).toContain('survived');
  });

  it('is not lost with an emptied Redis', async () => {
    const slow = await Promise.all([1, 2].map((n) => submit(`FROM busybox\nRUN sleep 2; echo ${n}\n`)));
    const queued = await Promise.all([3, 4, 5].map((n) => submit(`FROM busybox\nRUN echo queued ${n}\n`)));
    await run('redis-cli', ['-s', join(inject('runDir'), 'redis.sock'), 'FLUSHALL']);
    const results = await Promise.all([...slow, ...queued].map(({ id }) => ended(id)));
    expect(results.map(({ status }) => status)).toEqual(Array<string>(5).fill('succeeded'));
  });

  it('answers with problem details where there is none', async () => {
    const { status, headers, body } = await http('GET', '/api/v1/builds/00000000-0000-0000-0000-000000000000');
    expect([status, headers['content-type']]).toEqual([404, 'application/problem+json']);
    expect(JSON.parse(body)).toMatchObject({
      status: 404,
      detail: 'build 00000000-0000-0000-0000-000000000000 not found',
    });
    expect((JSON.parse((await http('GET', '/api/v1/openapi.json')).body) as { paths: object }).paths).toHaveProperty(
      '/api/v1/builds/{id}/log',
    );
  });
});

describe('a multi-stage build', () => {
  it('builds what the target needs and copies between stages', async () => {
    const { id } = await submit(
      'ARG WHO=world\nFROM busybox AS one\nARG WHO\nENV GREETING="hello $WHO"\nRUN echo $GREETING > /greeting\nFROM busybox AS unused\nRUN exit 1\nFROM scratch\nCOPY --from=one --chmod=600 /greeting /g/\nCOPY --from=busybox /bin/busybox /bin/cat\nCMD ["/bin/cat", "/g/greeting"]\n',
      '?tag=multi&buildArg=WHO=you',
    );
    expect((await ended(id)).status).toBe('succeeded');
    expect(await dockerOk('run', '--rm', 'multi')).toBe('hello you');
  });
});
