// Package front reads the protocol's requests straight from sockets, so that
// neither a poll that comes back, nor a stream, nor a small publish costs a
// goroutine and a request of net/http.
//
// It stands between a listener and an http.Server that serves nothing around
// the hub which would have to see these requests. A connection that was
// accepted is a visitor of the pump: what comes from it is read by the pump's
// worker. A request that is alike one before, but for its position or the
// length of its body, is served as that one was, from a memo. Requests of
// which that is not known are parsed by net/http and planned by the hub, once.
// Everything else goes to the http.Server, with the bytes that were read.
package front

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/handback"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/socket"
)

// A Plan is what is done with requests that are alike. One of its functions is
// set. It belongs to one of the pump's workers, in which they are called.
type Plan struct {
	// Answer appends the response to dst. It reports false, having done
	// nothing, if the request is for the HTTP server.
	Answer func(dst []byte, r *Request) ([]byte, bool)
	// Join subscribes a visitor. It reports as Answer does.
	Join func(c *pump.Conn, r *Request) bool
}

// Options of a Front.
type Options struct {
	Pump *pump.Pump
	// Mounts are what the paths begin with that are served.
	Mounts [][]byte
	// Plan returns what is done with a request, without its body, or nil if it
	// is for the HTTP server. Polls become of the kind next once they are
	// answered.
	Plan func(r *http.Request, polls *pump.Kind) *Plan
	// Polls returns the kind of polls whose connections become of another.
	Polls func(next *pump.Kind) *pump.Kind
	// MaxHead is the size of a head at most, in bytes.
	MaxHead int
	// HeaderTimeout is how long the first request may take to come, and
	// IdleTimeout the next one.
	HeaderTimeout, IdleTimeout time.Duration
	// WriteTimeout is how long a client may leave answers unread.
	WriteTimeout time.Duration
}

// A Front is a listener of the connections that are for the HTTP server.
type Front struct {
	Options
	listener net.Listener
	acceptor *socket.Acceptor
	lanes    [2]lane
	foreign  *handback.Queue
	running  sync.WaitGroup
}

// A lane has the connections that came in on a loopback address, or those that
// did not. The hub's checks of hosts tell them apart.
type lane struct {
	front              *Front
	local              net.Addr
	fresh, idle, polls *pump.Kind
	answered           *pump.Kind // idle, after a POST
	partial            *pump.Kind // that has sent a part of a POST, which is its owner
	memos              []memo     // by worker: what is allowed in one lane may not be in the other
}

// New puts a front before a listener, which is the front's from now on. It
// returns the listener itself where connections cannot be parked.
func New(l net.Listener, o Options) net.Listener {
	tcp, ok := l.(*net.TCPListener)
	if !ok || !o.Pump.CanPark() {
		return l
	}
	f := &Front{Options: o, listener: l, foreign: handback.NewQueue(l.Addr())}
	for i, ip := range []net.IP{net.IPv4zero, net.IPv4(127, 0, 0, 1)} {
		n := &f.lanes[i]
		n.front, n.local = f, &net.TCPAddr{IP: ip}
		n.memos = make([]memo, o.Pump.Workers())
		n.fresh = &pump.Kind{Limit: o.HeaderTimeout, Parked: pump.Parked{Input: n.input}}
		n.idle = &pump.Kind{Limit: o.IdleTimeout, Parked: pump.Parked{Input: n.input}}
		n.answered = &pump.Kind{Limit: o.IdleTimeout, Parked: pump.Parked{Input: n.inputAfterPost}}
		n.partial = &pump.Kind{Limit: o.WriteTimeout, Parked: pump.Parked{Input: n.inputOfPart}}
		n.polls = o.Polls(n.idle)
	}
	var err error
	if f.acceptor, err = socket.Listen(tcp); err != nil {
		return l
	}
	f.running.Go(func() { _ = f.acceptor.Run(f.visit) }) // it ends when it is closed
	return f
}

// visit takes a socket that was accepted.
func (f *Front) visit(fd int, loopback bool) {
	n := f.lane(loopback)
	n.visit(n.fresh, fd)
}

// visit makes a visitor of a socket. Once the hub is closed, the HTTP server,
// which may not be, has all of them.
func (n *lane) visit(kind *pump.Kind, fd int) {
	if !n.front.Pump.Visit(kind, fd) {
		n.give(fd, nil, nil)
	}
}

func (f *Front) lane(loopback bool) *lane {
	if loopback {
		return &f.lanes[1]
	}
	return &f.lanes[0]
}

// Accept implements net.Listener.
func (f *Front) Accept() (net.Conn, error) { return f.foreign.Accept() }

// Addr implements net.Listener.
func (f *Front) Addr() net.Addr { return f.listener.Addr() }

// StopAccepting leaves further connections to whoever has the socket too. Those
// that were accepted are served.
func (f *Front) StopAccepting() {
	_ = f.acceptor.Close() // a second time it is closed already
	f.running.Wait()
}

