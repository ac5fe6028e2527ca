/** A request that the server refused, or that did not get through to it. */
export class HalleyError extends Error {
  override readonly name = 'HalleyError';
  /**
   * A code of the protocol (5.3), or one of the client's own: `unreachable` if
   * there was no answer, `unexpected` if it was not the server's (a proxy's,
   * say), `token` if none was to be had, and `unsupported` if no transport is.
   */
  declare readonly code: string;
  /** The HTTP status, or 0 if there was no answer. */
  declare readonly status: number;
  /** How long to wait before the next attempt at least, in milliseconds. @internal */
  declare readonly _after: number;

  constructor(message: string, code: string, status = 0, _after?: number) {
    super(message);
    Object.assign(this, { code, status, _after });
  }
}

/** Tells whether a value is a `HalleyError`, also one of another frame. */
export const isHalleyError = (value: unknown): value is HalleyError =>
  (value as HalleyError | undefined)?.name === 'HalleyError';
