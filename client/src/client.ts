import { ask, type Asking } from './ask.js';
import { persist } from './backoff.js';
import { isAfter } from './cursor.js';
import { deliver, type Delivery } from './delivery.js';
import type { Page } from './envelope.js';
import { HalleyError } from './error.js';
import { type Feed, type Info, type News, openFeed, type Tell } from './feed.js';
import { isName, toMessage } from './parse.js';
import { encode } from './publication.js';
import { within } from './signal.js';
import { canShare, shareFeed, unique } from './tabs.js';
import type {
  Channel,
  Connection,
  ConnectionEventMap,
  ConnectionState,
  ConnectOptions,
  Message,
  PublishOptions,
  SubscribeOptions,
  Subscription,
  TransportName,
} from './types.js';

/** A tuple without its first. */
type Rest<T extends readonly unknown[]> = T extends readonly [unknown, ...infer R] ? R : never;

/** How long a publish is tried, in milliseconds. Servers know its key for ten minutes (protocol 16.12). */
const PUBLISH_FOR = 300_000;

/** How long a request may take, and the page to get a token, in milliseconds. */
const TIMEOUT = 10_000;

/**
 * Connects to a server and stays connected until it is closed.
 * @param mount Where the protocol is mounted, such as `/comet`; relative to the page.
 * @throws TypeError if the URL is invalid
 */
