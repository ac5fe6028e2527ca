// A client that keeps account of numbered messages, for the tests that break
// the network around it or open many tabs.

import { connect, type Connection, type ConnectOptions, type TransportName } from 'halley-client';

export interface RecorderSettings {
  readonly name: string;
  readonly mount: string;
  readonly transports?: readonly TransportName[];
  readonly share?: boolean;
  /** A pattern that brings the messages 0, 1, 2…, or names that take turns in doing so. */
  readonly channels: readonly string[];
  readonly cursor: string;
  /** Whether to keep the time at which each message came. */
  readonly times?: boolean;
  /** So many messages are published one after the other, numbered too. */
  readonly publish?: { readonly channel: string; readonly count: number; readonly pause: number };
  readonly options?: ConnectOptions;
}

export class Recorder {
  readonly connection: Connection;
  /** The number that the next message of each subscription should have. */
  readonly #next: number[];
  received = 0;
  published = 0;
  /** What is wrong, the first few. */
  readonly faults: string[] = [];
  /** Unix milliseconds, one for each message. */
  readonly times: number[] = [];
  /** The last events, with their times. */
  readonly events: string[] = [];
  /** How often each transport was opened. */
  readonly opened: Record<string, number> = {};

  constructor(settings: RecorderSettings) {
    this.connection = connect(settings.mount, {
      cursor: settings.cursor,
      ...(settings.transports && { transports: settings.transports }),
      ...(settings.share !== undefined && { share: settings.share }),
      ...settings.options,
    });
    for (const type of ['connecting', 'open', 'waiting', 'closed', 'gap', 'transport', 'error']) {
      this.connection.addEventListener(type, (event) => this.#note(type, event));
    }
    this.#next = settings.channels.map((_, i) => i);
    for (const [i, name] of settings.channels.entries()) {
      this.connection.channel<{ n: number }>(name).subscribe((message) => {
        const { n } = message.data;
        this.received++;
        if (n !== this.#next[i]) this.#fault(`message ${n} (${message.id}), want ${this.#next[i]}`);
        // After a jump the count goes on from there, so that one fault is
        // told once.
        this.#next[i] = Math.max(this.#next[i]!, n + settings.channels.length);
        if (settings.times) this.times[n] ??= Date.now();
      });
    }
    if (settings.publish) void this.#publish(settings.publish);
  }

  async #publish({ channel, count, pause }: NonNullable<RecorderSettings['publish']>): Promise<void> {
    for (let n = 0; n < count; n++) {
      try {
        await this.connection.publish(channel, { n });
        this.published++;
      } catch (error) {
        this.#fault(`publish ${n}: ${String(error)}`);
      }
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  #note(type: string, event: Event): void {
    const { detail } = event as CustomEvent<object | null>;
    const text = JSON.stringify({ ...(detail instanceof Error && { message: detail.message }), ...detail });
    this.events.push(`${new Date().toISOString().slice(14, 23)} ${type} ${text}`);
    if (this.events.length > 60) this.events.shift();
    if (type === 'open') {
      const name = this.connection.transport ?? 'none';
      this.opened[name] = (this.opened[name] ?? 0) + 1;
    }
    if (type === 'gap' || type === 'closed' || type === 'error') this.#fault(`${type} ${text}`);
  }

  #fault(text: string): void {
    if (this.faults.length < 20) this.faults.push(text);
  }

  get state(): object {
    const { connection, received, published, faults, events, opened } = this;
    const next = Math.min(...this.#next);
    return { next, received, published, faults, events, opened, state: connection.state, transport: connection.transport, cursor: connection.cursor };
  }
}
