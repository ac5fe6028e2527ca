import type { Transport } from './transport.js';

/** Protocol, section 14. Coming back is not left to the browser: they differ, and some give up. */
export const sse: Transport = {
  _supported: () => globalThis.EventSource,
  _open: async (up) => {
    const url = await up._get({ format: 'envelope' });
    return new Promise((resolve) => {
      const source = new EventSource(url);
      for (const control of ['open', 'gap', 'heartbeat', 'skip', 'reconnect', 'error', '']) {
        source.addEventListener(control ? `comet:${control}` : 'message', (event) =>
          up._take(JSON.parse((event as MessageEvent<string>).data)),
        );
      }
      up._signal.onabort = () => source.close();
      source.onerror = resolve;
    });
  },
};
