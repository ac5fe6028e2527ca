package disk

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

const (
	tailLen     = 1 << 16
	tailMessage = 384 // what a message takes in memory beside its data
	tailList    = 96  // and for each list but two
)

// A tail is the newest messages of the log without a hole, those among them
// that retention has removed included. Its messages are linked from the newest
// to the oldest of each list, so that a reader comes by no other's.
type tail struct {
	mu       sync.RWMutex
	slots    []held // a ring: sequence s is at s & (len(slots)-1)
	first    uint64 // the oldest held
	next     uint64 // the one after the newest; first if none is held
	bytes    int64
	channels map[string][]*chain // of each, as in chainsOf
	patterns map[pattern]*chain
	links    []uint64 // to be used, many at a time
	// All up to it are in their lists on disk. It holds all that follow.
	listed uint64
	// Those of them that retention is removing, sorted: they are on the disk, or
	// none of them is any more.
	leaving []uint64
	// partial is set where it is for these alone, and may have holes. A hole is
	// a removed message in no list.
	partial bool
	// damage is of the first of these that could not be read. It and what follows
	// it are not held.
	damage error
}

type held struct {
	msg     *engine.Message
	removed bool
	chains  []*chain // of the lists that it is in
	before  []uint64 // the message before it in each of them
}

// A chain is what the tail has of a list, but for that of all.
type chain struct {
	pattern
	newest uint64
	held   int // messages; with none, the tail does not have it
}

// A pattern is what engine.SplitPattern returns: it names a list.
type pattern struct {
	prefix string
	kind   engine.PatternKind
}

// chainsOf returns those of a channel's lists: its own, that of the pattern for
// it and its like, and those for all below, from the longest to the shortest.
func (t *tail) chainsOf(channel string) []*chain {
	chains, ok := t.channels[channel]
	if ok {
		return chains
	}
	channel = strings.Clone(channel) // it may be a small part of something large
	chains = append(make([]*chain, 0, 2+strings.Count(channel, "/")), &chain{pattern: pattern{channel, engine.Exact}})
	for prefix, kind := range engine.Patterns(channel) {
		if prefix == "" && kind == engine.Below {
			break
		}
		p := pattern{prefix, kind}
		c, ok := t.patterns[p]
		if !ok {
			c = &chain{pattern: p}
			t.patterns[p] = c
		}
		chains = append(chains, c)
	}
	t.channels[channel] = chains
	return chains
}

// place returns where a list is among those of a message that is in it.
func (h *held) place(p pattern) int {
	switch p.kind {
	case engine.Exact:
		return 0
	case engine.One:
		return 1
	}
	return 2 + strings.Count(h.msg.Channel[len(p.prefix)+1:], "/")
}

func (t *tail) at(seq uint64) *held { return &t.slots[seq&uint64(len(t.slots)-1)] }

func tailCost(m *engine.Message) int64 {
	return tailMessage + size(m) + int64(len(m.Channel)) + tailList*int64(strings.Count(m.Channel, "/"))
}

// begin empties the tail. The next message has the sequence.
func (t *tail) begin(next uint64) {
	t.first, t.next, t.bytes, t.slots, t.links = next, next, 0, make([]held, 16), nil
	t.channels, t.patterns = make(map[string][]*chain), make(map[pattern]*chain)
}

// push adds the next message and lets go of the oldest over the bounds.
func (t *tail) push(m *engine.Message, limit int64) {
	if n := t.next - t.first; n == uint64(len(t.slots)) {
		if n == tailLen {
			t.evict()
		} else {
			t.grow()
		}
	}
	h := t.at(m.ID.Seq)
	*h = held{msg: m, chains: t.chainsOf(m.Channel)}
	n := len(h.chains)
	if len(t.links) < n {
		t.links = make([]uint64, max(n, 512))
	}
	h.before, t.links = t.links[:n:n], t.links[n:]
	for i, c := range h.chains {
		h.before[i], c.newest = c.newest, m.ID.Seq
		c.held++
	}
	t.next++
	t.bytes += tailCost(m)
	for t.bytes > limit && t.next-t.first > 1 && t.first <= t.listed {
		t.evict()
	}
}

func (t *tail) grow() {
	slots := make([]held, 2*len(t.slots))
	for s := t.first; s < t.next; s++ {
		slots[s&uint64(len(slots)-1)] = *t.at(s)
	}
	t.slots = slots
}

