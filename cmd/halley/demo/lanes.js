// The page: plans where the streams go, makes the panes, and keeps the
// figures at its head.

import { $, h, set, soon } from './dom.js';
import { plan, loopback, Limiter } from './hosts.js';
import { TRANSPORTS } from './transports.js';
import { Ledger } from './ledger.js';
import { Pane } from './pane.js';
import { Picture } from './picture.js';
import { Publisher, Auto, copyable } from './publish.js';
import { Chart } from './chart.js';

// On a phone or away from loopback these are live at first, with the picture.
const FIRST = ['long-polling', 'sse', 'websocket'];
const ASK = 5000; // ms between two looks at the log's end
const SLEPT = 5000; // ms between two ticks after which the page was asleep

const options = new URLSearchParams(location.search);

async function info() {
  const response = await fetch('/comet/info', { cache: 'no-store', signal: AbortSignal.timeout(4000) });
  if (!response.ok) throw new Error(`refused with ${response.status}`);
  return response.json();
}

// begin waits for the server, which may be starting still.
async function begin() {
  for (;;) {
    try {
      return await info();
    } catch (error) {
      reachable(false);
      await new Promise((resolve) => setTimeout(resolve, 1500 + 500 * Math.random()));
    }
  }
}

function reachable(yes) {
  document.body.classList.toggle('away', !yes);
}

// The log's end is the highest position heard of; the epoch changes with it
// when the server has begun a new log.
let last = { epoch: '', sequence: 0 };
function ends(cursor) {
  const [epoch, sequence] = cursor.split('-');
  if (epoch === last.epoch && Number(sequence) <= last.sequence) return;
  last = { epoch, sequence: Number(sequence) };
  $('#end').replaceChildren(h('span', {}, epoch + '-'), sequence);
}

async function main() {
  const start = await begin();
  const asked = performance.now();
  await info().catch(() => {});
  const way = await plan(performance.now() - asked);
  reachable(true);
  ends(start.cursor);
  set($('#version'), start.version ? 'version ' + start.version : '');

  const ledger = new Ledger();
  const limiter = new Limiter(way.limit);
  const publisher = new Publisher(ledger);
  const announcer = $('#announce');
  const panes = [];
  let chart;

  const picture = new Picture(start.cursor, {
    host: way.picture,
    limiter,
    changed: () => changed(),
  });
  for (const transport of TRANSPORTS) {
    panes.push(new Pane(transport, start.cursor, {
      base: way.base(transport.name),
      ledger,
      limiter,
      announce: (text) => set(announcer, text),
      changed: () => changed(),
      unsupported,
    }));
  }
  $('#panes').prepend(...panes.map((pane) => pane.element));
  $('#picture').append(picture.element);
  chart = new Chart($('#chart'), ledger, panes);
  explain(way);
  examples(start.cursor);

  function changed() {
    chart?.update();
    soon(figures);
    soon(held);
  }

  function held() {
    sockets(way, panes, picture);
  }

  function figures() {
    const sum = (of) => panes.reduce((total, pane) => total + of(pane), 0);
    const open = sum((pane) => (pane.state === 'open' ? 1 : 0));
    set($('#live'), String(open));
    set($('#delivered'), String(sum((pane) => pane.received)));
    const faults = sum((pane) => pane.lane.lost + pane.lane.doubled);
    set($('#faults'), String(faults));
    $('#faults').classList.toggle('bad', faults > 0);
    $('#cut-all').disabled = open === 0;
  }

  ledger.onchange = () => {
    ends(ledger.entries.at(-1).id);
    chart.update();
    soon(figures);
  };
  publisher.onpublished = picture.onpublished = ends;

  // unsupported gives the multipart pane the picture instead, where the
  // engine keeps multipart streams from scripts.
  function unsupported(pane) {
    if (pane.name !== 'multipart') return false;
    pane.adopt(picture.element, 'This engine shows multipart streams to its images, but not to scripts: so here is the picture.');
    $('#top').classList.add('bare');
    limiter.release(pane);
    picture.onstate = (state) => pane.mirror(state === 'ended' ? 'waiting' : state, '');
    if (picture.live) limiter.admit(picture);
    pane.switchOn = () => picture.switchOn();
    pane.switchOff = () => picture.switchOff();
    pane.pagehide = pane.pageshow = pane.tick = () => {};
    picture.toggle.remove();
    if (picture.live) picture.onstate(picture.state);
    else picture.switchOn();
    return true;
  }

  // A frame inserted before the page has loaded would keep it loading.
  if (document.readyState !== 'complete') {
    await new Promise((resolve) => addEventListener('load', resolve, { once: true }));
  }
  await new Promise((resolve) => setTimeout(resolve));
  const few = way.limit < panes.length;
  for (const pane of panes) if (!few || FIRST.includes(pane.name)) pane.switchOn();
  picture.switchOn();
  picture.paint(); // whoever draws from now on, there is something to show

  $('#cut-all').addEventListener('click', () => panes.forEach((pane) => pane.cut()));
  addEventListener('pagehide', () => panes.forEach((pane) => pane.pagehide()));
  addEventListener('pageshow', (event) => event.persisted && panes.forEach((pane) => pane.pageshow()));
  watch(panes);
  setInterval(ask, ASK);

  // The panes are open first, so that the first message finds them all.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const wanted = options.get('auto') ?? (loopback ? '1' : '0');
  let tale = Math.floor(Date.now() / 1000);
  new Auto(wanted !== '0', async () => {
    await publisher.tale(tale++);
    // Drawing keeps the page busy, so not while the message is on its way.
    await new Promise((resolve) => setTimeout(resolve, 400));
    await picture.paint();
  });
}

