import { expandWord, parsePairs, splitWords, type Instruction } from '@gantry/dockerfile';
import { InvalidArgument } from '@gantry/errors';
import type { HealthConfig } from '@gantry/oci';
import { posix } from 'node:path';
import type { StageState } from './stage-state.js';

const DEFAULT_SHELL = ['/bin/sh', '-c'];

/** Instructions that touch the configuration only. True where this was one; else it is for the file system. */
export function applyMetadata(state: StageState, instruction: Instruction, escape: string): string | undefined {
  const expand = (text: string) => expandWord(text, state.variable, escape);
  const words = () => splitWords(instruction.rest, escape).map(expand);
  switch (instruction.name) {
    case 'ENV': {
      // All values of one line see the variables as they were before it.
      const pairs = parsePairs(instruction.rest, 'ENV', escape).map(
        ([name, value]) => [expand(name), expand(value)] as const,
      );
      for (const [name, value] of pairs) state.setEnv(name, value);
      return `ENV ${pairs.map(([name, value]) => `${name}=${value}`).join(' ')}`;
    }
    case 'LABEL': {
      const pairs = parsePairs(instruction.rest, 'LABEL', escape).map(
        ([name, value]) => [expand(name), expand(value)] as const,
      );
      state.config.Labels = { ...state.config.Labels, ...Object.fromEntries(pairs) };
      return `LABEL ${pairs.map(([name, value]) => `${name}=${value}`).join(' ')}`;
    }
    case 'CMD':
    case 'ENTRYPOINT': {
      const argv = instruction.json ?? [...(state.config.Shell ?? DEFAULT_SHELL), instruction.rest];
      if (instruction.name === 'CMD') state.config.Cmd = [...argv];
      else {
        state.config.Entrypoint = [...argv];
        // A new entrypoint does not take the base image's command (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact").
        if (!state.hasOwnCommand) state.config.Cmd = null;
      }
      if (instruction.name === 'CMD') state.hasOwnCommand = true;
      return `${instruction.name} [${argv.map((word) => JSON.stringify(word)).join(' ')}]`;
    }
    case 'EXPOSE':
      for (const port of words()) state.config.ExposedPorts = { ...state.config.ExposedPorts, [exposed(port)]: {} };
      return `EXPOSE ${words().join(' ')}`;
    case 'VOLUME':
      for (const path of instruction.json?.map(expand) ?? words())
        state.config.Volumes = { ...state.config.Volumes, [path]: {} };
      return `VOLUME [${(instruction.json?.map(expand) ?? words()).join(' ')}]`;
    case 'USER':
      state.config.User = expand(instruction.rest);
      return `USER ${state.config.User}`;
    case 'STOPSIGNAL':
      state.config.StopSignal = expand(instruction.rest);
      return `STOPSIGNAL ${state.config.StopSignal}`;
    case 'SHELL':
      if (!instruction.json) throw new InvalidArgument('SHELL requires the arguments to be in JSON form');
      state.config.Shell = [...instruction.json];
      return `SHELL [${instruction.json.join(' ')}]`;
    case 'MAINTAINER':
      state.author = instruction.rest;
      return `MAINTAINER ${instruction.rest}`;
    case 'ONBUILD':
      state.config.OnBuild = [...(state.config.OnBuild ?? []), instruction.rest];
      return `ONBUILD ${instruction.rest}`;
    case 'HEALTHCHECK':
      state.config.Healthcheck = healthcheck(instruction);
      return `HEALTHCHECK ${JSON.stringify(state.config.Healthcheck)}`;
    default:
      return undefined;
  }
}

/** ARG: the value given for the build, or the default, or what the outer scope says. */
export function declareArgs(
  state: StageState,
  instruction: Instruction,
  given: ReadonlyMap<string, string>,
  globals: ReadonlyMap<string, string>,
  escape: string,
): string {
  for (const word of splitWords(instruction.rest, escape)) {
    const at = word.indexOf('=');
    const name = expandWord(at < 0 ? word : word.slice(0, at), state.variable, escape);
    const fallback = at < 0 ? globals.get(name) : expandWord(word.slice(at + 1), state.variable, escape);
    const value = given.get(name) ?? fallback;
    if (value !== undefined) state.args.set(name, value);
  }
  return `ARG ${instruction.rest}`;
}

