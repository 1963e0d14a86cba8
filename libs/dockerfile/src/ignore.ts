/**
 * `.dockerignore` (docs.docker.com/build/concepts/context/#dockerignore-files): patterns relative to the context's root, `**` for any
 * depth, `!` for exceptions, the last match decides. A pattern that names a directory names what is in it. Pure.
 */

interface Rule {
  readonly pattern: RegExp;
  readonly isException: boolean;
}

function toRegExp(pattern: string): RegExp {
  let source = '';
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at] ?? '';
    if (char === '*' && pattern[at + 1] === '*') {
      at++;
      if (pattern[at + 1] === '/') {
        at++;
        source += '(?:.*/)?';
      } else source += '.*';
    } else if (char === '*') source += '[^/]*';
    else if (char === '?') source += '[^/]';
    else if (char === '[') {
      const end = pattern.indexOf(']', at + 1);
      if (end < 0) source += '\\[';
      else {
        source += `[${pattern
          .slice(at + 1, end)
          .replace(/^!/, '^')
          .replace(/\\/g, '\\\\')}]`;
        at = end;
      }
    } else if (char === '\\' && at + 1 < pattern.length) source += escapeRegExp(pattern[++at] ?? '');
    else source += escapeRegExp(char);
  }
  return new RegExp(`^${source}(?:/.*)?$`, 's');
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}

function normalise(line: string): string {
  const parts: string[] = [];
  for (const part of line.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** Lines of a `.dockerignore` file without comments and blanks. */
export function parseIgnoreFile(text: string): string[] {
  return text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** A predicate: is this path (relative, without a leading slash) left out of the context? */
export function ignoreMatcher(lines: readonly string[]): (path: string) => boolean {
  const rules = lines.flatMap((line): Rule[] => {
    const isException = line.startsWith('!');
    const pattern = normalise(isException ? line.slice(1).trim() : line);
    return pattern === '' ? [] : [{ pattern: toRegExp(pattern), isException }];
  });
  if (rules.length === 0) return () => false;
  return (path) =>
    rules.reduce((ignored, { pattern, isException }) => (pattern.test(path) ? !isException : ignored), false);
}
