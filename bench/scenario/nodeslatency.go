package scenario

import (
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// nodesLatency is the way of a message from one node to clients of another.
var nodesLatency = Scenario{
	Name:  "nodes-latency",
	About: "published by HTTP to one node, delivered by another; a message every 20 ms, acknowledged or not",
	Cases: sizes(1, 1000),
	Nodes: true,
	Suits: func(peers.Peer, Case) bool { return true },
	Run:   runNodesLatency,
	Columns: append([]Column{
		{Key: "p50", Title: "p50 ms", Digits: 2, Ratio: true},
		{Key: "p99", Title: "p99 ms", Digits: 2, Ratio: true},
		{Key: "worst", Title: "worst ms", Digits: 1},
		{Key: "cpu", Title: "CPU ms a message, all processes", Digits: 2},
	}, faultColumns...),
	Against: []string{"centrifuge-redis"},
	Sizes:   "clients",
}

const (
	nodesPause = 20 * time.Millisecond
	nodesTime  = 15 * time.Second
)

func runNodesLatency(p peers.Peer, c Case, config Config) ([]Measure, error) {
	if err := start(p, peers.Options{Dir: config.Dir}); err != nil {
		return nil, err
	}
	defer p.Stop()
	a, err := gather(p, c.Transport, "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	for range 50 {
		if err := a.round(1); err != nil {
			return nil, err
		}
	}
	before, err := p.Usage()
	if err != nil {
		return nil, err
	}
	a.Latency.Reset()
	begin, first := time.Now(), a.next
	length := min(nodesTime, config.Limit)
	if err := a.publishEvery(nodesPause, func() bool { return time.Since(begin) >= length }); err != nil {
		return nil, err
	}
	if err := a.Until(a.settled, patience); err != nil {
		return nil, err
	}
	after, err := p.Usage()
	if err != nil {
		return nil, err
	}
	a.Finish(all(a.next))
	return []Measure{{Values: faults(Values{
		"p50":   a.Latency.Quantile(0.5) / 1e6,
		"p99":   a.Latency.Quantile(0.99) / 1e6,
		"worst": a.Latency.Max() / 1e6,
		"cpu":   (after.CPU - before.CPU).Seconds() * 1e3 / float64(a.next-first),
	}, a.Counts)}}, nil
}