// watch ticks the panes' watchdogs, and tells them when the page has slept:
// the silence was then the page's own.
function watch(panes) {
  let last = performance.now();
  setInterval(() => {
    const now = performance.now();
    for (const pane of panes) pane.tick(now, now - last > SLEPT);
    last = now;
  }, 1000);
}

// ask keeps the log's end right while others publish to other channels.
function ask() {
  if (document.hidden) return;
  info().then(
    ({ cursor }) => {
      reachable(true);
      ends(cursor);
    },
    () => reachable(false),
  );
}

// sockets shows, host by host, which of the six connections are held.
function sockets(way, panes, picture) {
  if (way.mode === 'h2') return;
  const held = new Map([[location.origin, []]]);
  const hold = (base, name, state) => {
    if (!held.has(base)) held.set(base, []);
    if (state === 'open' || state === 'connecting') held.get(base).push(name);
  };
  for (const pane of panes) if (!pane.adopted) hold(pane.base, pane.name, pane.state);
  if (picture.base) hold(picture.base, 'picture', picture.state);
  $('#sockets').replaceChildren(...[...held].map(([base, names]) => {
    const dots = Array.from({ length: 6 }, (_, i) => h('i', names[i] ? { class: 'held', title: names[i] } : {}));
    return h('li', {},
      h('span.host', {}, new URL(base).host),
      h('span.dots', { role: 'img', 'aria-label': `${names.length} of 6 held` }, ...dots),
    );
  }));
}

function explain(way) {
  const limit = 'A browser holds six HTTP/1.1 connections to a host, over all its tabs. A held response takes one for as long as it lives, and the seventh request waits without a word: the very limit this technique is known for. ';
  const text = {
    spread: limit + 'Each name under .localhost is a host of its own, so the streams here spread over a few.',
    single: limit + 'So of the eight streams here at most four are live: switch on another, and the oldest gives way. Over HTTP/2, or on localhost, all are live at once.',
    h2: 'This page came over HTTP/2, where all streams share one connection. Over HTTP/1.1 a browser holds six connections to a host, and a held response takes one for as long as it lives: the very limit this technique is known for.',
  }[way.mode];
  const phone = way.few && way.mode !== 'single' ? ' On a small screen four are live at a time: switch on another, and the oldest gives way.' : '';
  set($('#limit'), text + phone);
  set($('#limit-head'), way.limit < 8 ? 'Why only four are live' : way.mode === 'h2' ? 'Why all are live' : 'Why so many host names');
}

function examples(cursor) {
  const mount = location.origin + '/comet';
  copyable($('#examples'), [
    { label: 'Listen, as an EventSource does', command: `curl -N '${mount}/subscribe?channel=demo/lanes&transport=sse'` },
    { label: 'Say something to every pane', command: `curl -H 'Content-Type: text/plain' -d 'hello from a shell' '${mount}/publish?channel=demo/lanes'` },
    { label: 'Say two things at once, whole or not at all', command: `printf '{"data":"one"}\\n{"data":"two"}\\n' | curl -H 'Content-Type: application/x-ndjson' --data-binary @- '${mount}/publish?channel=demo/lanes'` },
    { label: 'See the forever frame', command: `curl -N '${mount}/subscribe?channel=demo/lanes&transport=iframe&callback=show'` },
    { label: 'Read again what came since this page was opened', command: `curl '${mount}/history?channel=demo/lanes&cursor=${cursor}'` },
    { label: 'Follow it, and survive restarts', command: `halley subscribe --url ${mount} --channel demo/lanes` },
  ]);
}

main();
