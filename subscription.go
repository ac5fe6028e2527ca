package halley

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// SubscribeOptions say what a Subscription brings.
type SubscribeOptions struct {
	// Channels are names and patterns, at least one.
	Channels []string
	// Cursor is where to start, exclusive. The zero Cursor starts now, with
	// what is published after Subscribe was called.
	Cursor Cursor
	// Earliest starts with the oldest message retained, whatever Cursor is.
	Earliest bool
	// From sets other starts, after Cursor, for some of Channels. A position
	// of another epoch counts as none.
	From map[string]Cursor
}

// An Event is a message, or the word that messages may be missing.
type Event struct {
	// Message is nil for a gap. It is shared, and not to be changed.
	Message *Message
	// Gap is set if messages at or before Cursor may be missing. The
	// subscription goes on after it with the oldest message retained.
	Gap bool
	// Cursor is where the subscription stands after the event: a subscription
	// that starts there goes on with the next one.
	Cursor Cursor
}

// A Subscription brings the messages of a set of channels in log order. It
// holds no messages: a slow reader reads from the log where it stands.
//
// Next is for one goroutine at a time, Close for any.
type Subscription struct {
	closed atomic.Bool
	conn   *pump.Conn
	items  []pump.Item // of the last flush, not yet given
	cursor Cursor
}

// subscriptions is what all of them have in common.
var subscriptions = &pump.Kind{Silent: true, Whole: true}

// Subscribe starts a subscription. It must be closed.
func (h *Hub) Subscribe(ctx context.Context, o SubscribeOptions) (*Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if h.draining.Load() {
		return nil, ErrClosed
	}
	if len(o.Channels) == 0 {
		return nil, fmt.Errorf("halley: subscribe: %w: no channels", ErrInvalid)
	}
	channels := slices.Clone(o.Channels)
	slices.Sort(channels)
	channels = slices.Compact(channels)
	for _, name := range channels {
		if err := engine.CheckPattern(name); err != nil {
			return nil, fmt.Errorf("halley: subscribe: %w", err)
		}
	}
	end := h.engine.End()
	c := pump.ConnOptions{Kind: subscriptions, Channels: channels, After: o.Cursor}
	switch {
	case o.Earliest:
		c.After = Cursor{}
	case o.Cursor.IsZero():
		c.After = end
	}
	if len(o.From) > 0 {
		c.From = make([]Cursor, len(channels))
		for i, name := range channels {
			if c.From[i] = o.From[name]; c.From[i].Epoch == end.Epoch && c.From[i].Seq > end.Seq {
				return nil, fmt.Errorf("halley: subscribe: %w: From %v of %q is beyond the log's end", ErrInvalid, c.From[i], name)
			}
		}
		for name := range maps.Keys(o.From) {
			if !slices.Contains(channels, name) {
				return nil, fmt.Errorf("halley: subscribe: %w: From has %q, Channels have not", ErrInvalid, name)
			}
		}
	}
	return &Subscription{conn: h.pump.Join(c), cursor: c.After}, nil
}

// Next waits for the next event. It returns ctx's error when ctx ends first,
// after which it may be called again, and ErrClosed once the subscription or
// the hub is closed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		for len(s.items) > 0 && !s.closed.Load() {
			it := s.items[0]
			s.items = s.items[1:]
			switch {
			case it.Message != nil:
				s.cursor = it.Message.ID
				return Event{Message: it.Message, Cursor: s.cursor}, nil
			case it.Control.Kind == wire.Open:
				s.cursor = it.Control.ID
			case it.Control.Kind == wire.Gap:
				s.cursor = it.Control.ID
				return Event{Gap: true, Cursor: s.cursor}, nil
			case it.Control.Kind == wire.Reconnect:
				return Event{}, ErrClosed
			case it.Control.Kind == wire.Error:
				return Event{}, it.Control.Problem
			}
		}
		f, err := s.conn.Next(ctx)
		if s.closed.Load() {
			return Event{}, ErrClosed
		}
		if errors.Is(err, pump.ErrClosed) {
			return Event{}, ErrClosed
		}
		if err != nil {
			return Event{}, err
		}
		s.items = f.Items
	}
}

// Events yields what Next returns until ctx ends or the subscription does; the
// error it ends with is yielded last, but for ctx's.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := s.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					yield(Event{}, err)
				}
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Cursor returns where the subscription stands: after the last event that Next
// returned. It is for the goroutine that calls Next. Before the first event it
// may be the zero Cursor, if the subscription starts with the oldest message.
func (s *Subscription) Cursor() Cursor { return s.cursor }

// Close ends the subscription and a Next in progress. It returns nil.
func (s *Subscription) Close() error {
	s.closed.Store(true)
	s.conn.Leave()
	return nil
}
