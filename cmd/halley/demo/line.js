// The panel: what the connection is, what it was, and what is done to it.

import { $, h, set, soon, ms, short } from './dom.js';
import { EVERYTHING } from './gate.js';

const EVENTS = 60;

// The client's order, with what the protocol calls them where that is not the
// same. XHR reads the stream of fetch where fetch cannot.
const RUNGS = [
  { name: 'websocket', label: 'WebSocket', about: 'a socket, both ways' },
  { name: 'fetch', wire: 'xhr-streaming', label: 'fetch', about: 'an answer that is read as it comes' },
  { name: 'sse', label: 'EventSource', about: 'what browsers were given for this' },
  { name: 'iframe', label: 'Hidden iframe', about: 'the same as a page that never ends' },
  { name: 'long-polling', label: 'Long polling', about: 'one answer after the other' },
  { name: 'jsonp', label: 'JSONP', about: 'the same as scripts, which no proxy minds' },
];

const FAULTS = {
  cut: 'was cut or refused',
  timeout: 'let nothing through in time',
  silent: 'fell silent',
  unreachable: 'the server cannot be reached',
  offline: 'the browser is offline',
  server: 'the server asked to come back',
};

// told puts the client's reason into words: `websocket: timeout`.
function told(reason) {
  if (reason === 'connected') return 'the first that worked';
  if (reason === 'better') return 'a better one works again';
  const [, transport, fault] = /^(?:([a-z-]+): )?(.*)$/.exec(reason);
  // Else it is the browser's own word for it, which differs.
  const words = FAULTS[fault] ?? (/error|fail/i.test(fault) ? FAULTS.cut : fault);
  return transport ? `${labelled(transport)} ${words}` : words;
}

const labelled = (name) => RUNGS.find((rung) => rung.name === name)?.label ?? name;

export class Line {
  #connection;
  #gate;
  #talk;
  #rungs;
  #reason = '';
  #due; // when the next attempt is

  constructor(connection, gate) {
    this.#connection = connection;
    this.#gate = gate;
    this.#rungs = RUNGS.map((rung) => this.#rung(rung));
    $('#ladder').append(...this.#rungs.map(({ element }) => element));
    for (const radio of document.querySelectorAll('[name=how]')) {
      radio.addEventListener('change', () => gate.set(gate.blocked, radio.value === 'hold'));
    }
    $('#everything').addEventListener('click', () => gate.toggle(EVERYTHING));
    $('#free').addEventListener('click', () => gate.set([], gate.hold));
    gate.onchange = () => soon(this.#draw);

    connection.addEventListener('connecting', () => this.#event('connecting', ''));
    connection.addEventListener('open', ({ detail: { transport, reason } }) => {
      this.#reason = told(reason);
      this.#event('open', `by ${labelled(transport)}`);
    });
    connection.addEventListener('transport', ({ detail: { from, to, reason } }) => {
      this.#reason = told(reason);
      this.#event('transport', `${from ? `${labelled(from)} → ` : ''}${labelled(to)}: ${told(reason)}`, { to });
    });
    connection.addEventListener('waiting', ({ detail: { reason, delay } }) => {
      this.#reason = told(reason);
      this.#due = performance.now() + delay;
      this.#event('waiting', `${ms(delay)}: ${told(reason)}`);
    });
    connection.addEventListener('gap', ({ detail: { cursor } }) => this.#event('gap', `up to ${short(cursor)} messages may be missing`));
    connection.addEventListener('error', ({ detail: { code, message } }) => this.#event('error', `${code}: ${message}`));
    connection.addEventListener('closed', () => this.#event('closed', ''));
    this.show();
  }

  // account shows the figures of what was said, too.
  account(talk) {
    this.#talk = talk;
    this.show();
  }

  show() {
    soon(this.#draw);
  }

  #event(type, text, { to } = {}) {
    const list = $('#events');
    const end = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const at = new Date();
    const clock = `${at.toLocaleTimeString('en-GB')}.${String(at.getMilliseconds()).padStart(3, '0')}`;
    list.append(h('li', { 'data-type': type, 'data-to': to }, h('time', { datetime: at.toISOString() }, clock), h('b', {}, type), h('span', {}, text)));
    while (list.children.length > EVENTS) list.firstElementChild.remove();
    if (end) list.scrollTop = list.scrollHeight;
    this.show();
  }

  #rung({ name, wire = name, label, about }) {
    const note = h('span.note');
    const button = h('button.block', { type: 'button', 'aria-pressed': 'false', 'aria-label': `Block ${label}`, onclick: () => this.#gate.toggle(wire) }, 'Block');
    const element = h('li.rung', { 'data-rung': name }, h('i', { 'aria-hidden': 'true' }), h('div', {}, h('b', {}, label), h('span.about', {}, about)), note, button);
    return { name, wire, note, button, element };
  }

  #draw = () => {
    const { state, transport, cursor } = this.#connection;
    const now = $('#state');
    now.dataset.state = state;
    now.dataset.transport = transport ?? '';
    set(now.querySelector('b'), state === 'open' ? `open by ${labelled(transport)}` : state);
    set(now.querySelector('.due'), state === 'waiting' ? `next try ${this.#count()}` : '');
    set(now.querySelector('.reason'), state === 'waiting' || state === 'open' ? this.#reason : '');
    const chip = $('#chip');
    chip.dataset.state = state;
    set(chip.querySelector('span'), transport ? labelled(transport) : state);

    const all = this.#gate.blocked.has(EVERYTHING);
    const at = RUNGS.findIndex(({ name }) => name === transport || (name === 'fetch' && transport === 'xhr'));
    this.#rungs.forEach(({ wire, note, button, element }, i) => {
      const blocked = all || this.#gate.blocked.has(wire);
      const live = i === at;
      element.dataset.state = live ? 'live' : blocked ? 'blocked' : 'free';
      if (live) element.setAttribute('aria-current', 'true');
      else element.removeAttribute('aria-current');
      const turned = this.#gate.turned[wire];
      set(note, live ? 'in use' : blocked && turned ? `tried ${turned}×` : '');
      button.setAttribute('aria-pressed', String(this.#gate.blocked.has(wire)));
      set(button, this.#gate.blocked.has(wire) ? 'Blocked' : 'Block');
    });
    $('#everything').setAttribute('aria-pressed', String(all));
    set($('#everything'), all ? 'Everything is blocked' : 'Block everything');
    $('#free').disabled = this.#gate.blocked.size === 0;
    $(`[name=how][value=${this.#gate.hold ? 'hold' : 'refuse'}]`).checked = true;

    if (this.#talk) {
      set($('#received'), String(this.#talk.received));
      for (const name of ['lost', 'doubled']) {
        set($(`#${name}`), String(this.#talk[name]));
        $(`#${name}`).classList.toggle('bad', this.#talk[name] > 0);
      }
    }
    set($('#cursor'), cursor ? short(cursor) : '–');
    $('#cursor').title = cursor ?? '';
    if (state === 'waiting') setTimeout(() => this.show(), 100);
  };

  #count() {
    const left = this.#due - performance.now();
    return left > 0 ? `in ${(left / 1000).toFixed(1)} s` : 'now';
  }
}
