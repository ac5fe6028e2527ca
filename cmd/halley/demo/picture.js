// The picture: an <img> whose response never ends, each part a new frame. The
// frames are drawn by the page itself and published like any other message.

import { h, set, ms } from './dom.js';
import { post } from './publish.js';

const CHANNEL = 'demo/picture';
const WIDTH = 400;
const HEIGHT = 300;
const STRIP = 16; // the data strip below the sky
const BITS = 16; // of a frame's number, as marks on the strip
const PITCH = 12;
const SILENT = 4; // frames published without one arriving: then it has ended

// Chromium alone lets go of a picture stream when it is told to; in Firefox
// and WebKit it stays open until the server ends it.
const closable = /Chrom(e|ium)\//.test(navigator.userAgent);

// number names a frame by the second it was drawn in, so that several tabs
// and machines draw the same sky.
const number = (time = Date.now()) => Math.floor(time / 1000) % (1 << BITS);

// Painter draws a night sky with a comet that crosses it once a minute.
export class Painter {
  #canvas = h('canvas', { width: WIDTH, height: HEIGHT });
  #stars;

  constructor() {
    let seed = 1986;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    this.#stars = Array.from({ length: 110 }, () => ({
      x: random() * WIDTH,
      y: random() ** 1.3 * (HEIGHT - 70),
      size: random() < 0.12 ? 1.8 : 1,
      light: 0.25 + 0.6 * random(),
      phase: random() * 7,
    }));
  }

  // frame draws the sky of this second and returns it as a PNG.
  frame(time = Date.now()) {
    const c = this.#canvas.getContext('2d');
    const sky = c.createLinearGradient(0, 0, 0, HEIGHT - STRIP);
    sky.addColorStop(0, '#060a1c');
    sky.addColorStop(0.65, '#13224a');
    sky.addColorStop(1, '#4a4a6e');
    c.fillStyle = sky;
    c.fillRect(0, 0, WIDTH, HEIGHT);
    for (const star of this.#stars) {
      c.globalAlpha = star.light * (0.75 + 0.25 * Math.sin(time / 700 + star.phase));
      c.fillStyle = '#eaf0ff';
      c.fillRect(star.x, star.y, star.size, star.size);
    }
    c.globalAlpha = 1;
    this.#comet(c, (time % 60000) / 60000);
    this.#ground(c);
    this.#strip(c, time);
    return new Promise((resolve) => this.#canvas.toBlob(resolve, 'image/png'));
  }

  // The sun is below the horizon to the left, so the tail points up and right.
  #comet(c, way) {
    const x = WIDTH * (1.12 - 1.3 * way);
    const y = 62 + 84 * way + 26 * Math.sin(way * 3);
    const length = 90 + 150 * Math.sin(Math.PI * way);
    for (const [angle, width, reach, color] of [
      [-0.5, 26, 0.8, '255,226,170'],
      [-0.38, 15, 1, '160,205,255'],
      [-0.4, 6, 0.9, '225,240,255'],
    ]) {
      c.save();
      c.translate(x, y);
      c.rotate(angle);
      const tail = c.createLinearGradient(0, 0, length * reach, 0);
      tail.addColorStop(0, `rgba(${color},.55)`);
      tail.addColorStop(1, `rgba(${color},0)`);
      c.fillStyle = tail;
      c.beginPath();
      c.moveTo(0, -2.5);
      c.quadraticCurveTo(length * 0.5, -width * 0.55, length * reach, -width);
      c.lineTo(length * reach, width);
      c.quadraticCurveTo(length * 0.5, width * 0.55, 0, 2.5);
      c.fill();
      c.restore();
    }
    const head = c.createRadialGradient(x, y, 0, x, y, 13);
    head.addColorStop(0, 'rgba(255,255,255,1)');
    head.addColorStop(0.25, 'rgba(255,244,214,.9)');
    head.addColorStop(1, 'rgba(160,205,255,0)');
    c.fillStyle = head;
    c.fillRect(x - 14, y - 14, 28, 28);
  }

  #ground(c) {
    const floor = HEIGHT - STRIP;
    c.fillStyle = '#070a14';
    c.beginPath();
    c.moveTo(0, floor);
    c.lineTo(0, floor - 26);
    c.bezierCurveTo(90, floor - 52, 150, floor - 20, 250, floor - 22);
    c.bezierCurveTo(330, floor - 24, 380, floor - 46, WIDTH, floor - 14);
    c.lineTo(WIDTH, floor);
    c.fill();
    // An observatory, its slit open towards the comet.
    c.fillRect(84, floor - 58, 34, 24);
    c.beginPath();
    c.arc(101, floor - 58, 19, Math.PI, 0);
    c.fill();
    c.save();
    c.translate(101, floor - 58);
    c.rotate(0.6);
    c.fillStyle = '#ffd79a';
    c.fillRect(-2, -20, 4, 11);
    c.restore();
    c.fillStyle = '#ffcf85';
    c.fillRect(97, floor - 47, 5, 7);
  }

  #strip(c, time) {
    const top = HEIGHT - STRIP;
    c.fillStyle = '#000';
    c.fillRect(0, top, WIDTH, STRIP);
    const n = number(time);
    for (let bit = 0; bit < BITS; bit++) {
      c.fillStyle = (n >> bit) & 1 ? '#ffd58a' : '#2a2418';
      c.fillRect(8 + bit * PITCH, top + 5, 7, 7);
    }
    c.font = '11px ui-monospace, Menlo, Consolas, monospace';
    c.textAlign = 'right';
    c.textBaseline = 'middle';
    c.fillStyle = '#c9bd9c';
    c.fillText(new Date(time).toISOString().slice(11, 19) + ' UTC', WIDTH - 8, top + STRIP / 2 + 0.5);
  }
}

