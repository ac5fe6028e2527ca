import { ask } from './ask.js';
import { draw } from './backoff.js';
import { isAfter } from './cursor.js';
import type { Envelope } from './envelope.js';
import type { HalleyError } from './error.js';
import { isFinal, problem } from './problem.js';
import { transports } from './transports/index.js';
import type { Upstream } from './transports/transport.js';
import type { ConnectionState, ConnectOptions, TransportName } from './types.js';

/** What the server tells of itself (protocol, section 18). */
export interface Info {
  readonly transports: readonly string[];
  readonly heartbeat: number;
  readonly hosts: readonly string[];
  readonly cursor: string;
}

type Names = readonly string[];
type Timer = ReturnType<typeof setTimeout>;

/** As the page gave them, but for defaults and that a token may be undefined. */
export type FeedOptions = Omit<ConnectOptions, 'token'> & {
  readonly token: ConnectOptions['token'] | undefined;
  readonly openTimeout: number;
};

/** What a feed tells; plain data, so that it can be posted to other tabs. */
export type News =
  /** The names come from now on, every message after the position, and something every so many seconds. */
  | readonly ['start', at: string, names: Names, heartbeat: number]
  | readonly ['take', Envelope]
  | readonly ['state', ConnectionState, detail?: unknown]
  | readonly ['fail', message: string, code: string, status: number];

export type Tell = (...news: News) => void;

/** Where news come from: a feed of this tab's, or one that tabs share. */
export interface Feed {
  /** Sets what to receive, and asks for the present state, and for `start` once the names come. */
  _want(names: Names): void;
  /** The page has come back, or the network has, and with it perhaps another one. */
  _wake(network: boolean): void;
  _close(): void;
}

/** One attempt to receive. At most one is live, and one more is its successor to be. */
interface Stream {
  readonly _rung: number;
  /** Becomes live with so many envelopes: 1 is `open`, and a better transport is to show that it goes on after that. */
  _need: number;
  readonly _names: Names;
  readonly _abort: AbortController;
  _heartbeat: number;
  _count: number;
  _timer?: Timer;
}

/** A channel that nobody publishes to: a stream needs one. */
const NONE = ['~'];

/** For so long the page may be on its way out, which looks like an error first; in milliseconds. */
const LEAVING = 250;

/**
 * Receives the messages of a set of names, by whatever transport works. It
 * keeps the position of what has come, opens streams from there and replaces
 * them: at their end, for other names, for a better transport. A stream goes
 * when its successor has begun; what comes twice then is dropped by position
 * above.
 * @param url Where the protocol is mounted.
 * @param cursor Where to start; the log's end if it is not known.
 */
