package stores

import (
	"context"
	"fmt"
	"sort"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// Halley is a log of this repository.
type Halley struct {
	*disk.Log
}

// NewHalley returns the kind with these options.
func NewHalley(name string, options disk.Options) Kind {
	open := func(dir string, o disk.Options) (Store, error) {
		log, err := disk.Open(dir, o)
		if err != nil {
			return nil, err
		}
		return Halley{log}, nil
	}
	return Kind{
		Name:    name,
		Version: (&peers.Halley{}).Version,
		Open:    func(dir string) (Store, error) { return open(dir, options) },
		OpenToFill: func(dir string) (Store, error) {
			filling := options
			filling.Fsync = disk.Never
			return open(dir, filling)
		},
	}
}

// Publisher implements [Store].
func (h Halley) Publisher() (func(Message) error, error) {
	return func(m Message) error { return h.Fill([]Message{m}) }, nil
}

// Fill implements [Store].
func (h Halley) Fill(messages []Message) error {
	_, err := h.Append(context.Background(), batch(messages))
	return err
}

// Stored implements [Store].
func (h Halley) Stored() (uint64, error) { return h.End().Seq, nil }

// Read implements [Reader].
func (h Halley) Read(channels []string, page int) (messages, bytes int, err error) {
	return h.ReadFrom(engine.Cursor{}, channels, page)
}

// Held returns the oldest position after which the log has all in memory.
func (h Halley) Held() engine.Cursor {
	at := h.End()
	var room [1]*engine.Message
	at.Seq = uint64(sort.Search(int(at.Seq), func(seq int) bool {
		_, ok := h.Tail(engine.Cursor{Epoch: at.Epoch, Seq: uint64(seq)}, room[:0])
		return ok
	}))
	return at
}

// ReadFrom reads what follows a cursor.
func (h Halley) ReadFrom(after engine.Cursor, channels []string, page int) (messages, bytes int, err error) {
	for {
		p, err := h.Log.Read(context.Background(), engine.Query{Channels: channels, After: after, Limit: page})
		if err != nil {
			return messages, bytes, err
		}
		if p.Gap {
			return messages, bytes, fmt.Errorf("a gap after %v", after)
		}
		messages += len(p.Messages)
		for _, m := range p.Messages {
			bytes += len(m.Data)
		}
		if !p.More {
			return messages, bytes, nil
		}
		after = p.End
	}
}
