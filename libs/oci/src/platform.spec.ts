import { describe, expect, it } from 'vitest';
import { formatPlatform, hostPlatform, parsePlatform, satisfies } from './platform.js';

describe('platforms', () => {
  it.each([
    ['linux/amd64', 'linux/amd64'],
    ['x86_64', 'linux/amd64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/v6', 'linux/arm/v6'],
  ])('%s is %s', (text, normal) => expect(formatPlatform(parsePlatform(text))).toBe(normal));

  it('refuses what is no platform', () =>
    expect(() => parsePlatform('linux/amd64/x/y')).toThrow('unknown operating system'));

  it('runs what was built for an older arm, not for a newer one', () => {
    expect(satisfies(parsePlatform('linux/arm/v6'), parsePlatform('linux/arm/v7'))).toBe(true);
    expect(satisfies(parsePlatform('linux/arm/v7'), parsePlatform('linux/arm/v6'))).toBe(false);
    expect(satisfies(hostPlatform('x64'), parsePlatform('linux/arm64'))).toBe(false);
  });
});
