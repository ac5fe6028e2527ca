package scenario

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// The attacks of siege.
const (
	slowloris          = "slowloris"
	halfOpen           = "half-open"
	publishes          = "publishes"
	publishesUnlimited = "publishes-unlimited"
	subscribes         = "subscribes"
)

const (
	siegeThreads = 8
	siegeHealthy = 100                   // subscribers of the healthy channel
	siegePause   = 20 * time.Millisecond // between its messages
	siegeBefore  = 5 * time.Second
	siegeTime    = 15 * time.Second
	// Slow requests go on for longer than a server gives any of their parts.
	slowTime = 40 * time.Second
	slowBody = 1 << 20 // bytes, of which few will come

	oldChannels = 100 // what subscribes asks for
	oldMessages = 100 // in each of them
)

// siege is a healthy channel while others do their worst.
var siege = Scenario{
	Name:  "siege",
	About: "a channel with 100 subscribers and a message every 20 ms, before and during attacks",
	Cases: func(config Config) []Case {
		var cases []Case
		for _, one := range []Case{
			{slowloris, 5000}, {halfOpen, 15_000}, {publishes, 64}, {publishesUnlimited, 64}, {subscribes, 200},
		} {
			if config.Transports != nil && !slices.Contains(config.Transports, one.Transport) {
				continue
			}
			if config.Connections == nil {
				cases = append(cases, one)
			}
			for _, n := range config.Connections {
				cases = append(cases, Case{one.Transport, n})
			}
		}
		return cases
	},
	Suits: suitsSiege,
	Run:   runSiege,
	Columns: []Column{
		{Key: "before", Title: "p99 ms before", Digits: 1},
		{Key: "p50", Title: "p50 ms during", Digits: 1},
		{Key: "p99", Title: "p99 ms during", Digits: 1},
		{Key: "worst", Title: "worst ms", Digits: 0},
		{Key: "lost", Title: "lost"},
		{Key: "doubled", Title: "doubled"},
		{Key: "reordered", Title: "out of order"},
		{Key: "cut", Title: "healthy subscribers cut"},
		{Key: "unpublished", Title: "healthy publishes refused"},
		{Key: "newcomers", Title: "newcomers"},
		{Key: "away", Title: "turned away"},
		{Key: "newcomer", Title: "p99 ms of those let in", Digits: 1},
		{Key: "opened", Title: "attackers: connections"},
		{Key: "accepted", Title: "answered 2xx"},
		{Key: "429", Title: "429"},
		{Key: "503", Title: "503"},
		{Key: "otherwise", Title: "other answers"},
		{Key: "ended", Title: "cut by the server"},
		{Key: "failed", Title: "could not connect"},
		{Key: "cpu", Title: "server's CPU s a second", Digits: 2},
		{Key: "memory", Title: "most resident MB"},
	},
	Sizes: "attackers",
	Kinds: "attack",
}

// suitsSiege leaves out what says nothing: limits where there are none, and the
// bare writer of sockets where requests are not whole.
func suitsSiege(p peers.Peer, c Case) bool {
	_, halley := p.(*peers.Halley)
	_, limit := p.(*peers.Limit)
	_, node := p.(*peers.Node)
	switch c.Transport {
	case publishes:
		return halley
	case slowloris:
		return !limit && !node
	}
	return !node
}

// attackers returns what the connections of an attack do.
func attackers(p peers.Peer, attack string) []load.Role {
	publish := func(int) []byte {
		requests, _ := p.Publish("flood", load.Message(0, MessageSize))
		return requests
	}
	subscribe := func(transport, channel, position string) func(int) []byte {
		return func(int) []byte { return p.Subscribe(transport, channel, position).Steps[0].Send(nil) }
	}
	_, halley := p.(*peers.Halley)
	switch attack {
	case slowloris:
		// A server may make room for what it is told to expect.
		large, _ := p.Publish("flood", load.Message(0, slowBody))
		head := bytes.Index(large, []byte("\r\n\r\n")) + 4
		return []load.Role{
			{Request: publish, Drip: true},
			{Request: func(int) []byte { return large }, Drip: true, Ahead: head},
		}
	case halfOpen:
		silent, usual := load.Role{}, load.Role{Request: subscribe("", "healthy", ""), Deaf: true}
		other := usual
		if peers.Supports(p, "websocket") {
			other.Request = subscribe("websocket", "healthy", "")
		}
		return []load.Role{silent, silent, usual, silent, silent, other}
	case publishes:
		return []load.Role{{Request: func(i int) []byte {
			return bytes.Replace(publish(i), []byte("\r\n"), []byte("\r\nX-Forwarded-For: 198.51.100.7\r\n"), 1)
		}}}
	case publishesUnlimited:
		return []load.Role{{Request: publish}}
	case subscribes:
		if !halley {
			return []load.Role{{Request: subscribe("", old(0), ""), Leave: true}}
		}
		var all []string
		for i := range oldChannels {
			all = append(all, old(i))
		}
		// A refusal has a status of its own with this transport.
		return []load.Role{{Request: subscribe("xhr-streaming", strings.Join(all, "&channel="), "earliest"), Leave: true}}
	}
	return nil
}

func old(i int) string { return "old" + strconv.Itoa(i) }

