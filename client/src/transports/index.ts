import type { TransportName } from '../types.js';
import { fetchStream } from './fetch.js';
import { iframe } from './iframe.js';
import { jsonp } from './jsonp.js';
import { longPolling } from './long-polling.js';
import { sse } from './sse.js';
import type { Transport } from './transport.js';
import { websocket } from './websocket.js';
import { xhr } from './xhr.js';

/** All transports, in order of preference. */
export const transports: Readonly<Record<TransportName, Transport>> = {
  websocket,
  fetch: fetchStream,
  xhr,
  sse,
  iframe,
  'long-polling': longPolling,
  jsonp,
};
