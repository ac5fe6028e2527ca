package pump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/socket"
	"github.com/halley-comet/halley/internal/wire"
)

// A lobby is where visitors are served in tests. Their requests are lines:
//
//	echo X     is answered with X
//	big N      with N bytes
//	poll       subscribes a poll to "a", whose answer is its messages' data
//	stream     subscribes a stream to "a"
//	release    takes the socket out; it is answered and closed
//
// An empty line is nothing.
type lobby struct {
	fresh, idle, polls, streams *Kind

	inputs, replies, gone atomic.Int64
	released              func(fd int, rest string)
}

func newLobby() *lobby {
	l := &lobby{}
	l.fresh = &Kind{Parked: Parked{Input: l.input}}
	l.idle = &Kind{Parked: Parked{Input: l.input}}
	l.polls = &Kind{Framing: plain{}, Poll: true, Next: l.idle, Parked: Parked{
		Reply: func(_ *Conn, f Flush) []byte {
			l.replies.Add(1)
			b := []byte("reply:")
			for _, it := range f.Items {
				b = append(b, it.Bytes...)
			}
			return append(b, '\n')
		},
		Gone: func(*Conn) { l.gone.Add(1) },
	}}
	l.streams = &Kind{Framing: plain{}, Silent: true, Parked: Parked{
		Tail: func(*Conn, Flush) []byte { return []byte("<end>") },
		Gone: func(*Conn) { l.gone.Add(1) },
	}}
	return l
}

func (l *lobby) input(c *Conn, b []byte) bool {
	l.inputs.Add(1)
	if c.is(blocked) || c.is(answering) {
		panic("input though something waits to be sent")
	}
	before, _ := c.Owner().(string) // the beginning of a line
	text := before + string(b)
	var out []byte
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			c.SetOwner(text)
			break
		}
		switch verb, what, _ := strings.Cut(line, " "); {
		case verb == "":
		case verb == "echo":
			out = append(append(out, what...), '\n')
		case verb == "big":
			n, _ := strconv.Atoi(what)
			out = append(out, bigLine(n)...)
		case len(out) > 0:
			panic("the test's client is to send " + line + " alone")
		case verb == "poll":
			c.Join(ConnOptions{Kind: l.polls, Channels: []string{"a"}, After: c.worker.pump.engine.End(), Timeout: time.Hour}, nil)
			return true
		case verb == "stream":
			c.Join(ConnOptions{Kind: l.streams, Channels: []string{"a"}, After: c.worker.pump.engine.End()}, []byte("<head>"))
			return true
		case verb == "release":
			l.released(c.Release(), rest)
			return true
		}
		text = rest
	}
	c.Become(l.idle)
	c.Respond(out)
	return true
}

// bigLine is n bytes of which no two parts are alike, and the line's end.
func bigLine(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = strconv.AppendInt(append(b, '.'), int64(i), 36)
	}
	return append(b[:n], '\n')
}

// tcpPair returns the socket of a connection over loopback, and its client.
func tcpPair(t testing.TB) (fd int, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd, ok := socket.Detach(server)
	if !ok {
		t.Fatal("a TCP connection is no bare socket")
	}
	t.Cleanup(func() { _ = conn.Close() })
	return fd, conn.(*net.TCPConn)
}

// A guest is the client of a visitor whose worker the test turns by hand.
type guest struct {
	*net.TCPConn
	t *testing.T
	w *worker
}

func visitor(t *testing.T, w *worker, kind *Kind) *guest {
	t.Helper()
	fd, client := tcpPair(t)
	if !w.pump.Visit(kind, fd) {
		t.Fatal("the pump is closed")
	}
	w.work()
	return &guest{client, t, w}
}

func (g *guest) say(s string) {
	g.t.Helper()
	if _, err := io.WriteString(g, s); err != nil {
		g.t.Fatal(err)
	}
}

// turns has the worker work until something is so.
func turns(t *testing.T, w *worker, until func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !until(); {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
		w.work()
		runtime.Gosched()
	}
}

