package scenario

import (
	"math/rand/v2"
	"path/filepath"

	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine/disk"
)

// publishDisk is publishing to stores by publishers that wait.
var publishDisk = Scenario{
	Name:  "publish-disk",
	About: "publishers that each wait for their acknowledgement; 200 bytes, 100 channels, in process",
	Cases: func(config Config) []Case {
		var cases []Case
		for _, kind := range []string{Synced, unsynced} {
			for _, c := range sizes(1, 16, 256)(config) {
				cases = append(cases, Case{Transport: kind, Connections: c.Connections})
			}
		}
		return cases
	},
	Stores: &Stores{
		Kinds: func(c Case) []stores.Kind {
			if c.Transport == unsynced {
				return []stores.Kind{
					stores.NewHalley("halley-never", disk.Options{Fsync: disk.Never}),
					stores.NewPebble("pebble-never", false, false),
					stores.NewJetStream("jetstream-never", false),
				}
			}
			return []stores.Kind{
				stores.NewHalley("halley-group", disk.Options{Fsync: disk.Group}),
				stores.NewHalley("halley-always", disk.Options{Fsync: disk.Always}),
				stores.NewPebble("pebble", false, true),
				stores.NewPebble("pebble-index", true, true),
				stores.NewBbolt(),
				stores.NewJetStream("jetstream", true),
			}
		},
		Run: runPublishDisk,
	},
	Columns: []Column{
		{Key: "rate", Title: "messages/s", Ratio: true},
		{Key: "p50", Title: "p50 ms", Digits: 2},
		{Key: "p99", Title: "p99 ms", Digits: 2},
		{Key: "cpu", Title: "CPU µs a message", Digits: 1},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "publishers",
	Kinds:   "acknowledged",
	Against: []string{"pebble", "pebble-never"},
}

// What a message is when it is acknowledged.
const (
	Synced   = "on disk"
	unsynced = "not synced"
)

func runPublishDisk(k stores.Kind, c Case, config Config) ([]Measure, error) {
	s, err := k.Open(filepath.Join(config.Dir, "store"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	t, err := publish(s, c.Connections, config.Time, func(random *rand.Rand) string {
		return named("chat", random.IntN(100))
	})
	if err != nil {
		return nil, err
	}
	values := t.values(config.Time)
	if values["lost"], err = lost(s, t.total); err != nil {
		return nil, err
	}
	return []Measure{{Values: values}}, nil
}
