// h makes an element: attributes by name, listeners by `on…`, text and
// elements as children. Text only ever becomes text nodes, so no message can
// turn into markup.
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}

export const $ = (selector) => document.querySelector(selector);

// set writes text only where it changes, so that nothing is laid out in vain.
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// soon does work with the next frame, once however often it was asked for: a
// message is booked at once and shown later, so that one pane's drawing does
// not delay another's arrival.
const waiting = new Set();
export function soon(work) {
  if (waiting.size === 0) {
    if (document.hidden) setTimeout(flush, 100);
    else requestAnimationFrame(flush);
  }
  waiting.add(work);
}

function flush(time = performance.now()) {
  const due = [...waiting];
  waiting.clear();
  for (const work of due) work(time);
}

// motion tells whether anything should move: not where people asked for none,
// and not for a while where the machine can't keep up, since drawing would
// then delay the very messages it is to show.
const still = matchMedia('(prefers-reduced-motion: reduce)');
const SLOW = 30; // ms between frames
const REST = 20000;
let pace = 16;
let restUntil = 0;
export const motion = () => !still.matches && !document.hidden && performance.now() > restUntil;

// frameTook reports the time between two frames of something that moves.
export function frameTook(elapsed) {
  pace += 0.15 * (Math.min(elapsed, 200) - pace);
  if (pace < SLOW) return;
  restUntil = performance.now() + REST;
  pace = 16;
}

// ms shows a duration in milliseconds with as many digits as mean anything.
export function ms(value) {
  if (value >= 1000) return (value / 1000).toFixed(1) + ' s';
  return (value < 9.95 ? value.toFixed(1) : Math.round(value)) + ' ms';
}

// short is the part of a cursor that changes: for people only. The page never
// computes with a cursor, it just hands it back.
export const short = (cursor) => '#' + String(cursor).split('-').pop();
