import { agent } from '@gantry/contracts';
import { describe, expect, it } from 'vitest';
import { capabilitySets, effectiveCapabilities } from './capabilities.js';
import { compilePlan, limitsOf, MASKED_PATHS, READONLY_PATHS, type PlanInput } from './container-plan.js';
import { mergeImage } from './container.js';
import { noProcess } from './containers.service.js';
import { signalNumber } from './signals.js';

function input(host: Partial<agent.HostConfig> = {}, process: Partial<agent.ProcessConfig> = {}): PlanInput {
  return {
    id: 'c1',
    runDir: '/run/c1',
    process: { ...noProcess(), ...process },
    host: agent.HostConfig.fromPartial(host),
    hostname: 'c1',
    domainname: '',
    argv: ['true'],
    tree: { lowerdirs: ['/l'], upperdir: '/u', workdir: '/w' },
    cgroup: { directories: [], writes: [] },
    cgroupVersion: 1,
    cgroupControllers: ['memory', 'systemd'],
    network: 'new',
    files: { hostname: '/h', hosts: '/hs', resolvConf: '/r' },
    capabilities: new Set(['CAP_CHOWN']),
    seccomp: undefined,
    log: undefined,
    holdOutput: false,
  };
}

const compile = (...args: Parameters<typeof input>) => compilePlan(input(...args), (path) => path.endsWith('.txt'));

describe('a plan', () => {
  it('has Docker’s default mounts, in order, read-only where Docker’s are', () => {
    expect(compile().mounts.map(({ target, readOnly }) => `${target}${readOnly ? ' ro' : ''}`)).toEqual([
      '/proc',
      '/dev',
      '/dev/pts',
      '/sys ro',
      '/sys/fs/cgroup',
      '/sys/fs/cgroup/memory ro',
      '/sys/fs/cgroup/systemd ro',
      '/dev/mqueue',
      '/dev/shm',
      '/etc/resolv.conf',
      '/etc/hostname',
      '/etc/hosts',
    ]);
  });

  it('masks and protects what Docker does, and nothing of a privileged one', () => {
    expect(compile()).toMatchObject({ maskedPaths: MASKED_PATHS, readonlyPaths: READONLY_PATHS });
    expect(compile({ privileged: true })).toMatchObject({ maskedPaths: [], readonlyPaths: [] });
  });

  it('completes the environment without overriding it', () => {
    expect(compile({}, { env: ['HOSTNAME=mine'], tty: true }).process.env).toEqual([
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'TERM=xterm',
      'HOSTNAME=mine',
    ]);
  });

  it('binds files onto files', () => {
    const mounts = compile({ binds: ['/a.txt:/b:ro', '/d:/e:rshared'], tmpfs: { '/t': 'size=1m,exec' } }).mounts.slice(
      -3,
    );
    expect(mounts[0]).toMatchObject({ source: '/a.txt', target: '/b', readOnly: true, isFile: true });
    expect(mounts[1]).toMatchObject({ source: '/d', target: '/e', readOnly: false, propagation: 'shared' });
    expect(mounts[2]).toMatchObject({ type: 'tmpfs', target: '/t', data: 'size=1m', noExec: false });
  });

  it('names a limit that is none', () => {
    expect(() => compile({ ulimits: [{ name: 'files', soft: 1, hard: 1 }] })).toThrow('invalid ulimit type: files');
    expect(() => compile({ binds: ['/a:b'] })).toThrow("invalid volume specification: '/a:b'");
  });
});

describe('limits', () => {
  it('come out as the kernel takes them', () => {
    const resources = agent.ResourceLimits.fromPartial({ nanoCpus: 1.5e9, memoryBytes: 1e8, pidsLimit: -1 });
    expect(limitsOf(resources, true)).toEqual({ cpuQuotaUs: 150_000, memoryBytes: 1e8 });
  });

  it.each([
    [{ memoryBytes: 1000 }, 'Minimum memory limit allowed is 6MB'],
    [{ memoryBytes: 1e8, memorySwapBytes: 1e7 }, 'Minimum memoryswap limit should be larger'],
    [{ nanoCpus: 1, cpuQuotaUs: 1 }, 'Nano CPUs and CPU Quota cannot both be set'],
  ])('refuse %j', (resources, message) => {
    expect(() => limitsOf(agent.ResourceLimits.fromPartial(resources), false)).toThrow(message);
  });
});

describe('capabilities', () => {
  it('are Docker’s fourteen by default', () => {
    expect(capabilitySets(effectiveCapabilities([], [], false)).bounding).toBe(0xa80425fbn);
  });

  it('are added, dropped, or all', () => {
    expect(effectiveCapabilities(['net_admin'], ['ALL'], false)).toEqual(new Set(['CAP_NET_ADMIN']));
    expect(effectiveCapabilities(['ALL'], ['CAP_MKNOD'], false).has('CAP_MKNOD')).toBe(false);
    expect(effectiveCapabilities([], [], true).size).toBe(41);
    expect(() => effectiveCapabilities(['FLY'], [], false)).toThrow('unknown capability: "FLY"');
  });
});

describe('image and request', () => {
  const image = { Entrypoint: ['/entry'], Cmd: ['default'], Env: ['A=1', 'B=2'], WorkingDir: '/w', User: 'u' };
  const merge = (process: Partial<agent.ProcessConfig>) =>
    mergeImage(agent.CreateContainerRequest.fromPartial({ process }), image).process;

  it('take the image’s where the request is silent', () => {
    expect(merge({})).toMatchObject({
      entrypoint: { values: ['/entry'] },
      command: { values: ['default'] },
      env: ['A=1', 'B=2'],
      workingDir: '/w',
      user: 'u',
    });
  });

  it('drop the image’s command with its entrypoint', () => {
    expect(merge({ entrypoint: { values: ['/mine'] } })).toMatchObject({
      entrypoint: { values: ['/mine'] },
      command: undefined,
    });
    expect(merge({ command: { values: ['arg'] } })).toMatchObject({
      entrypoint: { values: ['/entry'] },
      command: { values: ['arg'] },
    });
  });

  it('override a variable, or remove it', () => {
    expect(merge({ env: ['A=9', 'B'] })?.env).toEqual(['A=9']);
  });
});

it.each([
  ['TERM', 15],
  ['SIGKILL', 9],
  ['10', 10],
  ['RTMIN+3', 37],
])('signal %s is %i', (text, number) => expect(signalNumber(text)).toBe(number));

it('names a signal that is none', () => expect(() => signalNumber('NOPE')).toThrow('Invalid signal: NOPE'));
