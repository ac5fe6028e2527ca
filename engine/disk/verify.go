package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A Report counts what Verify has read.
type Report struct {
	Messages uint64
	Channels uint64
	Entries  uint64 // of the lists of channels and patterns
	Keys     uint64 // idempotency keys
	Records  uint64 // everything stored, with what is not counted above
}

// Verify reads all that is stored, and checks it: the checksums of Pebble's
// blocks and of each message, the order of its tables, and whether messages,
// lists and counts agree. It may run while the log is in use; it reads what
// there was at one moment, without memory that grows with it.
//
// The error tells what is wrong and where. It wraps ErrCorrupt if that is
// damage, and is engine.ErrClosed or ctx's else.
func (l *Log) Verify(ctx context.Context) (Report, error) {
	l.reading.RLock()
	defer l.reading.RUnlock()
	if l.isClosed() {
		return Report{}, engine.ErrClosed
	}
	v := &verification{log: l, ctx: ctx, seed: maphash.MakeSeed()}
	err := v.run()
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("disk: %s: %w", l.dir, err)
	}
	return v.report, err
}

// A verification compares what messages say of the lists they are in with what
// lists have. Both are summed up as hashes of a message's place in a list, for
// which the order does not count. Only if the sums differ is it looked for where.
type verification struct {
	log    *Log
	ctx    context.Context
	report Report
	seed   maphash.Seed
	buf    []byte

	state  state
	bytes  int64  // what messages cost
	oldest uint64 // the first message; 0 while there is none
	newest uint64
	trims  uint64
	wanted uint64 // what messages say
	found  uint64 // what lists have

	entry   entry
	list    []byte // the prefix of the list that is walked over
	last    uint64 // of its last entry's group
	removed uint64 // of the list of a channel
	cum     count  // of its last entry
}

func (v *verification) run() error {
	db := v.log.db
	if err := db.CheckLevels(nil); err != nil {
		return damage(err)
	}
	snapshot := db.NewSnapshot()
	defer snapshot.Close()
	it, err := snapshot.NewIter(nil)
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if v.report.Records++; v.report.Records%4096 == 0 && v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return damage(err)
		}
		if err := v.check(snapshot, it.Key(), value); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return damage(err)
	}
	if err := v.checkState(); err != nil {
		return err
	}
	if v.wanted != v.found {
		return v.findDifference(snapshot)
	}
	return nil
}

// check looks at one record.
func (v *verification) check(r pebble.Reader, key, value []byte) error {
	switch key[0] {
	case metaKeys:
		if bytes.Equal(key, stateKey) && !v.state.decode(value) {
			return corrupt("state %x", value)
		}
		return nil
	case messageKeys:
		return v.checkMessage(key, value)
	case listKeys:
		return v.checkEntry(r, key, value)
	case trimKeys:
		v.trims++
		return v.want(len(value) == 8, "trim record", key, value)
	case ageKeys:
		return v.want(len(key) == 17 && len(value) == 8, "age entry", key, value)
	case keyKeys:
		v.report.Keys++
		return v.want(new(storedKey).decode(value), "idempotency key", key, value)
	case expiryKeys:
		return v.want(len(key) == 17, "expiry", key, value)
	case fullKeys:
		return nil
	}
	return v.want(false, "record", key, value)
}

func (v *verification) want(ok bool, what string, key, value []byte) error {
	if ok {
		return nil
	}
	return corrupt("%s %x: %.100x", what, key, value)
}

func (v *verification) checkMessage(key, value []byte) error {
	if len(key) != 9 {
		return v.want(false, "message", key, value)
	}
	seq := lastUint64(key)
	m, rec, err := decodeRecord(value, seq)
	if err != nil {
		return err
	}
	if v.report.Messages++; v.oldest == 0 {
		v.oldest = seq
	}
	v.newest = seq
	v.bytes += cost(m.Channel, rec.len)
	if seq > v.state.listed {
		return nil
	}
	v.wanted += v.hash(m.Channel, engine.Exact, seq, uint64(size(m)))
	for prefix, kind := range engine.Patterns(m.Channel) {
		if prefix != "" || kind != engine.Below {
			v.wanted += v.hash(prefix, kind, seq, 0)
		}
	}
	return nil
}

func (v *verification) checkEntry(r pebble.Reader, key, value []byte) error {
	name, kind, last, ok := splitListKey(key)
	if !ok || !v.entry.decode(last, value, kind) {
		return v.want(false, "entry", key, value)
	}
	v.report.Entries++
	prefix := key[:len(key)-8]
	same := bytes.Equal(prefix, v.list)
	if same && v.entry.seqs[0] <= v.last || last > v.state.listed {
		return corrupt("entry %x has message %d, the entry before was for those up to %d, all up to %d are listed", key, v.entry.seqs[0], v.last, v.state.listed)
	}
	v.list, v.last = append(v.list[:0], prefix...), last
	for i, seq := range v.entry.seqs {
		var size uint64
		if kind == engine.Exact {
			size = v.entry.sizes[i]
		}
		v.found += v.hash(name, kind, seq, size)
	}
	if kind != engine.Exact {
		return nil
	}
	first := v.entry.before(0)
	if !same {
		v.report.Channels++
		v.removed = 0
		trim, closer, err := r.Get(trimKey(nil, name, kind))
		if err == nil {
			if len(trim) == 8 {
				v.removed = lastUint64(trim)
			}
			err = closer.Close()
		}
		if err != nil && !errors.Is(err, pebble.ErrNotFound) {
			return damage(err)
		}
	} else if first != v.cum {
		return corrupt("channel %s: entry %d begins with %d messages of %d bytes, the one before ends with %d of %d",
			name, last, first.messages, first.bytes, v.cum.messages, v.cum.bytes)
	}
	v.cum = v.entry.cum
	if v.entry.seqs[0] <= v.removed {
		return corrupt("channel %s: entry %d has message %d, removed were all up to %d", name, last, v.entry.seqs[0], v.removed)
	}
	return nil
}

