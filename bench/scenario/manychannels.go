package scenario

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine"
)

// manyChannels is the same traffic in few and in many channels.
var manyChannels = Scenario{
	Name:  "many-channels",
	About: "64 publishers to random channels, then pages of a random channel and of a pattern; a million messages are there before",
	Cases: sizes(1, 1000, 100_000, 1_000_000),
	Stores: &Stores{
		Kinds: func(Case) []stores.Kind {
			return []stores.Kind{
				stores.NewHalley("halley", large),
				stores.NewPebble("pebble-index", true, true),
			}
		},
		Run: runManyChannels,
	},
	Columns: []Column{
		{Key: "rate", Title: "publishes/s", Ratio: true},
		{Key: "p99", Title: "p99 ms", Digits: 2},
		{Key: "cpu", Title: "CPU µs a publish", Digits: 1},
		{Key: "channel", Title: "µs a page of a channel"},
		{Key: "length", Title: "messages in it", Digits: 1},
		{Key: "pattern", Title: "µs a page of the pattern"},
		{Key: "recent", Title: "in memory"},
		{Key: "memory", Title: "resident MB", Ratio: true},
		{Key: "disk", Title: "on disk bytes a message", Ratio: true},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "channels",
	Against: []string{"pebble-index"},
}

const (
	manyMessages   = 1_000_000
	manyPublishers = 64
	manyPage       = 100
	manyReads      = 2000
	manyBehind     = 20_000 // messages
)

func runManyChannels(k stores.Kind, c Case, config Config) ([]Measure, error) {
	dir := filepath.Join(config.Dir, "store")
	channel := func(i int) string { return named("a", i) }
	filled := cmp.Or(config.Messages, manyMessages)
	if _, err := fillIn(k, dir, filled, func(i int) string { return channel(scatter(i, c.Connections)) }); err != nil {
		return nil, err
	}
	idle, err := resident()
	if err != nil {
		return nil, err
	}
	s, err := k.Open(dir)
	if err != nil {
		return nil, err
	}
	rest()
	closed := false
	defer func() {
		if !closed {
			s.Close()
		}
	}()
	t, err := publish(s, manyPublishers, config.Time, func(random *rand.Rand) string {
		return channel(random.IntN(c.Connections))
	})
	if err != nil {
		return nil, err
	}
	values := t.values(config.Time)
	delete(values, "p50")
	rest()
	if h, ok := s.(stores.Halley); ok {
		if err := readPages(h, filled, c.Connections, channel, values); err != nil {
			return nil, err
		}
	}
	memory, err := resident()
	if err != nil {
		return nil, err
	}
	values["memory"] = (memory - idle) / 1e6
	total := uint64(filled) + t.total
	if values["lost"], err = lost(s, total); err != nil {
		return nil, err
	}
	closed = true
	if err := s.Close(); err != nil {
		return nil, err
	}
	size, err := diskSize(dir)
	values["disk"] = size / float64(total)
	return []Measure{{Values: values}}, err
}

// readPages reads the newest messages of one channel after the other, and then
// what follows cursors near the end in all of them, from disk and from memory.
func readPages(log stores.Halley, filled, channels int, channel func(int) string, values Values) error {
	random := rand.New(rand.NewPCG(7, 8))
	length, reads := 0, min(manyReads, int(log.End().Seq))
	read := func(least int, q func() engine.Query) (float64, error) {
		length = 0
		begin := time.Now()
		for range reads {
			page, err := log.Log.Read(context.Background(), q())
			if err != nil {
				return 0, err
			}
			if page.Gap || len(page.Messages) < least {
				return 0, fmt.Errorf("a page of %d messages, gap %v", len(page.Messages), page.Gap)
			}
			length += len(page.Messages)
		}
		return time.Since(begin).Seconds() * 1e6 / float64(reads), nil
	}
	var err error
	values["channel"], err = read(min(manyPage, filled/channels), func() engine.Query {
		return engine.Query{Channels: []string{channel(random.IntN(channels))}, Limit: manyPage, Backward: true}
	})
	if err != nil {
		return err
	}
	values["length"] = float64(length) / float64(reads)
	// From disk cursors lie before what is held in memory, and in memory within
	// the oldest half of it.
	held, end := log.Held(), log.End()
	before := func(within uint64, last uint64) func() engine.Query {
		return func() engine.Query {
			after := engine.Cursor{Epoch: end.Epoch, Seq: last - min(random.Uint64N(within), last)}
			return engine.Query{Channels: []string{"a/*"}, After: after, Limit: manyPage}
		}
	}
	if values["pattern"], err = read(min(manyPage, filled), before(manyBehind, held.Seq-min(1, held.Seq))); err != nil {
		return err
	}
	half := (end.Seq-held.Seq)/2 + 1
	values["recent"], err = read(min(manyPage, filled/2), before(half, held.Seq+half))
	return err
}
