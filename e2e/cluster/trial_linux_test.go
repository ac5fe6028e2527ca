package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

// size is how many NATS servers there are, and how many nodes. The first of
// each are on one machine, and so on.
const size = 3

// stream is the name of the log in NATS.
const stream = "halley"

// A trial is what goes on from the first start of a cluster to its end.
type trial struct {
	*testing.T
	random *rand.Rand
	wire   *wire
	nats   []*program
	nodes  []*program

	acks, messages crashtest.Pulse
	publishers     []*crashtest.Publisher
	subscribers    []*crashtest.Subscriber
	start          engine.Cursor
	ledgers        []*crashtest.Ledger // one of each node
	compared       int                 // entries that all ledgers have alike
	unknown        []*crashtest.Publish
	done           []*crashtest.Publish
	acked          int

	publishing, subscribing sync.WaitGroup
	stop                    chan struct{} // closed to let publishers finish
	leave                   context.CancelFunc
	ctx                     context.Context
}

// newTrial starts a cluster, with publishers and subscribers.
func newTrial(t *testing.T, random *rand.Rand) *trial {
	r := &trial{T: t, random: random, stop: make(chan struct{})}
	r.wire = newWire(t, 2*size)
	r.nats = newNATS(t, r.wire.ports[1:1+size])
	r.nodes = newNodes(t, r.wire.ports[1+size:], r.nats)
	r.startAll()
	r.awaitReady()

	for _, n := range r.nodes {
		info, err := client(n, nil).Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cursor, err := engine.ParseCursor(info.Cursor)
		if err != nil || len(r.ledgers) > 0 && cursor != r.start {
			t.Fatalf("%v is at %s, and %v at %v: %v", n, info.Cursor, r.nodes[0], r.start, err)
		}
		r.start = cursor
		r.ledgers = append(r.ledgers, crashtest.NewLedger(t, client(n, nil), info.Cursor))
	}
	r.ctx, r.leave = context.WithCancel(t.Context())
	t.Cleanup(func() {
		r.leave()
		r.publishing.Wait()
		r.subscribing.Wait()
	})
	var mounts []string
	for _, n := range r.nodes {
		mounts = append(mounts, mount(n))
	}
	for i := range 3 * size {
		p := crashtest.NewPublisher(t, i, random, &r.acks, mounts...)
		p.Client = *newHTTPClient()
		p.Client.Timeout = 5 * time.Second
		p.Pause, p.Patient = 200*time.Millisecond, true
		r.publishers = append(r.publishers, p)
		r.publishing.Go(func() { p.Run(r.ctx, r.stop) })
	}
	for _, transport := range comet.Transports {
		r.subscribe(transport, "load/**")
		r.subscribe(transport, "load/1", "load/deep/*", "other")
	}
	return r
}

// newNodes returns halley nodes behind some ports, which do not run yet.
func newNodes(t *testing.T, ports []*port, servers []*program) []*program {
	t.Helper()
	path, err := halley()
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, s := range servers {
		urls = append(urls, fmt.Sprintf("nats://%s:4222", s.port.address))
	}
	dir := t.TempDir()
	var nodes []*program
	for i, p := range ports {
		name := fmt.Sprint("halley-", i+1)
		nodes = append(nodes, &program{t: t, name: name, port: p, args: []string{
			path, "serve", "--listen", p.address + ":8080", "--open", "--publish-rate=-1", "--max-connections-per-address=-1",
			"--engine", "nats", "--nats-url", strings.Join(urls, ","), "--nats-stream", stream, "--nats-replicas", fmt.Sprint(size),
			"--nats-timeout", "3s", "--data-dir", filepath.Join(dir, name), "--heartbeat", "1s",
			"--retain-count", "0", "--retain-bytes", "0", "--disk-limit", "0",
		}})
	}
	return nodes
}

func mount(node *program) string { return "http://" + node.port.address + ":8080/comet" }

// newHTTPClient returns one with connections of its own. A node that is cut off
// does not say so.
func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}}
}

// client returns a client of a node, on connections of its own if h is nil.
func client(node *program, h *http.Client) *comet.Client {
	if h == nil {
		h = newHTTPClient()
	}
	return &comet.Client{URL: mount(node), HTTPClient: h, Attempts: 1000, Backoff: comet.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}}
}

func (r *trial) subscribe(transport comet.Transport, channels ...string) {
	s := crashtest.NewSubscriber(r.T, nil, transport, r.start, channels...)
	s.Messages = &r.messages
	random := rand.New(rand.NewPCG(r.random.Uint64(), 0))
	r.subscribers = append(r.subscribers, s)
	r.subscribing.Go(func() { r.hop(s, random) })
}

// hop has a subscriber go from node to node until r.ctx ends: when a connection
// fails, and at random moments.
func (r *trial) hop(s *crashtest.Subscriber, random *rand.Rand) {
	h := newHTTPClient()
	defer h.CloseIdleConnections()
	for r.ctx.Err() == nil {
		s.Client = client(r.nodes[random.IntN(size)], h)
		stay, leave := context.WithTimeout(r.ctx, time.Duration(random.Int64N(int64(4*time.Second))))
		o := s.Options()
		o.Retrying = func(error, time.Duration) { leave() }
		for e, err := range s.Client.Subscribe(stay, o) {
			if err == nil {
				s.Take(r.ctx, e)
			} else if stay.Err() == nil {
				r.Errorf("%v of %s: %v", s, s.Client.URL, err)
			}
		}
		leave()
	}
}

