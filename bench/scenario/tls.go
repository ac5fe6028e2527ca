package scenario

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"time"

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
	dialog := p.Subscribe("sse", "a", "").Steps[0]
	for range c.Connections {
		conn, err := tls.Dial("tcp", p.Addr().String(), &tls.Config{RootCAs: files.Roots})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(dialog.Send(nil)); err != nil {
			return nil, err
		}
		var answer []byte
		for buf := make([]byte, 4096); !bytes.Contains(answer, []byte(dialog.Wait)); {
			n, err := conn.Read(buf)
			if err != nil {
				return nil, fmt.Errorf("subscribe: %w: %.200s", err, answer)
			}
			answer = append(answer, buf[:n]...)
		}
	}
	held, err := settle(p)
	if err != nil {
		return nil, err
	}
	return []Measure{{Values: Values{"bytes": float64(held-before) / float64(c.Connections)}}}, nil
}
