package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// The simulations are up to a million connections of Halley's pump without
// sockets, in the process of the harness: with sockets, memory of the system
// and addresses on one machine end long before. All is the server's own but
// the system call, in whose place deliveries are counted.
var (
	simulationOne = Scenario{
		Name:  "simulation-one",
		About: "connections without sockets, in Halley's own pump: one channel that all follow",
		Cases: simulated,
		Suits: isHalley,
		Run:   runSimulationOne,
		Columns: append(slices.Clone(simulationColumns),
			Column{Key: "fanout", Title: "a message to all, ms", Digits: 2},
			Column{Key: "delivery", Title: "ns a delivery"},
			Column{Key: "lost", Title: "lost"},
			Column{Key: "doubled", Title: "doubled"}),
	}
	simulationEach = Scenario{
		Name:  "simulation-each",
		About: "connections without sockets, in Halley's own pump: a channel for each",
		Cases: simulated,
		Suits: isHalley,
		Run:   runSimulationEach,
		Columns: append(slices.Clone(simulationColumns),
			Column{Key: "p50", Title: "a message to one, p50 µs", Digits: 1},
			Column{Key: "p99", Title: "p99 µs", Digits: 1},
			Column{Key: "busy", Title: "µs each of 1,000 at once", Digits: 2},
			Column{Key: "lost", Title: "lost"},
			Column{Key: "doubled", Title: "doubled"}),
	}
	simulated         = sizes(1000, 10_000, 100_000, 1_000_000)
	simulationColumns = []Column{
		{Key: "bytes", Title: "heap bytes a connection"},
		{Key: "gc", Title: "forced GC ms", Digits: 1},
		{Key: "pause", Title: "of which all stands still, ms", Digits: 2},
		{Key: "join", Title: "all have joined, s", Digits: 2},
	}
)

func isHalley(p peers.Peer, _ Case) bool {
	h, ok := p.(*peers.Halley)
	return ok && !h.Epoll
}

const (
	simulatedRounds = 9   // messages to all
	simulatedOnes   = 500 // messages to one, each alone
	simulatedBatch  = 1000
)

// A simulation is a pump with its log and its simulated connections.
type simulation struct {
	log     *memory.Log
	pump    *pump.Pump
	conns   []*pump.Conn
	tallies []*tally // of the workers
	done    chan struct{}
	want    int64 // writes in all
	values  Values
}

// A tally is what one worker has written. It fills a cache line, so that
// workers do not wait for each other.
type tally struct {
	writes atomic.Int64
	wanted atomic.Int64 // when it is to tell
	last   atomic.Pointer[pump.Conn]
	_      [104]byte
}

