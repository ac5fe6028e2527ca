package peers

import (
	"bytes"
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
	return []string{"sse", "xhr-streaming", "iframe", "multipart", "websocket", "long-polling"}
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
	args := []string{"serve", "--listen", addr.String(), "--engine", "memory", "--admit-rate", "0"} // all come at once
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
	return h.start(addr, exec.Command(h.built, args...))
}

// Subscribe implements [Peer].
func (h *Halley) Subscribe(transport, channel, position string) load.Dialog {
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
