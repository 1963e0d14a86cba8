import { InvalidArgument, NotFound } from '@gantry/errors';
import type { common } from '@gantry/contracts';
import type { ContainerRecord } from './container.js';
import { statusName } from './container-message.js';

const KNOWN = new Set([
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'label!',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'until',
  'volume',
]);
const STATUSES = new Set(['created', 'running', 'paused', 'restarting', 'removing', 'exited', 'dead']);

function hasLabel(record: ContainerRecord, filter: string): boolean {
  const [name = '', value] = filter.split(/=(.*)/s);
  const labels = record.config.labels;
  return name in labels && (value === undefined || labels[name] === value);
}

/** Docker's container filters as a predicate. Throws `InvalidArgument` for a filter that is none. */
export function containerFilter(
  filters: common.Filters | undefined,
  resolve: (text: string) => ContainerRecord,
): (record: ContainerRecord) => boolean {
  const tests: ((record: ContainerRecord) => boolean)[] = [];
  for (const [key, { values }] of Object.entries(filters?.byKey ?? {})) {
    if (!KNOWN.has(key)) throw new InvalidArgument(`invalid filter '${key}'`);
    if (values.length === 0) continue;
    const any = (test: (record: ContainerRecord, value: string) => boolean) =>
      tests.push((record) => values.some((value) => test(record, value)));
    if (key === 'id') any((record, value) => record.id.startsWith(value));
    else if (key === 'name')
      any((record, value) => new RegExp(value).test(`/${record.name}`) || new RegExp(value).test(record.name));
    else if (key === 'label') tests.push((record) => values.every((value) => hasLabel(record, value)));
    else if (key === 'label!') tests.push((record) => !values.some((value) => hasLabel(record, value)));
    else if (key === 'status') {
      for (const value of values)
        if (!STATUSES.has(value)) throw new InvalidArgument(`invalid filter 'status=${value}'`);
      any((record, value) => statusName(record) === value);
    } else if (key === 'exited')
      any((record, value) => record.state.status === 'exited' && record.state.exitCode === Number(value));
    else if (key === 'ancestor')
      any(
        (record, value) =>
          record.config.image === value ||
          record.image.id === value ||
          record.image.id.startsWith(`sha256:${value}`) ||
          record.config.image === `${value}:latest`,
      );
    else if (key === 'network')
      any((record, value) => (record.config.host?.networkMode || 'bridge').replace('default', 'bridge') === value);
    else if (key === 'before' || key === 'since') {
      const other = Date.parse(resolveOr(resolve, values[0] ?? '').created);
      tests.push((record) =>
        key === 'before' ? Date.parse(record.created) < other : Date.parse(record.created) > other,
      );
    } else if (key === 'until') {
      const until = /^\d+$/.test(values[0] ?? '') ? Number(values[0]) * 1000 : Date.parse(values[0] ?? '');
      tests.push((record) => Date.parse(record.created) < until);
    }
  }
  return (record) => tests.every((test) => test(record));
}

function resolveOr(resolve: (text: string) => ContainerRecord, text: string): ContainerRecord {
  try {
    return resolve(text);
  } catch (error) {
    if (error instanceof NotFound) throw new NotFound('container', text);
    throw error;
  }
}