export const openFeed = (
  url: string,
  { transports: order = Object.keys(transports) as TransportName[], ...options }: FeedOptions,
  cursor: string | undefined,
  readInfo: (attempts: number) => Promise<Info>,
  tell: Tell,
): Feed => {
  const { backoff, token: authorize, openTimeout, upgradeAfter = 30_000, verdictFor = 600_000 } = options;
  const memory = `halley ${url}`;
  /** By the protocol's name: until when a transport is passed over or, less than zero, known to hold nothing back. */
  let verdicts: Record<string, number>;
  let rungs: readonly TransportName[];
  let info: Info | undefined;
  /** What `info` took, in milliseconds. */
  let took = 0;
  let wanted: Names = NONE;
  /** The rung of the stream that was opened last. */
  let dialled = 0;
  let live: Stream | undefined;
  let next: Stream | undefined;
  let state: News;
  /** Why the transport is the one it is. */
  let reason = 'connected';
  let fault = '';
  /** Attempts since something other than `open` came, and those that speak against the transport. */
  let attempts = 0;
  let barren = 0;
  /** Where the walk down the ladder has come to, and how many have ended at its foot. */
  let floor = 0;
  let walks = 0;
  let upgrades = 0;
  /** Which of the hosts. */
  let turn: number | undefined;
  let closed = false;
  let waiting: Timer | undefined;
  let upgrading: Timer | undefined;
  /** Until it ends, no other successor is opened after one that has failed. */
  let resting: Timer | undefined;
  let expiring: Timer | undefined;

  const wire = (name: TransportName): string => transports[name]._wire ?? name;

  const become = (name: ConnectionState, detail?: unknown): void => tell(...(state = ['state', name, detail]));

  const announce = (): void => tell('start', cursor!, live!._names, live!._heartbeat);

  const fail = ({ message, code, status }: HalleyError): void => tell('fail', message, code, status);

  const connect = async (): Promise<void> => {
    waiting = clearTimeout(waiting) as undefined;
    become('connecting');
    const asked = Date.now();
    // Was it the transport or the network?
    const told = await ((!info || barren) && readInfo(attempts).catch((error) => error));
    // Whoever is told may close this.
    if (closed) return;
    if (!info || barren) {
      if (!told?.transports) {
        barren &&= 1;
        return isFinal(told) ? fail(told) : lose('unreachable', told?._after);
      }
      info = told as Info;
      took = Date.now() - asked;
      cursor ??= info.cursor;
      // Of two ways to read one stream the first will do.
      const left = new Set(info.transports);
      rungs = order.filter((name) => transports[name]._supported() && left.delete(wire(name)));
      if (!rungs.length) return tell('fail', 'unsupported', 'unsupported', 0);
      if (barren > 1) condemn(dialled);
    }
    dial();
  };

  /** The best transport that is not passed over, from where the walk has come to. */
  const pick = (): number => {
    const rung = rungs.findIndex((name, n) => n >= floor && !(verdicts[wire(name)]! > Date.now()));
    if (rung >= 0) return rung;
    verdicts = {};
    walks++;
    return (floor = 0);
  };

  /** A transport is to be passed over (1), holds nothing back (-1), or nobody knows (0). */
  const judge = (rung: number, verdict: number): void => {
    verdicts[wire(rungs[rung]!)] = verdict * (Date.now() + verdictFor);
    try {
      localStorage[memory] = JSON.stringify(verdicts);
    } catch {
      // This page remembers it.
    }
  };

  const condemn = (rung: number): void => {
    judge(rung, 1);
    reason = `${rungs[rung]}: ${fault}`;
    barren = 0;
    attempts = walks;
    floor = rung + 1;
  };

  /**
   * Opens a stream, beside the live one if there is one. A proxy that holds
   * bytes back lets them out in bursts while much is published, so a transport
   * begins with a stream that is quiet.
   */
  const dial = (rung = pick(), need = 1, names = verdicts[wire(rungs[rung]!)]! < -Date.now() ? wanted : NONE): void => {
    drop(next);
    const name = rungs[rung]!;
    const abort = new AbortController();
    const { signal } = abort;
    const at = cursor!;
    const stream: Stream = (next = {
      _rung: (dialled = rung),
      _need: need,
      _names: names,
      _abort: abort,
      _heartbeat: info!.heartbeat,
      _count: 0,
    });
    (async () => {
      const token = await authorize?.(signal);
      if (signal.aborted) return;
      if (token) expire(token);
      watch(stream, Math.max(openTimeout, 4 * took));
      const mount = base();
      const target = `${mount}/subscribe`;
      const form = (more?: Record<string, string>): URLSearchParams =>
        new URLSearchParams([
          ...stream._names.map((name) => ['channel', name]),
          ...Object.entries({ transport: wire(name), cursor: at, ...more }),
        ]);
      const up: Upstream = {
        _url: target,
        _form: form,
        _get: async (more?: Record<string, string>) => {
          // Good for this one URL.
          const ticket = token && (await ask<object>(`${mount}/ticket`, { ...up, _body: '' }));
          signal.throwIfAborted();
          return `${target}?${form({ ...more, ...ticket, _: Math.random() as never })}`;
        },
        _token: token,
        _cursor: at,
        _heartbeat: stream._heartbeat,
        _signal: signal,
        _take: (envelope: Envelope) => take(stream, envelope),
        _renew: renew,
      };
      await transports[name]._open(up);
      // Refused perhaps: not all transports can tell (protocol 22.7).
      if (!stream._count) await ask(target, { ...up, _body: form({ transport: 'long-polling', timeout: '0' }) });
    })()
      .catch((error) => error)
      .then((error) => end(stream, error?.message ?? 'cut', error));
  };

  /** Renews the stream before its token expires, if that is a JWT. */
  const expire = (token: string): void => {
    clearTimeout(expiring);
    try {
      const left = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'))).exp * 1000 - Date.now();
      // Where nothing is left as it comes, it is the clock that is wrong. Longer
      // than that a timer cannot wait.
      if (left > 0) expiring = setTimeout(renew, Math.min(left * 0.8, 1e9));
    } catch {
      // It is none.
    }
  };

  /**
   * The mount's URL under one of the server's hosts, so that the page's own
   * requests do not wait for a connection. It stays the same until it fails;
   * the page's own host comes last.
   */
  const base = (): string => {
    const own = new URL(url);
    const hosts = info!.hosts.filter((host) => globalThis.document && host !== own.host);
    turn ??= (Math.random() * hosts.length) | 0;
    // A host without a port leaves the URL's own.
    own.host = hosts[turn % (hosts.length + 1)] ?? own.host;
    return own.href;
  };

  /** Restarts a stream's clock: it is over if nothing comes for so many milliseconds. */
  const watch = (stream: Stream, ms: number): void => {
    clearTimeout(stream._timer);
    const due = Date.now() + ms;
    stream._timer = setTimeout(() => {
      if (Date.now() < due + 2000) return end(stream, stream._count ? 'silent' : 'timeout');
      // The page has slept: what has come meanwhile may still be on its way.
      watch(stream, ms);
      renew();
    }, ms);
  };

  const take = (stream: Stream, envelope: Envelope): void => {
    if (stream._abort.signal.aborted) return;
    const { control, id } = envelope;
    const opens = control === 'open';
    if (stream._count++) attempts = barren = floor = walks = 0;
    if (control === 'reconnect') return end(stream, 'server', { code: 'server', _after: envelope.delay });
    if (control === 'error') return end(stream, envelope.code!, problem(envelope));
    if (opens) {
      stream._heartbeat = envelope.heartbeat!;
      if (stream._names === NONE) {
        judge(stream._rung, -1);
        if (wanted !== NONE) return dial(stream._rung, stream._need, wanted);
      }
    }
    watch(stream, stream._heartbeat * 2000);
    if (stream === next && (stream._count >= stream._need || !live)) adopt(stream);
    // An `open` at another position is followed by its gap: until that has come
    // the position stays (protocol 22.3).
    if (opens) return;
    if (id && isAfter(id, cursor!)) cursor = id;
    tell('take', envelope);
  };

  /** The stream takes the place of the live one. */
  const adopt = (stream: Stream): void => {
    const rung = stream._rung;
    if (rung < live?._rung!) {
      upgrades = 0;
      reason = 'better';
    }
    drop(live);
    live = stream;
    next = undefined;
    resting = clearTimeout(resting) as undefined;
    // Not where the stream starts: the cursor may have gone on since, even to
    // another epoch.
    announce();
    become('open', { transport: rungs[rung], reason });
    arm();
    follow();
  };

  /** Opens another stream if the names have changed. */
  const follow = (): void => {
    if (live && live._names !== wanted) renew();
  };

  /** Replaces the live stream, if that is not under way. */
  const renew = (): void => {
    if (live && !resting && next?._need !== 1) dial();
  };

  const arm = (): void => {
    clearTimeout(upgrading);
    if (live) upgrading = setTimeout(() => upgrade(0), Math.min(upgradeAfter * 2 ** upgrades, verdictFor));
  };

  /** Tries transports that are better than the live one, from a rung on. */
  const upgrade = (rung: number): void => {
    if (live && !next) {
      if (rung < live._rung) return dial(rung, 2);
      upgrades++;
    }
    arm();
  };

  const drop = (stream: Stream | undefined): void => {
    clearTimeout(stream?._timer);
    stream?._abort.abort();
  };

  const end = (stream: Stream, why: string, error?: unknown): void => {
    if (stream._abort.signal.aborted) return;
    drop(stream);
    if (stream === next) next = undefined;
    else live = undefined;
    if (isFinal(error)) {
      if (error.code !== 'invalid-cursor') return fail(error);
      cursor = info = undefined;
    }
    const { code = 'unexpected', _after } = (error ?? {}) as Partial<HalleyError>;
    // With another code the server has spoken, and after a second envelope it is
    // the network's fault.
    // (A DOMException's code is a number.)
    const faulty = stream._count < 2 && /^un(ex|re)|\d/.test(code);
    // It may be that its bytes are held back by now.
    if (why === 'silent') judge(stream._rung, 0);
    if (faulty) {
      fault = why;
      turn!++;
      // A cut may be chance, and with several hosts it may be the host's fault.
      barren += error || why === 'cut' || info?.hosts.length ? 1 : 2;
    }
    if (live) {
      if (faulty && (stream._need > 1 || barren > 1)) void readInfo(attempts).then(() => condemn(stream._rung), () => (barren = 1));
      if (stream._need > 1) upgrade(stream._rung + 1);
      else {
        resting = setTimeout(() => {
          resting = undefined;
          renew();
        }, pause(_after));
      }
    } else if (next) {
      next._need = 1;
      if (next._count) adopt(next);
    } else if (barren > 1 && !walks) void connect();
    else lose(why, _after);
  };

  const pause = (least = 0): number => Math.max(LEAVING, least + draw(backoff, attempts++));

  const lose = (why: string, least?: number): void => {
    const delay = pause(least);
    become('waiting', { reason: globalThis.navigator?.onLine === false ? 'offline' : why, delay });
    waiting = setTimeout(connect, delay);
  };

  // WebSockets are trusted, until one falls silent.
  verdicts = { websocket: -9e15 };
  try {
    Object.assign(verdicts, JSON.parse(localStorage[memory]));
  } catch {
    // There is no storage, or none for this page, or nothing in it.
  }
  void connect();

  return {
    _want: (names) => {
      const unique = names.length ? [...new Set(names)].sort() : NONE;
      if (`${unique}` !== `${wanted}`) wanted = unique;
      if (live?._names === wanted) announce();
      tell(...state);
      follow();
    },
    _wake: (network) => {
      if (waiting) void connect();
      else if (network) renew();
    },
    _close: () => {
      closed = true;
      drop(live);
      drop(next);
      live = next = undefined;
      [waiting, upgrading, expiring, resting].forEach(clearTimeout);
    },
  };
};
