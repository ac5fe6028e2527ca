package peers

import (
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/halley-comet/halley/bench/load"
)

// PlainGo is what one writes without a library: net/http, and a goroutine for
// each response that waits for a channel. It has no history.
type PlainGo struct {
	process
	binary string
}

// Name implements [Peer].
func (*PlainGo) Name() string { return "plain-go" }

// Version implements [Peer].
func (*PlainGo) Version() string { return runtime.Version() + " net/http" }

// Transports implements [Peer].
func (*PlainGo) Transports() []string { return []string{"sse"} }

// Install implements [Peer].
func (p *PlainGo) Install(dir string) error {
	p.binary = filepath.Join(dir, "plaingo")
	_, err := output("", "go", "build", "-o", p.binary, "./peers/plaingo")
	return err
}

// Start implements [Peer].
func (p *PlainGo) Start(o Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	args := []string{addr.String()}
	if o.TLS != nil {
		args = append(args, o.TLS.CertFile, o.TLS.KeyFile)
	}
	return p.start(addr, exec.Command(p.binary, args...))
}

// Subscribe implements [Peer].
func (p *PlainGo) Subscribe(_, channel, _ string) load.Dialog {
	return load.Dialog{Steps: []load.Step{load.Say(get(p.addr, "/sub?channel="+channel), ":\n\n")}}
}

// Publish implements [Peer].
func (p *PlainGo) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return each(p.addr, "/pub?channel="+channel, messages)
}

// Position implements [Peer].
func (*PlainGo) Position(_, _ []byte) string { return "" }
