// The gate before the server that blocks this page's transports.

export const EVERYTHING = 'everything';

export class Gate {
  blocked = new Set();
  hold = false;
  turned = {}; // how many requests it has blocked, by transport
  onchange = () => {};
  #url;
  #setting = Promise.resolve();
  #sets = 0;

  constructor(id) {
    this.#url = `/demo/gate/${id}`;
    this.path = `${this.#url}/comet`;
    this.#ask();
    // What it has turned away is worth a look as long as it does so.
    setInterval(() => this.blocked.size && !document.hidden && this.#ask(), 1000);
  }

  toggle(transport) {
    const blocked = new Set(this.blocked);
    if (!blocked.delete(transport)) blocked.add(transport);
    this.set(blocked, this.hold);
  }

  // set shows what is meant at once, and what is so when the server has said it.
  set(blocked, hold) {
    this.blocked = new Set(blocked);
    this.hold = hold;
    this.#sets++;
    this.onchange();
    const body = JSON.stringify({ blocked: [...blocked], hold });
    const send = () => this.#ask({ method: 'PUT', headers: { 'Content-Type': 'application/json' }, body });
    this.#setting = this.#setting.then(send);
  }

  async #ask(request) {
    const sets = this.#sets;
    try {
      const response = await fetch(this.#url, { cache: 'no-store', signal: AbortSignal.timeout(5000), ...request });
      if (!response.ok) return;
      const { blocked, hold, turned } = await response.json();
      if (sets !== this.#sets) return; // it is meant to be something else by now
      this.blocked = new Set(blocked);
      this.hold = hold;
      this.turned = turned;
      this.onchange();
    } catch {
      // The server is away, and the client says so.
    }
  }
}
