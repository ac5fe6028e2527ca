// fetch and the reader of its body: the same lines as xhr.js, and multipart.
"use strict";

// pull feeds what comes on a held response, as bytes, until it is over.
async function pull(stream, transport, format, feed) {
	const controller = new AbortController();
	stream.stop = () => controller.abort();
	try {
		const response = await fetch(stream.url({ transport, format }), { signal: controller.signal });
		if (!response.ok) throw new Error("status " + response.status);
		const reader = response.body.getReader();
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return stream.report("end");
			feed(value);
		}
	} catch (error) {
		stream.report("error");
	}
}

ways["fetch"] = (stream) => {
	const decoder = new TextDecoder();
	const feed = lines((line) => stream.receive(JSON.parse(line)));
	pull(stream, "xhr-streaming", "", (bytes) => feed(decoder.decode(bytes, { stream: true })));
};

// multipart with envelopes: each part says how long it is.
ways["multipart"] = (stream) => {
	// One character a byte, so that lengths and offsets agree.
	const binary = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
	const utf8 = (text) => new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0)));
	let rest = "";
	pull(stream, "multipart", "envelope", (bytes) => {
		rest += binary(bytes);
		for (;;) {
			const head = /^(?:\r\n)?--[^\r\n]+\r\n((?:[^\r\n]+\r\n)+)\r\n/.exec(rest);
			if (!head) return;
			const length = Number(/^Content-Length: *(\d+)\r$/im.exec(head[1])[1]);
			if (rest.length < head[0].length + length) return;
			stream.receive(JSON.parse(utf8(rest.slice(head[0].length, head[0].length + length))));
			rest = rest.slice(head[0].length + length);
		}
	});
};
