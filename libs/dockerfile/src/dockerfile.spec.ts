import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ignoreMatcher, parseIgnoreFile } from './ignore.js';
import { parseDockerfile } from './parser.js';
import { findStage, neededStages, toStages } from './stages.js';
import { expandWord, parsePairs, splitWords } from './words.js';

const variables = (name: string) => ({ x: 'foo.tar.gz', empty: '', path: '/a/b/c' })[name];

describe('parser', () => {
  it('joins lines, keeps flags, JSON forms and line numbers', () => {
    const { instructions } = parseDockerfile(
      '# c\nFROM a\nRUN one \\\n  # between\n  two\nCOPY --chown=1:2 --from=b x /y\nCMD ["a", "b c"]\n',
    );
    expect(instructions.map(({ name, line }) => [name, line])).toEqual([
      ['FROM', 2],
      ['RUN', 3],
      ['COPY', 6],
      ['CMD', 7],
    ]);
    expect(instructions[1]?.rest).toBe('one   two');
    expect(instructions[2]).toMatchObject({
      flags: [
        { name: 'chown', value: '1:2' },
        { name: 'from', value: 'b' },
      ],
      rest: 'x /y',
    });
    expect(instructions[3]?.json).toEqual(['a', 'b c']);
  });

  it('reads heredocs, tabs stripped where asked', () => {
    const { instructions } = parseDockerfile(
      'FROM a\nRUN <<EOF\necho 1\necho 2\nEOF\nCOPY <<-"A" <<B /d/\n\tx\nA\n$y\nB\nUSER u',
    );
    expect(instructions[1]?.heredocs).toEqual([{ name: 'EOF', content: 'echo 1\necho 2\n', expands: true }]);
    expect(instructions[2]?.heredocs).toEqual([
      { name: 'A', content: 'x\n', expands: false },
      { name: 'B', content: '$y\n', expands: true },
    ]);
    expect(instructions[3]?.name).toBe('USER');
  });

  it('takes the escape directive', () => {
    expect(parseDockerfile('# escape=`\nFROM a\nRUN x `\n y').instructions[1]?.rest).toBe('x  y');
  });

  it.each([
    ['FORM x', 'dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)'],
    ['FROM a\nRUN', 'on line 2: RUN requires at least one argument'],
    ['FROM a\nRUN <<E\nx', 'on line 2: unterminated heredoc E'],
    ['', 'file with no instructions'],
  ])('refuses %j', (source, message) => expect(() => parseDockerfile(source)).toThrow(message));

  it('neither crashes nor hangs on anything', () => {
    const seed = 'FROM a AS b\nRUN <<E\nx\nE\nCOPY --from=b ["x", "y"]\nENV a=b \\\n c="d e"\n';
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(seed.length), fc.string({ maxLength: 3 })), { maxLength: 6 }), (edits) => {
        const mutated = edits.reduce((text, [at, insert]) => text.slice(0, at) + insert + text.slice(at + 1), seed);
        try {
          toStages(parseDockerfile(mutated));
        } catch (error) {
          expect((error as Error).name).toBe('DockerfileError');
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('words', () => {
  it.each([
    ['$x', 'foo.tar.gz'],
    ['${x}y', 'foo.tar.gzy'],
    ['${none:-d}', 'd'],
    ['${empty:-d}', 'd'],
    ['${empty-d}', ''],
    ['${x:+set}', 'set'],
    ['${none:+set}', ''],
    ['${x%.*}', 'foo.tar'],
    ['${x%%.*}', 'foo'],
    ['${path#*/}', 'a/b/c'],
    ['${path##*/}', 'c'],
    ['${path/b/X}', '/a/X/c'],
    ['${path//\\//-}', '-a-b-c'],
    ["'$x'", '$x'],
    ['"$x"', 'foo.tar.gz'],
    ['\\$x', '$x'],
    ['"a\\nb"', 'a\\nb'],
    ['${none:-${x}}', 'foo.tar.gz'],
    ['$', '$'],
  ])('%s is %s', (text, expected) => expect(expandWord(text, variables)).toBe(expected));

  it.each([
    ['${none:?gone}', 'none: gone'],
    ['${x', 'missing "}"'],
    ['"x', 'matching double-quote'],
  ])('refuses %s', (text, message) => {
    expect(() => expandWord(text, variables)).toThrow(message);
  });

  it('cuts words outside of quotes and reads pairs', () => {
    expect(splitWords('a "b c" d\\ e ${f:-g h}')).toEqual(['a', '"b c"', 'd\\ e', '${f:-g h}']);
    expect(parsePairs('a=b c="d e"', 'ENV')).toEqual([
      ['a', 'b'],
      ['c', '"d e"'],
    ]);
    expect(parsePairs('a b c', 'ENV')).toEqual([['a', 'b c']]);
  });
});

describe('stages', () => {
  const stages = toStages(
    parseDockerfile('ARG V=1\nFROM a AS one\nRUN x\nFROM b AS two\nFROM one\nCOPY --from=1 /x /y\nFROM c AS unused'),
  );

  it('are found by name and number', () => {
    expect(findStage(stages.stages, 'ONE')?.index).toBe(0);
    expect(findStage(stages.stages, '2')?.base).toBe('one');
    expect(findStage(stages.stages, 'none')).toBeUndefined();
  });

  it('are built where the target needs them', () => {
    const target = stages.stages[2];
    expect(target && neededStages(stages, target).map(({ index }) => index)).toEqual([0, 1, 2]);
  });
});

describe('.dockerignore', () => {
  it.each([
    ['*.md\n!README.md', { 'a.md': true, 'README.md': false, 'd/a.md': false }],
    ['**/*.o', { 'a.o': true, 'd/e/a.o': true, 'a.c': false }],
    ['/build/', { build: true, 'build/x': true, 'src/build': false }],
    ['a?c', { abc: true, ac: false }],
    ['# c\n\n*\n!src', { x: true, src: false, 'src/y': false }],
    ['../x', { x: true }],
  ])('%j', (text, expectations) => {
    const ignored = ignoreMatcher(parseIgnoreFile(text));
    for (const [path, expected] of Object.entries(expectations))
      expect([path, ignored(path)]).toEqual([path, expected]);
  });
});
