// The chart: the log from left to right, its end at the right edge, one lane
// for each transport with a comet at its cursor. A lane that is cut stands
// still while the log moves on, and comes back through what it missed.

import { h, short, soon, motion, frameTook } from './dom.js';

const ROW = 31;
const AXIS = 22;
const HEAD = 30; // room to the right of the newest message
const TAIL = 150;
const GLOW = 14;

export class Chart {
  #ledger;
  #panes;
  #canvas;
  #axis;
  #colors = {};
  #bright;
  #dim;
  #inView = true;
  #heads = new Map();
  #shift = 0; // columns the log has still to glide
  #seen = 0; // the log's end as last drawn
  #time = 0;
  #moving = false; // the last frame was not the end of a movement

  constructor(root, ledger, panes) {
    this.#ledger = ledger;
    this.#panes = panes;
    this.#canvas = h('canvas', { role: 'img', 'aria-label': 'The last messages of the log, and which transport has received which' });
    this.#axis = h('div.lanes');
    for (const pane of panes) {
      const label = h('a.lane', { href: '#' + pane.element.id }, h('i', { 'aria-hidden': 'true' }), pane.name);
      this.#axis.append(label);
      this.#heads.set(pane, { label, at: null });
    }
    root.append(this.#axis, this.#canvas);
    new ResizeObserver(() => this.update()).observe(root);
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.#inView = isIntersecting;
      this.update();
    }).observe(root);
    matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => this.#theme());
    this.#theme();
  }

  update() {
    if (this.#inView) soon(this.#draw);
  }

  #theme() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['ink', 'faint', 'line', 'ice', 'gold', 'bad', 'head']) {
      this.#colors[name] = style.getPropertyValue('--' + name).trim();
    }
    this.#bright = this.#comet(1);
    this.#dim = this.#comet(0.3);
    this.update();
  }

  #draw = (time) => {
    if (this.#moving) frameTook(time - this.#time);
    const elapsed = Math.min(50, time - this.#time || 16);
    this.#time = time;
    const { entries, dropped, end } = this.#ledger;
    const width = this.#canvas.clientWidth;
    const height = this.#panes.length * ROW + AXIS;
    const ratio = devicePixelRatio || 1;
    if (this.#canvas.width !== Math.round(width * ratio) || this.#canvas.height !== Math.round(height * ratio)) {
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(height * ratio);
      this.#canvas.style.height = height + 'px';
    }
    const step = width < 480 ? 13 : 18;
    const moves = motion();

    this.#shift = moves ? Math.min(12, this.#shift + end - this.#seen) : 0;
    this.#seen = end;
    this.#shift *= Math.exp(-elapsed / 110);
    if (this.#shift < 0.04) this.#shift = 0;
    let busy = this.#shift > 0;

    const c = this.#canvas.getContext('2d');
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    const right = width - HEAD;
    const x = (position) => right - (end - 1 - position - this.#shift) * step;
    const from = Math.max(dropped, end - Math.ceil(width / step) - 2);

    this.#numbers(c, from, x, height);
    const marks = { live: new Path2D(), late: new Path2D(), twice: new Path2D(), due: new Path2D(), off: new Path2D() };
    c.fillStyle = this.#rail(c, width);
    for (let row = 0; row < this.#panes.length; row++) c.fillRect(0, row * ROW + ROW / 2, width, 1);
    this.#panes.forEach((pane, row) => {
      const { lane } = pane;
      const y = row * ROW + ROW / 2 + 0.5;
      const head = this.#heads.get(pane);
      head.label.dataset.state = pane.state;
      if (lane.position >= 0) {
        // The comet glides after its lane's position, and with the log.
        const away = head.at === null || !moves ? 0 : (head.at - lane.position) * Math.exp(-elapsed / 130);
        head.at = lane.position + (Math.abs(away) < 0.04 ? 0 : away);
        busy ||= head.at !== lane.position;
        const comet = pane.state === 'open' ? this.#bright : this.#dim;
        c.drawImage(comet, x(head.at) - TAIL, y - GLOW, TAIL + GLOW, 2 * GLOW);
      }
      for (let position = from; position < end; position++) {
        const { kind, radius } = this.#kind(entries[position - dropped], pane, position);
        const path = marks[kind];
        path.moveTo(x(position) + radius, y);
        path.arc(x(position), y, radius, 0, 7);
      }
    });
    const { ice, gold, bad, faint } = this.#colors;
    for (const [kind, color] of [['live', ice], ['late', gold], ['twice', bad]]) {
      c.fillStyle = color;
      c.fill(marks[kind]);
    }
    c.lineWidth = 1;
    for (const [kind, color] of [['due', gold], ['off', faint]]) {
      c.strokeStyle = color;
      c.stroke(marks[kind]);
    }
    this.#moving = busy;
    if (busy) this.update();
  };

  // kind is how a message stands in a pane's lane.
  #kind(entry, { lane, live, adopted }, position) {
    if (entry.twice & lane.bit) return { kind: 'twice', radius: 3.2 };
    if (entry.late & lane.bit) return { kind: 'late', radius: 3.2 };
    if (entry.seen & lane.bit) return { kind: 'live', radius: 2.4 };
    if (live && !adopted && position > lane.position) return { kind: 'due', radius: 2.6 };
    return { kind: 'off', radius: 1.6 };
  }

  #rail(c, width) {
    const rail = c.createLinearGradient(0, 0, width, 0);
    rail.addColorStop(0, 'transparent');
    rail.addColorStop(0.25, this.#colors.line);
    return rail;
  }

  // comet draws one in advance: its head stands TAIL from the left.
  #comet(alpha) {
    const canvas = h('canvas', { width: 2 * (TAIL + GLOW), height: 4 * GLOW });
    const c = canvas.getContext('2d');
    c.scale(2, 2);
    c.globalAlpha = alpha;
    const tail = c.createLinearGradient(0, 0, TAIL, 0);
    tail.addColorStop(0, this.#colors.ice + '00');
    tail.addColorStop(1, this.#colors.ice);
    c.fillStyle = tail;
    c.beginPath();
    c.moveTo(TAIL, GLOW - 4);
    c.quadraticCurveTo(TAIL * 0.65, GLOW - 3.5, 0, GLOW);
    c.quadraticCurveTo(TAIL * 0.65, GLOW + 3.5, TAIL, GLOW + 4);
    c.fill();
    const glow = c.createRadialGradient(TAIL, GLOW, 0, TAIL, GLOW, GLOW);
    glow.addColorStop(0, this.#colors.head);
    glow.addColorStop(0.3, this.#colors.ice);
    glow.addColorStop(1, this.#colors.ice + '00');
    c.fillStyle = glow;
    c.fillRect(TAIL - GLOW, 0, 2 * GLOW, 2 * GLOW);
    return canvas;
  }

  #numbers(c, from, x, height) {
    const { entries, dropped, end } = this.#ledger;
    c.font = '11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';
    c.textAlign = 'center';
    c.textBaseline = 'alphabetic';
    c.fillStyle = this.#colors.faint;
    for (let position = from; position < end; position++) {
      if (position % 5 !== 0) continue;
      const at = x(position);
      c.fillText(short(entries[position - dropped].id), at, height - 5);
      c.fillRect(at - 0.5, height - AXIS, 1, 5);
    }
  }
}
