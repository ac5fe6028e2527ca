// What the client promises, on every transport that the environment has. The
// same file runs in Node and in browsers, against the real server.

import {
  connect,
  isHalleyError,
  type Connection,
  type ConnectOptions,
  type HalleyError,
  type Message,
  type TransportName,
} from 'halley-client';
import { sleep, test, type T } from './runner.js';

const browser = typeof document !== 'undefined';

/** What an environment can do at all. */
export const available: readonly TransportName[] = browser
  ? ['websocket', 'fetch', 'xhr', 'sse', 'iframe', 'long-polling', 'jsonp']
  : (['websocket', 'fetch', 'long-polling'] as const).filter((name) => name !== 'websocket' || typeof WebSocket !== 'undefined');

let lastHost = 0;

/** A connection that ends with the test and shares nothing with others. */
function open(t: T, options: ConnectOptions = {}): Connection {
  const { mounts } = t.settings;
  const connection = connect(mounts[lastHost++ % mounts.length]!, {
    share: false,
    backoff: { min: 100, max: 1000 },
    ...options,
  });
  t.after(() => connection.close());
  const began = performance.now();
  for (const type of types) {
    connection.addEventListener(type, (event) => {
      t.notes.push(`${Math.round(performance.now() - began)} ms: ${type} ${JSON.stringify(details(event))}`);
    });
  }
  return connection;
}

const types = ['connecting', 'open', 'waiting', 'closed', 'gap', 'transport', 'error'] as const;

/** What an event tells. */
function details(event: Event): Record<string, unknown> {
  const detail = (event as CustomEvent<object | null>).detail;
  return { ...(detail instanceof Error && { message: detail.message }), ...detail };
}

/** The messages of a subscription, in the order of arrival. */
class Inbox<D = unknown> {
  readonly messages: Message<D>[] = [];
  readonly add = (message: Message<D>): void => {
    this.messages.push(message);
  };
  get data(): D[] {
    return this.messages.map((m) => m.data);
  }
}

const count = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);

const odd: readonly (readonly [string, unknown, string?])[] = [
  ['an object', { html: '</script><!--', n: [0, -1500, null, true], s: '\u2028\u2029 ' }],
  ['a string', 'a comet'],
  ['a text', '</script><!--<script>alert("1")</script>-->]]>', 'text/plain; charset=utf-8'],
  ['emoji', '\u{1F469}\u200D\u{1F680} \u2604\uFE0F \u00E9 e\u0301 \u05D0', 'text/plain'],
  ['lines', 'a\nb\r\nc\rd\n\ne: f\nid: 7\ndata: g\n', 'text/plain'],
  ['controls', '\u0000\u0001\u001F\u007F\uFEFF', 'text/plain'],
  ['nothing', '', 'text/plain'],
  ['null', null],
  ['long', '\u2604 comet \u{1F680}\n'.repeat(5000), 'text/plain'],
];

