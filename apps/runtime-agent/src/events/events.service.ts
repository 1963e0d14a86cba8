import { EventEmitter, on } from 'node:events';
import { Injectable } from '@nestjs/common';
import type { common } from '@gantry/contracts';

const REMEMBERED = 4096;

/** What happened on this host: the last of it replayed, the rest as it comes. */
@Injectable()
export class EventsService {
  readonly #emitter = new EventEmitter().setMaxListeners(0);
  readonly #recent: common.Event[] = [];
  #lastNs = 0n;

  publish(type: string, action: string, actorId: string, attributes: Readonly<Record<string, string>>): void {
    // Two events never share a time: their order is what a replay is cut by.
    const now = BigInt(Date.now()) * 1_000_000n;
    this.#lastNs = now > this.#lastNs ? now : this.#lastNs + 1n;
    const event = { type, action, actorId, attributes: { ...attributes }, time: formatNs(this.#lastNs) };
    this.#recent.push(event);
    if (this.#recent.length > REMEMBERED) this.#recent.shift();
    this.#emitter.emit('event', event);
  }

  async *subscribe(request: common.EventsRequest, signal: AbortSignal): AsyncGenerator<common.Event> {
    const untilMs = request.until ? Date.parse(request.until) : Infinity;
    if (request.since) yield* this.#recent.filter(({ time }) => time >= request.since && Date.parse(time) <= untilMs);
    if (untilMs <= Date.now()) return;
    const timed = untilMs === Infinity ? signal : AbortSignal.any([signal, AbortSignal.timeout(untilMs - Date.now())]);
    try {
      for await (const [event] of on(this.#emitter, 'event', { signal: timed })) yield event as common.Event;
    } catch (error) {
      if (!timed.aborted) throw error;
    }
  }
}

/** Unix nanoseconds as RFC 3339 with nanoseconds. */
export function formatNs(ns: bigint): string {
  const iso = new Date(Number(ns / 1_000_000n)).toISOString();
  return `${iso.slice(0, 19)}.${String(ns % 1_000_000_000n).padStart(9, '0')}Z`;
}
