import { beforeAll, describe, expect, it } from 'vitest';
import { docker, dockerOk, dockerWithInput, ensureBusybox, http } from './platform.js';

beforeAll(ensureBusybox);

describe('docker run', () => {
  it.each([
    [['sh', '-c', 'exit 7'], 7],
    [['no-such-command'], 127],
    [['/etc'], 126],
    [['sh', '-c', 'sh -c "kill -9 \\$\\$"; exit $?'], 137],
  ])('%j ends with %i', async (argv, code) => {
    expect((await docker('run', '--rm', 'busybox', ...argv)).code).toBe(code);
  });

  it('keeps standard output and error apart, from the first byte to the last', async () => {
    const { stdout, stderr } = await docker('run', '--rm', 'busybox', 'sh', '-c', 'seq 1 50000; echo oops >&2');
    expect(stdout.trim().split('\n')).toHaveLength(50_000);
    expect(stderr).toBe('oops\n');
  });

  it('reads standard input to its end', async () => {
    const input = 'line\n'.repeat(100_000);
    expect((await dockerWithInput(input, 'run', '-i', '--rm', 'busybox', 'cat')).stdout).toBe(input);
  });

  it('publishes a port that this host and other containers reach, and gives it back', async () => {
    await dockerOk(
      'run',
      '-d',
      '--name',
      'echo',
      '-p',
      '127.0.0.1::80',
      'busybox',
      'sh',
      '-c',
      'while true; do echo -e "HTTP/1.0 200 OK\\r\\n\\r\\nhi" | nc -l -p 80; done',
    );
    const port = (await dockerOk('port', 'echo', '80')).split(':').at(-1);
    await expect
      .poll(async () => (await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined))?.text(), { timeout: 5_000 })
      .toBe('hi\n');
    const taken = await docker('run', '--rm', '-p', `127.0.0.1:${port}:80`, 'busybox', 'true');
    expect(taken.code).toBe(125);
    expect(taken.stderr).toContain('port is already allocated');
    const address = await dockerOk('inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'echo');
    expect(await dockerOk('run', '--rm', 'busybox', 'wget', '-qO-', `http://${address}/`)).toBe('hi');
    await dockerOk('rm', '-f', 'echo');
    expect((await docker('run', '--rm', '-p', `127.0.0.1:${port}:80`, 'busybox', 'true')).code).toBe(0);
  });

  it('confines by default as Docker documents it', async () => {
    const status = await dockerOk('run', '--rm', 'busybox', 'cat', '/proc/self/status');
    expect(/CapBnd:\s+(\w+)/.exec(status)?.[1]).toBe('00000000a80425fb');
    expect(/Seccomp:\s+(\d)/.exec(status)?.[1]).toBe('2');
    const denied = await docker(
      'run',
      '--rm',
      'busybox',
      'sh',
      '-c',
      'mount -t tmpfs x /tmp; echo 1 > /proc/sys/kernel/panic; cat /proc/kcore | head -c1 | wc -c; ls /dev',
    );
    expect(denied.stderr).toContain('mount');
    expect(denied.stderr).toContain('Read-only file system');
    expect(denied.stdout.split('\n')[0]).toBe('0');
    expect(denied.stdout.split('\n').slice(1).filter(Boolean).sort()).toEqual([
      'core',
      'fd',
      'full',
      'mqueue',
      'null',
      'ptmx',
      'pts',
      'random',
      'shm',
      'stderr',
      'stdin',
      'stdout',
      'tty',
      'urandom',
      'zero',
    ]);
  });
});

