import type { HalleyError } from './error.js';
import { isFinal } from './problem.js';
import { within } from './signal.js';
import type { Backoff } from './types.js';

/** A delay that is drawn below a bound, which doubles with each attempt. */
export const draw = ({ min = 1000, max = 30_000 }: Backoff = {}, attempt: number): number =>
  Math.random() * Math.min(max, min * 2 ** attempt);

/** What has been sent for so long without an answer is sent again when the network is back; in milliseconds. */
const STALE = 1000;

/**
 * Attempts something until it succeeds, fails for good or is aborted. What is
 * in `waking` meanwhile is to be called when the network is back: it ends a rest
 * that the server has not asked for, and an attempt that may have been lost.
 */
export const persist = async <T>(
  attempt: (signal: AbortSignal, count: number) => Promise<T>,
  signal: AbortSignal,
  waking: Set<() => void>,
  backoff?: Backoff,
): Promise<T> => {
  for (let count = 0; ; count++) {
    signal.throwIfAborted();
    const turn = within(signal);
    /** From when on the turn can be ended. */
    let from = Date.now() + STALE;
    const wake = (): void => {
      if (Date.now() < from) return;
      count = -1;
      turn.abort();
    };
    const ended = new Promise((resolve) => (turn.signal.onabort = resolve));
    waking.add(wake);
    try {
      return await attempt(turn.signal, count);
    } catch (error) {
      if (isFinal(error)) throw error;
      const { _after = 0 } = error as Partial<HalleyError>;
      from = _after && Infinity;
      const rest = setTimeout(() => turn.abort(), _after + draw(backoff, count));
      await ended;
      clearTimeout(rest);
    } finally {
      waking.delete(wake);
      turn.abort();
    }
  }
};
