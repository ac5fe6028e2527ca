/** Only where a page can have frames, and an origin to post to. */
export const canFrame = (): unknown => globalThis.document && location.origin !== 'null';

/**
 * Puts a hidden frame into the page until the signal is aborted. Before the
 * page's own load event it would delay that, and keep the throbber turning. The
 * frame's load event is the end of what it loads.
 */
export const frame = (properties: Partial<HTMLIFrameElement>, signal: AbortSignal): HTMLIFrameElement => {
  const element = Object.assign(document.createElement('iframe'), { hidden: true }, properties);
  const insert = (): void => {
    if (!signal.aborted) document.body.append(element);
  };
  if (document.readyState === 'complete') insert();
  else addEventListener('load', () => setTimeout(insert), { signal });
  signal.addEventListener('abort', () => element.remove());
  return element;
};
