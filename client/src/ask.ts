import { HalleyError, isHalleyError } from './error.js';
import { problem, type Problem } from './problem.js';
import { within } from './signal.js';

export interface Asking {
  /** Makes it a POST. */
  readonly _body?: BodyInit;
  /** In addition to the token's. */
  readonly _headers?: Record<string, string>;
  readonly _token: string | undefined;
  readonly _signal: AbortSignal;
  /** In milliseconds. @default no bound */
  readonly _timeout?: number;
}

/** Sends a request and reads its answer. Every failure is a HalleyError, but for the signal's own. */
export const ask = async <T>(
  url: string,
  { _body, _headers, _token, _signal, _timeout }: Asking,
  read = (response: Response): Promise<T> => response.json(),
): Promise<T> => {
  const abort = within(_signal, (_timeout && AbortSignal.timeout(_timeout)) as AbortSignal | undefined);
  try {
    const response = await fetch(url, {
      method: _body == null ? 'GET' : 'POST',
      headers: { ..._headers, ...(_token && { Authorization: `Bearer ${_token}` }) },
      body: _body!,
      signal: abort.signal,
      cache: 'no-store',
    });
    if (response.ok) return await read(response);
    throw problem(
      (await response.json().catch(() => ({}))) as Problem,
      response.status,
      // In seconds; dates are as good as nothing.
      +response.headers.get('Retry-After')! * 1000 || 0,
    );
  } catch (error) {
    throw _signal.aborted || isHalleyError(error) ? error : new HalleyError(`${error}`, 'unreachable');
  } finally {
    abort.abort();
  }
};
