package pump

import (
	"maps"
	"math"
	"slices"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// Classes is the number of classes of connections there may be: see Kind.Class.
const Classes = 8

// Stats tell what a pump has done since it was made, and what it has now.
type Stats struct {
	Classes [Classes]ClassStats
	// Visitors are connections that are subscribed to nothing.
	Visitors int
	// Lag is how many messages lie between the log's end and the position of
	// the connection that is furthest behind.
	Lag uint64
	// Gaps and Skips count the controls and answers that told of one.
	Gaps, Skips uint64
	// Slow is how often a client took no more, so that its connection fell
	// behind.
	Slow uint64
}

// ClassStats are those of one class.
type ClassStats struct {
	Connections int
	Opened      uint64
	// Ended counts by reason: one of Reasons, or the code of the problem that
	// the client was told.
	Ended map[string]uint64
	// Messages were handed to connections. Bytes are those of messages and
	// controls in the connections' framing. What a socket did not take of
	// messages is not counted.
	Messages, Bytes uint64
}

// Why a connection ended that was not told a problem.
const (
	clientLeft     = "client"        // the client has closed it, or has gone
	pollAnswered   = "answered"      // a poll is answered
	toldReconnect  = "reconnect"     // the client was told to come back
	timeLimit      = "time-limit"    // the time of its kind is over
	writeTimeout   = "write-timeout" // the client took nothing for too long
	tooMuchWaiting = "memory"        // too much waited for clients that took nothing
	restTrimmed    = "trimmed"       // the rest of a message was in the log no more
	pumpClosed     = "closed"        // the pump was closed
)

// Reasons are why a connection may have ended that was not told a problem.
var Reasons = []string{clientLeft, pollAnswered, toldReconnect, timeLimit, writeTimeout, tooMuchWaiting, restTrimmed, pumpClosed}

// counts are what a worker has done and has. They are plain numbers of the
// worker's own, since who wants to know them asks it. So a delivery pays for
// being counted with an addition, and waits for no other processor.
type counts struct {
	classes           [Classes]ClassStats
	visitors          int
	gaps, skips, slow uint64
}

func (w *worker) countsOf(c *Conn) *ClassStats { return &w.counts.classes[c.kind.Class%Classes] }

// handed counts what a connection is given. Joined are the bytes of items that
// are all messages, in one piece, if they are there.
func (w *worker) handed(c *Conn, items []Item, joined []byte) {
	n := w.countsOf(c)
	if joined != nil {
		n.Messages += uint64(len(items))
		n.Bytes += uint64(len(joined))
		return
	}
	for i := range items {
		if items[i].Message != nil {
			n.Messages++
		}
		n.Bytes += uint64(len(items[i].Bytes))
	}
}

// takenBack undoes handed for messages of which a socket took only so many
// bytes, and which will be read again.
func (w *worker) takenBack(c *Conn, pieces []piece, sent int) {
	n := w.countsOf(c)
	for _, p := range pieces {
		if p.message != nil && !p.prefix {
			n.Messages--
			n.Bytes -= uint64(len(p.bytes) - sent)
			sent = 0
		}
	}
}

// began and ended count a connection in and out.
func (w *worker) began(c *Conn) {
	n := w.countsOf(c)
	n.Connections++
	n.Opened++
}

func (w *worker) ended(c *Conn, why string) {
	n := w.countsOf(c)
	n.Connections--
	if n.Ended == nil {
		n.Ended = map[string]uint64{}
	}
	n.Ended[why]++
}

// reason returns why a connection ends that is handed its last flush.
func (c *Conn) reason() string {
	r := c.rare
	switch {
	case r != nil && r.ending != nil && r.ending.Kind == wire.Error:
		return string(r.ending.Problem.Code)
	case c.kind.Poll:
		return pollAnswered
	case r != nil && r.ending != nil:
		return toldReconnect
	case c.limit != 0:
		return timeLimit
	}
	return clientLeft // it said so, as WebSockets can
}

// Connections that are behind are in a list, which their rare have the links
// of, so that the one that is furthest behind can be found among a million.
type behindLinks struct{ before, after *Conn }

func (w *worker) listBehind(c *Conn) {
	r := c.rarely()
	if w.behind == c || r.links.before != nil {
		return
	}
	if r.links.after = w.behind; w.behind != nil {
		w.behind.rare.links.before = c
	}
	w.behind = c
}

func (w *worker) unlistBehind(c *Conn) {
	r := c.rare
	if r == nil || w.behind != c && r.links.before == nil {
		return
	}
	for _, s := range w.surveys {
		if s.next == c {
			s.next = r.links.after
		}
	}
	if r.links.before == nil {
		w.behind = r.links.after
	} else {
		r.links.before.rare.links.after = r.links.after
	}
	if r.links.after != nil {
		r.links.after.rare.links.before = r.links.before
	}
	r.links = behindLinks{}
}

// A survey collects what a worker's counts are.
type survey struct {
	next   *Conn  // of the list of those behind
	oldest uint64 // sequence of the position furthest behind
	counts counts
	lag    uint64
	done   chan struct{} // closed when counts and lag are set
}

// surveySlice is how many connections a survey looks at in a turn.
const surveySlice = 4096

func (w *worker) runSurvey() bool {
	if len(w.surveys) == 0 {
		return false
	}
	s, end := w.surveys[0], w.pump.engine.End()
	for range surveySlice {
		if s.next == nil {
			break
		}
		r := s.next.rare
		if r.cursor.Epoch == end.Epoch { // else it will be told a gap, and starts anew
			s.oldest = min(s.oldest, r.cursor.Seq)
		}
		s.next = r.links.after
	}
	if s.next == nil {
		w.endSurvey(s, end)
		w.surveys = slices.Delete(w.surveys, 0, 1)
	}
	return true
}

func (w *worker) endSurvey(s *survey, end engine.Cursor) {
	if w.count > 0 && w.pos.Epoch == end.Epoch {
		s.oldest = min(s.oldest, w.pos.Seq)
	}
	for _, f := range w.fanouts {
		if m := f.after(0); m != nil {
			s.oldest = min(s.oldest, m.ID.Seq-1)
		}
	}
	s.lag = end.Seq - min(s.oldest, end.Seq)
	s.counts = w.counts.clone()
	close(s.done)
}

func (n *counts) clone() counts {
	c := *n
	for i := range c.classes {
		c.classes[i].Ended = maps.Clone(c.classes[i].Ended)
	}
	return c
}

// Stats asks every worker for its counts, which each answers between two
// turns.
func (p *Pump) Stats() Stats {
	var surveys []*survey
	for _, w := range p.workers {
		s := &survey{oldest: math.MaxUint64, done: make(chan struct{})}
		w.inbox.put(command{do: func(w *worker, _ *Conn) {
			s.next = w.behind
			w.surveys = append(w.surveys, s)
		}})
		surveys = append(surveys, s)
	}
	var sum Stats
	for i, w := range p.workers {
		s := surveys[i]
		select {
		case <-s.done:
		case <-w.gone:
			s = &survey{counts: w.counts.clone()} // it has nobody any more
		}
		sum.add(s)
	}
	return sum
}

func (s *Stats) add(of *survey) {
	for i := range s.Classes {
		to, n := &s.Classes[i], &of.counts.classes[i]
		to.Connections += n.Connections
		to.Opened += n.Opened
		to.Messages += n.Messages
		to.Bytes += n.Bytes
		for why, k := range n.Ended {
			if to.Ended == nil {
				to.Ended = map[string]uint64{}
			}
			to.Ended[why] += k
		}
	}
	s.Visitors += of.counts.visitors
	s.Lag = max(s.Lag, of.lag)
	s.Gaps += of.counts.gaps
	s.Skips += of.counts.skips
	s.Slow += of.counts.slow
}
