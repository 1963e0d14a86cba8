import { describe, expect, it } from 'vitest';
import { compileSeccomp } from './compile.js';
import { DEFAULT_PROFILE } from './default-profile.js';

const none = new Set<string>();

describe('seccomp', () => {
  it('compiles the default profile to a filter that capabilities widen', async () => {
    const narrow = await compileSeccomp(DEFAULT_PROFILE, none);
    const wide = await compileSeccomp(DEFAULT_PROFILE, new Set(['CAP_SYS_ADMIN']));
    expect(narrow.length % 8).toBe(0);
    expect(narrow.length).toBeGreaterThan(1000);
    expect(wide.equals(narrow)).toBe(false);
    expect(await compileSeccomp(DEFAULT_PROFILE, none)).toBe(narrow);
  });

  it.each([
    [{ defaultAction: 'SCMP_ACT_NOPE' }, 'unknown action "SCMP_ACT_NOPE"'],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['a b'], action: 'SCMP_ACT_ERRNO' }] },
      '"a b" is no system call',
    ],
    [
      {
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['read'], action: 'SCMP_ACT_ERRNO', args: [{ index: 0, value: 1, op: 'x' }] }],
      },
      'unknown operator "x"',
    ],
  ])('refuses %j', async (profile, message) => {
    await expect(compileSeccomp(profile, none)).rejects.toThrow(message);
  });
});
