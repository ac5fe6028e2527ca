import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, HalleyError, isHalleyError, type Connection, type ConnectOptions } from '../src/index.ts';
import { Fake } from './fake.ts';

let server: Fake;
let connections: Connection[];

beforeEach(async () => {
  server = await new Fake().start();
  connections = [];
});

afterEach(async () => {
  for (const connection of connections) connection.close();
  await server.stop();
});

const open = (options: ConnectOptions = {}): Connection & { readonly told: [string, unknown][] } => {
  const connection = connect(server.url, { backoff: { min: 10, max: 100 }, openTimeout: 1000, ...options });
  connections.push(connection);
  const told: [string, unknown][] = [];
  for (const type of ['connecting', 'open', 'waiting', 'closed', 'gap', 'transport', 'error'] as const) {
    connection.addEventListener(type, (event) => told.push([type, event.detail]));
  }
  return Object.assign(connection, { told });
};

const until = async (condition: () => boolean): Promise<void> => {
  for (let n = 0; !condition(); n++) {
    if (n > 1000) throw new Error(`never ${condition}`);
    await sleep(5);
  }
};

const listen = (connection: Connection, name: string, options?: { from: string }): { list: unknown[]; ready: Promise<void>; unsubscribe: () => void } => {
  const list: unknown[] = [];
  const { ready, unsubscribe } = connection.channel(name).subscribe(({ data }) => list.push(data), options);
  return { list, ready, unsubscribe };
};

test('begins at the cursor of the page', async () => {
  const cursor = server.publish('a', 1);
  server.publish('a', 2);
  const connection = open({ cursor });
  const { list, ready } = listen(connection, 'a');
  await ready;
  server.publish('a', 3);
  await until(() => list.length === 2);
  assert.deepEqual(list, [2, 3]);
  assert.equal(connection.cursor, server.end);
});

test('brings each message once while streams are cut', async () => {
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  for (let n = 0; n < 100; n++) {
    server.publish('a', n);
    if (n % 10 === 5) server.cut();
    await sleep(10);
  }
  await until(() => list.length === 100);
  assert.deepEqual(list, Array.from({ length: 100 }, (_, n) => n));
  assert(!connection.told.some(([type]) => type === 'gap'));
});

test('adds and removes channels beside the others', async () => {
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  let removed = listen(connection, 'b/0');
  for (let n = 0; n < 50; n++) {
    server.publish('a', n);
    if (n % 7 === 0) {
      removed.unsubscribe();
      removed = listen(connection, `b/${n}`);
    }
    await sleep(2);
  }
  await until(() => list.length === 50);
  assert.deepEqual(list, Array.from({ length: 50 }, (_, n) => n));
});

test('reads the past of one channel and goes on with what is live', async () => {
  const connection = open();
  const other = listen(connection, 'other');
  await other.ready;
  for (let n = 0; n < 10; n++) server.publish('a', n);
  const all = listen(connection, 'a', { from: 'earliest' });
  const some = listen(connection, '*', { from: 'e-5' });
  const now = listen(connection, 'a', { from: 'now' });
  await now.ready;
  for (let n = 10; n < 20; n++) server.publish('a', n);
  await until(() => all.list.length === 20 && some.list.length === 15 && now.list.length === 10);
  assert.deepEqual(all.list, Array.from({ length: 20 }, (_, n) => n));
  assert.deepEqual(some.list, Array.from({ length: 15 }, (_, n) => n + 5));
  assert.deepEqual(now.list, Array.from({ length: 10 }, (_, n) => n + 10));
  assert.deepEqual(other.list, []);
});

