package disk

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

func verify(t *testing.T, l *Log) {
	t.Helper()
	if _, err := l.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestFormat1Mixed goes on with a log of format 1, crashes, and removes what is
// of both.
func TestFormat1Mixed(t *testing.T) {
	for _, group := range []int{0, 1, 4} {
		mem := vfs.NewCrashableMem()
		if _, err := vfs.Clone(vfs.Default, mem, "testdata/format-1", "log", vfs.CloneSync); err != nil {
			t.Fatal(err)
		}
		opts := Options{fs: mem, group: group, delay: 1, TailBytes: 10 * tailMessage}
		for round, keep := range []int{100, 100, 9, 4, 1} {
			opts.Retention = engine.Retention{Count: keep}
			opts.fs = mem
			// A crash right after opening.
			l, err := Open("log", opts)
			if err != nil {
				t.Fatal(err)
			}
			opts.fs = crashed(t, l, mem)
			mem = opts.fs.(*vfs.MemFS)
			l, err = Open("log", opts)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, l)
			for i := range 3 {
				publish(t, l, fmt.Sprint("keep/", i), 2)
			}
			for begin := time.Now(); ; time.Sleep(time.Millisecond) {
				if n := len(readAll(t, l, "keep/*")); n <= 3*int(keep) {
					break
				}
				if time.Since(begin) > 10*time.Second {
					t.Fatal("nothing is removed", round, keep)
				}
			}
			verify(t, l)
			// Some may be removed yet.
			for begin := time.Now(); ; time.Sleep(time.Millisecond) {
				n, want := len(readAll(t, l, "**")), l.Stats().Messages
				if uint64(n) == want {
					break
				}
				if time.Since(begin) > 10*time.Second {
					t.Fatalf("%d messages, want %d", n, want)
				}
			}
			// The sync of another message has what retention wrote.
			publish(t, l, "other", 1)
			if round%2 == 0 {
				mem = crashed(t, l, mem)
			} else if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAllUnlistedRemoved removes all messages before they are in a list.
func TestAllUnlistedRemoved(t *testing.T) {
	mem := vfs.NewCrashableMem()
	opts := Options{fs: mem, Rules: []engine.RetentionRule{{Pattern: "**", Retention: engine.Retention{Age: 10 * time.Millisecond}}}}
	for round := range 4 {
		opts.fs, opts.ReadOnly = mem, false
		l, err := Open("log", opts)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, l, "a/b", 5)
		publish(t, l, "c", 5)
		for begin := time.Now(); l.Stats().Messages > 0; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("nothing is removed")
			}
		}
		if round%2 == 0 {
			if _, err := l.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a/b"}}}); err != nil {
				t.Fatal(err)
			}
		}
		end := l.End()
		l.db.LogData(nil, nil)
		mem = mem.CrashClone(vfs.CrashCloneCfg{})
		l.Close()
		for _, ro := range []bool{true, false} {
			opts.fs, opts.ReadOnly = mem, ro
			l, err = Open("log", opts)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, l)
			if l.End() != end {
				t.Errorf("%v, want %v", l.End(), end)
			}
			for _, p := range []string{"a/b", "a/*", "c", "*", "**"} {
				page, err := l.Read(t.Context(), engine.Query{Channels: []string{p}, After: l.cursor(1)})
				if err != nil || !page.Gap && p != "*" && p != "c" {
					t.Errorf("%s: %+v %v", p, page, err)
				}
			}
			if !ro {
				publish(t, l, "a/b", 1)
				verify(t, l)
				mem = crashed(t, l, mem)
			} else {
				l.Close()
			}
		}
	}
}

// TestCloseWhileGathering ends a wait for other publishers that do not come.
func TestCloseWhileGathering(t *testing.T) {
	opts := Options{fs: vfs.NewMem(), GroupWait: time.Hour}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	l.writer.publishers = 100
	answered := make(chan error, 200)
	for range 20 {
		go func() {
			_, err := l.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a"}}})
			answered <- err
		}()
	}
	for handed := 0; handed != 20; time.Sleep(time.Millisecond) {
		l.queue.mu.Lock()
		handed = len(l.queue.requests) + 50 - l.queue.enough // of many, half
		l.queue.mu.Unlock()
	}
	begin := time.Now()
	l.Close()
	for range 20 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if time.Since(begin) > time.Second {
		t.Error("slow")
	}
}
