package scenario

import (
	"errors"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// missed is how many messages each connection of a storm has missed.
const missed = 20

// storm cuts all connections at once. They come back with their positions.
var storm = Scenario{
	Name:  "storm",
	About: "all connections are reset, 20 messages are published, all come back from their positions",
	Cases: sizes(1000, 5000, 15000),
	Suits: func(p peers.Peer, c Case) bool {
		_, plain := p.(*peers.PlainGo)
		_, node := p.(*peers.Node)
		return !plain && !node
	},
	Run: runStorm,
	Columns: append([]Column{
		{Key: "seconds", Title: "all have caught up, s", Digits: 2, Ratio: true},
		{Key: "cpu", Title: "CPU µs a connection", Ratio: true},
	}, faultColumns...),
}

func runStorm(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	if err := start(p, peers.Options{}); err != nil {
		return nil, err
	}
	defer p.Stop()
	a, err := gather(p, c.Transport, "a", c.Connections)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	for range 3 {
		if err := a.round(1); err != nil {
			return nil, err
		}
	}
	position := p.Position(a.Reply(), a.Recent())
	if position == "" {
		return nil, errors.New("no position was seen")
	}
	before, err := p.Usage()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	a.Cut()
	if err := a.publish(missed); err != nil {
		return nil, err
	}
	if err := a.Until(func() bool { return a.Owed() == 0 }, patience); err != nil {
		return nil, err
	}
	if err := a.Return(a.dialog(position), patience); err != nil {
		return nil, err
	}
	caughtUp := a.Until(a.settled, 20*time.Second)
	elapsed := time.Since(begin)
	after, err := p.Usage()
	if err != nil {
		return nil, err
	}
	// What comes twice may come a little later.
	end := time.Now().Add(300 * time.Millisecond)
	for time.Now().Before(end) {
		a.Turn(50 * time.Millisecond)
	}
	a.Finish(all(a.next))
	if caughtUp != nil && a.Counts.Lost == 0 {
		return nil, caughtUp
	}
	return []Measure{{Values: faults(Values{
		"seconds": elapsed.Seconds(),
		"cpu":     (after.CPU - before.CPU).Seconds() * 1e6 / float64(c.Connections),
	}, a.Counts)}}, nil
}
