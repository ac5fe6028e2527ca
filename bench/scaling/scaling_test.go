package main

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// known are costs that make what comes out of them easy to say.
var known = Costs{
	Connection: 10_000, Kernel: 5000, Write: 10e-6, Publish: 20e-6, Append: 10e-6, Intake: 10e-6,
	Come: 500e-6, Resume: 50e-6, Store: 50e-6, Send: 10e-6, Rate: 10_000, Hop: 2e-3, Copy: 300, Stored: 300, Wire: 400, Stall: 5,
}

func near(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	if math.Abs(got-want) > want*part {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}

// TestPage shows that the page has what the committed results make.
func TestPage(t *testing.T) {
	const path = "../../docs/scaling.md"
	costs, err := read("../results")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range costs.list {
		if one.value < 0 || math.IsNaN(one.value) {
			t.Errorf("%s: %g", one.name, one.value)
		}
	}
	all, err := tables(costs, site)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fill(string(page), all)
	if err != nil {
		t.Fatal(err)
	}
	if want != string(page) {
		t.Errorf("%s is not of the newest results; go run -C bench ./scaling -write makes it anew", path)
	}
}

// TestSome draws from binomial distributions of each way of drawing.
func TestSome(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, one := range []struct{ n, p float64 }{{1, 0.1}, {10, 0.5}, {1000, 0.002}, {1000, 0.2}, {1e6, 0.01}, {50, 1}} {
		const draws = 20_000
		sum, squares := 0.0, 0.0
		for range draws {
			k := some(random, one.n, one.p)
			if k < 0 || k > one.n || k != math.Trunc(k) {
				t.Fatalf("%g of %g", k, one.n)
			}
			sum += k
			squares += k * k
		}
		mean := sum / draws
		near(t, "the mean", mean, one.n*one.p, 0.05)
		if one.p < 1 {
			near(t, "the variance", squares/draws-mean*mean, one.n*one.p*(1-one.p), 0.1)
		}
	}
}

// TestLoads shows that audiences are on average what plans go by.
func TestLoads(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, l := range loads() {
		const draws = 200_000
		sum := 0.0
		for range draws {
			sum += l.Audience(random, 1e6)
		}
		near(t, l.Name+"'s audience", sum/draws, l.Mean(1e6), 0.05)
	}
}

// TestPlan shows that plans keep to the limits, and that less would not.
func TestPlan(t *testing.T) {
	for _, l := range loads() {
		for _, clients := range []float64{1000, 1e6, 1e8} {
			p, err := plan(&known, site, l, clients)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Use.fits(site.Busy) || p.Rate > site.LogShare*known.Rate || max(p.Usually.Lines, p.Usually.Servers) > site.Busy {
				t.Errorf("%s for %g clients is over a limit: %+v", l.Name, clients, p)
			}
			if p.Nodes > site.Zones {
				fewer := p.Nodes - 1
				left := fewer - math.Ceil(fewer/site.Zones)
				if use(&known, site, l, p.Rate, clients/p.Logs, left).fits(site.Busy) {
					t.Errorf("%s for %g clients needs fewer than %g nodes", l.Name, clients, p.Nodes)
				}
			}
			if p.Logs*p.Nodes*site.Clients < clients {
				t.Errorf("%s: %g clients on %g nodes", l.Name, clients, p.Logs*p.Nodes)
			}
		}
	}
	slow := known
	slow.Rate = 100
	tickers := loads()[2]
	if p, err := plan(&slow, site, tickers, 1e6); err == nil {
		t.Errorf("a log of 100 messages a second takes 2,000: %+v", p)
	}
}

// TestLimits shows that what a limit says is where it is.
func TestLimits(t *testing.T) {
	for _, l := range limits(&known, site, loads()[0]) {
		if l.name == "what the log takes" {
			near(t, l.name, l.clients, 600*known.Rate, 0.001) // a message each in 600 s
		}
		if l.name == "each node's core that takes the log in" {
			near(t, l.name, l.clients, 600/known.Intake, 0.001)
		}
	}
}

func broadcast(clients, nodes float64) Plan {
	return Plan{Load: loads()[3], Clients: clients, Logs: 1, Nodes: nodes, Rate: 0.5}
}

// TestFanout follows single messages to many clients of an idle node.
func TestFanout(t *testing.T) {
	// Heartbeats take a little of the cores.
	cores := site.Cores*site.Scale - 50_000/site.Beat*known.Write
	took := 50_000 * known.Write / cores
	const times = 20 // there are few messages each time
	p50, p99 := 0.0, 0.0
	for seed := range uint64(times) {
		o := simulate(&known, site, broadcast(500_000, 10), nothing, seed)
		p50 += o.P50 / times
		p99 += o.P99 / times
		if o.Writes < 0.9 {
			t.Errorf("%g of the deliveries are writes", o.Writes)
		}
	}
	near(t, "the median", p50, known.Hop+took/2, 0.15)
	near(t, "the 99th percentile", p99, known.Hop+took, 0.25)
}

// TestQueue gives the log nearly all it takes.
func TestQueue(t *testing.T) {
	c := known
	c.Write, c.Intake, c.Hop, c.Publish, c.Append = 0, 0, 0, 0, 0
	c.Rate = 1000
	p := Plan{Load: loads()[0], Clients: 600_000, Logs: 1, Nodes: 10, Rate: 800}
	o := simulate(&c, site, p, nothing, 1)
	// Of a queue with one server and a fixed time of service (M/D/1) the mean
	// wait is ρ/(2(1-ρ)) services, 2 here; the median is below.
	if o.P50 < 1/c.Rate || o.P50 > 3/c.Rate {
		t.Errorf("the median is %g s", o.P50)
	}
	if o.P99 < 6/c.Rate || o.P99 > 20/c.Rate {
		t.Errorf("the 99th percentile is %g s", o.P99)
	}
	// What waits while there is no leader comes through when there is one.
	o = simulate(&c, site, p, leaderDies, 1)
	near(t, "the longest wait", o.Log, c.Stall, 0.1)
}

// TestCoalescing shows that a node that is far too slow makes up for it by
// writing several messages at once.
func TestCoalescing(t *testing.T) {
	c := known
	c.Write = 1e-3
	p := Plan{Load: loads()[2], Clients: 100_000, Logs: 1, Nodes: 10, Rate: instruments}
	o := simulate(&c, site, p, nothing, 1)
	if o.Writes > 0.5 {
		t.Errorf("%g of the deliveries are writes", o.Writes)
	}
	if o.CPU > 1.01 {
		t.Errorf("a node's CPU is used to %g", o.CPU)
	}
}

// TestStorm has clients of a node come back to nine others.
func TestStorm(t *testing.T) {
	p := broadcast(1e6, 10)
	returning := p.Clients / p.Nodes / 9
	// The handshakes take longer than the second in which clients come, and so
	// long that all are let in that get so far.
	o := simulate(&known, site, p, nodeDies, 1)
	cores := site.Cores * site.Scale / 2
	near(t, "until all are back", o.Back, returning*(known.Come+known.Resume)/cores, 0.15)
	if o.Refused > 0 {
		t.Errorf("clients are refused %g times", o.Refused)
	}
	none := simulate(&known, site, p, nothing, 1)
	if none.Back != 0 {
		t.Errorf("clients came back that had not gone")
	}
	if o.P99 < none.P99 {
		t.Errorf("with a storm messages come sooner: %g and %g s", o.P99, none.P99)
	}
	// Who would wait for longer than a client does waits in vain, and comes again.
	third := simulate(&known, site, p, zoneDies, 1)
	if third.GivenUp < 1 || third.Back < 10 {
		t.Errorf("with a third of the nodes gone all are back after %g s, having waited %g times in vain", third.Back, third.GivenUp)
	}
	fits := broadcast(10*0.9*handshaken(&known, site), 10)
	if o := simulate(&known, site, fits, zoneDies, 1); o.GivenUp > 0 {
		t.Errorf("where handshakes take as long as clients wait, they wait %g times in vain", o.GivenUp)
	}
	// Where they notice one after the other there is no storm.
	silent := simulate(&known, site, p, zoneSilent, 1)
	if silent.GivenUp > 0 || silent.Back < site.Beat || silent.Back > 2*site.Beat+2 {
		t.Errorf("with a zone cut off all are back after %g s, having waited %g times in vain", silent.Back, silent.GivenUp)
	}
	// Without handshakes a node lets in as many at once as in a second.
	light := known
	light.Come, light.Resume = 1e-6, 1e-6
	o = simulate(&light, site, p, nodeDies, 1)
	if o.Refused == 0 || o.Back < (returning-site.Admit)/site.Admit || o.Back > 30 {
		t.Errorf("all are back after %g s, refused %g times", o.Back, o.Refused)
	}
	few := simulate(&known, site, broadcast(1e5, 100), nodeDies, 1)
	if few.Refused != 0 || few.Back > 1.1 {
		t.Errorf("ten clients to a node are back after %g s, refused %g times", few.Back, few.Refused)
	}
}
