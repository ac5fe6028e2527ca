package cluster

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/internal/crashtest"
)

// faults are those that a cluster lives through. Each lasts for as long as its
// function takes, which returns what it did to whom.
var faults = []struct {
	name string
	run  func(*trial) string
}{
	{"the stream's leader is killed", killLeader},
	{"two nodes are killed", killNodes},
	{"a node is cut off from NATS", cutNode},
	{"a machine is cut off", cutMachine},
	{"a link is slow and lossy", slowLink},
	{"two NATS servers are parted", partServers},
	{"a program is paused", pause},
	{"all are started again at once", restart},
}

// TestFaults goes round by round through faults, each of them once before any
// comes again. Publishers are at all nodes, and repeat at another what they do
// not know the fate of. Subscribers of every transport go from node to node for
// the whole run.
//
// After each round, what was acknowledged is in its place on every node, and
// once; what nobody knows the fate of is there whole and once, or not at all;
// all nodes have the same at each position; and each subscriber has seen all of
// it, once and in order, with no gap, as nothing was ever removed.
//
//	script/cluster 50
//	HALLEY_CRASH_FAULT=leader script/cluster 10
//
// runs 50 rounds, and 10 of the faults whose names have the word. See the
// package's comment.
func TestFaults(t *testing.T) {
	gate(t)
	random := crashtest.Seeded(t)
	n := crashtest.Rounds(t, len(faults), 2)
	r := newTrial(t, random)
	r.awaitAcks(50)
	r.check()
	var some, order []int
	for i := range faults {
		if strings.Contains(faults[i].name, os.Getenv("HALLEY_CRASH_FAULT")) {
			some = append(some, i)
		}
	}
	if len(some) == 0 {
		t.Fatal("HALLEY_CRASH_FAULT is of no fault")
	}
	outages := make([][]outage, len(faults))
	for i := range n {
		if len(order) == 0 {
			order = slices.Clone(some)
			random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		kind := order[0]
		order = order[1:]
		outages[kind] = append(outages[kind], r.round(i+1, kind))
	}
	r.finish()
	for i, o := range outages {
		if len(o) > 0 {
			t.Logf("%s, %d rounds: %s", faults[i].name, len(o), summary(o))
		}
	}
	r.report(n)
}

// An outage is what a fault makes clients feel.
type outage struct {
	silent time.Duration // the longest time in which no publish was acknowledged
	still  time.Duration // and in which no subscriber got a message
	after  time.Duration // from the fault's end to when all nodes were ready
}

func (o outage) String() string {
	return fmt.Sprintf("%.2fs without publishing, %.2fs without delivery; ready %.2fs after the fault",
		o.silent.Seconds(), o.still.Seconds(), o.after.Seconds())
}

// summary tells the median and the worst of some outages.
func summary(outages []outage) string {
	tell := func(of func(outage) time.Duration) string {
		var times []time.Duration
		for _, o := range outages {
			times = append(times, of(o))
		}
		slices.Sort(times)
		return fmt.Sprintf("%.2fs, at most %.2fs", times[len(times)/2].Seconds(), times[len(times)-1].Seconds())
	}
	return fmt.Sprintf("without publishing %s; without delivery %s; ready after the fault %s",
		tell(func(o outage) time.Duration { return o.silent }),
		tell(func(o outage) time.Duration { return o.still }),
		tell(func(o outage) time.Duration { return o.after }))
}

// round goes through a fault.
func (r *trial) round(number, kind int) (o outage) {
	r.Helper()
	r.acks.Longest()
	r.messages.Longest()
	began := time.Now()
	did := faults[kind].run(r)
	r.heal()
	healed := time.Now()
	r.awaitReady()
	o.after = time.Since(healed)
	r.awaitAcks(20)
	o.silent, o.still = r.acks.Longest(), r.messages.Longest()
	// First, so that what is found in the check is known to be of this round.
	r.Logf("round %d at %s, %s (%s): %v", number, began.Format(time.TimeOnly), faults[kind].name, did, o)
	r.check()
	return o
}

// heal ends all faults.
func (r *trial) heal() {
	r.Helper()
	r.wire.heal()
	r.startAll()
}

// last waits while a fault lasts: some seconds.
func (r *trial) last() {
	time.Sleep(3*time.Second + time.Duration(r.random.Int64N(int64(4*time.Second))))
}

// killLeader lasts until there is another leader, and some time of its work.
func killLeader(r *trial) string {
	r.Helper()
	l := r.leader(nil)
	l.kill()
	next := r.leader(l)
	r.last()
	return fmt.Sprint(l, ", then ", next)
}

// leader waits until the stream has a leader, another than old.
func (r *trial) leader(old *program) *program {
	r.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if l := leader(r.nats, stream); l != nil && l != old {
			return l
		}
	}
	r.Fatal("the stream has no leader")
	return nil
}

