// Package scenario has the loads that servers are put under.
package scenario

import (
	"cmp"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// A Scenario is one load.
type Scenario struct {
	Name  string
	About string
	// Cases are what it is run with.
	Cases func(c Config) []Case
	// Nodes says that it is for servers of several nodes, which are put under
	// no other one.
	Nodes bool
	// Suits reports whether a server can be put under it.
	Suits func(p peers.Peer, c Case) bool
	// Run puts the server under it, which it starts and stops.
	Run func(p peers.Peer, c Case, config Config) ([]Measure, error)
	// Stores is set, in the place of Suits and Run, where stores are compared.
	Stores *Stores
	// Compares is the title of what it compares; empty: server or store.
	Compares string
	// Columns are what its table shows.
	Columns []Column
	// Sizes and Kinds are what its cases' Connections and Transport are;
	// empty: connections and transport.
	Sizes, Kinds string
	// Against are what ratios are to: the first of them that was in the same
	// case. Nil means the limit.
	Against []string
}

// Fits reports whether a server can be put under the scenario.
func (s Scenario) Fits(p peers.Peer, c Case) bool {
	_, nodes := p.(peers.Nodes)
	return nodes == s.Nodes && s.Suits(p, c)
}

// SizesTitle is the title of its cases' Connections.
func (s Scenario) SizesTitle() string { return cmp.Or(s.Sizes, "connections") }

// KindsTitle is the title of its cases' Transport.
func (s Scenario) KindsTitle() string { return cmp.Or(s.Kinds, "transport") }

// AgainstTitle is the title of what ratios are to.
func (s Scenario) AgainstTitle() string {
	if s.Against == nil {
		return "limit"
	}
	return s.Against[0]
}

// Config is how long and how large the loads are.
type Config struct {
	Connections []int    // sizes of the scenarios that have several; nil: each scenario's own
	Transports  []string // of idle, or kinds of siege; nil: all that there are
	CPU         time.Duration
	Limit       time.Duration
	Volume      int // bytes, of never-reading

	// Of stores.
	Dir      string        // of the store, or of the stores' folders
	Messages int           // how many are stored, in place of each scenario's own
	Time     time.Duration // that is measured of publishing
	Prepared Values        // what Prepare has returned
	URL      string        // of the servers that are fed
}

// A Case is one size and kind of a scenario.
type Case struct {
	Transport   string // empty: each server's usual
	Connections int
}

// A Measure is what one run brought.
type Measure struct {
	Burst  int // messages that were published at once, where a scenario has several sizes
	Values Values
	Curve  []float64 // a count in each CurveStep, for scenarios that have one
}

// Values are figures by name.
type Values map[string]float64

// A Column is one figure of a table.
type Column struct {
	Key    string
	Title  string
	Digits int
	Ratio  bool // is also shown next to the limit's, or to that of Against
}

// All lists the scenarios.
func All() []Scenario {
	return []Scenario{idle, idleTLS, fanout, latency, quiet, storm, polls, channels, deaf, siege, restart, simulationOne, simulationEach, publishDisk, catchUp, opening, resumeStorm, manyChannels, bayeuxIdle, bayeuxPolls, nodesPublish, interest, nodesLatency, nodesKill, handshakes}
}

// MessageSize is the size of the messages, but for never-reading.
const MessageSize = 128

// patience is how long anything may take that a server should do at once.
const patience = 60 * time.Second

// sizes makes a case of each number of connections.
func sizes(defaults ...int) func(Config) []Case {
	return func(config Config) []Case {
		numbers := defaults
		if config.Connections != nil {
			numbers = config.Connections
		}
		var cases []Case
		for _, n := range numbers {
			cases = append(cases, Case{Connections: n})
		}
		return cases
	}
}

// small leaves servers made of JavaScript out of cases over 1,000 connections,
// where they would take long to tell the same.
func small(p peers.Peer, c Case) bool {
	_, node := p.(*peers.Node)
	return !node || c.Connections <= 1000
}