test('a gap at the start is told though the stream is cut before it', async () => {
  const { opening } = server;
  server.opening = (cursor) => {
    setTimeout(() => server.cut(), 5);
    return [{ control: 'open', id: 'e-4', heartbeat: 1 }].filter(() => cursor === 'old-7');
  };
  const connection = open({ cursor: 'old-7' });
  listen(connection, 'a');
  await sleep(100);
  assert.equal(connection.cursor, 'old-7');
  server.opening = () => [...opening('e-4'), { control: 'gap', id: 'e-4' }];
  await until(() => connection.told.some(([type]) => type === 'gap'));
  assert.deepEqual(connection.told.find(([type]) => type === 'gap')![1], { cursor: 'e-4' });
  await until(() => connection.cursor === 'e-4' || connection.cursor === 'e-0');
});

test('leaves a transport that is held back, and one that only opens', async () => {
  for (const held of [true, false]) {
    server.fault = (_path, form, _request, response) => {
      if (form.get('transport') !== 'xhr-streaming') return false;
      if (!held) response.write(`${JSON.stringify({ control: 'open', id: form.get('cursor'), heartbeat: server.heartbeat })}\n`);
      return true;
    };
    const connection = open();
    const { list, ready } = listen(connection, 'a');
    await ready;
    server.publish('a', 'through');
    await until(() => list.length === 1);
    assert.equal(connection.transport, 'long-polling');
    assert.deepEqual(
      connection.told.filter(([type]) => type === 'transport').at(-1)![1],
      held
        ? { from: undefined, to: 'long-polling', reason: 'fetch: timeout' }
        : { from: 'fetch', to: 'long-polling', reason: 'fetch: silent' },
    );
    connection.close();
  }
});

test('goes back to a better transport, at the cursor', async () => {
  let blocked = true;
  server.fault = (_path, form) => blocked && form.get('transport') === 'xhr-streaming';
  const connection = open({ upgradeAfter: 100 });
  const { list, ready } = listen(connection, 'a');
  await ready;
  assert.equal(connection.transport, 'long-polling');
  let published = 0;
  const publishing = setInterval(() => server.publish('a', published++), 3);
  await sleep(200);
  blocked = false;
  await until(() => connection.transport === 'fetch');
  await sleep(50);
  clearInterval(publishing);
  await until(() => list.length === published);
  assert.deepEqual(list, Array.from({ length: published }, (_, n) => n));
  assert.deepEqual(connection.told.at(-1), ['transport', { from: 'long-polling', to: 'fetch', reason: 'better' }]);
});

test('does not blame the transport when the server is away', async () => {
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  const port = Number(new URL(server.url).port);
  await server.stop();
  await sleep(600);
  assert.equal(connection.state === 'waiting' || connection.state === 'connecting', true);
  await server.start(port);
  server.publish('a', 'back');
  await until(() => list.length === 1);
  assert.equal(connection.transport, 'fetch');
});

test('comes back when the server says, and not before', async () => {
  const connection = open();
  await listen(connection, 'a').ready;
  const told = Date.now();
  server.send({ control: 'reconnect', delay: 400 });
  await until(() => connection.state === 'waiting');
  await until(() => connection.state === 'open');
  assert(Date.now() - told >= 400);
});

test('notices a stream that has died without a word', async () => {
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  // What has brought something is not condemned for falling silent.
  server.publish('a', 0);
  await until(() => list.length === 1);
  server.mute();
  server.publish('a', 1);
  await until(() => list.length === 2);
  assert.equal(connection.transport, 'fetch');
  assert.deepEqual(connection.told.find(([type]) => type === 'waiting')?.[1], { reason: 'silent', delay: 250 });
});

test('publishes once, with one key, however often it is sent', async () => {
  let failures = 3;
  server.fault = (path, _form, _request, response) => {
    if (path !== 'publish' || !failures) return false;
    if (--failures) response.destroy();
    else response.writeHead(503, { 'Retry-After': '0' }).end('{"code":"draining","status":503}');
    return true;
  };
  const connection = open();
  const [first, second] = await Promise.all([connection.publish('a', 1), connection.publish('a', 2)]);
  assert.deepEqual([first, second], ['e-1', 'e-2']);
  const keys = server.requests.filter(({ path }) => path === 'publish').map(({ headers }) => headers['idempotency-key']);
  assert.equal(new Set(keys).size, 2);
  assert.equal(keys.length, 5);
});

