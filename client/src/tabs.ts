import type { Feed, News, Tell } from './feed.js';

type Names = readonly string[];
/** A tab that wants nothing, not even no names, is leaving. */
type Post = News | readonly ['want', Names?] | readonly ['lead'];

/** Numbers that no other tab draws, not even one that is a copy. */
export const unique = (): string => crypto.getRandomValues(new Uint32Array(4)).join('-');

/** Whether tabs can find each other here. Web Locks need a secure context. */
export const canShare = (): unknown => globalThis.navigator?.locks && globalThis.BroadcastChannel;

/**
 * Shares a feed between all tabs that use the same name. The one that has the
 * lock leads: it holds the feed and posts its news to all. A lock is given on
 * when its tab closes or crashes. A frozen tab keeps it: the others notice its
 * silence and steal it. The new leader goes on from where its own tab is;
 * others that had not got as far learn that from `start`.
 */
export const shareFeed = (name: string, open: (tell: Tell) => Feed, tell: Tell): Feed => {
  const self = unique();
  const channel = new BroadcastChannel(name);
  /** Of the leader: what each tab wants. */
  const wants = new Map<string, Names>();
  let names: Names = [];
  let leader: string | undefined;
  let feed: Feed | undefined;
  let lock = new AbortController();
  /** In milliseconds; a third of it is the time that a leader has to answer. */
  let heartbeat = 9000;
  /** Whether the leader's stream brings what this tab wants. */
  let heard = false;
  /** A frozen leader may still answer, but nothing comes to it. So what it answers then does not count. */
  let suspect = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const post = (...news: Post): void => channel.postMessage([self, ...news]);

  const request = (steal: boolean): void => {
    lock.abort();
    const { signal } = (lock = new AbortController());
    navigator.locks
      .request(name, steal ? { steal } : { signal }, () => {
        if (signal.aborted) return;
        lead();
        return new Promise((release) => (signal.onabort = release));
      })
      .catch((error: Error) => {
        if (signal.aborted) return;
        // Stolen, or there are no locks for this page.
        if (error.name === 'AbortError') return resign();
        // Other tabs have none either: each leads itself alone.
        channel.onmessage = null;
        lead();
      });
  };

  const lead = (): void => {
    clearTimeout(timer);
    leader = self;
    wants.clear();
    post('lead');
    feed = open((...news) => {
      // Whoever was told may have closed this.
      if (lock.signal.aborted) return;
      post(...news);
      tell(...news);
    });
    gather(self, names);
  };

  const resign = (): void => {
    feed?._close();
    feed = undefined;
    request(false);
    ask();
  };

  const gather = (tab: string, names?: Names): void => {
    if (names) wants.set(tab, names);
    else wants.delete(tab);
    feed!._want([...wants.values()].flat());
  };

  const watch = (ms: number, then: () => void): void => {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  };

  /** Tells the leader what is wanted. It answers at once, or it is not there any more. */
  const ask = (): void => {
    post('want', names);
    watch(heartbeat / 3, () => request(true));
  };

  channel.onmessage = ({ data: [from, ...news] }: MessageEvent<readonly [string, ...Post]>) => {
    if (news[0] === 'want') {
      if (feed) gather(from, news[1]);
    } else if (news[0] === 'lead') {
      leader = from;
      suspect = false;
      // With a feed this tab had been frozen, and another has stolen the lock.
      if (feed) resign();
      else ask();
    } else if (!feed && from === (leader ??= from)) {
      if (news[0] === 'start') {
        heartbeat = news[3] * 1000;
        heard = names.every((name) => news[2].includes(name));
      }
      if (news[0] === 'take' ? heard : !suspect || (news[0] === 'state' && news[1] !== 'open')) {
        suspect = false;
        watch(heartbeat * 1.25, () => {
          suspect = true;
          ask();
        });
      }
      tell(...news);
    }
  };
  request(false);
  ask();

  return {
    _want: (wanted) => {
      names = wanted;
      heard = false;
      if (feed) gather(self, names);
      else ask();
    },
    _wake: (network) => {
      if (feed) feed._wake(network);
      else ask();
    },
    _close: () => {
      clearTimeout(timer);
      feed?._close();
      post('want');
      lock.abort();
      channel.close();
    },
  };
};
