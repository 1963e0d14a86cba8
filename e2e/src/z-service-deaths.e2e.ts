import { beforeAll, describe, expect, it } from 'vitest';
import { dockerOk, ensureBusybox, eventually, http, services } from './platform.js';

beforeAll(ensureBusybox);

describe('the death of a service', () => {
  it('of each in turn leaves a container running and its log whole', async () => {
    const id = await dockerOk(
      'run',
      '-d',
      '--name',
      'ticker',
      'busybox',
      'sh',
      '-c',
      'i=0; while true; do i=$((i+1)); echo $i; usleep 10000; done',
    );
    const pid = await dockerOk('inspect', '-f', '{{.State.Pid}}', id);
    for (const { name, pid: victim } of await services()) {
      process.kill(victim, 'SIGKILL');
      await eventually(`${name} is back`, async () => {
        const now = (await services()).find((service) => service.name === name)?.pid;
        if (!now || now === victim) return false;
        return (await http('GET', '/readyz').catch(() => ({ status: 0 }))).status === 200;
      });
      expect(await dockerOk('inspect', '-f', '{{.State.Pid}} {{.State.Running}}', id)).toBe(`${pid} true`);
    }
    const before = Number(await dockerOk('logs', '--tail', '1', id));
    await eventually('it goes on', async () => Number(await dockerOk('logs', '--tail', '1', id)) > before);
    await dockerOk('stop', '-t', '0', id);
    const lines = (await dockerOk('logs', id)).split('\n').map(Number);
    expect(lines.length).toBeGreaterThan(100);
    expect(lines.every((line, index) => line === index + 1)).toBe(true);
    await dockerOk('rm', id);
  });
});