function exposed(port: string): string {
  if (!/^\d+(-\d+)?(\/(tcp|udp|sctp))?$/.test(port)) throw new InvalidArgument(`invalid containerPort: ${port}`);
  return port.includes('/') ? port : `${port}/tcp`;
}

const UNITS_NS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9, m: 6e10, h: 3.6e12 };

function duration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)/g)];
  if (parts.length === 0) throw new InvalidArgument(`invalid duration "${text}"`);
  return parts.reduce((sum, [, value, unit]) => sum + Number(value) * (UNITS_NS[unit ?? ''] ?? 0), 0);
}

function healthcheck(instruction: Instruction): HealthConfig {
  const flag = (name: string) => instruction.flags.find((item) => item.name === name)?.value;
  const [, kind = '', rest = ''] = /^(\S+)\s*(.*)$/s.exec(instruction.rest) ?? [];
  if (kind.toUpperCase() === 'NONE') return { Test: ['NONE'] };
  if (kind.toUpperCase() !== 'CMD' || rest === '')
    throw new InvalidArgument(`unknown type "${kind}" in HEALTHCHECK (try CMD)`);
  let test: string[];
  try {
    test = ['CMD', ...(JSON.parse(rest) as string[])];
  } catch {
    test = ['CMD-SHELL', rest];
  }
  const [interval, timeout, start, startInterval, retries] = [
    flag('interval'),
    flag('timeout'),
    flag('start-period'),
    flag('start-interval'),
    flag('retries'),
  ];
  return {
    Test: test,
    ...(interval ? { Interval: duration(interval) } : {}),
    ...(timeout ? { Timeout: duration(timeout) } : {}),
    ...(start ? { StartPeriod: duration(start) } : {}),
    ...(startInterval ? { StartInterval: duration(startInterval) } : {}),
    ...(retries ? { Retries: Number(retries) } : {}),
  };
}

/** Source patterns and the absolute destination of COPY and ADD. */
export function copyOperands(
  state: StageState,
  instruction: Instruction,
  escape: string,
): { patterns: string[]; destination: string } {
  const plain = instruction.json ?? splitWords(instruction.rest.replace(/<<-?["']?\w+["']?/g, ' '), escape);
  const words = plain.map((word) => expandWord(word, state.variable, escape));
  const destination = words.pop();
  if (destination === undefined || (words.length === 0 && instruction.heredocs.length === 0)) {
    throw new InvalidArgument(`${instruction.name} requires at least two arguments, but only one was provided`);
  }
  const isDirectory = destination.endsWith('/') || destination === '.' || destination.endsWith('/.');
  const absolute = posix.resolve('/', state.config.WorkingDir ?? '/', destination);
  if ((words.length > 1 || words.some((word) => /[*?[]/.test(word))) && words.length > 1 && !isDirectory) {
    throw new InvalidArgument(
      `When using ${instruction.name} with more than one source file, the destination must be a directory and end with a /`,
    );
  }
  return { patterns: words, destination: isDirectory && absolute !== '/' ? `${absolute}/` : absolute };
}

/** argv of a RUN: the JSON form, the shell's, or a heredoc's script. */
export function runArgv(state: StageState, instruction: Instruction): string[] {
  if (instruction.json) return [...instruction.json];
  const shell = [...(state.config.Shell ?? DEFAULT_SHELL)];
  const [heredoc] = instruction.heredocs;
  if (!heredoc) return [...shell, instruction.rest];
  const bare = instruction.rest.replace(/<<-?["']?\w+["']?/, '').trim();
  // `RUN <<EOF` is a script; `RUN cat <<EOF` is a command whose shell reads the document itself.
  if (bare === '') return [...shell, heredoc.content];
  return [
    ...shell,
    [instruction.rest, ...instruction.heredocs.map(({ name, content }) => `${content}${name}`)].join('\n'),
  ];
}