for (const transport of available) {
  test(`${transport}: delivers`, async (t) => {
    const connection = open(t, { transports: [transport] });
    const inbox = new Inbox();
    await t.within(connection.channel(t.channel).subscribe(inbox.add, { from: 'now' }).ready, 'ready');
    t.equal(connection.transport, transport, 'the transport');
    t.equal(connection.state, 'open', 'the state');
    const ids: string[] = [];
    for (const [, data, contentType] of odd) ids.push(await t.publish(t.channel, data, contentType, 'said'));
    await t.until(() => inbox.messages.length >= odd.length, 'the messages');
    for (const [i, [name, data]] of odd.entries()) {
      const message = inbox.messages[i]!;
      t.equal(message.data, data, `${name}: the data`);
      t.equal(message.id, ids[i], `${name}: the id`);
      t.equal(message.channel, t.channel, `${name}: the channel`);
      t.equal(message.type, 'said', `${name}: the type`);
      t.ok(Math.abs(message.time - Date.now()) < 60_000, `${name}: the time ${message.time}`);
    }
    await t.until(() => connection.cursor === ids.at(-1), 'the cursor');
    await t.publish(t.channel, 'bytes \u00FF', 'application/octet-stream');
    await t.until(() => inbox.messages.length > odd.length, 'the bytes');
    const bytes = inbox.messages.at(-1)!;
    t.equal(bytes.data, new TextEncoder().encode('bytes \u00FF'), 'bytes');
    t.equal(bytes.contentType, 'application/octet-stream', 'the content type');
  });

  test(`${transport}: goes on after cuts and silence`, async (t) => {
    const connection = open(t, { transports: [transport] });
    const inbox = new Inbox<number>();
    await t.within(connection.channel<number>(t.channel).subscribe(inbox.add, { from: 'now' }).ready, 'ready');
    let sent = 0;
    for (const fault of ['cut', 'silence', 'cut', 'refuse', 'bad gateway'] as const) {
      if (fault === 'cut' || fault === 'silence') {
        await t[fault]('subscribe');
        for (let i = 0; i < 5; i++) await t.publish(t.channel, sent++);
      } else {
        const end = await t.fault(fault);
        for (let i = 0; i < 5; i++) await t.publish(t.channel, sent++);
        await sleep(300);
        await end();
      }
      await t.until(() => inbox.messages.length >= sent, `the messages after ${fault}`);
    }
    await t.publish(t.channel, sent++);
    await t.until(() => inbox.messages.length >= sent, 'the last message');
    await sleep(100);
    t.equal(inbox.data, count(sent), 'the messages');
  });

  test(`${transport}: channels come and go under load`, async (t) => {
    const connection = open(t, { transports: [transport] });
    const inboxes = count(4).map(() => new Inbox<number>());
    const name = (i: number): string => `${t.channel}/${i}`;
    await t.within(connection.channel<number>(name(0)).subscribe(inboxes[0]!.add, { from: 'now' }).ready, 'ready');
    let [stop, sent] = [false, 0];
    const load = (async () => {
      while (!stop) {
        await Promise.all(inboxes.map((_, i) => t.publish(name(i), sent)));
        sent++;
      }
    })();
    try {
      for (let round = 0; round < 3; round++) {
        const rest = inboxes.slice(1).map((_, i) => {
          const inbox = (inboxes[i + 1] = new Inbox<number>());
          return connection.channel<number>(name(i + 1)).subscribe(inbox.add, { from: i === 0 ? 'earliest' : 'now' });
        });
        await Promise.all(rest.map((s) => t.within(s.ready, 'ready')));
        const before = sent;
        await t.until(() => inboxes.every((inbox) => (inbox.data.at(-1) ?? -1) > before), 'messages of all');
        for (const [i, subscription] of rest.entries()) {
          subscription.unsubscribe();
          const inbox = inboxes[i + 1]!;
          const { length } = inbox.data;
          const first = inbox.data[0]!;
          if (i === 0) t.equal(first, 0, 'the earliest');
          t.equal(inbox.data, count(length, first), `channel ${i + 1} in round ${round}`);
          await sleep(20);
          t.equal(inbox.data.length, length, 'messages after the end of a subscription');
        }
      }
    } finally {
      stop = true;
      await load;
    }
    await t.until(() => inboxes[0]!.data.at(-1) === sent - 1, 'the last message');
    t.equal(inboxes[0]!.data, count(sent), 'the channel that stayed');
  });

  test(`${transport}: a gap is told`, async (t) => {
    const end = await t.cursor();
    const id = await t.publish(t.channel, 'kept');
    const connection = open(t, { transports: [transport], cursor: 'elsewhere-4711' });
    let gaps = 0;
    connection.addEventListener('gap', () => gaps++);
    const inbox = new Inbox();
    connection.channel(t.channel).subscribe(inbox.add);
    await t.until(() => inbox.messages.length, 'the message that is kept');
    t.equal(inbox.messages.map((m) => m.id), [id], 'the messages');
    t.equal(gaps, 1, 'gaps');
    t.ok(connection.cursor !== 'elsewhere-4711' && connection.cursor !== end, `the cursor ${connection.cursor}`);
  });

  test(`${transport}: what retention removed is a gap`, async (t) => {
    const channel = t.channel.replace(/^t/, 'few');
    const cursor = await t.publish(channel, 0);
    for (let i = 1; i <= 30; i++) await t.publish(channel, i);
    const connection = open(t, { transports: [transport], cursor });
    let gaps = 0;
    connection.addEventListener('gap', () => gaps++);
    const inbox = new Inbox<number>();
    connection.channel<number>(channel).subscribe(inbox.add);
    await t.until(() => inbox.data.at(-1) === 30, 'the messages');
    t.ok(inbox.messages.length < 30, `${inbox.messages.length} messages, and retention keeps 5`);
    t.equal(inbox.data, count(inbox.messages.length, 31 - inbox.messages.length), 'the messages');
    t.equal(gaps, 1, 'gaps');
  });

  test(`${transport}: a refusal stops it`, async (t) => {
    const connection = open(t, { transports: [transport] });
    const errors: HalleyError[] = [];
    connection.addEventListener('error', (event) => errors.push(event.detail));
    // The server of these tests allows so many channels less one.
    const outcomes = count(t.settings.channels + 1).map((i) =>
      connection.channel(`${t.channel}/${i}`).subscribe(() => {}, { from: 'now' }).ready.then(() => 'ready', () => 'rejected'));
    await t.until(() => errors.length, 'an error');
    t.equal([errors[0]!.code, errors[0]!.status, isHalleyError(errors[0])], ['invalid-channel', 400, true], 'the error');
    t.equal(connection.state, 'closed', 'the state');
    const last = await t.within(Promise.all(outcomes), 'the end of ready');
    t.ok(last.includes('rejected'), `ready came to ${String(last)}`);
    const before = (await t.requests('subscribe')).length;
    await sleep(1000);
    t.equal((await t.requests('subscribe')).length, before, 'requests after the refusal');
  });

  test(`${transport}: the cursor of a snapshot`, async (t) => {
    const cursor = await t.cursor();
    const between = await t.publish(t.channel, 'after the snapshot');
    const first = open(t, { transports: [transport], cursor });
    const inbox = new Inbox();
    await t.within(first.channel(t.channel).subscribe(inbox.add).ready, 'ready');
    await t.until(() => inbox.messages.length, 'what came after the snapshot');
    await t.publish(t.channel, 'live');
    await t.until(() => inbox.messages.length === 2, 'the live message');
    const kept = first.cursor!;
    first.close();
    t.equal(first.state, 'closed', 'the state');
    await t.publish(t.channel, 'while away');
    const second = open(t, { transports: [transport], cursor: kept });
    second.channel(t.channel).subscribe(inbox.add);
    await t.until(() => inbox.messages.length >= 3, 'what came while away');
    await t.publish(t.channel, 'back');
    await t.until(() => inbox.messages.length >= 4, 'the last message');
    t.equal(inbox.data, ['after the snapshot', 'live', 'while away', 'back'], 'the messages');
    t.equal(inbox.messages[0]!.id, between, 'the first id');
  });

  test(`${transport}: a token is asked for and sent`, async (t) => {
    let asked = 0;
    const token = async (): Promise<string> => {
      await sleep(1);
      return `secret${++asked}`;
    };
    const connection = open(t, { transports: [transport], token });
    const inbox = new Inbox();
    await t.within(connection.channel(t.channel).subscribe(inbox.add, { from: 'now' }).ready, 'ready');
    t.ok(asked > 0, 'nobody asked for the token');
    // Where there is no header for it, it is for a ticket, and in no URL.
    const sent = (await t.requests('secret')).filter((head) => /subscribe|ticket/.test(head));
    t.ok(sent.some((head) => /Authorization: Bearer secret\d/i.test(head)), `heads ${sent.join('\n')}`);
    t.ok(!sent.some((head) => /^\S+ \S*secret/.test(head)), `heads ${sent.join('\n')}`);
    await connection.publish(t.channel, 'with a token');
    await t.until(() => inbox.messages.length, 'the message');
  });

  test(`${transport}: close leaves nothing`, async (t) => {
    const connection = open(t, { transports: [transport] });
    let closed = 0;
    connection.addEventListener('closed', () => closed++);
    await t.within(connection.channel(t.channel).subscribe(() => {}, { from: 'now' }).ready, 'ready');
    connection.close();
    connection.close();
    t.equal(connection.state, 'closed', 'the state');
    t.equal(closed, 1, 'closed events');
    for (const end = performance.now() + 10_000; (await t.pending('subscribe')).length; await sleep(50)) {
      t.ok(performance.now() < end, 'the request goes on');
    }
  });
}

