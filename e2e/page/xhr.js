// XMLHttpRequest read while it is in readyState 3.
"use strict";

ways["xhr"] = (stream) => {
	const request = new XMLHttpRequest();
	const feed = lines((line) => stream.receive(JSON.parse(line)));
	let read = 0;
	request.open("GET", stream.url({ transport: "xhr-streaming" }));
	request.onreadystatechange = () => {
		if (request.readyState < 3) return;
		// An error empties the text.
		feed(request.responseText.slice(read));
		read = Math.max(read, request.responseText.length);
	};
	for (const event of ["load", "error", "abort"]) request.addEventListener(event, () => stream.report(event));
	request.send();
	stream.stop = () => request.abort();
};
