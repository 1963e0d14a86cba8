import { InvalidArgument } from '@gantry/errors';
import type { RuntimeConfig } from '@gantry/oci';

type Mutable = { -readonly [Key in keyof RuntimeConfig]: RuntimeConfig[Key] };

function jsonOrShell(rest: string): string[] {
  if (rest.startsWith('[')) {
    try {
      const list = JSON.parse(rest) as unknown;
      if (Array.isArray(list) && list.every((item) => typeof item === 'string')) return list;
    } catch {
      // As in a Dockerfile: what is no JSON list is a shell command.
    }
  }
  return ['/bin/sh', '-c', rest];
}

/** `a=b "c"="d e"` or `a b` as pairs. */
function pairs(rest: string, instruction: string): [string, string][] {
  const unquote = (text: string) => text.replace(/^"(.*)"$|^'(.*)'$/s, '$1$2');
  const words = rest.match(/(?:[^\s"']|"(?:\\.|[^"])*"|'[^']*')+/g) ?? [];
  if (words[0] && !words[0].includes('=')) return [[words[0], rest.slice(words[0].length).trim()]];
  return words.map((word) => {
    const at = word.indexOf('=');
    if (at <= 0) throw new InvalidArgument(`${instruction}: "${word}" is no name=value pair`);
    return [unquote(word.slice(0, at)), unquote(word.slice(at + 1))];
  });
}

function apply(config: Mutable, instruction: string, rest: string): void {
  switch (instruction) {
    case 'CMD':
      config.Cmd = jsonOrShell(rest);
      return;
    case 'ENTRYPOINT':
      config.Entrypoint = jsonOrShell(rest);
      return;
    case 'ENV':
      for (const [name, value] of pairs(rest, instruction)) {
        config.Env = [...(config.Env ?? []).filter((entry) => !entry.startsWith(`${name}=`)), `${name}=${value}`];
      }
      return;
    case 'LABEL':
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(rest, instruction)) };
      return;
    case 'EXPOSE':
      for (const port of rest.split(/\s+/))
        config.ExposedPorts = { ...config.ExposedPorts, [port.includes('/') ? port : `${port}/tcp`]: {} };
      return;
    case 'VOLUME':
      for (const path of rest.startsWith('[') ? jsonOrShell(rest) : rest.split(/\s+/))
        config.Volumes = { ...config.Volumes, [path]: {} };
      return;
    case 'USER':
      config.User = rest;
      return;
    case 'WORKDIR':
      config.WorkingDir = rest;
      return;
    case 'STOPSIGNAL':
      config.StopSignal = rest;
      return;
    case 'ONBUILD':
      config.OnBuild = [...(config.OnBuild ?? []), rest];
      return;
    default:
      throw new InvalidArgument(`${instruction} is not a valid change command`);
  }
}

/** A configuration changed as `--change` says, in Dockerfile syntax. Throws `InvalidArgument` that names the instruction. */
export function applyChanges(config: RuntimeConfig, changes: readonly string[]): RuntimeConfig {
  const changed: Mutable = { ...config };
  for (const line of changes.flatMap((change) => change.split('\n'))) {
    const [, instruction = '', rest = ''] = /^\s*(\S+)\s*(.*)$/s.exec(line) ?? [];
    if (instruction !== '') apply(changed, instruction.toUpperCase(), rest.trim());
  }
  return changed;
}
