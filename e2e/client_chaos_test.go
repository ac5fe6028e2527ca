package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/chaos"
)

// How much chaos there is, without and with HALLEY_CHAOS=full.
type extent struct {
	messages                    int
	rounds                      int // of every fault
	shortest, longest, recovery time.Duration
	publishes                   int // by each client
}

var (
	bounded = extent{messages: 2500, rounds: 1, shortest: 800 * time.Millisecond, longest: 1600 * time.Millisecond,
		recovery: time.Second, publishes: 20}
	full = extent{messages: 10_000, rounds: 3, shortest: time.Second, longest: 6 * time.Second,
		recovery: 3 * time.Second, publishes: 100}
)

// Whatever the network does, every client has every message once and in order:
// one for each transport and nothing else, one with the whole ladder, and two
// tabs that share a connection. What the clients publish meanwhile is stored
// once. The faults and their order are those of a seed, HALLEY_CHAOS_SEED; what
// they meet is a matter of time.
func TestClientChaos(t *testing.T) {
	seed := rand.Uint64()
	if given := os.Getenv("HALLEY_CHAOS_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	e := bounded
	if os.Getenv("HALLEY_CHAOS") == "full" {
		e = full
	}
	t.Logf("HALLEY_CHAOS_SEED=%d", seed)
	everywhere(t, seed, []string{"--heartbeat", heartbeat.String()}, func(t *testing.T, s *site) {
		const channels = 20
		tr := &traffic{site: s}
		for i := range channels {
			tr.channels = append(tr.channels, fmt.Sprintf("chaos/%d", i))
		}
		recorders := s.crowd(tr, e)
		s.await(recorders, patience, "open", func(state recordState) bool { return state.State == "open" })

		steps := chaos.Schedule(seed, e.rounds, e.shortest, e.longest, e.recovery)
		var length time.Duration
		for _, step := range steps {
			length += step.For + step.Recovery
		}
		stop := tr.start(float64(e.messages) / length.Seconds())
		for _, step := range steps {
			end := s.proxy.Begin(step.Kind)
			time.Sleep(step.For)
			end()
			ended := tr.count()
			time.Sleep(step.Recovery)
			// A fault is held to account for what it did, so the next one
			// waits, though not for ever.
			s.watch(recorders, patience, func(state recordState) bool { return state.Next >= ended })
		}
		if rest := e.messages - stop(); rest > 0 {
			if err := tr.batch(t.Context(), rest); err != nil {
				t.Fatal(err)
			}
		}
		total := tr.count()
		s.await(recorders, time.Minute, "every message", func(state recordState) bool { return state.Next >= total })
		calm := time.Now()
		s.await(recorders, 2*time.Minute, "every publish", func(state recordState) bool { return state.Published >= e.publishes })
		t.Logf("%s: every publish was done %v after the last message", s.name, time.Since(calm).Round(100*time.Millisecond))
		time.Sleep(2 * heartbeat) // what comes twice may come late
		s.check(recorders, total)
		want := make([]int, e.publishes)
		for i := range want {
			want[i] = i
		}
		for _, r := range recorders {
			if got := s.history("by/" + r.name); !slices.Equal(got, want) {
				t.Errorf("%s: stored are %v, want 0 to %d once and in order", r.name, got, e.publishes-1)
			}
		}
		s.reportChaos(recorders, tr)
	})
}

// crowd opens the clients.
func (s *site) crowd(tr *traffic, e extent) []*recorder {
	s.t.Helper()
	cursor := s.server.cursor()
	base := func(name string, number int) recording {
		return recording{Name: name, Mount: s.mount(number), Channels: []string{"chaos/*"}, Cursor: cursor, Times: true,
			Publish: map[string]any{"channel": "by/" + name, "count": e.publishes, "pause": 50}}
	}
	p := s.open(s.t)
	names := s.transports(p)
	var recorders []*recorder
	for i, name := range names {
		r := base(name, i)
		r.Transports = []string{name}
		r.Channels = tr.channels
		recorders = append(recorders, s.record(p, r))
	}
	recorders = append(recorders, s.record(p, base("ladder", len(names))))
	if s.name != "node" {
		for i := range 2 {
			r := base(fmt.Sprintf("tab-%d", i), 0)
			r.Share = true
			recorders = append(recorders, s.record(s.open(s.t), r))
		}
	}
	return recorders
}

// reportChaos tells, of each kind of fault, how long clients were behind: after
// the fault was over, and at most while it lasted.
func (s *site) reportChaos(recorders []*recorder, tr *traffic) {
	s.t.Helper()
	after, during := make(map[chaos.Kind][]time.Duration), make(map[chaos.Kind][]time.Duration)
	for _, r := range recorders {
		times := r.times()
		for _, w := range s.proxy.Windows() {
			after[w.Kind] = append(after[w.Kind], tr.caughtUp(times, w.End))
			during[w.Kind] = append(during[w.Kind], tr.latest(times, w.Begin, w.End))
		}
		s.t.Logf("%s: %s opened %v", s.name, r.name, r.state().Opened)
	}
	for _, kind := range chaos.Kinds {
		s.t.Logf("%s: %-12s caught up after its end: %-32s latest message: %s", s.name, kind, spread(after[kind]), spread(during[kind]))
	}
}
