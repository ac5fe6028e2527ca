package disk

import (
	"github.com/cockroachdb/pebble/v2"
)

// An ageQueue is the messages that are kept for one certain time. As the log's
// time never goes back, they expire in order.
type ageQueue struct {
	age  int64  // milliseconds
	next int64  // the time of the first, never if there is none
	from uint64 // no message in it has a lower sequence
}

// added tells the queue of a message.
func (q *ageQueue) added(time int64) { q.next = min(q.next, time) }

func (l *Log) ageQueue(age int64) *ageQueue {
	for _, q := range l.writer.ages {
		if q.age == age {
			return q
		}
	}
	q := &ageQueue{age: age, next: never}
	l.writer.ages = append(l.writer.ages, q)
	return q
}

// loadAges finds the queues that there are, with a seek for each.
func (l *Log) loadAges() error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{ageKeys}, UpperBound: []byte{ageKeys + 1}})
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; {
		if len(it.Key()) != 17 || len(it.Value()) != 8 {
			return corrupt("age entry %x: %x", it.Key(), it.Value())
		}
		age := int64(lastUint64(it.Key()[:9]))
		q := l.ageQueue(age)
		q.next, q.from = int64(lastUint64(it.Value())), lastUint64(it.Key())
		ok = it.SeekGE(ageKey(nil, age+1, 0))
	}
	return damage(it.Error())
}

// trimOld removes messages that are older than their channel keeps them.
func (t *trimming) trimOld(now int64) error {
	for _, q := range t.log.writer.ages {
		if now < due(q.next, q.age) {
			continue
		}
		if err := t.trimQueue(q, now); err != nil {
			return err
		}
	}
	return nil
}

func (t *trimming) trimQueue(q *ageQueue, now int64) error {
	end := ageKey(nil, q.age+1, 0)
	ok := t.it.SeekGE(ageKey(nil, q.age, q.from))
	for ; ok && string(t.it.Key()) < string(end); ok = t.it.Next() {
		if len(t.it.Value()) != 8 {
			return corrupt("age entry %x: %x", t.it.Key(), t.it.Value())
		}
		seq, time := lastUint64(t.it.Key()), int64(lastUint64(t.it.Value()))
		done := false
		if now >= due(time, q.age) && t.left > 0 && t.more > 0 {
			var err error
			if done, err = t.expire(q, seq, time, now); err != nil {
				return err
			}
		}
		if !done {
			q.next, q.from = time, seq
			return nil
		}
		t.b.Delete(t.it.Key(), nil)
		t.more--
	}
	q.next, q.from = never, t.log.writer.end+1
	return damage(t.it.Error())
}

// expire removes a message whose time in a queue is over, with those of its
// channel that are older, unless the rules have changed meanwhile. It reports
// whether the queue is done with it.
func (t *trimming) expire(q *ageQueue, seq uint64, time, now int64) (bool, error) {
	m, _, err := t.log.messageAt(t.read, seq)
	if err != nil || m == nil {
		return true, err // removed before, for another reason
	}
	ch, err := t.log.channel(m.Channel)
	if err != nil || ch.next > seq {
		return true, err // removed in this step
	}
	switch age := milliseconds(ch.keep.Age); {
	case age == 0:
		return true, nil
	case now < due(time, age):
		t.enqueue(age, seq, time)
		return true, nil
	}
	return t.removeThrough(ch, seq)
}

// enqueue puts a message into another queue. The step's iterators do not see
// it, so the queue is told of it at the end of the step.
func (t *trimming) enqueue(age int64, seq uint64, time int64) {
	t.b.Set(ageKey(nil, age, seq), appendUint64(nil, uint64(time)), nil)
	t.enqueued = append(t.enqueued, enqueued{age, seq, time})
}

type enqueued struct {
	age  int64
	seq  uint64
	time int64
}

// tellQueues tells queues what enqueue has put into them.
func (t *trimming) tellQueues(int64) error {
	for _, e := range t.enqueued {
		q := t.log.ageQueue(e.age)
		q.added(e.time)
		q.from = min(q.from, e.seq)
	}
	return nil
}
