import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { debianRootfs, docker, dockerOk } from './platform.js';

interface Inspect {
  readonly Id: string;
  readonly State: { readonly Pid: number; readonly Running: boolean };
  readonly GraphDriver: { readonly Data: { readonly LowerDir: string; readonly UpperDir: string } };
  readonly RootFS: { readonly Layers: string[] };
  readonly Config: { readonly Labels: Record<string, string>; readonly Cmd: string[] };
  readonly RepoDigests: string[];
}

const inspect = async (...names: string[]) => JSON.parse(await dockerOk('inspect', ...names)) as Inspect[];
const context = mkdtempSync(join(tmpdir(), 'gantry-context-'));
const cgroupFile = (controller: string, id: string, file: string) =>
  readFileSync(join('/sys/fs/cgroup', controller, 'gantry', inject('runDir').slice(-6), id, file), 'utf8').trim();

beforeAll(async () => {
  writeFileSync(
    join(context, 'Dockerfile'),
    [
      'FROM base',
      'LABEL org.opencontainers.image.authors=team@example.org',
      'COPY . /app',
      'RUN make /app',
      'RUN mkdir -p $HOME/.cache && rm -r $HOME/.cache',
      'CMD python3 /app/app.py',
      '',
    ].join('\n'),
  );
  writeFileSync(join(context, 'Makefile'), 'all:\n\ttrue\n');
  writeFileSync(
    join(context, 'app.py'),
    'import os, time\nprint("hello from", os.uname().nodename, flush=True)\ntime.sleep(600)\n',
  );
  await dockerOk('import', await debianRootfs(), 'base');
}, 300_000);

afterAll(() => rmSync(context, { recursive: true }));

describe('from a Debian root file system to a running container', () => {
  it('builds the image with the layers and the history the Dockerfile says', async () => {
    const output = await dockerOk('build', '-t', 'app', context);
    expect(output).toContain('Step 4/6 : RUN make /app');
    const [[image], [base]] = [await inspect('app'), await inspect('base')];
    expect(image?.RootFS.Layers).toHaveLength(4);
    expect(image?.RootFS.Layers[0]).toBe(base?.RootFS.Layers[0]);
    expect(image?.Config.Labels).toEqual({ 'org.opencontainers.image.authors': 'team@example.org' });
    expect(image?.Config.Cmd).toEqual(['/bin/sh', '-c', 'python3 /app/app.py']);
    const history = (await dockerOk('history', '--no-trunc', '--format', '{{.CreatedBy}}|{{.Size}}', 'app')).split(
      '\n',
    );
    expect(history.map((line) => line.split('|')[0]?.split(' ')[0])).toEqual([
      'CMD',
      'RUN',
      'RUN',
      'COPY',
      'LABEL',
      '',
    ]);
    expect(history[0]).toMatch(/\|0B$/);
    expect(history[4]).toMatch(/\|0B$/);
  });

  it('takes every step from the cache the second time', async () => {
    const output = await dockerOk('build', '-t', 'app', context);
    expect(output.match(/Using cache/g)).toHaveLength(3);
  });

  it('pushes it, removes it, pulls it back by digest and runs it within its limits', async () => {
    const name = `${inject('registry')}/team/app:1`;
    await dockerOk('tag', 'app', name);
    const pushed = /digest: (sha256:[a-f0-9]{64})/.exec(await dockerOk('push', name))?.[1] ?? '';
    await dockerOk('rmi', name, 'app');
    expect((await docker('image', 'inspect', name)).code).toBe(1);
    const byDigest = `${inject('registry')}/team/app@${pushed}`;
    expect(await dockerOk('pull', byDigest)).toContain(`Digest: ${pushed}`);
    const limits = ['--memory', '64m', '--cpus', '0.5', '--pids-limit', '100'];
    const ids = [
      await dockerOk('run', '-d', '--name', 'main-a', ...limits, byDigest),
      await dockerOk('run', '-d', '--name', 'main-b', byDigest),
    ];
    const [a, b] = await inspect(...ids);
    if (!a || !b) throw new Error('two containers were started');

    await expect.poll(() => dockerOk('logs', 'main-a')).toBe(`hello from ${a.Id.slice(0, 12)}`);
    expect(await dockerOk('exec', 'main-a', 'cat', '/app/Makefile')).toBe('all:\n\ttrue');

    for (const kind of ['pid', 'net', 'ipc', 'mnt', 'uts']) {
      const inside = await dockerOk('exec', 'main-a', 'readlink', `/proc/1/ns/${kind}`);
      expect(inside).toBe(readlinkSync(`/proc/${a.State.Pid}/ns/${kind}`));
      expect(inside).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
      expect(inside).not.toBe(readlinkSync(`/proc/${b.State.Pid}/ns/${kind}`));
    }
    expect(cgroupFile('memory', a.Id, 'memory.limit_in_bytes')).toBe(String(64 * 1024 * 1024));
    expect(cgroupFile('cpu', a.Id, 'cpu.cfs_quota_us')).toBe('50000');
    expect(cgroupFile('pids', a.Id, 'pids.max')).toBe('100');

    expect(a.GraphDriver.Data.LowerDir).toBe(b.GraphDriver.Data.LowerDir);
    expect(a.GraphDriver.Data.LowerDir.split(':')).toHaveLength(4);
    await dockerOk('exec', 'main-a', 'sh', '-c', 'echo changed > /app/Makefile; rm /app/app.py');
    expect(await dockerOk('exec', 'main-b', 'cat', '/app/Makefile')).toBe('all:\n\ttrue');
    expect(existsSync(join(a.GraphDriver.Data.UpperDir, 'app/Makefile'))).toBe(true);
    expect(existsSync(join(b.GraphDriver.Data.UpperDir, 'app/Makefile'))).toBe(false);

    await dockerOk('stop', '-t', '1', 'main-a', 'main-b');
    await dockerOk('rm', 'main-a', 'main-b');
    for (const { Id, State, GraphDriver } of [a, b]) {
      expect(existsSync(`/proc/${State.Pid}`)).toBe(false);
      expect(existsSync(GraphDriver.Data.UpperDir)).toBe(false);
      expect(existsSync(join(inject('runDir'), 'c', Id))).toBe(false);
      expect(existsSync(join(inject('dataRoot'), 'agent/containers', Id))).toBe(false);
      expect(existsSync(join('/sys/fs/cgroup/memory/gantry', inject('runDir').slice(-6), Id))).toBe(false);
      expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(Id);
    }
  });
});
