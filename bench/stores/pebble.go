package stores

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Pebble is what Halley's log is built on, bare. It has a key for each message;
// with an index it has another for the message's place in its channel, which is
// the least that reading a channel needs.
//
//	'm' seq 8                    the data; with an index the channel's length,
//	                             the channel and the data
//	'c' channel 0x00 seq 8       nothing
type Pebble struct {
	db    *pebble.DB
	index bool
	write *pebble.WriteOptions
	seq   atomic.Uint64 // the last that was given out
}

// NewPebble returns the kind with or without an index. Unless it syncs, what is
// acknowledged may still be in the process.
func NewPebble(name string, index, sync bool) Kind {
	open := func(dir string, write *pebble.WriteOptions) (Store, error) {
		db, err := pebble.Open(dir, &pebble.Options{
			MemTableSize:       32 << 20, // as in Halley's log
			FormatMajorVersion: pebble.FormatNewest,
			Logger:             silent{},
		})
		if err != nil {
			return nil, err
		}
		p := &Pebble{db: db, index: index, write: write}
		last, err := p.last()
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		p.seq.Store(last)
		return p, nil
	}
	mode := pebble.NoSync
	if sync {
		mode = pebble.Sync
	}
	return Kind{
		Name:       name,
		Version:    module("github.com/cockroachdb/pebble/v2"),
		Open:       func(dir string) (Store, error) { return open(dir, mode) },
		OpenToFill: func(dir string) (Store, error) { return open(dir, pebble.NoSync) },
	}
}

// silent drops what Pebble would log, but for what ends the process.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }

func (p *Pebble) last() (uint64, error) {
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'m'}, UpperBound: []byte{'m' + 1}})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.Last() {
		return 0, it.Error()
	}
	return binary.BigEndian.Uint64(it.Key()[1:]), nil
}

func messageKey(dst []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 'm'), seq)
}

func channelPrefix(channel string) []byte {
	return append(append([]byte{'c'}, channel...), 0)
}

func (p *Pebble) put(b *pebble.Batch, m Message) error {
	seq := p.seq.Add(1)
	if !p.index {
		return b.Set(messageKey(nil, seq), m.Data, nil)
	}
	value := binary.AppendUvarint(make([]byte, 0, 2+len(m.Channel)+len(m.Data)), uint64(len(m.Channel)))
	value = append(append(value, m.Channel...), m.Data...)
	if err := b.Set(messageKey(nil, seq), value, nil); err != nil {
		return err
	}
	return b.Set(binary.BigEndian.AppendUint64(channelPrefix(m.Channel), seq), nil, nil)
}

// Publisher implements [Store].
func (p *Pebble) Publisher() (func(Message) error, error) {
	if !p.index {
		return func(m Message) error { return p.db.Set(messageKey(nil, p.seq.Add(1)), m.Data, p.write) }, nil
	}
	return func(m Message) error { return p.Fill([]Message{m}) }, nil
}

// Fill implements [Store].
func (p *Pebble) Fill(messages []Message) error {
	b := p.db.NewBatch()
	defer b.Close()
	for _, m := range messages {
		if err := p.put(b, m); err != nil {
			return err
		}
	}
	return b.Commit(p.write)
}

// Stored implements [Store].
func (p *Pebble) Stored() (uint64, error) { return p.last() }

// Close implements [Store].
func (p *Pebble) Close() error { return p.db.Close() }

// Read implements [Reader]. It knows names, and "**".
func (p *Pebble) Read(channels []string, page int) (messages, bytes int, err error) {
	all, err := p.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'m'}, UpperBound: []byte{'m' + 1}})
	if err != nil {
		return 0, 0, err
	}
	defer all.Close()
	var got []Message
	take := func() error {
		m, err := decode(all.Value())
		if err != nil {
			return err
		}
		if len(got) == page {
			got = make([]Message, 0, page)
		}
		got = append(got, m)
		messages++
		bytes += len(m.Data)
		return nil
	}
	if len(channels) == 1 && channels[0] == "**" {
		for ok := all.First(); ok; ok = all.Next() {
			if err := take(); err != nil {
				return messages, bytes, err
			}
		}
		return messages, bytes, all.Error()
	}
	seqs, err := p.places(channels)
	if err != nil {
		return 0, 0, err
	}
	for _, seq := range seqs {
		if !all.SeekGE(messageKey(nil, seq)) {
			return messages, bytes, fmt.Errorf("message %d is missing: %w", seq, all.Error())
		}
		if err := take(); err != nil {
			return messages, bytes, err
		}
	}
	return messages, bytes, nil
}

// places returns where the messages of the channels are, in order.
func (p *Pebble) places(channels []string) ([]uint64, error) {
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'c'}, UpperBound: []byte{'c' + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var seqs []uint64
	for _, channel := range channels {
		prefix := channelPrefix(channel)
		for ok := it.SeekGE(prefix); ok && len(it.Key()) == len(prefix)+8 && string(it.Key()[:len(prefix)]) == string(prefix); ok = it.Next() {
			seqs = append(seqs, binary.BigEndian.Uint64(it.Key()[len(prefix):]))
		}
	}
	slices.Sort(seqs)
	return seqs, it.Error()
}

// decode returns a copy of a message of a store with an index.
func decode(value []byte) (Message, error) {
	n, at := binary.Uvarint(value)
	if at <= 0 || n > uint64(len(value)-at) {
		return Message{}, fmt.Errorf("a value of %d bytes is no message", len(value))
	}
	end := at + int(n)
	return Message{Channel: string(value[at:end]), Data: append([]byte(nil), value[end:]...)}, nil
}