// hear reads, while the worker works, as much as is wanted and compares it.
func (g *guest) hear(want string) {
	g.t.Helper()
	got := make([]byte, 0, len(want))
	buf := make([]byte, max(len(want), 1))
	turns(g.t, g.w, func() bool {
		if len(got) == len(want) {
			return true
		}
		_ = g.SetReadDeadline(time.Now().Add(time.Millisecond)) // reading tells
		n, err := g.Read(buf[:len(want)-len(got)])
		got = append(got, buf[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			g.t.Fatalf("after %d of %d bytes: %v", len(got), len(want), err)
		}
		return len(got) == len(want)
	})
	if string(got) != want {
		g.t.Fatalf("got %.60q, want %.60q", got, want)
	}
}

// hearEnd reads to the end, which must come at once or be a reset.
func (g *guest) hearEnd(want string) {
	g.t.Helper()
	g.hear(want)
	turns(g.t, g.w, func() bool {
		_ = g.SetReadDeadline(time.Now().Add(time.Millisecond)) // reading tells
		n, err := g.Read(make([]byte, 1))
		if n > 0 {
			g.t.Fatal("something comes in place of the end")
		}
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	})
}

// open returns the connections that the worker polls.
func (w *worker) open() (n int) {
	for _, c := range w.sockets.conns {
		if c != nil {
			n++
		}
	}
	return n
}

func (w *worker) only(t *testing.T) *Conn {
	t.Helper()
	for _, c := range w.sockets.conns {
		if c != nil {
			return c
		}
	}
	t.Fatal("there is no connection")
	return nil
}

// pass lets time pass for the worker.
func pass(w *worker, d time.Duration) {
	w.wheel.start = w.wheel.start.Add(-d)
	w.work()
}

// reach lets time pass to a tick.
func reach(w *worker, tick uint32) {
	w.wheel.start = time.Now().Add(-time.Duration(tick) * w.wheel.tick)
	w.work()
}

func visitWorker(t *testing.T) (*worker, engine.Engine) {
	w, log := testWorker(t)
	t.Cleanup(w.close)
	return w, log
}

func say(t *testing.T, log engine.Engine, data string) {
	t.Helper()
	if _, err := log.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a", Data: []byte(data)}}}); err != nil {
		t.Fatal(err)
	}
}

// TestVisit has visitors ask, poll, be answered and ask again, with what they
// send while a poll is held left for afterwards.
func TestVisit(t *testing.T) {
	w, log := visitWorker(t)
	l := newLobby()
	var guests []*guest
	for range 40 { // enough for a ring
		guests = append(guests, visitor(t, w, l.fresh))
	}
	for round := range 5 {
		for i, g := range guests {
			g.say(fmt.Sprintf("echo %d\n", i))
		}
		for i, g := range guests {
			g.hear(fmt.Sprintf("%d\n", i))
		}
		if n := w.pump.Conns(); n != 0 {
			t.Fatalf("%d visitors count as subscribers", n)
		}
		for _, g := range guests {
			g.say("poll\n")
		}
		turns(t, w, func() bool { return w.pump.Conns() == len(guests) && len(w.catchups) == 0 })
		for i, g := range guests[:20] {
			g.say(fmt.Sprintf("echo early %d\n", i))
		}
		turns(t, w, func() bool {
			n := 0
			for _, c := range w.sockets.conns {
				if c != nil && c.is(input) {
					n++
				}
			}
			return n == 20
		})
		say(t, log, "m")
		for i, g := range guests {
			g.hear("reply:m\n")
			if i < 20 {
				g.hear(fmt.Sprintf("early %d\n", i))
			}
		}
		if n := int(l.replies.Load()); n != len(guests)*(round+1) || w.pump.Conns() != 0 || l.gone.Load() != 0 {
			t.Fatalf("%d replies, %d subscribers left, %d gone", n, w.pump.Conns(), l.gone.Load())
		}
	}
	for i, g := range guests {
		switch i % 3 {
		case 0:
			_ = g.Close()
		case 1:
			g.say("stream\n")
			g.hear("<head><open>")
			_ = g.Close()
		case 2:
			g.say("poll\n")
			turns(t, w, func() bool { return w.pump.Conns() > 0 })
			_ = g.Close()
		}
		turns(t, w, func() bool { return w.open() == len(guests)-1-i })
	}
	if n, want := int(l.gone.Load()), len(guests)/3*2; n != want || w.pump.Conns() != 0 || w.count != 0 || w.wheel.count != 0 {
		t.Errorf("%d gone, want %d; %d subscribers, %d of them indexed, %d on the wheel", n, want, w.pump.Conns(), w.count, w.wheel.count)
	}
}

