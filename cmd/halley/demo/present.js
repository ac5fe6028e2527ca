// Who is here: every page says so now and then.

import { $, set, soon } from './dom.js';

const CHANNEL = 'demo/here';
const EVERY = 20_000; // ms
// So long after its last word a page is taken to be gone: in the background
// browsers let it speak once a minute.
const GONE = 75_000;
// A better transport has to bring something before the client takes it. On a
// quiet channel that would be the next heartbeat.
const CLIMBING = 2000;

export class Present {
  #options;
  #others = new Map(); // by id: name and when last heard
  #told = -Infinity;

  // options: self, connection, name().
  constructor(options) {
    this.#options = options;
    const { connection, self } = options;
    connection.channel(CHANNEL).subscribe(({ data }) => {
      if (typeof data?.self !== 'string' || typeof data.name !== 'string' || data.self === self) return;
      if (data.gone) {
        this.#others.delete(data.self);
      } else {
        // A newcomer does not know who is here.
        if (!this.#others.has(data.self)) setTimeout(() => this.tell(), 500 * Math.random());
        this.#others.set(data.self, { name: data.name.slice(0, 24), at: performance.now() });
      }
      soon(this.#show);
    }, { from: 'now' }).ready.then(() => this.tell(), () => {});
    setInterval(() => {
      const since = performance.now() - this.#told;
      if (since > (connection.transport === 'websocket' ? EVERY : CLIMBING)) this.tell();
      this.#show();
    }, 1000);
    // The client's own requests end with the page.
    addEventListener('pagehide', () => {
      const word = new Blob([JSON.stringify(this.#word({ gone: true }))], { type: 'application/json' });
      navigator.sendBeacon(`/comet/publish?channel=${CHANNEL}`, word);
    });
    addEventListener('pageshow', ({ persisted }) => persisted && this.tell());
    this.#show();
  }

  tell() {
    if (this.#options.connection.state !== 'open') return;
    this.#told = performance.now();
    this.#options.connection.publish(CHANNEL, this.#word()).catch(() => {});
    this.#show();
  }

  #word(more) {
    const { self, name } = this.#options;
    return { self, name: name(), ...more };
  }

  #show = () => {
    const now = performance.now();
    for (const [id, { at }] of this.#others) if (now - at > GONE) this.#others.delete(id);
    const names = [...this.#others.values()].map(({ name }) => name).sort();
    const listed = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
    const others = listed.length ? new Intl.ListFormat('en').format(['you', ...listed]) : '';
    set($('#here'), others ? `Here: ${others}` : 'You are alone here so far');
  };
}
