package memory

import (
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
)

// A channel is the record of a channel that has messages, or had some whose
// removal is remembered.
type channel struct {
	name  string
	own   list
	lists []*list // each list that its messages are in; the first is own
	keep  engine.Retention
	bytes int64 // sum of its messages' sizes

	idle       bool     // whether it is in the log's queue of channels without messages
	prev, next *channel // in that queue
}

// A group is the list of a pattern of kind One or Below.
type group struct {
	list
	refs int // channel records under the pattern
}

// A pattern is what engine.SplitPattern returns.
type pattern struct {
	prefix string
	kind   engine.PatternKind
}

// An ageQueue lists the messages of all channels that keep theirs for one
// certain time. As the log's time never goes back, they expire in order.
type ageQueue struct {
	list
	age int64 // milliseconds
}

// channelLocked returns the record of a channel, a new one if there is none.
func (l *Log) channelLocked(name string) *channel {
	if ch, ok := l.channels.get(name); ok {
		return ch
	}
	// The caller's string may be a small part of a large one.
	ch := &channel{name: strings.Clone(name)}
	ch.keep = engine.RetentionFor(name, l.opts.Rules, l.opts.Retention)
	ch.own.trimmed = l.floor
	ch.lists = make([]*list, 0, l.listsOf(name, ch.keep))
	ch.lists = append(ch.lists, &ch.own)
	for prefix, kind := range engine.Patterns(ch.name) {
		p := pattern{prefix, kind}
		g, ok := l.groups.get(p)
		if !ok {
			g = new(group)
			g.trimmed = l.floor
			l.groups.put(p, g)
			l.used += groupCost(p)
		}
		g.refs++
		ch.lists = append(ch.lists, &g.list)
	}
	if ch.keep.Age > 0 {
		ch.lists = append(ch.lists, l.ageQueue(ch.keep.Age))
	}
	l.channels.put(ch.name, ch)
	l.used += channelCost(ch.name, len(ch.lists))
	return ch
}

// listsOf returns the number of lists that a channel's messages are in.
func (l *Log) listsOf(name string, keep engine.Retention) int {
	n := 1 + strings.Count(name, "/") + 2
	if keep.Age > 0 {
		n++
	}
	return n
}

// ageQueue returns the queue for an age, which is rounded up to milliseconds.
// There are as many as there are ages in Options.
func (l *Log) ageQueue(age time.Duration) *list {
	ms := milliseconds(age)
	for _, q := range l.ages {
		if q.age == ms {
			return &q.list
		}
	}
	q := &ageQueue{age: ms}
	l.ages = append(l.ages, q)
	return &q.list
}

// find returns the list of a channel or pattern, nil if there is none.
func (l *Log) find(s string) *list {
	prefix, kind := engine.SplitPattern(s)
	if kind == engine.Exact {
		if ch, ok := l.channels.get(s); ok {
			return &ch.own
		}
	} else if g, ok := l.groups.get(pattern{prefix, kind}); ok {
		return &g.list
	}
	return nil
}

// forgetLocked forgets a channel without messages. What it knew of its missing
// messages goes into the floor, for itself and for each group that goes with
// it: a group's highest removed position is that of one of its channels.
func (l *Log) forgetLocked(ch *channel) {
	l.idle.remove(ch)
	l.floor = max(l.floor, ch.own.trimmed)
	for prefix, kind := range engine.Patterns(ch.name) {
		p := pattern{prefix, kind}
		g, _ := l.groups.get(p)
		if g.refs--; g.refs == 0 {
			l.groups.delete(p)
			l.used -= groupCost(p)
		}
	}
	l.channels.delete(ch.name)
	l.used -= channelCost(ch.name, len(ch.lists))
}

// An idleQueue is the channels without messages, in the order in which they
// lost the last one.
type idleQueue struct{ first, last *channel }

func (q *idleQueue) add(ch *channel) {
	ch.idle, ch.prev = true, q.last
	if q.last != nil {
		q.last.next = ch
	} else {
		q.first = ch
	}
	q.last = ch
}

func (q *idleQueue) remove(ch *channel) {
	if ch.prev != nil {
		ch.prev.next = ch.next
	} else {
		q.first = ch.next
	}
	if ch.next != nil {
		ch.next.prev = ch.prev
	} else {
		q.last = ch.prev
	}
	ch.idle, ch.prev, ch.next = false, nil, nil
}
