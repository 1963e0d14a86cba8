import { describe, expect, it } from 'vitest';
import { applyChanges } from './image-changes.js';
import { TarGuard } from './tar-check.js';

describe('changes', () => {
  it('are applied as in a Dockerfile', () => {
    const config = applyChanges({ Env: ['A=1'] }, [
      'ENV A=2 B="x y"',
      'CMD ["a","b"]',
      'EXPOSE 80 53/udp',
      'LABEL k=v',
      'WORKDIR /w',
      'ENTRYPOINT run it',
    ]);
    expect(config).toEqual({
      Env: ['A=2', 'B=x y'],
      Cmd: ['a', 'b'],
      ExposedPorts: { '80/tcp': {}, '53/udp': {} },
      Labels: { k: 'v' },
      WorkingDir: '/w',
      Entrypoint: ['/bin/sh', '-c', 'run it'],
    });
  });

  it('name an instruction that is none', () =>
    expect(() => applyChanges({}, ['RUN x'])).toThrow('RUN is not a valid change command'));
});

describe('the guard of root file systems', () => {
  const check = (...entries: { name: string; type?: string; linkname?: string }[]) => {
    const guard = new TarGuard();
    for (const { name, type = 'file', linkname = '' } of entries) guard.check({ name, type, linkname } as never);
  };

  it.each([
    [[{ name: 'a/../../b' }], 'leads out of its root'],
    [[{ name: '/a' }], 'has an absolute path'],
    [[{ name: 'l', type: 'symlink', linkname: '/etc' }, { name: './l/x' }], 'leads over a symbolic link'],
    [[{ name: 'h', type: 'link', linkname: '../x' }], 'links to "../x" outside of its root'],
  ])('refuses %j', (entries, message) => expect(() => check(...entries)).toThrow(message));

  it('lets honest ones pass, and a link that was replaced', () => {
    check(
      { name: './bin', type: 'symlink', linkname: 'usr/bin' },
      { name: 'usr/bin/x' },
      { name: 'd', type: 'symlink', linkname: 'e' },
      { name: 'd/', type: 'directory' },
      { name: 'd/f' },
    );
  });
});