func runSiege(p peers.Peer, c Case, config Config) ([]Measure, error) {
	// Threads that serve connections would wait for each other otherwise, and
	// what they measure would be that.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(siegeThreads))
	if err := start(p, peers.Options{Admit: true, Proxied: c.Transport == publishes}); err != nil {
		return nil, err
	}
	defer p.Stop()
	healthy, err := gather(p, "", "healthy", siegeHealthy)
	if err != nil {
		return nil, err
	}
	defer healthy.Close()
	if c.Transport == subscribes {
		if err := fillOld(healthy); err != nil {
			return nil, err
		}
	}
	cut := 0
	healthy.Ended = func(int, error) { cut++ }
	values := Values{}
	if err := healthy.listen(min(siegeBefore, config.Limit)); err != nil {
		return nil, err
	}
	values["before"] = healthy.Latency.Quantile(0.99) / 1e6

	swarm, err := load.NewSwarm(p.Addr(), c.Connections, attackers(p, c.Transport)...)
	if err != nil {
		return nil, err
	}
	length := siegeTime
	if c.Transport == slowloris {
		length = slowTime
	}
	stop, attacked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(attacked)
		swarm.Run(stop)
	}()
	came, used := newcomers(p, stop), watch(p, stop)
	begin := time.Now()
	err = healthy.listen(min(length, config.Limit))
	took := time.Since(begin).Seconds()
	values["p50"], values["p99"] = healthy.Latency.Quantile(0.5)/1e6, healthy.Latency.Quantile(0.99)/1e6
	values["worst"] = healthy.Latency.Max() / 1e6
	close(stop)
	<-attacked
	others, usage := <-came, <-used
	if err != nil {
		return nil, err
	}

	// What is still on its way may come, and what comes twice may come later.
	late := healthy.Until(healthy.settled, min(config.Limit, patience))
	end := time.Now().Add(300 * time.Millisecond)
	for time.Now().Before(end) {
		healthy.Turn(50 * time.Millisecond)
	}
	healthy.Finish(all(healthy.next))
	faults(values, healthy.Counts)
	if refused := healthy.Counts.Refused; refused > 0 {
		// What was not published is not lost.
		values["lost"] = max(0, values["lost"]-float64(refused)*siegeHealthy)
	} else if late != nil && values["lost"] == 0 {
		return nil, late
	}
	values["cut"], values["unpublished"] = float64(cut), float64(healthy.Counts.Refused)
	values["newcomers"], values["away"] = float64(others.came), float64(others.away)
	values["newcomer"] = others.waits.Quantile(0.99) / 1e6
	t := swarm.Tally
	values["opened"], values["ended"], values["failed"] = float64(t.Opened), float64(t.Cut), float64(t.Failed)
	for _, key := range []string{"accepted", "429", "503", "otherwise"} {
		values[key] = 0
	}
	for status, n := range t.Answers {
		key := "otherwise"
		switch {
		case status/100 == 2:
			key = "accepted"
		case status == 429 || status == 503:
			key = strconv.Itoa(status)
		}
		values[key] += float64(n)
	}
	values["cpu"], values["memory"] = usage.cpu.Seconds()/took, float64(usage.memory)/1e6
	return []Measure{{Values: values}}, usage.err
}

// listen publishes a message every siegePause, whether or not those before have
// come.
func (a *audience) listen(length time.Duration) error {
	a.Latency.Reset()
	begin := time.Now()
	return a.publishEvery(siegePause, func() bool { return time.Since(begin) >= length })
}

// fillOld publishes what connections then ask for.
func fillOld(a *audience) error {
	for i := range oldChannels {
		messages := make([][]byte, oldMessages)
		for j := range messages {
			messages[j] = load.Message(uint64(j), MessageSize)
		}
		requests, answers := a.peer.Publish(old(i), messages...)
		if err := a.Publish(0, requests, answers); err != nil {
			return err
		}
		if err := a.Until(func() bool { return a.Owed() == 0 }, patience); err != nil {
			return err
		}
	}
	return nil
}

// arrivals is how clients fared that came meanwhile.
type arrivals struct {
	came, away int
	waits      load.Histogram // of those that were let in, until they were subscribed
}

// newcomers has healthy clients come, one after the other.
func newcomers(p peers.Peer, stop <-chan struct{}) <-chan *arrivals {
	done := make(chan *arrivals, 1)
	go func() {
		var a arrivals
		defer func() { done <- &a }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			begin := time.Now()
			a.came++
			if conn, err := converse(p.Addr(), nil, p.Subscribe(p.Transports()[0], "newcomers", ""), 10*time.Second); err != nil {
				a.away++
			} else {
				a.waits.Add(int64(time.Since(begin)), 1)
				conn.Close()
			}
		}
	}()
	return done
}

// A toll is what a server used in a time.
type toll struct {
	cpu    time.Duration
	memory int64 // the most
	err    error
}

// watch looks at what a server uses.
func watch(p peers.Peer, stop <-chan struct{}) <-chan toll {
	done := make(chan toll, 1)
	go func() {
		var t toll
		defer func() { done <- t }()
		before, err := p.Usage()
		for t.err = err; err == nil; {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Millisecond):
			}
			var usage peers.Usage
			if usage, err = p.Usage(); err != nil {
				t.err = errors.Join(errors.New("during the attack"), err)
				return
			}
			t.cpu, t.memory = usage.CPU-before.CPU, max(t.memory, usage.Memory)
		}
	}()
	return done
}
