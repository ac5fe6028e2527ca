package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"

	"github.com/halley-comet/halley/bench/load"
)

// Node is a server on a library for Node.js: faye, cometd-nodejs-server,
// socket.io or sockjs. None of
// them brings back what a client missed, in its default.
type Node struct {
	process
	name     string
	sessions atomic.Int64
}

// Name implements [Peer].
func (n *Node) Name() string { return n.name }

// Version implements [Peer].
func (n *Node) Version() string {
	node, _ := output("", "node", "--version")
	var installed struct{ Version string }
	if data, err := os.ReadFile("peers/node/node_modules/" + n.name + "/package.json"); err == nil {
		json.Unmarshal(data, &installed)
	}
	return installed.Version + ", Node.js " + node
}

// Transports implements [Peer].
func (n *Node) Transports() []string {
	switch n.name {
	case "faye":
		return []string{"sse", "long-polling", "bayeux"}
	case "cometd-nodejs-server":
		return []string{"bayeux"}
	case "socket.io":
		return []string{"websocket"}
	default:
		return []string{"xhr-streaming"}
	}
}

// Install implements [Peer].
func (n *Node) Install(string) error {
	if _, err := os.Stat("peers/node/node_modules/" + n.name); err != nil {
		return fmt.Errorf("%s is not installed; bench/setup installs it", n.name)
	}
	_, err := exec.LookPath("node")
	return err
}

// Start implements [Peer].
func (n *Node) Start(Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	return n.start(addr, exec.Command("node", "peers/node/server.js", n.name, strconv.Itoa(int(addr.Port()))))
}

// Subscribe implements [Peer].
func (n *Node) Subscribe(transport, channel, _ string) load.Dialog {
	switch {
	case transport == "bayeux":
		return bayeux(n.addr, "/"+n.name, channel)
	case n.name == "faye":
		return n.faye(transport, channel)
	case n.name == "socket.io":
		path := "/socket.io/?EIO=4&transport=websocket&channel=" + channel
		return load.Dialog{Steps: []load.Step{
			load.Say(upgrade(n.addr, path), `0{"sid"`),
			{Send: func([]byte) []byte { return frame("40") }, Wait: `40{"sid"`},
		}}
	default:
		ask := func([]byte) []byte {
			path := fmt.Sprintf("/sockjs/000/%s.%d/xhr_streaming", channel, n.sessions.Add(1))
			return post(nil, n.addr, path, "text/plain", nil)
		}
		return load.Dialog{Steps: []load.Step{{Send: ask, Wait: "o\n"}}}
	}
}

// faye says a handshake and subscribes, then opens its stream or its first
// poll, all over one connection.
func (n *Node) faye(transport, channel string) load.Dialog {
	tell := func(message string) []byte {
		return post(nil, n.addr, "/faye", "application/json", []byte("["+message+"]"))
	}
	client := func(answer []byte) string { return between(answer, `"clientId":"`, `"`) }
	const whole = "}]"
	dialog := load.Dialog{Steps: []load.Step{
		{Wait: whole, Send: func([]byte) []byte {
			return tell(`{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling","eventsource"],"id":"1"}`)
		}},
		{Wait: whole, Send: func(answer []byte) []byte {
			return tell(fmt.Sprintf(`{"channel":"/meta/subscribe","clientId":%q,"subscription":"/%s","id":"2"}`, client(answer), channel))
		}},
	}}
	if transport == "long-polling" {
		dialog.Steps = append(dialog.Steps, load.Step{Send: func(answer []byte) []byte {
			return tell(fmt.Sprintf(`{"channel":"/meta/connect","clientId":%q,"connectionType":"long-polling","id":"3"}`, client(answer)))
		}})
		dialog.Again = func(request, _ []byte) []byte { return request }
		return dialog
	}
	dialog.Steps = append(dialog.Steps, load.Step{Wait: "\r\n\r\n", Send: func(answer []byte) []byte {
		return []byte(get(n.addr, "/faye/"+client(answer), "Accept: text/event-stream"))
	}})
	return dialog
}

// Publish implements [Peer].
func (n *Node) Publish(channel string, messages ...[]byte) ([]byte, int) {
	if n.name == "faye" {
		return publishBayeux(n.addr, "/faye", channel, messages)
	}
	return each(n.addr, "/pub?channel="+channel, messages)
}

// Position implements [Peer].
func (*Node) Position(_, _ []byte) string { return "" }
