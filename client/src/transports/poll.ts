import type { Envelope, Page } from '../envelope.js';
import type { Upstream } from './transport.js';

/**
 * Makes a stream of polls. The first is answered at once, so that it proves the
 * transport; a gap has no position of its own (protocol 9.1).
 */
export const poll = async (up: Upstream, ask: (more: Record<string, string>) => Promise<Page & Envelope>): Promise<void> => {
  let cursor = up._cursor;
  for (let timeout = 0; !up._signal.aborted; timeout = up._heartbeat) {
    const asked = Date.now();
    const page = await ask({ cursor, timeout: timeout as never });
    if (page.control) return up._take(page);
    if (!timeout) up._take({ control: 'open', id: cursor, heartbeat: up._heartbeat });
    if (page.gap) up._take({ control: 'gap', data: page.messages[0]?.id ?? page.cursor });
    page.messages.forEach(up._take);
    up._take({ control: 'heartbeat', id: (cursor = page.cursor) });
    // A server that is about to stop answers at once (protocol 22.10).
    if (timeout && !page.messages.length && Date.now() - asked < timeout * 500) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
};
