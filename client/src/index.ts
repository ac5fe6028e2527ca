export { connect } from './client.js';
export { HalleyError, isHalleyError } from './error.js';
export type {
  Backoff,
  Channel,
  Connection,
  ConnectionEventMap,
  ConnectionState,
  ConnectOptions,
  Message,
  PublishOptions,
  SubscribeOptions,
  Subscription,
  TransportName,
} from './types.js';
