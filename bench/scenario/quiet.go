package scenario

import (
	"errors"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// quietTime is how long the quiet channel is listened to, alone and next to a
// busy one; quietPause lies between its messages.
const (
	quietTime  = 10 * time.Second
	quietPause = 20 * time.Millisecond
)

// quiet is a channel with one subscriber, next to one that is busy.
var quiet = Scenario{
	Name:  "quiet",
	About: "latency of a quiet channel, alone and while another sends to all at half its maximum rate",
	Cases: sizes(15000),
	Suits: small,
	Run:   runQuiet,
	Columns: append([]Column{
		{Key: "alone", Title: "p99 ms alone", Digits: 2},
		{Key: "p50", Title: "p50 ms next to the busy one", Digits: 2},
		{Key: "p99", Title: "p99 ms next to the busy one", Digits: 2, Ratio: true},
		{Key: "rate", Title: "busy deliveries/s"},
	}, faultColumns...),
}

func runQuiet(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	if err := start(p, peers.Options{}); err != nil {
		return nil, err
	}
	defer p.Stop()
	busy, err := gather(p, c.Transport, "busy", c.Connections)
	if err != nil {
		return nil, err
	}
	defer busy.Close()

	alone := listenQuietly(p, quietTime/2)
	heard := <-alone
	if heard.err != nil {
		return nil, heard.err
	}
	values := Values{"alone": heard.p99}

	begin, rounds := time.Now(), 0
	for ; time.Since(begin) < 3*time.Second || rounds < 5; rounds++ {
		if err := busy.round(1); err != nil {
			return nil, err
		}
	}
	pause := 2 * time.Since(begin) / time.Duration(rounds)

	next := listenQuietly(p, quietTime)
	begin, delivered := time.Now(), busy.Counts.Delivered
	err = busy.publishEvery(pause, func() bool {
		select {
		case heard = <-next:
			return true
		default:
			return false
		}
	})
	if err = errors.Join(err, heard.err); err != nil {
		return nil, err
	}
	values["p50"], values["p99"] = heard.p50, heard.p99
	values["rate"] = float64(busy.Counts.Delivered-delivered) / time.Since(begin).Seconds()
	if err := busy.Until(busy.settled, patience); err != nil {
		return nil, err
	}
	busy.Finish(all(busy.next))
	return []Measure{{Values: faults(values, sum(busy.Counts, heard.counts))}}, nil
}

type heard struct {
	p50, p99 float64
	counts   load.Counts
	err      error
}

// listenQuietly publishes now and then to a channel with one subscriber, in a
// thread of its own.
func listenQuietly(p peers.Peer, length time.Duration) <-chan heard {
	done := make(chan heard, 1)
	go func() {
		var h heard
		defer func() { done <- h }()
		a, err := gather(p, "", "quiet", 1)
		if err != nil {
			h.err = err
			return
		}
		defer a.Close()
		for begin := time.Now(); time.Since(begin) < length; time.Sleep(quietPause) {
			if h.err = a.round(1); h.err != nil {
				return
			}
		}
		a.Finish(all(a.next))
		h.p50, h.p99 = a.Latency.Quantile(0.5)/1e6, a.Latency.Quantile(0.99)/1e6
		h.counts = a.Counts
	}()
	return done
}
