package proxy

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
)

// A tap stands between a proxy and the server and keeps what goes by.
type tap struct {
	address string

	mu        sync.Mutex
	requests  []*bytes.Buffer // guarded by mu: what each connection has sent
	responses []*bytes.Buffer // guarded by mu
}

func newTap(t *testing.T, server string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tp := &tap{address: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close() // that ends it
		running.Wait()
	})
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go tp.pass(client, server)
		}
	})
	return tp
}

func (tp *tap) pass(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return // the proxy sees that it ends
	}
	defer server.Close()
	request, response := &bytes.Buffer{}, &bytes.Buffer{}
	tp.mu.Lock()
	tp.requests, tp.responses = append(tp.requests, request), append(tp.responses, response)
	tp.mu.Unlock()
	go func() {
		_, _ = io.Copy(io.MultiWriter(tp.into(request), server), client)
		_ = server.(*net.TCPConn).CloseWrite() // it may be closed
	}()
	_, _ = io.Copy(io.MultiWriter(tp.into(response), client), server)
}

// into writes to a buffer of the tap's.
func (tp *tap) into(b *bytes.Buffer) io.Writer { return &kept{tp, b} }

type kept struct {
	tap *tap
	b   *bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.tap.mu.Lock()
	defer k.tap.mu.Unlock()
	return k.b.Write(p)
}

// excess returns of how many responses there are more than requests, by what
// each of them has, on the connections that have more.
func (tp *tap) excess(request, response *regexp.Regexp) (n int, sent string) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for i, r := range tp.requests {
		more := len(response.FindAll(tp.responses[i].Bytes(), -1)) - len(request.FindAll(r.Bytes(), -1))
		if more > 0 {
			n, sent = n+more, r.String()
		}
	}
	return n, sent
}

// sent returns all that was sent to the server, and what it answered.
func (tp *tap) sent() (requests, responses string) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for i := range tp.requests {
		requests += tp.requests[i].String()
		responses += tp.responses[i].String()
	}
	return requests, responses
}