func killNodes(r *trial) string {
	r.Helper()
	victims := r.random.Perm(size)[:2]
	for _, v := range victims {
		r.nodes[v].kill()
	}
	r.last()
	return fmt.Sprint(r.nodes[victims[0]], " and ", r.nodes[victims[1]])
}

// cutNode cuts a node off from NATS. Clients still reach it.
func cutNode(r *trial) string {
	n := r.nodes[r.random.IntN(size)]
	r.wire.set(fault{cut: true}, []int{n.port.number}, numbers(r.nats))
	r.last()
	return n.name
}

// cutMachine cuts a node and a NATS server off from all others, but not from
// each other.
func cutMachine(r *trial) string {
	i := r.random.IntN(size)
	inside := []int{r.nats[i].port.number, r.nodes[i].port.number}
	outside := []int{0}
	for _, p := range r.programs() {
		if p != r.nats[i] && p != r.nodes[i] {
			outside = append(outside, p.port.number)
		}
	}
	did := fmt.Sprint(r.role(r.nats[i]), " and ", r.nodes[i])
	r.wire.set(fault{cut: true}, inside, outside)
	r.last()
	return did
}

// slowLink delays all that a program sends to other servers and gets from them,
// by 100 ms there and back, and loses 2 % each way.
func slowLink(r *trial) string {
	p := r.any()
	did := r.role(p)
	var others []int
	for _, o := range r.programs() {
		if o != p {
			others = append(others, o.port.number)
		}
	}
	r.wire.set(fault{delay: 50 * time.Millisecond, loss: 0.02}, []int{p.port.number}, others)
	r.last()
	r.last()
	return did
}

// partServers cuts the link between the stream's leader and another server, which
// falls behind while all others take it for well. Nodes are killed and started
// meanwhile, so that they come to it for what they have missed.
func partServers(r *trial) string {
	r.Helper()
	l := r.leader(nil)
	other := r.nats[r.random.IntN(size)]
	for other == l {
		other = r.nats[r.random.IntN(size)]
	}
	r.wire.set(fault{cut: true}, []int{l.port.number}, []int{other.port.number})
	for range 8 {
		time.Sleep(500*time.Millisecond + time.Duration(r.random.Int64N(int64(800*time.Millisecond))))
		n := r.nodes[r.random.IntN(size)]
		n.kill()
		n.start()
	}
	return fmt.Sprint(l, ", the leader, and ", other)
}

func pause(r *trial) string {
	r.Helper()
	p := r.any()
	did := r.role(p)
	p.signal(syscall.SIGSTOP)
	time.Sleep(10 * time.Second)
	p.signal(syscall.SIGCONT)
	return did
}

func restart(r *trial) string {
	r.Helper()
	how := syscall.SIGKILL
	if r.random.IntN(2) == 0 {
		how = syscall.SIGTERM
	}
	all := r.programs()
	for _, i := range r.random.Perm(len(all)) {
		all[i].signal(how)
	}
	for _, p := range all {
		p.wait()
	}
	return how.String()
}

// any returns a program, a NATS server or a node, and often the stream's leader.
func (r *trial) any() *program {
	if r.random.IntN(4) == 0 {
		return r.leader(nil)
	}
	all := r.programs()
	return all[r.random.IntN(len(all))]
}

// role names a program, and tells whether it is the stream's leader.
func (r *trial) role(p *program) string {
	if p == leader(r.nats, stream) {
		return p.name + ", the leader"
	}
	return p.name
}

func numbers(programs []*program) (n []int) {
	for _, p := range programs {
		n = append(n, p.port.number)
	}
	return n
}