// simulate has n connections join, and measures them.
func simulate(n int, channel func(int) string) (*simulation, error) {
	log, err := memory.New(memory.Options{})
	if err != nil {
		return nil, err
	}
	s := &simulation{log: log, conns: make([]*pump.Conn, n), values: Values{}}
	// No heartbeat falls into what is measured.
	workers := runtime.GOMAXPROCS(0)
	s.done = make(chan struct{}, workers)
	s.pump = pump.New(log, pump.Options{Workers: workers, Heartbeat: time.Hour})
	var kinds []*pump.Kind
	for range workers {
		t := new(tally)
		s.tallies = append(s.tallies, t)
		kinds = append(kinds, &pump.Kind{Framing: framing{}, Parked: pump.Parked{Write: func(c *pump.Conn, _ []byte) {
			t.last.Store(c)
			if t.writes.Add(1) == t.wanted.Load() {
				s.done <- struct{}{}
			}
		}}})
	}
	before := live()
	begin, after := time.Now(), log.End()
	err = s.run(s.all(), func() error { // each is sent its open control
		for i := range n {
			// The pump gives its workers connections in turn.
			s.conns[i] = s.pump.Park(pump.ConnOptions{
				Kind: kinds[i%workers], Channels: []string{channel(i)}, After: after,
			}, pump.Socket{FD: -1})
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, err
	}
	s.values["join"] = time.Since(begin).Seconds()
	s.values["bytes"] = float64(live()-before) / float64(n)
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	begin = time.Now()
	runtime.GC()
	s.values["gc"] = time.Since(begin).Seconds() * 1e3
	runtime.ReadMemStats(&is)
	s.values["pause"] = float64(is.PauseTotalNs-was.PauseTotalNs) / 1e6
	return s, nil
}

func (s *simulation) close() {
	s.pump.Close()
	s.log.Close()
}

// live returns the bytes of the heap that are in use.
func live() int64 {
	runtime.GC()
	runtime.GC() // what the first has found unused, and what waited for it
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// all returns a share of writes for each worker: one for each connection.
func (s *simulation) all() []int64 {
	shares := make([]int64, len(s.tallies))
	for i := range s.conns {
		shares[i%len(shares)]++
	}
	return shares
}

// run does something, and waits until the workers have written their shares.
func (s *simulation) run(shares []int64, do func() error) error {
	waiting := 0
	for i, t := range s.tallies {
		if shares[i] > 0 {
			t.wanted.Store(t.writes.Load() + shares[i])
			s.want += shares[i]
			waiting++
		}
	}
	if err := do(); err != nil {
		return err
	}
	timeout := time.After(patience)
	for range waiting {
		select {
		case <-s.done:
		case <-timeout:
			return fmt.Errorf("not all was written after %v", patience)
		}
	}
	return nil
}

// finish waits for what comes twice, and compares the count of writes.
func (s *simulation) finish() []Measure {
	time.Sleep(100 * time.Millisecond)
	got := int64(0)
	for _, t := range s.tallies {
		got += t.writes.Load()
	}
	s.values["lost"], s.values["doubled"] = float64(max(s.want-got, 0)), float64(max(got-s.want, 0))
	return []Measure{{Values: s.values}}
}

// publish publishes messages, and returns how long it took until the workers
// had written their shares.
func (s *simulation) publish(shares []int64, messages ...engine.Message) (time.Duration, error) {
	begin := time.Now()
	err := s.run(shares, func() error {
		_, err := s.log.Append(context.Background(), engine.Batch{Messages: messages})
		return err
	})
	return time.Since(begin), err
}

func runSimulationOne(_ peers.Peer, c Case, _ Config) ([]Measure, error) {
	s, err := simulate(c.Connections, func(int) string { return "news" })
	if err != nil {
		return nil, err
	}
	defer s.close()
	all := s.all()
	var times []float64
	for i := range simulatedRounds {
		took, err := s.publish(all, engine.Message{Channel: "news", ContentType: "text/plain", Data: load.Message(uint64(i), MessageSize)})
		if err != nil {
			return nil, err
		}
		times = append(times, took.Seconds())
	}
	slices.Sort(times)
	median := times[len(times)/2]
	s.values["fanout"] = median * 1e3
	s.values["delivery"] = median * 1e9 / float64(c.Connections)
	return s.finish(), nil
}

func runSimulationEach(_ peers.Peer, c Case, _ Config) ([]Measure, error) {
	name := func(i int) string { return fmt.Sprintf("user/%07d/inbox", i) }
	s, err := simulate(c.Connections, name)
	if err != nil {
		return nil, err
	}
	defer s.close()
	sequence := uint64(0)
	random := rand.New(rand.NewPCG(1, 2))
	message := func(i int) engine.Message {
		sequence++
		return engine.Message{Channel: name(i), ContentType: "text/plain", Data: load.Message(sequence, MessageSize)}
	}
	var times []float64
	for range simulatedOnes {
		i := random.IntN(c.Connections)
		shares := make([]int64, len(s.tallies))
		shares[i%len(shares)] = 1
		took, err := s.publish(shares, message(i))
		if err != nil {
			return nil, err
		}
		times = append(times, took.Seconds())
		if s.tallies[i%len(shares)].last.Load() != s.conns[i] {
			return nil, fmt.Errorf("a message to %s came to another connection", name(i))
		}
		time.Sleep(time.Millisecond)
	}
	slices.Sort(times)
	s.values["p50"] = times[len(times)/2] * 1e6
	s.values["p99"] = times[len(times)*99/100] * 1e6

	times = times[:0]
	for range simulatedRounds {
		// They go to different connections, from all over: those that come to
		// one at once would be one write.
		batch := make([]engine.Message, min(simulatedBatch, c.Connections))
		shares := make([]int64, len(s.tallies))
		first, step := random.IntN(c.Connections), c.Connections/len(batch)
		for i := range batch {
			to := (first + i*step) % c.Connections
			batch[i] = message(to)
			shares[to%len(shares)]++
		}
		took, err := s.publish(shares, batch...)
		if err != nil {
			return nil, err
		}
		times = append(times, took.Seconds()/float64(len(batch)))
	}
	slices.Sort(times)
	s.values["busy"] = times[len(times)/2] * 1e6
	return s.finish(), nil
}

// framing is the pump's part of server-sent events.
type framing struct{}

func (framing) Slot() int { return 0 }

func (framing) AppendMessage(dst []byte, m *engine.Message) []byte {
	dst = append(dst, "data: "...)
	dst = wire.AppendEnvelope(dst, m)
	dst = append(dst, "\nid: "...)
	return append(m.ID.Append(dst), "\n\n"...)
}

func (framing) AppendControl(dst []byte, c *wire.Control) []byte {
	return append(wire.AppendControl(dst, c), "\n\n"...)
}