// TestVisitEnds shows that a client which has sent its last request gets the
// answer, and that one which subscribes with its last is let go.
func TestVisitEnds(t *testing.T) {
	w, _ := visitWorker(t)
	l := newLobby()
	for _, tt := range []struct{ say, want string }{
		{"echo 1\n", "1\n"},
		{"big 4000000\n", string(bigLine(4_000_000))}, // which waits for the client
		{"echo 1\necho 2\n", "1\n2\n"},
		{"poll\n", ""},
		{"stream\n", ""},
	} {
		g := visitor(t, w, l.fresh)
		g.say(tt.say)
		if err := g.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		g.hearEnd(tt.want)
		turns(t, w, func() bool { return w.open() == 0 })
	}
	if l.gone.Load() != 2 || w.pump.Conns() != 0 {
		t.Errorf("%d of 2 subscribers gone, %d left", l.gone.Load(), w.pump.Conns())
	}
}

// TestAnswersInOrder has a client send more than is read at once, and read in
// pieces drawn by lot, in several sends for one socket in a turn.
func TestAnswersInOrder(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 1))
	w, log := visitWorker(t)
	l := newLobby()
	g := visitor(t, w, l.fresh)
	for round := range 20 {
		var asked, want bytes.Buffer
		held := round%2 == 1
		if held { // the answer to the poll is queued when the next is read
			g.say("poll\n")
			turns(t, w, func() bool { return w.pump.Conns() == 1 && len(w.catchups) == 0 })
			want.WriteString("reply:" + string(bigLine(100_000)))
		}
		for n := 1 + rnd.IntN(4); n > 0; n-- {
			size := rnd.IntN(100_000)
			fmt.Fprintf(&asked, "big %d\n", size)
			want.Write(bigLine(size))
		}
		text := strings.ReplaceAll(asked.String(), "\n", strings.Repeat("\n", 1+rnd.IntN(100_000)))
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(g, text)
			sent <- err
		}()
		if held {
			turns(t, w, func() bool { return w.only(t).is(input) })
			say(t, log, strings.TrimSuffix(string(bigLine(100_000)), "\n"))
		}
		for rest := want.String(); rest != ""; {
			n := min(len(rest), 1+rnd.IntN(30_000))
			g.hear(rest[:n])
			rest = rest[n:]
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		turns(t, w, func() bool { return !w.only(t).is(input) })
	}
}

// TestQueuedAnswer shows, for each thing that may follow at once, that a
// response which waits for its batch is sent before.
func TestQueuedAnswer(t *testing.T) {
	for _, next := range []string{"echo 2\n", "release\n", "stream\n", ""} {
		w, _ := visitWorker(t)
		l := newLobby()
		l.released = func(fd int, _ string) {
			SendNow(fd, []byte("released\n"))
			socket.Close(fd)
		}
		g := visitor(t, w, l.fresh)
		c := w.only(t)
		w.respond(c, []byte("1\n"))
		if next == "" {
			_ = g.CloseWrite() // reading tells
		} else {
			g.say(next)
		}
		turns(t, w, func() bool { // before the turn's end would send it
			w.runEvents()
			return l.inputs.Load() > 0 || w.open() == 0
		})
		switch next {
		case "echo 2\n":
			g.hear("1\n2\n")
		case "release\n":
			g.hearEnd("1\nreleased\n")
		case "stream\n":
			g.hear("1\n<head><open>")
		case "":
			g.hearEnd("1\n")
		}
	}
}

