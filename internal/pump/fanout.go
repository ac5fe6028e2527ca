package pump

import (
	"slices"
	"sort"

	"github.com/halley-comet/halley/engine"
)

// A fanout brings messages of one channel to many connections, a slice of them
// at a time, so that other channels are served in between. It walks the sets
// in passes: each pass brings the messages that were there when it began, all
// in one flush a connection, and those that come meanwhile wait for the next.
//
// A connection that the pass has not reached yet still has to get these
// messages before any later one of another channel: outstanding finds them.
type fanout struct {
	channel string
	sets    []*set            // that want the channel
	ends    []int             // how far each set is walked: who came later has the messages
	msgs    []*engine.Message // of this pass
	next    []*engine.Message // of the next ones
	bytes   int               // of data in next
	at      int               // in sets
	i       int               // in sets[at].members
	// shared holds the pass's items by framing, for the connections that want
	// just these.
	shared [Slots + 1]flushed
}

// flushed are items, and their bytes in one piece.
type flushed struct {
	items []Item
	bytes []byte
}

// What may wait for the next passes of a fan-out, before its worker leaves the
// tail alone until they are done.
const (
	fanoutItems = 1024
	fanoutBytes = 4 << 20
)

func (w *worker) fanoutsFull() bool {
	for _, f := range w.fanouts {
		if len(f.next) >= fanoutItems || f.bytes >= fanoutBytes {
			return true
		}
	}
	return false
}

func (w *worker) fanningOut(channel string) *fanout {
	for _, f := range w.fanouts {
		if f.channel == channel {
			return f
		}
	}
	return nil
}

// fanOut adds a message to its channel's fan-out.
func (w *worker) fanOut(m *engine.Message) {
	f := w.fanningOut(m.Channel)
	if f == nil {
		f = &fanout{channel: m.Channel}
		w.fanouts = append(w.fanouts, f)
	}
	f.next = append(f.next, m)
	f.bytes += len(m.Data)
}

// begin starts a pass with as many of the next messages as make one flush.
func (w *worker) begin(f *fanout) {
	n, size := 0, 0
	for n < len(f.next) && n < flushItems && size < flushBytes {
		size += len(f.next[n].Data)
		n++
	}
	f.msgs = f.next[:n:n]
	f.next = f.next[n:]
	f.bytes -= size
	f.sets = w.index.find(f.sets[:0], f.channel)
	f.ends = f.ends[:0]
	for _, s := range f.sets {
		s.rarely().walkers++
		f.ends = append(f.ends, len(s.members))
	}
	f.at, f.i = 0, 0
	f.shared = [Slots + 1]flushed{}
}

func (w *worker) endPass(f *fanout) {
	for _, s := range f.sets {
		w.index.release(s)
	}
	clear(f.sets)
	f.msgs, f.sets = nil, f.sets[:0]
}

// runFanout walks a slice of one fan-out, in turn, and tells whether there is
// one in progress.
func (w *worker) runFanout() bool {
	if len(w.fanouts) == 0 {
		return false
	}
	w.turn = (w.turn + 1) % len(w.fanouts)
	f := w.fanouts[w.turn]
	if f.msgs == nil {
		w.begin(f)
	}
	for range wideList {
		c, ok := f.walk()
		if !ok {
			w.endPass(f)
			if len(f.next) == 0 {
				w.fanouts = slices.Delete(w.fanouts, w.turn, w.turn+1)
			}
			break
		}
		if c != nil {
			w.handAll(f, c)
		}
	}
	w.flushTouched()
	return true
}

// walk returns the next connection, nil for a hole, until the sets' ends.
func (f *fanout) walk() (*Conn, bool) {
	for f.at < len(f.sets) {
		if f.i < f.ends[f.at] {
			f.i++
			return f.sets[f.at].members[f.i-1], true
		}
		f.at++
		f.i = 0
	}
	return nil, false
}

// endFanouts drops all fan-outs, for connections that read on by themselves.
func (w *worker) endFanouts() {
	for _, f := range w.fanouts {
		w.endPass(f)
	}
	w.fanouts = nil
}

// handAll hands the pass's messages to a connection.
func (w *worker) handAll(f *fanout, c *Conn) {
	first, last := f.msgs[0].ID.Seq, f.msgs[len(f.msgs)-1].ID.Seq
	if c.state != live || c.last >= last {
		return
	}
	w.wanted = w.wantedBy(c, w.wanted[:0], f)
	if c.last < first && oldest(w.wanted, c.last, last) == nil {
		c.last = last
		shared := w.share(f, c)
		w.flush(c, shared.items, shared.bytes)
		return
	}
	for _, m := range f.msgs {
		if m.ID.Seq > c.last {
			w.handBefore(c, m.ID.Seq, w.wanted)
			w.add(c, m, false)
		}
	}
}

// handBefore adds the messages before a sequence that fan-outs are still to
// bring to a connection, which wants them all.
func (w *worker) handBefore(c *Conn, seq uint64, fanouts []*fanout) {
	for m := oldest(fanouts, c.last, seq); m != nil; m = oldest(fanouts, c.last, seq) {
		w.add(c, m, false)
	}
}

// wantedBy appends the fan-outs, but for one, that have something which a live
// connection wants and has not got.
func (w *worker) wantedBy(c *Conn, buf []*fanout, but *fanout) []*fanout {
	for _, f := range w.fanouts {
		if f != but && f.after(c.last) != nil && c.set.wants(f.channel) {
			buf = append(buf, f)
		}
	}
	return buf
}

// share returns the pass's messages in the connection's framing.
func (w *worker) share(f *fanout, c *Conn) *flushed {
	slot := Slots
	if c.kind.Framing != nil {
		slot = c.kind.Framing.Slot()
	}
	shared := &f.shared[slot]
	if shared.items == nil {
		for _, m := range f.msgs {
			it := Item{Message: m, Bytes: c.bytes(m)}
			shared.items = append(shared.items, it)
			if len(f.msgs) == 1 {
				shared.bytes = it.Bytes
			} else {
				shared.bytes = append(shared.bytes, it.Bytes...)
			}
		}
	}
	return shared
}

// outstanding returns the oldest message of a fan-out that a live connection
// is still to get, or nil.
func (w *worker) outstanding(c *Conn) *engine.Message {
	if len(w.fanouts) == 0 {
		return nil
	}
	w.wanted = w.wantedBy(c, w.wanted[:0], nil)
	return oldest(w.wanted, c.last, engine.MaxSeq)
}

// oldest returns the first message that fan-outs bring between two sequences,
// exclusive, or nil.
func oldest(fanouts []*fanout, after, before uint64) *engine.Message {
	var first *engine.Message
	for _, f := range fanouts {
		if m := f.after(after); m != nil && m.ID.Seq < before {
			first, before = m, m.ID.Seq
		}
	}
	return first
}

func (f *fanout) after(seq uint64) *engine.Message {
	for _, list := range [2][]*engine.Message{f.msgs, f.next} {
		if n := len(list); n > 0 && list[n-1].ID.Seq > seq {
			return list[sort.Search(n, func(i int) bool { return list[i].ID.Seq > seq })]
		}
	}
	return nil
}
