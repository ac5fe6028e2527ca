package scenario

import (
	"fmt"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// An audience is the subscribers of one channel, and its publisher.
type audience struct {
	*load.Pool
	peer      peers.Peer
	transport string
	channel   string
	size      int    // of a message
	next      uint64 // sequence
	expected  uint64 // deliveries
}

// gather subscribes n connections to a channel and adds a publisher.
func gather(p peers.Peer, transport, channel string, n int) (*audience, error) {
	pool, err := load.New(p.Addr())
	if err != nil {
		return nil, err
	}
	if transport == "" {
		transport = p.Transports()[0]
	}
	if nodes, ok := p.(peers.Nodes); ok {
		pool.PublishTo(nodes.Entry())
	}
	a := &audience{Pool: pool, peer: p, transport: transport, channel: channel, size: MessageSize}
	err = pool.Subscribe(n, 0, a.dialog(""), patience)
	if err == nil {
		err = pool.AddPublishers(1)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return a, nil
}

func (a *audience) dialog(position string) func(int) load.Dialog {
	if a.transport == bayeux { // which is of one connection
		return func(int) load.Dialog { return a.peer.Subscribe(a.transport, a.channel, position) }
	}
	d := a.peer.Subscribe(a.transport, a.channel, position)
	return func(int) load.Dialog { return d }
}

// publish sends n messages at once and does not wait.
func (a *audience) publish(n int) error {
	messages := make([][]byte, n)
	for i := range messages {
		messages[i] = load.Message(a.next, a.size)
		a.next++
	}
	a.expected += uint64(n * a.Subscribers())
	requests, answers := a.peer.Publish(a.channel, messages...)
	return a.Publish(0, requests, answers)
}

// settled reports whether everything that was published came and was answered.
func (a *audience) settled() bool {
	return a.Counts.Delivered >= a.expected && a.Owed() == 0
}

// round publishes n messages at once and waits until all have them.
func (a *audience) round(n int) error {
	if err := a.publish(n); err != nil {
		return err
	}
	return a.Until(a.settled, patience)
}

// publishEvery publishes a message at each pause, whether or not those before
// have come.
func (a *audience) publishEvery(pause time.Duration, done func() bool) error {
	for due := time.Now(); !done(); {
		if wait := time.Until(due); wait > 0 {
			a.Turn(min(wait, 10*time.Millisecond))
			continue
		}
		due = due.Add(pause)
		if err := a.publish(1); err != nil {
			return err
		}
		a.Turn(0)
	}
	return nil
}

// A spell is what a load cost the server and brought.
type spell struct {
	cpu       float64 // seconds
	elapsed   float64 // seconds
	delivered float64
}

// keep goes on with step until the server has used enough CPU time to be
// measured, or the time is over.
func keep(p peers.Peer, pool *load.Pool, config Config, step func() error) (spell, error) {
	before, err := p.Usage()
	if err != nil {
		return spell{}, err
	}
	begin, delivered := time.Now(), pool.Counts.Delivered
	pool.Latency.Reset()
	for looked := begin; ; {
		if err := step(); err != nil {
			return spell{}, err
		}
		now := time.Now()
		if now.Sub(looked) < 200*time.Millisecond {
			continue
		}
		looked = now
		after, err := p.Usage()
		if err != nil {
			return spell{}, err
		}
		elapsed := time.Since(begin)
		if after.CPU-before.CPU < config.CPU && elapsed < config.Limit {
			continue
		}
		return spell{
			cpu:       (after.CPU - before.CPU).Seconds(),
			elapsed:   elapsed.Seconds(),
			delivered: float64(pool.Counts.Delivered - delivered),
		}, nil
	}
}

// faults adds what a server did wrong.
func faults(v Values, c load.Counts) Values {
	v["lost"], v["doubled"], v["reordered"] = float64(c.Lost), float64(c.Doubled), float64(c.Reordered)
	return v
}

var faultColumns = []Column{
	{Key: "lost", Title: "lost"},
	{Key: "doubled", Title: "doubled"},
	{Key: "reordered", Title: "out of order"},
}

// all is the end of a channel that every subscriber follows.
func all(end uint64) func(int) uint64 { return func(int) uint64 { return end } }

// settle waits until a server's memory stays as it is.
func settle(p peers.Peer) (int64, error) {
	var last int64
	for range 20 {
		time.Sleep(500 * time.Millisecond)
		usage, err := p.Usage()
		if err != nil {
			return 0, err
		}
		if change := usage.Memory - last; change < last/200 && -change < last/200 {
			return usage.Memory, nil
		}
		last = usage.Memory
	}
	return last, nil
}

// start runs a server; stop must be called also after an error.
func start(p peers.Peer, o peers.Options) error {
	if err := p.Start(o); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}
