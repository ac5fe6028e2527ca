package pump_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

var (
	conns = flag.Int("conns", 3000, "connections of the seam test")
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of what is drawn by lot")
)

func newPump(t *testing.T, o memory.Options, po pump.Options) (*pump.Pump, engine.Engine) {
	t.Helper()
	log, err := memory.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := pump.New(log, po)
	t.Cleanup(func() {
		p.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, log
}

func publish(t testing.TB, log engine.Engine, channels ...string) engine.Cursor {
	t.Helper()
	var b engine.Batch
	for _, c := range channels {
		b.Messages = append(b.Messages, engine.Message{Channel: c, Data: []byte("data of " + c)})
	}
	r, err := log.Append(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID(r.Count - 1)
}

// A client takes what a connection gets, and checks that it is in order.
type client struct {
	conn     *pump.Conn
	channels []string
	start    uint64
	got      []uint64
	gaps     int
	// stall makes it stop reading after so many messages, until the channel is
	// closed.
	stall   int
	resumed <-chan struct{}
}

// run reads until the message with sequence last, or the first position at or
// after it, has come.
func (c *client) run(ctx context.Context, last *atomic.Uint64) error {
	defer c.conn.Leave()
	opened := false
	for {
		f, err := c.conn.Next(ctx)
		if err != nil {
			return fmt.Errorf("after %d messages of %v from %d: %w", len(c.got), c.channels, c.start, err)
		}
		for _, it := range f.Items {
			switch {
			case it.Control != nil && it.Control.Kind == wire.Open:
				if opened {
					return errors.New("opened twice")
				}
				opened = true
			case it.Control != nil && it.Control.Kind == wire.Gap:
				c.gaps++
			case it.Message != nil:
				if !opened {
					return errors.New("a message before open")
				}
				c.got = append(c.got, it.Message.ID.Seq)
			}
		}
		if len(c.got) >= c.stall && c.stall > 0 {
			c.stall = 0
			<-c.resumed
		}
		if end := last.Load(); end > 0 && f.Position.Seq >= end {
			return nil
		}
	}
}

// TestSeam publishes at full speed while connections join at cursors drawn by
// lot, over all ways there are to be behind, and shows that each gets each of
// its messages once and in order.
func TestSeam(t *testing.T) {
	const rooms, messages = 200, 30_000
	t.Logf("-seed=%d", *seed)
	rnd := rand.New(rand.NewPCG(*seed, 1))
	p, log := newPump(t, memory.Options{Retention: engine.Retention{Count: 1 << 30}, Limit: 2 << 30}, pump.Options{Workers: 2, Heartbeat: 200 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	// Many rooms that a few listen to each, and two channels that most do.
	var names []string
	for i := range rooms {
		names = append(names, fmt.Sprintf("room/%d/talk", i))
	}
	names = append(names, "wide", "wide/2")

	// The publishers know what went where.
	var mu sync.Mutex
	channelOf := map[uint64]string{}
	var publishers sync.WaitGroup
	for i := range 2 {
		r := rand.New(rand.NewPCG(*seed, uint64(10+i)))
		publishers.Go(func() {
			for log.End().Seq < messages {
				var b engine.Batch
				for range 1 + r.IntN(3) {
					name := names[r.IntN(rooms)]
					if r.IntN(30) == 0 {
						name = names[rooms+r.IntN(2)]
					}
					b.Messages = append(b.Messages, engine.Message{Channel: name, Data: []byte("x")})
				}
				receipt, err := log.Append(ctx, b)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, m := range b.Messages {
					channelOf[receipt.ID(i).Seq] = m.Channel
				}
				mu.Unlock()
			}
		})
	}

	resumed := make(chan struct{})
	var last atomic.Uint64
	var clients []*client
	failed := make(chan error, *conns)
	for i := range *conns {
		// They come one after the other, as long as there is publishing.
		for log.End().Seq < uint64(i*messages / *conns) {
			if err := log.Wait(ctx, log.End()); err != nil {
				t.Fatal(err)
			}
		}
		end := log.End()
		c := &client{resumed: resumed}
		room := rnd.IntN(rooms)
		switch rnd.IntN(4) {
		case 0:
			c.channels = []string{names[room]}
		case 1:
			c.channels = []string{"wide", names[room], "wide/*"}
		case 2:
			// The same message by two of them.
			c.channels = []string{fmt.Sprintf("room/%d/*", room), "wide", names[room]}
		case 3:
			c.channels = []string{"wide"}
		}
		switch i % 100 {
		case 0:
			c.channels = []string{"room/**", "wide"}
		case 50:
			c.channels = []string{"**", "wide"}
		}
		c.start = end.Seq
		switch rnd.IntN(3) {
		case 0:
			c.start -= min(c.start, rnd.Uint64N(200)) // nearby
		case 1:
			if end.Seq > 10_000 {
				c.start -= rnd.Uint64N(10_000) // far
			}
		}
		if i%20 == 0 {
			c.stall = 1 + rnd.IntN(500)
		}
		c.conn = p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: c.channels, After: engine.Cursor{Epoch: end.Epoch, Seq: c.start}})
		clients = append(clients, c)
		go func() { failed <- c.run(ctx, &last) }()
	}
	publishers.Wait()
	close(resumed)
	end := publish(t, log, names...)
	for i, name := range names {
		channelOf[end.Seq-uint64(len(names)-1-i)] = name
	}
	// Heartbeats carry the position past the last message to all.
	last.Store(end.Seq)
	for range clients {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}

	total := 0
	for _, c := range clients {
		if c.gaps > 0 {
			t.Fatalf("%v from %d: %d gaps, though nothing was dropped", c.channels, c.start, c.gaps)
		}
		var want []uint64
		for seq := c.start + 1; seq <= end.Seq; seq++ {
			if slices.ContainsFunc(c.channels, func(p string) bool { return engine.Match(p, channelOf[seq]) }) {
				want = append(want, seq)
			}
		}
		if !slices.Equal(c.got, want) {
			t.Fatalf("%v from %d: %s", c.channels, c.start, difference(c.got, want))
		}
		total += len(want)
	}
	t.Logf("%d connections, %d messages published, %d deliveries, each once and in order", len(clients), end.Seq, total)
}

func difference(got, want []uint64) string {
	for i := range want {
		if i >= len(got) {
			return fmt.Sprintf("%d messages, want %d: message %d is missing", len(got), len(want), want[i])
		}
		if got[i] != want[i] {
			return fmt.Sprintf("item %d is message %d, want %d (after %v)", i, got[i], want[i], got[max(0, i-3):i])
		}
	}
	return fmt.Sprintf("%d messages too many, from %d", len(got)-len(want), got[len(want)])
}

// TestRetention publishes more than the log keeps while slow connections read,
// and shows that each message is in order and none twice, and that what is
// missing is told as a gap.
func TestRetention(t *testing.T) {
	p, log := newPump(t, memory.Options{Retention: engine.Retention{Count: 3}}, pump.Options{Workers: 2, Heartbeat: 100 * time.Millisecond})
	var last atomic.Uint64
	resumed := make(chan struct{})
	failed := make(chan error)
	var clients []*client
	for range 50 {
		c := &client{channels: []string{"a", "b"}, start: 0, stall: 1, resumed: resumed}
		c.conn = p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: c.channels, After: log.End()})
		clients = append(clients, c)
		go func() { failed <- c.run(t.Context(), &last) }()
	}
	var end engine.Cursor
	for range 20_000 {
		end = publish(t, log, "a", "b")
	}
	last.Store(end.Seq)
	close(resumed)
	for range clients {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		for i := range c.got[1:] {
			if c.got[i+1] <= c.got[i] {
				t.Fatalf("message %d came after %d", c.got[i+1], c.got[i])
			}
		}
		if missing := int(end.Seq) - len(c.got); missing > 0 && c.gaps == 0 {
			t.Errorf("%d messages are missing, and no gap was told", missing)
		}
		if tail := c.got[len(c.got)-1]; tail != end.Seq {
			t.Errorf("the last message is %d, want %d", tail, end.Seq)
		}
	}
}

// TestKeepsOne shows that live connections of a channel that keeps one message
// get all of them, without gaps.
func TestKeepsOne(t *testing.T) {
	p, log := newPump(t, memory.Options{Retention: engine.Retention{Count: 1}}, pump.Options{Workers: 1, Heartbeat: time.Minute})
	conn := p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: []string{"ticker"}, After: log.End()})
	defer conn.Leave()
	if f, err := conn.Next(t.Context()); err != nil || f.Items[0].Control.Kind != wire.Open {
		t.Fatalf("got %v, %v, want open", f, err)
	}
	for n := uint64(1); n < 1000; n += 2 {
		publish(t, log, "ticker", "ticker")
		for want := n; want < n+2; {
			f, err := conn.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range f.Items {
				if it.Message == nil || it.Message.ID.Seq != want {
					t.Fatalf("got %+v, want message %d", it, want)
				}
				want++
			}
		}
	}
}

