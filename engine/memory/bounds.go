package memory

import (
	"time"

	"github.com/halley-comet/halley/engine"
)

// storeLocked puts a message into the log and applies its channel's bounds.
func (l *Log) storeLocked(m *engine.Message) {
	ch := l.channelLocked(m.Channel)
	if ch.idle {
		l.idle.remove(ch)
	}
	m.Channel = ch.name
	if l.tail.full() {
		l.used -= l.tail.evict()
	}
	l.tail.push(m)
	for _, li := range ch.lists {
		li.push(m)
	}
	ch.bytes += size(m)
	l.used += messageCost(m, len(ch.lists))
	if ch.keep.Count > 0 && ch.own.live > ch.keep.Count {
		l.dropLocked(ch, ch.own.first())
	}
	for ch.keep.Bytes > 0 && ch.bytes > ch.keep.Bytes && ch.own.live > 1 {
		l.dropLocked(ch, ch.own.first())
	}
}

// dropLocked removes a message of the channel. Where the tail still holds it,
// its memory is in use until the tail lets go of it.
func (l *Log) dropLocked(ch *channel, m *engine.Message) {
	for _, li := range ch.lists {
		li.remove(m.ID.Seq)
	}
	ch.bytes -= size(m)
	if ch.own.live == 0 {
		l.idle.add(ch)
	}
	cost := messageCost(m, len(ch.lists))
	if !l.tail.holds(m.ID.Seq) {
		l.used -= cost
		return
	}
	l.tail.at(m.ID.Seq).removed = cost
	l.tail.removed += cost
	for l.opts.Limit > 0 && l.tail.removed > l.opts.Limit/8 {
		l.used -= l.tail.evict()
	}
}

// dropOldestLocked removes the oldest message, from the tail too.
func (l *Log) dropOldestLocked() {
	m := l.all.first()
	for l.tail.holds(m.ID.Seq) {
		l.used -= l.tail.evict()
	}
	ch, _ := l.channels.get(m.Channel)
	l.dropLocked(ch, m)
}

// shrinkLocked brings the log under its limit. It touches no message from
// first on: they are of a batch that fits into an empty log.
func (l *Log) shrinkLocked(first uint64) {
	for l.opts.Limit > 0 && l.used > l.opts.Limit {
		switch {
		case l.idle.first != nil:
			l.forgetLocked(l.idle.first)
		case l.all.live > 0 && l.all.first().ID.Seq < first:
			l.dropOldestLocked()
		case l.tail.removed > 0:
			l.used -= l.tail.evict()
		case l.keys.len() > 0:
			l.dropKeyLocked()
		default:
			return
		}
	}
}

// rememberLocked remembers a batch's key, within the bounds on keys.
func (l *Log) rememberLocked(b *engine.Batch, first uint64) {
	l.keys.add(b, first, l.time)
	l.used += keyCost(b.Key)
	for l.keys.len() > maxKeys || l.opts.Limit > 0 && l.keys.cost > l.opts.Limit/4 {
		l.dropKeyLocked()
	}
}

func (l *Log) dropKeyLocked() {
	l.used -= keyCost(l.keys.oldest().key)
	l.keys.dropOldest()
}

// expireAll removes everything that has expired at the time now, some at a
// time, so that others get the lock meanwhile.
func (l *Log) expireAll(now int64) {
	for now >= l.due.Load() {
		l.mu.Lock()
		l.expireLocked(now, 1000)
		l.scheduleLocked()
		l.mu.Unlock()
	}
}

// expireLocked removes what has expired, at most n messages and n keys.
func (l *Log) expireLocked(now int64, n int) {
	for _, q := range l.ages {
		for left := n; left > 0 && q.due() <= now; left-- {
			m := q.first()
			ch, _ := l.channels.get(m.Channel)
			l.dropLocked(ch, m)
		}
	}
	for left := n; left > 0 && l.keys.due(l.window) <= now; left-- {
		l.dropKeyLocked()
	}
	for left := n; left > 0 && l.tail.due() <= now; left-- {
		l.used -= l.tail.evict()
	}
}

// scheduleLocked makes due right, and sets the timer to it, after anything
// that expires was added or removed.
func (l *Log) scheduleLocked() {
	due := min(l.keys.due(l.window), l.tail.due())
	for _, q := range l.ages {
		due = min(due, q.due())
	}
	if due != l.due.Load() {
		l.due.Store(due)
		l.setTimerLocked()
	}
}

func (l *Log) setTimerLocked() {
	switch due := l.due.Load(); {
	case l.closed:
	case due == never:
		if l.timer.Stop() {
			l.wg.Done()
		}
	case !l.timer.Reset(time.Until(time.UnixMilli(due))):
		l.wg.Add(1)
	}
}

// sweep is what the timer runs. It may find nothing due: wall clocks are set,
// and timers do not follow them.
func (l *Log) sweep() {
	defer l.wg.Done()
	l.expireAll(time.Now().UnixMilli())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setTimerLocked()
}

// due returns when the first of the queue expires.
func (q *ageQueue) due() int64 {
	if m := q.first(); m != nil {
		return m.Time + q.age
	}
	return never
}

func (k *keys) due(window int64) int64 {
	if r := k.oldest(); r != nil {
		return r.time + window
	}
	return never
}

func (t *tail) due() int64 {
	if t.removed > 0 {
		return t.at(t.first).msg.Time + tailAge
	}
	return never
}

// milliseconds rounds up.
func milliseconds(d time.Duration) int64 {
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}
