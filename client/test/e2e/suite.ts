// What the Go test calls, in Node and in pages, as globalThis.suite.

import { available } from './cases.js';
import { Recorder, type RecorderSettings } from './recorder.js';
import { run, type Result, type Settings } from './runner.js';

const results: Result[] = [];
const recorders = new Map<string, Recorder>();

const suite = {
  available,
  results,
  done: false,

  /** Starts the tests; results and done tell how it goes. */
  start(settings: Settings): void {
    void run(settings, (result) => results.push(result)).then(() => {
      suite.done = true;
    });
  },

  record(settings: RecorderSettings): void {
    recorders.set(settings.name, new Recorder(settings));
  },

  states(): Record<string, object> {
    return Object.fromEntries([...recorders].map(([name, recorder]) => [name, recorder.state]));
  },

  times(name: string): readonly number[] {
    return recorders.get(name)?.times ?? [];
  },

  /** Ends all recorders. */
  stop(): void {
    for (const recorder of recorders.values()) recorder.connection.close();
    recorders.clear();
  },
};

(globalThis as { suite?: typeof suite }).suite = suite;
