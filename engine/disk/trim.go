package disk

import (
	"bytes"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

const (
	// trimStep is how many messages a step of retention removes at least, if
	// there are so many. It takes some milliseconds of the writer's time.
	trimStep = 512
	// trimDelay is how long a channel may hold more than its rule says. What is
	// removed together shares its records.
	trimDelay = 50 * time.Millisecond
)

// due returns when there is something to remove, in Unix milliseconds, as of
// now.
func (l *Log) due(now int64) int64 {
	w := &l.writer
	if l.overLimit() || l.manyKeys() || w.sweep.from != nil || w.forget.busy(&w.state, l.opts.maxTrims) {
		return 0
	}
	t := due(w.keys.next, milliseconds(l.opts.KeyWindow))
	if !w.trimAt.IsZero() {
		t = min(t, now+milliseconds(max(time.Until(w.trimAt), 0)))
	}
	for _, q := range w.ages {
		t = min(t, due(q.next, q.age))
	}
	return t
}

// due adds, without going over what there is.
func due(time, after int64) int64 {
	if time > never-after {
		return never
	}
	return time + after
}

// manyKeys tells whether idempotency keys take too much of the limit. Then the
// oldest go before their time.
func (l *Log) manyKeys() bool {
	return l.opts.Limit > 0 && l.writer.state.keys > uint64(max(l.opts.Limit/4/keyCost, minKeys))
}

// overLimit never lets the newest message go.
func (l *Log) overLimit() bool {
	w := &l.writer
	return l.opts.Limit > 0 && w.bytes > l.opts.Limit && w.messages > 1
}

func (l *Log) markFull(channel string) {
	w := &l.writer
	w.full[channel] = struct{}{}
	if w.trimAt.IsZero() {
		w.trimAt = time.Now().Add(l.opts.delay)
	}
}

// loadFull finds the channels that were over their bounds when the log was last
// open.
func (l *Log) loadFull() error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{fullKeys}, UpperBound: []byte{fullKeys + 1}})
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		l.markFull(string(it.Key()[1:]))
	}
	return damage(it.Error())
}

// A trimming is one step of retention: a batch that removes messages and keys.
type trimming struct {
	log  *Log
	b    *pebble.Batch
	it   *pebble.Iterator // of what is on disk before the step
	list *pebble.Iterator // the same, standing on first
	find *pebble.Iterator // the same, for entries
	read *pebble.Iterator // the same, for messages
	left int              // messages that the step may still remove
	more int              // keys, and entries of queues

	at    *channel
	first entry // of at, with its first message
	i     int   // where that is

	removed []uint64
	entries map[string]*change // by key
	near    map[string]*change // by list prefix, the one found last
	trims   map[string]uint64  // by trim record, what it must tell at least

	enqueued []enqueued
}

// A change is an entry from which messages were taken.
type change struct {
	kind  engine.PatternKind
	first uint64 // that it had on the disk
	entry
}

// trim removes what retention says at the time now, up to a step. It does not
// sync: what a crash brings back is removed again.
func (l *Log) trim(now int64) error {
	l.writer.channels.shrink(l.opts.channels)
	t := &trimming{log: l, left: trimStep, entries: make(map[string]*change), near: make(map[string]*change), trims: make(map[string]uint64)}
	t.left = max(t.left, 2*l.writer.stored)
	t.more = 2 * t.left
	var err error
	if t.it, err = l.db.NewIter(nil); err != nil {
		return damage(err)
	}
	defer t.it.Close()
	for _, it := range []**pebble.Iterator{&t.list, &t.find, &t.read} {
		if *it, err = t.it.Clone(pebble.CloneOptions{}); err != nil {
			return damage(err)
		}
		defer (*it).Close()
	}
	t.b = l.db.NewBatch()
	for _, step := range []func(*trimming, int64) error{
		(*trimming).findOldest, (*trimming).sweep, (*trimming).expireKeys, (*trimming).trimOld, (*trimming).trimFull, (*trimming).trimLimit,
		(*trimming).forget, (*trimming).tellQueues, (*trimming).record,
	} {
		if err := step(t, now); err != nil {
			t.b.Close()
			return err
		}
	}
	l.tail.leave(t.removed)
	if err := l.commit(t.b, pebble.NoSync); err != nil {
		return err
	}
	l.kept.set(&l.writer.state)
	l.tail.remove(t.removed)
	return nil
}

