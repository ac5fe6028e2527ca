// The chat: what is said in it, and by it what becomes of each message.

import { connect } from '/comet/client.mjs';
import { $, set } from './dom.js';
import { Gate } from './gate.js';
import { Line } from './line.js';
import { Talk } from './talk.js';
import { Present } from './present.js';

const CHAT = 'demo/chat';
const HISTORY = 100; // messages that are shown on load

// drawn makes a name of at least 80 bits, in base 36.
const drawn = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36).padStart(7, '0')).join('');

// remembered keeps a value for this tab alone, also when it is reloaded: so two
// tabs are two people, each with a gate.
function remembered(key, make) {
  try {
    return (sessionStorage[key] ??= make());
  } catch {
    return make(); // a page without storage is another one when reloaded
  }
}

const NAMES = ['Edmond', 'Caroline', 'Tycho', 'Maria', 'Charles', 'Hypatia', 'Johannes', 'Henrietta', 'Giotto', 'Cecilia'];

const self = remembered('halley-self', drawn);
const gate = new Gate(remembered('halley-gate', drawn));
const name = $('#name');
name.value = remembered('halley-name', () => NAMES[Math.floor(Math.random() * NAMES.length)]);
name.addEventListener('change', () => {
  if (!name.value.trim()) name.value = NAMES[0];
  try {
    sessionStorage['halley-name'] = name.value;
  } catch {
    // It stays until the page is reloaded.
  }
  present.tell();
});

// The client remembers for each URL which transports failed, and each tab has
// a URL: those of tabs that are gone are of no use.
try {
  for (const key of Object.keys(localStorage)) {
    if (key.includes('/demo/gate/') && !key.includes(gate.path)) delete localStorage[key];
  }
} catch {
  // There is nothing to clear up.
}

// All that is done differently from a page that is no demo: it is in more of a
// hurry to come back and to climb.
const connection = connect(gate.path, {
  upgradeAfter: 3000,
  verdictFor: 15_000,
  backoff: { max: 4000 },
});

const line = new Line(connection, gate);
const talk = new Talk({ self, connection, channel: connection.channel(CHAT), name: () => name.value.trim() || NAMES[0] });
const present = new Present({ self, connection, name: () => name.value.trim() || NAMES[0] });

// past has the ids of what was there before.
const past = new Set();

// beginning is the position after which the last so many messages come. The
// client goes on from there, so that what is published meanwhile is not missed.
async function beginning() {
  for (;;) {
    try {
      const query = new URLSearchParams({ channel: CHAT, before: 'now', limit: String(HISTORY + 1) });
      const response = await fetch(`${gate.path}/history?${query}`, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (response.ok) {
        const { more, cursor, messages } = await response.json();
        for (const { id } of messages) past.add(id);
        return more || messages.length > HISTORY ? cursor : 'earliest';
      }
    } catch {
      // The client says what is wrong.
    }
    await new Promise((resolve) => setTimeout(resolve, 500 + 1000 * Math.random()));
  }
}

const from = await beginning();
const { ready } = connection.channel(CHAT).subscribe(
  (message) => {
    talk.take(message, past.delete(message.id) ? 'from history' : connection.transport && `by ${connection.transport}`);
    line.show();
  },
  { from },
);
line.account(talk);
ready.then(() => talk.show(), () => {});
set($('#version'), await fetch('/comet/info').then((response) => response.json()).then(({ version }) => version && `version ${version}`, () => ''));