describe('a running container', () => {
  it('is listed, inspected, paused, renamed, stopped in time and removed', async () => {
    const id = await dockerOk('run', '-d', '--name', 'life', '--label', 'a=b', 'busybox', 'sleep', '600');
    expect(await dockerOk('ps', '-q', '--no-trunc', '--filter', 'label=a=b')).toBe(id);
    await dockerOk('pause', 'life');
    expect(await dockerOk('inspect', '-f', '{{.State.Status}}', 'life')).toBe('paused');
    await dockerOk('unpause', 'life');
    await dockerOk('rename', 'life', 'later');
    expect((await docker('rm', 'later')).stderr).toContain('container is running');
    await dockerOk('stop', '-t', '1', 'later');
    expect(await dockerOk('inspect', '-f', '{{.State.ExitCode}}', 'later')).toBe('137');
    await dockerOk('start', 'later');
    await dockerOk('kill', '-s', 'TERM', 'later').catch(() => undefined);
    await dockerOk('rm', '-f', 'later');
    expect((await docker('inspect', 'later')).code).toBe(1);
  });

  it('executes more, with an exit code of its own', async () => {
    await dockerOk('run', '-d', '--name', 'execs', '-e', 'A=1', 'busybox', 'sleep', '600');
    expect(await dockerOk('exec', '-e', 'B=2', '-w', '/tmp', 'execs', 'sh', '-c', 'echo $A$B; pwd')).toBe('12\n/tmp');
    expect((await docker('exec', 'execs', 'sh', '-c', 'exit 9')).code).toBe(9);
    expect((await dockerWithInput('in\n', 'exec', '-i', 'execs', 'cat')).stdout).toBe('in\n');
    expect((await docker('exec', 'execs', 'nothing-like-it')).code).toBe(127);
    await dockerOk('rm', '-f', 'execs');
  });

  it('shows the last of its log, with times, since and until', async () => {
    await dockerOk('run', '--name', 'logs', 'busybox', 'seq', '1', '1000');
    expect(await dockerOk('logs', '--tail', '2', 'logs')).toBe('999\n1000');
    expect(await dockerOk('logs', '-t', '--tail', '1', 'logs')).toMatch(/^\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z 1000$/);
    expect(await dockerOk('logs', '--since', '1h', '--tail', 'all', 'logs')).toContain('\n500\n');
    expect(await dockerOk('logs', '--until', '2001-01-01T00:00:00Z', 'logs')).toBe('');
    await dockerOk('rm', 'logs');
  });

  it('starts again by its restart policy', async () => {
    await dockerOk(
      'run',
      '-d',
      '--name',
      'again',
      '--restart',
      'on-failure:2',
      'busybox',
      'sh',
      '-c',
      'echo run; exit 1',
    );
    await expect.poll(() => dockerOk('logs', 'again'), { timeout: 10_000 }).toBe('run\nrun\nrun');
    await expect.poll(() => dockerOk('inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'again')).toBe('exited 2');
    await dockerOk('rm', 'again');
  });

  it('reports one sample of its use', async () => {
    await dockerOk('run', '-d', '--name', 'used', '-m', '32m', 'busybox', 'sleep', '600');
    const stats = JSON.parse((await http('GET', '/containers/used/stats?stream=false&one-shot=true')).body) as {
      memory_stats: { limit: number; usage: number };
      pids_stats: { current: number };
    };
    expect(stats.memory_stats.limit).toBe(32 * 1024 * 1024);
    expect(stats.memory_stats.usage).toBeGreaterThan(0);
    expect(stats.pids_stats.current).toBe(1);
    await dockerOk('rm', '-f', 'used');
  });
});

describe('images', () => {
  it('survive save and load', async () => {
    await dockerOk('tag', 'busybox', 'saved:1');
    const archive = '/tmp/gantry-e2e-saved.tar';
    const id = await dockerOk('inspect', '-f', '{{.Id}}', 'saved:1');
    await dockerOk('save', '-o', archive, 'saved:1');
    await dockerOk('rmi', 'saved:1');
    expect(await dockerOk('load', '-i', archive)).toContain('Loaded image: saved:1');
    expect(await dockerOk('inspect', '-f', '{{.Id}}', 'saved:1')).toBe(id);
    await dockerOk('rmi', 'saved:1');
  });

  it('cannot be removed from under a running container', async () => {
    await dockerOk('tag', 'busybox', 'held:1');
    const id = await dockerOk('run', '-d', 'held:1', 'sleep', '600');
    const image = await dockerOk('inspect', '-f', '{{.Image}}', id);
    const { code, stderr } = await docker('rmi', image);
    expect(code).toBe(1);
    expect(stderr).toContain('image is being used by running container');
    await dockerOk('rm', '-f', id);
    await dockerOk('rmi', 'held:1');
  });
});