test('a refusal rejects a publish, and ends a connection', async () => {
  const refuse = (response: import('node:http').ServerResponse): boolean =>
    !!response.writeHead(403).end('{"code":"forbidden-origin","status":403,"title":"No"}');
  server.fault = (path, _form, _request, response) => path !== 'info' && refuse(response);
  const connection = open();
  await assert.rejects(connection.publish('a', 1), (error) => isHalleyError(error) && error.code === 'forbidden-origin' && error.status === 403);
  await until(() => connection.state === 'closed');
  const error = connection.told.find(([type]) => type === 'error')![1];
  assert(error instanceof HalleyError);
  assert.equal(error.message, 'No');
});

test('a proxy\'s refusal is not the server\'s', async () => {
  let count = 0;
  server.fault = (path, _form, _request, response) => path === 'subscribe' && count++ < 2 && !!response.writeHead(502).end('<html>');
  const connection = open();
  await listen(connection, 'a').ready;
  assert.equal(connection.state, 'open');
});

/** Gives Node an EventSource that fails, or never opens. */
const withEventSource = async (fails: boolean, act: () => Promise<void>): Promise<void> => {
  class EventSource {
    onerror = (): void => {};
    constructor() {
      if (fails) setTimeout(() => this.onerror());
    }
    addEventListener(): void {}
    close(): void {}
  }
  Object.assign(globalThis, { EventSource });
  try {
    await act();
  } finally {
    delete (globalThis as { EventSource?: unknown }).EventSource;
  }
};

test('a refusal without a word is asked for', () =>
  withEventSource(true, async () => {
    server.fault = (path, _form, _request, response) =>
      path === 'subscribe' && !!response.writeHead(400).end('{"code":"invalid-channel","status":400}');
    const connection = open({ transports: ['sse'] });
    await until(() => connection.state === 'closed');
    assert.equal((connection.told.find(([type]) => type === 'error')![1] as HalleyError).code, 'invalid-channel');
    assert.equal(server.requests.filter(({ path }) => path === 'subscribe').length, 1);
  }));

test('walks down to the end, however soon verdicts are forgotten', () =>
  withEventSource(false, async () => {
    server.fault = (_path, form) => form.get('transport') === 'xhr-streaming';
    const connection = open({ transports: ['sse', 'fetch', 'long-polling'], verdictFor: 1, openTimeout: 100 });
    await listen(connection, 'a').ready;
    assert.equal(connection.transport, 'long-polling');
  }));

test('leaves a transport that lets everything out in bursts', async () => {
  server.fault = (_path, form, _request, response) => {
    if (form.get('transport') !== 'xhr-streaming') return false;
    let held = '';
    const { write } = response;
    response.write = (text: string) => {
      held += text;
      if (held.length > 4096) {
        write.call(response, held, 'utf8');
        held = '';
      }
      return true;
    };
    return false;
  };
  const publishing = setInterval(() => server.publish('a', 'x'.repeat(200)), 5);
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  assert.equal(connection.transport, 'long-polling');
  clearInterval(publishing);
  server.publish('a', 'last');
  await until(() => list.at(-1) === 'last');
});

test('what is published waits no longer than the connection is away', async () => {
  let opens: () => void;
  const waits = new Promise<void>((resolve) => (opens = resolve));
  let failures = 1;
  server.fault = (path, _form, _request, response) => {
    if (path === 'publish' && failures && failures--) return !!response.destroy();
    if (path !== 'info') return false;
    const info = { transports: ['xhr-streaming'], heartbeat: 1, hosts: [], cursor: server.end };
    void waits.then(() => response.end(JSON.stringify(info)));
    return true;
  };
  const connection = open({ backoff: { min: 1e6, max: 1e6 }, openTimeout: 5000 });
  const published = connection.publish('a', 1);
  await until(() => !failures);
  await sleep(50);
  opens!();
  assert.equal(await published, 'e-1');
});

