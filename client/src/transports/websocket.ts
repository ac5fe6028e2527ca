import type { Transport } from './transport.js';

/** Protocol, section 15. */
export const websocket: Transport = {
  _supported: () => globalThis.WebSocket,
  _open: async (up) => {
    const url = await up._get();
    return new Promise((resolve) => {
      const socket = new WebSocket(url.replace(/^http/, 'ws'));
      socket.onmessage = (event) => up._take(JSON.parse(event.data as string));
      socket.onclose = resolve;
      up._signal.onabort = () => socket.close();
    });
  },
};
