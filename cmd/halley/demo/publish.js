// Publishing: by hand, in a burst, and by itself once a second.

import { $, h, set, ms, short } from './dom.js';

const CHANNEL = 'demo/lanes';

// Some of the returns of Halley's Comet, to have something to say.
const RETURNS = [
  '240 BC, noted down in China: the oldest sighting that is certain',
  '164 BC, on a clay tablet in Babylon',
  '87 BC, seen from Babylon and from China',
  '12 BC, over Rome',
  'AD 66, over Jerusalem like a sword, wrote Josephus',
  '141, back again', '218, back again', '295, back again', '374, back again', '451, back again',
  '530, back again', '607, back again', '684, drawn in the chronicle of Nuremberg',
  '760, back again',
  '837, never so near the Earth before or since',
  '912, back again', '989, back again',
  '1066, stitched into the Bayeux Tapestry',
  '1145, drawn in the Eadwine Psalter',
  '1222, back again',
  '1301, and Giotto painted it over Bethlehem',
  '1378, back again',
  '1456, over the siege of Belgrade',
  '1531, and Apian saw that the tail points away from the sun',
  '1607, watched by Kepler',
  '1682, watched by Edmond Halley',
  '1759, sighted on Christmas night: it came back, as he had said',
  '1835, the year Mark Twain was born',
  '1910, its first photograph, and Earth in its tail',
  '1986, and Giotto, the probe, flew by',
  '2061, the next',
];

// post publishes a body to a channel and returns the ids it was given.
export async function post(channel, type, body) {
  const response = await fetch('/comet/publish?channel=' + encodeURIComponent(channel), {
    method: 'POST',
    headers: { 'Content-Type': type },
    body,
    signal: AbortSignal.timeout(10000),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? answer.title ?? `refused with ${response.status}`);
  return answer.ids ?? [answer.id];
}

export class Publisher {
  #ledger;
  #result = $('#result');
  #failed = false;

  constructor(ledger) {
    this.#ledger = ledger;
    const form = $('#publish');
    const text = $('#text');
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      const json = form.elements.kind.value === 'json';
      if (json && !valid(text.value)) return this.#say('That is not JSON yet: try {"warm": "regards"}', true);
      const done = await this.send(json ? 'application/json' : 'text/plain; charset=utf-8', text.value);
      if (done) text.select();
    });
    $('#burst').addEventListener('click', () => this.burst(10));
  }

  send(type, body) {
    return this.#publish(type, body);
  }

  // burst publishes n messages as one batch, which is kept whole or not at all.
  burst(n) {
    const lines = Array.from({ length: n }, (_, i) => JSON.stringify({ data: `${i + 1} of a burst of ${n}` }));
    return this.#publish('application/x-ndjson', lines.join('\n'));
  }

  async #publish(type, body, quiet) {
    const at = performance.now();
    this.#ledger.publishing();
    let ids = [];
    try {
      ids = await post(CHANNEL, type, body);
      const span = ids.length > 1 ? `${short(ids[0])} to ${short(ids.at(-1))}` : short(ids[0]);
      if (quiet) this.#recovered();
      else this.#say(`Kept as ${span}, acknowledged in ${ms(performance.now() - at)}.`);
      this.onpublished?.(ids.at(-1));
      return true;
    } catch (error) {
      this.#say(`Not published: ${error.message}`, true);
      return false;
    } finally {
      this.#ledger.published(ids, at);
    }
  }

  tale(n) {
    return this.#publish('text/plain; charset=utf-8', RETURNS[n % RETURNS.length], true);
  }

  #recovered() {
    if (this.#failed) this.#say('');
  }

  #say(text, bad = false) {
    this.#failed = bad;
    set(this.#result, text);
    this.#result.classList.toggle('bad', bad);
  }
}

function valid(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// Auto acts once a second while it is switched on and its tab is seen. Of
// several tabs only one acts, where the browser has locks to agree by: only
// secure contexts have, so over plain HTTP that means the loopback names.
export class Auto {
  #act;
  #toggle = $('#auto');
  #on;
  #release = null;
  #asking = null;

  constructor(on, act) {
    this.#act = act;
    this.#on = on;
    this.#toggle.addEventListener('click', () => {
      this.#on = !this.#on;
      this.#update();
    });
    document.addEventListener('visibilitychange', () => this.#update());
    addEventListener('pagehide', () => this.#stop());
    addEventListener('pageshow', () => this.#update());
    this.#update();
  }

  #update() {
    this.#toggle.setAttribute('aria-checked', String(this.#on));
    if (this.#on && !document.hidden) this.#start();
    else this.#stop();
  }

  #start() {
    if (this.#asking) return;
    this.#asking = new AbortController();
    const signal = this.#asking.signal;
    const turn = () => new Promise((release) => {
      if (signal.aborted) return release();
      this.#release = release;
      this.#run(signal);
    });
    if (navigator.locks) navigator.locks.request('halley-demo-auto', { signal }, turn).catch(() => {});
    else turn();
  }

  #stop() {
    this.#asking?.abort();
    this.#asking = null;
    this.#release?.();
    this.#release = null;
  }

  async #run(signal) {
    while (!signal.aborted) {
      const next = performance.now() + 1000;
      await this.#act();
      await new Promise((resolve) => setTimeout(resolve, Math.max(50, next - performance.now())));
    }
  }
}

// copyable fills a list with commands to try, each with a button to copy it.
export function copyable(list, commands) {
  for (const { label, command } of commands) {
    const code = h('code', {}, command);
    const button = h('button.copy', { type: 'button', 'aria-label': 'Copy: ' + label }, 'Copy');
    button.addEventListener('click', async () => {
      const done = await copy(command, code);
      set(button, done ? 'Copied' : 'Selected');
      setTimeout(() => set(button, 'Copy'), 1500);
    });
    list.append(h('li', {}, h('span', {}, label), h('div.command', {}, code, button)));
  }
}

// copy selects the text where the clipboard is closed to the page.
async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}