test('a message is published once', async (t) => {
  const connection = open(t);
  const channel = connection.channel<unknown>(t.channel);
  const inbox = new Inbox();
  await t.within(channel.subscribe(inbox.add, { from: 'now' }).ready, 'ready');
  const ids = [
    await t.within(channel.publish({ n: 1 }), 'publish'),
    await t.within(connection.publish(t.channel, 'a text', { type: 'said' }), 'publish'),
    await t.within(channel.publish(null), 'publish'),
  ];
  await t.until(() => inbox.messages.length >= 3, 'the messages');
  t.equal(inbox.messages.map((m) => m.id), ids, 'the ids');
  t.equal(inbox.data, [{ n: 1 }, 'a text', null], 'the data');
  t.equal(inbox.messages[1]!.type, 'said', 'the type');
});

test('bytes are published', async (t) => {
  const connection = open(t);
  const inbox = new Inbox();
  await t.within(connection.channel(t.channel).subscribe(inbox.add, { from: 'now' }).ready, 'ready');
  await t.within(connection.publish(t.channel, new Uint8Array([0, 255, 128, 10])), 'publish');
  await t.until(() => inbox.messages.length, 'the message');
  t.equal(inbox.messages[0]!.data, new Uint8Array([0, 255, 128, 10]), 'the data');
});

