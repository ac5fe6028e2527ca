import type { Problem } from './problem.js';

/** A message or a control, as the server sends them (protocol, sections 6 and 7). */
export interface Envelope extends Problem {
  readonly id?: string;
  readonly control?: string;
  readonly heartbeat?: number;
  readonly delay?: number;
  readonly channel?: string;
  readonly type?: string;
  readonly time?: number;
  readonly data?: unknown;
  readonly data64?: string;
  readonly contentType?: string;
}

/** A page of messages, as polls and history answer it (protocol 9.1 and 17.1). */
export interface Page {
  readonly cursor: string;
  readonly gap?: boolean;
  readonly messages: readonly Envelope[];
  readonly more?: boolean;
}
