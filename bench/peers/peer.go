// Package peers starts the servers that are measured, and knows how each is
// spoken to.
package peers

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/load"
)

// A Peer is a kind of server. One Peer runs one server at a time.
type Peer interface {
	Name() string
	// Version tells what is measured.
	Version() string
	// Transports lists what it can be subscribed by; the first is its usual.
	Transports() []string
	// Install builds the server, or reports why it cannot run here.
	Install(dir string) error
	// Start runs it and returns when it takes connections.
	Start(o Options) error
	// Stop ends it.
	Stop()
	// Usage reads what it has used so far.
	Usage() (Usage, error)
	// Addr is where it listens.
	Addr() netip.AddrPort
	// Subscribe is what a client says to follow a channel. A position is one
	// that Position returned; empty means from now on.
	Subscribe(transport, channel, position string) load.Dialog
	// Publish returns the requests that publish messages to a channel, and
	// how many answers they get.
	Publish(channel string, messages ...[]byte) (requests []byte, answers int)
	// Position reads a subscriber's position, given the end of its dialog
	// and the last of its stream. Empty means that the server has none.
	Position(reply, recent []byte) string
}

// Options is how a scenario wants its server.
type Options struct {
	Polls bool // the scenario is of long polls
	Bound int  // bytes of messages to keep at most; 0 leaves it to the server
	TLS   *TLS // serve HTTPS; only Halley and PlainGo do

	// Of Halley.
	Admit   bool          // let clients in at its usual rate, not all at once
	Proxied bool          // take loopback addresses for those of proxies
	Dir     string        // keep messages in this folder, not in memory
	Drain   time.Duration // over which clients are sent away when it ends; 0: its default
	NATS    string        // the servers that it meets other nodes in
	Nodes   int           // of HalleyNodes; 0: two
}

// All returns every peer, in the order in which results are shown.
func All(halley string) []Peer {
	return []Peer{
		&Limit{},
		&Halley{Binary: halley},
		&Halley{Binary: halley, Epoll: true},
		&PlainGo{},
		&Nchan{},
		&Centrifuge{},
		&Node{name: "faye"},
		&Node{name: "cometd-nodejs-server"},
		&Node{name: "socket.io"},
		&Node{name: "sockjs"},
		&HalleyNodes{Binary: halley},
		&CentrifugeNodes{},
	}
}

// Supports reports whether a peer has a transport.
func Supports(p Peer, transport string) bool {
	for _, t := range p.Transports() {
		if t == transport {
			return true
		}
	}
	return false
}

// get writes a GET request. Fields are whole lines without their ends.
func get(addr netip.AddrPort, path string, fields ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, addr)
	for _, field := range fields {
		b.WriteString(field + "\r\n")
	}
	return b.String() + "\r\n"
}

// post appends a POST request.
func post(to []byte, addr netip.AddrPort, path, contentType string, body []byte, headers ...string) []byte {
	to = fmt.Appendf(to, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n",
		path, addr, contentType, len(body))
	for _, h := range headers {
		to = append(append(to, h...), "\r\n"...)
	}
	return append(append(to, "\r\n"...), body...)
}

// each publishes messages by a request for each.
func each(addr netip.AddrPort, path string, messages [][]byte) (requests []byte, answers int) {
	for _, message := range messages {
		requests = post(requests, addr, path, "text/plain", message)
	}
	return requests, len(messages)
}

// upgrade writes the request of a WebSocket handshake.
func upgrade(addr netip.AddrPort, path string) string {
	return get(addr, path, "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: SGVsbG8sIEhhbGxleSEhIQ==")
}

// frame is a text frame of a WebSocket client, masked with zeros.
func frame(text string) []byte {
	data := []byte{0x81}
	if len(text) < 126 {
		data = append(data, 0x80|byte(len(text)))
	} else {
		data = append(data, 0x80|126, byte(len(text)>>8), byte(len(text)))
	}
	data = append(data, 0, 0, 0, 0)
	return append(data, text...)
}

// between returns what stands after the last before and up to the next after.
func between(data []byte, before, after string) string {
	text := string(data)
	at := strings.LastIndex(text, before)
	if at < 0 {
		return ""
	}
	text, _, found := strings.Cut(text[at+len(before):], after)
	if !found {
		return ""
	}
	return text
}
