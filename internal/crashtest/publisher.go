package crashtest

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// A Name tells a message from all others: by its publisher, the publish and
// the message in it, from 0, and the channel.
type Name struct {
	Publisher, Publish, Index int
	Channel                   string
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
func (n Name) text(fill int) string {
	from := (n.Publisher*7919 + n.Publish*613 + n.Index*31) % (len(filler) - maxFill)
	return fmt.Sprintf("%d.%d.%d.%d.%s", n.Publisher, n.Publish, n.Index, fill, filler[from:from+fill])
}

// nameOf returns the name of a message, if all of its content is right.
func nameOf(m comet.Message) (Name, error) {
	text := m.Text()
	if m.Data64 != nil {
		text = strings.TrimPrefix(text, "\xff")
	}
	text = strings.TrimSuffix(strings.TrimPrefix(text, `{"text":"`), `"}`)
	n, fill := Name{Channel: m.Channel}, 0
	_, err := fmt.Sscanf(text, "%d.%d.%d.%d.", &n.Publisher, &n.Publish, &n.Index, &fill)
	if err != nil || fill < 0 || fill > maxFill || n.text(fill) != text {
		return n, fmt.Errorf("%s on %s has other content than was published: %.100q", m.ID, m.Channel, m.Text())
	}
	return n, nil
}

// A Publish is one request to publish, and what became of it.
type Publish struct {
	Key         string
	Query       url.Values
	ContentType string
	Body        []byte
	Names       []Name // in the order of the answer's ids
	First       uint64 // position of the first; 0 while it is not known
}

// Channels are those that are published to.
var Channels = []string{"load/1", "load/2", "load/3", "load/deep/1", "load/deep/2", "other"}

// A Publisher publishes one request after the other, on one connection that it
// keeps. What it does not know the fate of it repeats, if that has a key.
type Publisher struct {
	// URLs are where the nodes are mounted, one or more. What it repeats it
	// sends to another node, where there is one.
	URLs []string
	// Client sends the requests, on connections that no other has.
	Client http.Client
	// Pause is how long it waits between requests at most; 0 is not at all.
	Pause time.Duration
	// Patient has it go on after a 503, once it has waited as it is asked to.
	Patient bool
	// Acks is told of each request that was acknowledged.
	Acks *Pulse

	// Refused is what ended Run, if a request was refused.
	Refused *Refusal

	t       *testing.T
	number  int
	random  *rand.Rand
	node    int // of URLs, where the next request goes
	counter int

	mu   sync.Mutex
	done []*Publish
	busy int // answers of 503 that it was patient with
}

// A Refusal is any answer but 200.
type Refusal struct {
	Request *Publish
	Status  int
	Header  http.Header
	Body    []byte
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("publish: %d %v: %s", r.Status, r.Header, r.Body)
}

// NewPublisher returns a publisher to the nodes that are mounted at urls.
func NewPublisher(t *testing.T, number int, random *rand.Rand, acks *Pulse, urls ...string) *Publisher {
	return &Publisher{
		URLs: urls, Client: http.Client{Transport: &http.Transport{}}, Acks: acks,
		t: t, number: number, random: rand.New(rand.NewPCG(random.Uint64(), 0)), node: number % len(urls),
	}
}

// Run publishes until stop is closed, and then finishes what it has begun.
func (p *Publisher) Run(ctx context.Context, stop <-chan struct{}) {
	defer p.Client.CloseIdleConnections()
	var last *Publish
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		next := p.next()
		if last != nil && p.random.IntN(20) == 0 {
			next = last // once more, under its key
			p.hop()
		}
		if !p.Send(ctx, next) {
			return
		}
		if next != last { // else it is there already
			p.Done(next)
		}
		if last = nil; next.Key != "" {
			last = next
		}
		if p.Pause > 0 {
			sleep(ctx, time.Duration(p.random.Int64N(int64(p.Pause))))
		}
	}
}

