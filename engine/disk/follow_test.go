package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

// unbounded keeps everything.
var unbounded = []engine.RetentionRule{{Pattern: "**"}}

// openReplica opens a replica of the log with the epoch, for the test.
func openReplica(t *testing.T, fs vfs.FS, epoch string, o Options) *Log {
	t.Helper()
	o.Fsync, o.Follow, o.fs, o.Rules = Never, epoch, fs, unbounded
	l, err := Open("replica", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestFollow has a replica follow a log and be opened again and again, also
// after crashes, from what it has kept. What it answers is what the log does.
func TestFollow(t *testing.T) {
	source, err := memory.New(memory.Options{Rules: unbounded})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	channels := []string{"a", "a/b", "a/c", "a/b/d", "x/y"}
	fs := vfs.NewCrashableMem()
	boot := 0
	open := func() *Log {
		id := fmt.Sprint("boot ", boot)
		return openReplica(t, fs, source.End().Epoch, Options{TailBytes: 50 * tailMessage, bootID: func() string { return id }})
	}
	replica := open()
	for round := range 12 {
		for range 40 {
			var b engine.Batch
			for range 1 + random.IntN(5) {
				b.Messages = append(b.Messages, engine.Message{Channel: channels[random.IntN(len(channels))], Data: []byte(fmt.Sprint(random.IntN(1000)))})
			}
			if _, err := source.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		for replica.End() != source.End() {
			page, err := source.Read(t.Context(), engine.Query{Channels: []string{"**"}, After: replica.End(), Limit: 30})
			if err != nil {
				t.Fatal(err)
			}
			var parts []Part
			for len(page.Messages) > 0 {
				n := 1 + random.IntN(len(page.Messages))
				p := Part{First: page.Messages[0].ID.Seq, Mark: page.Messages[n-1].ID.Seq * 7}
				for _, m := range page.Messages[:n] {
					p.Messages = append(p.Messages, *m)
				}
				parts, page.Messages = append(parts, p), page.Messages[n:]
			}
			if err := replica.Follow(t.Context(), parts); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			q := engine.Query{
				After:    engine.Cursor{Epoch: source.End().Epoch, Seq: random.Uint64N(source.End().Seq + 2)},
				Limit:    random.IntN(30),
				Backward: random.IntN(3) == 0,
			}
			for range 1 + random.IntN(3) {
				q.Channels = append(q.Channels, append(channels, "**", "a/*", "a/**", "none")[random.IntN(len(channels)+4)])
			}
			want, err1 := source.Read(t.Context(), q)
			got, err2 := replica.Read(t.Context(), q)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if showPageOf(got) != showPageOf(want) {
				t.Fatalf("%+v: the replica has\n%s, the log\n%s", q, showPageOf(got), showPageOf(want))
			}
		}
		if end, mark := replica.Followed(); end != source.End().Seq || mark != end*7 {
			t.Fatalf("followed to %d with mark %d, the log's end is %v", end, mark, source.End())
		}
		if _, err := replica.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		crash := random.IntN(2) == 0
		next := fs
		if crash {
			next = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
		}
		if err := replica.Close(); err != nil {
			t.Fatal(err)
		}
		fs = next
		if crash {
			boot++
		}
		replica = open()
		if end, mark := replica.Followed(); end > source.End().Seq || end < source.End().Seq && !crash || mark != end*7 {
			t.Fatalf("round %d: opened again at %d with mark %d, the log's end is %v, crash is %v", round, end, mark, source.End(), crash)
		}
	}
}

func showPageOf(p engine.Page) string {
	var b strings.Builder
	for _, m := range p.Messages {
		fmt.Fprintf(&b, "%v %s %s %d, ", m.ID, m.Channel, m.Data, m.Time)
	}
	fmt.Fprintf(&b, "gap %v, start %v, end %v, more %v", p.Gap, p.Start, p.End, p.More)
	return b.String()
}

// TestFollowHoles wants a gap for every cursor before a position that the
// replica never had, and none for those after.
func TestFollowHoles(t *testing.T) {
	fs := vfs.NewMem()
	l := openReplica(t, fs, "e", Options{})
	follow := func(first uint64, channels ...string) {
		t.Helper()
		p := Part{First: first, Mark: first}
		for _, c := range channels {
			p.Messages = append(p.Messages, engine.Message{Channel: c, Time: int64(first)})
		}
		if err := l.Follow(t.Context(), []Part{p}); err != nil {
			t.Fatal(err)
		}
	}
	follow(5, "a", "b") // 1 to 4 were gone before it began
	follow(7, "a")
	follow(11, "b") // 8 to 10 were gone while it was away
	follow(12, "a")
	follow(20) // and 13 to 19
	check := func() {
		t.Helper()
		for _, c := range []struct {
			after uint64
			gap   bool
			ids   []uint64
		}{
			{0, true, []uint64{5, 7, 12}}, {4, true, []uint64{5, 7, 12}}, {6, true, []uint64{7, 12}}, {10, true, []uint64{12}},
			{12, true, nil}, {18, true, nil}, {19, false, nil},
		} {
			page, err := l.Read(t.Context(), engine.Query{Channels: []string{"a"}, After: engine.Cursor{Epoch: "e", Seq: c.after}})
			if err != nil {
				t.Fatal(err)
			}
			var ids []uint64
			for _, m := range page.Messages {
				ids = append(ids, m.ID.Seq)
			}
			if page.Gap != c.gap || !reflect.DeepEqual(ids, c.ids) || page.End.Seq < 19 {
				t.Errorf("after %d: %s", c.after, showPageOf(page))
			}
		}
		if end := l.End(); end != (engine.Cursor{Epoch: "e", Seq: 19}) {
			t.Errorf("the end is %v", end)
		}
		if _, ok := l.Tail(engine.Cursor{Epoch: "e", Seq: 18}, nil); ok {
			t.Error("the tail goes on from before what is missing")
		}
		if _, err := l.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	}
	check()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openReplica(t, fs, "e", Options{})
	check()

	// What follows is there for whoever has come so far.
	follow(20, "a")
	page, err := l.Read(t.Context(), engine.Query{Channels: []string{"a"}, After: engine.Cursor{Epoch: "e", Seq: 19}})
	if err != nil || page.Gap || len(page.Messages) != 1 {
		t.Errorf("after 19: %s, %v", showPageOf(page), err)
	}
	for _, first := range []uint64{0, 1, 20} {
		if err := l.Follow(t.Context(), []Part{{First: first}}); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("a part that begins at %d: %v", first, err)
		}
	}
	if _, err := l.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a"}}}); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("Append: %v", err)
	}
}

// TestFollowAnother wants nothing left of a log that is followed no more, and
// never a log of its own taken for a replica.
func TestFollowAnother(t *testing.T) {
	fs := vfs.NewMem()
	l := openReplica(t, fs, "e", Options{})
	if err := l.Follow(t.Context(), []Part{{First: 1, Messages: []engine.Message{{Channel: "a", Time: time.Now().UnixMilli()}}, Key: "k", Mark: 9}}); err != nil {
		t.Fatal(err)
	}
	if r, _, ok, err := l.Stored("k"); !ok || err != nil || r.First.Seq != 1 || r.Count != 1 || !r.Repeated {
		t.Errorf("stored under the key: %+v, %v, %v", r, ok, err)
	}
	l.Close()

	l = openReplica(t, fs, "f", Options{})
	if end, mark := l.Followed(); end != 0 || mark != 0 || l.End().Epoch != "f" || l.Opened().NewEpoch == "" {
		t.Errorf("with another epoch: %v, mark %d, %+v", l.End(), mark, l.Opened())
	}
	if _, _, ok, err := l.Stored("k"); ok || err != nil {
		t.Errorf("the key is still there: %v", err)
	}
	if page, err := l.Read(t.Context(), engine.Query{Channels: []string{"**"}, After: engine.Cursor{Epoch: "e", Seq: 1}}); err != nil || !page.Gap || len(page.Messages) > 0 {
		t.Errorf("after a position of before: %s, %v", showPageOf(page), err)
	}
	if err := l.Follow(t.Context(), []Part{{First: 3, Messages: []engine.Message{{Channel: "a"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	l.Close()

	// On its own it is another log.
	own, err := Open("replica", Options{fs: fs})
	if err != nil {
		t.Fatal(err)
	}
	if epoch := own.End().Epoch; epoch == "f" || own.End().Seq != 3 {
		t.Errorf("on its own: %v", own.End())
	}
	if _, err := own.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a"}}}); err != nil {
		t.Error(err)
	}
	if err := own.Follow(t.Context(), []Part{{First: 5}}); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("Follow: %v", err)
	}
	own.Close()
	if _, err := Open("replica", Options{fs: fs, Follow: "f"}); !errors.Is(err, ErrNotReplica) {
		t.Errorf("a log of its own opened as a replica: %v", err)
	}
	own, err = Open("replica", Options{fs: fs})
	if err != nil || own.End().Seq != 4 {
		t.Fatalf("it was changed: %v", err)
	}
	own.Close()
}

// TestStoredExpires forgets keys as Append does.
func TestStoredExpires(t *testing.T) {
	l := openReplica(t, vfs.NewMem(), "e", Options{KeyWindow: time.Minute})
	old, now := time.Now().Add(-2*time.Minute).UnixMilli(), time.Now().UnixMilli()
	if err := l.Follow(t.Context(), []Part{
		{First: 1, Messages: []engine.Message{{Channel: "a", Time: old}}, Key: "old"},
		{First: 2, Messages: []engine.Message{{Channel: "a", Time: now}}, Key: "new"},
	}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"old": false, "new": true, "none": false} {
		if _, _, ok, err := l.Stored(key); ok != want || err != nil {
			t.Errorf("%s: stored is %v, %v", key, ok, err)
		}
	}
}

// TestFollowWritten has the file of the write-ahead log get what is little: what is
// in a buffer of the process alone, a killed one loses.
func TestFollowWritten(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{Follow: "epoch", Rules: unbounded})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i, what := range []string{"the first of them", "the second of them"} {
		part := Part{First: uint64(1 + i), Messages: []engine.Message{{Channel: "a", ContentType: "text/plain", Data: []byte(what), Time: 1}}}
		if err := l.Follow(t.Context(), []Part{part}); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			logs, err := filepath.Glob(filepath.Join(dir, "*", "*.log"))
			if err != nil || len(logs) == 0 {
				t.Fatal(logs, err)
			}
			written := false
			for _, name := range logs {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				written = written || bytes.Contains(data, []byte(what))
			}
			if written {
				break
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("%q is not in the file", what)
			}
		}
	}
}
