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
	target   atomic.Pointer[string] // the server's address
	cutting  atomic.Bool
	// refuseUpgrades closes connections that ask for a WebSocket.
	refuseUpgrades atomic.Bool

	mu                  sync.Mutex // guards what follows
	random              *rand.Rand
	carried             map[*net.TCPConn]*atomic.Int64 // from clients: bytes to them that pass; less than 0 for all
	streams             map[*net.TCPConn]bool          // those that have asked for an EventSource
	resets, ends, holes int
}

func newRelay(t *testing.T, target string, seed uint64) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, random: rand.New(rand.NewPCG(seed, 3)), carried: map[*net.TCPConn]*atomic.Int64{}, streams: map[*net.TCPConn]bool{}}
	r.to(target)
	var done sync.WaitGroup
	done.Go(func() { r.accept(&done) })
	t.Cleanup(func() {
		_ = listener.Close()
		r.reset()
		done.Wait()
	})
	return r
}

// to has connections go to another server from now on.
func (r *relay) to(target string) { r.target.Store(&target) }

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
		f := r.fate()
		down := new(atomic.Int64)
		down.Store(int64(f.down))
		r.mu.Lock()
		r.carried[client] = down
		r.mu.Unlock()
		done.Go(func() {
			r.carry(client, f, down)
			r.mu.Lock()
			delete(r.carried, client)
			delete(r.streams, client)
			r.mu.Unlock()
		})
	}
}

func (r *relay) carry(client *net.TCPConn, f fate, down *atomic.Int64) {
	defer client.Close()
	server, err := net.Dial("tcp", *r.target.Load())
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
	up := new(atomic.Int64)
	up.Store(int64(f.up))
	both.Go(func() { r.copy(server, client, client, up, f.reset) })
	both.Go(func() { r.copy(client, server, client, down, f.reset) })
	both.Wait()
}

// copy ends both connections when either does, or after left bytes.
func (r *relay) copy(to, from net.Conn, client *net.TCPConn, left *atomic.Int64, reset bool) {
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
		if from == client && bytes.Contains(piece, []byte("text/event-stream")) {
			r.mu.Lock()
			r.streams[client] = true
			r.mu.Unlock()
		}
		rest := left.Load()
		cut := rest >= 0 && int64(n) >= rest
		if cut {
			piece = piece[:rest]
		}
		if _, err := to.Write(piece); err != nil {
			return
		}
		if rest >= 0 {
			left.CompareAndSwap(rest, rest-int64(n))
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

// cutIn ends the EventSources that there are, each after so many bytes more.
// Other connections are left: where one of them is used again for a stream and
// cut within the head of its answer, a browser gives the stream up for good.
func (r *relay) cutIn(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, left := range r.carried {
		if r.streams[c] {
			left.Store(int64(n))
		}
	}
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