// TestChange adds and removes channels while messages are published, and shows
// that what is added starts where the ack says, and that nothing else changes.
func TestChange(t *testing.T) {
	p, log := newPump(t, memory.Options{}, pump.Options{Workers: 2, Heartbeat: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stop atomic.Bool
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for !stop.Load() {
			if _, err := log.Append(ctx, engine.Batch{Messages: []engine.Message{{Channel: "a"}, {Channel: "b"}}}); err != nil {
				t.Error(err)
				return
			}
			// A pace at which the connection is mostly live.
			if f, err := log.Read(ctx, engine.Query{Channels: []string{"a"}, Limit: 1000}); err != nil || f.Gap {
				t.Error(f.Gap, err)
				return
			}
		}
	})
	conn := p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: []string{"a"}, After: log.End()})
	defer conn.Leave()
	seen := make(chan struct{}, 1)
	go func() {
		for range 500 {
			if err := conn.Change(ctx, 1000, []string{"b"}, nil, []byte(`"+"`)); err != nil {
				t.Error(err)
			}
			<-seen // one of b at least
			if err := conn.Change(ctx, 1000, nil, []string{"b", "nosuch"}, []byte(`"-"`)); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		publisher.Wait()
		publish(t, log, "a")
		conn.End(&wire.Control{Kind: wire.Reconnect})
	}()

	var start, sent, acked uint64 // a's, the last id, and that of the last ack
	var a, b []uint64
	added := false
	acks := 0
	for over := false; !over; {
		f, err := conn.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		over = f.Last
		for _, it := range f.Items {
			switch {
			case it.Message != nil && it.Message.Channel == "a":
				a = append(a, it.Message.ID.Seq)
			case it.Message != nil:
				if !added {
					t.Fatalf("message %d of b, which is not subscribed", it.Message.ID.Seq)
				}
				// Even sequences are b's: the first after the ack begins.
				if want := acked + 2 - acked%2; len(b) == 0 && it.Message.ID.Seq != want {
					t.Fatalf("b begins with message %d after an ack at %d, want %d", it.Message.ID.Seq, acked, want)
				}
				b = append(b, it.Message.ID.Seq)
				select {
				case seen <- struct{}{}:
				default:
				}
			case it.Control.Kind == wire.Open:
				start = it.Control.ID.Seq
			case it.Control.Kind == wire.Ack:
				acks++
				added = string(it.Control.Ref) == `"+"`
				if it.Control.ID.Seq != sent {
					t.Fatalf("ack at %d, want the last id sent, %d", it.Control.ID.Seq, sent)
				}
				b, acked = b[:0], sent
				select { // those of b that were on their way
				case <-seen:
				default:
				}
			case it.Control.Kind == wire.Gap:
				t.Fatal("gap")
			}
			switch {
			case it.Message != nil:
				sent = it.Message.ID.Seq
			case !it.Control.ID.IsZero():
				sent = it.Control.ID.Seq
			}
			// Between acks the messages of b are those after the ack, one
			// after the other: every other sequence.
			for i := range b[:max(0, len(b)-1)] {
				if b[i+1] != b[i]+2 {
					t.Fatalf("message %d of b after %d", b[i+1], b[i])
				}
			}
		}
	}
	if acks != 1000 {
		t.Errorf("%d acks, want 1000", acks)
	}
	for i, seq := range a {
		if want := start + start%2 + 1 + 2*uint64(i); seq != want {
			t.Fatalf("message %d of a is %d, want %d", i, seq, want)
		}
	}
}

