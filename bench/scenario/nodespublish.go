package scenario

import (
	"math/rand/v2"
	"path/filepath"

	"github.com/halley-comet/halley/bench/stores"
)

// nodesPublish is publishing to three NATS servers, by Halley's engine and
// without it.
var nodesPublish = Scenario{
	Name:  "nodes-publish",
	About: "publishers that each wait for their acknowledgement by two of three NATS servers; 200 bytes, 100 channels",
	Cases: sizes(1, 16, 256),
	Stores: &Stores{
		Kinds: func(Case) []stores.Kind {
			return []stores.Kind{
				stores.NewHalleyCluster("halley"),
				stores.NewCluster("jetstream", true, false, false),
				stores.NewCluster("jetstream-read", true, true, false),
				stores.NewCluster("jetstream-read-ids", true, true, true),
				stores.NewCluster("jetstream-connections", false, false, false),
			}
		},
		Run: runNodesPublish,
	},
	Columns: []Column{
		{Key: "rate", Title: "messages/s", Ratio: true},
		{Key: "p50", Title: "p50 ms", Digits: 2},
		{Key: "p99", Title: "p99 ms", Digits: 2},
		{Key: "cpu", Title: "CPU µs a message", Digits: 1},
		{Key: "servers", Title: "CPU µs of the NATS servers", Digits: 1},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "publishers",
	Against: []string{"jetstream"},
}

func runNodesPublish(k stores.Kind, c Case, config Config) ([]Measure, error) {
	s, err := k.Open(filepath.Join(config.Dir, "store"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	servers := s.(stores.Clustered).Servers()
	before, err := servers.Usage()
	if err != nil {
		return nil, err
	}
	t, err := publish(s, c.Connections, config.Time, func(random *rand.Rand) string {
		return named("chat", random.IntN(100))
	})
	if err != nil {
		return nil, err
	}
	after, err := servers.Usage()
	if err != nil {
		return nil, err
	}
	values := t.values(config.Time)
	// They are looked at for longer than is measured of the publishers.
	values["servers"] = (after.CPU - before.CPU).Seconds() * 1e6 / max(float64(t.total), 1)
	if values["lost"], err = lost(s, t.total); err != nil {
		return nil, err
	}
	return []Measure{{Values: values}}, nil
}
