package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// A crowd is clients of Halley over all its transports, which come back by
// themselves: when they are told to, with the cursors they have. Where there are
// several nodes they come to the first one, and then to any other than that
// which has failed them.
type crowd struct {
	*load.Pool
	nodes      []*peers.Halley
	transports []string
	channels   int
	clients    []client
	here       int             // clients that are subscribed
	waiting    map[int64][]int // clients by when they come: ticks since begin
	begin      time.Time
	tick       int64 // the last that was dealt with

	origin   time.Time // of the curve
	curve    []float64 // clients that came back in each curveStep
	returned int       // clients that came back since
	refused  int       // attempts that were answered: not now
	unmade   int       // attempts that nobody took
	gaps     int
}

type client struct {
	cursor   string
	told     time.Duration // how long to stay away, which the stream said; negative: nothing
	here     bool
	returned bool
	node     int // that it comes to
}

const (
	crowdTick = 10 * time.Millisecond
	curveStep = 250 * time.Millisecond
)

// newCrowd returns n clients, which begin at a log's end now.
func newCrowd(nodes []*peers.Halley, n, channels int) (*crowd, error) {
	h := nodes[0]
	cursor, err := end(h)
	if err != nil {
		return nil, err
	}
	pool, err := load.New(h.Addr())
	if err != nil {
		return nil, err
	}
	c := &crowd{
		Pool: pool, nodes: nodes, transports: native(h), channels: channels,
		clients: make([]client, n), waiting: map[int64][]int{}, begin: time.Now(),
	}
	for i := range c.clients {
		c.clients[i] = client{cursor: cursor, told: -1}
	}
	pool.Ended, pool.Heard = c.ended, c.heard
	pool.Add(n, 0)
	return c, nil
}

// native are the transports whose clients have cursors.
func native(h *peers.Halley) []string {
	return slices.DeleteFunc(h.Transports(), func(t string) bool { return t == bayeux })
}

// end asks a server for the end of its log.
func end(h *peers.Halley) (string, error) {
	answer, err := http.Get("http://" + h.Addr().String() + "/comet/info")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if cursor := field(data, `"cursor":"`); cursor != nil {
		return string(cursor), nil
	}
	return "", fmt.Errorf("no cursor in %.200s", data)
}

func (c *crowd) transport(i int) string { return c.transports[i%len(c.transports)] }

// channel is the number of a client's channel. Each channel has clients over
// every transport.
func (c *crowd) channel(i int) int { return i / len(c.transports) % c.channels }

// come has client i come after a time.
func (c *crowd) come(i int, after time.Duration) {
	at := int64((time.Since(c.begin) + after) / crowdTick)
	at = max(at, c.tick+1)
	c.waiting[at] = append(c.waiting[at], i)
}

// until serves the clients until done, and reports whether that was in time.
func (c *crowd) until(done func() bool, timeout time.Duration) (bool, error) {
	for end := time.Now().Add(timeout); !done(); {
		if time.Now().After(end) {
			return false, nil
		}
		for now := int64(time.Since(c.begin) / crowdTick); c.tick < now; {
			c.tick++
			list := c.waiting[c.tick]
			delete(c.waiting, c.tick)
			for _, i := range list {
				node := c.nodes[c.clients[i].node]
				d := node.Follow(c.transport(i), feedChannel(c.channel(i)), c.clients[i].cursor)
				if err := c.JoinAt(node.Addr(), i, d); errors.Is(err, unix.ECONNREFUSED) {
					c.ended(i, err)
				} else if err != nil {
					return false, err
				}
			}
		}
		c.Turn(crowdTick / 2)
	}
	return true, nil
}

// run serves the clients for a time.
func (c *crowd) run(length time.Duration) error {
	_, err := c.until(func() bool { return false }, length)
	return err
}

var (
	controlMark = []byte(`"control":"`)
	openMark    = []byte(`"control":"open"`)
	gapMark     = []byte(`"control":"gap"`)
	pollGapMark = []byte(`"gap":true`)
)

// heard reads what whole messages tell a client.
func (c *crowd) heard(i int, messages []byte) {
	one := &c.clients[i]
	position, subscribed := `"id":"`, false
	if c.transport(i) == "long-polling" {
		// A poll that waits may still be refused, one that was answered was not.
		position, subscribed = `"cursor":"`, !bytes.Contains(messages, []byte(`"messages":[]`))
		if bytes.Contains(messages, pollGapMark) {
			c.gaps++
		}
	} else if bytes.Contains(messages, controlMark) {
		subscribed = bytes.Contains(messages, openMark)
		c.gaps += bytes.Count(messages, gapMark)
		if delay := field(messages, `"delay":`); delay != nil {
			if ms, err := strconv.Atoi(string(delay)); err == nil {
				one.told = time.Duration(ms) * time.Millisecond
			}
		}
	}
	if cursor := field(messages, position); cursor != nil {
		one.cursor = string(cursor)
	}
	if subscribed && !one.here {
		one.here = true
		c.here++
		if !c.origin.IsZero() {
			at := int(time.Since(c.origin) / curveStep)
			for len(c.curve) <= at {
				c.curve = append(c.curve, 0)
			}
			c.curve[at]++
			if !one.returned {
				one.returned = true
				c.returned++
			}
		}
	}
}

