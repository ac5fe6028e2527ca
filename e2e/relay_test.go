package e2e

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// relay carries TCP connections to a server and ends them in the ways that
// networks do. New connections pass at any time.
type relay struct {
	listener net.Listener
	target   string

	mu      sync.Mutex // guards carried
	carried map[*carriage]bool
}

// carriage is one connection from a browser, with the one to the server.
type carriage struct {
	browser, server net.Conn
	silent          atomic.Bool
	request         atomic.Value // string: the latest bytes from the browser
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, target: target, carried: make(map[*carriage]bool)}
	var done sync.WaitGroup
	done.Go(func() { r.accept(&done) })
	t.Cleanup(func() {
		listener.Close()
		r.reset()
		done.Wait()
	})
	return r
}

// address stands for the server's.
func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept(done *sync.WaitGroup) {
	for {
		browser, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			browser.Close()
			continue
		}
		c := &carriage{browser: browser, server: server}
		r.mu.Lock()
		r.carried[c] = true
		r.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { c.carry(server, browser) })
		both.Go(func() { c.carry(browser, server) })
		done.Go(func() {
			both.Wait()
			r.mu.Lock()
			delete(r.carried, c)
			r.mu.Unlock()
		})
	}
}

// carry copies until either side ends, and then ends both.
func (c *carriage) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if from == c.browser {
			c.request.Store(string(buffer[:n]))
		}
		if c.silent.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// each calls do for every connection there is.
func (r *relay) each(do func(c *carriage)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.carried {
		do(c)
	}
}

// reset cuts all connections with a TCP reset.
func (r *relay) reset() {
	r.each(func(c *carriage) {
		c.browser.(*net.TCPConn).SetLinger(0)
		c.browser.Close()
	})
}

// finish ends all connections in the middle of whatever they carry, as if the
// server had closed them.
func (r *relay) finish() { r.each(func(c *carriage) { c.browser.Close() }) }

// silence leaves all connections open and carries nothing more on them.
func (r *relay) silence() { r.each(func(c *carriage) { c.silent.Store(true) }) }
