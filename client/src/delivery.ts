import { isAfter } from './cursor.js';
import type { Envelope, Page } from './envelope.js';
import { matches } from './parse.js';

/** Part of the past that is to be read: after a position, up to one. */
interface Past {
  readonly after: string;
  readonly until: string;
}

/** What a subscription is delivered from. */
export interface Source {
  readonly _handle: (envelope: Envelope) => void;
  /** Reads a page of history. Fails only for good. */
  readonly _page: (after: string, until: string) => Promise<Page>;
  readonly _gap: (cursor: string) => void;
  /** Is called with each start. */
  readonly _ready: () => void;
}

export interface Delivery {
  readonly _name: string;
  /** Up to there, everything has been handled. */
  _position: string;
  /** A stream brings all that is after the position, or it does not bring this. */
  _start(at: string, brings: boolean): void;
  _take(envelope: Envelope): void;
}

/**
 * Delivers one subscription's messages, each once and in order. It has its own
 * position, and so can begin anywhere: what lies between it and where the
 * stream starts is read from history, while what comes meanwhile waits.
 * @param _name The name or pattern.
 * @param from Where to begin; `earliest` too.
 * @param signal When it is aborted nothing more is delivered.
 */
export const deliver = (_name: string, from: string, signal: AbortSignal, { _handle, _page, _gap, _ready }: Source): Delivery => {
  const waiting: (Envelope | Past)[] = [];
  /** Up to there, everything has been handled or waits. */
  let seen = from;
  let live = false;
  let reading = false;

  const proceed = (): void => {
    while (!reading && !signal.aborted) {
      const next = waiting.shift();
      if (!next) {
        delivery._position = seen;
        return;
      }
      if ('until' in next) void read(next);
      else handle(next);
    }
  };

  const handle = (envelope: Envelope): void => {
    if (signal.aborted || !isAfter(envelope.id!, delivery._position)) return;
    delivery._position = envelope.id!;
    _handle(envelope);
  };

  const read = async ({ after, until }: Past): Promise<void> => {
    reading = true;
    try {
      for (let more = true; more && !signal.aborted; ) {
        const page = await _page(after, until);
        if (page.gap) _gap(page.messages[0]?.id ?? page.cursor);
        // Of another epoch it is not bounded (protocol 17.6), and the stream brings it.
        page.messages.forEach((envelope) => isAfter(envelope.id!, until) || handle(envelope));
        after = page.cursor;
        more = !!page.more;
      }
    } catch {
      // Refused: the position was none.
      if (!signal.aborted) _gap(until);
    }
    reading = false;
    proceed();
  };

  const delivery: Delivery = {
    _name,
    _position: from,
    _start: (at, brings) => {
      live = brings;
      if (!live) return;
      if (isAfter(at, seen)) {
        waiting.push({ after: seen, until: at });
        seen = at;
      }
      _ready();
      proceed();
    },
    _take: (envelope) => {
      if (!live || !isAfter(envelope.id!, seen)) return;
      seen = envelope.id!;
      if (envelope.channel && matches(_name, envelope.channel)) waiting.push(envelope);
      proceed();
    },
  };
  return delivery;
};