// Close implements net.Listener. Connections that were accepted stay.
func (f *Front) Close() error {
	f.StopAccepting()
	err := f.listener.Close()
	_ = f.foreign.Close() // it returns nil
	return err
}

// input serves what a visitor has sent.
func (n *lane) input(c *pump.Conn, b []byte) (done bool) { return n.serve(c, b, false) }

// serve serves what a visitor has sent, which may begin with a part that was
// there before.
func (n *lane) serve(c *pump.Conn, b []byte, part bool) (done bool) {
	f := n.front
	memo := &n.memos[c.Worker()]
	var out []byte
	waits := false
	for len(b) > 0 {
		r, ok := cut(b, f.Mounts, memo.buf[:0])
		if !ok || len(r.head) > f.MaxHead {
			break
		}
		memo.buf = r.key
		if n != &f.lanes[1] {
			r.Remote = c.RemoteAddr().Addr()
		}
		plan := memo.find(&r)
		if plan == nil {
			if plan = n.plan(&r); plan == nil {
				break
			}
			memo.keep(&r, plan)
		}
		if r.missing > 0 {
			waits = plan.Answer != nil
			break
		}
		if plan.Answer != nil {
			if out, ok = plan.Answer(out, &r.Request); !ok {
				break
			}
			b = afterPost(b[r.size:])
			continue
		}
		if len(out) > 0 || len(b) > r.size { // what follows would have to wait
			break
		}
		if !plan.Join(c, &r.Request) {
			n.release(c, nil, b)
		}
		return true
	}
	switch {
	case waits:
		if len(out) > 0 {
			c.Respond(out)
		}
		c.SetOwner(bytes.Clone(b))
		if !part || len(out) > 0 { // a small body has its time once, not for each of its bytes
			c.Become(n.partial)
		}
	case len(b) > 0:
		n.release(c, out, b)
	default:
		c.Become(n.answered)
		c.Respond(out)
	}
	return true
}

// inputOfPart is called with the rest of a request, or nothing if no more
// comes.
func (n *lane) inputOfPart(c *pump.Conn, b []byte) (done bool) {
	part := c.Owner().([]byte)
	c.SetOwner(nil)
	if len(b) == 0 {
		n.release(c, nil, part)
		return true
	}
	return n.serve(c, append(part, b...), true)
}

func (n *lane) inputAfterPost(c *pump.Conn, b []byte) (done bool) {
	b = afterPost(b)
	return len(b) == 0 || n.input(c, b)
}

// afterPost removes the line ends that old clients send after a POST's body,
// as the HTTP server does, which would not know that there was a POST.
func afterPost(b []byte) []byte {
	for range 4 {
		if len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
			b = b[1:]
		}
	}
	return b
}

// plan finds out what is to be done with a request.
func (n *lane) plan(r *request) *Plan {
	h := r.parse()
	if h == nil {
		return nil
	}
	return n.front.Plan(h.WithContext(context.WithValue(h.Context(), http.LocalAddrContextKey, n.local)), n.polls)
}

// release gives a connection to the HTTP server, after what is to be answered
// to earlier requests.
func (n *lane) release(c *pump.Conn, out, b []byte) {
	fd := c.Release()
	if len(out) > 0 {
		sent := pump.SendNow(fd, out)
		if sent < 0 {
			socket.Close(fd) // the client has gone
			return
		}
		out = out[sent:]
	}
	n.give(fd, out, bytes.Clone(b))
}

// give hands a socket to the HTTP server, with what is still to be sent and
// what was read.
func (n *lane) give(fd int, out, read []byte) {
	conn, err := socket.Attach(fd)
	if err != nil {
		return
	}
	given := handback.NewConn(conn, read, n.back)
	given.SendFirst(out, n.front.WriteTimeout)
	if !n.front.foreign.Put(given) {
		_ = conn.Close() // the server is closed
	}
}

// back takes a connection again whose request the HTTP server has passed on.
func (n *lane) back(conn net.Conn, input []byte) bool {
	if len(input) > 0 {
		return n.front.foreign.Put(handback.NewConn(conn, input, n.back))
	}
	fd, ok := socket.Detach(conn)
	if ok {
		n.visit(n.idle, fd)
	}
	return ok
}

// A memo has the plans of requests that were seen.
type memo struct {
	plans map[string]*Plan
	bytes int
	buf   []byte
}

// What a memo holds at most.
const (
	memoPlans = 256
	memoBytes = 256 << 10
)

func (m *memo) find(r *request) *Plan { return m.plans[string(r.key)] }

func (m *memo) keep(r *request, p *Plan) {
	if m.plans == nil || len(m.plans) == memoPlans || m.bytes+len(r.key) > memoBytes {
		m.plans, m.bytes = map[string]*Plan{}, 0 // those in use come back at once
	}
	m.plans[string(r.key)] = p
	m.bytes += len(r.key)
}
