import type { Envelope, Page } from '../envelope.js';
import { within } from '../signal.js';
import { canFrame, frame } from './frame.js';
import { poll } from './poll.js';
import type { Transport } from './transport.js';

const callbacks = globalThis as Record<string, unknown>;
let count = 0;

/**
 * Protocol, section 10. Each script is in a frame of its own, since removing a
 * frame ends its requests and removing a script does not.
 */
export const jsonp: Transport = {
  _supported: canFrame,
  _open: (up) =>
    poll(up, async (more) => {
      const name = `halley${++count}`;
      const abort = within(up._signal);
      // A form leaves nothing in it that HTML would take for a reference.
      const source = await up._get({ ...more, callback: `parent.${name}` });
      try {
        return await new Promise<Page & Envelope>((resolve, reject) => {
          abort.signal.onabort = reject;
          // The frame's objects have the frame's prototypes.
          callbacks[name] = (answer: Page & Envelope) => resolve(structuredClone(answer));
          // Loaded, and not called: the script was not the server's.
          frame({ srcdoc: `<script src="${source}"></script>`, onload: reject }, abort.signal);
        });
      } finally {
        abort.abort();
        delete callbacks[name];
      }
    }),
};