test('iterates, and ends with the connection', async () => {
  const connection = open({ cursor: 'e-0' });
  server.publish('a', 1);
  const got: unknown[] = [];
  for await (const { data } of connection.channel('a')) {
    got.push(data);
    if (data === 2) connection.close();
    else server.publish('a', 2);
  }
  assert.deepEqual(got, [1, 2]);
  assert.equal(connection.state, 'closed');
});

test('signals end things', async () => {
  const all = new AbortController();
  const one = new AbortController();
  const connection = open({ signal: all.signal });
  const a = connection.channel('a').subscribe(() => {}, { signal: one.signal });
  const never = connection.channel('b').subscribe(() => {}, { signal: AbortSignal.abort('late') });
  await a.ready;
  await assert.rejects(never.ready, (reason) => reason === 'late');
  one.abort();
  assert(a.signal.aborted);
  server.fault = (path) => path === 'publish';
  const publishing = connection.publish('a', 1);
  const behind = new AbortController();
  const second = connection.publish('a', 2, { signal: behind.signal });
  behind.abort();
  await assert.rejects(second, { name: 'AbortError' });
  all.abort();
  await assert.rejects(publishing, { name: 'AbortError' });
  assert.equal(connection.state, 'closed');
  await until(() => server.streams === 0);
});

test('a handler that throws does not stop the next message', async () => {
  const caught: unknown[] = [];
  // Those are the test runner's.
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException').once('uncaughtException', (error) => caught.push(error));
  const connection = open({ cursor: 'e-0' });
  const got: unknown[] = [];
  connection.channel('a').subscribe(({ data }) => {
    got.push(data);
    if (data === 1) throw new Error('mine');
  });
  server.publish('a', 1);
  server.publish('a', 2);
  await until(() => got.length === 2 && caught.length === 1);
  for (const listener of listeners) process.on('uncaughtException', listener);
  assert.match(String(caught[0]), /mine/);
});

test('renews a token before it expires, without a gap', async () => {
  server.heartbeat = 5; // the machine may be slow
  const jwt = (exp: number): string => `x.${btoa(JSON.stringify({ exp }))}.x`;
  let asked = 0;
  const connection = open({ token: () => jwt(Date.now() / 1000 + (asked++ < 3 ? 3 : 1000)) });
  const { list, ready } = listen(connection, 'a');
  await ready;
  const before = server.requests.length;
  await until(() => server.requests.slice(before).some(({ path }) => path === 'subscribe'));
  server.publish('a', 1);
  await until(() => list.length === 1);
  assert.deepEqual(connection.told.filter(([type]) => type !== 'open' && type !== 'transport'), []);
  assert.match(String(server.requests.at(-1)!.headers.authorization), /^Bearer x\./);
});

test('refuses names that are none', () => {
  for (const name of ['', '/', 'a//b', 'a*', 'meta/a', 'a/../b']) assert.throws(() => open().channel(name), TypeError);
});

test('leaves a transport whose constructor throws', async () => {
  const before = globalThis.EventSource;
  Object.assign(globalThis, { EventSource: class { constructor() { throw new DOMException('denied', 'SecurityError'); } } });
  try {
    const connection = open({ transports: ['sse', 'long-polling'] });
    await until(() => connection.state === 'open');
    assert.equal(connection.transport, 'long-polling');
  } finally { Object.assign(globalThis, { EventSource: before }); }
});

test('tabs without locks lead alone each', async () => {
  const nav = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { configurable: true, value: { locks: { request: async () => { throw new DOMException('denied', 'SecurityError'); } } } });
  try {
    const a = open(), b = open();
    a.channel('a').subscribe(() => {}, { from: 'earliest' });
    b.channel('a').subscribe(() => {}, { from: 'earliest' });
    await sleep(1000);
    assert.deepEqual([a.state, b.state], ['open', 'open']);
    assert(server.requests.length < 20);
  } finally { for (const c of connections) c.close(); if (nav) Object.defineProperty(globalThis, 'navigator', nav); else delete (globalThis as any).navigator; }
});

