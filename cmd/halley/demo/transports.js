// The seven transports, as a browser sees them. Each is a function
//
//   open(base, { channel, cursor }, on) → close
//
// that connects to the server at the origin `base` and calls
//
//   on.frame(envelope)  for each message and each control
//   on.alive()          for bytes that are neither
//   on.end({ why, … })  once, when it is over: `status` of a refusal,
//                       `planned` for an end of its own making,
//                       `unsupported` where the engine can't do it at all
//
// close() drops the connection for real, not only the page's interest in it.
// Cursor, watchdog and coming back are the caller's.

let serial = 0;

// address makes a URL of its own for every request: two GETs of one URL wait
// for each other in the browser's cache, even where nothing may be stored.
function address(base, parameters) {
  const url = new URL('/comet/subscribe', base);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  url.searchParams.set('_', Date.now().toString(36) + (++serial).toString(36));
  return url.href;
}

// refusal reads a problem document (RFC 9457).
async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return { status: response.status, why: `${response.status} ${problem.title ?? ''}`.trim() };
}

const HOLD = 25; // seconds a poll is held

// answer hands on what a poll brought. Polls have no controls of their own:
// the first answer stands for `open`, an empty one for a heartbeat.
function answer(body, first, cursor, on) {
  if (first) on.frame({ control: 'open', id: cursor, heartbeat: HOLD });
  if (body.gap) on.frame({ control: 'gap' });
  for (const envelope of body.messages) on.frame(envelope);
  on.frame({ control: 'heartbeat', id: body.cursor });
}

function longPolling(base, { channel, cursor }, on) {
  const stop = new AbortController();
  (async () => {
    // The first poll is not held: its answer shows that the way is open.
    for (let timeout = 0; ; timeout = HOLD) {
      const url = address(base, { channel, cursor, transport: 'long-polling', timeout });
      const response = await fetch(url, { cache: 'no-store', signal: stop.signal });
      if (!response.ok) return on.end(await refusal(response));
      const body = await response.json();
      answer(body, timeout === 0, cursor, on);
      cursor = body.cursor;
      if (stop.signal.aborted) return;
    }
  })().catch((error) => stop.signal.aborted || on.end({ why: error.message }));
  return () => stop.abort();
}

// jsonp runs its scripts in a hidden frame of the same origin: a script once
// inserted can't be called off, but a frame can be removed.
function jsonp(base, { channel, cursor }, on) {
  const frame = hidden();
  const request = (timeout) => {
    const { contentWindow: inside, contentDocument: page } = frame;
    const callback = 'answer' + (++serial).toString(36);
    const script = page.createElement('script');
    let answered = false;
    const failed = (why) => {
      inside[callback] = () => {}; // it may still come
      on.end({ why });
    };
    inside[callback] = (body) => {
      answered = true;
      inside[callback] = () => {};
      if (body.control) return on.frame(body);
      answer(body, timeout === 0, cursor, on);
      cursor = body.cursor;
    };
    script.onload = () => {
      script.remove();
      if (!frame.isConnected) return;
      if (answered) request(HOLD);
      else failed('an answer without a call');
    };
    script.onerror = () => failed('script failed to load');
    script.src = address(base, { channel, cursor, transport: 'jsonp', callback, timeout });
    page.head.append(script);
  };
  frame.onload = () => frame.isConnected && request(0);
  frame.srcdoc = '<!doctype html><title>jsonp</title>';
  document.body.append(frame);
  return () => frame.remove();
}

const RECYCLE = 2000; // messages after which a forever frame has grown enough

// iframe is the forever frame. On the page's own host it calls a function of
// its parent; from another it posts messages. It tells nothing of its end
// that can be relied on, so the watchdog has to.
function iframe(base, { channel, cursor }, on) {
  const frame = hidden();
  const query = { channel, cursor, transport: 'iframe' };
  let messages = 0;
  const take = (envelope) => {
    on.frame(envelope);
    if (!envelope.control && ++messages >= RECYCLE) on.end({ why: 'recycled', planned: true });
  };
  let unlisten;
  if (base === location.origin) {
    const callback = 'frame' + (++serial).toString(36);
    window[callback] = take;
    unlisten = () => delete window[callback];
    query.callback = 'parent.' + callback;
  } else {
    const listen = (event) => {
      if (event.origin !== base || event.source !== frame.contentWindow) return;
      take(typeof event.data === 'string' ? JSON.parse(event.data) : event.data);
    };
    addEventListener('message', listen);
    unlisten = () => removeEventListener('message', listen);
    query.origin = location.origin;
  }
  frame.onload = () => on.end({ why: 'the page came to its end' });
  frame.src = address(base, query);
  document.body.append(frame);
  return () => {
    frame.onload = null;
    frame.remove();
    unlisten();
  };
}

function hidden() {
  const frame = document.createElement('iframe');
  frame.className = 'stream';
  frame.tabIndex = -1;
  frame.title = 'stream';
  frame.setAttribute('aria-hidden', 'true');
  return frame;
}

// multipart reads the envelope stream by fetch. WebKit fails a fetch whose
// response is of this type, before its first part: that the server answers on
// the same host tells this from a server that is away.
function multipart(base, { channel, cursor }, on) {
  const stop = new AbortController();
  const { signal } = stop;
  let begun = false;
  (async () => {
    const url = address(base, { channel, cursor, transport: 'multipart', format: 'envelope' });
    const response = await fetch(url, { cache: 'no-store', signal });
    if (!response.ok) return on.end(await refusal(response));
    const boundary = /boundary="?([^";]+)/.exec(response.headers.get('Content-Type'))?.[1];
    const parts = new Parts(boundary);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return on.end({ why: 'ended without a word' });
      begun = true;
      on.alive();
      for (const body of parts.add(value)) on.frame(JSON.parse(decoder.decode(body)));
    }
  })().catch(async (error) => {
    if (signal.aborted) return;
    const unsupported = !begun && (await reachable(base, signal));
    on.end({ why: error.message, unsupported });
  });
  return () => stop.abort();
}

