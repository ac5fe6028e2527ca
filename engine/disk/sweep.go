package disk

import (
	"crypto/sha256"
	"fmt"

	"github.com/halley-comet/halley/engine"
)

// A sweep is a walk over all channels, some in each step, after the rules of
// retention have changed: a channel that gets no more messages would keep what
// the old rules allowed. A crash begins it anew.
type sweep struct {
	from []byte // where to go on; nil when there is nothing to do
}

// rulesOf tells rules apart.
func rulesOf(o *Options) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %+v", o.Retention, o.Rules))
	return sum[:]
}

// loadSweep begins a walk if the rules are not those that the log was last
// swept for.
func (l *Log) loadSweep() error {
	last, err := l.get(rulesKey)
	if err == nil && string(last) != string(rulesOf(&l.opts)) {
		l.writer.sweep.from = []byte{listKeys, byte(engine.Exact)}
	}
	return err
}

// sweep marks channels that hold more than they may, and puts messages into the
// queue of their age.
func (t *trimming) sweep(int64) error {
	w := &t.log.writer
	s := &w.sweep
	if s.from == nil {
		return nil
	}
	ok := t.it.SeekGE(s.from)
	for left := trimStep; ok && t.it.Key()[0] == listKeys && t.it.Key()[1] == byte(engine.Exact); {
		if left <= 0 {
			s.from = append([]byte(nil), t.it.Key()...)
			return nil
		}
		key := append([]byte(nil), t.it.Key()...)
		name, _, last, valid := splitListKey(key)
		var e entry
		if !valid || !e.decode(last, t.it.Value(), engine.Exact) {
			return corrupt("entry %x: %x", key, t.it.Value())
		}
		ch, err := t.log.channel(name)
		if err != nil {
			return err
		}
		if _, marked := w.full[name]; !marked && ch.over() {
			t.b.Set(fullKey(nil, name), nil, nil)
			t.log.markFull(name)
		}
		if ch.keep.Age == 0 { // nothing to do for each message
			left--
			ok = t.it.SeekGE(append(key[:len(key)-9], 1))
			continue
		}
		for _, seq := range e.seqs[e.find(ch.next):] {
			left--
			if err := t.queue(seq, milliseconds(ch.keep.Age)); err != nil {
				return err
			}
		}
		ok = t.it.Next()
	}
	if err := t.it.Error(); err != nil {
		return damage(err)
	}
	s.from = nil
	t.b.Set(rulesKey, rulesOf(&t.log.opts), nil)
	return nil
}

// queue puts a message into the queue of an age. That of the age it was stored
// for may have let it go meanwhile, under other rules. What is in the queue of
// another one is found done there.
func (t *trimming) queue(seq uint64, age int64) error {
	m, _, err := t.log.messageAt(t.read, seq)
	if err != nil || m == nil {
		return err
	}
	t.enqueue(age, seq, m.Time)
	return nil
}
