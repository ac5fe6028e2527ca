package pump

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// stats is Pump.Stats of a test's worker.
func stats(w *worker) Stats {
	got := make(chan Stats)
	go func() { got <- w.pump.Stats() }()
	for {
		w.work()
		select {
		case s := <-got:
			return s
		default:
		}
	}
}

func data(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }

// TestStats shows what is counted of connections that a goroutine writes.
func TestStats(t *testing.T) {
	w, log := testWorker(t)
	defer w.close()
	go w.pump.reader() // until the test ends
	stream, poll := &Kind{Class: 3, Framing: plain{}}, &Kind{Class: 5, Framing: plain{}, Poll: true}
	open := func(k *Kind, timeout time.Duration) *Conn {
		c := w.pump.Join(ConnOptions{Kind: k, Channels: []string{"a"}, After: log.End(), Timeout: timeout})
		for w.work(); c.state != live; w.work() {
		}
		return c
	}
	a, b, p := open(stream, 0), open(stream, 0), open(poll, time.Hour)
	opened := len(plain{}.AppendControl(nil, &wire.Control{Kind: wire.Open, ID: log.End(), Interval: time.Hour}))
	take(t, w, a)
	take(t, w, b)
	for range 2 {
		if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a", Data: data(10)}}}); err != nil {
			t.Fatal(err)
		}
		for w.pos != log.End() {
			w.work()
		}
	}
	take(t, w, p)
	s := stats(w)
	// The second message waits for room in the streams' slots.
	if got, want := s.Classes[3], (ClassStats{Connections: 2, Opened: 2, Messages: 2, Bytes: uint64(2*opened + 2*len(data(10)))}); !same(got, want) {
		t.Errorf("streams: %+v, want %+v", got, want)
	}
	if got, want := s.Classes[5], (ClassStats{Opened: 1, Messages: 1, Bytes: 10, Ended: map[string]uint64{"answered": 1}}); !same(got, want) {
		t.Errorf("polls: %+v, want %+v", got, want)
	}
	if s.Lag != 1 || s.Slow != 2 {
		t.Errorf("lag %d and %d slow clients, want 1 and 2", s.Lag, s.Slow)
	}
	take(t, w, a)
	take(t, w, a)
	if s := stats(w); s.Lag != 1 || s.Classes[3].Messages != 3 {
		t.Errorf("with one that lags: lag %d, %d messages, want 1, 3", s.Lag, s.Classes[3].Messages)
	}
	take(t, w, b)
	take(t, w, b)
	if s := stats(w); s.Lag != 0 || s.Classes[3].Messages != 4 {
		t.Errorf("with none: lag %d, %d messages, want 0, 4", s.Lag, s.Classes[3].Messages)
	}

	a.Leave()
	w.work()
	b.End(&wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.TooSlow, "")})
	w.work()
	take(t, w, b)
	c := open(stream, 0)
	take(t, w, c)
	c.End(&wire.Control{Kind: wire.Reconnect})
	w.work()
	gap := w.pump.Join(ConnOptions{Kind: stream, Channels: []string{"a"}, After: engine.Cursor{Epoch: "other", Seq: 1}})
	for gap.state != live {
		w.work()
	}
	s = stats(w)
	if want := map[string]uint64{"client": 1, "too-slow": 1, "reconnect": 1}; !maps.Equal(s.Classes[3].Ended, want) || s.Classes[3].Connections != 1 {
		t.Errorf("ended: %v, want %v, and one left", s.Classes[3], want)
	}
	if s.Gaps != 1 {
		t.Errorf("%d gaps, want 1", s.Gaps)
	}
	for _, n := range s.Classes {
		for why := range n.Ended {
			if why != "too-slow" && !slices.Contains(Reasons, why) {
				t.Errorf("%q is not one of Reasons", why)
			}
		}
	}
}

func same(a, b ClassStats) bool {
	return a.Connections == b.Connections && a.Opened == b.Opened && a.Messages == b.Messages && a.Bytes == b.Bytes && maps.Equal(a.Ended, b.Ended)
}

// TestStatsOfClosed shows that a pump that is closed can still be asked, also
// while it closes.
func TestStatsOfClosed(t *testing.T) {
	_, log := testWorker(t)
	p := New(log, Options{Workers: 3})
	for range 10 {
		c := p.Join(ConnOptions{Kind: &Kind{Class: 1}, Channels: []string{"a"}, After: log.End()})
		if _, err := c.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.Stats().Classes[1].Connections; n != 10 {
		t.Errorf("%d connections, want 10", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for ctx.Err() == nil {
			p.Stats()
		}
	}()
	p.Close()
	cancel()
	<-asked
	if s := p.Stats().Classes[1]; s.Connections != 0 || s.Ended["closed"] != 10 {
		t.Errorf("after the end: %+v, want 10 that ended as closed", s)
	}
}

// TestSurvey compares the lag with that of a walk over all connections, while
// they come, fall behind, catch up and leave. Surveys go on meanwhile.
func TestSurvey(t *testing.T) {
	w, log := testWorker(t)
	defer w.close()
	var conns []*Conn
	for range 3*surveySlice/2 + 7 {
		conns = append(conns, joined(t, w, "a"))
	}
	for i, c := range conns {
		if i%3 != 0 {
			w.fallBehind(c, engine.Cursor{Epoch: log.End().Epoch})
		}
	}
	count := func() (n int) {
		for c := w.behind; c != nil; c = c.rare.links.after {
			if c.state != behind {
				t.Fatal("one is listed that is not behind")
			}
			n++
		}
		return n
	}
	want := 0
	for _, c := range conns {
		if c.state == behind {
			want++
		}
	}
	if n := count(); n != want {
		t.Fatalf("%d are listed, %d are behind", n, want)
	}
	if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "b"}, {Channel: "b"}, {Channel: "b"}}}); err != nil {
		t.Fatal(err)
	}
	s := &survey{next: w.behind, oldest: ^uint64(0), done: make(chan struct{})}
	w.surveys = append(w.surveys, s)
	w.runSurvey()
	select {
	case <-s.done:
		t.Fatal("a survey looked at all of them in one turn")
	default:
	}
	at := s.next
	w.leave(at) // where the survey stands
	if s.next == at {
		t.Fatal("the survey stands at a connection that has left")
	}
	for range 10 {
		w.runSurvey()
	}
	<-s.done
	if s.lag != 3 {
		t.Errorf("lag %d, want 3", s.lag)
	}
	for _, c := range conns {
		w.leave(c)
	}
	if n := count(); n != 0 || w.behind != nil {
		t.Errorf("%d are listed after all have left", n)
	}
}
