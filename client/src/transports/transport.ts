import type { Envelope } from '../envelope.js';

/** One attempt to receive a set of channels from a cursor. */
export interface Upstream {
  /** The URL of `subscribe`, without a query. */
  readonly _url: string;
  /** The parameters, with some more. The token is not among them. */
  readonly _form: (more?: Record<string, string>) => URLSearchParams;
  /** The whole URL for a GET, with a ticket for the token and never the same twice. */
  readonly _get: (more?: Record<string, string>) => Promise<string>;
  readonly _token: string | undefined;
  /** Where the stream starts. */
  readonly _cursor: string;
  /** In seconds. */
  readonly _heartbeat: number;
  /** Is aborted to close the stream. */
  readonly _signal: AbortSignal;
  readonly _take: (envelope: Envelope) => void;
  /** Asks for a successor, since this stream has taken up too much memory. */
  readonly _renew: () => void;
}

/** A way to receive envelopes. Of them it knows how they are framed, and no more. */
export interface Transport {
  /** What the protocol calls it, if that is another name. */
  readonly _wire?: string;
  /** Gives something if the browser has what it takes. */
  readonly _supported: () => unknown;
  /**
   * Opens a stream and gives each envelope to `_take` once it is complete.
   * Settles when the stream has ended, for whatever reason: only envelopes tell
   * a clean end. If nothing has come at all, a plain request asks for the reason.
   */
  readonly _open: (up: Upstream) => Promise<unknown>;
}