// TestTimes lets time pass for connections in each state.
func TestTimes(t *testing.T) {
	const limit, patience, linger = 10 * time.Second, 30 * time.Second, 2 * time.Second
	setup := func(t *testing.T) (*worker, engine.Engine, *lobby, *guest) {
		w, log := visitWorker(t)
		w.patience, w.linger = w.wheel.span(patience), w.wheel.span(linger)
		l := newLobby()
		l.fresh.Limit, l.idle.Limit = limit, limit/10
		return w, log, l, visitor(t, w, l.fresh)
	}
	// lasts shows that the connection is cut when it was touched a time ago, and
	// not before.
	lasts := func(t *testing.T, w *worker, d time.Duration) {
		t.Helper()
		const slack = 50 // ticks, in which the test gets from line to line
		due := w.only(t).touched + w.wheel.span(d)
		if due < w.wheel.at+slack {
			t.Skip("the machine is too slow")
		}
		reach(w, due-slack)
		if w.open() != 1 {
			t.Fatalf("it was cut before %v", d)
		}
		reach(w, due+2)
		if w.open() != 0 {
			t.Fatalf("it was not cut after %v", d)
		}
		if w.wheel.count != 0 || w.sockets.rest != 0 {
			t.Errorf("%d on the wheel, %d bytes wait", w.wheel.count, w.sockets.rest)
		}
	}
	asks := func(t *testing.T, w *worker, g *guest, what string) {
		t.Helper()
		g.say(what)
		turns(t, w, func() bool { return w.only(t).is(blocked) })
	}
	t.Run("fresh", func(t *testing.T) {
		w, _, _, _ := setup(t)
		lasts(t, w, limit)
	})
	t.Run("idle", func(t *testing.T) {
		w, _, _, g := setup(t)
		g.say("echo 1\n")
		g.hear("1\n")
		lasts(t, w, limit/10)
	})
	t.Run("no limit", func(t *testing.T) {
		w, _, l, g := setup(t)
		l.idle.Limit = -1
		g.say("echo 1\n")
		g.hear("1\n")
		pass(w, 80*time.Second) // a wheel's turn
		pass(w, 10*limit)
		g.say("echo 2\n")
		g.hear("2\n")
	})
	t.Run("answered poll", func(t *testing.T) {
		w, log, _, g := setup(t)
		g.say("poll\n")
		turns(t, w, func() bool { return w.pump.Conns() == 1 && len(w.catchups) == 0 })
		pass(w, 30*limit)
		say(t, log, "m")
		g.hear("reply:m\n")
		lasts(t, w, limit/10)
	})
	t.Run("poll's end", func(t *testing.T) {
		w, _, _, g := setup(t)
		g.say("poll\n")
		turns(t, w, func() bool { return w.pump.Conns() == 1 && len(w.catchups) == 0 })
		pass(w, time.Hour-time.Second)
		if w.pump.Conns() != 1 {
			t.Fatal("the poll was answered early")
		}
		pass(w, 2*time.Second)
		g.hear("reply:\n")
		lasts(t, w, limit/10)
	})
	t.Run("blocked", func(t *testing.T) {
		w, _, _, g := setup(t)
		asks(t, w, g, "big 10000000\n")
		lasts(t, w, patience)
	})
	t.Run("blocked and reading", func(t *testing.T) {
		w, _, l, g := setup(t)
		l.idle.Limit = time.Hour // all may be sent long before it is read
		asks(t, w, g, "big 20000000\n")
		want := string(bigLine(20_000_000))
		for range 3 {
			pass(w, patience-time.Second)
			g.hear(want[:6_000_000])
			want = want[6_000_000:]
			w.work()
		}
		g.hear(want)
		lasts(t, w, time.Hour)
	})
	t.Run("blocked stream", func(t *testing.T) {
		w, log, l, g := setup(t)
		g.say("stream\n")
		g.hear("<head><open>")
		for !w.only(t).is(blocked) {
			say(t, log, string(bigLine(200_000)))
			w.work()
		}
		lasts(t, w, patience)
		if l.gone.Load() != 1 || w.pump.Conns() != 0 {
			t.Errorf("%d gone, %d subscribers", l.gone.Load(), w.pump.Conns())
		}
	})
	t.Run("goodbye", func(t *testing.T) {
		w, _, l, g := setup(t)
		l.streams.Silent, w.silence = false, 10 // a heartbeat is due before the second is over
		g.say("stream\n")
		g.hear("<head><open>")
		c := w.only(t)
		c.End(&wire.Control{Kind: wire.Reconnect})
		g.hear("<reconnect><end>")
		lasts(t, w, linger)
		if l.gone.Load() != 1 {
			t.Errorf("gone %d times", l.gone.Load())
		}
	})
}

