import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LayerTool } from './layer-tool.js';

const root = mkdtempSync(join(tmpdir(), 'gantry-layers-'));
let tool: LayerTool;
let count = 0;

function directory(): string {
  const path = join(root, `d${++count}`);
  mkdirSync(path);
  return path;
}

/** A tar made of raw entries: what honest tools refuse to write. */
function tar(...entries: { name: string; type?: string; link?: string; content?: string; mode?: number }[]): Buffer {
  const blocks = entries.flatMap(({ name, type = '0', link = '', content = '', mode = 0o644 }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0, 100);
    header.write(`${mode.toString(8).padStart(7, '0')}\0`, 100);
    header.write('0000000\0', 108);
    header.write('0000000\0', 116);
    header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
    header.write('00000000001\0', 136);
    header.write('        ', 148);
    header.write(type, 156);
    header.write(link, 157, 100);
    header.write('ustar\0' + '00', 257);
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
    body.write(content);
    return [header, body];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

const apply = (bytes: Buffer, into: string, options: object = {}) =>
  tool.apply(Readable.from([bytes]), { into, ...options });

async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

beforeAll(async () => {
  tool = await LayerTool.start({ socketPath: join(root, 'layer.sock') });
});

afterAll(async () => {
  await tool.close();
  rmSync(root, { recursive: true });
});

describe('apply', () => {
  it('unpacks what GNU tar packed: content, modes, owners, links, times', async () => {
    const source = directory();
    execFileSync(
      'sh',
      [
        '-c',
        'mkdir -p a/b; echo hi > a/b/f; chmod 4755 a/b/f; ln a/b/f a/hard; ln -s b/f a/soft; mkfifo a/pipe; chown 12:34 a/b/f; touch -d 2001-02-03T04:05:06.789 a/b/f a/b; printf x > "$(printf "n%.0s" $(seq 150))"',
      ],
      { cwd: source },
    );
    const bytes = execFileSync('tar', ['--format=pax', '-C', source, '-cf', '-', '.'], { maxBuffer: 1e8 });
    const into = directory();
    const { entries, diffId } = await apply(bytes, into);
    expect(entries).toBe(8);
    expect(diffId).toBe(`sha256:${execFileSync('sha256sum', { input: bytes }).toString().slice(0, 64)}`);
    const list = (path: string) =>
      execFileSync('find', ['.', '-printf', '%p %y %m %U %G %s %l %T@ %n\n'], { cwd: path })
        .toString()
        .split('\n')
        .sort();
    expect(list(into)).toEqual(list(source));
  });

  it('turns whiteouts into overlay’s', async () => {
    const into = directory();
    await apply(tar({ name: 'd/', type: '5', mode: 0o755 }, { name: 'd/.wh.gone' }, { name: 'd/.wh..wh..opq' }), into, {
      whiteouts: true,
    });
    expect(lstatSync(join(into, 'd/gone')).isCharacterDevice()).toBe(true);
    expect(
      execFileSync('getfattr', ['-n', 'trusted.overlay.opaque', '--only-values', join(into, 'd')]).toString(),
    ).toBe('y');
  });

  it('gives implied directories the owner and mode they have below', async () => {
    const lower = directory();
    mkdirSync(join(lower, 'tmp'), { mode: 0o777 });
    execFileSync('chmod', ['1777', join(lower, 'tmp')]);
    const into = directory();
    await apply(tar({ name: 'tmp/x', content: '1' }), into, { lowerdirs: [lower] });
    expect(lstatSync(join(into, 'tmp')).mode & 0o7777).toBe(0o1777);
  });

  it.each([
    [
      'a name that leads out',
      tar({ name: '../evil', content: 'x' }),
      'entry "../evil" of the archive leads out of its root',
    ],
    ['a name that leads out later', tar({ name: 'a/../../evil', content: 'x' }), 'entry "a/../../evil"'],
    [
      'an absolute name',
      tar({ name: '/etc/evil', content: 'x' }),
      'entry "/etc/evil" of the archive has an absolute path',
    ],
    [
      'a write through its own link',
      tar({ name: 'l', type: '2', link: '/tmp' }, { name: 'l/evil', content: 'x' }),
      'entry "l/evil" of the archive leads over a symbolic link',
    ],
    [
      'a write through a relative link',
      tar({ name: 'l', type: '2', link: '..' }, { name: 'l/evil', content: 'x' }),
      'entry "l/evil"',
    ],
    ['a hard link to the outside', tar({ name: 'h', type: '1', link: '../../../etc/passwd' }), 'leads out of its root'],
    [
      'a hard link through a link',
      tar({ name: 'l', type: '2', link: '/etc' }, { name: 'h', type: '1', link: 'l/passwd' }),
      'entry "h": hard link to "l/passwd"',
    ],
    ['an overlay device', tar({ name: 'w', type: '3' }), 'entry "w" of the archive is a device 0/0'],
    ['an unknown type', tar({ name: 'u', type: 'Z' }), 'unknown type'],
    ['a cut end', tar({ name: 'f', content: 'x'.repeat(2000) }).subarray(0, 1000), 'cut off'],
    ['no tar', Buffer.from('x'.repeat(4096)), 'invalid tar header'],
  ])('refuses %s by name', async (_what, bytes, message) => {
    const into = directory();
    await expect(apply(bytes, into, { strict: true })).rejects.toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringContaining(message) as string,
    });
    expect(existsSync(join(root, 'evil'))).toBe(false);
    expect(existsSync('/tmp/evil')).toBe(false);
  });

  it('lets a later entry take the place of an earlier one, whatever it was', async () => {
    const into = directory();
    await apply(
      tar(
        { name: 'x/', type: '5', mode: 0o755 },
        { name: 'x/y', content: '1' },
        { name: 'x', content: 'file' },
        { name: 'l', type: '2', link: '/etc/passwd' },
        { name: 'l', content: 'mine' },
      ),
      into,
    );
    expect(readFileSync(join(into, 'x'), 'utf8')).toBe('file');
    expect(readFileSync(join(into, 'l'), 'utf8')).toBe('mine');
    expect(readFileSync('/etc/passwd', 'utf8')).not.toBe('mine');
  });
});

