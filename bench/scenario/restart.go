package scenario

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// How a server is restarted.
const (
	newProcess = "SIGTERM and a new process"
	handOver   = "SIGUSR2"
)

const (
	restartClients  = 10_000
	restartChannels = 25
	restartRate     = 50 // messages a second
	restartDrain    = 10 * time.Second
	restartBefore   = 5 * time.Second
	restartAfter    = 10 * time.Second
)

// restart is a server that goes and comes back, while its clients do as the
// protocol says.
var restart = Scenario{
	Name: "restart",
	About: "a server with its log on disk is restarted under clients of all transports, which come back as they are told; " +
		"50 acknowledged messages a second to 25 channels",
	Cases: func(config Config) []Case {
		var cases []Case
		for _, c := range sizes(restartClients)(config) {
			cases = append(cases, Case{newProcess, c.Connections}, Case{handOver, c.Connections})
		}
		return cases
	},
	Suits: isHalley,
	Run:   runRestart,
	Columns: append([]Column{
		{Key: "published", Title: "messages"},
		{Key: "repeated", Title: "publishes repeated"},
		{Key: "back", Title: "all are back, s", Digits: 1},
		{Key: "caughtUp", Title: "and have caught up, s", Digits: 1},
		{Key: "down", Title: "connections refused for s", Digits: 2},
		{Key: "silent", Title: "longest without an answer, s", Digits: 2},
		{Key: "before", Title: "p99 ms before", Digits: 1},
		{Key: "p99", Title: "p99 ms afterwards", Digits: 1},
		{Key: "peak", Title: "busiest second, CPU s", Digits: 2},
		{Key: "turned", Title: "clients told to come later"},
		{Key: "unmade", Title: "attempts nobody took"},
		{Key: "gaps", Title: "gaps told"},
	}, faultColumns...),
	Sizes: "clients",
	Kinds: "restart",
}

// CurveStep is the time between the points of a curve, in seconds.
const CurveStep = float64(curveStep) / float64(time.Second)

func runRestart(p peers.Peer, c Case, config Config) ([]Measure, error) {
	h, ok := p.(*peers.Halley)
	if !ok {
		return nil, fmt.Errorf("%s cannot be restarted", p.Name())
	}
	dir, err := os.MkdirTemp(config.Dir, "restart")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := start(h, peers.Options{Admit: true, Dir: dir, Drain: min(restartDrain, config.Limit)}); err != nil {
		return nil, err
	}
	defer h.Stop()
	return disturbed([]*peers.Halley{h}, c, config, func(crowd *crowd, feed *feed, values Values) error {
		return restarting(crowd, feed, h, c, config, values)
	})
}

// disturbed has clients come to the first of the nodes, publishes to all nodes,
// and looks at what comes before, during and after something happens.
func disturbed(nodes []*peers.Halley, c Case, config Config, happens func(*crowd, *feed, Values) error) ([]Measure, error) {
	crowd, err := newCrowd(nodes, c.Connections, restartChannels)
	if err != nil {
		return nil, err
	}
	defer crowd.Close()
	stop := make(chan struct{})
	feed := publishTo(nodes, restartChannels, restartRate, stop)
	values := Values{}
	measured := func() error {
		// They come evenly, at half the rate at which the server lets them in.
		spread := time.Duration(c.Connections) * time.Second / 2500
		for i := range c.Connections {
			crowd.come(i, rand.N(spread+1))
		}
		ready, err := crowd.until(func() bool { return crowd.here == c.Connections }, spread+patience)
		if err != nil {
			return err
		}
		if !ready {
			return fmt.Errorf("%d of %d clients have come", crowd.here, c.Connections)
		}
		crowd.Latency.Reset()
		if err := crowd.run(min(restartBefore, config.Limit)); err != nil {
			return err
		}
		values["before"] = crowd.Latency.Quantile(0.99) / 1e6
		return happens(crowd, feed, values)
	}
	err = measured()
	close(stop)
	for over := false; !over && err == nil; { // who publishes may still wait for what is to be delivered
		select {
		case <-feed.done:
			over = true
		default:
			err = crowd.run(10 * time.Millisecond)
		}
	}
	<-feed.done
	if failed := feed.failed.Load(); failed != nil {
		err = errors.Join(err, *failed)
	}
	if err != nil {
		return nil, err
	}
	published := feed.snapshot()
	if _, err := crowd.until(func() bool { return crowd.have(published) }, 20*time.Second); err != nil {
		return nil, err
	}
	if err := crowd.run(300 * time.Millisecond); err != nil { // what comes twice may come later
		return nil, err
	}
	crowd.Finish(func(i int) uint64 { return published[crowd.channel(i)] })
	for _, n := range published {
		values["published"] += float64(n)
	}
	values["repeated"] = float64(feed.repeats.Load())
	values["turned"], values["unmade"] = float64(crowd.refused), float64(crowd.unmade)
	values["gaps"] = float64(crowd.gaps)
	return []Measure{{Values: faults(values, crowd.Counts), Curve: crowd.curve}}, nil
}