// programs returns all, NATS servers first.
func (r *trial) programs() []*program { return slices.Concat(r.nats, r.nodes) }

// startAll starts what does not run.
func (r *trial) startAll() {
	r.Helper()
	for _, p := range r.programs() {
		if p.process == nil || !p.runs() {
			p.start()
		}
	}
}

// awaitReady waits until all nodes have come to the end of the stream.
func (r *trial) awaitReady() {
	r.Helper()
	deadline := time.Now().Add(patience)
	for _, n := range r.nodes {
		for {
			err := ask("http://"+n.port.address+":8080/readyz", nil)
			if err == nil {
				break
			}
			if !n.runs() || time.Now().After(deadline) {
				r.Fatalf("%v is not ready: %v; it printed:\n%s", n, err, n.process.Output())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// awaitAcks waits until so many publishes are acknowledged.
func (r *trial) awaitAcks(n int) {
	r.Helper()
	select {
	case <-r.acks.Await(n):
	case <-time.After(patience):
		r.Fatal("publishers are not answered")
	}
}

// check compares what all have seen with the log of each node, while they go
// on.
func (r *trial) check() {
	r.Helper()
	// What nobody knew the fate of in the round before has come by now, if it
	// ever does.
	done := r.unknown
	r.unknown = nil
	end := uint64(0)
	for _, p := range r.publishers {
		for _, d := range p.Take() {
			if d.First == 0 {
				r.unknown = append(r.unknown, d)
				continue
			}
			done = append(done, d)
			end = max(end, d.First+uint64(len(d.Names))-1)
		}
	}
	common := -1
	for i, l := range r.ledgers {
		r.read(r.nodes[i], l, end)
		if common < 0 || len(l.Entries) < common {
			common = len(l.Entries)
		}
	}
	first := r.ledgers[0]
	for ; r.compared < common; r.compared++ {
		for i, l := range r.ledgers {
			if l.Entries[r.compared] != first.Entries[r.compared] {
				r.Fatalf("%v has %v, and %v has %v", r.nodes[0], first.Entries[r.compared], r.nodes[i], l.Entries[r.compared])
			}
		}
	}
	for i, l := range r.ledgers {
		n := l.Check(done)
		if i == 0 {
			r.acked += n
		}
	}
	for _, s := range r.subscribers {
		s.Check(first)
	}
	r.done = append(r.done, done...)
	if r.Failed() {
		r.Fatal("not another round")
	}
}

// read reads a node's log until it has come to a position.
func (r *trial) read(node *program, l *crashtest.Ledger, end uint64) {
	r.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if l.Read(false); l.Last >= end {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%v stays at %d, and %d was acknowledged; it printed:\n%s", node, l.Last, end, node.process.Output())
		}
	}
}

// finish lets all come to the end, and compares once more: with the whole log
// of each node, which no fault since may have changed.
func (r *trial) finish() {
	r.Helper()
	close(r.stop)
	r.publishing.Wait()
	for _, p := range r.publishers {
		if p.Refused != nil {
			r.Error(p.Refused)
		}
	}
	r.check() // what is known
	r.check() // what nobody knew
	for _, s := range r.subscribers {
		s.Finish(r.ledgers[0])
	}
	for i, n := range r.nodes {
		whole := crashtest.NewLedger(r.T, client(n, nil), r.start.String())
		whole.Read(false)
		if !slices.Equal(whole.Entries, r.ledgers[0].Entries) {
			whole.Lost++
			r.Errorf("%v has %d messages in the end, and %v had %d", n, len(whole.Entries), r.nodes[0], len(r.ledgers[0].Entries))
		}
		if n := whole.Check(r.done); n != r.acked {
			r.Errorf("%d messages were acknowledged, then %d", r.acked, n)
		}
		r.ledgers[i].Lost += whole.Lost
	}
	r.leave()
	r.subscribing.Wait()
	for _, n := range r.nodes {
		n.stop()
	}
}

// report prints the closing line.
func (r *trial) report(rounds int) {
	busy, lost, doubled, disordered := 0, 0, 0, 0
	epochs := make(map[string]bool)
	for _, p := range r.publishers {
		busy += p.Busy()
	}
	for _, l := range r.ledgers {
		lost, doubled, disordered = lost+l.Lost, doubled+l.Doubled, disordered+l.Disordered
		for e := range l.Epochs {
			epochs[e] = true
		}
	}
	if len(epochs) > 1 {
		r.Errorf("the nodes have more than one epoch: %v", epochs)
	}
	var opens []string
	for _, transport := range comet.Transports {
		n := 0
		for _, s := range r.subscribers {
			if s.Transport == transport {
				n += s.Opens
			}
		}
		opens = append(opens, fmt.Sprintf("%s %d", transport, n))
	}
	r.Logf("%d rounds: acknowledged %d, answered %d times with 503, lost %d, doubled %d, out of order %d, epochs %d; subscribed: %s",
		rounds, r.acked, busy, lost, doubled, disordered, len(epochs), strings.Join(opens, ", "))
}