// findOldest brings the state's oldest up to date, so that nobody walks over
// what was removed and is not compacted yet.
func (t *trimming) findOldest(int64) error {
	w := &t.log.writer
	if t.it.SeekGE(messageKey(nil, w.oldest)) && t.it.Key()[0] == messageKeys {
		w.oldest = lastUint64(t.it.Key())
	} else {
		w.oldest = w.end + 1
	}
	// All before it is gone, one by one. As a range, Pebble can drop whole
	// tables of it without reading them.
	if w.unclaimed >= claimBytes {
		t.b.DeleteRange(messageKey(nil, 0), messageKey(nil, w.oldest), nil)
		w.unclaimed = 0
	}
	return damage(t.it.Error())
}

// claimBytes is how much is removed, message by message, between two ranges.
const claimBytes = 1 << 20

// trimFull removes what channels hold over their count and bytes.
func (t *trimming) trimFull(int64) error {
	w := &t.log.writer
	if w.trimAt.IsZero() || time.Until(w.trimAt) > 0 {
		return nil
	}
	for name := range w.full {
		ch, err := t.log.channel(name)
		if err != nil {
			return err
		}
		for ch.over() && t.left > 0 {
			if err := t.removeFirst(ch); err != nil {
				return err
			}
		}
		if ch.over() {
			return nil // the rest is for the next step
		}
		t.b.Delete(fullKey(nil, name), nil)
		delete(w.full, name)
	}
	w.trimAt = time.Time{}
	return nil
}

// trimLimit removes the oldest messages of all while they take too much.
func (t *trimming) trimLimit(int64) error {
	w := &t.log.writer
	if !t.log.overLimit() {
		return nil
	}
	ok := t.it.SeekGE(messageKey(nil, w.oldest))
	for ; ok && t.it.Key()[0] == messageKeys && t.left > 0 && t.log.overLimit(); ok = t.it.Next() {
		seq := lastUint64(t.it.Key())
		m, _, err := decodeRecord(t.it.Value(), seq)
		if err != nil {
			return err
		}
		ch, err := t.log.channel(m.Channel)
		if err != nil {
			return err
		}
		if done, err := t.removeThrough(ch, seq); err != nil || !done {
			return err
		}
	}
	return damage(t.it.Error())
}

// removeThrough removes a channel's messages up to a sequence. It reports
// whether all of them are.
func (t *trimming) removeThrough(ch *channel, seq uint64) (bool, error) {
	for ch.count() > 0 && ch.next <= seq {
		if t.left <= 0 {
			return false, nil
		}
		if err := t.removeFirst(ch); err != nil {
			return false, err
		}
	}
	return true, nil
}

// removeFirst removes a channel's oldest message.
func (t *trimming) removeFirst(ch *channel) error {
	w := &t.log.writer
	if t.at != ch {
		t.at = nil
		prefix := listPrefix(nil, ch.name, engine.Exact)
		if err := t.findFirst(ch, prefix, t.list.SeekGE(appendUint64(prefix, ch.next))); err != nil {
			return err
		}
		t.at = ch
	}
	seq, size := t.first.seqs[t.i], t.first.sizes[t.i]
	m, rec, err := t.log.messageAt(t.read, seq)
	if err != nil {
		return err
	}
	if m == nil || m.Channel != ch.name {
		return corrupt("message %d of channel %s is missing", seq, ch.name)
	}

	t.b.Delete(messageKey(nil, seq), nil)
	if err := t.unlist(ch, pattern{ch.name, engine.Exact}, seq); err != nil {
		return err
	}
	for prefix, kind := range engine.Patterns(ch.name) {
		if err := t.unlist(ch, pattern{prefix, kind}, seq); err != nil {
			return err
		}
	}
	if rec.age > 0 {
		t.b.Delete(ageKey(nil, rec.age, seq), nil)
	}
	w.messages--
	w.bytes -= cost(m.Channel, rec.len)
	w.unclaimed += cost(m.Channel, rec.len)
	ch.first.messages++
	ch.first.bytes += size
	ch.next = seq + 1
	t.removed = append(t.removed, seq)
	// One of a deep channel is in many lists.
	t.left -= 1 + strings.Count(ch.name, "/")/8
	if t.i++; ch.count() == 0 {
		t.at = nil
	} else if t.i < len(t.first.seqs) {
		ch.next = t.first.seqs[t.i]
	} else {
		return t.findFirst(ch, listPrefix(nil, ch.name, engine.Exact), t.list.Next())
	}
	return nil
}