// hop has the next request go to another node.
func (p *Publisher) hop() {
	if n := len(p.URLs); n > 1 {
		p.node = (p.node + 1 + p.random.IntN(n-1)) % n
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Send sends a request until its fate is known or, without a key, may have been
// decided. It reports false if ctx ended first, or if it was refused.
func (p *Publisher) Send(ctx context.Context, r *Publish) bool {
	for ctx.Err() == nil {
		first, err := p.Attempt(ctx, r)
		var op *net.OpError
		var refused *Refusal
		switch {
		case err == nil && r.First != 0 && first != r.First:
			p.t.Errorf("publish %s was stored at %d and is repeated at %d", r.Key, r.First, first)
			return true
		case err == nil:
			if r.First == 0 { // else it is done, and others read it
				r.First = first
			}
			p.Acks.Tick()
			return true
		case errors.As(err, &refused) && !(p.Patient && refused.Status == http.StatusServiceUnavailable):
			p.Refused = refused
			return false
		case errors.As(err, &op) && op.Op == "dial":
			// Nothing was sent: the server is away.
			sleep(ctx, 5*time.Millisecond)
			p.hop()
			continue
		case refused != nil:
			p.obey(ctx, refused)
		}
		p.hop()
		if r.Key == "" {
			return true // it may have been stored
		}
	}
	return false
}

// obey waits as a 503 asks to.
func (p *Publisher) obey(ctx context.Context, r *Refusal) {
	seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		p.t.Errorf("a 503 that does not say when to try again: %v", r)
	}
	p.mu.Lock()
	p.busy++
	p.mu.Unlock()
	sleep(ctx, time.Duration(seconds)*time.Second)
}

// Busy returns how many answers of 503 it was patient with.
func (p *Publisher) Busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

// Attempt sends a request once, and returns the first position.
func (p *Publisher) Attempt(ctx context.Context, r *Publish) (uint64, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", p.URLs[p.node]+"/publish?"+r.Query.Encode(), bytes.NewReader(r.Body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", r.ContentType)
	if r.Key != "" {
		request.Header.Set("Idempotency-Key", r.Key)
	}
	response, err := p.Client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, &Refusal{r, response.StatusCode, response.Header, body}
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
		if err != nil || c.Seq != first.Seq+uint64(i) || len(answer.IDs) != len(r.Names) {
			p.t.Errorf("publish of %d messages: %s", len(r.Names), body)
			break
		}
	}
	return first.Seq, nil
}

// next makes another request.
func (p *Publisher) next() *Publish {
	p.counter++
	r := &Publish{Query: url.Values{}}
	if p.random.IntN(2) == 0 {
		r.Key = fmt.Sprint("key ", p.number, ".", p.counter)
	}
	name := func(index int) Name {
		return Name{p.number, p.counter, index, Channels[p.random.IntN(len(Channels))]}
	}
	switch p.random.IntN(4) {
	case 0: // a short text
		n := name(0)
		r.Query.Set("channel", n.Channel)
		r.ContentType, r.Body, r.Names = "text/plain", []byte(n.text(p.random.IntN(200))), append(r.Names, n)
	case 1: // JSON of some size
		n := name(0)
		r.Query.Set("channel", n.Channel)
		r.ContentType, r.Body = "application/json", fmt.Appendf(nil, `{"text":%q}`, n.text(p.random.IntN(maxFill)))
		r.Names = append(r.Names, n)
	case 2: // one message on several channels
		n := name(0)
		for _, i := range p.random.Perm(len(Channels))[:2+p.random.IntN(3)] {
			n.Channel = Channels[i]
			r.Query.Add("channel", n.Channel)
			r.Names = append(r.Names, n)
		}
		r.ContentType, r.Body = "application/octet-stream", []byte("\xff"+n.text(p.random.IntN(200)))
	case 3: // a batch
		r.ContentType = "application/x-ndjson"
		for i := range 1 + p.random.IntN(30) {
			n := name(i)
			text := n.text(p.random.IntN(300))
			switch p.random.IntN(3) {
			case 0:
				r.Body = fmt.Appendf(r.Body, `{"channel":%q,"data":%q}`, n.Channel, text)
			case 1:
				r.Body = fmt.Appendf(r.Body, `{"channel":%q,"type":"t","data":{"text":%q}}`, n.Channel, text)
			case 2:
				r.Body = fmt.Appendf(r.Body, `{"channel":%q,"data64":%q}`, n.Channel, base64.StdEncoding.EncodeToString([]byte("\xff"+text)))
			}
			r.Body = append(r.Body, '\n')
			r.Names = append(r.Names, n)
		}
	}
	return r
}

// Done notes that a request is done: answered, or given up.
func (p *Publisher) Done(r *Publish) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, r)
}

// Take returns what has been done since the last call.
func (p *Publisher) Take() []*Publish {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	p.done = nil
	return done
}
