package disk

import (
	"container/list"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// maxChannels is how many channels the writer has in memory. It looks up
// others on disk when they get a message.
const maxChannels = 1 << 16

// A channel is what the writer knows of a channel.
type channel struct {
	name string
	keep engine.Retention
	// What it holds is last-first: first counts what was removed since it was
	// last empty, last also what it has.
	first, last count
	next        uint64 // no message of it with a lower sequence is kept
	used        *list.Element
	fresh       entry // in the group that is not stored
	grouped     bool  // it is among the group's channels
}

func (c *channel) count() uint64 { return c.last.messages - c.first.messages }
func (c *channel) bytes() uint64 { return c.last.bytes - c.first.bytes }

func (c *channel) add(size int64) {
	if c.count() == 0 {
		c.first, c.last = count{}, count{}
	}
	c.last.messages++
	c.last.bytes += uint64(size)
}

// over tells whether the channel holds more than its count and bytes allow.
func (c *channel) over() bool {
	n := c.count()
	return c.keep.Count > 0 && n > uint64(c.keep.Count) || c.keep.Bytes > 0 && n > 1 && c.bytes() > uint64(c.keep.Bytes)
}

// channels are those last used.
type channels struct {
	byName map[string]*channel
	used   *list.List // of *channel, the last used first
}

func (c *channels) init() { c.byName, c.used = make(map[string]*channel), list.New() }

// shrink forgets those not used for the longest time, but for what is in no
// list yet. It is called where nothing that they know is still to be committed.
func (c *channels) shrink(most int) {
	for e := c.used.Back(); e != nil && c.used.Len() > most; {
		ch, older := e.Value.(*channel), e
		e = e.Prev()
		if !ch.grouped {
			c.used.Remove(older)
			delete(c.byName, ch.name)
		}
	}
}

// channel returns what is known of a channel.
func (l *Log) channel(name string) (*channel, error) {
	c := &l.writer.channels
	if ch, ok := c.byName[name]; ok {
		c.used.MoveToFront(ch.used)
		return ch, nil
	}
	// The caller's string may be a small part of a large one.
	ch := &channel{name: strings.Clone(name), keep: engine.RetentionFor(name, l.opts.Rules, l.opts.Retention)}
	if err := l.load(ch); err != nil {
		return nil, err
	}
	c.byName[ch.name], ch.used = ch, c.used.PushFront(ch)
	return ch, nil
}

// load reads the two ends of a channel's list.
func (l *Log) load(ch *channel) error {
	prefix := slices.Clip(listPrefix(nil, ch.name, engine.Exact))
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: appendUint64(prefix, 1<<63)})
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	// Removed entries that are not compacted yet lie before the first one.
	trimmed, err := l.get(trimKey(nil, ch.name, engine.Exact))
	if err != nil {
		return err
	}
	if len(trimmed) == 8 {
		ch.next = lastUint64(trimmed) + 1
	}
	var e entry
	for ok := it.SeekGE(appendUint64(prefix, max(ch.next, l.writer.oldest))); ; ok = it.Next() {
		if !ok {
			return damage(it.Error())
		}
		if !e.decode(lastUint64(it.Key()), it.Value(), engine.Exact) {
			return corrupt("entry %d of channel %s: %x", e.last, ch.name, it.Value())
		}
		if i := e.find(ch.next); i < len(e.seqs) {
			ch.next, ch.first = e.seqs[i], e.before(i)
			break
		}
	}
	if !it.Last() || !e.decode(lastUint64(it.Key()), it.Value(), engine.Exact) {
		return corrupt("last entry of channel %s: %v", ch.name, it.Error())
	}
	ch.last = e.cum
	return nil
}
