package scenario

import "github.com/halley-comet/halley/bench/peers"

const bayeux = "bayeux"

// bayeuxIdle is the memory of CometD's and Faye's clients while nothing comes.
var bayeuxIdle = Scenario{
	Name:    "bayeux-idle",
	About:   "memory of idle Bayeux sessions, each with a connect that is held by long-polling",
	Cases:   bayeuxSizes(1000, 15000),
	Suits:   func(p peers.Peer, c Case) bool { return peers.Supports(p, bayeux) },
	Run:     runIdle,
	Columns: idle.Columns,
	Sizes:   "sessions",
}

// bayeuxPolls is the cost of what is delivered to them.
var bayeuxPolls = Scenario{
	Name:  "bayeux",
	About: "Bayeux long-polling: a cycle is a delivery and the next connect",
	Cases: bayeuxSizes(1000),
	Suits: func(p peers.Peer, c Case) bool { return peers.Supports(p, bayeux) },
	Run: func(p peers.Peer, c Case, config Config) ([]Measure, error) {
		return runCycles(p, c, config, bayeux)
	},
	Columns: append([]Column{{Key: "per_cpu", Title: "deliveries a CPU-s", Ratio: true}}, polls.Columns...),
	Against: []string{"halley"},
	Sizes:   "sessions",
}

func bayeuxSizes(defaults ...int) func(Config) []Case {
	return func(config Config) []Case {
		cases := sizes(defaults...)(config)
		for i := range cases {
			cases[i].Transport = bayeux
		}
		return cases
	}
}