// TestPoll shows what a poll is answered with.
func TestPoll(t *testing.T) {
	p, log := newPump(t, memory.Options{}, pump.Options{})
	poll := func(after engine.Cursor, expire bool) pump.Flush {
		t.Helper()
		c := p.Join(pump.ConnOptions{Kind: &pump.Kind{Poll: true}, Timeout: time.Minute, Channels: []string{"a"}, After: after})
		defer c.Leave()
		if expire {
			c.Expire()
		}
		f, err := c.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !f.Last {
			t.Error("a poll's flush is not its last")
		}
		if _, err := c.Next(t.Context()); !errors.Is(err, pump.ErrClosed) {
			t.Errorf("after the last flush: %v, want ErrClosed", err)
		}
		return f
	}
	start := log.End()
	if f := poll(start, true); len(f.Items) != 0 || f.Position != start {
		t.Errorf("an empty log: %+v, want nothing at %v", f, start)
	}
	first := publish(t, log, "a")
	other := publish(t, log, "b")
	if f := poll(start, false); len(f.Items) != 1 || f.Position != first {
		t.Errorf("got %+v, want one message at %v", f, first)
	}
	if f := poll(first, true); len(f.Items) != 0 || f.Position != other {
		t.Errorf("got %+v, want nothing at the log's end, %v", f, other)
	}
	done := make(chan pump.Flush)
	go func() { done <- poll(other, false) }()
	next := publish(t, log, "a")
	if f := <-done; len(f.Items) != 1 || f.Position != next {
		t.Errorf("a held poll: %+v, want message %v", f, next)
	}
	if f := poll(engine.Cursor{Epoch: "other", Seq: 1}, false); len(f.Items) != 3 || f.Items[0].Control.Kind != wire.Gap {
		t.Errorf("another epoch: %+v, want a gap and two messages", f)
	}
}

