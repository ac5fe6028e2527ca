// Node as if it were a page: a line of standard input has the body of an async
// function, and a line of standard output what it gave.

import { createInterface } from 'node:readline';

import './suite.js';

const AsyncFunction = (async () => {}).constructor as new (body: string) => () => Promise<unknown>;

for await (const line of createInterface({ input: process.stdin })) {
  const { id, body } = JSON.parse(line) as { id: number; body: string };
  void new AsyncFunction(body)().then(
    (value) => ({ id, value }),
    (error: unknown) => ({ id, error: String((error as Error)?.stack ?? error) }),
  ).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
}
process.exit();
