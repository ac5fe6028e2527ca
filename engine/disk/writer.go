package disk

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A writer is what the goroutine that writes works with. What it holds runs
// ahead of the disk only while a batch is made and committed; should that fail,
// the log stops and it is used no more.
type writer struct {
	state
	channels channels
	ages     []*ageQueue
	keys     expiry
	full     map[string]struct{} // channels that hold more than they may
	trimAt   int64               // Unix ms of the next step for what is full
	forget   forgetting
	gathered int // requests in the last batch
	stored   int // messages in the last batch
	key      []byte
}

// initWriter reads what the writer has to know from the beginning, which does
// not grow with what is stored.
func (l *Log) initWriter() error {
	w := &l.writer
	w.channels.init()
	w.full = make(map[string]struct{})
	w.trimAt = never
	if err := l.loadAges(); err != nil {
		return err
	}
	if err := l.loadKeyExpiry(); err != nil {
		return err
	}
	if err := l.loadFull(); err != nil {
		return err
	}
	l.kept.set(&w.state)
	return nil
}

// write is the writer's goroutine.
func (l *Log) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var requests []*request
	for {
		closed := l.isClosed() // and with it, before it, the queue
		if requests = l.queue.take(requests[:0]); len(requests) > 0 {
			if l.opts.Fsync == Group {
				requests = l.gather(requests, timer)
			}
			l.writer.gathered = len(requests)
			l.store(requests)
			clear(requests)
		} else if closed {
			return
		}
		now := time.Now().UnixMilli()
		due := l.due()
		if now >= due && l.fault.get() == nil {
			if err := l.trim(now); err != nil {
				l.fault.set(err)
			}
			due = l.due()
		}
		if len(requests) > 0 {
			continue // There may be others already.
		}
		if l.fault.get() != nil {
			due = never
		}
		// Wall clocks are set, and timers do not follow them.
		timer.Reset(time.Duration(min(max(due-now, 0), 60_000)) * time.Millisecond)
		select {
		case <-l.queue.wake:
		case <-timer.C:
		case <-l.done:
		}
	}
}

// gather waits a little for other publishers, while there are fewer than the
// last time: who was answered then is likely to publish again. So a publisher
// that is alone does not wait.
func (l *Log) gather(requests []*request, timer *time.Timer) []*request {
	if len(requests) >= l.writer.gathered {
		return requests
	}
	timer.Reset(l.opts.GroupWait)
	for len(requests) < l.writer.gathered {
		select {
		case <-l.queue.wake:
			requests = l.queue.take(requests)
		case <-timer.C:
			return l.queue.take(requests)
		case <-l.done:
			return requests
		}
	}
	return requests
}

// store commits the requests in one batch, makes their messages visible and
// answers.
func (l *Log) store(requests []*request) {
	w := &l.writer
	w.channels.shrink(l.opts.channels)
	answers := make([]answer, len(requests))
	var messages []*engine.Message
	fail := func(err error) {
		for _, r := range requests {
			r.answer <- answer{err: err}
		}
	}
	if l.fault.get() != nil {
		fail(l.unavailable())
		return
	}
	w.stored = 0
	b := l.db.NewBatchWithSize(batchSize(requests))
	now := time.Now().UnixMilli()
	fresh := make(map[string]storedKey) // keys of this batch
	for i, r := range requests {
		if r.key != "" {
			k, ok, err := l.findKey(r.key, fresh)
			switch {
			case err != nil:
				l.fault.set(err)
				b.Close()
				fail(l.unavailable())
				return
			case !ok || now >= k.time+milliseconds(l.opts.KeyWindow):
			case k.digest != r.digest:
				answers[i].err = fmt.Errorf("disk: %w", engine.ErrKeyReused)
				continue
			default:
				answers[i].receipt = engine.Receipt{First: l.cursor(k.first), Count: int(k.count), Time: k.time, Repeated: true}
				continue
			}
		}
		w.time = max(w.time, now)
		first := w.end + 1
		for j, m := range r.messages {
			w.end++
			m.ID, m.Time = l.cursor(w.end), w.time
			if err := l.put(b, m, r.bodies[j]); err != nil {
				l.fault.set(err)
				b.Close()
				fail(l.unavailable())
				return
			}
		}
		if r.key != "" {
			k := storedKey{r.digest, first, uint32(len(r.messages)), w.time}
			fresh[r.key] = k
			l.putKey(b, r.key, k)
		}
		messages = append(messages, r.messages...)
		w.stored += len(r.messages)
		answers[i].receipt = engine.Receipt{First: l.cursor(first), Count: len(r.messages), Time: w.time}
	}
	if len(messages) == 0 {
		b.Close()
	} else {
		b.Set(stateKey, w.state.append(nil), nil)
		if err := l.commit(b, pebble.Sync); err != nil {
			fail(l.unavailable())
			return
		}
		l.kept.set(&w.state)
		l.publish(messages)
	}
	for i, r := range requests {
		r.answer <- answers[i]
	}
}

func batchSize(requests []*request) int {
	n := int64(1 << 10)
	for _, r := range requests {
		n += r.cost
	}
	return int(n)
}

// put writes a message and its entries in lists.
func (l *Log) put(b *pebble.Batch, m *engine.Message, enc body) error {
	w := &l.writer
	ch, err := l.channel(m.Channel)
	if err != nil {
		return err
	}
	age := milliseconds(ch.keep.Age)
	op := b.SetDeferred(9, enc.recordLen())
	messageKey(op.Key[:0], m.ID.Seq)
	enc.put(op.Value, age, m)
	if err := op.Finish(); err != nil {
		return err
	}
	ch.add(size(m))
	w.key = appendUint64(listPrefix(w.key[:0], m.Channel, engine.Exact), m.ID.Seq)
	var value [20]byte
	b.Set(w.key, ch.last.append(value[:0]), nil)
	for prefix, kind := range engine.Patterns(m.Channel) {
		if prefix == "" && kind == engine.Below {
			continue
		}
		w.key = appendUint64(listPrefix(w.key[:0], prefix, kind), m.ID.Seq)
		b.Set(w.key, nil, nil)
	}
	if age > 0 {
		b.Set(ageKey(w.key[:0], age, m.ID.Seq), appendUint64(nil, uint64(m.Time)), nil)
		l.ageQueue(age).added(m.Time)
	}
	w.messages++
	w.bytes += cost(m.Channel, enc.recordLen())
	if _, marked := w.full[m.Channel]; !marked && ch.over() {
		b.Set(fullKey(w.key[:0], m.Channel), nil, nil)
		l.markFull(m.Channel)
	}
	return nil
}