describe('diff', () => {
  it('packs what apply unpacks, and twice the same', async () => {
    const upper = directory();
    execFileSync(
      'sh',
      [
        '-c',
        'mkdir -p d/e; echo 1 > d/e/f; ln d/e/f d/g; ln -s x d/l; mknod d/gone c 0 0; mkdir o; setfattr -n trusted.overlay.opaque -v y o; setfattr -n user.k -v v d/e/f',
      ],
      { cwd: upper },
    );
    const first = await collect(tool.diff(upper));
    expect((await collect(tool.diff(upper))).equals(first)).toBe(true);
    const names = execFileSync('tar', ['-tf', '-'], { input: first }).toString().trim().split('\n');
    expect(names).toEqual(['d/', 'd/e/', 'd/e/f', 'd/g', 'd/.wh.gone', 'd/l', 'o/', 'o/.wh..wh..opq']);
    const into = directory();
    await apply(first, into, { whiteouts: true });
    expect((await collect(tool.diff(into))).equals(first)).toBe(true);
  });
});

describe('copy', () => {
  it('copies into the merged tree, over the tree’s own links, never out of it', async () => {
    const [lower, upper, work, from] = [directory(), directory(), directory(), directory()];
    execFileSync(
      'sh',
      [
        '-c',
        'mkdir -p run etc tmp; ln -s /run var; ln -s ../../../../../tmp escape; echo "ada:x:7:8::/:" > etc/passwd; : > etc/group',
      ],
      { cwd: lower },
    );
    writeFileSync(join(from, 'f'), 'hello');
    mkdirSync(join(from, 'sub'));
    const tree = { lowerdirs: [lower], upperdir: upper, workdir: work };
    await tool.copy(
      tree,
      { directory: from },
      [
        ['f', '/var/'],
        ['f', '/escape/evil-copy'],
        ['sub', '/new/sub'],
        ['f', '/new/name'],
      ],
      { chown: 'ada', chmod: '600' },
    );
    expect(readFileSync(join(upper, 'run/f'), 'utf8')).toBe('hello');
    expect(existsSync('/tmp/evil-copy')).toBe(false);
    expect(readdirSync(join(upper, 'new')).sort()).toEqual(['name', 'sub']);
    const status = lstatSync(join(upper, 'new/name'));
    expect([status.uid, status.gid, status.mode & 0o777]).toEqual([7, 8, 0o600]);
    expect(await tool.makeDirectory(tree, '/var/w/x')).toBe(true);
    expect(existsSync(join(upper, 'run/w/x'))).toBe(true);
    await expect(tool.copy(tree, { directory: from }, [['f', '/']], { chown: 'nobody-here' })).rejects.toThrow(
      'unable to find user nobody-here',
    );
  });

  it('lists and reads without following links out', async () => {
    const from = directory();
    execFileSync('sh', ['-c', 'mkdir d; echo 1 > d/f; ln -s /etc/passwd d/out'], { cwd: from });
    const entries = await tool.list({ directory: from }, [''], { hash: true });
    expect(entries.map(({ path, type }) => `${path} ${type}`)).toEqual(['d directory', 'd/f file', 'd/out link']);
    expect(entries[1]?.sha256).toBe(
      execFileSync('sha256sum', [join(from, 'd/f')])
        .toString()
        .slice(0, 64),
    );
    expect(readlinkSync(join(from, 'd/out'))).toBe('/etc/passwd');
    await expect(tool.readFile({ directory: from }, 'd/out', 1e6)).rejects.toMatchObject({ code: 'NotFound' });
    expect((await tool.readFile({ directory: from }, 'd/f', 100)).toString()).toBe('1\n');
  });
});
