// The list of messages, and the account of what came, is missing or came twice.

import { $, h, set, soon, short } from './dom.js';

const SHOWN = 200;

const LINES = [
  'Warm regards from perihelion',
  'I have seen it twice, said Mark Twain’s mother',
  '1066: it hangs over Hastings',
  '1301: Giotto paints it over Bethlehem',
  '1682: Halley looks up',
  '1758: it comes back, as he said it would',
  '1910: the Earth goes through its tail',
  '1986: Giotto, the probe, flies by',
  '2061: see you then',
  'Is anybody still there?',
  'Nothing lost so far',
  'The tail always points away from the Sun',
];

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });

export class Talk {
  received = 0;
  lost = 0;
  doubled = 0;
  #options;
  #list = $('#messages');
  // What of this page is being published, by number.
  #sending = new Map();
  // The numbers of a page's messages go up by one. They are those of one load
  // of it, as a tab that is copied has its storage copied.
  #load = Math.random().toString(36).slice(2);
  #number = 0;
  #last = new Map();
  #fresh = [];
  #timer;

  // options: self, connection, channel, name().
  constructor(options) {
    this.#options = options;
    const text = $('#text');
    $('#say').addEventListener('submit', (event) => {
      event.preventDefault();
      if (!text.value.trim()) return;
      this.say(text.value.trim());
      text.value = '';
    });
    const auto = $('#auto');
    auto.addEventListener('click', () => {
      const on = auto.getAttribute('aria-checked') !== 'true';
      auto.setAttribute('aria-checked', String(on));
      clearInterval(this.#timer);
      if (on) this.#timer = setInterval(() => this.say(LINES[this.#number % LINES.length]), 500);
    });
  }

  // show is called when all of the past is there.
  show() {
    soon(this.#draw);
  }

  // say shows a message at once, and again as it comes back from the server in
  // its place among the others.
  say(text) {
    const { self, channel, name } = this.#options;
    const data = { self, load: this.#load, number: this.#number++, name: name(), text };
    const row = this.#row({ data, time: Date.now() }, 'being sent');
    row.classList.add('pending');
    this.#sending.set(data.number, row);
    this.#fresh.push(row);
    soon(this.#draw);
    channel.publish(data).catch(({ message }) => {
      row.classList.add('failed');
      set(row.querySelector('.way'), `not sent: ${message}`);
    });
  }

  // take shows a message, and which way it came.
  take(message, way) {
    const { data } = message;
    // Anybody may publish anything here.
    if (typeof data?.text !== 'string' || typeof data.name !== 'string') {
      message = { ...message, data: { name: 'somebody', text: typeof data === 'string' ? data : JSON.stringify(data) } };
    }
    this.received++;
    this.#account(message.data);
    if (message.data.load === this.#load) {
      this.#sending.get(message.data.number)?.remove();
      this.#fresh = this.#fresh.filter((row) => row !== this.#sending.get(message.data.number));
      this.#sending.delete(message.data.number);
    }
    this.#fresh.push(this.#row(message, `${short(message.id)} ${way ?? ''}`));
    soon(this.#draw);
  }

  #account({ load, number }) {
    if (typeof load !== 'string' || !Number.isInteger(number)) return;
    const last = this.#last.get(load);
    if (last === undefined || number > last) this.#last.set(load, number);
    if (last === undefined) return; // its first one here, which may be in the middle
    if (number <= last) this.doubled++;
    else this.lost += number - last - 1;
  }

  #row({ data: { self, name, text }, time: at, id }, way) {
    name = name.slice(0, 24);
    const mine = self === this.#options.self;
    return h(mine ? 'li.mine' : 'li', { 'data-id': id },
      h('b', { class: `name hue${hue(name)}` }, name),
      h('p.text', {}, text.slice(0, 500)),
      h('p.about', {}, h('time', { datetime: new Date(at).toISOString() }, time.format(at)), h('span.way', {}, way)),
    );
  }

  #draw = () => {
    const list = this.#list;
    const end = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    const fresh = this.#fresh.slice(-SHOWN);
    this.#fresh = [];
    // What is being sent stays below what has its place.
    const pending = [...list.querySelectorAll('.pending')];
    list.append(...fresh.filter((row) => !row.matches('.pending')), ...pending, ...fresh.filter((row) => row.matches('.pending')));
    while (list.children.length > SHOWN) list.firstElementChild.remove();
    $('#empty').hidden = list.children.length > 0;
    if (end) list.scrollTop = list.scrollHeight;
  };
}

// hue is one of six colours, the same for the same name.
export function hue(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return sum % 6;
}
