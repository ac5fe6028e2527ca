import type { Envelope } from '../envelope.js';
import { canFrame, frame } from './frame.js';
import type { Transport } from './transport.js';

/** A frame grows with each message, though its scripts are removed. */
const LIMIT = 2000;

/** The forever frame: protocol, section 11. */
export const iframe: Transport = {
  _supported: canFrame,
  _open: async (up) => {
    const src = await up._get({ origin: location.origin });
    return new Promise((resolve) => {
      const element = frame({ src, onload: resolve }, up._signal);
      let count = 0;
      addEventListener(
        'message',
        (event: MessageEvent<Envelope>) => {
          if (event.source !== element.contentWindow || event.origin !== new URL(up._url).origin) return;
          up._take(event.data);
          if (++count > LIMIT) up._renew();
        },
        { signal: up._signal },
      );
    });
  },
};
