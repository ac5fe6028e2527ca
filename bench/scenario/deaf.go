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
	About: "100 connections that never read, while 1 GB is published, and what 100 others notice",
	Cases: func(Config) []Case { return []Case{{Connections: deafConnections}} },
	Suits: small,
	Run:   runDeaf,
	Columns: append([]Column{
		{Key: "growth", Title: "memory growth, MB", Digits: 1},
		{Key: "beyond", Title: "beyond 64 MiB of messages kept, MB", Digits: 1},
		{Key: "p99_without", Title: "p99 ms of readers without", Digits: 2},
		{Key: "p99_with", Title: "with", Digits: 2},
	}, faultColumns...),
}

func runDeaf(p peers.Peer, c Case, config Config) ([]Measure, error) {
	if err := start(p, peers.Options{Bound: deafBound}); err != nil {
		return nil, err
	}
	defer p.Stop()
	values := Values{}
	var counts load.Counts

	// Readers alone, then next to those that never read.
	readers, err := gather(p, "", "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer readers.Close()
	readers.size = deafMessage
	before, err := settle(p)
	if err != nil {
		return nil, err
	}
	listen := func() (float64, error) {
		readers.Latency.Reset()
		for range deafRounds {
			if err := readers.round(1); err != nil {
				return 0, err
			}
		}
		return readers.Latency.Quantile(0.99) / 1e6, nil
	}
	if _, err := listen(); err != nil { // to warm up
		return nil, err
	}
	if values["p99_without"], err = listen(); err != nil {
		return nil, err
	}
	if err := readers.SubscribeDeaf(c.Connections, readers.dialog("")); err != nil {
		return nil, err
	}
	if values["p99_with"], err = listen(); err != nil {
		return nil, err
	}
	readers.Finish(all(readers.next))
	counts = readers.Counts
	readers.Cut()

	// One reader sets the pace of the volume.
	pace, err := gather(p, "", "a", 1)
	if err != nil {
		return nil, err
	}
	defer pace.Close()
	pace.size = deafMessage
	peak, looked := before, time.Now()
	for published := 0; published < config.Volume; published += deafBatch * deafMessage {
		if err := pace.round(deafBatch); err != nil {
			return nil, err
		}
		if time.Since(looked) > 200*time.Millisecond {
			usage, err := p.Usage()
			if err != nil {
				return nil, err
			}
			peak, looked = max(peak, usage.Memory), time.Now()
		}
	}
	pace.Finish(all(pace.next))
	counts.Lost += pace.Counts.Lost
	counts.Doubled += pace.Counts.Doubled
	counts.Reordered += pace.Counts.Reordered
	values["growth"] = float64(peak-before) / 1e6
	values["beyond"] = max(0, float64(peak-before-deafBound)/1e6)
	return []Measure{{Values: faults(values, counts)}}, nil
}
