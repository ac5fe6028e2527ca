import { lines } from '../parse.js';
import type { Transport } from './transport.js';

/** The text is kept as long as the request, and slow to get when it is long (protocol 22.12). */
const LIMIT = 1_000_000;

/** Protocol, section 13, by readyState 3. */
export const xhr: Transport = {
  _wire: 'xhr-streaming',
  _supported: () => globalThis.XMLHttpRequest,
  _open: (up) =>
    new Promise((resolve) => {
      const request = new XMLHttpRequest();
      const feed = lines(up._take);
      let read = 0;
      request.open('POST', up._url);
      if (up._token) request.setRequestHeader('Authorization', `Bearer ${up._token}`);
      request.onreadystatechange = () => {
        // Of a refusal the feed learns by itself.
        if (request.status !== 200) return;
        const text = request.responseText;
        feed(text.slice(read));
        read = text.length;
        if (read > LIMIT) up._renew();
      };
      request.onloadend = resolve;
      up._signal.onabort = () => request.abort();
      request.send(up._form());
    }),
};
