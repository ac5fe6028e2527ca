package scenario

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine/disk"
)

// catchUp is reading what was stored, by one reader.
var catchUp = Scenario{
	Name:  "catch-up",
	About: "one reader reads pages of 1,000 messages, from a store that was just opened; a million messages in 1,000 channels",
	Cases: func(Config) []Case {
		var cases []Case
		for _, kind := range []string{
			oneChannel + InMemory, onePattern + InMemory, wholeLog + InMemory, oneChannel, tenChannels, onePattern, wholeLog,
		} {
			cases = append(cases, Case{Transport: kind, Connections: catchUpChannels})
		}
		return cases
	},
	Stores: &Stores{
		Kinds: func(c Case) []stores.Kind {
			kinds := []stores.Kind{stores.NewHalley("halley", disk.Options{})}
			if strings.HasSuffix(c.Transport, InMemory) {
				return kinds
			}
			if c.Transport != onePattern {
				kinds = append(kinds, stores.NewPebble("pebble-index", true, true))
			}
			return append(kinds, stores.NewJetStream("jetstream", false))
		},
		Prepare: prepareCatchUp,
		Run:     runCatchUp,
	},
	Columns: []Column{
		{Key: "rate", Title: "messages/s", Ratio: true},
		{Key: "cpu", Title: "CPU µs a message", Digits: 2},
		{Key: "first", Title: "ms for all of the first", Digits: 2},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "channels",
	Kinds:   "what is read",
	Against: []string{"pebble-index"},
}

const (
	catchUpChannels = 1000
	catchUpMessages = 1_000_000
	catchUpPage     = 1000
)

// What a reader of catch-up reads.
const (
	oneChannel  = "one channel"
	tenChannels = "ten channels"
	onePattern  = "a pattern of all"
	wholeLog    = "the whole log"

	// InMemory is added where it begins with the oldest that the log holds in
	// memory.
	InMemory = ", in memory"
)

func prepareCatchUp(k stores.Kind, _ Case, config Config) (Values, error) {
	n := cmp.Or(config.Messages, catchUpMessages)
	took, err := fillIn(k, filepath.Join(config.Dir, "store"), n, func(i int) string { return named("chat", i%catchUpChannels) })
	return Values{"fill": took}, err
}

func runCatchUp(k stores.Kind, c Case, config Config) ([]Measure, error) {
	stored := cmp.Or(config.Messages, catchUpMessages)
	dir := filepath.Join(config.Dir, "store")
	if err := warm(dir); err != nil {
		return nil, err
	}
	var (
		sum     reading
		round   int
		ask     func() []string
		want    int
		enough  = 20 // times that the store is opened
		longest = time.Now().Add(config.Limit / 3)
	)
	spread := func(n int) func() []string {
		return func() []string {
			var names []string
			for i := range n {
				names = append(names, named("chat", scatter(round*n+i, catchUpChannels)))
			}
			return names
		}
	}
	what, memory := strings.CutSuffix(c.Transport, InMemory)
	switch what {
	case oneChannel:
		ask, want = spread(1), stored/catchUpChannels
	case tenChannels:
		ask, want = spread(10), 10*(stored/catchUpChannels)
	case onePattern:
		ask, want, enough = func() []string { return []string{"chat/*"} }, stored, 1
	default:
		ask, want, enough = func() []string { return []string{"**"} }, stored, 1
	}
	if memory {
		return readMemory(k, dir, ask(), config)
	}
	for ; round < enough && (round == 0 || time.Now().Before(longest)); round++ {
		channels := ask()
		s, err := k.Open(dir)
		if err != nil {
			return nil, err
		}
		err = sum.add(want, func() (int, int, error) { return s.(stores.Reader).Read(channels, catchUpPage) })
		if e := s.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(channels, ","), err)
		}
	}
	return []Measure{{Values: sum.values()}}, nil
}

// readMemory reads what the log has in memory, again and again.
func readMemory(k stores.Kind, dir string, channels []string, config Config) ([]Measure, error) {
	s, err := k.Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	log := s.(stores.Halley)
	after := log.Held()
	// Of a channel there is about as much as of any other.
	want, _, err := log.ReadFrom(after, channels, catchUpPage)
	if err != nil {
		return nil, err
	}
	if whole := int(log.End().Seq - after.Seq); want < whole/catchUpChannels {
		return nil, fmt.Errorf("%d messages are read of the newest %d", want, whole)
	}
	var sum reading
	for begin := time.Now(); time.Since(begin) < config.Time/3; {
		if err := sum.add(want, func() (int, int, error) { return log.ReadFrom(after, channels, catchUpPage) }); err != nil {
			return nil, err
		}
	}
	return []Measure{{Values: sum.values()}}, nil
}

// A reading sums up what was read.
type reading struct {
	messages, missing int
	took, cpu, first  time.Duration
}

// add reads what should be so many messages.
func (r *reading) add(want int, read func() (messages, bytes int, err error)) error {
	cpu, begin := used(), time.Now()
	messages, bytes, err := read()
	took := time.Since(begin)
	r.took += took
	r.cpu += used() - cpu
	if r.messages == 0 {
		r.first = took
	}
	r.messages += messages
	r.missing += want - messages
	if err == nil && bytes != messages*storedSize {
		err = fmt.Errorf("%d messages have %d bytes", messages, bytes)
	}
	return err
}

func (r *reading) values() Values {
	n := float64(r.messages)
	return Values{
		"rate":  n / r.took.Seconds(),
		"cpu":   r.cpu.Seconds() * 1e6 / n,
		"first": r.first.Seconds() * 1e3,
		"lost":  float64(r.missing),
	}
}