// TestDrainBlocked shows that a client which takes nothing at its time gets the
// rest of its message later, and is sent away then; one that never does is cut.
func TestDrainBlocked(t *testing.T) {
	for _, reads := range []bool{true, false} {
		w, log := visitWorker(t)
		w.patience = w.wheel.span(5 * time.Minute)
		l := newLobby()
		g := visitor(t, w, l.fresh)
		g.say("stream\n")
		g.hear("<head><open>")
		data, messages := string(bigLine(200_000)), ""
		for !w.only(t).is(blocked) {
			say(t, log, data)
			messages += data
			w.work()
		}
		w.drain(w.now.Add(10*time.Second), func() time.Duration { return time.Second })
		pass(w, time.Minute) // its time is over, and its patience is not
		if w.open() != 1 || !w.only(t).ending() {
			t.Fatalf("%d connections are open, want one that is ending", w.open())
		}
		if reads {
			g.hearEnd(messages + "<reconnect><end>")
			continue
		}
		pass(w, 4*time.Minute+time.Second)
		if w.open() != 0 || l.gone.Load() != 1 {
			t.Errorf("%d connections are open, %d are gone, want one that was cut", w.open(), l.gone.Load())
		}
	}
}

// TestClosingClientSends shows that a client which sends without end keeps its
// worker no longer than others, whether it is being closed or not.
func TestClosingClientSends(t *testing.T) {
	for _, closes := range []bool{false, true} {
		w, _ := visitWorker(t)
		g := (*guest)(nil)
		var c *Conn
		piece := bytes.Repeat([]byte("x"), 64<<10)
		reads := 0
		kind := &Kind{Framing: plain{}, Parked: Parked{Input: func(*Conn, []byte) bool {
			if reads++; reads > 1000 {
				t.Fatal("the worker reads on and on")
			}
			_, _ = g.Write(piece) // what is not taken fills the socket
			return true
		}}}
		g = visitor(t, w, kind)
		_ = g.SetWriteDeadline(time.Now().Add(time.Minute)) // writing tells
		c = w.only(t)
		if closes {
			c.on(closing)
			sending := make(chan struct{})
			go func() {
				defer close(sending)
				for {
					if _, err := g.Write(piece); err != nil {
						return
					}
				}
			}()
			for range 200 {
				w.work()
			}
			_ = g.Close()
			<-sending
			continue
		}
		g.say(string(piece))
		turns(t, w, func() bool { return reads > 0 })
		if reads > 2*inputReads { // for the event, and at the turn's end
			t.Errorf("%d reads in a turn, want %d at most", reads, 2*inputReads)
		}
	}
}

