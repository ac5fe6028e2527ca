package peers

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/halley-comet/halley/bench/load"
)

// Halley is the server of this repository.
type Halley struct {
	process
	Binary string // a built one to take; empty means to build it
	// Epoll leaves out io_uring, as some systems do.
	Epoll bool
	built string // what is run
	args  []string
}

// Name implements [Peer].
func (h *Halley) Name() string {
	if h.Epoll {
		return "halley-epoll"
	}
	return "halley"
}

// Version implements [Peer].
func (h *Halley) Version() string {
	version, err := output("..", "git", "describe", "--always", "--dirty", "--tags")
	if err != nil {
		return "unknown"
	}
	if h.Binary != "" {
		return "a binary that was built before; the tree is at " + version
	}
	return version
}

// Transports implements [Peer].
func (*Halley) Transports() []string {
	return []string{"sse", "xhr-streaming", "iframe", "multipart", "websocket", "long-polling", "bayeux"}
}

// Install implements [Peer].
func (h *Halley) Install(dir string) error {
	if h.built = h.Binary; h.built != "" {
		return nil
	}
	h.built = filepath.Join(dir, "halley")
	_, err := output("..", "go", "build", "-o", h.built, "./cmd/halley")
	return err
}

// Start implements [Peer].
func (h *Halley) Start(o Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	args := []string{"serve", "--listen", addr.String()}
	switch {
	case o.NATS != "":
		args = append(args, "--engine", "nats", "--data-dir", o.Dir,
			"--nats-url", o.NATS, "--nats-stream", "halley", "--nats-replicas", strconv.Itoa(natsServers))
	case o.Dir != "":
		args = append(args, "--engine", "disk", "--data-dir", o.Dir)
	default:
		args = append(args, "--engine", "memory")
	}
	if !o.Admit {
		args = append(args, "--admit-rate", "0") // all come at once
	}
	if o.Proxied {
		args = append(args, "--trusted-proxies", "127.0.0.0/8")
	}
	if o.Drain > 0 {
		// The window is three quarters of the time at most.
		args = append(args, "--drain-window", o.Drain.String(), "--drain-timeout", (o.Drain * 3 / 2).String())
	}
	if h.Epoll {
		args = append(args, "--no-io-uring")
	}
	if o.TLS != nil {
		args = append(args, "--tls-cert", o.TLS.CertFile, "--tls-key", o.TLS.KeyFile)
	}
	if o.Bound > 0 {
		bound := strconv.Itoa(o.Bound) + "B"
		args = append(args, "--memory-limit", bound, "--retain-bytes", bound)
	}
	h.args = args
	return h.start(addr, exec.Command(h.built, args...))
}

// StartAgain runs another one with the same settings, once the server has
// ended.
func (h *Halley) StartAgain() error { return h.run(exec.Command(h.built, h.args...)) }

// Subscribe implements [Peer].
func (h *Halley) Subscribe(transport, channel, position string) load.Dialog {
	if transport == "bayeux" {
		return bayeux(h.addr, "/bayeux", channel)
	}
	path := "/comet/subscribe?channel=" + channel + "&transport=" + transport
	if position != "" {
		path += "&cursor=" + position
	}
	const open = `"control":"open"`
	ready := open
	switch transport {
	case "long-polling":
		path += "&timeout=60"
		return load.Dialog{
			Steps: []load.Step{load.Say(get(h.addr, path), "")},
			Again: func(_, answer []byte) []byte {
				cursor := between(answer, `"cursor":"`, `"`)
				return []byte(get(h.addr, "/comet/subscribe?channel="+channel+"&transport=long-polling&timeout=60&cursor="+cursor))
			},
		}
	case "iframe":
		path += "&callback=f"
	case "multipart":
		ready = "\r\n\r\n" // it says nothing before the first message
	case "websocket":
		return load.Dialog{Steps: []load.Step{load.Say(upgrade(h.addr, path), open)}}
	}
	return load.Dialog{Steps: []load.Step{load.Say(get(h.addr, path), ready)}}
}

// Publish implements [Peer].
func (h *Halley) Publish(channel string, messages ...[]byte) ([]byte, int) {
	path := "/comet/publish?channel=" + channel
	if len(messages) == 1 {
		return each(h.addr, path, messages)
	}
	var lines bytes.Buffer
	for _, message := range messages {
		lines.WriteString(`{"data":"`)
		lines.Write(message)
		lines.WriteString("\"}\n")
	}
	return post(nil, h.addr, path, "application/x-ndjson", lines.Bytes()), 1
}

// Position implements [Peer].
func (*Halley) Position(_, recent []byte) string { return between(recent, "\nid: ", "\n") }

// Follow is Subscribe in the format in which each transport tells a client where
// it is. What is whole can be told from what is not.
func (h *Halley) Follow(transport, channel, cursor string) load.Dialog {
	if transport == "sse" || transport == "multipart" {
		channel += "&format=envelope"
	}
	d := h.Subscribe(transport, channel, cursor)
	switch transport {
	case "long-polling":
		again := d.Again
		d.Again = func(request, answer []byte) []byte {
			if bytes.Contains(answer, []byte(`"messages":[]`)) {
				return nil // a server that is about to stop answers like this
			}
			return again(request, answer)
		}
	case "websocket":
		d.Steps[0].Wait = "\r\n\r\n"
		d.Whole = wholeFrames
	default:
		d.Steps[0].Wait = "\r\n\r\n"
		d.Whole = wholeChunks
	}
	return d
}

// wholeChunks returns the size of the whole chunks that a body begins with. The
// server puts each message into one.
func wholeChunks(body []byte) (size int) {
	for {
		digits, _, found := bytes.Cut(body[size:], []byte("\r\n"))
		length, err := strconv.ParseUint(string(digits), 16, 31)
		end := size + len(digits) + 2 + int(length) + 2
		if !found || err != nil || end > len(body) {
			return size
		}
		size = end
	}
}

// wholeFrames returns the size of the whole frames that a WebSocket's stream
// from the server begins with.
func wholeFrames(stream []byte) (size int) {
	for {
		rest := stream[size:]
		if len(rest) < 2 {
			return size
		}
		head, length := 2, int(rest[1]&0x7f)
		switch {
		case length == 126 && len(rest) >= 4:
			head, length = 4, int(binary.BigEndian.Uint16(rest[2:]))
		case length == 127 && len(rest) >= 10:
			head, length = 10, int(binary.BigEndian.Uint32(rest[6:]))
		case length > 125:
			return size
		}
		if len(rest) < head+length {
			return size
		}
		size += head + length
	}
}
