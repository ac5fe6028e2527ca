// A pane: one subscription over one transport, which holds its own cursor and
// always comes back with it, and its view.

import { h, set, ms, short, soon, motion } from './dom.js';

const CHANNEL = 'demo/lanes';
const CUT_PAUSE = 3000;
const START_TIMEOUT = 12000;
const SETTLE = 500; // after which what was missed has come, as a rule
const PATIENCE = 5000; // after which it is not waited for
const REFUSED_PAUSE = 30000;
const SAMPLES = 32;
const LINES = 5;

const WORDS = { idle: 'off', connecting: 'connecting', open: 'open', cut: 'cut', waiting: 'waiting' };

export class Pane {
  state = 'idle';
  cursor;
  catching = null; // what a resumed pane has to show
  received = 0;
  adopted = false;
  #transport;
  #options;
  #lane;
  #run = 0; // tells the calls of this connection from those of an older one
  #close = () => {};
  #timer;
  #failures = 0;
  #heard = 0;
  #openedAt = Infinity;
  #heartbeat = 25;
  #latencies = [];
  #lines = []; // the last messages as shown, newest first
  #fresh = false; // something has come since they were drawn
  #view;

  // options: base (origin), ledger, limiter, announce(text), changed(),
  // unsupported(pane), which takes over a pane that the engine has no use for.
  constructor(transport, cursor, options) {
    this.#transport = transport;
    this.#options = options;
    this.cursor = cursor;
    this.#lane = options.ledger.lane(transport.name, (latency, id) => this.#measured(latency, id));
    this.#view = view(this, transport, new URL(options.base).host);
    this.#set('idle');
  }

  get name() {
    return this.#transport.name;
  }

  get base() {
    return this.#options.base;
  }

  get element() {
    return this.#view.root;
  }

  get lane() {
    return this.#lane;
  }

  get live() {
    return this.state !== 'idle';
  }

