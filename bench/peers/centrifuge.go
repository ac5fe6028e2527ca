package peers

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"

	"github.com/halley-comet/halley/bench/load"
)

// Centrifuge is a server on the library of that name, over WebSocket with JSON.
type Centrifuge struct {
	process
	binary string
}

// Name implements [Peer].
func (*Centrifuge) Name() string { return "centrifuge" }

// Version implements [Peer].
func (*Centrifuge) Version() string { return "library " + module("github.com/centrifugal/centrifuge") }

// module returns the version of a module of the harness.
func module(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	version, _ := output("", "go", "list", "-m", "-f", "{{.Version}}", path)
	return version
}

// Transports implements [Peer].
func (*Centrifuge) Transports() []string { return []string{"websocket"} }

// Install implements [Peer].
func (c *Centrifuge) Install(dir string) error {
	c.binary = filepath.Join(dir, "centrifuge")
	_, err := output("", "go", "build", "-o", c.binary, "./peers/centrifuge")
	return err
}

// Start implements [Peer].
func (c *Centrifuge) Start(Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	return c.start(addr, exec.Command(c.binary, addr.String()))
}

// Subscribe implements [Peer]. A position is an offset and an epoch.
func (c *Centrifuge) Subscribe(_, channel, position string) load.Dialog {
	subscribe := fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, channel)
	if position != "" {
		var epoch string
		var offset uint64
		fmt.Sscanf(position, "%d %s", &offset, &epoch)
		subscribe = fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q,"recover":true,"epoch":%q,"offset":%d}}`, channel, epoch, offset)
	}
	commands := frame(`{"id":1,"connect":{}}` + "\n" + subscribe)
	return load.Dialog{Steps: []load.Step{
		load.Say(upgrade(c.addr, "/websocket"), "\r\n\r\n"),
		{Send: func([]byte) []byte { return commands }, Wait: `"id":2`},
	}}
}

// Publish implements [Peer].
func (c *Centrifuge) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return each(c.addr, "/pub?channel="+channel, messages)
}

// Position implements [Peer]. The epoch is in the answer to the subscription,
// the offset with each publication.
func (*Centrifuge) Position(reply, recent []byte) string {
	epoch, offset := between(reply, `"epoch":"`, `"`), between(recent, `"offset":`, "}")
	if epoch == "" {
		epoch = between(recent, `"epoch":"`, `"`)
	}
	if epoch == "" || offset == "" {
		return ""
	}
	return offset + " " + epoch
}
