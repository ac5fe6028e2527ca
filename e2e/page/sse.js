// EventSource, with envelopes and raw. It comes back by itself after a cut.
"use strict";

const controls = ["open", "gap", "heartbeat", "skip", "reconnect", "error"];

function eventSource(stream, format, types, read) {
	const source = new EventSource(stream.url({ transport: "sse", format }));
	for (const type of types) source.addEventListener(type, (event) => stream.receive(read(event)));
	for (const control of controls) {
		source.addEventListener("comet:" + control, (event) => stream.receive(JSON.parse(event.data)));
	}
	source.onopen = () => stream.report("open");
	source.onerror = () => stream.report("error " + source.readyState);
	stream.stop = () => source.close();
}

ways["sse"] = (stream) => eventSource(stream, "envelope", ["message"], (event) => JSON.parse(event.data));

// Raw events carry no channel and no time, and are told apart by their types.
ways["sse-raw"] = (stream) =>
	eventSource(stream, "raw", ["message", ...stream.types], (event) => ({
		id: event.lastEventId,
		...(event.type !== "message" && { type: event.type }),
		data: event.data,
	}));
