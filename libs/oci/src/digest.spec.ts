import { describe, expect, it } from 'vitest';
import { chainIds, Digester, digestOf, parseDigest, type Digest } from './digest.js';

describe('digests', () => {
  it('digests a stream as it digests the whole', () => {
    const digester = new Digester().update(Buffer.from('foo')).update(Buffer.from('bar'));
    expect(digester.size).toBe(6);
    expect(digester.digest()).toBe(digestOf('foobar'));
  });

  it.each(['sha256:xyz', 'md5:d41d8cd98f00b204e9800998ecf8427e', '', `sha256:${'A'.repeat(64)}`])(
    'refuses %j by name',
    (text) => {
      expect(() => parseDigest(text)).toThrow(`invalid digest "${text}"`);
    },
  );

  it('chains layers as the image specification says', () => {
    const [a, b] = [digestOf('a'), digestOf('b')] as [Digest, Digest];
    expect(chainIds([a, b])).toEqual([a, digestOf(`${a} ${b}`)]);
    expect(chainIds([])).toEqual([]);
  });
});