// restarting restarts the server and waits until all are back.
func restarting(crowd *crowd, feed *feed, h *peers.Halley, c Case, config Config, values Values) error {
	stop := make(chan struct{})
	probed := probe(h, stop)
	time.Sleep(20 * time.Millisecond)
	crowd.origin = time.Now()
	crowd.refused, crowd.unmade = 0, 0
	operated := operate(h, c.Transport, stop)
	since := func() float64 { return time.Since(crowd.origin).Seconds() }
	back, err := crowd.until(func() bool { return crowd.returned == c.Connections && crowd.here == c.Connections }, 2*patience)
	values["back"] = since()
	if err == nil && back {
		then := feed.snapshot()
		back, err = crowd.until(func() bool { return crowd.have(then) }, patience)
		values["caughtUp"] = since()
	}
	if err == nil && back {
		crowd.Latency.Reset()
		err = crowd.run(min(restartAfter, config.Limit))
		values["p99"] = crowd.Latency.Quantile(0.99) / 1e6
	}
	close(stop)
	outage, operation := <-probed, <-operated
	values["down"], values["silent"] = outage.down.Seconds(), outage.silent.Seconds()
	values["peak"] = operation.peak
	if err = errors.Join(err, operation.err); err == nil && !back {
		err = fmt.Errorf("%d of %d clients are back, %d now", crowd.returned, c.Connections, crowd.here)
	}
	return err
}

// An operation is how a restart went.
type operation struct {
	peak float64 // CPU seconds of the server in its busiest second
	err  error
}

// operate restarts the server, and looks at its CPU time until stop is closed.
// Nobody else may use it meanwhile.
func operate(h *peers.Halley, how string, stop <-chan struct{}) <-chan operation {
	done := make(chan operation, 1)
	go func() {
		var o operation
		defer func() { done <- o }()
		last, err := h.Usage()
		if err != nil {
			o.err = err
			return
		}
		signal := syscall.SIGTERM
		if how == handOver {
			signal = syscall.SIGUSR2
		}
		if o.err = h.Signal(signal); o.err != nil {
			return
		}
		const steps = int(time.Second / curveStep)
		var recent [steps]float64
		tick := time.NewTicker(curveStep)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-stop:
				return
			case <-h.Ended():
				if how == handOver {
					_, o.err = h.Usage() // it tells why it ended
					return
				}
				if o.err = h.StartAgain(); o.err != nil {
					return
				}
			case <-tick.C:
				usage, err := h.Usage()
				if err != nil {
					continue // it has just ended
				}
				if usage.CPU < last.CPU {
					last.CPU = 0 // another process
				}
				recent[i%steps] = (usage.CPU - last.CPU).Seconds()
				last = usage
				i++
				sum := 0.0
				for _, one := range recent {
					sum += one
				}
				o.peak = max(o.peak, sum)
			}
		}
	}()
	return done
}

// An outage is what a client notices that asks all the time.
type outage struct {
	down   time.Duration // connections were refused
	silent time.Duration // the longest time between two answers
}

// probe asks the server all the time, each time by a new connection.
func probe(h *peers.Halley, stop <-chan struct{}) <-chan outage {
	done := make(chan outage, 1)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + h.Addr().String() + "/comet/info"
	go func() {
		var o outage
		defer func() { done <- o }()
		answered := time.Now()
		var refused time.Time // since when
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			answer, err := client.Get(url)
			now := time.Now()
			if errors.Is(err, syscall.ECONNREFUSED) {
				if refused.IsZero() {
					refused = now
				}
				continue
			}
			var dialing *net.OpError
			if !refused.IsZero() && !(errors.As(err, &dialing) && dialing.Op == "dial") {
				o.down += now.Sub(refused)
				refused = time.Time{}
			}
			if err != nil {
				continue
			}
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err == nil && answer.StatusCode == http.StatusOK {
				o.silent = max(o.silent, now.Sub(answered))
				answered = now
			}
		}
	}()
	return done
}
