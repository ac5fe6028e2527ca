package peers

import (
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/halley-comet/halley/bench/load"
)

// Limit is what no server can do without: a bare C program that writes to its
// sockets in a loop.
type Limit struct {
	process
	dir string
}

// Name implements [Peer].
func (*Limit) Name() string { return "limit" }

// Version implements [Peer].
func (*Limit) Version() string {
	version, _ := output("", "gcc", "-dumpfullversion")
	return "C, one thread, send() in a loop; gcc " + version + " -O2"
}

// Transports implements [Peer].
func (*Limit) Transports() []string { return []string{"sse", "long-polling"} }

// Install implements [Peer].
func (l *Limit) Install(dir string) error {
	l.dir = dir
	for _, name := range []string{"fanout", "poll"} {
		if _, err := output("limit", "gcc", "-O2", "-o", filepath.Join(dir, "limit-"+name), name+".c"); err != nil {
			return err
		}
	}
	return nil
}

// Start implements [Peer].
func (l *Limit) Start(o Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	name := "limit-fanout"
	if o.Polls {
		name = "limit-poll"
	}
	return l.start(addr, exec.Command(filepath.Join(l.dir, name), strconv.Itoa(int(addr.Port()))))
}

// Subscribe implements [Peer].
func (l *Limit) Subscribe(transport, channel, position string) load.Dialog {
	if transport == "long-polling" {
		ask := func(after string) string { return get(l.addr, "/poll?"+after) }
		return load.Dialog{
			Steps: []load.Step{load.Say(ask(""), "")},
			Again: func(_, answer []byte) []byte {
				return []byte(ask("after=" + between(answer, `"cursor":"`, `"`)))
			},
		}
	}
	var fields []string
	if position != "" {
		fields = append(fields, "Last-Event-ID: "+position)
	}
	return load.Dialog{Steps: []load.Step{load.Say(get(l.addr, "/sub?channel="+channel, fields...), "\r\n\r\n")}}
}

// Publish implements [Peer].
func (l *Limit) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return each(l.addr, "/pub?channel="+channel, messages)
}

// Position implements [Peer].
func (*Limit) Position(_, recent []byte) string { return between(recent, "\nid: ", "\n") }
