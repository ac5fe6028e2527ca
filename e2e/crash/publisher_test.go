package crash

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// A name tells a message from all others: by its publisher, the publish and
// the message in it, from 0, and the channel.
type name struct {
	publisher, publish, index int
	channel                   string
}

// filler is what messages are filled with, each from another place.
var filler = func() string {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[random.IntN(64)]
	}
	return string(b)
}()

const maxFill = 24 << 10

// text returns the content of a message with so many bytes of filler.
func (n name) text(fill int) string {
	from := (n.publisher*7919 + n.publish*613 + n.index*31) % (len(filler) - maxFill)
	return fmt.Sprintf("%d.%d.%d.%d.%s", n.publisher, n.publish, n.index, fill, filler[from:from+fill])
}

// nameOf returns the name of a message, if all of its content is right.
func nameOf(m comet.Message) (name, error) {
	text := m.Text()
	if m.Data64 != nil {
		text = strings.TrimPrefix(text, "\xff")
	}
	text = strings.TrimSuffix(strings.TrimPrefix(text, `{"text":"`), `"}`)
	n, fill := name{channel: m.Channel}, 0
	_, err := fmt.Sscanf(text, "%d.%d.%d.%d.", &n.publisher, &n.publish, &n.index, &fill)
	if err != nil || fill < 0 || fill > maxFill || n.text(fill) != text {
		return n, fmt.Errorf("%s on %s has other content than was published: %.100q", m.ID, m.Channel, m.Text())
	}
	return n, nil
}

// A publish is one request to publish, and what became of it.
type publish struct {
	key         string
	query       url.Values
	contentType string
	body        []byte
	names       []name // in the order of the answer's ids
	first       uint64 // position of the first; 0 while it is not known
}

// channels are those that are published to.
var channels = []string{"load/1", "load/2", "load/3", "load/deep/1", "load/deep/2", "other"}

// A publisher publishes one request after the other, on one connection that it
// keeps. What it does not know the fate of it repeats, if that has a key.
type publisher struct {
	t       *testing.T
	number  int
	random  *rand.Rand
	url     string
	client  http.Client
	acks    *acks
	counter int

	// refused is what ended run, if a request was refused.
	refused *refusal

	mu   sync.Mutex
	done []*publish // answered, or given up
}

// A refusal is any answer but 200.
type refusal struct {
	request *publish
	status  int
	header  http.Header
	body    []byte
}

func (r *refusal) Error() string {
	return fmt.Sprintf("publish: %d %v: %s", r.status, r.header, r.body)
}

// An acks counts acknowledged requests.
type acks struct {
	mu     sync.Mutex
	left   int
	enough chan struct{}
}

// await returns a channel that is closed after so many.
func (a *acks) await(n int) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left, a.enough = n, make(chan struct{})
	return a.enough
}

func (a *acks) add() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left--; a.left == 0 {
		close(a.enough)
	}
}

func newPublisher(t *testing.T, s *server, number int, random *rand.Rand, acks *acks) *publisher {
	return &publisher{
		t: t, number: number, random: rand.New(rand.NewPCG(random.Uint64(), 0)), acks: acks,
		url: "http://" + s.address + "/comet/publish?", client: http.Client{Transport: &http.Transport{}},
	}
}

// run publishes until stop is closed, and then finishes what it has begun.
func (p *publisher) run(ctx context.Context, stop <-chan struct{}) {
	defer p.client.CloseIdleConnections()
	var last *publish
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		next := p.next()
		if last != nil && p.random.IntN(20) == 0 {
			next = last // once more, under its key
		}
		if !p.send(ctx, next) {
			return
		}
		if next != last { // else it is there already
			p.mu.Lock()
			p.done = append(p.done, next)
			p.mu.Unlock()
		}
		if last = nil; next.key != "" {
			last = next
		}
	}
}

// send sends a request until its fate is known or, without a key, may have been
// decided. It reports false if ctx ended first, or if it was refused.
func (p *publisher) send(ctx context.Context, r *publish) bool {
	for ctx.Err() == nil {
		first, err := p.attempt(ctx, r)
		var op *net.OpError
		switch {
		case err == nil && r.first != 0 && first != r.first:
			p.t.Errorf("publish %s was stored at %d and is repeated at %d", r.key, r.first, first)
			return true
		case err == nil:
			if r.first == 0 { // else it is done, and others read it
				r.first = first
			}
			p.acks.add()
			return true
		case errors.As(err, &p.refused):
			return false
		case errors.As(err, &op) && op.Op == "dial":
			// Nothing was sent: the server is away.
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		case r.key == "":
			return true
		}
	}
	return false
}

// attempt sends a request once, and returns the first position.
func (p *publisher) attempt(ctx context.Context, r *publish) (uint64, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", p.url+r.query.Encode(), bytes.NewReader(r.body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", r.contentType)
	if r.key != "" {
		request.Header.Set("Idempotency-Key", r.key)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, &refusal{r, response.StatusCode, response.Header, body}
	}
	var answer struct {
		ID  string
		IDs []string
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, err
	}
	if answer.ID != "" {
		answer.IDs = []string{answer.ID}
	}
	var first engine.Cursor
	for i, id := range answer.IDs {
		c, err := engine.ParseCursor(id)
		if i == 0 {
			first = c
		}
		if err != nil || c.Seq != first.Seq+uint64(i) || len(answer.IDs) != len(r.names) {
			p.t.Errorf("publish of %d messages: %s", len(r.names), body)
			break
		}
	}
	return first.Seq, nil
}

// next makes another request.
func (p *publisher) next() *publish {
	p.counter++
	r := &publish{query: url.Values{}}
	if p.random.IntN(2) == 0 {
		r.key = fmt.Sprint("key ", p.number, ".", p.counter)
	}
	name := func(index int) name {
		return name{p.number, p.counter, index, channels[p.random.IntN(len(channels))]}
	}
	switch p.random.IntN(4) {
	case 0: // a short text
		n := name(0)
		r.query.Set("channel", n.channel)
		r.contentType, r.body, r.names = "text/plain", []byte(n.text(p.random.IntN(200))), append(r.names, n)
	case 1: // JSON of some size
		n := name(0)
		r.query.Set("channel", n.channel)
		r.contentType, r.body = "application/json", fmt.Appendf(nil, `{"text":%q}`, n.text(p.random.IntN(maxFill)))
		r.names = append(r.names, n)
	case 2: // one message on several channels
		n := name(0)
		for _, i := range p.random.Perm(len(channels))[:2+p.random.IntN(3)] {
			n.channel = channels[i]
			r.query.Add("channel", n.channel)
			r.names = append(r.names, n)
		}
		r.contentType, r.body = "application/octet-stream", []byte("\xff"+n.text(p.random.IntN(200)))
	case 3: // a batch
		r.contentType = "application/x-ndjson"
		for i := range 1 + p.random.IntN(30) {
			n := name(i)
			text := n.text(p.random.IntN(300))
			switch p.random.IntN(3) {
			case 0:
				r.body = fmt.Appendf(r.body, `{"channel":%q,"data":%q}`, n.channel, text)
			case 1:
				r.body = fmt.Appendf(r.body, `{"channel":%q,"type":"t","data":{"text":%q}}`, n.channel, text)
			case 2:
				r.body = fmt.Appendf(r.body, `{"channel":%q,"data64":%q}`, n.channel, base64.StdEncoding.EncodeToString([]byte("\xff"+text)))
			}
			r.body = append(r.body, '\n')
			r.names = append(r.names, n)
		}
	}
	return r
}

// take returns what has been done since the last call.
func (p *publisher) take() []*publish {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	p.done = nil
	return done
}