test('publishing goes on after faults and stores once', async (t) => {
  const connection = open(t);
  const channel = connection.channel<number>(t.channel);
  const inbox = new Inbox<number>();
  await t.within(channel.subscribe(inbox.add, { from: 'now' }).ready, 'ready');
  let sent = 0;
  const ids: string[] = [];
  for (const fault of ['bad gateway', 'refuse', 'cut', 'stall', 'cut']) {
    const end = await t.fault(fault);
    const published = count(10).map(() => channel.publish(sent++));
    await sleep(700);
    await end();
    for (const id of published) ids.push(await t.within(id, `publish in ${fault}`, 30_000));
  }
  await t.until(() => inbox.messages.length >= sent, 'the messages');
  await sleep(100);
  t.equal(inbox.data, count(sent), 'the messages');
  t.equal(inbox.messages.map((m) => m.id), ids, 'the ids');
});

test('a publish that is refused is rejected', async (t) => {
  const connection = open(t);
  const publish = connection.publish(t.channel, 'no JSON', { contentType: 'application/json' });
  const outcome = await t.within(publish.catch((error: unknown) => error), 'the refusal');
  t.ok(isHalleyError(outcome) && outcome.code === 'invalid-message' && outcome.status === 400, `the outcome ${String(outcome)}`);
  await t.within(connection.publish(t.channel, 'goes on'), 'the next message');
});

test('names that are invalid are refused at once', async (t) => {
  const connection = open(t);
  for (const name of ['', '/a', 'a//b', 'a/../b', 'a b', 'a*', 'a/*/b', 'x'.repeat(256)]) {
    let thrown: unknown;
    try {
      connection.channel(name);
    } catch (error) {
      thrown = error;
    }
    t.ok(thrown instanceof TypeError, `${name}: thrown is ${String(thrown)}`);
  }
  t.ok(connection.channel('x'.repeat(255)), 'a long name');
});

