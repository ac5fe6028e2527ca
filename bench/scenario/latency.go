package scenario

import (
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// latency is the way of one message to one subscriber, with nothing else to do.
var latency = Scenario{
	Name:  "latency",
	About: "publish to delivery, one subscriber on an idle server",
	Cases: func(Config) []Case { return []Case{{Connections: 1}} },
	Suits: small,
	Run:   runLatency,
	Columns: append([]Column{
		{Key: "p50", Title: "median µs", Ratio: true},
		{Key: "p99", Title: "p99 µs", Ratio: true},
	}, faultColumns...),
}

func runLatency(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	if err := start(p, peers.Options{}); err != nil {
		return nil, err
	}
	defer p.Stop()
	a, err := gather(p, c.Transport, "a", 1)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	for i := range 2200 {
		if i == 200 {
			a.Latency.Reset()
		}
		if err := a.round(1); err != nil {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
	a.Finish(all(a.next))
	return []Measure{{Values: faults(Values{
		"p50": a.Latency.Quantile(0.5) / 1e3,
		"p99": a.Latency.Quantile(0.99) / 1e3,
	}, a.Counts)}}, nil
}