// TestDrain shows that each connection is told its own time to come back, and
// that it is the last thing it is told.
func TestDrain(t *testing.T) {
	p, log := newPump(t, memory.Options{}, pump.Options{})
	drained := 0
	join := func(poll bool) *pump.Conn {
		return p.Join(pump.ConnOptions{Kind: &pump.Kind{Poll: poll}, Timeout: time.Minute, Channels: []string{"a"}, After: log.End()})
	}
	list := []*pump.Conn{join(false), join(true), join(false)}
	var mu sync.Mutex
	p.Drain(50*time.Millisecond, func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		drained++
		return time.Duration(drained) * time.Second
	})
	list = append(list, join(false)) // as soon as it comes
	delays, polls := map[time.Duration]bool{}, 0
	for _, c := range list {
		for {
			f, err := c.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if f.Last && len(f.Items) == 0 {
				polls++ // answered, as it comes back anyhow
				break
			}
			if f.Last {
				delays[f.Items[len(f.Items)-1].Control.Delay] = true
				break
			}
		}
		// It is not counted any more once there is nothing more to come.
		if _, err := c.Next(t.Context()); err != pump.ErrClosed {
			t.Errorf("after the last flush: %v", err)
		}
	}
	if len(delays) != 3 || polls != 1 {
		t.Errorf("%d delays for 3 streams, %d answers for 1 poll", len(delays), polls)
	}
	if n := p.Conns(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}

