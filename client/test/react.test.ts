import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createElement as h, StrictMode } from 'react';
import { renderToString } from 'react-dom/server';
import { connect, type Message, type PublishOptions, type TransportName } from '../src/index.ts';
import { useChannel, useConnection, type ChannelView } from '../src/react.ts';

type Exactly<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const typed = <_T extends true>(): void => {};

interface Said {
  readonly text: string;
}

typed<Exactly<ChannelView<Said>['messages'], readonly Message<Said>[]>>();
typed<Exactly<ChannelView<Said>['transport'], TransportName | undefined>>();
typed<Exactly<ChannelView<Said>['publish'], (data: Said, options?: PublishOptions) => Promise<string>>>();

test('renders on a server, and opens nothing there', (t) => {
  const requests = t.mock.method(globalThis, 'fetch');
  let view: ChannelView<Said> | undefined;
  const Page = (): string => {
    const connection = useConnection('/comet', { token: () => 'a token' });
    assert.equal(connection, undefined);
    view = useChannel<Said>(connection, 'chat', { from: 'earliest' });
    typed<Exactly<ReturnType<typeof useChannel>['messages'], readonly Message<unknown>[]>>();
    // @ts-expect-error A channel's data has its type.
    const wrong = (): Promise<string> => view!.publish({ txt: 'hello' });
    // @ts-expect-error There is no such start.
    const misspelt = (): unknown => useChannel(connection, 'chat', { from: 1 });
    return `${view.state} ${view.messages.length} ${typeof wrong} ${typeof misspelt}`;
  };
  assert.equal(renderToString(h(StrictMode, null, h(Page))), 'connecting 0 function function');
  assert.equal(view!.transport, undefined);
  assert.equal(requests.mock.callCount(), 0);
});

test('publishes nothing without a connection or a channel', async () => {
  const views: ChannelView<number>[] = [];
  const connection = connect('http://127.0.0.1:9/comet');
  const Page = (): null => {
    views.push(useChannel<number>(undefined, 'chat'), useChannel<number>(connection, null));
    return null;
  };
  renderToString(h(Page));
  connection.close();
  for (const view of views) await assert.rejects(view.publish(1), { name: 'HalleyError', code: 'unreachable' });
});

test('throws at a name that is none, where a boundary catches it', () => {
  const connection = connect('http://127.0.0.1:9/comet');
  const Page = (): null => {
    useChannel(connection, 'not a name');
    return null;
  };
  assert.throws(() => renderToString(h(Page)), TypeError);
  connection.close();
});
