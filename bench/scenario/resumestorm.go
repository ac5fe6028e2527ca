package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// resumeStorm is all clients coming back after a restart, each to channels of
// its own.
var resumeStorm = Scenario{
	Name:  "resume-storm",
	About: "after a restart each client reads 100 missed messages, of 10 channels of its own; 64 read at a time",
	Cases: func(config Config) []Case {
		var cases []Case
		for _, c := range sizes(10_000)(config) {
			cases = append(cases, Case{cached, c.Connections}, Case{uncached, c.Connections})
		}
		return cases
	},
	Stores: &Stores{
		Kinds: func(Case) []stores.Kind {
			kinds := []stores.Kind{
				stores.NewHalley("halley", disk.Options{}),
				stores.NewHalley("halley-cache-quarter", disk.Options{CacheBytes: defaultCache / 4}),
				stores.NewHalley("halley-cache-fourfold", disk.Options{CacheBytes: defaultCache * 4}),
			}
			kinds[1].Shares, kinds[2].Shares = kinds[0].Name, kinds[0].Name
			return kinds
		},
		Prepare: prepareResumeStorm,
		Run:     runResumeStorm,
	},
	Columns: []Column{
		{Key: "seconds", Title: "all have caught up, s", Digits: 2},
		{Key: "rate", Title: "messages/s"},
		{Key: "cpu", Title: "CPU µs a message", Digits: 1},
		{Key: "p99", Title: "p99 ms a client", Digits: 1},
		{Key: "stored", Title: "stored MB"},
		{Key: "read", Title: "read MB"},
		{Key: "times", Title: "× stored", Digits: 2},
		{Key: "device", Title: "from the device, × stored", Digits: 2},
		{Key: "memory", Title: "resident MB"},
		{Key: "lost", Title: "lost"},
	},
	Sizes: "clients",
	Kinds: "cached",
}

const (
	// defaultCache is what Options.CacheBytes is by default.
	defaultCache = 64 << 20

	stormChannels = 10 // of a client
	stormMissed   = 10 // messages of a channel
	stormReaders  = 64
)

// Where the files are.
const (
	cached   = "the system has all in its cache"
	uncached = "the system's cache is empty"
)

// prepareResumeStorm stores the messages as they would have been published:
// those of a channel lie all over.
func prepareResumeStorm(k stores.Kind, c Case, config Config) (Values, error) {
	channels := c.Connections * stormChannels
	order := make([]int32, channels*stormMissed)
	for i := range order {
		order[i] = int32(i % channels)
	}
	random := rand.New(rand.NewPCG(5, 6))
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	dir := filepath.Join(config.Dir, "store")
	// Clients saw this one before they were cut off.
	if _, err := fillIn(k, dir, 1, func(int) string { return "chat/seen" }); err != nil {
		return nil, err
	}
	took, err := fillIn(k, dir, len(order), func(i int) string { return named("chat", int(order[i])) })
	return Values{"fill": took}, err
}

func runResumeStorm(k stores.Kind, c Case, config Config) ([]Measure, error) {
	dir := filepath.Join(config.Dir, "store")
	stored, err := diskSize(dir)
	if err != nil {
		return nil, err
	}
	prepare := warm
	if c.Transport == uncached {
		prepare = cool
	}
	if err := prepare(dir); err != nil {
		return nil, err
	}
	idle, err := resident()
	if err != nil {
		return nil, err
	}
	before, err := inputs()
	if err != nil {
		return nil, err
	}
	s, err := k.Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	log := s.(stores.Halley)
	values := Values{}
	cpu, begin := used(), time.Now()
	missing, waits, err := resume(log, c.Connections)
	if err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	after, err := inputs()
	if err != nil {
		return nil, err
	}
	n := float64(c.Connections * stormChannels * stormMissed)
	values["seconds"] = took
	values["rate"] = n / took
	values["cpu"] = (used() - cpu).Seconds() * 1e6 / n
	values["p99"] = waits.Quantile(0.99) / 1e6
	values["stored"] = stored / 1e6
	values["read"] = (after.calls - before.calls) / 1e6
	values["times"] = (after.calls - before.calls) / stored
	values["device"] = (after.device - before.device) / stored
	values["lost"] = float64(missing)
	memory, err := resident()
	values["memory"] = (memory - idle) / 1e6
	return []Measure{{Values: values}}, err
}

// resume has all clients read what they have missed. Which channels are a
// client's has nothing to do with their names.
func resume(log stores.Halley, clients int) (missing int64, waits *load.Histogram, err error) {
	channels := clients * stormChannels
	first := engine.Cursor{Epoch: log.End().Epoch, Seq: 1}
	var (
		next atomic.Int64
		got  atomic.Int64
		wg   sync.WaitGroup
		mu   sync.Mutex // of what follows
		errs error
	)
	waits = new(load.Histogram)
	for range stormReaders {
		wg.Go(func() {
			var own load.Histogram
			var failed error
			for failed == nil {
				client := int(next.Add(1)) - 1
				if client >= clients {
					break
				}
				var names []string
				for i := range stormChannels {
					names = append(names, named("chat", scatter(client*stormChannels+i, channels)))
				}
				begin := time.Now()
				page, err := log.Log.Read(context.Background(), engine.Query{Channels: names, After: first})
				own.Add(int64(time.Since(begin)), 1)
				got.Add(int64(len(page.Messages)))
				if failed = err; err == nil && (page.Gap || page.More) {
					failed = fmt.Errorf("client %d: gap %v, more %v", client, page.Gap, page.More)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			waits.Merge(&own)
			errs = errors.Join(errs, failed)
		})
	}
	wg.Wait()
	return int64(channels*stormMissed) - got.Load(), waits, errs
}