func (t *tail) evict() {
	h := t.at(t.first)
	t.bytes -= tailCost(h.msg)
	for i, c := range h.chains {
		if c.held--; c.held > 0 {
			continue
		}
		if i == 0 {
			delete(t.channels, c.prefix)
		} else {
			delete(t.patterns, c.pattern)
		}
	}
	*h = held{}
	t.first++
}

// leave notes what retention is about to remove from the disk.
func (t *tail) leave(seqs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range seqs {
		if seq > t.listed {
			t.leaving = append(t.leaving, seq)
		}
	}
	slices.Sort(t.leaving)
}

// remove marks messages that retention has removed.
func (t *tail) remove(seqs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaving = nil // a reader may have it
	for _, seq := range seqs {
		if t.first <= seq && seq < t.next {
			t.at(seq).removed = true
		}
	}
}

func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(1)
}

// from tells whether the tail has all that follows the position. It is called
// with mu held, and the position is not beyond End, which is end.
func (t *tail) from(seq, end uint64) bool {
	return seq+1 >= t.first && !t.partial || seq == end
}

// publish makes stored messages visible, with which all up to listed are in
// their lists, and the log ends at end.
func (l *Log) publish(messages []stored, listed, end uint64) {
	t := &l.tail
	t.mu.Lock()
	t.listed = listed
	for _, m := range messages {
		if m.ID.Seq != t.next {
			t.begin(m.ID.Seq)
		}
		t.push(m.Message, l.opts.TailBytes)
	}
	if end != t.next-1 {
		t.begin(end + 1)
	}
	l.end.Store(end)
	t.mu.Unlock()
	l.bell.Ring()
}

// Tail implements engine.Engine. The log holds its newest 65,536 messages, fewer
// where they would take more than Options.TailBytes. After opening it goes as
// far back as retention has made no hole.
func (l *Log) Tail(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
	if after.Epoch != l.epoch {
		return buf, false
	}
	t := &l.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	end := l.end.Load()
	if after.Seq > end || !t.from(after.Seq, end) || l.isClosed() {
		return buf, false
	}
	for seq := after.Seq + 1; seq <= end && len(buf) < cap(buf); seq++ {
		buf = append(buf, t.at(seq).msg)
	}
	return buf, true
}

// loadTail reads the newest messages into the tail, all that it may hold: after
// a restart the clients come back, and most of them have missed just these.
func (l *Log) loadTail() error {
	end := l.writer.state.end
	l.end.Store(end)
	it, err := l.db.NewIter(nil)
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	var newest []*engine.Message
	seq := end
	var bytes int64
	for ok := it.SeekLT(messageKey(nil, end+1)); ok && len(newest) < tailLen; ok = it.Prev() {
		if k := it.Key(); k[0] != messageKeys || lastUint64(k) != seq {
			break
		}
		m, _, err := decodeRecord(it.Value(), seq)
		if err != nil {
			return err
		}
		m.ID.Epoch = l.epoch
		if bytes += tailCost(m); bytes > l.opts.TailBytes {
			break
		}
		newest = append(newest, m)
		seq--
	}
	l.tail.begin(seq + 1)
	l.tail.listed = end // see listRest
	for i := len(newest) - 1; i >= 0; i-- {
		l.tail.push(newest[i], l.opts.TailBytes)
	}
	return damage(it.Error())
}

// loadUnlisted reads what is in no list yet into the tail of a log that is only
// read. Nobody follows that, and it may be open for what damage has left.
func (l *Log) loadUnlisted() error {
	t, s := &l.tail, &l.writer.state
	l.end.Store(s.end)
	t.begin(s.listed + 1)
	t.listed, t.partial = s.listed, true
	err := l.unlisted(func(m *engine.Message) error {
		for t.next < m.ID.Seq {
			t.push(&engine.Message{ID: l.cursor(t.next)}, l.opts.TailBytes)
			t.at(t.next - 1).removed = true
		}
		t.push(m, l.opts.TailBytes)
		return nil
	})
	if errors.Is(err, ErrCorrupt) {
		t.damage, err = err, nil
	}
	return err
}

// unlisted goes through the messages that are in no list yet.
func (l *Log) unlisted(do func(*engine.Message) error) error {
	s := &l.writer.state
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: messageKey(nil, s.listed+1), UpperBound: messageKey(nil, s.end+1)})
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		m, _, err := decodeRecord(it.Value(), lastUint64(it.Key()))
		if err != nil {
			return err
		}
		m.ID.Epoch = l.epoch
		if err := do(m); err != nil {
			return err
		}
	}
	return damage(it.Error())
}
