package scenario

import "github.com/halley-comet/halley/bench/peers"

// idle is the memory of connections to which nothing comes.
var idle = Scenario{
	Name:  "idle",
	About: "memory of idle connections, by transport",
	Cases: func(config Config) []Case {
		transports := config.Transports
		if transports == nil {
			transports = []string{"sse", "xhr-streaming", "iframe", "multipart", "websocket", "long-polling"}
		}
		var cases []Case
		for _, transport := range transports {
			for _, c := range sizes(1000, 5000, 15000)(config) {
				cases = append(cases, Case{Transport: transport, Connections: c.Connections})
			}
		}
		return cases
	},
	Suits: func(p peers.Peer, c Case) bool { return peers.Supports(p, c.Transport) && small(p, c) },
	Run:   runIdle,
	Columns: []Column{
		{Key: "bytes", Title: "bytes a connection"},
		{Key: "bytes_after", Title: "after three messages"},
	},
}

func runIdle(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	if err := start(p, peers.Options{Polls: c.Transport == "long-polling" || c.Transport == bayeux}); err != nil {
		return nil, err
	}
	defer p.Stop()
	before, err := settle(p)
	if err != nil {
		return nil, err
	}
	a, err := gather(p, c.Transport, "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	held, err := settle(p)
	if err != nil {
		return nil, err
	}
	for range 3 {
		if err := a.round(1); err != nil {
			return nil, err
		}
	}
	after, err := settle(p)
	if err != nil {
		return nil, err
	}
	n := float64(c.Connections)
	return []Measure{{Values: Values{
		"bytes":       float64(held-before) / n,
		"bytes_after": float64(after-before) / n,
	}}}, nil
}
