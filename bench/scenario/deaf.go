package scenario

import (
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

const (
	deafConnections = 100
	deafMessage     = 8 << 10
	deafBound       = 64 << 20 // bytes of messages that a server may keep
	deafBatch       = 16
	deafRounds      = 1000
)

// deaf is connections that never read, next to some that do.
var deaf = Scenario{
	Name:  "never-reading",
	About: "100 connections that never read, while 1 GB is published (or what the time allows), and what 100 others notice",
	Cases: func(Config) []Case { return []Case{{Connections: deafConnections}} },
	Suits: small,
	Run:   runDeaf,
	Columns: append([]Column{
		{Key: "published", Title: "published next to them, MB"},
		{Key: "growth_without", Title: "memory growth without them, MB"},
		{Key: "growth", Title: "with them, MB"},
		{Key: "because", Title: "because of them, MB", Digits: 1},
		{Key: "p99_without", Title: "p99 ms of readers without them", Digits: 2},
		{Key: "p99_with", Title: "with them", Digits: 2},
	}, faultColumns...),
}

func runDeaf(p peers.Peer, c Case, config Config) ([]Measure, error) {
	if err := start(p, peers.Options{Bound: deafBound}); err != nil {
		return nil, err
	}
	defer p.Stop()
	before, err := settle(p)
	if err != nil {
		return nil, err
	}
	without, err := volume(p, config)
	if err != nil {
		return nil, err
	}

	readers, err := gather(p, "", "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer readers.Close()
	readers.size = deafMessage
	values := Values{"growth_without": float64(without.peak-before) / 1e6}
	listen := func(key string) error {
		readers.Latency.Reset()
		for range deafRounds {
			if err := readers.round(1); err != nil {
				return err
			}
		}
		values[key] = readers.Latency.Quantile(0.99) / 1e6
		return nil
	}
	if err := listen("p99_without"); err != nil {
		return nil, err
	}
	if err := readers.SubscribeDeaf(c.Connections, readers.dialog("")); err != nil {
		return nil, err
	}
	if err := listen("p99_with"); err != nil {
		return nil, err
	}
	readers.Finish(all(readers.next))
	readers.Cut()

	with, err := volume(p, config)
	if err != nil {
		return nil, err
	}
	values["growth"] = float64(with.peak-before) / 1e6
	values["published"] = float64(with.published) / 1e6
	values["because"] = max(0, float64(with.peak-without.peak)/1e6)
	return []Measure{{Values: faults(values, sum(readers.Counts, without.counts, with.counts))}}, nil
}

// A flood is what a volume of messages did to a server.
type flood struct {
	published int   // bytes
	peak      int64 // the most memory that the server had meanwhile
	counts    load.Counts
}

// volume publishes so many bytes, or as many as the time allows, at the pace of
// one reader.
func volume(p peers.Peer, config Config) (flood, error) {
	pace, err := gather(p, "", "a", 1)
	if err != nil {
		return flood{}, err
	}
	defer pace.Close()
	pace.size = deafMessage
	var f flood
	begin := time.Now()
	for looked := begin; f.published < config.Volume && time.Since(begin) < config.Limit; f.published += deafBatch * deafMessage {
		if err := pace.round(deafBatch); err != nil {
			return flood{}, err
		}
		if time.Since(looked) > 200*time.Millisecond {
			usage, err := p.Usage()
			if err != nil {
				return flood{}, err
			}
			f.peak, looked = max(f.peak, usage.Memory), time.Now()
		}
	}
	pace.Finish(all(pace.next))
	f.counts = pace.Counts
	return f, nil
}

func sum(all ...load.Counts) (total load.Counts) {
	for _, c := range all {
		total.Lost += c.Lost
		total.Doubled += c.Doubled
		total.Reordered += c.Reordered
	}
	return total
}
