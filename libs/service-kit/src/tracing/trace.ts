import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';

/** W3C Trace Context §3.2: who asked, across services. */
export interface Trace {
  readonly traceId: string;
  readonly spanId: string;
  readonly flags: string;
}

export const TRACEPARENT = 'traceparent';
const PATTERN = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/;
const storage = new AsyncLocalStorage<Trace>();

/** The trace of the call being served, if any. */
export function currentTrace(): Trace | undefined {
  return storage.getStore();
}

/** Continues the caller's trace, or begins one where the header is absent or malformed. */
export function traceFrom(traceparent: string | undefined): Trace {
  const match = traceparent === undefined ? null : PATTERN.exec(traceparent);
  const spanId = randomBytes(8).toString('hex');
  return match
    ? { traceId: match[1] ?? '', spanId, flags: match[3] ?? '00' }
    : { traceId: randomBytes(16).toString('hex'), spanId, flags: '00' };
}

export function formatTrace(trace: Trace): string {
  return `00-${trace.traceId}-${trace.spanId}-${trace.flags}`;
}

/** Runs `body` (and everything asynchronous it starts) under a trace. */
export function withTrace<T>(trace: Trace, body: () => T): T {
  return storage.run(trace, body);
}
