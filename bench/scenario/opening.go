package scenario

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"time"

	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// opening is opening a store with much in it.
var opening = Scenario{
	Name:  "opening",
	About: "opening ten million messages of 200 bytes: after the process was killed, after closing, and with nothing in the system's cache",
	Cases: sizes(1000, 1_000_000),
	Stores: &Stores{
		Kinds: func(Case) []stores.Kind {
			return []stores.Kind{
				stores.NewHalley("halley", large),
				stores.NewPebble("pebble-index", true, true),
			}
		},
		Prepare: prepareOpening,
		Run:     runOpening,
		Leave:   leaveOpening,
	},
	Columns: []Column{
		{Key: "killed", Title: "killed: opened in s", Digits: 3, Ratio: true},
		{Key: "closed", Title: "closed: opened in s", Digits: 3, Ratio: true},
		{Key: "cold", Title: "closed and not cached: opened in s", Digits: 3, Ratio: true},
		{Key: "memory", Title: "resident MB"},
		{Key: "disk", Title: "on disk MB"},
		{Key: "each", Title: "on disk bytes a message"},
		{Key: "fill", Title: "filled in s", Digits: 1},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "channels",
	Against: []string{"pebble-index"},
}

// large keeps all that scenarios store.
var large = disk.Options{Retention: engine.Retention{Bytes: 1 << 40}, Limit: -1}

const (
	openingMessages = 10_000_000
	// openingNewest are the messages that the last process has stored: they are
	// in the write-ahead log and nowhere else.
	openingNewest = 20_000
	openingBatch  = 100
	// openingActive is how many channels are written to at a time, in turns: a
	// store need not remember more while it is filled.
	openingActive = 50_000
)

func prepareOpening(k stores.Kind, c Case, config Config) (Values, error) {
	n := cmp.Or(config.Messages, openingMessages)
	active := min(openingActive, c.Connections)
	each := max(1, n/c.Connections)
	took, err := fillIn(k, filepath.Join(config.Dir, "store"), n, func(i int) string {
		first := i / (active * each) * active
		return named("chat", (first+scatter(i, active))%c.Connections)
	})
	return Values{"fill": took}, err
}

// openingLast is how many messages the last process stores.
func openingLast(config Config) int {
	return min(openingNewest, cmp.Or(config.Messages, openingMessages))
}

// leaveOpening opens the store and publishes to it.
func leaveOpening(k stores.Kind, c Case, config Config) error {
	_, err := openAndPublish(k, c, config)
	return err
}

// openAndPublish opens a store and publishes to it, in batches.
func openAndPublish(k stores.Kind, c Case, config Config) (stores.Store, error) {
	s, err := k.Open(filepath.Join(config.Dir, "store"))
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range openingLast(config) / openingBatch {
		batch := make([]stores.Message, openingBatch)
		for i := range batch {
			batch[i] = stores.Message{Channel: named("chat", random.IntN(c.Connections)), Data: payload(random.Uint64() >> 32)}
		}
		if err := s.Fill(batch); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func runOpening(k stores.Kind, c Case, config Config) ([]Measure, error) {
	dir := filepath.Join(config.Dir, "store")
	values := Values{"fill": config.Prepared["fill"]}
	closed := func() error {
		s, err := openAndPublish(k, c, config)
		if err != nil {
			return err
		}
		return s.Close()
	}
	killed := func() error { return leave("opening", k, c, config) }
	idle, err := resident()
	if err != nil {
		return nil, err
	}
	var stored, first uint64
	states := []struct {
		key    string
		before func() error
		cache  func(dir string) error
	}{
		{"closed", closed, warm},
		{"killed", killed, warm},
		{"cold", closed, cool},
	}
	// Pebble may begin a compaction when it is opened. As that comes with every
	// second opening, each state has its turn at an even and at an odd one.
	const turns = 2
	for i := range turns * len(states) {
		one := states[i%len(states)]
		if err := errors.Join(one.before(), one.cache(dir)); err != nil {
			return nil, err
		}
		if values["disk"], err = diskSize(dir); err != nil {
			return nil, err
		}
		runtime.GC()
		begin := time.Now()
		s, err := k.Open(dir)
		if err != nil {
			return nil, err
		}
		values[one.key] += time.Since(begin).Seconds() / turns
		if stored, err = s.Stored(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if i == 0 {
			first = stored
		}
		memory, err := resident()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		values["memory"] = (memory - idle) / 1e6
		if err := tidy(s); err != nil {
			return nil, err
		}
		values["lost"] = float64(first) + float64(i*openingLast(config)) - float64(stored)
	}
	values["each"] = values["disk"] / float64(stored)
	values["disk"] /= 1e6
	return []Measure{{Values: values}}, nil
}
