package crashtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// A Subscriber stays for the whole run, and comes back from its cursor.
type Subscriber struct {
	// Client is what it subscribes with. Only the goroutine that calls Run or
	// Take may change it.
	Client    *comet.Client
	Transport comet.Transport
	Channels  []string
	// Beats gets one with a heartbeat, if there is room.
	Beats chan struct{}
	// Messages, if not nil, is told of each message.
	Messages *Pulse

	t     *testing.T
	start engine.Cursor

	sync.Mutex // guards what follows

	Got    []Entry // not checked yet
	Gaps   []Gap
	Opens  int
	Cursor engine.Cursor // written by the goroutine that calls Take alone

	astray  bool // something came that could not be right
	checked int  // entries of the ledger that Got was compared with
	target  uint64
	reached chan struct{} // closed when the cursor has come to target
}

// A Gap is one that a subscriber was told of. It may be missing messages from
// From, exclusive, to To, inclusive.
type Gap struct{ From, To uint64 }

// NewSubscriber returns a subscriber that begins at a cursor. The client is its
// own.
func NewSubscriber(t *testing.T, client *comet.Client, transport comet.Transport, start engine.Cursor, channels ...string) *Subscriber {
	return &Subscriber{t: t, Client: client, Transport: transport, Channels: channels, start: start, Cursor: start, Beats: make(chan struct{}, 1)}
}

func (s *Subscriber) String() string { return fmt.Sprintf("%s of %v", s.Transport, s.Channels) }

// Options are those to go on with.
func (s *Subscriber) Options() comet.Options {
	s.Lock()
	defer s.Unlock()
	return comet.Options{Channels: s.Channels, Transport: s.Transport, Cursor: s.Cursor.String(), Hold: 300 * time.Millisecond}
}

// Run subscribes until ctx ends.
func (s *Subscriber) Run(ctx context.Context) {
	defer s.Client.HTTPClient.CloseIdleConnections()
	for e, err := range s.Client.Subscribe(ctx, s.Options()) {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.t.Errorf("%v: %v", s, err)
			return
		}
		s.Take(ctx, e)
	}
}

// Take notes an event.
func (s *Subscriber) Take(ctx context.Context, e comet.Event) {
	told := Gap{From: s.Cursor.Seq}
	if e.Control == comet.Gap {
		// What was removed by now may be missing, also between the messages that
		// follow. What comes after this end is not.
		info, err := s.Client.Info(ctx)
		if err != nil {
			return
		}
		end, err := engine.ParseCursor(info.Cursor)
		if err != nil {
			s.t.Errorf("%v: %v", s, err)
		}
		told.To = end.Seq
	}
	s.Lock()
	defer s.Unlock()
	cursor, err := engine.ParseCursor(e.Cursor)
	if err != nil || cursor.Epoch != s.start.Epoch || cursor.Seq < s.Cursor.Seq {
		if !s.astray { // what follows says no more
			s.t.Errorf("%s %v from %s: %.200s comes after %v", time.Now().Format(time.TimeOnly), s, s.Client.URL, e.Envelope(), s.Cursor)
		}
		s.astray = true
		return
	}
	switch e.Control {
	case "":
		n, err := nameOf(e.Message)
		if err != nil || cursor.Seq == s.Cursor.Seq {
			s.t.Errorf("%v: %.200s comes after %v, %v", s, e.Envelope(), s.Cursor, err)
		}
		s.Got = append(s.Got, Entry{cursor.Seq, n})
		if s.Messages != nil {
			s.Messages.Tick()
		}
	case comet.Open:
		s.Opens++
	case comet.Gap:
		s.Gaps = append(s.Gaps, told)
	case comet.Heartbeat:
		select {
		case s.Beats <- struct{}{}:
		default:
		}
	case comet.Skip:
		s.t.Errorf("%v: %s", s, e.Envelope())
	}
	s.Cursor = cursor
	if s.reached != nil && cursor.Seq >= s.target {
		close(s.reached)
		s.reached = nil
	}
}

// await waits until the subscriber has come to a position.
func (s *Subscriber) await(seq uint64) {
	s.t.Helper()
	s.Lock()
	reached := make(chan struct{})
	if s.target, s.reached = seq, reached; s.Cursor.Seq >= seq {
		s.reached = nil
		close(reached)
	}
	s.Unlock()
	select {
	case <-reached:
	case <-time.After(Patience):
		s.Lock()
		defer s.Unlock()
		s.t.Fatalf("%v: stays at %v, the log has a message at %d", s, s.Cursor, seq)
	}
}

// Wants tells whether the subscriber is to see a channel.
func (s *Subscriber) Wants(channel string) bool {
	for _, pattern := range s.Channels {
		if engine.Match(pattern, channel) {
			return true
		}
	}
	return false
}

// Check compares what the subscriber has got since the last check with the log.
// It may not have come to the ledger's end, and may be past it.
func (s *Subscriber) Check(l *Ledger) {
	s.t.Helper()
	s.Lock()
	defer s.Unlock()
	if len(s.Gaps) > 0 {
		s.t.Errorf("%v: was told of gaps: %v", s, s.Gaps)
	}
	for len(s.Got) > 0 {
		for s.checked < len(l.Entries) && !s.Wants(l.Entries[s.checked].Name.Channel) {
			s.checked++
		}
		if s.checked == len(l.Entries) {
			if s.Got[0].Seq <= l.Last {
				l.Doubled++
				s.t.Fatalf("%v: got %v, which is not in the log", s, s.Got[0])
			}
			return
		}
		if want := l.Entries[s.checked]; s.Got[0] != want {
			l.Lost++
			s.t.Fatalf("%v: got %v, the log has %v", s, s.Got[0], want)
		}
		s.checked++
		s.Got = s.Got[1:]
	}
}

// Finish wants the subscriber to have come to the end of the log.
func (s *Subscriber) Finish(l *Ledger) {
	s.t.Helper()
	s.AwaitEnd(l)
	s.Check(l)
	for _, e := range l.Entries[s.checked:] {
		if s.Wants(e.Name.Channel) {
			l.Lost++
			s.t.Errorf("%v: never got %v", s, e)
		}
	}
}

// AwaitEnd waits until the subscriber has come to its last message in the log.
func (s *Subscriber) AwaitEnd(l *Ledger) {
	s.t.Helper()
	for _, e := range slices.Backward(l.Entries) {
		if s.Wants(e.Name.Channel) {
			s.await(e.Seq)
			return
		}
	}
}
