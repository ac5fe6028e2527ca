package nats

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
)

var _ engine.Sharer = (*Log)(nil)

// Table implements engine.Sharer: a key-value bucket of JetStream with as many
// replicas as the stream. Its name is the stream's and the table's.
func (l *Log) Table(name string, ttl time.Duration) engine.Table {
	return &table{log: l, bucket: l.opts.Stream + "_" + name, ttl: ttl}
}

type table struct {
	log    *Log
	bucket string
	ttl    time.Duration

	mu sync.Mutex
	kv jetstream.KeyValue // guarded by mu; nil until it was found
}

// find returns the bucket, which it makes where there is none. Its stream answers
// by the leader alone: any other may not have what was just written.
func (t *table) find(ctx context.Context) (jetstream.KeyValue, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kv != nil {
		return t.kv, nil
	}
	js, o := t.log.js, &t.log.opts
	kv, err := js.KeyValue(ctx, t.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		c := jetstream.StreamConfig{
			Name:              "KV_" + t.bucket,
			Description:       "what the nodes of Halley share",
			Subjects:          []string{"$KV." + t.bucket + ".>"},
			MaxMsgsPerSubject: 1,
			MaxBytes:          tableBytes,
			MaxAge:            t.ttl,
			Duplicates:        min(duplicates, t.ttl),
			Discard:           jetstream.DiscardNew,
			Replicas:          o.Replicas,
			AllowRollup:       true,
			DenyDelete:        true,
		}
		if o.Memory {
			c.Storage = jetstream.MemoryStorage
		}
		if _, err = js.CreateStream(ctx, c); err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			kv, err = js.KeyValue(ctx, t.bucket)
		}
	}
	if err != nil {
		return nil, err
	}
	t.kv = kv
	return kv, nil
}

// tableBytes bounds a table, and is set aside for it by the servers. Beyond,
// nothing is written.
const tableBytes = 128 << 20

// name is what a key is called in the bucket.
func name(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// failed returns the table's error for the bucket's.
func (t *table) failed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return engine.ErrNotFound
	case errors.Is(err, jetstream.ErrKeyExists), isWrongSequence(err):
		return engine.ErrConflict
	case t.log.isClosed():
		return engine.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	// The bucket may be gone.
	t.mu.Lock()
	t.kv = nil
	t.mu.Unlock()
	return fmt.Errorf("nats: table %s: %w: %w", t.bucket, engine.ErrUnavailable, explain(err))
}

func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == wrongLastSequenceConstant)
}

// wrongLastSequenceConstant is the code of servers since 2.11.
const wrongLastSequenceConstant = 10164

// do calls f with the bucket.
func (t *table) do(ctx context.Context, f func(context.Context, jetstream.KeyValue) error) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := t.find(limited)
	if err == nil {
		err = f(limited, kv)
	}
	return t.failed(ctx, err)
}

func (t *table) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	err = t.do(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, name(key))
		if err == nil {
			value, version = e.Value(), e.Revision()
		}
		return err
	})
	return value, version, err
}

func (t *table) Put(ctx context.Context, key string, value []byte) (version uint64, err error) {
	err = t.do(ctx, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		version, err = kv.Put(ctx, name(key), value)
		return err
	})
	return version, err
}

func (t *table) Update(ctx context.Context, key string, value []byte, version uint64) (now uint64, err error) {
	err = t.do(ctx, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		if version == 0 {
			now, err = kv.Create(ctx, name(key), value)
		} else {
			now, err = kv.Update(ctx, name(key), value, version)
		}
		return err
	})
	return now, err
}

func (t *table) Take(ctx context.Context, key string) (value []byte, err error) {
	err = t.do(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, name(key))
		if err != nil {
			return err
		}
		value = e.Value()
		if err = kv.Delete(ctx, name(key), jetstream.LastRevision(e.Revision())); isWrongSequence(err) {
			return jetstream.ErrKeyNotFound // another was faster
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

func (t *table) Delete(ctx context.Context, key string) error {
	return t.do(ctx, func(ctx context.Context, kv jetstream.KeyValue) error { return kv.Delete(ctx, name(key)) })
}

// Watch begins anew where the bucket's own watcher ends, or the servers were
// away: that one may not notice that the bucket is another.
func (t *table) Watch(ctx context.Context, f func(*engine.Entry)) error {
	for try := 0; ; try++ {
		began := time.Now()
		err := t.watch(ctx, f)
		if time.Since(began) > time.Minute {
			try = 0
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case t.log.isClosed():
			return engine.ErrClosed
		case err != nil && try == 0: // and not of each try
			t.log.opts.Logger.Warn("halley: a table of the cluster cannot be watched now", "table", t.bucket, "error", err)
		}
		select {
		case <-time.After(backoff(try)):
		case <-ctx.Done():
		case <-t.log.done:
		}
	}
}

func (t *table) watch(ctx context.Context, f func(*engine.Entry)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watcher jetstream.KeyWatcher
	if err := t.do(ctx, func(_ context.Context, kv jetstream.KeyValue) (err error) {
		watcher, err = kv.WatchAll(ctx)
		return err
	}); err != nil {
		return err
	}
	defer watcher.Stop()
	connected := t.log.nc.Stats().Reconnects
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case e, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errors.New("the watcher has ended")
			case e == nil:
				f(nil)
				continue
			}
			key, err := base64.RawURLEncoding.DecodeString(e.Key())
			if err != nil {
				continue // somebody else's
			}
			entry := &engine.Entry{Key: string(key), Version: e.Revision()}
			if e.Operation() == jetstream.KeyValuePut {
				entry.Value = append([]byte{}, e.Value()...)
			}
			f(entry)
		case <-ticker.C:
			if t.log.nc.Stats().Reconnects != connected {
				return nil
			}
		case <-t.log.done:
			return engine.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
