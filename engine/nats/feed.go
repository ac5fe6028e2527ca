package nats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// consume makes a consumer of a stream, from a position on. One server has it. On
// the stream's leader, messages are there first, and go from there at once to
// nodes that are connected to it; but NATS gives consumers to any server. So this
// one is made a few times.
func (l *Log) consume(stream jetstream.Stream, info *jetstream.StreamInfo, next uint64) (jetstream.Consumer, error) {
	tries := placeTries
	if time.Since(l.placed) < placeEvery {
		tries = 1 // the servers have other troubles
	}
	l.placed = time.Now()
	create := func(timeout time.Duration) (jetstream.Consumer, error) {
		ctx, cancel := context.WithTimeout(l.ctx, timeout)
		defer cancel()
		return stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       next,
			AckPolicy:         jetstream.AckNonePolicy,
			MemoryStorage:     true,
			Replicas:          1,
			InactiveThreshold: time.Minute,
		})
	}
	placed := func(c jetstream.Consumer) bool {
		at := c.CachedInfo().Cluster
		return at == nil || info.Cluster == nil || at.Leader == info.Cluster.Leader
	}
	c, err := create(requestTimeout)
	if err != nil {
		return nil, explain(err)
	}
	for ; tries > 1 && !placed(c); tries-- {
		another, err := create(askTimeout)
		if err != nil {
			break // a server that does not answer may have got it
		}
		l.remove(c)
		c = another
	}
	return c, nil
}

// placeTries is how many consumers are made at most: with three servers, one in
// eleven ends on another than the leader. That is done again after placeEvery.
const (
	placeTries = 6
	placeEvery = 10 * time.Second
)

// remove takes a consumer back. It would go by itself, after a minute.
func (l *Log) remove(c jetstream.Consumer) {
	if l.nc.IsConnected() {
		_ = l.nc.PublishMsg(&natsgo.Msg{Subject: consumerSubject("DELETE", l.opts.Stream, c)})
	}
}

func consumerSubject(verb, stream string, c jetstream.Consumer) string {
	return fmt.Sprintf("$JS.API.CONSUMER.%s.%s.%s", verb, stream, c.CachedInfo().Name)
}

// A feed is what comes from a consumer that is pulled. The library's would take a
// goroutine more for each message, on a way where a publisher waits.
type feed struct {
	come  chan *natsgo.Msg
	taken []*natsgo.Msg
	nc    *natsgo.Conn
	sub   *natsgo.Subscription
	pull  string // subject of requests
	inbox string // which is answered
	bytes int64  // that a request is for, at most
	asked int    // messages that were asked for and have not been taken
	since int    // messages taken since something was asked for
	large bool   // the next one is larger than that
	quiet int    // looks since anything came
}

const (
	// pullMessages is how many messages are on their way at most. A request is for
	// pullBytes, or what two of the largest messages take; few are open at once.
	pullMessages = 2000
	pullBytes    = 8 << 20
	pullExpires  = 10 * time.Second
	pullBeat     = time.Second
)

// openFeed has the messages of a consumer come.
func (l *Log) openFeed(c jetstream.Consumer) (*feed, error) {
	f := &feed{
		come: make(chan *natsgo.Msg, 2*pullMessages), nc: l.nc, inbox: l.nc.NewInbox(),
		pull:  consumerSubject("MSG.NEXT", l.opts.Stream, c),
		bytes: max(pullBytes, 2*l.nc.MaxPayload()),
	}
	var err error
	if f.sub, err = l.nc.ChanSubscribe(f.inbox, f.come); err != nil {
		return nil, err
	}
	if err := f.ask(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// ask asks for messages, if few are to come.
func (f *feed) ask() error {
	n, bytes := pullMessages-f.asked, f.bytes
	if n < pullMessages/2 {
		return nil
	}
	if f.large {
		n, bytes = 1, 0 // no bound
	}
	f.asked, f.since, f.large = f.asked+n, 0, false
	return f.nc.PublishRequest(f.pull, f.inbox, fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, n, bytes, pullExpires, pullBeat))
}

// take returns the messages that have come, of which m is the first, until the
// next call.
func (f *feed) take(m *natsgo.Msg) ([]*natsgo.Msg, error) {
	f.quiet = 0
	clear(f.taken)
	f.taken = f.taken[:0]
	for {
		if m.Reply == "" { // the server's own: a message of the stream has one
			if err := f.heed(m.Header); err != nil {
				return f.taken, err
			}
		} else {
			f.asked, f.since = f.asked-1, f.since+1
			f.taken = append(f.taken, m)
		}
		select {
		case m = <-f.come:
		default:
			return f.taken, f.ask()
		}
	}
}

// heed does what a message of the server itself takes: most tell of a request
// that has ended, and of how much it was for that has not come.
func (f *feed) heed(h natsgo.Header) error {
	status, why := h.Get("Status"), h.Get("Description")
	switch status {
	case "100": // nothing has come for a while
		return nil
	case "408", "409":
		if left, err := strconv.Atoi(h.Get("Nats-Pending-Messages")); err == nil {
			f.asked -= left
			f.large = f.since == 0 && strings.Contains(why, "MaxBytes")
			return nil
		}
	}
	return fmt.Errorf("the NATS server ends what it sent: %s %s", status, why)
}

// look is called each second, and tells if nothing has come for long, not even the
// word that there is nothing. A request that has just enough bytes for what came
// ends without a word, and so may end this.
func (f *feed) look() error {
	if f.quiet++; f.quiet > 3 && len(f.come) == 0 {
		return errSilent
	}
	return nil
}

func (f *feed) close() { _ = f.sub.Unsubscribe() }
