import { ask } from '../ask.js';
import { lines } from '../parse.js';
import type { Transport } from './transport.js';

/** Protocol, section 13, by the reader of a response's body. */
export const fetchStream: Transport = {
  _wire: 'xhr-streaming',
  _supported: () => 'body' in Response.prototype,
  _open: (up) =>
    ask(up._url, { ...up, _body: up._form() }, async (response) => {
      const feed = lines(up._take);
      const decoder = new TextDecoder();
      const reader = response.body!.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        feed(decoder.decode(value, { stream: true }));
      }
    }),
};
