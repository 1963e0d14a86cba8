import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatFamiliar, formatReference, parseReference, withDefaultTag } from './reference.js';

const digest = `sha256:${'ab'.repeat(32)}`;

describe('references', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['team/app:1.2', 'docker.io/team/app:1.2', 'team/app:1.2'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['127.0.0.1:5000/team/app:v1', '127.0.0.1:5000/team/app:v1', '127.0.0.1:5000/team/app:v1'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`, `busybox@${digest}`],
    [`busybox:1@${digest}`, `docker.io/library/busybox:1@${digest}`, `busybox:1@${digest}`],
    ['[::1]:5000/a', '[::1]:5000/a:latest', '[::1]:5000/a:latest'],
    ['docker.io/library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
  ])('%s is %s, shown as %s', (text, full, familiar) => {
    const reference = withDefaultTag(parseReference(text));
    expect(formatReference(reference)).toBe(full);
    expect(formatFamiliar(reference)).toBe(familiar);
  });

  it.each([
    ['', 'invalid reference format'],
    ['App', 'invalid reference format: repository name (library/App) must be lowercase'],
    ['a//b', 'invalid reference format'],
    ['a:', 'invalid reference format'],
    ['a:b c', 'invalid reference format'],
    ['-a', 'invalid reference format'],
    ['a@sha256:123', 'invalid checksum digest format'],
    ['a'.repeat(260), 'repository name must not be more than 255 characters'],
    ['ab'.repeat(32), 'cannot specify 64-byte hexadecimal strings'],
  ])('refuses %j', (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
  });

  it('reads back what it writes', () => {
    const component = fc.stringMatching(/^[a-z0-9]{1,8}$/);
    fc.assert(
      fc.property(
        fc.constantFrom('docker.io', 'localhost', 'example.org:5000'),
        fc.array(component, { minLength: 1, maxLength: 3 }),
        fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/),
        (domain, components, tag) => {
          const full = formatReference(parseReference(`${domain}/${components.join('/')}:${tag}`));
          expect(formatReference(parseReference(full))).toBe(full);
          expect(formatReference(parseReference(formatFamiliar(parseReference(full))))).toBe(full);
        },
      ),
    );
  });
});
