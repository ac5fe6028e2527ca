/**
 * Returns a controller that is aborted with any of the signals.
 * (AbortSignal.any is younger than much that this runs in.) It is to be aborted
 * in the end, so that the signals forget it.
 */
export const within = (...signals: readonly (AbortSignal | undefined)[]): AbortController => {
  const abort = new AbortController();
  for (const outer of signals) {
    if (outer?.aborted) abort.abort(outer.reason);
    outer?.addEventListener('abort', () => abort.abort(outer.reason), { signal: abort.signal });
  }
  return abort;
};
