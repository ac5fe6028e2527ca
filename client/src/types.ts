import type { HalleyError } from './error.js';

/** How messages reach the client. `fetch` and `xhr` are two ways to read the same stream. */
export type TransportName = 'websocket' | 'fetch' | 'xhr' | 'sse' | 'iframe' | 'long-polling' | 'jsonp';

/** Random delays: each is drawn between 0 and a bound that doubles with every attempt that brought nothing. */
export interface Backoff {
  /** The first bound, in milliseconds. @default 1000 */
  readonly min?: number;
  /** The highest bound, in milliseconds. @default 30000 */
  readonly max?: number;
}

export interface ConnectOptions {
  /**
   * The transports to use, best first. Those that the server or the browser
   * does not have are left out. Of `fetch` and `xhr` only the first counts: what
   * holds the stream back from one holds it back from the other.
   * @default ['websocket', 'fetch', 'xhr', 'sse', 'iframe', 'long-polling', 'jsonp']
   */
  readonly transports?: readonly TransportName[];
  /**
   * The position after which channels begin that are subscribed to without
   * `from`: that of the state which the page was rendered with. Messages since
   * then come first, also on a channel that is subscribed to later.
   * @default the log's end when a channel is subscribed to
   */
  readonly cursor?: string;
  /**
   * Gives the token for each connection and each request; keep it until it
   * expires. The signal is aborted when no token is needed any more, and after
   * ten seconds; nothing waits longer. If the token is a JWT, the connection is
   * renewed without a gap when four fifths of the time until its `exp` have gone.
   */
  readonly token?: (signal: AbortSignal) => string | Promise<string>;
  /**
   * Whether the tabs of this origin share one connection. Only those do that
   * are connected to the same URL with the same `transports`. With a `token`,
   * which may be another user's, give a name here, such as the user's: only
   * tabs with the same name share. (`true` shares with all that say `true`,
   * whoever their users are.)
   * @default true, but false with a token
   */
  readonly share?: boolean | string;
  /** Closes the connection when it is aborted. */
  readonly signal?: AbortSignal;
  /**
   * How long a transport has until the first bytes of its stream must have come
   * through, in milliseconds. On a slow network it is four times of what the
   * server took to answer a plain request, if that is more; that request has the
   * same time at first.
   * @default 2000
   */
  readonly openTimeout?: number;
  /** How long to wait before coming back, and before a request is sent again. */
  readonly backoff?: Backoff;
  /**
   * When better transports than the present one are tried again, beside it, in
   * milliseconds. Doubles each time that none of them works.
   * @default 30000
   */
  readonly upgradeAfter?: number;
  /**
   * How long a transport that does not work is passed over, in milliseconds.
   * Pages of this origin remember it in `localStorage`.
   * @default 600000
   */
  readonly verdictFor?: number;
}

/** `waiting` is the time between two attempts to connect. */
export type ConnectionState = 'connecting' | 'open' | 'waiting' | 'closed';

/** The events of a connection, all of them `CustomEvent`s, by their type. */
export interface ConnectionEventMap {
  connecting: CustomEvent<null>;
  /** Messages come, by the named transport, and why by that one. */
  open: CustomEvent<{ readonly transport: TransportName; readonly reason: string }>;
  /** The connection was lost for that reason and is tried again after `delay` milliseconds. */
  waiting: CustomEvent<{ readonly reason: string; readonly delay: number }>;
  /** The connection has ended for good: by `close()`, the signal, or after an `error`. */
  closed: CustomEvent<null>;
  /** Messages at or before `cursor` may be missing for good: load what they would have told from elsewhere. */
  gap: CustomEvent<{ readonly cursor: string }>;
  /**
   * Messages come another way from now on. The reason is `connected` at first,
   * `better` after a step up, and else names a transport and what was wrong
   * with it: `websocket: timeout`.
   */
  transport: CustomEvent<{
    readonly from: TransportName | undefined;
    readonly to: TransportName;
    readonly reason: string;
  }>;
  /** The server refused something that it would refuse again. */
  error: CustomEvent<HalleyError>;
}

