// A page of React as one would write it, with the client in strict mode. The
// end-to-end tests drive it by `window.page`.
import { Activity, StrictMode, useState, type ReactNode } from 'react';
import { hydrateRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import type { Connection, SubscribeOptions } from '../../src/index.ts';
import { useChannel, useConnection, type ChannelView } from '../../src/react.ts';

interface Settings {
  readonly name: string | null;
  readonly from?: SubscribeOptions['from'] | undefined;
  readonly keep?: number | undefined;
  readonly shown: boolean;
  readonly hidden?: boolean;
}

const mount = new URLSearchParams(location.search).get('mount')!;
const errors: string[] = [];
let renders = 0;
let change: (settings: Partial<Settings>) => void;
let view: ChannelView<number>;
let connection: Connection | undefined;

const sockets: WebSocket[] = [];
window.WebSocket = class extends WebSocket {
  constructor(...all: ConstructorParameters<typeof WebSocket>) {
    super(...all);
    sockets.push(this);
  }
};

const requests: string[] = [];
const { fetch } = window;
window.fetch = (...all) => fetch(...all).finally(() => requests.push(String(all[0])));

function Messages({ name, from, keep }: Settings): ReactNode {
  view = useChannel<number>(connection, name, { from, keep });
  renders++;
  return (
    <>
      <p role="status">
        {view.state} {view.transport}
      </p>
      <ol>
        {view.messages.map(({ id, channel, data }) => (
          <li key={id}>
            {channel}:{data}
          </li>
        ))}
      </ol>
    </>
  );
}

function Page(): ReactNode {
  const [settings, set] = useState<Settings>({ name: 'first', from: 'earliest', shown: true });
  change = (some) => set((settings) => ({ ...settings, ...some }));
  // Connections of a page that share would be one, and hide what is left open.
  connection = useConnection(mount, { share: false });
  return settings.shown ? (
    <Activity mode={settings.hidden ? 'hidden' : 'visible'}>
      <Messages {...settings} />
    </Activity>
  ) : <p role="status">gone</p>;
}

const page = (
  <StrictMode>
    <Page />
  </StrictMode>
);
const element = document.getElementById('root')!;
element.innerHTML = renderToString(page);
const rendered = element.innerHTML;
const root: Root = hydrateRoot(element, page, {
  onRecoverableError: (error) => errors.push(String(error)),
  onUncaughtError: (error) => errors.push(String(error)),
});
for (const level of ['error', 'warn'] as const) console[level] = (...all) => errors.push(all.join(' '));

Object.assign(window, {
  page: {
    rendered,
    errors,
    change: (some: Partial<Settings>) => change(some),
    publish: (data: number) => view.publish(data),
    /** Publishes to the channel in one go. */
    publishAll: (all: number[]) =>
      fetch(`${mount}/publish?channel=second`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/x-ndjson' },
        body: all.map((data) => `${JSON.stringify({ data })}\n`).join(''),
      }).then(({ ok }) => ok),
    unmount: () => root.unmount(),
    list: () => [...document.querySelectorAll('li')].map((item) => item.textContent),
    status: () => document.querySelector('[role=status]')?.textContent,
    /** The channels of each stream that is open. */
    streams: () =>
      sockets
        .filter(({ readyState }) => readyState < WebSocket.CLOSING)
        .map(({ url }) => new URL(url).searchParams.getAll('channel').join('+')),
    /** The requests that have been answered. */
    requests: () => requests.map((url) => new URL(url).pathname),
    state: () => connection?.state,
    renders: () => renders,
    until: async (condition: () => boolean) => {
      for (const end = performance.now() + 15_000; !condition(); ) {
        if (performance.now() > end) {
          throw new Error(`never ${condition}: ${document.body.innerText}; ${errors}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  },
});