// field returns what stands after the last of a mark, up to the end of its
// string or number.
func field(messages []byte, mark string) []byte {
	at := bytes.LastIndex(messages, []byte(mark))
	if at < 0 {
		return nil
	}
	rest := messages[at+len(mark):]
	size := bytes.IndexAny(rest, `",}`)
	if size < 0 {
		return nil
	}
	return rest[:size]
}

// ended has a client come again, when it was told to.
func (c *crowd) ended(i int, err error) {
	one := &c.clients[i]
	if one.here {
		one.here = false
		c.here--
	} else if one.told >= 0 {
		c.refused++ // by a stream that said no more than when to come
	}
	told := one.told
	one.told = -1
	var refusal *load.Refusal
	switch {
	case told >= 0:
	case errors.Is(err, load.ErrRest):
		told = time.Second
	case errors.As(err, &refusal):
		c.refused++
		told = retryAfter(refusal.Answer)
	default:
		if errors.Is(err, unix.ECONNREFUSED) {
			c.unmade++
		}
		told = 500 * time.Millisecond
	}
	if n := len(c.nodes); n > 1 {
		one.node = (one.node + 1 + rand.IntN(n-1)) % n
	}
	c.come(i, told+rand.N(time.Second))
}

// retryAfter reads how long an answer says to wait: a second if it does not.
func retryAfter(answer []byte) time.Duration {
	_, rest, _ := bytes.Cut(answer, []byte("\r\nRetry-After: "))
	line, _, _ := bytes.Cut(rest, []byte("\r\n"))
	if seconds, err := strconv.Atoi(string(line)); err == nil {
		return time.Duration(seconds) * time.Second
	}
	return time.Second
}

// A feed publishes to some channels, one message after the other in each, and
// repeats what is refused or cut until it is acknowledged.
type feed struct {
	acknowledged []atomic.Uint64 // by channel
	node         []int           // by channel: the node that its publisher comes to
	repeats      atomic.Int64
	done         chan struct{}
	failed       atomic.Pointer[error]
}

func feedChannel(i int) string { return "feed" + strconv.Itoa(i) }

// publishTo begins to publish rate messages a second in all. The publishers are
// spread over the nodes, and go to the next one when theirs fails.
func publishTo(nodes []*peers.Halley, channels, rate int, stop <-chan struct{}) *feed {
	f := &feed{acknowledged: make([]atomic.Uint64, channels), node: make([]int, channels), done: make(chan struct{})}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: channels}}
	pause := time.Second * time.Duration(channels) / time.Duration(rate)
	over := make(chan struct{}, channels)
	for i := range channels {
		f.node[i] = i % len(nodes)
		go func() {
			defer func() { over <- struct{}{} }()
			time.Sleep(pause * time.Duration(i) / time.Duration(channels))
			due := time.NewTicker(pause)
			defer due.Stop()
			for {
				select {
				case <-stop:
					return
				case <-due.C:
				}
				if err := f.publish(client, nodes, i); err != nil {
					f.failed.Store(&err)
					return
				}
			}
		}()
	}
	go func() {
		for range channels {
			<-over
		}
		client.CloseIdleConnections()
		close(f.done)
	}()
	return f
}

// publish publishes the next message of a channel, and waits until it is
// acknowledged.
func (f *feed) publish(client *http.Client, nodes []*peers.Halley, channel int) error {
	n := f.acknowledged[channel].Load()
	message := load.Message(n, MessageSize)
	for end := time.Now().Add(patience); ; f.repeats.Add(1) {
		url := "http://" + nodes[f.node[channel]].Addr().String() + "/comet/publish?channel=" + feedChannel(channel)
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(message))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("Idempotency-Key", fmt.Sprintf("%d-%d", channel, n))
		answer, err := client.Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err == nil && answer.StatusCode == http.StatusOK {
				f.acknowledged[channel].Add(1)
				return nil
			}
			err = errors.Join(err, fmt.Errorf("status %d", answer.StatusCode))
		}
		if time.Now().After(end) {
			return fmt.Errorf("channel %d, message %d: %w", channel, n, err)
		}
		f.node[channel] = (f.node[channel] + 1) % len(nodes)
		time.Sleep(100*time.Millisecond + rand.N(200*time.Millisecond))
	}
}

// snapshot returns how many messages are acknowledged, by channel.
func (f *feed) snapshot() []uint64 {
	counts := make([]uint64, len(f.acknowledged))
	for i := range counts {
		counts[i] = f.acknowledged[i].Load()
	}
	return counts
}

// have reports whether every client has so many messages of its channel.
func (c *crowd) have(counts []uint64) bool {
	for i := range c.clients {
		if c.Next(i) < counts[c.channel(i)] {
			return false
		}
	}
	return true
}
