package main

import (
	"fmt"
	"math"
)

// A Site is what the servers are, and what is asked of them. None of it was
// measured.
type Site struct {
	Cores    float64 // of a node
	Scale    float64 // of what one core does, how much each of several does
	Memory   float64 // bytes of a node
	Line     float64 // bytes a second that a machine's network takes, each way
	Clients  float64 // of a node at most
	Disk     float64 // bytes that a node keeps of the log
	Admit    float64 // clients that a node lets in in a second
	Zones    float64 // of which one may be lost, nodes being spread evenly
	Busy     float64 // of a limit, how much is planned for once a zone is lost
	LogShare float64 // of a log's rate, how much is planned for
	Beat     float64 // seconds between heartbeats
}

var site = Site{
	Cores: 8, Scale: 0.8, Memory: 32e9, Line: 10e9 / 8, Clients: 100_000, Disk: 8 << 30, Admit: 5000,
	Zones: 3, Busy: 0.6, LogShare: 0.5, Beat: 25,
}

// servers is how many NATS servers a log has.
const servers = 3

// A Use is what each thing that is bounded is used to: 1 is all of it.
type Use struct {
	LogRate float64 // messages that are published
	Servers float64 // the NATS servers' CPU
	Lines   float64 // what they send to the nodes and to each other
	Intake  float64 // of the one core that takes the log in
	CPU     float64 // of a node in all
	Memory  float64
	Egress  float64 // of a node to its clients
	Clients float64 // of a node
}

// use returns what a log of so many clients and nodes is used to.
func use(c *Costs, s Site, l Load, rate, clients, nodes float64) Use {
	each := clients / nodes
	deliveries := rate * l.Mean(clients) / nodes
	// A client gets one write for what comes together. How much does depends on
	// how busy a node is, so here nothing does: the simulation tells.
	cpu := deliveries*c.Write + rate*c.Intake + rate/nodes*(c.Publish+c.Append) + each/s.Beat*c.Write
	return Use{
		LogRate: rate / c.Rate,
		// Of three servers one may be away. A message goes to two of them from
		// the leader, and to each node from one of them.
		Servers: rate * (c.Store + c.Send*nodes) / ((servers - 1) * s.Cores * s.Scale),
		Lines:   rate * c.Copy * (nodes + servers - 1) / ((servers - 1) * s.Line),
		Intake:  rate * c.Intake,
		CPU:     cpu / (s.Cores * s.Scale),
		Memory:  each * (c.Connection + c.Kernel) / s.Memory,
		Egress:  deliveries * c.Wire / s.Line,
		Clients: each / s.Clients,
	}
}

// fits tells whether all nodes of a log are used to a share at most.
func (u Use) fits(share float64) bool {
	return max(u.CPU, u.Memory, u.Egress, u.Intake) <= share && u.Clients <= 1
}

// A Plan is how many of what a load takes.
type Plan struct {
	Load    Load
	Clients float64
	Logs    float64
	Nodes   float64 // of each log
	Rate    float64 // messages a second in each log
	Use     Use     // when a zone is lost
	Usually Use
}

// plan returns the fewest logs, and the fewest nodes with them.
func plan(c *Costs, s Site, l Load, clients float64) (Plan, error) {
	for logs := 1.0; logs <= 1e6; logs++ {
		rate := l.Rate(clients) / logs
		if l.Shared {
			rate = l.Rate(clients)
		}
		part := clients / logs
		if rate > s.LogShare*c.Rate || rate*c.Intake > s.Busy {
			if l.Shared {
				return Plan{}, fmt.Errorf("%s: no number of logs takes %.0f messages a second", l.Name, rate)
			}
			continue
		}
		left := func(nodes float64) float64 { return nodes - math.Ceil(nodes/s.Zones) }
		low, nodes := s.Zones, max(s.Zones, math.Ceil(part))
		for low < nodes {
			middle := math.Floor((low + nodes) / 2)
			if use(c, s, l, rate, part, left(middle)).fits(s.Busy) {
				nodes = middle
			} else {
				low = middle + 1
			}
		}
		p := Plan{
			Load: l, Clients: clients, Logs: logs, Nodes: nodes, Rate: rate,
			Use: use(c, s, l, rate, part, left(nodes)), Usually: use(c, s, l, rate, part, nodes),
		}
		if max(p.Usually.Lines, p.Usually.Servers) <= s.Busy {
			return p, nil
		}
	}
	return Plan{}, fmt.Errorf("%s: no plan for %.0f clients", l.Name, clients)
}

// most returns how many clients a node may have by its CPU, its line and its
// memory, of a log that it takes in with a million clients in all.
func most(c *Costs, s Site, l Load) (cpu, line, memory float64) {
	const all = 1e6
	rate := l.Rate(all)
	deliveries := rate * l.Mean(all) / all // for each client
	own := deliveries*c.Write + c.Write/s.Beat + rate/all*(c.Publish+c.Append)
	cpu = (s.Busy*s.Cores*s.Scale - rate*c.Intake) / own
	return cpu, s.Busy * s.Line / (deliveries * c.Wire), s.Busy * s.Memory / (c.Connection + c.Kernel)
}

// handshaken returns how many clients a node may have for those of a zone to get
// through at once where its processes are killed: as long as they wait, half the
// cores of those that are left go to handshakes.
func handshaken(c *Costs, s Site) float64 {
	return (s.Zones - 1) * patience * s.Cores * s.Scale / 2 / c.Come
}

// A limit is one thing that breaks as a single log has more and more clients.
type limit struct {
	name    string
	clients float64
}

// nodesFor is how many nodes a log of so many clients takes, whatever else
// breaks.
func nodesFor(c *Costs, s Site, l Load, clients float64) float64 {
	free := *c
	free.Intake = 0 // which no number of nodes makes less
	low, nodes := s.Zones, max(s.Zones, math.Ceil(clients))
	for low < nodes {
		middle := math.Floor((low + nodes) / 2)
		if use(&free, s, l, l.Rate(clients), clients, middle).fits(s.Busy) {
			nodes = middle
		} else {
			low = middle + 1
		}
	}
	return nodes
}

// limits returns at how many clients of one log each thing is used to all of
// it, with as many nodes as it takes.
func limits(c *Costs, s Site, l Load) []limit {
	at := func(used func(Use) float64) float64 {
		low, high := 1000.0, 1e11
		if used(use(c, s, l, l.Rate(high), high, nodesFor(c, s, l, high))) <= 1 {
			return math.Inf(1)
		}
		for range 100 {
			clients := math.Sqrt(low * high)
			if used(use(c, s, l, l.Rate(clients), clients, nodesFor(c, s, l, clients))) > 1 {
				high = clients
			} else {
				low = clients
			}
		}
		return low
	}
	return []limit{
		{"what the log takes", at(func(u Use) float64 { return u.LogRate })},
		{"each node's core that takes the log in", at(func(u Use) float64 { return u.Intake })},
		{"the NATS servers' CPU", at(func(u Use) float64 { return u.Servers })},
		{"the NATS servers' lines", at(func(u Use) float64 { return u.Lines })},
	}
}
