import './client.js';

export const { connect, HalleyError, isHalleyError } = globalThis.Halley;
