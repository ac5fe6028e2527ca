// WebSocket, with the channel in its URL or subscribed to by a frame.
"use strict";

function socket(stream, parameters, opened) {
	const ws = new WebSocket(stream.url({ transport: "websocket", ...parameters }).replace(/^http/, "ws"));
	ws.onopen = () => opened(ws);
	ws.onmessage = (event) => stream.receive(JSON.parse(event.data));
	ws.onerror = () => stream.report("error");
	ws.onclose = (event) => stream.report("close " + event.code);
	stream.stop = () => ws.close();
	stream.send = (frame) => ws.send(JSON.stringify(frame));
}

ways["websocket"] = (stream) => socket(stream, {}, () => {});

ways["websocket-frames"] = (stream) =>
	socket(stream, { channel: "" }, () => stream.send({ subscribe: [stream.channel], ref: "first" }));
