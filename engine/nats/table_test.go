package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/natstest"
)

// TestTable wants what one node writes read by another, and given away once.
func TestTable(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	ctx := t.Context()
	var tables []engine.Table
	for range 2 {
		l := open(t, server, t.TempDir(), Options{})
		tables = append(tables, l.Table("test", time.Hour))
	}
	a, b := tables[0], tables[1]
	key := "any \x00 bytes \xff./*>"
	if _, _, err := a.Get(ctx, key); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	if _, err := a.Take(ctx, key); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Take of nothing: %v", err)
	}
	v1, err := a.Put(ctx, key, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if value, version, err := b.Get(ctx, key); string(value) != "1" || version != v1 || err != nil {
		t.Errorf("Get: %q, version %d, %v, want version %d", value, version, err, v1)
	}
	v2, err := b.Update(ctx, key, []byte("2"), v1)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []uint64{0, v1} {
		if _, err := a.Update(ctx, key, []byte("3"), old); !errors.Is(err, engine.ErrConflict) {
			t.Errorf("Update of version %d, where %d is there: %v", old, v2, err)
		}
	}
	var taken atomic.Int32
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			value, err := tables[i%2].Take(ctx, key)
			switch {
			case err == nil && string(value) == "2":
				taken.Add(1)
			case !errors.Is(err, engine.ErrNotFound):
				t.Errorf("Take: %q, %v", value, err)
			}
		})
	}
	wg.Wait()
	if n := taken.Load(); n != 1 {
		t.Errorf("%d callers were given the value", n)
	}
	if _, err := b.Update(ctx, key, []byte("4"), 0); err != nil {
		t.Errorf("Update of what was taken: %v", err)
	}
	if err := a.Delete(ctx, key); err != nil {
		t.Error(err)
	}
	if _, _, err := b.Get(ctx, key); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Get of what was deleted: %v", err)
	}
}

// TestTableWatch wants a watcher to be told of everything, also of what was
// written while it had no server.
func TestTableWatch(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	a := open(t, server, t.TempDir(), Options{}).Table("test", time.Hour)
	b := open(t, server, t.TempDir(), Options{}).Table("test", time.Hour)
	if _, err := a.Put(t.Context(), "before", []byte("0")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 100)
	ended := make(chan error)
	go func() {
		ended <- b.Watch(ctx, func(e *engine.Entry) {
			switch {
			case e == nil:
				seen <- "all"
			case e.Value == nil:
				seen <- e.Key + " removed"
			default:
				seen <- e.Key + " " + string(e.Value)
			}
		})
	}()
	want := func(want string) {
		t.Helper()
		for timeout := time.After(30 * time.Second); ; {
			select {
			case got := <-seen:
				if got == want {
					return
				}
			case <-timeout:
				t.Fatalf("not told of %q", want)
			}
		}
	}
	want("before 0")
	want("all")
	for i := range 3 {
		if _, err := a.Put(t.Context(), "k", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		want(fmt.Sprint("k ", i))
	}
	if err := a.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	want("k removed")
	server.Kill()
	server.Restart(t)
	want("all")
	for {
		_, err := a.Put(t.Context(), "after", []byte("1"))
		if err == nil {
			break
		}
		if !errors.Is(err, engine.ErrUnavailable) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	want("after 1")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

// TestTableTTL wants a value gone after its time.
func TestTableTTL(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	table := open(t, server, t.TempDir(), Options{}).Table("brief", time.Second)
	if _, err := table.Put(t.Context(), "k", []byte("1")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, _, err := table.Get(t.Context(), "k")
		if errors.Is(err, engine.ErrNotFound) {
			return
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("after its time: %v", err)
		}
	}
}
