package crash

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// A subscriber stays for the whole run, and comes back from its cursor.
type subscriber struct {
	t         *testing.T
	client    *comet.Client
	transport comet.Transport
	channels  []string
	start     engine.Cursor

	mu      sync.Mutex
	got     []entry // not checked yet
	checked int     // entries of the ledger that got was compared with
	opens   int
	gaps    []gap
	beats   chan struct{} // gets one with a heartbeat, if there is room
	cursor  engine.Cursor // written by the subscriber's goroutine alone
	target  uint64
	reached chan struct{} // closed when the cursor has come to target
}

// A gap is one that a subscriber was told of. It may be missing messages from
// from, exclusive, to to, inclusive.
type gap struct{ from, to uint64 }

func newSubscriber(t *testing.T, s *server, transport comet.Transport, start engine.Cursor, channels ...string) *subscriber {
	client := s.client()
	client.HTTPClient = &http.Client{Transport: &http.Transport{}}
	return &subscriber{t: t, client: client, transport: transport, channels: channels, start: start, cursor: start, beats: make(chan struct{}, 1)}
}

func (s *subscriber) String() string { return fmt.Sprintf("%s of %v", s.transport, s.channels) }

func (s *subscriber) options() comet.Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return comet.Options{Channels: s.channels, Transport: s.transport, Cursor: s.cursor.String(), Hold: 300 * time.Millisecond}
}

// run subscribes until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	defer s.client.HTTPClient.CloseIdleConnections()
	for e, err := range s.client.Subscribe(ctx, s.options()) {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.t.Errorf("%v: %v", s, err)
			return
		}
		s.take(ctx, e)
	}
}

// take notes an event.
func (s *subscriber) take(ctx context.Context, e comet.Event) {
	told := gap{from: s.cursor.Seq}
	if e.Control == comet.Gap {
		// What was removed by now may be missing, also between the messages that
		// follow. What comes after this end is not.
		info, err := s.client.Info(ctx)
		if err != nil {
			return
		}
		end, err := engine.ParseCursor(info.Cursor)
		if err != nil {
			s.t.Errorf("%v: %v", s, err)
		}
		told.to = end.Seq
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cursor, err := engine.ParseCursor(e.Cursor)
	if err != nil || cursor.Epoch != s.start.Epoch || cursor.Seq < s.cursor.Seq {
		s.t.Errorf("%v: %s comes after %v", s, e.Envelope(), s.cursor)
		return
	}
	switch e.Control {
	case "":
		n, err := nameOf(e.Message)
		if err != nil || cursor.Seq == s.cursor.Seq {
			s.t.Errorf("%v: %.200s comes after %v, %v", s, e.Envelope(), s.cursor, err)
		}
		s.got = append(s.got, entry{cursor.Seq, n})
	case comet.Open:
		s.opens++
	case comet.Gap:
		s.gaps = append(s.gaps, told)
	case comet.Heartbeat:
		select {
		case s.beats <- struct{}{}:
		default:
		}
	case comet.Skip:
		s.t.Errorf("%v: %s", s, e.Envelope())
	}
	s.cursor = cursor
	if s.reached != nil && cursor.Seq >= s.target {
		close(s.reached)
		s.reached = nil
	}
}

// await waits until the subscriber has come to a position.
func (s *subscriber) await(seq uint64) {
	s.t.Helper()
	s.mu.Lock()
	reached := make(chan struct{})
	if s.target, s.reached = seq, reached; s.cursor.Seq >= seq {
		s.reached = nil
		close(reached)
	}
	s.mu.Unlock()
	select {
	case <-reached:
	case <-time.After(patience):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Fatalf("%v: stays at %v, the log has a message at %d", s, s.cursor, seq)
	}
}

func (s *subscriber) wants(channel string) bool {
	for _, pattern := range s.channels {
		if engine.Match(pattern, channel) {
			return true
		}
	}
	return false
}

// check compares what the subscriber has got since the last check with the log.
// It may not have come to the ledger's end, and may be past it.
func (s *subscriber) check(l *ledger) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gaps) > 0 {
		s.t.Errorf("%v: was told of gaps: %v", s, s.gaps)
	}
	for len(s.got) > 0 {
		for s.checked < len(l.entries) && !s.wants(l.entries[s.checked].name.channel) {
			s.checked++
		}
		if s.checked == len(l.entries) {
			if s.got[0].seq <= l.last {
				l.doubled++
				s.t.Fatalf("%v: got %v, which is not in the log", s, s.got[0])
			}
			return
		}
		if want := l.entries[s.checked]; s.got[0] != want {
			l.lost++
			s.t.Fatalf("%v: got %v, the log has %v", s, s.got[0], want)
		}
		s.checked++
		s.got = s.got[1:]
	}
}

// finish wants the subscriber to have come to the end of the log.
func (s *subscriber) finish(l *ledger) {
	s.t.Helper()
	s.awaitEnd(l)
	s.check(l)
	for _, e := range l.entries[s.checked:] {
		if s.wants(e.name.channel) {
			l.lost++
			s.t.Errorf("%v: never got %v", s, e)
		}
	}
}

// awaitEnd waits until the subscriber has come to its last message in the log.
func (s *subscriber) awaitEnd(l *ledger) {
	s.t.Helper()
	for _, e := range slices.Backward(l.entries) {
		if s.wants(e.name.channel) {
			s.await(e.seq)
			return
		}
	}
}
