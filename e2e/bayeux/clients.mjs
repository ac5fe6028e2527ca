// Clients of other servers, and what they have received. The libraries are
// given: a page and Node load them in different ways.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(condition, what, limit = 15_000) {
	for (const end = Date.now() + limit; !condition(); await sleep(5)) {
		if (Date.now() > end) throw new Error(`never: ${typeof what === "function" ? what() : (what ?? condition)}`);
	}
}

/** The extension that clients of Salesforce have: it asks for what came after the last position that was seen. */
export class Replay {
	#positions = {};

	constructor(positions = {}) {
		this.#positions = positions;
	}

	registered() {}
	unregistered() {}

	incoming(message) {
		if (message.channel === "/meta/handshake" && !message.ext?.replay) throw new Error("the server has no replay");
		const position = message.data?.event?.replayId;
		if (position !== undefined && this.#positions[message.channel] !== undefined) this.#positions[message.channel] = position;
		return message;
	}

	outgoing(message) {
		if (message.channel === "/meta/handshake") message.ext = { ...message.ext, replay: true };
		if (message.channel === "/meta/subscribe") message.ext = { ...message.ext, replay: { ...this.#positions } };
		return message;
	}
}

export function suite({ CometD, Faye, EventSource, extensions }) {
	const promise = (call, ...args) =>
		new Promise((resolve, reject) =>
			call(...args, (reply) => (reply.successful ? resolve(reply) : reject(new Error(JSON.stringify(reply))))),
		);

	/** A CometD client, by one transport and with extensions; options as configure() has them. */
	function cometd(url, { transport, with: names = [], fallback, ...options } = {}) {
		const client = new CometD();
		client.configure({ url, logLevel: "error", useWorkerScheduler: false, connectTimeout: 1000, ...options });
		for (const type of transport && !fallback ? client.getTransportTypes() : []) {
			if (type !== transport) client.unregisterTransport(type);
		}
		for (const name of names) {
			client.registerExtension(typeof name === "string" ? name : "replay", typeof name === "string" ? new extensions[name]() : name);
		}
		const events = [];
		for (const channel of ["/meta/handshake", "/meta/connect", "/meta/disconnect"]) {
			client.addListener(channel, (m) => {
				if (channel !== "/meta/connect" || !m.successful) events.push(`${channel} ${m.successful} ${m.error ?? m.failure?.reason ?? ""}`);
			});
		}
		return {
			client,
			events,
			open: () => promise((done) => client.handshake(done)),
			/** The same for a client whose first handshake may fail. */
			opens: () =>
				new Promise((resolve) => {
					const listener = client.addListener("/meta/handshake", (m) => {
						if (!m.successful) return;
						client.removeListener(listener);
						resolve(m);
					});
					client.handshake();
				}),
			subscribe: (channel, listener) => {
				let subscription;
				return promise((done) => (subscription = client.subscribe(channel, listener, done))).then(() => subscription);
			},
			unsubscribe: (subscription) => promise((done) => client.unsubscribe(subscription, done)),
			publish: (channel, data) => promise((done) => client.publish(channel, data, done)),
			close: () => new Promise((done) => client.disconnect(() => done())),
			get transport() {
				return client.getTransport()?.type;
			},
		};
	}

	const fayeTransports = ["websocket", "eventsource", "long-polling", "cross-origin-long-polling", "callback-polling"];

	/** A Faye client, by one transport: it takes the first that works, and needs the last ones for its handshake. */
	function faye(url, { transport, extension, ...options } = {}) {
		const client = new Faye.Client(url, options);
		for (const type of transport ? fayeTransports.slice(0, fayeTransports.indexOf(transport)) : []) client.disable(type);
		const events = [];
		client.on("transport:down", () => events.push("down"));
		client.on("transport:up", () => events.push("up"));
		if (extension) client.addExtension(extension);
		return {
			client,
			events,
			subscribe: async (channel, listener) => {
				const subscription = client.subscribe(channel, listener);
				await subscription;
				return () => subscription.cancel(); // it is a promise itself
			},
			unsubscribe: (cancel) => cancel(),
			publish: async (channel, data) => client.publish(channel, data),
			close: async () => {
				await client.disconnect();
			},
			get transport() {
				return client._dispatcher._transport?.connectionType;
			},
		};
	}

	/** Keeps account of data {n}: the numbers from 0 each once and in order, or what is wrong with them. */
	function recorder() {
		const state = { next: 0, received: 0, doubled: 0, missing: 0, faults: [] };
		const seen = new Set();
		return {
			state,
			take({ n }) {
				state.received++;
				if (seen.has(n)) {
					state.doubled++;
					if (state.faults.length < 20) state.faults.push(`${n} again, before ${state.next}`);
					return;
				}
				seen.add(n);
				if (n !== state.next) {
					if (state.faults.length < 20) state.faults.push(`${n} in place of ${state.next}`);
				}
				state.next = Math.max(state.next, n + 1);
				state.missing = state.next - seen.size;
			},
		};
	}

	return { CometD, Faye, EventSource, extensions, Replay, cometd, faye, recorder, sleep, until, kept: {} };
}
