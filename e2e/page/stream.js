// What a page makes of one subscription, the same for every way to hold it.
// The other files add the ways to `ways`, by name: functions that are given the
// stream, open it, call receive and report, and set stream.stop.
"use strict";

const ways = {};

class Stream {
	// base is the mount's URL; channel, cursor and types are optional.
	constructor({ base, channel = "news", cursor = "", types = [] }) {
		Object.assign(this, { base, channel, cursor, types });
		this.messages = []; // envelopes, as they came
		this.controls = []; // control envelopes
		this.events = []; // what the browser said of the connection
		this.requests = 0;
		this.heard = performance.now(); // when something came last
		this.closed = false; // by the page itself
		this.stop = () => {};
		this.waiting = new Set();
	}

	// url is for a GET, which is never the same twice: browsers let requests of
	// one URL wait for each other.
	url(parameters) {
		return this.base + "/subscribe?" + this.query({ ...parameters, _: Stream.requests++ });
	}

	// query leaves out what is empty.
	query(parameters) {
		this.requests++;
		const all = { channel: this.channel, cursor: this.cursor, ...parameters };
		return new URLSearchParams(Object.entries(all).filter(([, value]) => value !== ""));
	}

	receive(envelope) {
		if (this.closed) return;
		this.heard = performance.now();
		if (envelope.id) this.cursor = envelope.id;
		("control" in envelope ? this.controls : this.messages).push(envelope);
		this.wake();
	}

	report(event) {
		if (this.closed) return;
		this.events.push(event);
		this.wake();
	}

	wake() {
		for (const look of this.waiting) look();
	}

	// until waits for a condition on the stream, which is looked at whenever
	// something happens and, for the sake of time, every 20 ms.
	until(condition) {
		return new Promise((resolve) => {
			const look = () => {
				if (!condition(this)) return;
				clearInterval(timer);
				this.waiting.delete(look);
				resolve();
			};
			const timer = setInterval(look, 20);
			this.waiting.add(look);
			look();
		});
	}

	// has tells whether a control of that name came.
	has(control) {
		return this.controls.some((c) => c.control === control);
	}

	// dead is the watchdog: two intervals without a sound.
	dead() {
		const interval = this.controls.find((c) => c.control === "open").heartbeat;
		return performance.now() - this.heard > 2000 * interval;
	}

	close() {
		this.closed = true;
		this.stop();
	}
}
Stream.requests = 0;

// lines calls use with every whole line of the text that is fed to it.
function lines(use) {
	let rest = "";
	return (text) => {
		const whole = (rest + text).split("\n");
		rest = whole.pop();
		whole.filter((line) => line !== "").forEach(use);
	};
}

// streams are those that the test has opened, by the names it gave them.
const streams = {};

function open(name, way, options) {
	const stream = new Stream(options);
	streams[name] = stream;
	ways[way](stream);
	return stream;
}