test('a renewal that fails is tried again', async () => {
  server.heartbeat = 5; // the machine may be slow
  const jwt = (exp: number): string => `x.${btoa(JSON.stringify({ exp }))}.x`;
  let asked = 0, fail = false;
  const connection = open({ token: () => { if (fail) { fail = false; throw new Error('no'); } return jwt(Date.now() / 1000 + (asked++ < 3 ? 3 : 1000)); } });
  await connection.channel('a').subscribe(() => {}).ready;
  const before = server.requests.filter(({ path }) => path === 'subscribe').length;
  fail = true;
  await until(() => server.requests.filter(({ path }) => path === 'subscribe').length > before);
});

test('a successor that is refused rests as long as the server says', async () => {
  const connection = open();
  await connection.channel('a').subscribe(() => {}).ready;
  let refused = 0;
  server.fault = (path, form, _r, response) => path === 'subscribe' && form.getAll('channel').includes('b') && ++refused > 0 && !!response.writeHead(503, { 'Retry-After': '2' }).end('{"code":"too-many-connections","status":503}');
  connection.channel('b').subscribe(() => {});
  const t = setInterval(() => server.publish('a', 1), 20);
  await sleep(1500);
  clearInterval(t);
  assert.equal(refused, 1);
});

test('what history has of another epoch comes once', async () => {
  const connection = open({ cursor: 'e-0' });
  await connection.channel('a').subscribe(() => {}).ready;
  for (let n = 0; n < 5; n++) server.publish('a', n);
  await until(() => connection.cursor === 'e-5');
  // The server is restarted while the past is read.
  let away = true;
  server.fault = (path, _f, _r, response) => away && path !== 'info' && !!response.destroy();
  const got: string[] = [];
  connection.channel('a').subscribe(({ id }) => got.push(id), { from: 'e-2' });
  server.cut();
  await sleep(30);
  server.log.length = 0; server.epoch = 'n';
  for (let n = 0; n < 3; n++) server.publish('a', n);
  const { opening } = server;
  server.opening = (cursor) => cursor[0] === 'e' ? [...opening('n-0'), { control: 'gap', id: 'n-0' }] : opening(cursor);
  // History first.
  let hist = 0;
  server.fault = (path, form, _r, response) => {
    if (path === 'history' && form.get('until')![0] === 'e') { hist++; response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ cursor: server.end, gap: true, messages: server.log, more: false })); return true; }
    return path === 'subscribe' && !hist && !!response.destroy();
  };
  away = false;
  await until(() => connection.state === 'open');
  await sleep(200);
  assert.deepEqual(got, server.log.map(({ id }) => id));
});

test('a successor that began in another epoch brings nothing twice', async () => {
  for (let n = 0; n < 3; n++) server.publish('a', n);
  const { opening } = server;
  const connection = open({ cursor: 'old-9' });
  server.opening = (cursor) => cursor[0] === 'o' ? [...opening('e-0'), { control: 'gap', id: 'e-0' }] : opening(cursor);
  let count = 0;
  server.fault = (path, form, _request, response) => {
    if (path === 'history' && form.get('until')![0] === 'o') { response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ cursor: server.end, gap: true, messages: [], more: false })); return true; }
    if (path !== 'subscribe' || form.getAll('channel')[0] === '~') return false;
    if (!count++) { connection.channel('b').subscribe(() => {}, { from: 'e-0' }); return false; }
    // The successor's gap and messages come late.
    const write = response.write.bind(response) as any;
    let chain = Promise.resolve(), first = true;
    (response as any).write = (s: string) => { const w = first ? 0 : 60; first = false; chain = chain.then(() => sleep(w)).then(() => void write(s)); return true; };
    return false;
  };
  const got: string[] = [];
  connection.channel('a').subscribe(({ id }) => got.push(id));
  await sleep(1000);
  assert.deepEqual(got, ['e-1', 'e-2', 'e-3']);
});

