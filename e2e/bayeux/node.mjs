// Evaluates what it is sent, a JSON object a line, for the tests in Go.
import { Console } from "node:console";
import { createInterface } from "node:readline";
import { adapt } from "cometd-nodejs-client";
import { EventSource } from "eventsource";
import Faye from "faye";
import { suite } from "./clients.mjs";

// Standard output is for answers.
globalThis.console = new Console(process.stderr);
adapt();
const { CometD } = await import("cometd");
const { AckExtension } = await import("cometd/AckExtension.js");
const { BinaryExtension } = await import("cometd/BinaryExtension.js");
const { TimeStampExtension } = await import("cometd/TimeStampExtension.js");
const { TimeSyncExtension } = await import("cometd/TimeSyncExtension.js");

const given = suite({
	CometD,
	Faye,
	EventSource,
	extensions: { ack: AckExtension, binary: BinaryExtension, timestamp: TimeStampExtension, timesync: TimeSyncExtension },
});
const AsyncFunction = (async () => {}).constructor;
process.on("unhandledRejection", (reason) => console.error("unhandled:", reason));

for await (const line of createInterface({ input: process.stdin })) {
	const { id, body } = JSON.parse(line);
	const answer = (value) => process.stdout.write(JSON.stringify({ id, ...value }) + "\n");
	new AsyncFunction("suite", body)(given).then(
		(value) => answer({ value: value ?? null }),
		(error) => answer({ error: String(error?.stack ?? error) }),
	);
}
process.exit(0);
