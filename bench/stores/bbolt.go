package stores

import (
	"encoding/binary"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// Bbolt has a transaction for each message, with its syncs, as Mercure has.
type Bbolt struct {
	db *bbolt.DB
}

// NewBbolt returns the kind.
func NewBbolt() Kind {
	open := func(dir string, noSync bool) (Store, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		db, err := bbolt.Open(filepath.Join(dir, "messages.db"), 0o644, &bbolt.Options{NoSync: noSync})
		if err != nil {
			return nil, err
		}
		return &Bbolt{db}, nil
	}
	return Kind{
		Name:       "bbolt",
		Version:    module("go.etcd.io/bbolt"),
		Open:       func(dir string) (Store, error) { return open(dir, false) },
		OpenToFill: func(dir string) (Store, error) { return open(dir, true) },
	}
}

var messagesBucket = []byte("messages")

// Publisher implements [Store].
func (b *Bbolt) Publisher() (func(Message) error, error) {
	return func(m Message) error { return b.Fill([]Message{m}) }, nil
}

// Fill implements [Store].
func (b *Bbolt) Fill(messages []Message) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(messagesBucket)
		if err != nil {
			return err
		}
		bucket.FillPercent = 1 // keys only grow
		for _, m := range messages {
			seq, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			key := append(binary.BigEndian.AppendUint64(nil, seq), m.Channel...)
			if err := bucket.Put(key, m.Data); err != nil {
				return err
			}
		}
		return nil
	})
}

// Stored implements [Store].
func (b *Bbolt) Stored() (n uint64, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket(messagesBucket); bucket != nil {
			n = bucket.Sequence()
		}
		return nil
	})
	return n, err
}

// Close implements [Store].
func (b *Bbolt) Close() error {
	if err := b.db.Sync(); err != nil {
		return err
	}
	return b.db.Close()
}
