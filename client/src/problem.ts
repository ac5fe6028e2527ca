import { HalleyError, isHalleyError } from './error.js';

/** What a server tells of a problem (protocol 5.2). */
export interface Problem {
  readonly status?: number;
  readonly code?: string;
  readonly title?: string;
  readonly detail?: string;
}

export const problem = ({ title, detail, code, status: told }: Problem, status = told, after?: number): HalleyError =>
  new HalleyError(detail ?? title ?? `status ${status}`, code ?? 'unexpected', status, after);

/**
 * Tells whether the same request would fail again. A refusal without a code of
 * the protocol is not the server's, and may pass; so may `token-expired`, as
 * the next attempt has another.
 */
export const isFinal = (error: unknown): error is HalleyError =>
  isHalleyError(error) && !/^unex|-ex/.test(error.code) && /^4(?!29)/.test(error.status as never);
