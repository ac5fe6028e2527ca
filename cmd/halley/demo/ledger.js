// The ledger: which message came over which transport, and when.
//
// Every lane starts from the same cursor and is given the same channel, so all
// must receive the same messages in the same order. The first lane to bring a
// message extends the ledger; what another lane then jumps over is lost, and
// what it brings again is doubled. No cursor is compared but for equality.

const KEPT = 20000;

export class Ledger {
  entries = [];
  dropped = 0; // entries forgotten at the front
  lanes = new Map();
  onchange = () => {};
  #index = new Map(); // id → position, counted from the page's start
  #sent = new Map(); // id → when this page published it, by performance.now()
  #publishing = 0;
  #unmeasured = [];

  lane(name, onlatency) {
    const lane = { name, bit: 1 << this.lanes.size, position: -1, loose: false, received: 0, lost: 0, doubled: 0, onlatency };
    this.lanes.set(name, lane);
    return lane;
  }

  get end() {
    return this.dropped + this.entries.length;
  }

  // receive books a message and tells whether it came late: it was there before
  // the lane's connection was open. Such a message is shown as caught up where
  // the lane was `resumed`, and its latency is not the transport's.
  receive(lane, envelope, openedAt, resumed) {
    const at = performance.now();
    const wall = Date.now();
    let position = this.#index.get(envelope.id);
    let entry = this.entries[position - this.dropped];
    if (!entry) {
      entry = { id: envelope.id, first: at, seen: 0, late: 0, twice: 0 };
      position = this.end;
      this.#index.set(envelope.id, position);
      this.entries.push(entry);
      if (this.entries.length > KEPT) this.#forget();
    }
    if (lane.loose) {
      lane.loose = false;
    } else if (position <= lane.position) {
      lane.doubled++;
      entry.twice |= lane.bit;
    } else {
      lane.lost += position - lane.position - 1;
    }
    lane.position = Math.max(lane.position, position);
    lane.received++;
    const sent = this.#sent.get(envelope.id);
    const late = Math.min(entry.first, sent ?? at) < openedAt || at - openedAt < 150;
    entry.seen |= lane.bit;
    if (late && resumed) entry.late |= lane.bit;
    if (!late) this.#measure({ lane, id: envelope.id, at, byClock: wall - envelope.time });
    this.onchange();
    return late;
  }

  // gap notes that the server said messages may be missing: the lane's next
  // message may stand anywhere.
  gap(lane) {
    lane.loose = true;
    lane.position = -1;
  }

  // Latency is measured by one clock where this page published the message
  // itself. The message often overtakes the answer to its publish, so while
  // one is under way the arrivals wait for it.
  publishing() {
    this.#publishing++;
  }

  published(ids, at) {
    for (const id of ids) this.#sent.set(id, at);
    while (this.#sent.size > 500) this.#sent.delete(this.#sent.keys().next().value);
    this.#publishing--;
    const waiting = this.#unmeasured;
    this.#unmeasured = [];
    for (const arrival of waiting) this.#measure(arrival);
  }

  #measure(arrival) {
    const sent = this.#sent.get(arrival.id);
    if (sent === undefined && this.#publishing > 0) {
      this.#unmeasured.push(arrival);
    } else if (sent !== undefined) {
      arrival.lane.onlatency(arrival.at - sent, arrival.id, true);
    } else if (Math.abs(arrival.byClock) < 60000) {
      arrival.lane.onlatency(Math.max(0, arrival.byClock), arrival.id, false);
    }
  }

  #forget() {
    const old = this.entries.splice(0, KEPT / 2);
    this.dropped += old.length;
    for (const entry of old) this.#index.delete(entry.id);
  }
}
