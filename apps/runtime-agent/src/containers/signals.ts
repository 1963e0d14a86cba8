import { constants } from 'node:os';
import { InvalidArgument } from '@gantry/errors';

const RTMIN = 34;
const RTMAX = 64;

/** A signal's number from `TERM`, `SIGTERM`, `15` or `RTMIN+3`. Throws `InvalidArgument` in Docker's words. */
export function signalNumber(text: string): number {
  if (/^\d+$/.test(text) && Number(text) > 0 && Number(text) <= RTMAX) return Number(text);
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realtime) {
    const offset = Number(realtime[3] ?? 0) * (realtime[2] === '-' ? -1 : 1);
    return (realtime[1] === 'MIN' ? RTMIN : RTMAX) + offset;
  }
  const number = (constants.signals as Record<string, number>)[`SIG${name}`];
  if (number === undefined) throw new InvalidArgument(`Invalid signal: ${text}`);
  return number;
}
