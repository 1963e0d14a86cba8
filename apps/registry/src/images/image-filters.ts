import { posix } from 'node:path';
import { InvalidArgument } from '@gantry/errors';
import type { common } from '@gantry/contracts';
import { familiarName, formatFamiliar, parseReference } from '@gantry/oci';
import { isDigestReference, type Image } from './image.js';

const KNOWN = new Set(['dangling', 'label', 'label!', 'before', 'since', 'reference', 'until']);

export function isDangling(image: Image): boolean {
  return ![...image.references].some((reference) => !isDigestReference(reference));
}

function hasLabel(image: Image, filter: string): boolean {
  const [name = '', value] = filter.split(/=(.*)/s);
  const labels = image.config.config?.Labels ?? {};
  return name in labels && (value === undefined || labels[name] === value);
}

/** As Docker: the pattern fits the short name with tag, the name alone, or either in full. */
function matchesReference(image: Image, pattern: string): boolean {
  return [...image.references].some((text) => {
    const reference = parseReference(text);
    return [formatFamiliar(reference), familiarName(reference), text].some((name) => posix.matchesGlob(name, pattern));
  });
}

const createdAt = (image: Image) => Date.parse(image.config.created ?? '1970-01-01T00:00:00Z');

/**
 * Docker's image filters as a predicate; `resolve` finds the image that `before` and `since` name. Throws `InvalidArgument` for a filter
 * that is none.
 */
export function imageFilter(
  filters: common.Filters | undefined,
  resolve: (text: string) => Image,
): (image: Image) => boolean {
  const tests: ((image: Image) => boolean)[] = [];
  for (const [key, { values }] of Object.entries(filters?.byKey ?? {})) {
    if (!KNOWN.has(key)) throw new InvalidArgument(`invalid filter '${key}'`);
    if (values.length === 0) continue;
    if (key === 'dangling') {
      const wanted = ['1', 'true'].includes(values[0] ?? '');
      if (!wanted && !['0', 'false'].includes(values[0] ?? ''))
        throw new InvalidArgument(`invalid filter 'dangling=${values[0]}'`);
      tests.push((image) => isDangling(image) === wanted);
    } else if (key === 'label') tests.push((image) => values.every((value) => hasLabel(image, value)));
    else if (key === 'label!') tests.push((image) => !values.some((value) => hasLabel(image, value)));
    else if (key === 'reference') tests.push((image) => values.some((value) => matchesReference(image, value)));
    else if (key === 'until') tests.push((image) => createdAt(image) < untilMs(values[0] ?? ''));
    else {
      const other = createdAt(resolve(values[0] ?? ''));
      tests.push((image) => (key === 'before' ? createdAt(image) < other : createdAt(image) > other));
    }
  }
  return (image) => tests.every((test) => test(image));
}

const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** A Unix time, RFC 3339, or a Go duration before now. */
function untilMs(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.length > 0)
    return Date.now() - parts.reduce((sum, [, n, unit]) => sum + Number(n) * (DURATION_MS[unit ?? ''] ?? 0), 0);
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new InvalidArgument(`invalid filter 'until=${text}'`);
  return time;
}