// TestDrainWindow shows that connections go one by one over the window, each
// told so at its own time, and that they get everything until then.
func TestDrainWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections, window = 400, 10 * time.Second
		p, log := newPump(t, memory.Options{}, pump.Options{Workers: 2, Heartbeat: time.Second})
		start := log.End()
		type leave struct {
			after    time.Duration
			messages int
			position engine.Cursor
			poll     bool
		}
		leaves := make(chan leave, connections)
		var all []*pump.Conn
		for i := range connections {
			o := pump.ConnOptions{Kind: &pump.Kind{Poll: i%4 == 0}, Timeout: time.Minute, Channels: []string{"a"}, After: start}
			if o.Kind.Poll {
				o.Channels[0] = "quiet"
			}
			all = append(all, p.Join(o))
		}
		synctest.Wait()
		began := time.Now()
		p.Drain(window, func() time.Duration { return time.Since(began) })
		for i, c := range all {
			go func() {
				l := leave{poll: i%4 == 0}
				for {
					f, err := c.Next(t.Context())
					if err != nil {
						t.Error(err)
					}
					for _, it := range f.Items {
						if it.Message != nil {
							l.messages++
						}
					}
					if !f.Last {
						continue
					}
					l.after, l.position = time.Since(began), f.Position
					if n := len(f.Items); !l.poll && (n == 0 || f.Items[n-1].Control == nil || f.Items[n-1].Control.Delay != l.after) {
						t.Errorf("after %v a stream ended with %+v", l.after, f.Items)
					}
					leaves <- l
					return
				}
			}()
		}
		var published []engine.Cursor
		for time.Since(began) < window+100*time.Millisecond {
			published = append(published, publish(t, log, "a"))
			time.Sleep(100 * time.Millisecond)
		}
		var tenths [10]int
		for range connections {
			l := <-leaves
			tenths[min(int(l.after*10/window), 9)]++
			if l.after > window+20*time.Millisecond {
				t.Errorf("one left after %v", l.after)
			}
			if due := int(l.position.Seq - start.Seq); !l.poll && l.messages != due {
				t.Errorf("after %v one had got %d messages of %d", l.after, l.messages, due)
			}
			// What was published a while before it left, it got.
			if due := int((l.after - 50*time.Millisecond) / (100 * time.Millisecond)); !l.poll && l.messages < due {
				t.Errorf("after %v one had got %d messages, want at least %d", l.after, l.messages, due)
			}
		}
		if slices.Min(tenths[:]) < connections/10/4 || slices.Max(tenths[:]) > connections/10*3 {
			t.Errorf("%v left in each tenth of the window", tenths)
		}
		if late := p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: []string{"a"}, After: start}); true {
			f, err := late.Next(t.Context())
			if err != nil || !f.Last {
				t.Errorf("one that comes after the window: %+v, %v", f, err)
			}
		}
		if n := p.Conns(); n != 0 || len(published) < 100 {
			t.Errorf("%d connections left, %d published", n, len(published))
		}
	})
}

// TestDrainTwice shows that a second drain makes the first one's window
// shorter, and not longer.
func TestDrainTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := newPump(t, memory.Options{}, pump.Options{Workers: 1})
		for _, second := range []time.Duration{time.Hour, time.Second} {
			c := p.Join(pump.ConnOptions{Kind: &pump.Kind{}, Channels: []string{"a"}, After: log.End()})
			began := time.Now()
			for _, window := range []time.Duration{10 * time.Second, second} {
				p.Drain(window, func() time.Duration { return 1 })
				synctest.Wait()
			}
			for last := false; !last; {
				f, err := c.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				last = f.Last
			}
			if d := time.Since(began); d > min(10*time.Second, second)+20*time.Millisecond {
				t.Errorf("10 s and then %v: it left after %v", second, d)
			}
		}
	})
}