/** A connection to a server, which comes back by itself until it is closed. */
export interface Connection extends EventTarget {
  readonly state: ConnectionState;
  /** What messages come by at present, also if another tab holds the connection. */
  readonly transport: TransportName | undefined;
  /**
   * The position up to which every message of every channel has been handled;
   * `undefined` before any is known. Given to `connect`, it goes on from there.
   */
  readonly cursor: string | undefined;
  /**
   * Returns the channel of that name, or all those that a pattern matches
   * (`news/*`, `news/**`). Nothing is subscribed to yet.
   * @throws TypeError if the name is invalid (protocol, section 2)
   */
  channel<T = unknown>(name: string): Channel<T>;
  /**
   * Publishes a message and resolves with its id once it is stored. It is sent
   * again after a failure for up to five minutes, and at once when the connection
   * is back, and stored once all the same.
   * Messages of this connection to one channel are stored in the order of the
   * calls; if one is aborted that waits for another, those after it no longer
   * wait. The data must not be changed until then.
   * @param data Bytes (`ArrayBuffer`, a view of one, `Blob`) and text are sent
   * as they are, everything else as JSON.
   * @throws HalleyError if the server refuses it
   * @throws TimeoutError after five minutes, and the signal's reason or an
   * AbortError if it is aborted or the connection closed
   */
  publish<T>(channel: string, data: T, options?: PublishOptions): Promise<string>;
  /** Ends the connection, its subscriptions and what is being published. */
  close(): void;

  addEventListener<K extends keyof ConnectionEventMap>(
    type: K,
    listener: (event: ConnectionEventMap[K]) => void,
    options?: boolean | ListenerOptions,
  ): void;
  addEventListener(type: string, listener: Listener | null, options?: boolean | ListenerOptions): void;
  removeEventListener<K extends keyof ConnectionEventMap>(
    type: K,
    listener: (event: ConnectionEventMap[K]) => void,
    options?: boolean | { capture?: boolean },
  ): void;
  removeEventListener(type: string, listener: Listener | null, options?: boolean | { capture?: boolean }): void;
}

// The DOM library's own types, which projects for Node do not have.
type Listener = ((event: Event) => void) | { handleEvent(event: Event): void };
interface ListenerOptions {
  capture?: boolean;
  once?: boolean;
  passive?: boolean;
  signal?: AbortSignal;
}

/**
 * A channel or a pattern. `for await` subscribes to it without `from`, and ends
 * when the connection closes.
 */
export interface Channel<T> extends AsyncIterable<Message<T>> {
  readonly name: string;
  /**
   * Calls the handler with each message, once and in order. What it throws is
   * reported as an uncaught error, and the next message comes all the same.
   */
  subscribe(handler: (message: Message<T>) => void, options?: SubscribeOptions): Subscription;
  /** As `Connection.publish`; not for patterns. */
  publish(data: T, options?: PublishOptions): Promise<string>;
}

export interface SubscribeOptions {
  /**
   * Where to begin: after a cursor, with the oldest message retained, or with
   * what is published from now on.
   * @default the connection's `cursor` option, or 'now' without one
   */
  readonly from?: string | 'now' | 'earliest';
  /** Ends the subscription when it is aborted. */
  readonly signal?: AbortSignal;
}

export interface Subscription {
  /**
   * Resolves once the position is known after which every message comes; those
   * of the past may still be on their way. Rejects with the signal's reason if
   * the subscription ends before that, which need not be handled.
   */
  readonly ready: Promise<void>;
  /** Is aborted when the subscription ends, for whatever reason. */
  readonly signal: AbortSignal;
  unsubscribe(): void;
}

export interface Message<T = unknown> {
  /** The message's own cursor. */
  readonly id: string;
  /** The channel it was published to, never a pattern. */
  readonly channel: string;
  readonly type?: string;
  /** When the server stored it, in Unix milliseconds. */
  readonly time: number;
  /** JSON as its value, text as a string, and all else as a `Uint8Array`. */
  readonly data: T;
  /** The media type of data that is bytes. */
  readonly contentType?: string;
}

export interface PublishOptions {
  /** The message's type, 1 to 64 bytes. */
  readonly type?: string;
  /**
   * The media type of the data.
   * @default 'text/plain;charset=UTF-8' for text, a blob's own,
   * 'application/octet-stream' for other bytes and 'application/json' for the rest
   */
  readonly contentType?: string;
  /** An idempotency key, if the message may also be published by someone else. @default a random one */
  readonly key?: string;
  /** Gives up when it is aborted; the message may have been stored. */
  readonly signal?: AbortSignal;
}
