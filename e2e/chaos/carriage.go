package chaos

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// carriage is one connection from a client and the one to the server.
type carriage struct {
	proxy    *Proxy
	client   *net.TCPConn
	server   net.Conn
	gone     chan struct{} // closed when the connections are
	over     sync.Once
	silent   atomic.Bool
	upgraded atomic.Bool
	pending  atomic.Pointer[head] // of the request that is being answered, or nil
	methods  chan string          // of the requests that the server has got

	mu   sync.Mutex // guards fuse
	fuse fuse
}

// fuse is how much of the server's bytes still passes before something
// happens.
type fuse struct {
	lit   bool
	left  int
	then  Kind // Cut or Stall
	reset bool
}

func newCarriage(p *Proxy, client *net.TCPConn, server net.Conn) *carriage {
	return &carriage{proxy: p, client: client, server: server, gone: make(chan struct{}), methods: make(chan string, 100)}
}

func (c *carriage) arm(f fuse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fuse = f
}

// holds reports whether a request is being answered whose line contains part.
func (c *carriage) holds(part string) bool {
	h := c.pending.Load()
	return h != nil && strings.Contains(h.start, part)
}

func (c *carriage) disarm() { c.arm(fuse{}) }

// cut ends both connections, the client's with a TCP reset or as if the server
// had finished.
func (c *carriage) cut(reset bool) {
	c.over.Do(func() {
		if reset {
			c.client.SetLinger(0)
		}
		c.pending.Store(nil)
		c.client.Close()
		c.server.Close()
		close(c.gone)
	})
}

// run returns when both connections are gone.
func (c *carriage) run() {
	var both sync.WaitGroup
	both.Go(func() {
		c.requests()
		c.cut(false)
	})
	c.responses()
	// What a silent connection has to say nobody hears, its end included.
	if !c.silent.Load() {
		c.cut(false)
	}
	both.Wait()
}

// requests carries from the client to the server until one of them ends.
func (c *carriage) requests() {
	r := bufio.NewReader(c.client)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		if c.silent.Load() || c.upgraded.Load() {
			c.tunnel(r)
			return
		}
		h, err := readHead(r)
		if err != nil {
			return
		}
		b, err := requestBody(h)
		if err != nil {
			return
		}
		c.proxy.record(h)
		to, answer := io.Writer(c.server), ""
		switch {
		case c.proxy.on(BadGateway):
			answer = "502 Bad Gateway"
		case h.upgrades() && c.proxy.on(NoWebSocket):
			answer = "403 Forbidden"
			if c.proxy.coin() {
				answer = "400 Bad Request"
			}
		case c.proxy.on(Strip):
			h = h.without("Connection", "Upgrade")
		}
		if answer != "" {
			to = io.Discard
		} else {
			method, _, _ := strings.Cut(h.start, " ")
			c.pending.Store(&h)
			c.methods <- method
		}
		if _, err := to.Write(h.bytes()); err != nil {
			return
		}
		if err := pass(b, r, func(piece []byte) error {
			_, err := to.Write(piece)
			return err
		}); err != nil {
			return
		}
		if answer != "" {
			text := "<html><h1>" + answer + "</h1></html>\n"
			h := head{start: "HTTP/1.1 " + answer, fields: []string{
				"Content-Type: text/html", "Content-Length: " + strconv.Itoa(len(text)),
			}}
			if !c.deliver(append(h.bytes(), text...)) {
				return
			}
		}
	}
}

// tunnel carries what comes after a 101, or nothing if the connection is silent.
func (c *carriage) tunnel(r io.Reader) {
	piece := make([]byte, 32<<10)
	for {
		n, err := r.Read(piece)
		if n > 0 && !c.silent.Load() {
			if _, err := c.server.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// responses carries from the server to the client.
func (c *carriage) responses() {
	r := bufio.NewReaderSize(c.server, 32<<10)
	for {
		h, err := readHead(r)
		if err != nil {
			return
		}
		status, err := h.status()
		if err != nil {
			return
		}
		b := &body{open: true} // of a tunnel
		switch {
		case status == 101:
			c.upgraded.Store(true)
		case status < 200:
			if !c.deliver(h.bytes()) {
				return
			}
			continue
		default:
			var method string
			select {
			case method = <-c.methods:
			case <-c.gone:
				return
			}
			if b, err = responseBody(h, method); err != nil {
				return
			}
		}
		held := &hold{carriage: c, headPasses: c.proxy.coin()}
		if !held.head(h.bytes(), b.ended()) {
			return
		}
		err = pass(b, r, func(piece []byte) error {
			if !held.piece(piece, b.ended()) {
				return net.ErrClosed
			}
			return nil
		})
		if err != nil {
			held.flush()
			return
		}
		c.pending.Store(nil)
	}
}

// pass reads a body to its end and gives its pieces to do.
func pass(b *body, r *bufio.Reader, do func(piece []byte) error) error {
	for !b.ended() {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		piece, _ := r.Peek(r.Buffered())
		n, err := b.take(piece)
		if err != nil {
			return err
		}
		if err := do(piece[:n]); err != nil {
			return err
		}
		r.Discard(n)
	}
	return nil
}

// hold keeps bytes of one response back while that fault is on.
type hold struct {
	*carriage
	headPasses bool
	held       []byte
}

func (h *hold) head(b []byte, ended bool) bool {
	if h.headPasses {
		return h.deliver(b)
	}
	return h.piece(b, ended)
}

func (h *hold) piece(b []byte, ended bool) bool {
	h.held = append(h.held, b...)
	if h.proxy.on(Hold) && !ended && len(h.held) < holdSize {
		return true
	}
	return h.flush()
}

func (h *hold) flush() bool {
	b := h.held
	h.held = nil
	return h.deliver(b)
}

// deliver writes to the client, late and as far as the fuse lets it. It
// reports whether there is still a client.
func (c *carriage) deliver(b []byte) bool {
	if late := c.proxy.lateness(); late > 0 {
		select {
		case <-time.After(late):
		case <-c.gone:
			return false
		}
	}
	if c.silent.Load() {
		return true
	}
	c.mu.Lock()
	f := c.fuse
	burnt := f.lit && f.left <= len(b)
	if burnt {
		b = b[:f.left]
	}
	c.fuse.left -= len(b)
	c.mu.Unlock()
	if _, err := c.client.Write(b); err != nil {
		return false
	}
	switch {
	case burnt && f.then == Stall:
		c.silent.Store(true)
	case burnt:
		c.cut(f.reset)
		return false
	}
	return true
}
