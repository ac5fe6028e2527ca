package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestVerify changes single records, and wants each change found and named.
func TestVerify(t *testing.T) {
	mem := vfs.NewMem()
	opts := Options{fs: mem, group: 4, Rules: []engine.RetentionRule{
		{Pattern: "few/*", Retention: engine.Retention{Count: 2, Age: time.Hour}},
	}}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		_, err := l.Append(t.Context(), engine.Batch{Key: fmt.Sprint(i), Messages: []engine.Message{
			{Channel: "keep/a", Data: []byte("one")}, {Channel: "few/a"}, {Channel: "keep/b/c", Headers: map[string]string{"k": "v"}}, {Channel: "few/a"},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for begin := time.Now(); l.Stats().Messages != 42; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d messages are kept", l.Stats().Messages)
		}
	}
	report, err := l.Verify(t.Context())
	if err != nil || report.Messages != 42 || report.Channels != 3 || report.Keys != 20 {
		t.Errorf("Verify: %+v, %v", report, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Verify after Close: %v", err)
	}

	rewrite := func(key []byte, f func(e *entry)) func(*pebble.DB) error {
		return func(db *pebble.DB) error {
			value, closer, err := db.Get(key)
			if err != nil {
				return err
			}
			defer closer.Close()
			_, kind, last, _ := splitListKey(key)
			var e entry
			if !e.decode(last, value, kind) {
				return fmt.Errorf("entry %x: %x", key, value)
			}
			f(&e)
			return db.Set(key, e.appendValue(nil, kind), pebble.Sync)
		}
	}
	remove := func(key []byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error { return db.Delete(key, pebble.Sync) }
	}
	set := func(key, value []byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error { return db.Set(key, value, pebble.Sync) }
	}
	entryKey := func(name string, kind engine.PatternKind, last uint64) []byte {
		return appendUint64(listPrefix(nil, name, kind), last)
	}
	for name, c := range map[string]struct {
		change func(*pebble.DB) error
		want   string
	}{
		"a message missing":          {remove(messageKey(nil, 5)), "the state counts"},
		"a message's entry missing":  {remove(entryKey("keep/b/c", engine.Exact, 8)), "channel keep/b/c"},
		"a pattern's entry missing":  {remove(entryKey("keep", engine.Below, 8)), "message 5 of channel keep/a"},
		"an entry too much":          {set(entryKey("keep", engine.One, 7), []byte{0}), "has message 5, the entry before was for those up to 7"},
		"a sequence too much":        {rewrite(entryKey("keep", engine.One, 80), func(e *entry) { e.seqs = append(e.seqs, 78) }), "has message 78"},
		"another size":               {rewrite(entryKey("keep/a", engine.Exact, 80), func(e *entry) { e.sizes[0]++; e.cum.bytes++ }), "message 77 of channel keep/a"},
		"another count":              {rewrite(entryKey("keep/a", engine.Exact, 8), func(e *entry) { e.cum.messages++ }), "channel keep/a"},
		"a trim record after":        {set(trimKey(nil, "few/a", engine.Exact), appendUint64(nil, 80)), "removed were all up to 80"},
		"a trim record missing":      {remove(trimKey(nil, "few", engine.One)), "trim records"},
		"something unknown":          {set([]byte("\x60"), nil), "record 60"},
		"half an idempotency key":    {set(keyKey(nil, hashKey("3")), []byte("x")), "idempotency key"},
		"an age that is none":        {set(ageKey(nil, 1, 2), nil), "age entry"},
		"an entry that is no entry":  {set(entryKey("keep", engine.Below, 4), []byte{9}), "entry"},
		"the counts of another log":  {set(stateKey, (&state{end: 80, messages: 42, oldest: 1, listed: 80}).append(nil)), "the state counts"},
		"an entry of another's name": {set(entryKey("keep/x", engine.Exact, 5), []byte{1, 3, 0, 3}), "has message 5, which is of channel keep/a"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			if _, err := vfs.Clone(mem, fs, "log", "log"); err != nil {
				t.Fatal(err)
			}
			edit(t, fs, "log", c.change)
			opts := opts
			opts.fs, opts.ReadOnly = fs, true
			l, err := Open("log", opts)
			if err == nil {
				defer l.Close()
				_, err = l.Verify(t.Context())
			}
			wantError(t, "Verify", err, ErrCorrupt)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Verify: %v, want %q in it", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opts.ReadOnly = true
	if l, err = Open("log", opts); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Verify(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Verify of a context that ended: %v", err)
	}
}
