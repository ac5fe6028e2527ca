import { ask } from '../ask.js';
import { poll } from './poll.js';
import type { Transport } from './transport.js';

/** Protocol, section 9. */
export const longPolling: Transport = {
  _supported: () => globalThis.fetch,
  // The watchdog of the stream bounds the request.
  _open: (up) => poll(up, (more) => ask(up._url, { ...up, _body: up._form(more) })),
};
