import { Injectable } from '@nestjs/common';
import { EventEmitter, on } from 'node:events';
import type { common } from '@gantry/contracts';

const REMEMBERED = 1024;

/** What happened to images, for `docker events`: the last ones replayed, the next ones as they come. */
@Injectable()
export class ImageEvents {
  readonly #emitter = new EventEmitter({ captureRejections: false }).setMaxListeners(0);
  readonly #recent: common.Event[] = [];

  publish(action: string, actorId: string, name: string, attributes: Readonly<Record<string, string>> = {}): void {
    const event: common.Event = {
      type: 'image',
      action,
      actorId,
      attributes: { ...attributes, name },
      time: new Date().toISOString(),
    };
    this.#recent.push(event);
    if (this.#recent.length > REMEMBERED) this.#recent.shift();
    this.#emitter.emit('event', event);
  }

  /** From `since` on (replayed), until `until` or the signal. Filtering is the caller's. */
  async *subscribe(request: common.EventsRequest, signal: AbortSignal): AsyncGenerator<common.Event> {
    const untilMs = request.until ? Date.parse(request.until) : Infinity;
    const past = request.since ? this.#recent.filter(({ time }) => Date.parse(time) >= Date.parse(request.since)) : [];
    yield* past.filter(({ time }) => Date.parse(time) <= untilMs);
    if (untilMs <= Date.now()) return;
    const timed = untilMs === Infinity ? signal : AbortSignal.any([signal, AbortSignal.timeout(untilMs - Date.now())]);
    try {
      for await (const [event] of on(this.#emitter, 'event', { signal: timed })) yield event as common.Event;
    } catch (error) {
      if (!timed.aborted) throw error;
    }
  }
}