export const connect = (mount: string | URL, options: ConnectOptions = {}): Connection => {
  const { token: getToken, cursor: first, backoff, transports, openTimeout = 2000 } = options;
  const token =
    getToken &&
    ((outer: AbortSignal) =>
      // The page's function need not heed the signal.
      new Promise<string>((resolve, reject) => {
        const { signal } = within(outer, AbortSignal.timeout(TIMEOUT));
        const fail = (error: unknown): void => reject(new HalleyError(`${error}`, 'token'));
        signal.addEventListener('abort', () => fail(signal.reason));
        (async () => getToken(signal))().then(resolve, fail);
      }));
  const url = new URL(mount, globalThis.location?.href).href.replace(/\/+$/, '');
  const closing = within(options.signal);
  const { signal: closed } = closing;
  /** What is to end with the connection. (Node warns of many listeners to one signal.) */
  const parts = new Set<AbortController>();
  const waking = new Set<() => void>();
  /** The names of the subscriptions, and their deliveries once it is known where they begin. */
  const wanted = new Map<AbortSignal, string>();
  const deliveries = new Map<AbortSignal, Delivery>();
  /** Settles when all that is being published to a channel has. */
  const publishing = new Map<string, Promise<unknown>>();
  let feed: Feed | undefined;
  /** What the present stream brings, and up to where it has come. */
  let names: readonly string[] = [];
  let at: string | undefined;
  let changed = false;
  let info: Promise<Info> | undefined;
  let state: ConnectionState = 'connecting';
  /** The present one, or the last. */
  let transport: TransportName | undefined;

  const dispatch = (type: string, detail: unknown): boolean => connection.dispatchEvent(new CustomEvent(type, { detail }));

  const tellGap = (cursor: string): boolean => dispatch('gap', { cursor });

  const wake = (): void => {
    for (const end of waking) end();
  };

  const become = (next: ConnectionState, detail: unknown = null): void => {
    const before = state;
    const from = transport;
    const { transport: to = from, reason } = (detail ?? {}) as Partial<ConnectionEventMap['open']['detail']>;
    state = next;
    transport = to;
    if (state !== before) {
      dispatch(state, detail);
      if (state === 'open') wake();
    }
    if (to !== from) dispatch('transport', { from, to, reason });
  };

  const part = (...signals: (AbortSignal | undefined)[]): AbortController => {
    const abort = within(...signals);
    parts.add(abort);
    abort.signal.addEventListener('abort', () => parts.delete(abort));
    if (closed.aborted) abort.abort();
    return abort;
  };

  const request = async <T>(path: string, _signal: AbortSignal, asking?: Partial<Asking>): Promise<T> =>
    ask<T>(`${url}/${path}`, { _signal, _token: await token?.(_signal), _timeout: TIMEOUT, ...asking });

  /** Tries until it succeeds. */
  const insist = <T>(attempt: (signal: AbortSignal, count: number) => Promise<T>, signal: AbortSignal): Promise<T> =>
    persist(attempt, signal, waking, backoff);

  /**
   * Reads `info`, once for all that ask at a time. Browsers may ask by a
   * connection that is long dead, so the first attempts are short.
   */
  const readInfo = (attempts: number): Promise<Info> =>
    (info ??= request<Info>('info', closed, { _timeout: Math.min(openTimeout * (attempts || 1), TIMEOUT) }).finally(
      () => (info = undefined),
    ));

  const publish = async <T>(channel: string, data: T, options: PublishOptions = {}): Promise<string> => {
    const [_body, mediaType] = encode(data);
    const { type, contentType = mediaType, key = unique(), signal } = options;
    const path = `publish?${new URLSearchParams({ channel, ...(type && { type }) })}`;
    const asking = { _body, _headers: { ...(contentType && { 'Content-Type': contentType }), 'Idempotency-Key': key } };
    const abort = part(signal, AbortSignal.timeout(PUBLISH_FOR));
    abort.signal.throwIfAborted();
    const aborted = new Promise((resolve) => (abort.signal.onabort = resolve));
    const before = publishing.get(channel);
    const published = Promise.race([before, aborted]).then(() =>
      insist((signal) => request<{ id: string }>(path, signal, asking), abort.signal),
    );
    // The next does not overtake those before one that is aborted.
    const all = Promise.allSettled([before, published]);
    publishing.set(channel, all);
    try {
      return (await published).id;
    } finally {
      abort.abort();
      if (publishing.get(channel) === all) publishing.delete(channel);
    }
  };

  const subscribe = <T>(name: string, handler: (message: Message<T>) => void, options: SubscribeOptions = {}): Subscription => {
    const abort = part(options.signal);
    const { signal } = abort;
    const ready = new Promise<void>((resolve, reject) => {
      signal.throwIfAborted();
      const begin = (from: string): void => {
        const delivery = deliver(name, from, signal, {
          _handle: (envelope) => {
            try {
              handler(toMessage(envelope));
            } catch (error) {
              // It is the page's, and must not stop the messages after it.
              setTimeout(() => {
                throw error;
              });
            }
          },
          _page: (cursor, until) =>
            insist(
              (signal) => request<Page>(`history?${new URLSearchParams({ channel: name, cursor, until, limit: '1000' })}`, signal),
              signal,
            ),
          _gap: tellGap,
          _ready: resolve,
        });
        deliveries.set(signal, delivery);
        delivery._start(at!, names.includes(name));
      };
      signal.addEventListener('abort', () => {
        wanted.delete(signal);
        deliveries.delete(signal);
        change();
        reject(signal.reason);
      });
      wanted.set(signal, name);
      change();
      const { from = first ?? 'now' } = options;
      if (from !== 'now') begin(from);
      else insist((_, count) => readInfo(count), signal).then(({ cursor }) => signal.aborted || begin(cursor), reject);
    });
    ready.catch(() => {});
    return { ready, signal, unsubscribe: () => abort.abort() };
  };

  const channel = <T>(name: string): Channel<T> => {
    if (!isName(name)) throw new TypeError(`invalid channel: ${name}`);
    return {
      name,
      subscribe: (handler, options) => subscribe(name, handler, options),
      publish: (data, options) => publish(name, data, options),
      async *[Symbol.asyncIterator]() {
        const queue: Message<T>[] = [];
        let wake = (): void => {};
        const { signal, unsubscribe } = subscribe<T>(name, (message) => {
          queue.push(message);
          wake();
        });
        signal.addEventListener('abort', () => wake());
        try {
          while (!signal.aborted || queue.length) {
            if (queue.length) yield queue.shift()!;
            else await new Promise<void>((resolve) => (wake = resolve));
          }
        } finally {
          unsubscribe();
        }
      },
    };
  };

  /** Tells what is wanted, once for all changes of a turn. */
  const change = (): void => {
    if (changed) return;
    changed = true;
    queueMicrotask(() => {
      changed = false;
      feed?._want([...wanted.values()]);
    });
  };

  const news: { readonly [Kind in News[0]]: (...rest: Rest<Extract<News, readonly [Kind, ...unknown[]]>>) => void } = {
    start: (from, brought) => {
      names = brought;
      if (!at || isAfter(from, at)) at = from;
      for (const delivery of deliveries.values()) delivery._start(from, names.includes(delivery._name));
    },
    take: (envelope) => {
      const { id, control } = envelope;
      if (control === 'gap') tellGap(id ?? (envelope.data as string));
      if (!id) return;
      for (const delivery of deliveries.values()) delivery._take(envelope);
      if (at && isAfter(id, at)) at = id;
    },
    state: become,
    fail: (...told) => {
      dispatch('error', new HalleyError(...told));
      closing.abort();
    },
  };

  const hear: Tell = (...[kind, ...rest]) => {
    if (!closed.aborted) (news[kind] as (...rest: readonly unknown[]) => void)(...rest);
  };

  const join = (): void => {
    const { share = !token } = options;
    const open = (tell: Tell): Feed => openFeed(url, { ...options, token, openTimeout }, at ?? first, readInfo, tell);
    feed = share && canShare() ? shareFeed(`halley ${[url, share, transports]}`, open, hear) : open(hear);
    // Whoever was told has closed it.
    if (closed.aborted) leave();
    change();
  };

  const leave = (): void => {
    feed?._close();
    feed = undefined;
  };

  /** Follows the page: while it is in a cache or frozen it holds nothing. */
  const attend = (): void => {
    const on = (types: string, listener: (event: Event) => void): void => {
      // Freezing is told to the document, which is beneath the window.
      for (const type of types.split(' ')) addEventListener(type, listener, { capture: true, signal: closed });
    };
    on('pagehide freeze', leave);
    on('pageshow resume online visibilitychange', ({ type }) => {
      if (type[0] === 'v' && document.hidden) return;
      wake();
      if (feed) feed._wake(type[0] === 'o');
      else join();
    });
  };

  const connection = new (class extends EventTarget {
    get state() {
      return state;
    }
    get transport() {
      return state === 'open' ? transport : undefined;
    }
    get cursor() {
      let lowest = at ?? first;
      for (const { _position } of deliveries.values()) {
        if (lowest && _position !== 'earliest' && isAfter(lowest, _position)) lowest = _position;
      }
      return lowest;
    }
    channel = channel;
    publish = publish;
    close(): void {
      closing.abort();
    }
  })();

  closed.addEventListener('abort', () => {
    for (const abort of parts) abort.abort();
    leave();
    become('closed');
  });
  if (closed.aborted) state = 'closed';
  else {
    join();
    if (globalThis.document) attend();
  }

  return connection as Connection;
};
