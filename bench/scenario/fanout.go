package scenario

import "github.com/halley-comet/halley/bench/peers"

// fanout is one channel that all follow, in a closed loop: the next message is
// published when all have the one before.
var fanout = Scenario{
	Name:  "fanout",
	About: "CPU of a delivery, deliveries a second, latency: one message, or ten at once, to all",
	Cases: sizes(1000, 5000, 15000),
	Suits: small,
	Run:   runFanout,
	Columns: append([]Column{
		{Key: "cpu", Title: "CPU-s a million deliveries", Digits: 2, Ratio: true},
		{Key: "rate", Title: "deliveries/s"},
		{Key: "p50", Title: "p50 ms", Digits: 1},
		{Key: "p99", Title: "p99 ms", Digits: 1},
	}, faultColumns...),
}

func runFanout(p peers.Peer, c Case, config Config) ([]Measure, error) {
	if err := start(p, peers.Options{}); err != nil {
		return nil, err
	}
	defer p.Stop()
	a, err := gather(p, c.Transport, "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var measures []Measure
	for _, burst := range []int{1, 10} {
		for range 3 {
			if err := a.round(burst); err != nil {
				return nil, err
			}
		}
		s, err := keep(p, a.Pool, config, func() error { return a.round(burst) })
		if err != nil {
			return nil, err
		}
		a.Finish(all(a.next))
		measures = append(measures, Measure{Burst: burst, Values: faults(Values{
			"cpu":  s.cpu / s.delivered * 1e6,
			"rate": s.delivered / s.elapsed,
			"p50":  a.Latency.Quantile(0.5) / 1e6,
			"p99":  a.Latency.Quantile(0.99) / 1e6,
		}, a.Counts)})
	}
	return measures, nil
}
