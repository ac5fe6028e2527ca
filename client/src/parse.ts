import type { Envelope } from './envelope.js';
import type { Message } from './types.js';

/**
 * Returns a function that is fed a text in pieces and calls `use` with the value
 * of each line, once it is complete. Empty lines are nothing (protocol 13.2).
 */
export const lines = (use: (value: any) => void): ((piece: string) => void) => {
  let rest = '';
  return (piece) => {
    const whole = (rest + piece).split('\n');
    rest = whole.pop()!;
    for (const line of whole) if (line) use(JSON.parse(line));
  };
};

/** A name with wildcards as its last segment at most (protocol, section 2). */
const NAME = /^(?!(meta|service)\/|(.*\/)?\.\.?(\/|$))(([\w.~!$()@:+,=%-]+|\*\*?$)(\/(?!$)|$))+$/;

export const isName = (name: string): boolean => name.length < 256 && NAME.test(name);

/** Tells whether a name or pattern matches a channel (protocol 2.5). */
export const matches = (name: string, channel: string): boolean => {
  const [prefix, ...stars] = name.split('*');
  return stars.length
    ? channel.startsWith(prefix!) && (stars.length > 1 || !channel.slice(prefix!.length).includes('/'))
    : name === channel;
};

/** What the application gets of an envelope: bytes come as base64 (protocol 6.2). */
export const toMessage = <T>({ data64, ...envelope }: Envelope): Message<T> =>
  ({ ...envelope, ...(data64 != null && { data: Uint8Array.from(atob(data64), (c) => c.charCodeAt(0)) }) }) as Message<T>;
