package pump

import (
	"maps"
	"slices"

	"github.com/halley-comet/halley/engine"
)

// Alter adds channels to a poll, each with a start of its own, and removes
// others; what is removed and not there is ignored. A channel that it has
// starts again. Done is called by the worker once that holds for the poll's
// answer, and never if the poll is over before.
func (c *Conn) Alter(add map[string]engine.Cursor, remove []string, done func()) {
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		if c.state != gone && !c.ending() {
			w.alter(c, add, remove)
			done()
		}
	}})
}

// alter has the log read again from the earliest start. Of the poll's other
// channels nothing was handed over, so they go on from where it stands.
func (w *worker) alter(c *Conn, add map[string]engine.Cursor, remove []string) {
	at, epoch := w.position(c), w.pump.engine.End().Epoch
	starts := make(map[string]engine.Cursor, len(c.set.names())+len(add))
	for i, name := range c.set.names() {
		starts[name] = at
		if r := c.rare; c.state == behind && r != nil && r.from != nil && Earlier(at, r.from[i], epoch) {
			starts[name] = r.from[i]
		}
	}
	for _, name := range remove {
		delete(starts, name)
	}
	maps.Copy(starts, add)
	names := slices.Sorted(maps.Keys(starts))
	after := at
	for i, name := range names {
		if start := starts[name]; i == 0 || Earlier(start, after, epoch) {
			after = start
		}
	}
	from := make([]engine.Cursor, len(names))
	for i, name := range names {
		from[i] = starts[name]
	}
	w.index.remove(c)
	w.index.add(c, names)
	r := c.rarely()
	r.reads++
	r.from = from
	w.fallBehind(c, after)
}

// Earlier tells whether a position comes before another in a log's present
// epoch. One of another epoch comes before all.
func Earlier(a, b engine.Cursor, epoch string) bool {
	return b.Epoch == epoch && (a.Epoch != epoch || a.Seq < b.Seq)
}
