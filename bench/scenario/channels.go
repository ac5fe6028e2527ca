package scenario

import (
	"fmt"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// channels is as many channels as connections, and a request to publish for
// each delivery.
var channels = Scenario{
	Name:  "channels",
	About: "a channel for each connection; one HTTP request publishes for one delivery",
	Cases: sizes(5000),
	Suits: small,
	Run:   runChannels,
	Columns: append([]Column{
		{Key: "cpu", Title: "CPU µs a publish and delivery", Digits: 1, Ratio: true},
		{Key: "rate", Title: "publishes/s"},
		{Key: "p50", Title: "p50 ms", Digits: 2},
		{Key: "p99", Title: "p99 ms", Digits: 2},
	}, faultColumns...),
}

// publishers is how many connections publish, each a request at a time.
const publishers = 16

func runChannels(p peers.Peer, c Case, config Config) ([]Measure, error) {
	if err := start(p, peers.Options{}); err != nil {
		return nil, err
	}
	defer p.Stop()
	pool, err := load.New(p.Addr())
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	name := func(i int) string { return fmt.Sprintf("c%05d", i) }
	dialog := func(i int) load.Dialog { return p.Subscribe(p.Transports()[0], name(i), "") }
	if err := pool.Subscribe(c.Connections, 0, dialog, patience); err != nil {
		return nil, err
	}
	if err := pool.AddPublishers(publishers); err != nil {
		return nil, err
	}
	sequences := make([]uint64, c.Connections)
	published, channel := uint64(0), 0
	step := func() error {
		for i := range publishers {
			if !pool.Idle(i) {
				continue
			}
			requests, answers := p.Publish(name(channel), load.Message(sequences[channel], MessageSize))
			sequences[channel]++
			channel = (channel + 1) % c.Connections
			published++
			if err := pool.Publish(i, requests, answers); err != nil {
				return err
			}
		}
		before := pool.Owed()
		return pool.Until(func() bool { return pool.Owed() < before }, patience)
	}
	s, err := keep(p, pool, config, step)
	if err != nil {
		return nil, err
	}
	err = pool.Until(func() bool { return pool.Owed() == 0 && pool.Counts.Delivered >= published }, patience)
	if err != nil {
		return nil, err
	}
	pool.Finish(func(i int) uint64 { return sequences[i] })
	return []Measure{{Values: faults(Values{
		"cpu":  s.cpu / s.delivered * 1e6,
		"rate": s.delivered / s.elapsed,
		"p50":  pool.Latency.Quantile(0.5) / 1e6,
		"p99":  pool.Latency.Quantile(0.99) / 1e6,
	}, pool.Counts)}}, nil
}