// splitListKey takes the key of an entry apart.
func splitListKey(key []byte) (name string, kind engine.PatternKind, last uint64, ok bool) {
	n := len(key) - 8
	if n < 3 || key[n-1] != 0 {
		return "", 0, 0, false
	}
	return string(key[2 : n-1]), engine.PatternKind(key[1]), lastUint64(key), true
}

// hash is that of a message's place in a list.
func (v *verification) hash(name string, kind engine.PatternKind, seq, size uint64) uint64 {
	b := append(v.buf[:0], byte(kind))
	b = append(b, name...)
	v.buf = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, seq), size)
	return maphash.Bytes(v.seed, v.buf)
}

func (v *verification) checkState() error {
	s := &v.state
	switch {
	case s.messages != v.report.Messages || s.bytes != v.bytes:
		return corrupt("the state counts %d messages of %d bytes, there are %d of %d", s.messages, s.bytes, v.report.Messages, v.bytes)
	case s.listed > s.end:
		return corrupt("the state's end is %d, listed are all up to %d", s.end, s.listed)
	case v.newest > s.end:
		return corrupt("the state's end is %d, there is message %d", s.end, v.newest)
	case v.oldest != 0 && v.oldest < s.oldest:
		return corrupt("the state's oldest is %d, there is message %d", s.oldest, v.oldest)
	case s.keys != v.report.Keys:
		return corrupt("the state counts %d idempotency keys, there are %d", s.keys, v.report.Keys)
	case s.trims != v.trims:
		return corrupt("the state counts %d trim records, there are %d", s.trims, v.trims)
	}
	return nil
}

// findDifference looks for a message that is missing in a list, and for an
// entry without its message.
func (v *verification) findDifference(r *pebble.Snapshot) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{messageKeys}, UpperBound: []byte{trimKeys}})
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		if it.Key()[0] == messageKeys {
			err = v.findEntries(r, it.Key(), it.Value())
		} else {
			err = v.findMessages(r, it.Key(), it.Value())
		}
		if err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return damage(err)
	}
	return corrupt("messages and lists do not agree")
}

func (v *verification) findEntries(r pebble.Reader, key, value []byte) error {
	m, _, err := decodeRecord(value, lastUint64(key))
	if err != nil || m.ID.Seq > v.state.listed {
		return err
	}
	it, err := r.NewIter(nil)
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	find := func(name string, kind engine.PatternKind) error {
		if name == "" && kind == engine.Below {
			return nil
		}
		prefix := listPrefix(nil, name, kind)
		if !it.SeekGE(appendUint64(prefix, m.ID.Seq)) || !bytes.HasPrefix(it.Key(), prefix) {
			return orDamage(it, "message %d of channel %s is not in list %q", m.ID.Seq, m.Channel, prefix)
		}
		k := it.Key()
		if !v.entry.decode(lastUint64(k), it.Value(), kind) {
			return v.want(false, "entry", k, it.Value())
		}
		i, ok := slices.BinarySearch(v.entry.seqs, m.ID.Seq)
		if !ok || kind == engine.Exact && v.entry.sizes[i] != uint64(size(m)) {
			return corrupt("message %d of channel %s: entry %q does not have it, or another size", m.ID.Seq, m.Channel, k)
		}
		return nil
	}
	if err := find(m.Channel, engine.Exact); err != nil {
		return err
	}
	for prefix, kind := range engine.Patterns(m.Channel) {
		if err := find(prefix, kind); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) findMessages(r pebble.Reader, key, value []byte) error {
	name, kind, last, _ := splitListKey(key)
	if !v.entry.decode(last, value, kind) {
		return v.want(false, "entry", key, value)
	}
	for _, seq := range v.entry.seqs {
		rec, closer, err := r.Get(messageKey(nil, seq))
		if err != nil {
			return corrupt("entry %q has message %d: %v", key, seq, err)
		}
		m, _, err := decodeRecord(rec, seq)
		closer.Close()
		if err != nil {
			return err
		}
		matches := m.Channel == name
		for prefix, k := range engine.Patterns(m.Channel) {
			matches = matches || kind != engine.Exact && prefix == name && k == kind
		}
		if !matches {
			return corrupt("entry %q has message %d, which is of channel %s", key, seq, m.Channel)
		}
	}
	return nil
}
