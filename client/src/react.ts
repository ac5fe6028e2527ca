import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { connect, HalleyError } from './index.js';
import type {
  Connection,
  ConnectionState,
  ConnectOptions,
  Message,
  PublishOptions,
  SubscribeOptions,
  TransportName,
} from './index.js';

export interface ChannelOptions {
  /**
   * Where to begin; as of `Channel.subscribe`. Another one begins anew.
   * @default the connection's `cursor` option, or 'now' without one
   */
  readonly from?: SubscribeOptions['from'];
  /** How many of the latest messages to keep. @default 100 */
  readonly keep?: number | undefined;
}

export interface ChannelView<T> {
  /** The latest messages, in order, each once. Another array whenever there are more. */
  readonly messages: readonly Message<T>[];
  /** The connection's; `connecting` where there is none yet. */
  readonly state: ConnectionState;
  readonly transport: TransportName | undefined;
  /**
   * Publishes to the channel; as `Connection.publish`. The function stays the
   * same as long as the connection and the channel do.
   * @throws HalleyError with the code `unreachable` where there is no
   * connection yet, or no channel
   */
  readonly publish: (data: T, options?: PublishOptions) => Promise<string>;
}

/**
 * Connects to a server for as long as the component is mounted. Another URL
 * connects anew; of the options only `token` is read again later on. It is
 * `undefined` on the server and in the first render, which `useChannel` takes.
 *
 * For a connection that outlives components call `connect` outside of them.
 * @throws TypeError if the URL is invalid, when rendering
 */
export function useConnection(url: string | URL, options: ConnectOptions = {}): Connection | undefined {
  const href = String(url);
  const [held, hold] = useState<{ readonly href: string; readonly connection: Connection }>();
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    let connection: Connection | undefined;
    let over = false;
    // Strict mode takes its first effect back within the turn: nothing is opened for it.
    queueMicrotask(() => {
      if (over) return;
      const { token } = latest.current;
      try {
        connection = connect(href, {
          ...latest.current,
          ...(token && { token: (signal) => (latest.current.token ?? token)(signal) }),
        });
      } catch (error) {
        hold(() => {
          throw error;
        });
        return;
      }
      hold({ href, connection });
    });
    return () => {
      over = true;
      connection?.close();
    };
  }, [href]);
  return held?.href === href ? held.connection : undefined;
}

/**
 * Subscribes to a channel, or to all those that a pattern matches, while the
 * component is mounted and there is a connection. Another connection, name or
 * `from` begins anew, without messages; without a name there are none.
 */
export function useChannel<T = unknown>(
  connection: Connection | undefined,
  name: string | null | undefined,
  { from, keep = 100 }: ChannelOptions = {},
): ChannelView<T> {
  const [held, hold] = useState(() => openList<T>(connection, name, from));
  let list = held;
  if (list.connection !== connection || list.name !== name || list.from !== from) {
    list = openList(connection, name, from);
    hold(list);
  }
  useEffect(() => list.bound(keep), [list, keep]);
  const watch = useCallback((changed: () => void) => watchState(connection, changed), [connection]);
  return {
    messages: useSyncExternalStore(list.subscribe, list.read, readNone),
    state: useSyncExternalStore(watch, () => connection?.state ?? 'connecting', readConnecting),
    transport: useSyncExternalStore(watch, () => connection?.transport, readNothing),
    publish: useCallback(
      async (data, options) => {
        if (!connection || !name) throw new HalleyError(`there is no ${name ? 'connection yet' : 'channel'}`, 'unreachable');
        return connection.publish(name, data, options);
      },
      [connection, name],
    ),
  };
}

const NONE: readonly never[] = [];
const readNone = (): readonly never[] => NONE;
const readConnecting = (): ConnectionState => 'connecting';
const readNothing = (): undefined => undefined;

const watchState = (connection: Connection | undefined, changed: () => void): (() => void) => {
  const types = ['connecting', 'open', 'waiting', 'closed', 'transport'] as const;
  for (const type of types) connection?.addEventListener(type, changed);
  return () => {
    for (const type of types) connection?.removeEventListener(type, changed);
  };
};

/** The messages of one channel from one start on, for React to read. */
interface List<T> {
  readonly connection: Connection | undefined;
  readonly name: string | null | undefined;
  readonly from: SubscribeOptions['from'];
  /** Subscribes to the channel until the function that it returns is called. */
  readonly subscribe: (changed: () => void) => () => void;
  readonly read: () => readonly Message<T>[];
  readonly bound: (keep: number) => void;
}

/** @throws TypeError if the name is invalid */
function openList<T>(
  connection: Connection | undefined,
  name: string | null | undefined,
  from: SubscribeOptions['from'],
): List<T> {
  const channel = name ? connection?.channel<T>(name) : undefined;
  let messages: readonly Message<T>[] = NONE;
  /** What has come and is not shown yet. */
  let fresh: Message<T>[] = [];
  let last: string | undefined;
  let keep = Infinity;
  /** Where to begin, and to go on. */
  let position = from;
  let show = (): void => {};

  /** Makes the messages what is to be shown. */
  const settle = (): void => {
    if (!fresh.length && messages.length <= keep) return;
    const all = [...messages, ...fresh];
    messages = all.slice(Math.max(0, all.length - keep));
    fresh = [];
    show();
  };

  return {
    connection,
    name,
    from,
    subscribe: (changed) => {
      if (!channel) return () => {};
      let timer: ReturnType<typeof setTimeout> | undefined;
      let begun = false;
      show = changed;
      const { ready, unsubscribe } = channel.subscribe(
        (message) => {
          last = message.id;
          fresh.push(message);
          // A page in the background may be late to show them.
          if (fresh.length > 2 * keep) fresh.splice(0, fresh.length - keep);
          // A WebSocket brings each message in a task of its own. Those that
          // are there already come before a timer.
          timer ??= setTimeout(() => {
            timer = undefined;
            settle();
          });
        },
        position === undefined ? {} : { from: position },
      );
      ready.then(
        () => (begun = true),
        () => {},
      );
      return () => {
        clearTimeout(timer);
        show = () => {};
        settle();
        unsubscribe();
        // React takes effects back and repeats them, and not in strict mode
        // alone (a hidden Activity): then it goes on here.
        if (last) position = last;
        else if (begun && (from ?? 'now') === 'now') position = connection!.cursor ?? position;
      };
    },
    read: () => messages,
    bound: (most) => {
      keep = Math.max(0, most);
      settle();
    },
  };
}
