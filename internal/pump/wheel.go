package pump

import (
	"time"

	"github.com/halley-comet/halley/internal/wire"
)

// A wheel holds streams by the time when they are next looked at for a
// heartbeat. A stream that was sent something meanwhile is put back later, so
// that sending costs the wheel nothing.
type wheel struct {
	interval time.Duration // silence after which a stream gets a heartbeat
	tick     time.Duration
	slots    [wheelSlots][]*Conn
	start    time.Time // of tick 0, for the clock that is never set
	at       int64     // the last tick looked at
	count    int
}

const wheelSlots = 64

// newWheel makes a wheel that spans two heartbeats. Streams are served two
// ticks early, so that none waits longer than a heartbeat.
func newWheel(heartbeat time.Duration) wheel {
	tick := max(heartbeat*2/wheelSlots, time.Millisecond)
	return wheel{interval: max(heartbeat-2*tick, tick), tick: tick, start: time.Now()}
}

func (h *wheel) ticks(t time.Time) int64 { return int64(t.Sub(h.start) / h.tick) }

func (h *wheel) add(c *Conn, now time.Time) {
	if h.count == 0 {
		h.at = h.ticks(now)
	}
	due := max(h.ticks(c.lastSent.Add(h.interval)), h.at+1)
	due = min(due, h.at+wheelSlots-1)
	slot := &h.slots[due%wheelSlots]
	*slot = append(*slot, c)
	h.count++
}

// beat sends the heartbeats that are due, and returns how long the worker may
// sleep.
func (w *worker) beat() time.Duration {
	h := &w.wheel
	if h.count == 0 {
		return time.Hour
	}
	now := h.ticks(w.now)
	// After a long sleep of the machine one turn of the wheel sees all.
	for h.at = max(h.at, now-wheelSlots); h.at < now; {
		h.at++
		slot := &h.slots[h.at%wheelSlots]
		due := *slot
		*slot = nil
		h.count -= len(due)
		for _, c := range due {
			if c.state != gone {
				w.heartbeat(c)
				h.add(c, w.now)
			}
		}
	}
	if h.count == 0 {
		return time.Hour
	}
	return h.tick - w.now.Sub(h.start)%h.tick
}

// heartbeat sends a stream its position, if it was silent and has room. One
// without room has something on its way.
func (w *worker) heartbeat(c *Conn) {
	if c.ending != nil || w.now.Sub(c.lastSent) < w.wheel.interval-w.wheel.tick {
		return
	}
	if !c.room() {
		c.lastSent = w.now
		return
	}
	at := w.position(c)
	w.offer(c, Flush{Items: []Item{w.control(c, &wire.Control{Kind: wire.Heartbeat, ID: at})}, Position: at})
	c.sent = at
}