test('patterns', async (t) => {
  const connection = open(t);
  const [one, all, both] = [new Inbox(), new Inbox(), new Inbox()];
  const base = t.channel;
  await t.within(
    Promise.all([
      connection.channel(`${base}/*`).subscribe(one.add, { from: 'now' }).ready,
      connection.channel(`${base}/**`).subscribe(all.add, { from: 'now' }).ready,
      connection.channel(`${base}/a`).subscribe(both.add, { from: 'now' }).ready,
    ]),
    'ready',
  );
  for (const name of ['a', 'b', 'a/c', 'a']) await t.publish(`${base}/${name}`, name);
  await t.publish(base, 'itself');
  await t.publish(`${base}/end`, 'end');
  await t.until(() => one.data.at(-1) === 'end' && all.data.at(-1) === 'end', 'the messages');
  t.equal(one.data, ['a', 'b', 'a', 'end'], '*');
  t.equal(all.data, ['a', 'b', 'a/c', 'a', 'end'], '**');
  t.equal(both.data, ['a', 'a'], 'a name beside the patterns');
  t.equal(all.messages[2]!.channel, `${base}/a/c`, 'the channel of a message');
});

test('from: each subscription begins where it says', async (t) => {
  const ids: string[] = [];
  for (const i of count(5)) ids.push(await t.publish(t.channel, i));
  const connection = open(t, { cursor: await t.cursor() });
  const channel = connection.channel<number>(t.channel);
  const [live, earliest, cursor, now] = count(4).map(() => new Inbox<number>()) as [Inbox<number>, Inbox<number>, Inbox<number>, Inbox<number>];
  await t.within(channel.subscribe(live.add).ready, 'ready');
  await t.publish(t.channel, 5);
  await t.until(() => live.data.length, 'the first live message');
  await t.within(channel.subscribe(now.add, { from: 'now' }).ready, 'ready');
  await t.within(channel.subscribe(earliest.add, { from: 'earliest' }).ready, 'ready');
  await t.within(channel.subscribe(cursor.add, { from: ids[2]! }).ready, 'ready');
  await t.publish(t.channel, 6);
  for (const inbox of [live, earliest, cursor, now]) await t.until(() => inbox.data.at(-1) === 6, 'the last message');
  await sleep(50);
  t.equal(live.data, [5, 6], 'from the connection’s cursor');
  t.equal(earliest.data, count(7), 'from earliest');
  t.equal(cursor.data, count(4, 3), 'from a cursor');
  t.equal(now.data, [6], 'from now');
});

test('from: a long history goes before live messages', async (t) => {
  for (let i = 0; i < 2500; ) {
    await t.ask('batch', { channel: t.channel, from: String(i), count: '500' });
    i += 500;
  }
  const connection = open(t);
  const other = new Inbox<number>();
  await t.within(connection.channel<number>(`${t.channel}/other`).subscribe(other.add, { from: 'now' }).ready, 'ready');
  const inbox = new Inbox<number>();
  const subscription = connection.channel<number>(t.channel).subscribe(inbox.add, { from: 'earliest' });
  for (const i of count(100)) {
    await t.publish(t.channel, 2500 + i);
    await t.publish(`${t.channel}/other`, i);
  }
  await t.within(subscription.ready, 'ready');
  await t.until(() => inbox.data.at(-1) === 2599, 'the last message');
  t.equal(inbox.data, count(2600), 'the messages');
  await t.until(() => other.data.length >= 100, 'those of the other channel');
  t.equal(other.data, count(100), 'the other channel');
});

test('for await', async (t) => {
  const connection = open(t, { cursor: await t.cursor() });
  for (const i of count(3)) await t.publish(t.channel, i);
  const got: number[] = [];
  const reading = (async () => {
    for await (const message of connection.channel<number>(t.channel)) {
      got.push(message.data);
      await sleep(10); // slower than they come
      if (got.length === 5) break;
    }
  })();
  await t.until(() => got.length >= 3, 'the first messages');
  for (const i of count(5)) await t.publish(t.channel, 3 + i);
  await t.within(reading, 'the end of the loop');
  t.equal(got, count(5), 'the messages');

  const closed = (async () => {
    for await (const _ of connection.channel(t.channel)) void _;
    return 'over';
  })().catch((error: unknown) => String(error));
  await sleep(100);
  connection.close();
  await t.within(closed, 'the end of the loop by close');
});

