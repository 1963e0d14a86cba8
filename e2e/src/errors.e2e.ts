import { beforeAll, describe, expect, inject, it } from 'vitest';
import { docker, dockerOk, dockerWithInput, ensureBusybox, hostileTar, http } from './platform.js';

beforeAll(ensureBusybox);

const message = (body: string) => (JSON.parse(body) as { message: string }).message;
const json = { 'content-type': 'application/json' };

describe('what is wrong is named, and changes nothing', () => {
  it.each([
    ['FORM busybox', 'unknown instruction: FORM (did you mean FROM?)'],
    ['FROM busybox\nCOPY missing /', '"/missing": not found'],
    ['FROM busybox\nRUN exit 3', "The command '/bin/sh -c exit 3' returned a non-zero code: 3"],
    ['FROM busybox\nEXPOSE abc', 'invalid containerPort: abc'],
    ['RUN x', 'no build stage in current context'],
  ])('Dockerfile %j', async (dockerfile, words) => {
    const { code, stderr } = await dockerWithInput(dockerfile, 'build', '-t', 'never', '-');
    expect(code).not.toBe(0);
    expect(stderr).toContain(words);
    expect((await docker('image', 'inspect', 'never')).code).toBe(1);
  });

  it.each([
    ['GET', '/containers/ghost/json', undefined, 404, 'No such container: ghost'],
    ['POST', '/containers/ghost/start', undefined, 404, 'No such container: ghost'],
    ['GET', '/images/ghost/json', undefined, 404, 'No such image: ghost:latest'],
    ['POST', '/containers/create', '{"Image":"ghost"}', 404, 'No such image: ghost:latest'],
    ['POST', '/containers/create', '{"Image":', 400, 'invalid JSON'],
    ['POST', '/containers/create', '{"Image":7}', 400, 'Image'],
    [
      'POST',
      '/containers/create',
      '{"Image":"busybox","Cmd":["true"],"HostConfig":{"Memory":1000}}',
      400,
      'Minimum memory limit allowed is 6MB',
    ],
    [
      'POST',
      '/containers/create',
      '{"Image":"busybox","Cmd":["true"],"HostConfig":{"CapAdd":["FLY"]}}',
      400,
      'unknown capability: "FLY"',
    ],
    [
      'POST',
      '/containers/create?name=-bad',
      '{"Image":"busybox","Cmd":["true"]}',
      400,
      'Invalid container name (-bad)',
    ],
    [
      'GET',
      '/v1.99/containers/json',
      undefined,
      400,
      'client version 1.99 is too new. Maximum supported API version is 1.51',
    ],
    ['GET', '/v1.12/containers/json', undefined, 400, 'client version 1.12 is too old'],
    ['GET', '/nothing/here', undefined, 404, 'page not found'],
    ['GET', '/swarm', undefined, 503, 'This node is not a swarm manager'],
    ['GET', '/containers/json?filters={"nope":["x"]}', undefined, 400, "invalid filter 'nope'"],
  ])('%s %s', async (method, path, body, status, words) => {
    const before = await dockerOk('ps', '-aq');
    const answer = await http(method, encodeURI(path), body, body ? json : {});
    expect([answer.status, message(answer.body)]).toEqual([status, expect.stringContaining(words)]);
    expect(answer.headers['content-type']).toBe('application/json');
    expect((await dockerOk('ps', '-aq')).split('\n').length).toBeGreaterThanOrEqual(before ? 1 : 0);
  });

  it('a name that is taken', async () => {
    const id = await dockerOk('create', '--name', 'taken', 'busybox', 'true');
    const { code, stderr } = await docker('create', '--name', 'taken', 'busybox', 'true');
    expect(code).toBe(1);
    expect(stderr).toContain(
      `Conflict. The container name "/taken" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
    );
    await dockerOk('rm', 'taken');
  });

  it('a wrong digest', async () => {
    const nowhere = `${inject('registry')}/team/ghost@sha256:${'0'.repeat(64)}`;
    const { code, stderr } = await docker('pull', nowhere);
    expect(code).toBe(1);
    expect(stderr).toContain('manifest unknown');
    const upload = await http('POST', '/v2/wrong/blobs/uploads/');
    const put = await http('PUT', `${String(upload.headers.location)}?digest=sha256:${'1'.repeat(64)}`, 'content', {
      'content-type': 'application/octet-stream',
    });
    expect(put.status).toBe(400);
    expect(put.body).toContain('DIGEST_INVALID');
    expect((await http('GET', `/v2/wrong/blobs/sha256:${'1'.repeat(64)}`)).status).toBe(404);
  });

  it.each([
    ['../evil', hostileTar('../evil'), 'entry "../evil" of the archive leads out of its root'],
    ['an absolute name', hostileTar('/etc/evil'), 'entry "/etc/evil" of the archive has an absolute path'],
    [
      'a link, and a file through it',
      hostileTar('link', '2', '/etc', hostileTar('link/evil')),
      'entry "link/evil" of the archive leads over a symbolic link',
    ],
    ['no tar', Buffer.from('this is no archive, whatever its name'.repeat(100)), 'tar'],
    ['a tar that is cut off', hostileTar('file').subarray(0, 300), 'tar'],
  ])('an archive with %s', async (_what, archive, words) => {
    const imported = await dockerWithInput(archive, 'import', '-', 'hostile');
    expect(imported.code).not.toBe(0);
    expect(imported.stderr.toLowerCase()).toContain(words.toLowerCase());
    expect((await docker('image', 'inspect', 'hostile')).code).toBe(1);
    const loaded = await dockerWithInput(archive, 'load');
    expect(loaded.code).not.toBe(0);
    const built = await http('POST', '/build?t=hostile', archive, { 'content-type': 'application/x-tar' });
    expect(built.body).toContain('errorDetail');
    expect((await docker('image', 'inspect', 'hostile')).code).toBe(1);
  });
});
