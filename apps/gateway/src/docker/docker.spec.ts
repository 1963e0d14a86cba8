import type { IncomingMessage } from 'node:http';
import { agent, common } from '@gantry/contracts';
import { describe, expect, it } from 'vitest';
import { stripVersion, versionOf } from './api-version/api-version.js';
import { toBuildLines } from './build/build-text.js';
import { humanDuration, toContainerJson, toSummaryJson, ZERO_TIME } from './containers/container-json.js';
import { CREATE_CONTAINER, toCreateRequest } from './containers/container-request.js';
import { isTrue, parseBody, parseCredentials, parseFilters } from './query.js';

const request = (url: string) => ({ url }) as IncomingMessage;

describe('versions', () => {
  it('are taken off the path and remembered', () => {
    const incoming = request('/v1.41/containers/json?all=1');
    expect(stripVersion(incoming)).toBe('/containers/json?all=1');
    expect(versionOf(incoming)).toBe('1.41');
    expect(stripVersion(request('/v2/x/manifests/1'))).toBe('/v2/x/manifests/1');
    expect(versionOf(request('/_ping'))).toBe('1.51');
  });
});

describe('requests', () => {
  const create = (body: unknown) => toCreateRequest(parseBody(CREATE_CONTAINER, body), 'n', '');

  it('accept null for lists and maps, and fields nobody knows', () => {
    const made = create({
      Image: 'i',
      Cmd: null,
      Env: null,
      Labels: null,
      ExposedPorts: null,
      HostConfig: { Binds: null, PortBindings: null, NewThing: 1 },
      Unknown: {},
    });
    expect(made).toMatchObject({ name: 'n', image: 'i', process: { command: undefined, env: [] }, labels: {} });
  });

  it('map ports, policy and limits', () => {
    const made = create({
      Image: 'i',
      Entrypoint: [''],
      HostConfig: {
        PortBindings: { '80/tcp': [{ HostIp: '', HostPort: '8080' }] },
        RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 },
        NanoCpus: 5e8,
      },
    });
    expect(made.host?.portBindings).toEqual([{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: '8080' }]);
    expect(made.host?.restartPolicy).toEqual({ condition: common.RestartCondition.ON_FAILURE, maximumRetryCount: 3 });
    expect(made.process?.entrypoint).toEqual({ values: [] });
  });

  it.each([
    [{ Image: 7 }, 'invalid request body: Image'],
    [{}, 'no image specified'],
    [{ Image: 'i', HostConfig: { RestartPolicy: { Name: 'maybe' } } }, "unknown policy 'maybe'"],
    [{ Image: 'i', HostConfig: { PortBindings: { 'x/tcp': [] } } }, 'invalid port specification: "x/tcp"'],
  ])('refuse %j', (body, message) => expect(() => create(body)).toThrow(message));

  it('read Docker’s query values', () => {
    expect(['1', 'true', 'yes', '0', 'false', '', undefined].map(isTrue)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
      false,
    ]);
    expect(parseFilters('{"label":{"a=b":true},"name":["x"]}').byKey).toEqual({
      label: { values: ['a=b'] },
      name: { values: ['x'] },
    });
    expect(() => parseFilters('{')).toThrow('invalid filter');
    expect(parseCredentials(Buffer.from('{"username":"u","password":"p"}').toString('base64url'))).toMatchObject({
      username: 'u',
      password: 'p',
    });
  });
});

describe('answers', () => {
  const container = agent.Container.fromPartial({
    id: 'f'.repeat(64),
    name: 'web',
    path: 'sh',
    state: { status: agent.ContainerStatus.CREATED },
    config: { image: 'i', host: { networkMode: 'default' } },
    network: {
      ports: [
        { containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 },
        { containerPort: 443, protocol: 'tcp' },
      ],
    },
  });

  it('have null where Docker has null, and its zero time', () => {
    const json = toContainerJson(container);
    expect(json).toMatchObject({
      Name: '/web',
      Args: [],
      ExecIDs: null,
      State: { Status: 'created', StartedAt: ZERO_TIME, FinishedAt: ZERO_TIME },
      Config: { Cmd: null, Entrypoint: null, Volumes: null, OnBuild: null, Hostname: 'f'.repeat(12) },
    });
    expect(json.HostConfig).toMatchObject({
      NetworkMode: 'bridge',
      Binds: null,
      CapAdd: null,
      PortBindings: {},
      RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
    });
    expect(json.NetworkSettings.Ports).toEqual({
      '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }],
      '443/tcp': null,
    });
  });

  it('say a state as `docker ps` does', () => {
    const summary = agent.ContainerSummary.fromPartial({
      id: 'a',
      name: 'x',
      created: '2020-01-01T00:00:00Z',
      state: {
        status: agent.ContainerStatus.EXITED,
        exitCode: 3,
        finishedAt: new Date(Date.now() - 65_000).toISOString(),
      },
    });
    expect(toSummaryJson(summary)).toMatchObject({
      Names: ['/x'],
      State: 'exited',
      Status: 'Exited (3) About a minute ago',
      Created: 1577836800,
    });
  });

  it.each([
    [0.4, 'Less than a second'],
    [1, '1 second'],
    [59, '59 seconds'],
    [61, 'About a minute'],
    [150, '2 minutes'],
    [3600, 'About an hour'],
    [86_400 * 3, '3 days'],
    [86_400 * 20, '2 weeks'],
  ])('%d seconds are "%s"', (seconds, text) => expect(humanDuration(seconds)).toBe(text));

  it('print a build as it has always been printed', () => {
    const line = (event: object) => toBuildLines({ sequence: 1, time: '', event } as never);
    expect(line({ $case: 'stepStarted', value: { index: 1, total: 2, instruction: 'FROM a' } })).toEqual([
      { stream: 'Step 1/2 : FROM a\n' },
    ]);
    expect(line({ $case: 'imageDone', value: { imageId: `sha256:${'a'.repeat(64)}`, tags: ['t:1'] } })).toEqual([
      { aux: { ID: `sha256:${'a'.repeat(64)}` } },
      { stream: `Successfully built ${'a'.repeat(12)}\n` },
      { stream: 'Successfully tagged t:1\n' },
    ]);
    expect(line({ $case: 'ended', value: { error: 'no', exitCode: 2 } })).toEqual([
      { errorDetail: { code: 2, message: 'no' }, error: 'no' },
    ]);
  });
});
