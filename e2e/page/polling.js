// Requests that are answered once and asked again: long polling by GET and by
// a form's POST, and JSONP.
"use strict";

function take(stream, answer) {
	for (const envelope of answer.messages) stream.receive(envelope);
	stream.cursor = answer.cursor;
	stream.heard = performance.now();
}

async function poll(stream, ask) {
	const controller = new AbortController();
	stream.stop = () => controller.abort();
	try {
		while (!stream.closed) {
			const response = await ask(controller.signal);
			if (!response.ok) throw new Error("status " + response.status);
			take(stream, await response.json());
		}
	} catch (error) {
		stream.report("error");
	}
}

ways["long-polling"] = (stream) =>
	poll(stream, (signal) => fetch(stream.url({ transport: "long-polling" }), { signal }));

ways["long-polling-post"] = (stream) =>
	poll(stream, (signal) =>
		fetch(stream.base + "/subscribe", {
			method: "POST",
			body: stream.query({ transport: "long-polling" }),
			signal,
		}),
	);

// A script can't be called off: its callback stays behind and does nothing.
const callbacks = [];

ways["jsonp"] = (stream) => {
	const ask = () => {
		const script = document.createElement("script");
		let answered = false;
		const number = callbacks.push((answer) => {
			answered = true;
			if (stream.closed) return;
			if ("control" in answer) return stream.receive(answer);
			take(stream, answer);
			ask();
		});
		window["jsonp" + number] = callbacks[number - 1];
		script.src = stream.url({ transport: "jsonp", callback: "jsonp" + number });
		script.onerror = () => stream.report("error");
		script.onload = () => {
			script.remove();
			if (!answered) stream.report("load without callback");
		};
		document.body.append(script);
	};
	ask();
};