// findFirst finds the first message of a channel that is kept, from where the
// list iterator is, if there it is ok.
func (t *trimming) findFirst(ch *channel, prefix []byte, ok bool) error {
	for ; ok && len(t.list.Key()) == len(prefix)+8 && bytes.HasPrefix(t.list.Key(), prefix); ok = t.list.Next() {
		if !t.first.decode(lastUint64(t.list.Key()), t.list.Value(), engine.Exact) {
			return corrupt("entry %d of channel %s: %x", t.first.last, ch.name, t.list.Value())
		}
		if t.i = t.first.find(ch.next); t.i < len(t.first.seqs) {
			ch.next = t.first.seqs[t.i]
			return nil
		}
	}
	if err := t.list.Error(); err != nil {
		return damage(err)
	}
	t.first.seqs, t.first.sizes = append(t.first.seqs[:0], ch.fresh.seqs...), append(t.first.sizes[:0], ch.fresh.sizes...)
	if t.i = t.first.find(ch.next); t.i == len(t.first.seqs) {
		return corrupt("channel %s: an entry from %d on is missing", ch.name, ch.next)
	}
	ch.next = t.first.seqs[t.i]
	return nil
}

// unlist takes a message of a channel out of a list.
func (t *trimming) unlist(ch *channel, p pattern, seq uint64) error {
	t.note(p.prefix, p.kind, seq)
	if p.prefix == "" && p.kind == engine.Below {
		return nil
	}
	w := &t.log.writer
	if seq > w.listed {
		if !w.group.remove(ch, p, seq) {
			return corrupt("the group has no message %d of %s", seq, p.prefix)
		}
		return nil
	}
	w.key = listPrefix(w.key[:0], p.prefix, p.kind)
	c, err := t.change(p.kind, seq)
	if err != nil {
		return err
	}
	if !c.remove(seq) {
		return corrupt("entry %x %d has no message %d", w.key, c.last, seq)
	}
	return nil
}

// change returns the entry that has a sequence, of the list whose prefix is the
// writer's key.
func (t *trimming) change(kind engine.PatternKind, seq uint64) (*change, error) {
	prefix := t.log.writer.key
	if c := t.near[string(prefix)]; c != nil && c.first <= seq && seq <= c.last {
		return c, nil
	}
	ok := t.find.SeekGE(appendUint64(prefix, seq))
	if !ok || len(t.find.Key()) != len(prefix)+8 || !bytes.HasPrefix(t.find.Key(), prefix) {
		return nil, orDamage(t.find, "list %x has no message %d", prefix, seq)
	}
	c, ok := t.entries[string(t.find.Key())]
	if !ok {
		c = &change{kind: kind}
		if !c.decode(lastUint64(t.find.Key()), t.find.Value(), kind) {
			return nil, corrupt("entry %x: %x", t.find.Key(), t.find.Value())
		}
		c.first = c.seqs[0]
		t.entries[string(t.find.Key())] = c
	}
	t.near[string(prefix)] = c
	return c, nil
}

// note remembers that a list has had a message removed.
func (t *trimming) note(name string, kind engine.PatternKind, seq uint64) {
	k := string(trimKey(nil, name, kind))
	t.trims[k] = max(t.trims[k], seq)
}

// record writes the entries, the trim records and the state.
func (t *trimming) record(int64) error {
	for k, c := range t.entries {
		if len(c.seqs) == 0 {
			t.b.Delete([]byte(k), nil)
		} else {
			t.b.Set([]byte(k), c.appendValue(nil, c.kind), nil)
		}
	}
	for k, seq := range t.trims {
		old, err := t.log.get([]byte(k))
		switch {
		case err != nil:
			return err
		case old == nil:
			t.log.writer.trims++
		case len(old) != 8:
			return corrupt("trim record %q: %x", k, old)
		}
		if old == nil || lastUint64(old) < seq {
			t.b.Set([]byte(k), appendUint64(nil, seq), nil)
		}
	}
	t.b.Set(stateKey, t.log.writer.state.append(nil), nil)
	return nil
}
