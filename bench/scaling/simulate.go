package main

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/halley-comet/halley/bench/load"
)

// An Event is what happens to a log's servers.
type Event int

const (
	nothing    Event = iota
	nodeDies         // one node's process is killed
	zoneDies         // those of a whole zone are
	zoneSilent       // a zone is cut off: its clients hear nothing
	leaderDies       // of the log, among the NATS servers
)

const (
	lookedAt = 3     // nodes whose every message is followed: the others are like them
	warm     = 1.0   // seconds that are not looked at
	usual    = 6.0   // seconds that are
	longer   = 18.0  // seconds that are where the log stands still
	seldom   = 80.0  // seconds that are where little happens
	step     = 0.010 // seconds, of what clients that come back take
	late     = 0.050 // seconds that a publisher waits for the log where something is wrong
)

// An Outcome is how it went.
type Outcome struct {
	P50, P99, P999 float64 // seconds from a publish to its delivery, of clients that are connected
	CPU            float64 // of a node, on average, as a share of what it has: with what clients take that come
	Writes         float64 // share of the deliveries that needed a write of their own
	Back           float64 // seconds until all clients of what has died are back
	Back99         float64 // until 99 of 100 are
	Refused        float64 // how often a client was told to come later, on average
	GivenUp        float64 // how often it waited in vain
	Log            float64 // the longest that a publisher waited for the log
	Over           float64 // seconds until publishers waited no more
}

// simulate follows every message of a plan's log: into the log, to some of the
// nodes, and to each of their clients.
func simulate(c *Costs, s Site, p Plan, event Event, seed uint64) Outcome {
	random := rand.New(rand.NewPCG(seed, uint64(event)))
	var o Outcome
	length := usual
	switch {
	case event == leaderDies:
		length = longer
	case event == nothing && p.Rate < 10:
		length = seldom
	}
	clients := p.Clients / p.Logs
	each := clients / p.Nodes
	left, died := p.Nodes, 0.0
	switch event {
	case nodeDies:
		died = 1
	case zoneDies, zoneSilent:
		died = math.Ceil(p.Nodes / s.Zones)
	}
	left -= died

	// What dies does so when the time begins that is looked at. Who hears nothing
	// notices after two heartbeats, of which the last may have come a whole one
	// before; what is looked at begins with the first who does.
	noticed, over := 0.0, 0.0
	if event == zoneSilent {
		noticed, over = s.Beat, s.Beat
	}
	nodes := make([]*node, int(min(left, lookedAt)))
	var all []float64
	refused, givenUp := 0.0, 0.0
	for i := range nodes {
		n := &node{here: each, cores: s.Cores * s.Scale}
		nodes[i] = n
		// Publishes come to all nodes alike, and so do heartbeats.
		n.steady = p.Rate/left*(c.Publish+c.Append) + p.Rate*c.Intake + each/s.Beat*c.Write
		switch {
		case died == 0:
		case i == 0:
			back := n.storm(c, s, random, int(died*each/left), over)
			all, refused, givenUp = back.times, back.refused, back.givenUp
		default: // those that come to one are like those that come to another
			n.returned, n.busy = nodes[0].returned, nodes[0].busy
		}
	}
	if len(all) > 0 {
		o.Back, o.Back99 = noticed+all[len(all)-1], noticed+all[len(all)*99/100]
		o.Refused, o.GivenUp = refused/float64(len(all)), givenUp/float64(len(all))
	}

	var delays load.Histogram
	free := 0.0 // when the log has time for the next message
	sum, writes := 0.0, 0.0
	for at := 0.0; at < warm+length; at += random.ExpFloat64() / p.Rate {
		begin := max(at, free)
		if event == leaderDies && begin >= warm && begin < warm+c.Stall {
			begin = warm + c.Stall
		}
		free = begin + 1/c.Rate
		o.Log = max(o.Log, free-at)
		if free-at > late {
			o.Over = max(o.Over, free-warm)
		}
		// Where nothing else is to be done it takes this long to all clients.
		stored := free + max(0, c.Hop-1/c.Rate-c.Intake-c.Write)
		audience := p.Load.Audience(random, clients)
		for _, n := range nodes {
			n.takeIn(c, arrival{published: at, at: stored}, some(random, audience, min(1, n.present(at)/clients)), random, &delays)
		}
	}
	for _, n := range nodes {
		n.turns(c, math.Inf(1), random, &delays)
		sum += n.worked/max(warm+length, n.pumped) + n.steady
		for i, cores := range n.busy {
			if float64(i)*step < length {
				sum += cores * step / length
			}
		}
		writes += n.writes / max(1, n.deliveries) / float64(len(nodes))
	}
	o.CPU = sum / float64(len(nodes)) / (s.Cores * s.Scale)
	o.Writes = writes
	o.P50, o.P99, o.P999 = delays.Quantile(0.5)/1e9, delays.Quantile(0.99)/1e9, delays.Quantile(0.999)/1e9
	return o
}

// A node takes the log in by one core, and its pump goes through what has come
// in turns: what came meanwhile is the next one's.
type node struct {
	here   float64 // clients, before any come from elsewhere
	cores  float64
	steady float64 // cores that are used by what is not simulated singly

	returned []float64 // clients that have come by each step after warm
	busy     []float64 // cores that clients which come take in each step

	taken   float64 // when the intake has time again
	pumped  float64 // when the pump has
	waiting []arrival

	worked, writes, deliveries float64
}

