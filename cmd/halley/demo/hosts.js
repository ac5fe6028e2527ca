// Where each stream connects to.
//
// Over HTTP/1.1 a browser holds six connections to a host, over all its tabs,
// and a held response takes one for as long as it lives. Every name under
// .localhost is this machine, and each is a host of its own: so on the loopback
// interface the streams spread over a few names, two on each. Elsewhere there
// is the one name, and four streams at most are live. Over HTTP/2 all streams
// share one connection, and there is nothing to get round.

const LOOPBACK = /^(localhost|.+\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
const NAMES = {
  'long-polling': 'a', jsonp: 'a',
  iframe: 'b', multipart: 'b',
  'xhr-streaming': 'c', sse: 'c',
  websocket: 'd',
};
const FEW = 4;

const phone = matchMedia('(max-width: 700px), (pointer: coarse) and (hover: none)');

export const loopback = LOOPBACK.test(location.hostname);

// plan finds out how this page can reach its server. `mode` is spread, single
// or h2; `limit` is how many streams may be live at once. `pace` is how long
// the server takes to answer on the page's own host, in ms: on a busy machine
// the other names are given more time.
export async function plan(pace) {
  const protocol = performance.getEntriesByType('navigation')[0]?.nextHopProtocol ?? '';
  let mode = 'single';
  if (protocol === 'h2' || protocol === 'h3') {
    mode = 'h2';
  } else if (loopback && location.protocol === 'http:') {
    const names = [...new Set(Object.values(NAMES)), 'sky-1'];
    if ((await Promise.all(names.map((name) => answers(name, 1000 + 10 * pace)))).every(Boolean)) mode = 'spread';
  }
  const few = phone.matches;
  return {
    mode,
    few,
    limit: mode === 'single' || few ? FEW : Infinity,
    base: (transport) => (mode === 'spread' ? named(NAMES[transport]) : location.origin),
    picture: { spread: pictures, single: fewPictures, h2: () => () => location.origin }[mode](),
  };
}

const named = (name) => `http://${name}.localhost${location.port && ':' + location.port}`;

// pictures gives out hosts for the <img>. WebKit never gives back the
// connection of a multipart picture, not even of one that has ended, and the
// sixth blocks the host: so each name serves four, then comes the next name.
function pictures() {
  let taken = 0;
  return () => named('sky-' + (1 + Math.floor(taken++ / 4)));
}

// fewPictures keeps WebKit from blocking the only host there is.
function fewPictures() {
  const webkit = !/Chrom(e|ium)\//.test(navigator.userAgent) && !CSS.supports('-moz-appearance', 'none');
  let taken = 0;
  return () => (webkit && taken++ >= 2 ? null : location.origin);
}

// answers tells whether the server can be reached under a name: an older
// system may not resolve it, and the server may not allow it.
async function answers(name, timeout) {
  try {
    const response = await fetch(named(name) + '/comet/info', {
      cache: 'no-store',
      signal: AbortSignal.timeout(timeout),
    });
    return response.ok;
  } catch {
    return false;
  }
}

// Limiter keeps at most `max` streams live: who comes in sends out the oldest.
export class Limiter {
  #live = [];

  constructor(max) {
    this.max = max;
  }

  get full() {
    return this.#live.length >= this.max;
  }

  admit(stream) {
    this.release(stream);
    while (this.full) this.#live[0].switchOff();
    this.#live.push(stream);
  }

  release(stream) {
    this.#live = this.#live.filter((other) => other !== stream);
  }
}
