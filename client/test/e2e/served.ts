// What the server serves as client.js, which pages have loaded before.

import type * as client from '../../src/index.js';

export const { connect, isHalleyError } = (globalThis as unknown as { Halley: typeof client }).Halley;
