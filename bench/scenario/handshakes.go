package scenario

import (
	"crypto/tls"
	"os"

	"github.com/halley-comet/halley/bench/peers"
)

// handshakes is what it costs a server that clients come over TLS. They come
// one after the other: the load's own part takes as much time again.
var handshakes = Scenario{
	Name:  "handshakes",
	About: "clients that come over HTTPS (TLS 1.3, ECDSA P-256), HTTP/1.1, and stay",
	Cases: sizes(2000),
	Suits: idleTLS.Suits,
	Run:   runHandshakes,
	Columns: []Column{
		{Key: "cpu", Title: "CPU µs a client that comes over TLS"},
		{Key: "resumed", Title: "one that goes on with a session"},
		{Key: "clear", Title: "in the clear"},
	},
}

func runHandshakes(p peers.Peer, c Case, _ Config) ([]Measure, error) {
	dir, err := os.MkdirTemp("", "bench-tls")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files, err := peers.NewTLS(dir)
	if err != nil {
		return nil, err
	}
	values := Values{}
	secure := func() *tls.Config { return &tls.Config{RootCAs: files.Roots} }
	if values["cpu"], err = comingCosts(p, c.Connections, peers.Options{TLS: files}, secure); err != nil {
		return nil, err
	}
	sessions := tls.NewLRUClientSessionCache(1)
	again := func() *tls.Config { return &tls.Config{RootCAs: files.Roots, ClientSessionCache: sessions} }
	if values["resumed"], err = comingCosts(p, c.Connections, peers.Options{TLS: files}, again); err != nil {
		return nil, err
	}
	clear := func() *tls.Config { return nil }
	if values["clear"], err = comingCosts(p, c.Connections, peers.Options{}, clear); err != nil {
		return nil, err
	}
	return []Measure{{Values: values}}, nil
}

// comingCosts returns the CPU microseconds of each of n clients that come.
func comingCosts(p peers.Peer, n int, options peers.Options, secure func() *tls.Config) (float64, error) {
	if err := start(p, options); err != nil {
		return 0, err
	}
	defer p.Stop()
	before, err := p.Usage()
	if err != nil {
		return 0, err
	}
	for range n {
		conn, err := converse(p.Addr(), secure(), p.Subscribe("sse", "a", ""), patience)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
	}
	after, err := p.Usage()
	return (after.CPU - before.CPU).Seconds() * 1e6 / float64(n), err
}
