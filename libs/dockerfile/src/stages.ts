import { DockerfileError } from './dockerfile-error.js';
import type { Dockerfile, Instruction } from './parser.js';

/** One FROM and what follows it. */
export interface Stage {
  readonly index: number;
  /** Lower case; empty where it has none. */
  readonly name: string;
  /** Unexpanded. */
  readonly base: string;
  readonly platform: string;
  readonly from: Instruction;
  readonly instructions: readonly Instruction[];
}

export interface Stages {
  /** ARGs before the first FROM: only FROM lines see them. */
  readonly globals: readonly Instruction[];
  readonly stages: readonly Stage[];
}

/** Cuts a Dockerfile into its stages. Throws `DockerfileError`. */
export function toStages({ instructions }: Dockerfile): Stages {
  const first = instructions.findIndex(({ name }) => name === 'FROM');
  const globals = first < 0 ? instructions : instructions.slice(0, first);
  const stray = globals.find(({ name }) => name !== 'ARG');
  if (stray) throw new DockerfileError(stray.line, 'no build stage in current context', stray.text);
  if (first < 0) throw new DockerfileError(1, 'no build stage in current context');
  const stages: Stage[] = [];
  let current: Instruction[] = [];
  for (const instruction of instructions.slice(first)) {
    if (instruction.name !== 'FROM') {
      current.push(instruction);
      continue;
    }
    const words = instruction.rest.split(/\s+/);
    const hasName = words.length === 3 && words[1]?.toUpperCase() === 'AS';
    if (words.length !== 1 && !hasName)
      throw new DockerfileError(instruction.line, 'FROM requires either one or three arguments', instruction.text);
    current = [];
    stages.push({
      index: stages.length,
      name: hasName ? (words[2] ?? '').toLowerCase() : '',
      base: words[0] ?? '',
      platform: instruction.flags.find(({ name }) => name === 'platform')?.value ?? '',
      from: instruction,
      instructions: current,
    });
  }
  return { globals, stages };
}

/** A stage by name or number. */
export function findStage(stages: readonly Stage[], reference: string): Stage | undefined {
  return (
    stages.findLast(({ name }) => name !== '' && name === reference.toLowerCase()) ??
    (/^\d+$/.test(reference) ? stages[Number(reference)] : undefined)
  );
}

/** Stages that the target needs, in file order. Throws `DockerfileError` where a stage takes from a later one. */
export function neededStages({ stages }: Stages, target: Stage): Stage[] {
  const needed = new Set<Stage>();
  const visit = (stage: Stage) => {
    if (needed.has(stage)) return;
    needed.add(stage);
    const base = findStage(stages.slice(0, stage.index), stage.base);
    if (base) visit(base);
    for (const { flags } of stage.instructions) {
      const from = flags.find(({ name }) => name === 'from')?.value;
      const source = from === undefined ? undefined : findStage(stages.slice(0, stage.index), from);
      if (source) visit(source);
    }
  };
  visit(target);
  return stages.filter((stage) => needed.has(stage));
}
