// The forever frame: a hidden iframe whose scripts run as they come. It is put
// into the page after the page's own load, which would wait for it otherwise.
"use strict";

function frame(stream, parameters) {
	const element = document.createElement("iframe");
	element.hidden = true;
	element.src = stream.url({ transport: "iframe", ...parameters });
	element.onload = () => stream.report("load");
	stream.frame = element;
	stream.stop = () => element.remove();
	document.body.append(element);
}

// Of the same origin: the scripts call a function of this page.
const framed = {};
window.framed = framed;

ways["iframe"] = (stream) => {
	const name = "f" + Stream.requests;
	framed[name] = (envelope) => stream.receive(envelope);
	frame(stream, { callback: "framed." + name });
};

// Of any origin: the scripts post messages to this page.
ways["iframe-post"] = (stream) => {
	addEventListener("message", (event) => {
		if (event.source === stream.frame.contentWindow && event.origin === new URL(stream.base).origin) {
			stream.receive(event.data);
		}
	});
	frame(stream, { origin: location.origin });
};