  switchOn() {
    if (this.live) return;
    this.#options.limiter.admit(this);
    this.#failures = 0;
    if (this.#options.ledger.end) this.catching = this.#mark();
    this.#connect();
  }

  switchOff() {
    this.#drop();
    this.#options.limiter.release(this);
    this.catching = null;
    this.#set('idle');
  }

  // cut drops the connection as a bad network would, and comes back from the
  // cursor a little later.
  cut() {
    if (this.state !== 'open' || this.adopted) return;
    this.#drop();
    this.catching = this.#mark();
    this.#set('cut');
    this.#say(`Cut at ${short(this.cursor)}.`, 'cut');
    this.#options.announce(`${this.name} cut`);
    const back = performance.now() + CUT_PAUSE * (0.9 + 0.2 * Math.random());
    const count = () => {
      const left = back - performance.now();
      if (left <= 0) return this.#connect();
      this.#say(`Cut at ${short(this.cursor)}. Back in ${Math.ceil(left / 1000)} s.`, 'cut');
      this.#timer = setTimeout(count, Math.min(left, 250));
    };
    count();
  }

  // A page put away gives its connections back, and goes on when it returns.
  pagehide() {
    if (this.live) this.#drop();
  }

  pageshow() {
    if (this.live) this.#connect();
  }

  // tick is the watchdog's: no stream tells reliably that it has died.
  tick(now, slept) {
    if (slept) this.#heard = now; // the silence was ours
    const silence = now - this.#heard;
    if (this.state === 'connecting' && silence > START_TIMEOUT) this.#ended({ why: 'No answer: other tabs may hold all connections' });
    if (this.state === 'open' && silence > 2000 * this.#heartbeat) this.#ended({ why: 'two heartbeats missed' });
  }

  #connect() {
    this.#drop();
    const { ledger } = this.#options;
    if (this.#lane.position < ledger.dropped && ledger.dropped > 0) {
      // Away for so long that the ledger can't book what it would bring.
      this.cursor = ledger.entries.at(-1).id;
      ledger.gap(this.#lane);
    }
    const run = this.#run;
    const current = (act) => (value) => run === this.#run && act(value);
    this.#heard = performance.now();
    this.#openedAt = Infinity;
    this.#set('connecting');
    this.#close = this.#transport.open(this.base, { channel: CHANNEL, cursor: this.cursor }, {
      frame: current((envelope) => this.#frame(envelope)),
      alive: current(() => (this.#heard = performance.now())),
      end: current((how) => this.#ended(how)),
    });
  }

  #drop() {
    this.#run++;
    clearTimeout(this.#timer);
    this.#close();
    this.#close = () => {};
  }

  #frame(envelope) {
    this.#heard = performance.now();
    if (!envelope.control) return this.#message(envelope);
    if (envelope.id) this.cursor = envelope.id;
    switch (envelope.control) {
      case 'open':
        this.#failures = 0;
        this.#heartbeat = envelope.heartbeat;
        this.#opened();
        break;
      case 'gap':
      case 'skip':
        this.#options.ledger.gap(this.#lane);
        if (this.catching) this.catching.gap = true;
        else this.#say(`A gap: messages up to ${short(this.cursor)} may be missing.`, 'gap');
        break;
      case 'reconnect':
        this.#ended({ why: 'asked to come back', planned: true, delay: envelope.delay });
        break;
      case 'error':
        this.#ended({ why: `${envelope.status} ${envelope.title ?? ''}`.trim(), status: envelope.status });
        break;
    }
    this.#show();
  }

  #opened() {
    this.#openedAt = performance.now();
    this.#set('open');
    if (!this.catching) return this.#say('', '');
    this.#say(`Resumed at ${short(this.catching.from)} …`, 'back');
    const target = this.#options.ledger.end - 1; // what the other lanes have by now
    const settle = () => {
      const behind = this.#lane.position < target && performance.now() - this.#openedAt < PATIENCE;
      if (behind) this.#timer = setTimeout(settle, SETTLE);
      else this.#settled();
    };
    this.#timer = setTimeout(settle, SETTLE);
  }

  #settled() {
    const { from, lost, doubled, late, gap } = this.catching;
    const missing = this.#lane.lost - lost;
    const twice = this.#lane.doubled - doubled;
    const text = gap
      ? `Resumed with a gap: the server has not kept all that came after ${short(from)}. ${late} caught up.`
      : `Resumed at ${short(from)}: ${late} caught up, ${missing} lost, ${twice} doubled.`;
    this.#say(text, missing || twice ? 'bad' : gap ? 'gap' : 'good');
    this.#options.announce(`${this.name}: ${text}`);
    this.catching = null;
  }

  #ended({ why, status, planned, delay, unsupported }) {
    if (unsupported && !this.received && this.#options.unsupported(this)) return this.#drop();
    this.#drop();
    const pause = planned
      ? (delay ?? 0) + 250 * Math.random()
      : status >= 400 && status < 500 && ![408, 425, 429].includes(status)
        ? REFUSED_PAUSE
        : Math.max(250, Math.min(15000, 500 * 2 ** this.#failures++) * (0.5 + 0.5 * Math.random()));
    if (!planned) this.catching ??= this.#mark();
    this.#set('waiting');
    if (why !== 'recycled') this.#say(`${why}. Back in ${ms(pause)}.`, planned ? '' : 'cut');
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  #message(envelope) {
    this.cursor = envelope.id;
    this.received++;
    const line = { id: envelope.id, data: brief(envelope), took: '', late: false };
    this.#lines.unshift(line);
    this.#lines.length = Math.min(this.#lines.length, LINES);
    const late = this.#options.ledger.receive(this.#lane, envelope, this.#openedAt, this.catching);
    if (late && this.catching) {
      this.catching.late++;
      line.late = true;
      line.took = 'caught up';
    }
    this.#fresh ||= !late;
    this.#show();
  }

  #measured(latency, id) {
    this.#latencies.push(latency);
    if (this.#latencies.length > SAMPLES) this.#latencies.shift();
    const line = this.#lines.find((line) => line.id === id);
    if (line) line.took = ms(latency);
    this.#show();
  }

  // mark notes where the pane stands, to be compared with after it is back.
  #mark() {
    return { from: this.cursor, lost: this.#lane.lost, doubled: this.#lane.doubled, late: 0 };
  }

  // adopt makes the pane the frame of something else, which from now on
  // states what it does by mirror().
  adopt(element, note) {
    this.adopted = true;
    this.#drop();
    this.#view.adopt(element, note);
  }

  mirror(state, says) {
    this.#set(state);
    this.#say(says, '');
  }

  #set(state) {
    this.state = state;
    this.#view.state(state, this.live);
    this.#show();
    this.#options.changed();
  }

  #show() {
    soon(this.#draw);
  }

  #draw = () => {
    this.#view.numbers(this.received, this.#lane.lost, this.#lane.doubled, this.cursor);
    this.#view.lines(this.#lines);
    this.#view.latency(this.#latencies);
    if (this.#fresh) this.#view.streak();
    this.#fresh = false;
  };

  #say(text, tone) {
    this.#view.say(text, tone);
  }
}

// view builds the pane's elements and returns what may be done with them.
function view(pane, { name, about, framing }, host) {
  const id = 'pane-' + name;
  const word = h('span.word');
  const toggle = h('button.toggle', {
    type: 'button', role: 'switch', 'aria-label': `${name} live`,
    onclick: () => (pane.live ? pane.switchOff() : pane.switchOn()),
  });
  const median = h('b', {}, '–');
  const count = h('b', {}, '0');
  const lost = h('b', {}, '0');
  const doubled = h('b', {}, '0');
  const spark = sparkline();
  const rows = Array.from({ length: LINES }, () => {
    const row = { id: h('span.id'), data: h('span.data'), took: h('span.took') };
    row.element = h('li', {}, row.id, row.data, row.took);
    return row;
  });
  const feed = h('ol.feed', { 'aria-label': `last messages over ${name}` }, ...rows.map((row) => row.element));
  const at = h('span.at');
  const cut = h('button.cut', { type: 'button', 'aria-label': `Cut ${name}`, onclick: () => pane.cut() }, 'Cut');
  const verdict = h('p.verdict');
  const streak = h('i.streak', { 'aria-hidden': 'true' });
  const body = h('div.body', {},
    h('div.numbers', {},
      h('div.big', {}, median, h('span', {}, 'median')),
      spark.element,
    ),
    feed,
    h('code.framing', { title: 'One message as it stands on the wire' }, framing),
    h('div.foot', {}, cut, verdict),
  );
  const root = h('article.pane', { id, 'data-transport': name, 'aria-labelledby': id + '-name' },
    streak,
    h('header', {},
      h('h3', { id: id + '-name' }, name),
      h('span.state', {}, h('i', { 'aria-hidden': 'true' }), word),
      toggle,
    ),
    h('p.about', {}, about),
    h('p.where', {}, h('span.host', {}, host), at),
    body,
    h('p.score', {},
      h('span', {}, count, ' received'),
      h('span.lost', {}, lost, ' lost'),
      h('span.doubled', {}, doubled, ' doubled'),
    ),
  );
  return {
    root,
    state(state, live) {
      root.dataset.state = state;
      set(word, WORDS[state]);
      toggle.setAttribute('aria-checked', String(live));
      cut.disabled = state !== 'open';
    },
    numbers(received, missing, twice, cursor) {
      set(count, String(received));
      set(lost, String(missing));
      set(doubled, String(twice));
      root.dataset.received = received;
      root.dataset.lost = missing;
      root.dataset.doubled = twice;
      root.dataset.cursor = cursor;
      set(at, short(cursor));
      at.title = 'cursor ' + cursor;
    },
    lines(lines) {
      lines.forEach((line, i) => {
        const { element, id, data, took } = rows[i];
        element.className = line.late ? 'late' : '';
        element.dataset.id = line.id;
        set(id, short(line.id));
        set(data, line.data);
        set(took, line.took);
      });
    },
    latency(all) {
      if (!all.length) return;
      const sorted = [...all].sort((a, b) => a - b);
      const middle = sorted[sorted.length >> 1];
      set(median, ms(middle));
      root.dataset.latency = middle.toFixed(2);
      spark.draw(all);
    },
    streak() {
      if (!motion() || streak.getAnimations().length) return;
      streak.animate(
        [
          { transform: 'translateX(-40%)', opacity: 0 },
          { opacity: 1, offset: 0.25 },
          { transform: 'translateX(100%)', opacity: 0 },
        ],
        { duration: 500, easing: 'cubic-bezier(.3,.1,.3,1)' },
      );
    },
    say(text, tone) {
      set(verdict, text);
      verdict.dataset.tone = tone;
    },
    adopt(element, note) {
      body.replaceChildren(element, h('p.note', {}, note), verdict);
      root.classList.add('adopted');
    },
  };
}

// sparkline draws latencies as bars on a logarithmic scale, from 1 ms to 1 s.
function sparkline() {
  const NS = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('class', 'spark');
  svg.setAttribute('viewBox', `0 0 ${SAMPLES * 4} 24`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(NS, 'path');
  svg.append(path);
  return {
    element: svg,
    draw(values) {
      const from = SAMPLES - values.length;
      const bar = (value, i) => {
        const height = 2 + 22 * Math.min(1, Math.max(0, Math.log10(Math.max(1, value)) / 3));
        return `M${(from + i) * 4 + 1.5} 24v${-height.toFixed(1)}`;
      };
      path.setAttribute('d', values.map(bar).join(''));
    },
  };
}

// brief is a message's data in a few words.
function brief({ data, data64, contentType }) {
  if (data64 !== undefined) return `${contentType}, ${Math.floor((data64.length * 3) / 4)} bytes`;
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  return text.length > 160 ? text.slice(0, 159) + '…' : text;
}
