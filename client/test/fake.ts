import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { matches } from '../src/parse.ts';

interface Stored {
  id: string;
  channel: string;
  time: number;
  data: unknown;
}

/** What may be wrong with one request: it returns whether it has dealt with it. */
type Fault = (path: string, form: URLSearchParams, request: IncomingMessage, response: ServerResponse) => boolean | void;

/** A server of the protocol with a log of its own, which can be made to fail. */
export class Fake {
  readonly log: Stored[] = [];
  readonly requests: { path: string; form: URLSearchParams; headers: IncomingMessage['headers'] }[] = [];
  epoch = 'e';
  /** In seconds. */
  heartbeat = 0.6;
  fault: Fault = () => {};
  /** What a stream opens with, in place of the cursor it was asked with. */
  opening: (cursor: string) => object[] = (id) => [{ control: 'open', id, heartbeat: this.heartbeat }];
  readonly #streams = new Map<ServerResponse, (stored: Stored) => void>();
  #server: Server | undefined;
  #sequence = 0;

  get url(): string {
    return `http://127.0.0.1:${(this.#server!.address() as AddressInfo).port}/comet`;
  }

  get streams(): number {
    return this.#streams.size;
  }

  async start(port = 0): Promise<this> {
    this.#server = createServer((request, response) => void this.#serve(request, response));
    await new Promise<void>((resolve) => this.#server!.listen(port, '127.0.0.1', resolve));
    return this;
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server!.close(resolve));
    this.#server!.closeAllConnections();
    await closed;
  }

  get end(): string {
    return `${this.epoch}-${this.#sequence}`;
  }

  publish(channel: string, data: unknown): string {
    const stored = { id: `${this.epoch}-${++this.#sequence}`, channel, time: Date.now(), data };
    this.log.push(stored);
    for (const send of this.#streams.values()) send(stored);
    return stored.id;
  }

  /** Cuts every stream. */
  cut(): void {
    for (const response of this.#streams.keys()) response.destroy();
  }

  /** Leaves every stream open, and sends nothing more on it. */
  mute(): void {
    for (const response of this.#streams.keys()) response.emit('close');
  }

  /** Sends an envelope on every stream. */
  send(envelope: object): void {
    for (const response of this.#streams.keys()) response.write(`${JSON.stringify(envelope)}\n`);
  }

  after(cursor: string): Stored[] {
    const [epoch, sequence] = cursor.split('-');
    return epoch === this.epoch ? this.log.filter(({ id }) => Number(id.split('-')[1]) > Number(sequence)) : [...this.log];
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url!, 'http://x');
    const path = pathname.replace('/comet/', '');
    const body = await text(request);
    const form = path === 'subscribe' ? new URLSearchParams([...searchParams, ...new URLSearchParams(body)]) : searchParams;
    this.requests.push({ path, form, headers: request.headers });
    if (this.fault(path, form, request, response)) return;
    const json = (value: unknown): unknown => response.setHeader('Content-Type', 'application/json').end(JSON.stringify(value));
    const cursor = form.get('cursor') ?? this.end;
    const mine = ({ channel }: Stored): boolean => form.getAll('channel').some((name) => matches(name, channel));
    switch (path) {
      case 'ticket':
        response.end(JSON.stringify({ ticket: 'a ticket', expires: 10 }));
        return;
      case 'info':
        return void json({
          protocol: 1,
          transports: ['xhr-streaming', 'sse', 'long-polling'],
          heartbeat: this.heartbeat,
          hosts: [],
          cursor: this.end,
        });
      case 'publish':
        return void json({ id: this.publish(form.get('channel')!, request.headers['content-type'] === 'application/json' ? JSON.parse(body) : body) });
      case 'history': {
        const until = Number(form.get('until')!.split('-')[1]);
        const all = this.after(cursor).filter((stored) => mine(stored) && Number(stored.id.split('-')[1]) <= until);
        const messages = all.slice(0, 3);
        return void json({ cursor: messages.at(-1)?.id ?? form.get('until'), messages, more: all.length > 3 });
      }
    }
    if (form.get('transport') === 'long-polling') {
      const answer = (): void => {
        const messages = this.after(cursor).filter(mine);
        json({ cursor: messages.at(-1)?.id ?? this.end, messages });
      };
      if (form.get('timeout') === '0' || this.after(cursor).some(mine)) return answer();
      const timer = setTimeout(answer, Number(form.get('timeout')) * 1000);
      response.on('close', () => clearTimeout(timer));
      return;
    }
    response.setHeader('Content-Type', 'application/x-ndjson');
    const send = (envelope: object): unknown => response.write(`${JSON.stringify(envelope)}\n`);
    this.opening(cursor).forEach(send);
    const later = (stored: Stored): unknown => mine(stored) && send(stored);
    this.after(cursor).forEach(later);
    this.#streams.set(response, later);
    const beat = setInterval(() => send({ control: 'heartbeat', id: this.end }), this.heartbeat * 1000);
    response.on('close', () => {
      clearInterval(beat);
      this.#streams.delete(response);
    });
  }
}