// Picture is the <img> and what is known of it. It is a stream like the panes,
// and takes its turn among them.
export class Picture {
  state = 'idle';
  base = null;
  received = 0;
  #options;
  #cursor;
  #image = null;
  #next = null; // the image that will take over
  #published = { n: -1, at: 0 }; // the last frame of our own
  #shown = -1;
  #unseen = 0;
  #blank = 0; // looks that found the picture without a size
  #timer;
  #since = 0;
  #reader = h('canvas', { width: BITS, height: 1 }).getContext('2d', { willReadFrequently: true });
  #painter = new Painter();

  // options: host() names the host of the next stream, limiter, changed().
  // WebKit keeps a connection for every picture there ever was, so where there
  // is one host only, `streams` bounds how many are asked for.
  constructor(cursor, options) {
    this.#options = options;
    this.#cursor = cursor;
    this.note = h('span.took');
    this.toggle = h('button.toggle', {
      type: 'button', role: 'switch', 'aria-label': 'picture live',
      onclick: () => (this.live ? this.switchOff() : this.switchOn()),
    });
    this.word = h('span.word');
    this.frame = h('div.plate', { 'data-state': 'idle' });
    this.element = h('figure.picture', {}, this.frame,
      h('figcaption', {}, h('span.state', {}, h('i', { 'aria-hidden': 'true' }), this.word), this.note, this.toggle));
    this.#set('idle');
    setInterval(() => this.#check(), 1000);
    addEventListener('pageshow', (event) => event.persisted && this.live && this.#renew());
    if ('PerformanceObserver' in window && !closable) {
      // Here the entry comes when the response is over; Chromium's comes with
      // the first frame.
      new PerformanceObserver((list) => {
        if (list.getEntries().some((entry) => entry.name === this.#image?.src)) this.#ended();
      }).observe({ type: 'resource' });
    }
  }

  get live() {
    return this.state !== 'idle';
  }

  // paint draws and publishes a frame.
  async paint() {
    const time = Date.now();
    const n = number(time);
    const png = await this.#painter.frame(time);
    const at = performance.now();
    this.#published = { n, at };
    this.#watch(n, at);
    try {
      const [id] = await post(CHANNEL, 'image/png', png);
      this.onpublished?.(id);
    } catch {
      return; // the panes say what is wrong
    }
    if (this.state === 'open' && this.#shown !== n) this.#unseen++;
  }

  switchOn() {
    if (this.live) return;
    this.#options.limiter?.admit(this);
    this.#set('connecting');
    if (this.#image && !closable) return this.#set('open'); // it never went away
    this.#renew();
  }

  switchOff() {
    this.#options.limiter?.release(this);
    clearTimeout(this.#timer);
    if (closable) {
      this.#let(this.#image);
      this.#let(this.#next);
      this.#image = this.#next = null;
      this.frame.replaceChildren();
    }
    this.#set('idle');
  }

  #let(image) {
    if (!image) return;
    image.onload = image.onerror = null;
    if (closable) image.removeAttribute('src');
    image.remove();
  }

  // renew opens a new stream; the old picture stays until it shows something.
  #renew() {
    const base = this.#options.host();
    if (!base) return this.#set('ended');
    this.base = base;
    this.#let(this.#next);
    const image = (this.#next = new Image(WIDTH, HEIGHT));
    image.alt = 'A comet crossing the night sky, redrawn every second';
    if (closable && base !== location.origin) image.crossOrigin = 'anonymous';
    image.onload = () => this.#loaded(image);
    image.onerror = () => this.#ended();
    const url = new URL('/comet/subscribe', base);
    url.search = new URLSearchParams({
      channel: CHANNEL, transport: 'multipart', format: 'raw', cursor: this.#cursor,
      _: Date.now().toString(36),
    });
    image.src = url.href;
    this.#since = performance.now();
    this.#unseen = this.#blank = 0;
    if (!this.#image) this.frame.append(image); // WebKit starts no picture that is nowhere
    this.#options.changed();
  }

  #loaded(image) {
    if (image === this.#next) {
      this.#let(this.#image);
      this.#image = image;
      this.#next = null;
      this.frame.replaceChildren(image);
      // From now on only what comes: an old frame is of no use.
      this.#cursor = 'now';
      if (this.live) this.#set('open');
    }
    this.#arrived(performance.now());
  }

  // watch looks for a frame's number in the picture. Firefox tells of every
  // frame by a load event; in Chromium the marks on the strip can be read;
  // WebKit gives neither.
  #watch(n, at) {
    if (!closable || this.state !== 'open') return;
    const look = () => {
      if (performance.now() - at > 2000 || this.state !== 'open') return;
      if (this.#read() === n) this.#arrived(performance.now(), n);
      else requestAnimationFrame(look);
    };
    look();
  }

  #read() {
    try {
      let n = 0;
      for (let bit = 0; bit < BITS; bit++) {
        this.#reader.drawImage(this.#image, 10 + bit * PITCH, HEIGHT - STRIP + 7, 3, 3, bit, 0, 1, 1);
      }
      const { data } = this.#reader.getImageData(0, 0, BITS, 1);
      for (let bit = 0; bit < BITS; bit++) if (data[bit * 4] > 128) n |= 1 << bit;
      return n;
    } catch {
      return -1;
    }
  }

  #arrived(at, n = this.#published.n) {
    if (n === this.#shown) return;
    this.#shown = n;
    this.#unseen = 0;
    const first = this.received++ === 0; // whose way led through opening the stream
    if (n === this.#published.n && !first) set(this.note, ms(at - this.#published.at));
  }

  #check() {
    if (this.state === 'open' && this.#image && !this.#next) {
      // Between two frames the picture may have no size for a moment.
      const blank = this.#image.complete && this.#image.naturalWidth === 0;
      this.#blank = blank ? this.#blank + 1 : 0;
      const silent = closable && this.#unseen >= SILENT;
      if (this.#blank > 2 || silent) this.#ended();
    }
  }

  #ended() {
    if (!this.live) {
      this.#let(this.#image); // it may begin anew when it is wanted
      this.#image = null;
      return;
    }
    clearTimeout(this.#timer);
    const rest = Math.max(0, 3000 - (performance.now() - this.#since));
    this.#timer = setTimeout(() => this.live && this.#renew(), rest + 500 * Math.random());
  }

  #set(state) {
    this.state = state;
    this.frame.dataset.state = state;
    set(this.word, { idle: 'off', connecting: 'connecting', open: 'live', ended: 'ended' }[state]);
    this.toggle.setAttribute('aria-checked', String(this.live));
    this.onstate?.(state);
    this.#options.changed();
  }
}
