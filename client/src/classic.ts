// The script for pages without a build step: it defines the global `Halley`,
// and does so as a module too.
import { connect, HalleyError, isHalleyError } from './index.js';

Object.assign(globalThis, { Halley: { connect, HalleyError, isHalleyError } });
