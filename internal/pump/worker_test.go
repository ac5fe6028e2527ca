package pump

import (
	"context"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/wire"
)

func testWorker(t *testing.T) (*worker, engine.Engine) {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	p := &Pump{engine: log, opts: Options{Heartbeat: time.Hour, WriteTimeout: time.Hour}, frames: newFrames(1 << 20), reads: newMailbox[read]()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	t.Cleanup(p.cancel)
	w := newWorker(p, 0)
	p.workers = []*worker{w}
	return w, log
}

// joined returns a connection that is live and has taken its open control.
func joined(t *testing.T, w *worker, channels ...string) *Conn {
	t.Helper()
	c := w.pump.Join(ConnOptions{Kind: &Kind{}, Channels: channels, After: w.pump.engine.End()})
	w.work()
	for c.state != live {
		w.work()
	}
	<-c.slot.flushes
	return c
}

// take is what Next does, with the worker's turns between.
func take(t *testing.T, w *worker, c *Conn) Flush {
	t.Helper()
	for range 10_000 {
		select {
		case f := <-c.slot.flushes:
			if c.slot.wanted.Swap(false) {
				w.ready(c)
			}
			return f
		default:
			w.work()
		}
	}
	t.Fatal("nothing comes")
	return Flush{}
}

// TestFanoutYields shows that a message to very many connections does not hold
// up other channels, and that a connection that wants both gets both in order.
func TestFanoutYields(t *testing.T) {
	w, log := testWorker(t)
	var wide []*Conn
	for range 20 * wideList {
		wide = append(wide, joined(t, w, "wide"))
	}
	both := joined(t, w, "quiet", "wide")
	quiet := joined(t, w, "quiet")
	if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "wide"}, {Channel: "quiet"}, {Channel: "wide"}}}); err != nil {
		t.Fatal(err)
	}
	w.work()
	if len(quiet.slot.flushes) != 1 {
		t.Error("the quiet channel's reader was not served in the first turn")
	}
	if f := <-both.slot.flushes; len(f.Items) != 2 || f.Items[0].Message.Channel != "wide" || f.Items[1].Message.Channel != "quiet" {
		t.Errorf("who wants both got %+v, want wide and quiet", f.Items)
	}
	served := func() (n int) {
		for _, c := range wide {
			n += len(c.slot.flushes)
		}
		return n
	}
	if n := served(); n > wideList {
		t.Errorf("%d readers of the wide channel were served in the first turn, want at most %d", n, wideList)
	}
	for range 30 {
		w.work()
	}
	if n := served(); n != len(wide) {
		t.Errorf("%d of %d readers of the wide channel were served in the end", n, len(wide))
	}
	for _, c := range wide {
		if f := <-c.slot.flushes; len(f.Items) != 2 {
			t.Fatalf("got %d messages in a flush, want both", len(f.Items))
		}
	}
	if f := <-both.slot.flushes; len(f.Items) != 1 || f.Items[0].Message.ID.Seq != 3 {
		t.Errorf("who wants both got %+v in the end, want message 3", f.Items)
	}
}

// TestLeaveDuringFanout shows that connections that come and go while a pass
// is under way neither are missed nor make others be.
func TestLeaveDuringFanout(t *testing.T) {
	w, log := testWorker(t)
	var wide []*Conn
	for range 4 * wideList {
		wide = append(wide, joined(t, w, "wide"))
	}
	publish := func() {
		if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "wide"}}}); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	w.work()
	for i, c := range wide {
		if i%3 == 0 {
			c.Leave()
		}
	}
	late := joined(t, w, "wide")
	publish()
	for len(w.fanouts) > 0 || w.pos != log.End() {
		w.work()
	}
	for i, c := range append(wide, late) {
		want := []uint64{1, 2}
		switch {
		case c == late:
			want = want[1:]
		case i%3 == 0:
			continue
		}
		var got []uint64
		for len(got) < len(want) {
			for _, it := range take(t, w, c).Items {
				got = append(got, it.Message.ID.Seq)
			}
		}
		for j := range want {
			if got[j] != want[j] {
				t.Fatalf("connection %d got %v, want %v", i, got, want)
			}
		}
	}
	if s := w.index.sets.get([]byte("wide")); s.rare != nil || len(s.members) != w.count {
		t.Errorf("the set has %d entries and %+v for %d connections", len(s.members), s.rare, w.count)
	}
}

// TestWrite shows that streams without sockets are served as others are, by a
// fan-out too, and that they can leave.
func TestWrite(t *testing.T) {
	w, log := testWorker(t)
	got := map[*Conn]string{}
	kind := &Kind{Framing: plain{}, Parked: Parked{Write: func(c *Conn, b []byte) { got[c] += string(b) }}}
	var conns []*Conn
	for range 2 * wideList {
		conns = append(conns, w.pump.Park(ConnOptions{Kind: kind, Channels: []string{"a"}, After: log.End()}, Socket{FD: -1}))
	}
	turns := func() {
		for range 100 {
			w.work()
		}
	}
	turns()
	for range 2 {
		if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a", Data: []byte("m")}}}); err != nil {
			t.Fatal(err)
		}
	}
	turns()
	for _, c := range conns {
		if want := "<open>mm"; got[c] != want {
			t.Fatalf("a connection got %q, want %q", got[c], want)
		}
		c.Leave()
	}
	turns()
	if w.count != 0 || len(w.index.sets.chains) != 0 {
		t.Errorf("%d connections and %d sets are left", w.count, len(w.index.sets.chains))
	}
}

// plain is the data of messages and the kinds of controls.
type plain struct{}

func (plain) Slot() int                                          { return 0 }
func (plain) AppendMessage(dst []byte, m *engine.Message) []byte { return append(dst, m.Data...) }
func (plain) AppendControl(dst []byte, c *wire.Control) []byte {
	return append(append(append(dst, '<'), c.Kind...), '>')
}