test('does not renew for a token that is over as it comes', async () => {
  const jwt = `x.${btoa(JSON.stringify({ exp: Date.now() / 1000 - 3600 }))}.x`;
  const connection = open({ token: () => jwt });
  await connection.channel('a').subscribe(() => {}).ready;
  const before = server.requests.filter(({ path }) => path === 'subscribe').length;
  await sleep(2500);
  assert.equal(server.requests.filter(({ path }) => path === 'subscribe').length, before);
});

test('publishes in order when one between is aborted', async () => {
  const connection = open();
  const keys = (): Set<unknown> =>
    new Set(server.requests.filter(({ path }) => path === 'publish').map(({ headers }) => headers['idempotency-key']));
  let fails = true;
  server.fault = (path, _form, _request, response) => path === 'publish' && fails && !!response.destroy();
  const first = connection.publish('a', 1);
  const abort = new AbortController();
  const second = connection.publish('a', 2, { signal: abort.signal });
  const third = connection.publish('a', 3);
  await until(() => keys().size > 0);
  abort.abort();
  await assert.rejects(second, { name: 'AbortError' });
  await sleep(100);
  assert.equal(keys().size, 1);
  fails = false;
  await Promise.all([first, third]);
  assert.deepEqual(server.log.map(({ data }) => data), [1, 3]);
});

test('a token that does not come holds nothing up', async () => {
  let hangs = false;
  const connection = open({ token: () => (hangs ? new Promise<string>(() => {}) : 't') });
  await until(() => connection.state === 'open');
  hangs = true;
  await assert.rejects(connection.publish('a', 1, { signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' });
  // What is aborted before it is its turn, too.
  const abort = new AbortController();
  const held = connection.publish('a', 2, { signal: abort.signal });
  await sleep(10);
  abort.abort();
  await assert.rejects(held, { name: 'AbortError' });
});

test('a network that is away does not speak against a transport', async () => {
  const connection = open();
  const { list, ready } = listen(connection, 'a');
  await ready;
  server.publish('a', 0);
  await until(() => list.length === 1);
  // All that is new hangs; the live stream is silent, and not dead yet.
  let away = true;
  server.fault = () => away;
  connection.channel('b').subscribe(() => {}, { from: 'e-0' });
  server.mute();
  await sleep(3000);
  away = false;
  await until(() => server.requests.filter(({ path, form }) => path === 'subscribe' && form.getAll('channel').includes('b')).length > 1);
  await until(() => connection.state === 'open');
  await sleep(300);
  assert.equal(connection.transport, 'fetch');
  assert.deepEqual(connection.told.filter(([type]) => type === 'transport'), [['transport', { from: undefined, to: 'fetch', reason: 'connected' }]]);
});

test('is closed by whoever is told that it connects', async () => {
  const connection = open();
  await until(() => connection.state === 'open');
  await sleep(500); // it has been heard, and so a cut does not speak against it
  connection.addEventListener('connecting', () => connection.close());
  server.cut();
  await until(() => connection.state === 'closed');
  await sleep(300);
  assert.equal(server.streams, 0);
});

test('publishes bytes and text by their own types', async () => {
  const connection = open();
  await connection.publish('a', new Blob(['{}'], { type: 'image/svg+xml' }));
  await connection.publish('a', new Uint8Array([1]));
  await connection.publish('a', 'text');
  await connection.publish('a', { json: true });
  const types = server.requests.filter(({ path }) => path === 'publish').map(({ headers }) => headers['content-type']);
  assert.deepEqual(types, ['image/svg+xml', undefined, 'text/plain;charset=UTF-8', 'application/json']);
});
