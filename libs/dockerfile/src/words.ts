import { InvalidArgument } from '@gantry/errors';

export type Variables = (name: string) => string | undefined;

/** `*`, `?` and `[…]` of a shell pattern as a regular expression. */
function patternSource(pattern: string, greedy: boolean): string {
  return pattern.replace(/\\(.)|[*?]|[.+^${}()|\]\\/]/g, (char, escaped: string | undefined) => {
    if (escaped !== undefined) return escaped.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
    if (char === '*') return greedy ? '.*' : '.*?';
    return char === '?' ? '.' : `\\${char}`;
  });
}

class Expander {
  #at = 0;

  constructor(
    private readonly text: string,
    private readonly variables: Variables,
    private readonly escape: string,
  ) {}

  expand(): string {
    let out = '';
    let quote = '';
    for (; this.#at < this.text.length; this.#at++) {
      const char = this.text[this.#at] ?? '';
      if (quote === "'") {
        if (char === "'") quote = '';
        else out += char;
      } else if (char === this.escape) {
        const next = this.text[++this.#at];
        // Inside double quotes only what is special there is escaped.
        if (next === undefined) out += char;
        else out += quote === '"' && !['"', '$', this.escape].includes(next) ? char + next : next;
      } else if (char === '"') quote = quote === '"' ? '' : '"';
      else if (char === "'" && quote === '') quote = "'";
      else if (char === '$') out += this.#variable();
      else out += char;
    }
    if (quote)
      throw new InvalidArgument(
        `unexpected end of statement while looking for matching ${quote === '"' ? 'double' : 'single'}-quote`,
      );
    return out;
  }

  /** At a `$`: what it and what follows stand for. Leaves the position on the last character used. */
  #variable(): string {
    const rest = this.text.slice(this.#at + 1);
    const plain = /^([a-zA-Z_][a-zA-Z0-9_]*|[0-9@*#?!$-])/.exec(rest);
    if (plain) {
      this.#at += plain[0].length;
      return this.variables(plain[0]) ?? '';
    }
    if (!rest.startsWith('{')) return '$';
    const end = matchingBrace(rest);
    if (end < 0) throw new InvalidArgument('syntax error: missing "}" in substitution');
    this.#at += end + 1;
    return this.#braced(rest.slice(1, end));
  }

  #braced(body: string): string {
    const [, name = '', operator = '', argument = ''] =
      /^([a-zA-Z_][a-zA-Z0-9_]*)(:?[-+?]|##?|%%?|\/\/?)?(.*)$/s.exec(body) ?? [];
    if (name === '' || (operator === '' && argument !== ''))
      throw new InvalidArgument(`unsupported modifier in substitution: \${${body}}`);
    const value = this.variables(name);
    const isSet = operator.startsWith(':') ? value !== undefined && value !== '' : value !== undefined;
    const word = () => new Expander(argument, this.variables, this.escape).expand();
    switch (operator.replace(':', '')) {
      case '':
        return value ?? '';
      case '-':
        return isSet ? (value ?? '') : word();
      case '+':
        return isSet ? word() : '';
      case '?':
        if (!isSet) throw new InvalidArgument(`${name}: ${word() || 'not allowed to be unset'}`);
        return value ?? '';
      case '#':
      case '##':
        return (value ?? '').replace(new RegExp(`^${patternSource(word(), operator === '##')}`, 's'), '');
      case '%':
      case '%%':
        return trimEnd(value ?? '', word(), operator === '%%');
      default: {
        const [pattern = '', replacement = ''] = splitPattern(argument);
        const source = new RegExp(patternSource(pattern, true), operator === '//' ? 'gs' : 's');
        return (value ?? '').replace(source, () => new Expander(replacement, this.variables, this.escape).expand());
      }
    }
  }
}

/** The shortest (or longest) end of the value that fits the pattern, taken off. */
function trimEnd(value: string, pattern: string, longest: boolean): string {
  const whole = new RegExp(`^${patternSource(pattern, true)}$`, 's');
  const starts = Array.from({ length: value.length + 1 }, (_, index) => (longest ? index : value.length - index));
  const start = starts.find((index) => whole.test(value.slice(index)));
  return start === undefined ? value : value.slice(0, start);
}

function matchingBrace(text: string): number {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '{') depth++;
    else if (text[at] === '}' && --depth === 0) return at;
  }
  return -1;
}

/** `pattern/replacement`, where the pattern may hold escaped slashes. */
function splitPattern(text: string): [string, string] {
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '/') return [text.slice(0, at).replaceAll('\\/', '/'), text.slice(at + 1)];
  }
  return [text, ''];
}

/** One word with its variables replaced and its quotes removed. Throws `InvalidArgument`. Pure. */
export function expandWord(text: string, variables: Variables, escape = '\\'): string {
  return new Expander(text, variables, escape).expand();
}

/** Words of a line, cut at blanks outside of quotes; quotes stay. */
export function splitWords(text: string, escape = '\\'): string[] {
  const words: string[] = [];
  let word = '';
  let quote = '';
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? '';
    if (char === escape && quote !== "'") {
      word += char + (text[++at] ?? '');
    } else if (quote) {
      if (char === quote) quote = '';
      word += char;
    } else if (/\s/.test(char) && depth === 0) {
      if (word) words.push(word);
      word = '';
    } else {
      if (char === '"' || char === "'") quote = char;
      if (char === '{' && word.endsWith('$')) depth++;
      else if (char === '}' && depth > 0) depth--;
      word += char;
    }
  }
  if (word) words.push(word);
  return words;
}

/** `a=b c="d e"`, or the old form `a b c`. Names and values unexpanded. Throws `InvalidArgument` that names the word. */
export function parsePairs(rest: string, instruction: string, escape = '\\'): [name: string, value: string][] {
  const words = splitWords(rest, escape);
  const first = words[0] ?? '';
  if (!first.includes('=')) {
    if (words.length < 2) throw new InvalidArgument(`${instruction} must have two arguments`);
    return [[first, rest.slice(first.length).trim()]];
  }
  return words.map((word) => {
    const at = word.indexOf('=');
    if (at <= 0) throw new InvalidArgument(`Syntax error - can't find = in "${word}". Must be of the form: name=value`);
    return [word.slice(0, at), word.slice(at + 1)];
  });
}