// TestStaleEvents shows that an event for a socket which was closed meanwhile
// does nothing to the one that has its descriptor now.
func TestStaleEvents(t *testing.T) {
	w, _ := visitWorker(t)
	l := newLobby()
	old := visitor(t, w, l.fresh)
	c := w.only(t)
	fd := c.fd
	if err := old.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = old.Close() // by a reset: the event cuts whom it meets
	poller := w.poller.Load()
	for poller.got == 0 {
		poller.wait(time.Second)
	}
	c.Leave()
	next, client := tcpPair(t)
	w.inbox.put(command{do: func(w *worker, _ *Conn) {
		if err := syscall.Dup3(next, int(fd), syscall.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		socket.Close(next)
		w.visit(l.fresh, fd)
	}})
	w.work()
	if now := w.only(t); now == c || now.fd != fd {
		t.Fatalf("the descriptor was not used again")
	}
	g := &guest{client, t, w}
	g.say("echo 1\n")
	g.hear("1\n")
}

// TestBoundRest shows how much waits for clients that do not read, and that it
// is let go with them.
func TestBoundRest(t *testing.T) {
	w, _ := visitWorker(t)
	l := newLobby()
	const size = 12 << 20
	var guests []*guest
	for i := range 2 * restBytes / size {
		g := visitor(t, w, l.fresh)
		g.say(fmt.Sprintf("big %d\n", size))
		turns(t, w, func() bool { return int(l.inputs.Load()) == i+1 })
		guests = append(guests, g)
		if w.sockets.rest > restBytes {
			t.Fatalf("%d bytes wait, want %d at most", w.sockets.rest, restBytes)
		}
	}
	kept := w.open()
	if kept == len(guests) || kept < restBytes/2/size {
		t.Errorf("%d of %d clients are left", kept, len(guests))
	}
	// Those that read get everything, though the bound is reached.
	guests[0].hear(string(bigLine(size)))
	g := visitor(t, w, l.fresh)
	g.say("echo 1\n")
	g.hear("1\n")
	for _, g := range guests {
		_ = g.SetLinger(0) // closing tells
		_ = g.Close()
	}
	turns(t, w, func() bool { return w.open() == 1 })
	if w.sockets.rest != 0 {
		t.Errorf("%d bytes wait for nobody", w.sockets.rest)
	}
}

// TestClose closes a pump while connections of all sorts are there and more are
// coming, and shows that each is over once and that nothing is left.
func TestClose(t *testing.T) {
	files, goroutines := descriptors(t), runtime.NumGoroutine()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := New(log, Options{Workers: 2, Heartbeat: time.Hour})
	l := newLobby()
	subscribers := 0
	var clients []*net.TCPConn
	for i := range 60 {
		fd, client := tcpPair(t)
		clients = append(clients, client)
		if i == 50 {
			p.Drain(0, func() time.Duration { return time.Hour })
		}
		if i%5 == 4 {
			subscribers++
			p.Park(ConnOptions{Kind: l.streams, Channels: []string{"a"}}, Socket{FD: fd})
			continue
		}
		if !p.Visit(l.fresh, fd) {
			t.Fatal("the pump is closed")
		}
		want := ""
		switch i % 5 {
		case 0: // nothing is asked
		case 1:
			want = "1\n"
			_, _ = io.WriteString(client, "echo 1\n") // reading tells
		case 2:
			if i < 50 {
				subscribers++
				_, _ = io.WriteString(client, "poll\n") // it is held
			}
		case 3:
			subscribers++
			if want = "<head><open>"; i >= 50 {
				want = "<head><reconnect><end>"
			}
			_, _ = io.WriteString(client, "stream\n") // reading tells
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	goroutine := p.Join(ConnOptions{Kind: &Kind{}, Channels: []string{"a"}}) // written by one
	p.Close()
	if _, err := goroutine.Next(t.Context()); err == nil {
		if _, err = goroutine.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Next: %v, want ErrClosed", err)
		}
	}
	fd, late := tcpPair(t)
	if p.Visit(l.fresh, fd) {
		t.Error("a visitor after Close")
	}
	socket.Close(fd)
	fd, parked := tcpPair(t)
	subscribers++
	p.Park(ConnOptions{Kind: l.streams, Channels: []string{"a"}}, Socket{FD: fd})
	p.Join(ConnOptions{Kind: &Kind{}, Channels: []string{"a"}})
	for i, client := range append(clients, late, parked) {
		_ = client.SetReadDeadline(time.Now().Add(20 * time.Second)) // reading tells
		if _, err := io.Copy(io.Discard, client); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("client %d is not told of the end", i)
		}
		_ = client.Close()
	}
	// The polls that came too late to be gone were told before they joined.
	if n := int(l.gone.Load() + l.replies.Load()); n > subscribers || n < subscribers-10 {
		t.Errorf("%d subscribers are gone or answered, of %d", n, subscribers)
	}
	if n := p.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		f, g := descriptors(t), runtime.NumGoroutine()
		if f <= files+1 && g <= goroutines { // the runtime's own poller may be new
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d descriptors and %d goroutines, %d and %d before", f, g, files, goroutines)
		}
	}
}