// An arrival is a message that a node has.
type arrival struct {
	published, at float64
	audience      float64 // clients of the node
}

// present is how many clients a node has.
func (n *node) present(at float64) float64 {
	if i := int((at - warm) / step); at >= warm && len(n.returned) > 0 {
		return n.here + n.returned[min(i, len(n.returned)-1)]
	}
	return n.here
}

// takeIn gives the node a message that is in the log.
func (n *node) takeIn(c *Costs, a arrival, audience float64, random *rand.Rand, delays *load.Histogram) {
	n.taken = max(n.taken, a.at) + c.Intake
	n.turns(c, n.taken, random, delays)
	if audience > 0 {
		a.at, a.audience = n.taken, audience
		n.waiting = append(n.waiting, a)
	}
}

// turns has the pump work until a time.
func (n *node) turns(c *Costs, until float64, random *rand.Rand, delays *load.Histogram) {
	for len(n.waiting) > 0 {
		begin := max(n.pumped, n.waiting[0].at)
		if begin >= until {
			return
		}
		count, deliveries := 0, 0.0
		for count < len(n.waiting) && n.waiting[count].at <= begin {
			deliveries += n.waiting[count].audience
			count++
		}
		// Who is to have several of the messages gets them in one write.
		present := n.present(begin)
		writes := deliveries
		if count > 1 {
			writes = present * -math.Expm1(-deliveries/present)
		}
		work := writes*c.Write + max(0, deliveries-writes)*c.More
		cores := n.cores - n.steady
		if i := int((begin - warm) / step); begin >= warm && i < len(n.busy) {
			cores -= n.busy[i]
		}
		cores = max(cores, n.cores/10)
		took := max(work/cores, min(writes, 1)*c.Write)
		n.pumped = begin + took
		n.worked += work
		n.writes += writes
		n.deliveries += deliveries
		for _, a := range n.waiting[:count] {
			if a.published < warm {
				continue
			}
			// Its clients are all over the turn.
			parts := min(8, a.audience)
			for i := range int(parts) {
				done := begin + took*(float64(i)+random.Float64())/parts
				delays.Add(int64((done-a.published)*1e9), uint64(a.audience/parts))
			}
		}
		n.waiting = n.waiting[:copy(n.waiting, n.waiting[count:])]
	}
}

// A comeback is when clients were back, after what they had was gone.
type comeback struct {
	times            []float64
	refused, givenUp float64
}

// An attempt is a client that tries to come.
type attempt struct {
	at    float64
	tries int
}

type attempts []attempt

func (a attempts) Len() int           { return len(a) }
func (a attempts) Less(i, j int) bool { return a[i].at < a[j].at }
func (a attempts) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *attempts) Push(x any)        { *a = append(*a, x.(attempt)) }
func (a *attempts) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// patience is how long Halley's client waits for a stream to open.
const patience = 2.0

// pause is how long it then waits before it tries again.
func pause(random *rand.Rand, tries int) float64 {
	return max(0.25, random.Float64()*min(30, math.Exp2(float64(tries))))
}

// storm lets clients come to a node from those that have died, which they notice
// all over a time. Halley's client
// waits up to a second, and up to twice as long after each failure. A refusal
// tells it to wait for 1 to 6 s more. Each attempt is a connection of its own
// over TLS; a node gives half its cores to them, one after the other, and the
// rest to those it has. It makes the handshake of a client that has given up
// as well, since it finds that out afterwards.
func (n *node) storm(c *Costs, s Site, random *rand.Rand, clients int, over float64) comeback {
	queue := make(attempts, clients)
	for i := range queue {
		queue[i].at = over*random.Float64() + pause(random, 0)
	}
	heap.Init(&queue)
	var b comeback
	tokens, looked, free := s.Admit, 0.0, 0.0
	cores := n.cores / 2
	spend := func(at, work float64) float64 {
		free = max(free, at) + work/cores
		for i := int(free / step); len(n.busy) <= i; {
			n.busy = append(n.busy, 0)
		}
		n.busy[int(free/step)] += work / step
		return free
	}
	for len(queue) > 0 {
		a := heap.Pop(&queue).(attempt)
		at := spend(a.at, c.Come)
		if at-a.at > patience {
			b.givenUp++
			heap.Push(&queue, attempt{a.at + patience + pause(random, a.tries+1), a.tries + 1})
			continue
		}
		tokens = min(s.Admit, tokens+(at-looked)*s.Admit)
		looked = at
		if tokens < 1 {
			b.refused++
			wait := 1 + 5*random.Float64() + pause(random, a.tries+1)
			heap.Push(&queue, attempt{at + wait, a.tries + 1})
			continue
		}
		tokens--
		b.times = append(b.times, spend(at, c.Resume))
	}
	slices.SortFunc(b.times, cmp.Compare)
	n.returned = make([]float64, len(n.busy)+1)
	for i, done := 0, 0; i < len(n.returned); i++ {
		for done < len(b.times) && b.times[done] <= float64(i)*step {
			done++
		}
		n.returned[i] = float64(done)
	}
	return b
}
