import { InvalidArgument } from '@gantry/errors';

/** A fault of a Dockerfile, with where it is: line (from 1) and the source line. */
export class DockerfileError extends InvalidArgument {
  constructor(
    readonly line: number,
    problem: string,
    readonly source = '',
  ) {
    super(`dockerfile parse error on line ${line}: ${problem}${source ? `\n  ${line} | ${source}` : ''}`, {
      line: String(line),
    });
  }
}
