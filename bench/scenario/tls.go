package scenario

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/peers"
)

// idleTLS is idle over HTTPS, for the servers in Go. The load's own TLS takes
// far more than the loads without: it measures memory alone.
var idleTLS = Scenario{
	Name:  "idle-tls",
	About: "memory of idle event streams over HTTPS, HTTP/1.1",
	Cases: sizes(2000),
	Suits: func(p peers.Peer, _ Case) bool {
		h, halley := p.(*peers.Halley)
		_, plain := p.(*peers.PlainGo)
		return plain || halley && !h.Epoll
	},
	Run:     runIdleTLS,
	Columns: []Column{{Key: "bytes", Title: "bytes a connection"}},
}

func runIdleTLS(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	dir, err := os.MkdirTemp("", "bench-tls")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files, err := peers.NewTLS(dir)
	if err != nil {
		return nil, err
	}
	if err := start(p, peers.Options{TLS: files}); err != nil {
		return nil, err
	}
	defer p.Stop()
	before, err := settle(p)
	if err != nil {
		return nil, err
	}
	for range c.Connections {
		conn, err := converse(p.Addr(), &tls.Config{RootCAs: files.Roots}, p.Subscribe("sse", "a", ""), patience)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
	}
	held, err := settle(p)
	if err != nil {
		return nil, err
	}
	return []Measure{{Values: Values{"bytes": float64(held-before) / float64(c.Connections)}}}, nil
}

// converse subscribes by a connection of its own, over TLS where that is not
// nil.
func converse(to netip.AddrPort, secure *tls.Config, d load.Dialog, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", to.String(), timeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(timeout))
	if secure != nil {
		secure.ServerName = to.Addr().String()
		conn = tls.Client(conn, secure)
	}
	var answer []byte
	buf := make([]byte, 4096)
	for _, step := range d.Steps {
		if _, err := conn.Write(step.Send(answer)); err != nil {
			conn.Close()
			return nil, err
		}
		for answer = nil; !bytes.Contains(answer, []byte(step.Wait)); {
			n, err := conn.Read(buf)
			if err != nil {
				conn.Close()
				return nil, fmt.Errorf("subscribe: %w: %.200s", err, answer)
			}
			answer = append(answer, buf[:n]...)
			// The connection of a refusal may stay.
			if refused := answer[min(9, len(answer)):]; len(refused) > 0 && refused[0] > '2' || bytes.Contains(answer, []byte("comet:reconnect")) {
				conn.Close()
				return nil, &load.Refusal{Answer: answer}
			}
		}
	}
	return conn, nil
}
