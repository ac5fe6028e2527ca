package pump

import (
	"math/bits"
	"time"

	"github.com/halley-comet/halley/internal/wire"
)

// A wheel holds connections by the tick when they are next looked at: for a
// heartbeat, the end of a poll, or a client that takes nothing. A connection
// that was sent something meanwhile is put back later, so that sending costs
// the wheel nothing.
type wheel struct {
	tick  time.Duration
	start time.Time // of tick 0, for the clock that is never set
	at    uint32    // the last tick looked at
	lists [wheelSlots]*Conn
	some  [wheelSlots / 64]uint64 // a bit for each list that is not empty
	count int
}

const wheelSlots = 1 << 13

// newWheel makes a wheel that is exact to a 64th of a heartbeat, and to 10 ms.
func newWheel(heartbeat time.Duration) *wheel {
	return &wheel{tick: min(max(heartbeat/64, time.Millisecond), 10*time.Millisecond), start: time.Now()}
}

func (h *wheel) ticks(t time.Time) uint32 { return uint32(t.Sub(h.start) / h.tick) }

// span returns a duration in ticks, at least one.
func (h *wheel) span(d time.Duration) uint32 { return uint32(max(d/h.tick, 1)) }

// set has a connection looked at by tick due, or earlier.
func (h *wheel) set(c *Conn, due uint32) {
	if c.is(onWheel) {
		if int32(c.due-due) <= 0 {
			return
		}
		h.remove(c)
	}
	// What is further away than the wheel reaches is looked at on the way.
	c.due = h.at + uint32(min(max(int32(due-h.at), 1), wheelSlots-1))
	slot := c.due % wheelSlots
	c.before, c.after = nil, h.lists[slot]
	if c.after != nil {
		c.after.before = c
	}
	h.lists[slot] = c
	h.some[slot/64] |= 1 << (slot % 64)
	h.count++
	c.on(onWheel)
}

func (h *wheel) remove(c *Conn) {
	if !c.is(onWheel) {
		return
	}
	slot := c.due % wheelSlots
	if c.before == nil {
		h.lists[slot] = c.after
	} else {
		c.before.after = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	if h.lists[slot] == nil {
		h.some[slot/64] &^= 1 << (slot % 64)
	}
	c.before, c.after = nil, nil
	h.count--
	c.off(onWheel)
}

// next returns the first tick after at whose list is not empty; at most so
// many ticks later.
func (h *wheel) next(limit uint32) uint32 {
	for i := uint32(1); i <= limit; {
		slot := (h.at + i) % wheelSlots
		if rest := h.some[slot/64] >> (slot % 64); rest != 0 {
			return h.at + min(i+uint32(bits.TrailingZeros64(rest)), limit)
		}
		i += 64 - slot%64
	}
	return h.at + limit
}

// sleep returns how long it is until something may be due.
func (h *wheel) sleep(now time.Time) time.Duration {
	if h.count == 0 {
		return time.Hour
	}
	due := h.start.Add(time.Duration(h.next(wheelSlots)) * h.tick)
	return max(due.Sub(now), 0)
}

// beat does what is due.
func (w *worker) beat() {
	h := w.wheel
	now := h.ticks(w.now)
	for h.at != now {
		if h.count == 0 {
			h.at = now
			break
		}
		h.at = h.next(now - h.at)
		for c := h.lists[h.at%wheelSlots]; c != nil; c = h.lists[h.at%wheelSlots] {
			h.remove(c)
			w.due(c)
		}
	}
}

// due does what has become due for a connection, and puts it back on the
// wheel.
func (w *worker) due(c *Conn) {
	silent := w.wheel.at - c.touched
	switch {
	case c.is(closing):
		if silent >= w.goodbye(c) {
			w.closeSocket(c)
		} else { // it was on the wheel for something else
			w.wheel.set(c, c.touched+w.goodbye(c))
		}
		return
	case c.state == gone:
		return
	case c.state == visiting && !c.is(blocked):
		if c.kind.Limit > 0 && silent >= w.wheel.span(c.kind.Limit) {
			w.leave(c)
			return
		}
	case c.kind.Poll:
		if int32(w.wheel.at-c.touched) >= 0 {
			w.expire(c)
		}
	case c.is(blocked) && silent >= w.patience:
		w.cut(c, writeTimeout)
		return
	case c.limit != 0 && int32(w.wheel.at-c.limit) >= 0:
		c.limit = 0
		switch {
		case c.ending(): // and its client does not take the reason
			w.cut(c, c.reason())
			return
		case w.drained != nil:
			w.sendAway(c)
		default:
			w.end(c, nil)
		}
	case c.is(blocked):
	case silent >= w.silence:
		w.heartbeat(c)
	}
	w.keepTime(c)
}

// keepTime puts a connection on the wheel for what is next due for it.
func (w *worker) keepTime(c *Conn) {
	switch {
	case c.state == gone:
	case c.state == visiting && !c.is(blocked):
		if c.kind.Limit > 0 {
			w.wheel.set(c, c.touched+w.wheel.span(c.kind.Limit))
		}
	case c.kind.Poll:
		if !c.is(expired) {
			w.wheel.set(c, c.touched)
		}
	default:
		if c.is(blocked) {
			w.wheel.set(c, c.touched+w.patience)
		} else if c.is(opened) && !c.kind.Silent {
			w.wheel.set(c, c.touched+w.silence)
		}
		if c.limit != 0 {
			w.wheel.set(c, c.limit)
		}
	}
}

// goodbye returns for how many ticks a connection that is closing may leave its
// last bytes in the worker's hands, or its own side open.
func (w *worker) goodbye(c *Conn) uint32 {
	if c.is(blocked) {
		return w.patience
	}
	return w.linger
}

// heartbeat sends a stream its position, if it has room. One without room has
// something on its way.
func (w *worker) heartbeat(c *Conn) {
	c.touched = w.wheel.at
	if c.kind.Silent || !c.is(opened) || c.ending() || !c.room() || c.cut() {
		return
	}
	at := w.position(c)
	w.offer(c, Flush{Items: []Item{*w.control(c, &wire.Control{Kind: wire.Heartbeat, ID: at})}, Position: at})
	c.sent = at
}
