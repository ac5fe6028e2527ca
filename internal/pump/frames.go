package pump

import (
	"sync"
	"sync/atomic"

	"github.com/halley-comet/halley/engine"
)

// frames holds the encoded bytes of recent messages, so that each is encoded
// once for each framing, whichever worker needs it first. A message's place
// follows from its sequence, and a newer message takes an older one's.
type frames struct {
	max   int64 // bytes held at most
	bytes atomic.Int64
	slots [frameSlots]atomic.Pointer[frameSet]
}

const frameSlots = 1 << 12

// A frameSet is one message in each of the framings that were asked for.
type frameSet struct {
	id engine.Cursor

	mu      sync.Mutex
	size    int64   // guarded by mu
	evicted bool    // guarded by mu: size no longer counts
	frames  []frame // guarded by mu; of the few that are in use
}

type frame struct {
	slot  int
	bytes []byte
}

// of returns the frame of a slot, nil if there is none yet.
func (s *frameSet) of(slot int) []byte {
	for i := range s.frames {
		if s.frames[i].slot == slot {
			return s.frames[i].bytes
		}
	}
	return nil
}

func newFrames(max int64) *frames { return &frames{max: max} }

// get returns the message's bytes in a framing.
func (t *frames) get(f Framing, m *engine.Message) []byte {
	s := t.set(m.ID)
	if s == nil {
		return f.AppendMessage(nil, m)
	}
	s.mu.Lock()
	b := s.of(f.Slot())
	if b == nil {
		b = f.AppendMessage(make([]byte, 0, 160+len(m.Data)+len(m.Data)/4), m)
		if b == nil {
			b = []byte{}
		}
		s.frames = append(s.frames, frame{f.Slot(), b})
		if !s.evicted {
			s.size += int64(cap(b))
			t.bytes.Add(int64(cap(b)))
		}
	}
	s.mu.Unlock()
	if t.bytes.Load() > t.max {
		t.evict(m.ID.Seq)
	}
	return b
}

// set returns the message's place, or nil if a newer message has it.
func (t *frames) set(id engine.Cursor) *frameSet {
	slot := &t.slots[id.Seq%frameSlots]
	for {
		old := slot.Load()
		if old != nil && old.id == id {
			return old
		}
		if old != nil && old.id.Epoch == id.Epoch && old.id.Seq > id.Seq {
			return nil
		}
		s := &frameSet{id: id}
		if slot.CompareAndSwap(old, s) {
			t.forget(old)
			return s
		}
	}
}

// evict drops frames, those of the oldest messages first, down to max.
func (t *frames) evict(newest uint64) {
	for i := uint64(1); i < frameSlots && t.bytes.Load() > t.max; i++ {
		slot := &t.slots[(newest+i)%frameSlots]
		if s := slot.Load(); s != nil && slot.CompareAndSwap(s, nil) {
			t.forget(s)
		}
	}
}

func (t *frames) forget(s *frameSet) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.evicted = true
	t.bytes.Add(-s.size)
	s.mu.Unlock()
}
