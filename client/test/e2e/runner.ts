// A runner of tests that is the same in Node and in a page. What a page or
// Node can't do to the network, the Go test does for it over HTTP (control).

export interface Settings {
  /** Where the protocol is mounted, by the address of the proxy. */
  readonly mount: string;
  /** The same by other names of the host: browsers allow six connections each. */
  readonly mounts: readonly string[];
  /** The Go test's own server. */
  readonly control: string;
  /** How many channels the server allows for a subscription. */
  readonly channels: number;
  /** Run only the tests whose names contain this. */
  readonly only?: string;
}

export interface Result {
  readonly name: string;
  readonly milliseconds: number;
  readonly skipped?: string;
  readonly error?: string;
}

interface Test {
  readonly name: string;
  readonly run: (t: T) => Promise<void>;
}

const tests: Test[] = [];

export function test(name: string, run: (t: T) => Promise<void>): void {
  tests.push({ name, run });
}

class Skip extends Error {}

export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((done) => setTimeout(done, milliseconds));

/** What a test has: the network, channels of its own, and checks. */
export class T {
  readonly settings: Settings;
  /** A channel that no other test uses; more go below it. */
  readonly channel = `t/${Math.random().toString(36).slice(2)}`;
  readonly #cleanups: (() => unknown)[] = [];
  /** What the test notes, told if it fails. */
  readonly notes: string[] = [];

  constructor(settings: Settings) {
    this.settings = settings;
  }

  /** Calls a function after the test, the last one first. */
  after(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup);
  }

  async end(): Promise<void> {
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
  }

  skip(why: string): never {
    throw new Skip(why);
  }

  ok(condition: unknown, what: string): void {
    if (!condition) throw new Error(what);
  }

  equal(got: unknown, want: unknown, what: string): void {
    const [g, w] = [show(got), show(want)];
    if (g !== w) throw new Error(`${what}: got ${cut(g)}, want ${cut(w)}`);
  }

  /** Waits until a condition holds. */
  async until(condition: () => unknown, what: string, limit = 15_000): Promise<void> {
    const end = performance.now() + limit;
    while (!condition()) {
      if (performance.now() > end) throw new Error(`${what}: not after ${limit} ms`);
      await sleep(5);
    }
  }

  /** Fails if a promise isn't settled in time. */
  async within<V>(promise: PromiseLike<V>, what: string, limit = 15_000): Promise<V> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, no) => {
      timer = setTimeout(() => no(new Error(`${what}: not after ${limit} ms`)), limit);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Publishes past the client and the proxy's faults; the message's id. */
  async publish(channel: string, data: unknown, contentType = 'application/json', type = ''): Promise<string> {
    const body = contentType === 'application/json' ? JSON.stringify(data) : (data as string);
    const url = new URL(`${this.settings.control}/publish`);
    url.searchParams.set('channel', channel);
    if (type) url.searchParams.set('type', type);
    const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': contentType }, body });
    const text = await response.text();
    this.ok(response.ok, `publish: ${response.status} ${text}`);
    return (JSON.parse(text) as { id: string }).id;
  }

  /** The end of the log. */
  async cursor(): Promise<string> {
    return (await this.ask<{ cursor: string }>('info')).cursor;
  }

  /** Switches a fault of the proxy on; what it returns, off. */
  async fault(kind: string): Promise<() => Promise<void>> {
    const { id } = await this.ask<{ id: number }>('begin', { kind });
    let over = false;
    const end = async (): Promise<void> => {
      if (over) return;
      over = true;
      await this.ask('end', { id: String(id) });
    };
    this.after(end);
    return end;
  }

  /** Cuts the connections that hold a request whose line has this in it. */
  async cut(part = ''): Promise<void> {
    await this.ask('cut', { part });
  }

  /** Carries nothing more on those connections, and leaves them open. */
  async silence(part = ''): Promise<void> {
    await this.ask('silence', { part });
  }

  /** The lines of the requests that are being answered. */
  async pending(part: string): Promise<string[]> {
    return this.ask('pending', { part });
  }

  /** The heads of the requests there were that have this in them. */
  async requests(part: string): Promise<string[]> {
    return this.ask('requests', { part });
  }

  async ask<V = unknown>(what: string, parameters: Record<string, string> = {}): Promise<V> {
    const response = await fetch(`${this.settings.control}/${what}?${new URLSearchParams(parameters)}`, { method: 'POST' });
    if (!response.ok) throw new Error(`${what}: ${response.status} ${await response.text()}`);
    return (await response.json()) as V;
  }
}

function show(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) => (v instanceof Uint8Array ? { bytes: [...v] } : v)) ?? 'undefined';
}

const cut = (text: string): string => (text.length > 500 ? `${text.slice(0, 500)}…` : text);

/** Runs the tests one after the other. */
export async function run(settings: Settings, report: (result: Result) => void): Promise<void> {
  for (const { name, run } of tests) {
    if (settings.only && !name.includes(settings.only)) continue;
    const t = new T(settings);
    const began = performance.now();
    let outcome: Partial<Result> = {};
    try {
      await t.within(run(t), 'the test', 100_000);
    } catch (error) {
      outcome = error instanceof Skip
        ? { skipped: error.message }
        : { error: [String((error as Error)?.stack ?? error), String(error), ...t.notes.slice(-40)].join('\n') };
    }
    try {
      await t.within(t.end(), 'cleaning up');
    } catch (error) {
      outcome = { error: `${outcome.error ?? ''}\ncleaning up: ${String(error)}` };
    }
    report({ name, milliseconds: Math.round(performance.now() - began), ...outcome });
  }
}