test('AbortSignal', async (t) => {
  const all = new AbortController();
  const connection = open(t, { signal: all.signal });
  const one = new AbortController();
  const [ended, stays] = [new Inbox<number>(), new Inbox<number>()];
  const channel = connection.channel<number>(t.channel);
  await t.within(
    Promise.all([
      channel.subscribe(ended.add, { from: 'now', signal: one.signal }).ready,
      channel.subscribe(stays.add, { from: 'now' }).ready,
    ]),
    'ready',
  );
  await t.publish(t.channel, 0);
  await t.until(() => ended.data.length && stays.data.length, 'the first message');
  one.abort();
  await t.publish(t.channel, 1);
  await t.until(() => stays.data.length === 2, 'the second message');
  t.equal(ended.data, [0], 'the subscription that was aborted');
  all.abort();
  t.equal(connection.state, 'closed', 'the state');
  const dead = open(t, { signal: AbortSignal.abort() });
  t.equal(dead.state, 'closed', 'the state by a signal that was aborted before');
});

test('events tell what happens', async (t) => {
  const connection = open(t);
  const seen: [string, Record<string, unknown>][] = [];
  for (const type of types) {
    connection.addEventListener(type, (event) => seen.push([type, details(event)]));
  }
  const last = (type: string): Record<string, unknown> | undefined => seen.findLast(([name]) => name === type)?.[1];
  await t.within(connection.channel(t.channel).subscribe(() => {}, { from: 'now' }).ready, 'ready');
  t.equal(last('open')?.['transport'], connection.transport, 'the transport of open');
  const end = await t.fault('refuse');
  await t.until(() => last('waiting'), 'waiting');
  t.ok(typeof last('waiting')!['delay'] === 'number', `the delay ${String(last('waiting')!['delay'])}`);
  t.ok(last('waiting')!['reason'], 'the reason');
  t.ok(connection.state !== 'open', `the state ${connection.state}`);
  await end();
  await t.until(() => connection.state === 'open', 'open again');
  connection.close();
  t.equal(seen.at(-1)?.[0], 'closed', 'the last event');
});

test('the ladder goes down and up, and says why', async (t) => {
  if (!available.includes('websocket')) t.skip('has no WebSocket');
  const connection = open(t, { upgradeAfter: 1000, openTimeout: 500, verdictFor: 8000 });
  const inbox = new Inbox<number>();
  await t.within(connection.channel<number>(t.channel).subscribe(inbox.add, { from: 'now' }).ready, 'ready');
  let sent = 0;
  let stop = false;
  const load = (async () => {
    while (!stop) {
      await t.publish(t.channel, sent);
      sent++;
      await sleep(50);
    }
  })();
  try {
    for (const fault of ['no websocket', 'strip', 'hold']) {
      if (connection.transport !== 'websocket') t.notes.push(`${fault} begins on ${connection.transport}`);
      const end = await t.fault(fault);
      if (fault === 'hold') await t.cut('subscribe');
      // Streams are held back, polls aren't.
      const left: readonly (string | undefined)[] = fault === 'hold' ? ['long-polling', 'jsonp'] : available.slice(1);
      await t.until(() => connection.state === 'open' && left.includes(connection.transport), `another transport in ${fault}`, 30_000);
      const before = sent;
      await t.until(() => (inbox.data.at(-1) ?? -1) > before, `messages in ${fault}`);
      await end();
      await t.until(() => connection.transport === 'websocket', `the way up after ${fault}`, 30_000);
    }
  } finally {
    stop = true;
    await load;
  }
  await t.until(() => inbox.data.at(-1) === sent - 1, 'the last message');
  t.equal(inbox.data, count(sent), 'the messages');
});