function reachable(base, signal) {
  return fetch(new URL('/comet/info', base), { cache: 'no-store', signal }).then(({ ok }) => ok, () => false);
}

// Parts cuts a multipart stream into the bodies of its parts. Each part states
// its Content-Length, so no body is searched for the boundary.
class Parts {
  #rest = new Uint8Array(0);
  #delimiter;

  constructor(boundary) {
    this.#delimiter = '--' + boundary;
  }

  *add(chunk) {
    const bytes = new Uint8Array(this.#rest.length + chunk.length);
    bytes.set(this.#rest);
    bytes.set(chunk, this.#rest.length);
    let at = 0;
    for (;;) {
      const blank = endOfHeader(bytes, at);
      if (blank < 0) break;
      const header = String.fromCharCode(...bytes.subarray(at, blank));
      if (!header.trimStart().startsWith(this.#delimiter)) throw new Error('not at a boundary');
      const length = Number(/^content-length: *(\d+)/im.exec(header)?.[1]);
      if (!(length >= 0)) throw new Error('a part without its length');
      const end = blank + 4 + length;
      if (end > bytes.length) break;
      yield bytes.subarray(blank + 4, end);
      at = end;
    }
    this.#rest = bytes.slice(at);
  }
}

function endOfHeader(bytes, from) {
  for (let i = from; i + 3 < bytes.length; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) return i;
  }
  return -1;
}

const ENOUGH = 1 << 20; // characters; responseText keeps them all

function xhrStreaming(base, { channel, cursor }, on) {
  const xhr = new XMLHttpRequest();
  let read = 0;
  const drain = () => {
    const text = xhr.responseText;
    if (text.length > read) on.alive();
    for (let end; (end = text.indexOf('\n', read)) >= 0; ) {
      const line = text.slice(read, end);
      read = end + 1;
      if (line) on.frame(JSON.parse(line));
    }
    if (read > ENOUGH) on.end({ why: 'recycled', planned: true });
  };
  xhr.onreadystatechange = () => {
    if (xhr.readyState >= 3 && xhr.status === 200) drain();
    if (xhr.readyState !== 4) return;
    const problem = xhr.status >= 400;
    on.end(problem ? { status: xhr.status, why: 'refused with ' + xhr.status } : { why: 'connection lost' });
  };
  xhr.open('GET', address(base, { channel, cursor, transport: 'xhr-streaming' }));
  xhr.send();
  return () => {
    xhr.onreadystatechange = null;
    xhr.abort();
  };
}

const CONTROLS = ['open', 'gap', 'heartbeat', 'skip', 'reconnect', 'error'];

// sse does not leave coming back to the EventSource: it gives up for good in
// more cases than it says, and never tells when it will try.
function sse(base, { channel, cursor }, on) {
  const source = new EventSource(address(base, { channel, cursor, transport: 'sse', format: 'envelope' }));
  const take = (event) => on.frame(JSON.parse(event.data));
  source.onmessage = take;
  for (const control of CONTROLS) source.addEventListener('comet:' + control, take);
  source.onerror = () => {
    source.close();
    on.end({ why: 'connection lost' });
  };
  return () => source.close();
}

function websocket(base, { channel, cursor }, on) {
  const socket = new WebSocket(address(base, { channel, cursor, transport: 'websocket' }).replace(/^http/, 'ws'));
  socket.onmessage = (event) => on.frame(JSON.parse(event.data));
  socket.onclose = (event) => on.end({ why: `closed, ${event.code}` });
  return () => {
    socket.onmessage = socket.onclose = null;
    socket.close();
  };
}

// The order is the page's; `framing` shows one message as it stands on the
// wire, C being its cursor.
export const TRANSPORTS = [
  {
    name: 'long-polling',
    open: longPolling,
    about: 'Answered once there is something to say; then the page asks again.',
    framing: '{"cursor":C,"messages":[{…}]}',
  },
  {
    name: 'jsonp',
    open: jsonp,
    about: 'Long polling by script elements, which cross any origin.',
    framing: '/**/answer7({"cursor":C,…});',
  },
  {
    name: 'iframe',
    open: iframe,
    about: 'The forever frame: a hidden page that never ends.',
    framing: '<script>_({"id":C,…})</script>',
  },
  {
    name: 'multipart',
    open: multipart,
    about: 'Netscape’s server push of 1995: each part replaces the last.',
    framing: '--B ↵ Comet-Id: C ↵ ↵ {"id":C,…}',
  },
  {
    name: 'xhr-streaming',
    open: xhrStreaming,
    about: 'One response, read at readyState 3 while it still arrives.',
    framing: '{"id":C,"channel":…,"data":…} ↵',
  },
  {
    name: 'sse',
    open: sse,
    about: 'EventSource, the stream that browsers were given for this.',
    framing: 'data: {"id":C,…} ↵ id: C ↵ ↵',
  },
  {
    name: 'websocket',
    open: websocket,
    about: 'A request upgraded to a socket, open both ways.',
    framing: '81 7e 00 8c {"id":C,…}',
  },
];
