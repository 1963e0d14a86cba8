import { DockerfileError } from './dockerfile-error.js';

/** One instruction as written: continuation lines joined, flags and heredocs apart. */
export interface Instruction {
  /** Upper case. */
  readonly name: string;
  readonly flags: readonly { readonly name: string; readonly value: string }[];
  /** What follows the flags. */
  readonly rest: string;
  /** The JSON (exec) form, where `rest` is one. */
  readonly json: readonly string[] | undefined;
  readonly heredocs: readonly Heredoc[];
  readonly line: number;
  /** `RUN make`, continuation lines joined: what a build prints. */
  readonly text: string;
}

export interface Heredoc {
  readonly name: string;
  readonly content: string;
  /** The name was not quoted: variables are expanded (COPY; a shell does it itself). */
  readonly expands: boolean;
}

export interface Dockerfile {
  readonly escape: '\\' | '`';
  readonly directives: Readonly<Record<string, string>>;
  readonly instructions: readonly Instruction[];
}

export const INSTRUCTIONS = [
  'ADD',
  'ARG',
  'CMD',
  'COPY',
  'ENTRYPOINT',
  'ENV',
  'EXPOSE',
  'FROM',
  'HEALTHCHECK',
  'LABEL',
  'MAINTAINER',
  'ONBUILD',
  'RUN',
  'SHELL',
  'STOPSIGNAL',
  'USER',
  'VOLUME',
  'WORKDIR',
];
const JSON_FORMS = new Set(['ADD', 'CMD', 'COPY', 'ENTRYPOINT', 'RUN', 'SHELL', 'VOLUME']);
const WITH_FLAGS = new Set(['ADD', 'COPY', 'FROM', 'HEALTHCHECK', 'RUN']);
const DIRECTIVE = /^#\s*([a-z]+)\s*=\s*(.+?)\s*$/i;
const HEREDOC = /<<(-?)(["']?)([a-zA-Z_][a-zA-Z0-9_]*)\2/g;
const MAX_BYTES = 16 * 1024 * 1024;

/** The nearest instruction within two edits, for a misspelt one. */
function suggestion(name: string): string {
  const best = INSTRUCTIONS.map((known) => [known, distance(name, known)] as const).sort((a, b) => a[1] - b[1])[0];
  return best && best[1] <= 2 ? ` (did you mean ${best[0]}?)` : '';
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function readDirectives(lines: readonly string[]): Record<string, string> {
  const directives: Record<string, string> = {};
  for (const line of lines) {
    const match = DIRECTIVE.exec(line);
    const name = match?.[1]?.toLowerCase();
    if (!match || !name || !['syntax', 'escape', 'check'].includes(name)) break;
    directives[name] = match[2] ?? '';
  }
  return directives;
}

function parseFlags(rest: string): { flags: Instruction['flags']; rest: string } {
  const flags: { name: string; value: string }[] = [];
  let remaining = rest;
  for (;;) {
    const match = /^--([a-z][a-z0-9-]*)(?:=((?:"[^"]*"|'[^']*'|\\.|[^\s"'\\])*))?(?:\s+|$)/.exec(remaining);
    if (!match) return { flags, rest: remaining };
    flags.push({ name: match[1] ?? '', value: (match[2] ?? 'true').replace(/^(["'])(.*)\1$/, '$2') });
    remaining = remaining.slice(match[0].length);
  }
}

function parseJson(rest: string): string[] | undefined {
  if (!rest.trimStart().startsWith('[')) return undefined;
  try {
    const value = JSON.parse(rest) as unknown;
    return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;
  } catch {
    return undefined; // the shell form begins with a bracket, too: `[ -f x ] && …`
  }
}

/** Reads a Dockerfile. Throws `DockerfileError` with the line. Pure; meaning (stages, variables) is others' business. */
export function parseDockerfile(source: string): Dockerfile {
  if (source.length > MAX_BYTES) throw new DockerfileError(1, 'the file is too large');
  const lines = source.replace(/^\uFEFF/, '').split(/\r?\n/);
  const directives = readDirectives(lines);
  const escape = directives.escape === '`' ? '`' : '\\';
  const instructions: Instruction[] = [];
  for (let at = 0; at < lines.length;) {
    const first = lines[at] ?? '';
    if (first.trim() === '' || first.trimStart().startsWith('#')) {
      at++;
      continue;
    }
    const start = at;
    const { text, next } = joinLines(lines, at, escape);
    const { heredocs, next: after } = readHeredocs(lines, next, text, start);
    instructions.push(toInstruction(text, heredocs, start + 1, first));
    at = after;
  }
  if (instructions.length === 0) throw new DockerfileError(1, 'file with no instructions');
  return { escape, directives, instructions };
}

/** A line that ends with the escape goes on; comments and blank lines in between do not count. */
function joinLines(lines: readonly string[], from: number, escape: string): { text: string; next: number } {
  const continues = new RegExp(`${escape === '\\' ? '\\\\' : '`'}[ \\t]*$`);
  let text = '';
  let at = from;
  for (; at < lines.length; at++) {
    const line = lines[at] ?? '';
    if (at > from && (line.trimStart().startsWith('#') || line.trim() === '')) continue;
    const goesOn = continues.test(line);
    text += goesOn ? line.replace(continues, '') : line;
    if (!goesOn) break;
  }
  return { text: text.trim(), next: at + 1 };
}

function readHeredocs(
  lines: readonly string[],
  from: number,
  text: string,
  start: number,
): { heredocs: Heredoc[]; next: number } {
  const heredocs: Heredoc[] = [];
  let at = from;
  if (!/^(RUN|COPY|ADD)\s/i.test(text)) return { heredocs, next: at };
  for (const [, dash, quote, name = ''] of text.matchAll(HEREDOC)) {
    const content: string[] = [];
    const end = (line: string) => (dash ? line.replace(/^\t+/, '') : line) === name;
    for (; at < lines.length && !end(lines[at] ?? ''); at++) {
      const line = lines[at] ?? '';
      content.push(dash ? line.replace(/^\t+/, '') : line);
    }
    if (at >= lines.length) throw new DockerfileError(start + 1, `unterminated heredoc ${name}`, lines[start]);
    at++;
    heredocs.push({ name, content: content.map((line) => `${line}\n`).join(''), expands: !quote });
  }
  return { heredocs, next: at };
}

function toInstruction(text: string, heredocs: readonly Heredoc[], line: number, source: string): Instruction {
  const [, word = '', body = ''] = /^(\S+)\s*(.*)$/s.exec(text) ?? [];
  const name = word.toUpperCase();
  if (!INSTRUCTIONS.includes(name))
    throw new DockerfileError(line, `unknown instruction: ${word}${suggestion(name)}`, source);
  const { flags, rest } = WITH_FLAGS.has(name) ? parseFlags(body) : { flags: [], rest: body };
  if (rest.trim() === '' && !(name === 'HEALTHCHECK' && flags.length > 0)) {
    throw new DockerfileError(
      line,
      `${name} requires ${name === 'FROM' || name === 'USER' || name === 'WORKDIR' ? 'exactly one argument' : 'at least one argument'}`,
      source,
    );
  }
  return {
    name,
    flags,
    rest: rest.trim(),
    json: JSON_FORMS.has(name) ? parseJson(rest) : undefined,
    heredocs,
    line,
    text: `${name} ${body}`.trim(),
  };
}
