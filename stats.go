package halley

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// Stats tell what a hub has done since it was made, and what it has now. Counts
// only rise. Package metrics has them for Prometheus.
type Stats struct {
	// Transports are by name. "go" are the program's own subscriptions.
	Transports map[string]TransportStats
	// Visitors are connections that [Hub.Front] holds and that are subscribed
	// to nothing: they have sent no request yet, or are between two.
	Visitors int
	// Lag is how many messages lie between the log's end and the position of
	// the connection that is furthest behind, be it slow or on its way back
	// from an old cursor.
	Lag uint64
	// Gaps and Skips are how often clients were told that messages may be
	// missing, or were left out for them.
	Gaps, Skips uint64
	// Slow is how often a client took no more, or not soon enough, so that its
	// connection fell behind.
	Slow uint64

	// Published counts messages that were stored, and PublishedBytes their
	// data. Repeats under a key are none.
	Published, PublishedBytes uint64
	// Publish is the time from a whole request to its acknowledgement, and
	// Append the engine's part of it.
	Publish, Append Histogram
	// AppendFailures counts batches that the engine did not store though it
	// should have: it was unavailable, or failed, or took too long.
	AppendFailures uint64
	// Refused counts what clients were refused, by the code of the problem.
	Refused map[string]uint64
}

// TransportStats are those of a transport's connections.
type TransportStats struct {
	// Connections are held now.
	Connections int
	Opened      uint64
	// Ended counts by reason: "client" (it has closed the connection, or is
	// gone), "answered" (a poll), "reconnect" (it was told to come back),
	// "time-limit" (Options.MultipartLimit), "write-timeout", "memory" (too
	// much waited for clients that took nothing), "trimmed" (it was cut in a
	// message that retention took), "closed" (the hub), or the code of the
	// problem that it was told.
	Ended map[string]uint64
	// Messages were handed to connections, each counted for each. Bytes are
	// those of messages and controls as the transport writes them, without
	// what is around them: heads, chunks of HTTP/2, TLS.
	Messages, Bytes uint64
}

// A Histogram tells how many of some durations were how long.
type Histogram struct {
	// Counts are of durations up to that of Bounds at the same place. The last,
	// for which there is none, is of longer ones. They are not cumulative.
	Counts []uint64
	Bounds []time.Duration
	Sum    time.Duration
}

// Stats returns what there is to be known now. It costs deliveries nothing, and
// waits for each worker to come to the end of what it is doing.
func (h *Hub) Stats() Stats {
	p := h.pump.Stats()
	s := Stats{
		Transports: map[string]TransportStats{"go": transportStats(&p.Classes[0])},
		Visitors:   p.Visitors, Lag: p.Lag, Gaps: p.Gaps, Skips: p.Skips, Slow: p.Slow,
		Published: h.meters.messages.Load(), PublishedBytes: h.meters.bytes.Load(),
		Publish: h.meters.publish.read(), Append: h.meters.append.read(), AppendFailures: h.meters.failures.Load(),
		Refused: map[string]uint64{},
	}
	for _, name := range transport.Names {
		s.Transports[name] = transportStats(&p.Classes[transport.Class(name)])
	}
	for code, n := range h.meters.refused {
		s.Refused[string(code)] = n.Load()
	}
	return s
}

func transportStats(c *pump.ClassStats) TransportStats {
	return TransportStats{Connections: c.Connections, Opened: c.Opened, Ended: c.Ended, Messages: c.Messages, Bytes: c.Bytes}
}

// Ready returns nil if the hub takes subscribers and publishers, and else why
// it does not: it drains or is closed, or its engine has stopped.
func (h *Hub) Ready() error {
	if h.draining.Load() {
		return errDraining
	}
	if e, ok := h.engine.(engine.Stopper); ok {
		return e.Err()
	}
	return nil
}

var errDraining = errors.New("halley: draining")

// meters are what a hub counts itself.
type meters struct {
	messages, bytes, failures atomic.Uint64
	publish, append           histogram
	refused                   map[wire.Code]*atomic.Uint64 // has all codes, and does not change
}

func newMeters() *meters {
	m := &meters{refused: map[wire.Code]*atomic.Uint64{}}
	for _, code := range wire.Codes() {
		m.refused[code] = new(atomic.Uint64)
	}
	return m
}

// appended counts a batch that was handed to the engine.
func (m *meters) appended(began time.Time, b *Batch, r *Receipt, err error) {
	switch {
	case err == nil:
		m.append.observe(time.Since(began))
		if r.Repeated {
			return
		}
		size := 0
		for i := range b.Messages {
			size += len(b.Messages[i].Data)
		}
		m.messages.Add(uint64(len(b.Messages)))
		m.bytes.Add(uint64(size))
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge), errors.Is(err, ErrKeyReused):
	default:
		m.failures.Add(1)
	}
}

func (m *meters) refuse(p *wire.Problem) {
	if n := m.refused[p.Code]; n != nil {
		n.Add(1)
	}
}

// refuse answers a request with a problem.
func (h *Hub) refuse(w http.ResponseWriter, p *wire.Problem) {
	h.meters.refuse(p)
	p.Write(w)
}

// bounds are those of every histogram: a publish takes some 10 µs in memory,
// and seconds on a disk in trouble.
var bounds = []time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

type histogram struct {
	counts [20]atomic.Uint64 // one more than bounds
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() Histogram {
	r := Histogram{Bounds: bounds, Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		r.Counts[i] = h.counts[i].Load()
	}
	return r
}
