package scenario

import "github.com/halley-comet/halley/bench/peers"

// polls is held long polls that are answered and come again.
var polls = Scenario{
	Name:  "polls",
	About: "long polls: a cycle is an answer and the next request",
	Cases: sizes(1000),
	Suits: func(p peers.Peer, c Case) bool { return peers.Supports(p, "long-polling") && small(p, c) },
	Run:   runPolls,
	Columns: append([]Column{
		{Key: "cpu", Title: "CPU-s a million cycles", Digits: 1, Ratio: true},
		{Key: "rate", Title: "cycles/s"},
		{Key: "p50", Title: "p50 ms", Digits: 1},
		{Key: "p99", Title: "p99 ms", Digits: 1},
	}, faultColumns...),
}

func runPolls(p peers.Peer, c Case, config Config) ([]Measure, error) {
	return runCycles(p, c, config, "long-polling")
}

// runCycles publishes to polls of a transport.
func runCycles(p peers.Peer, c Case, config Config, transport string) ([]Measure, error) {
	if err := start(p, peers.Options{Polls: true}); err != nil {
		return nil, err
	}
	defer p.Stop()
	a, err := gather(p, transport, "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	// The first polls have no position: they must be held before the first
	// message.
	if _, err := settle(p); err != nil {
		return nil, err
	}
	for range 3 {
		if err := a.round(1); err != nil {
			return nil, err
		}
	}
	s, err := keep(p, a.Pool, config, func() error { return a.round(1) })
	if err != nil {
		return nil, err
	}
	a.Finish(all(a.next))
	return []Measure{{Values: faults(Values{
		"cpu":     s.cpu / s.delivered * 1e6,
		"per_cpu": s.delivered / s.cpu,
		"rate":    s.delivered / s.elapsed,
		"p50":     a.Latency.Quantile(0.5) / 1e6,
		"p99":     a.Latency.Quantile(0.99) / 1e6,
	}, a.Counts)}}, nil
}
