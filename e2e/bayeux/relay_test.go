package bayeux

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay carries TCP connections to a server. While it cuts, each connection
// ends after a number of bytes of its own, in either direction, by a reset or
// as if the other side had closed it; and some are taken and never answered.
type relay struct {
	listener net.Listener
	target   string
	cutting  atomic.Bool
	// refuseUpgrades closes connections that ask for a WebSocket.
	refuseUpgrades atomic.Bool

	mu                  sync.Mutex // guards what follows
	random              *rand.Rand
	carried             map[*net.TCPConn]bool // from clients
	resets, ends, holes int
}

func newRelay(t *testing.T, target string, seed uint64) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, target: target, random: rand.New(rand.NewPCG(seed, 3)), carried: map[*net.TCPConn]bool{}}
	var done sync.WaitGroup
	done.Go(func() { r.accept(&done) })
	t.Cleanup(func() {
		_ = listener.Close()
		r.reset()
		done.Wait()
	})
	return r
}

func (r *relay) mount() string { return "http://" + r.listener.Addr().String() + "/bayeux" }

// fate is what happens to a connection.
type fate struct {
	hole     bool
	up, down int // bytes that pass; less than 0 for all
	reset    bool
}

func (r *relay) fate() fate {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := fate{up: -1, down: -1}
	if !r.cutting.Load() {
		return f
	}
	f.reset = r.random.IntN(2) == 0
	// As many small numbers as large ones, and some that let all pass that waits.
	size := 1 + r.random.IntN(1<<(6+r.random.IntN(11)))
	switch n := r.random.IntN(20); {
	case n == 0:
		f.hole = true
	case n < 7:
		f.up = size
	default:
		f.down = size
	}
	return f
}

func (r *relay) accept(done *sync.WaitGroup) {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		client := c.(*net.TCPConn)
		r.mu.Lock()
		r.carried[client] = true
		r.mu.Unlock()
		f := r.fate()
		done.Go(func() {
			r.carry(client, f)
			r.mu.Lock()
			delete(r.carried, client)
			r.mu.Unlock()
		})
	}
}

func (r *relay) carry(client *net.TCPConn, f fate) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	if f.hole {
		r.count(&r.holes)
		// Faye waits for a WebSocket to open for as long as TCP does.
		_ = client.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, _ = io.Copy(io.Discard, client)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(server, client, client, f.up, f.reset) })
	both.Go(func() { r.copy(client, server, client, f.down, f.reset) })
	both.Wait()
}

// copy ends both connections when either does, or after left bytes.
func (r *relay) copy(to, from net.Conn, client *net.TCPConn, left int, reset bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		piece := buffer[:n]
		if from == client && r.refuseUpgrades.Load() && bytes.Contains(bytes.ToLower(piece), []byte("upgrade: websocket")) {
			return
		}
		cut := left >= 0 && n >= left
		if cut {
			piece = piece[:left]
		}
		if _, err := to.Write(piece); err != nil {
			return
		}
		if left >= 0 {
			left -= n
		}
		if cut {
			if reset {
				r.count(&r.resets)
				_ = client.SetLinger(0)
				return
			}
			r.count(&r.ends)
			return
		}
	}
}

func (r *relay) count(n *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
}

// reset ends all connections that there are.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.carried {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}
