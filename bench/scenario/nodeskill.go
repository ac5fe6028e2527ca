package scenario

import (
	"fmt"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// nodesKill is a node that dies with all its clients, which go on with others.
var nodesKill = Scenario{
	Name: "nodes-kill",
	About: "one of three nodes is killed that has all clients, over all transports, which come back to the others; " +
		"50 acknowledged messages a second to 25 channels, by all nodes",
	Cases: sizes(restartClients),
	Nodes: true,
	Suits: func(p peers.Peer, _ Case) bool {
		_, halley := p.(*peers.HalleyNodes)
		return halley
	},
	Run: runNodesKill,
	Columns: append([]Column{
		{Key: "published", Title: "messages"},
		{Key: "repeated", Title: "publishes repeated"},
		{Key: "back", Title: "all are back, s", Digits: 1},
		{Key: "caughtUp", Title: "and have caught up, s", Digits: 1},
		{Key: "before", Title: "p99 ms before", Digits: 1},
		{Key: "p99", Title: "p99 ms afterwards", Digits: 1},
		{Key: "turned", Title: "clients told to come later"},
		{Key: "unmade", Title: "attempts nobody took"},
		{Key: "gaps", Title: "gaps told"},
	}, faultColumns...),
	Sizes: "clients",
}

func runNodesKill(p peers.Peer, c Case, config Config) ([]Measure, error) {
	h, ok := p.(*peers.HalleyNodes)
	if !ok {
		return nil, fmt.Errorf("%s has no nodes that clients could change", p.Name())
	}
	if err := start(h, peers.Options{Admit: true, Dir: config.Dir, Nodes: 3}); err != nil {
		return nil, err
	}
	defer h.Stop()
	return disturbed(h.Each, c, config, func(crowd *crowd, feed *feed, values Values) error {
		crowd.origin = time.Now()
		crowd.refused, crowd.unmade = 0, 0
		h.Each[0].Kill()
		back, err := crowd.until(func() bool { return crowd.returned == c.Connections && crowd.here == c.Connections }, 2*patience)
		values["back"] = time.Since(crowd.origin).Seconds()
		if err == nil && back {
			then := feed.snapshot()
			back, err = crowd.until(func() bool { return crowd.have(then) }, patience)
			values["caughtUp"] = time.Since(crowd.origin).Seconds()
		}
		if err == nil && back {
			crowd.Latency.Reset()
			err = crowd.run(min(restartAfter, config.Limit))
			values["p99"] = crowd.Latency.Quantile(0.99) / 1e6
		}
		if err == nil && !back {
			err = fmt.Errorf("%d of %d clients are back, %d now", crowd.returned, c.Connections, crowd.here)
		}
		return err
	})
}
