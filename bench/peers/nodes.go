package peers

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/halley-comet/halley/bench/load"
)

// Nodes is a peer of several nodes. What Addr, Subscribe and Position are about
// is one of them, and what is published enters by another.
type Nodes interface {
	Peer
	// Entry is where Publish's requests are for.
	Entry() netip.AddrPort
}

// HalleyNodes is Halley on several nodes, which meet in a NATS cluster of three
// servers on the same machine.
type HalleyNodes struct {
	Binary string // as that of [Halley]
	one    Halley // which is built
	dir    string
	nats   *NATS
	Each   []*Halley
}

// Name implements [Peer].
func (*HalleyNodes) Name() string { return "halley-nodes" }

// Version implements [Peer].
func (h *HalleyNodes) Version() string {
	return h.one.Version() + ", nats-server " + module("github.com/nats-io/nats-server/v2")
}

// Transports implements [Peer].
func (h *HalleyNodes) Transports() []string { return h.one.Transports() }

// Install implements [Peer].
func (h *HalleyNodes) Install(dir string) error {
	h.one.Binary = h.Binary
	return h.one.Install(dir)
}

// Start implements [Peer].
func (h *HalleyNodes) Start(o Options) error {
	err := h.start(o)
	if err != nil {
		h.Stop()
	}
	return err
}

func (h *HalleyNodes) start(o Options) error {
	var err error
	if h.dir, err = os.MkdirTemp(o.Dir, "nodes"); err != nil {
		return err
	}
	if h.nats, err = StartNATS(h.dir, natsServers); err != nil {
		return err
	}
	o.NATS = h.nats.URL()
	for i := range max(o.Nodes, 2) {
		node := &Halley{built: h.one.built}
		o.Dir = filepath.Join(h.dir, "node"+strconv.Itoa(i))
		h.Each = append(h.Each, node)
		if err := node.Start(o); err != nil {
			return err
		}
	}
	return nil
}

// natsServers is how many there are, and how many have each message.
const natsServers = 3

// Stop implements [Peer].
func (h *HalleyNodes) Stop() {
	for _, node := range h.Each {
		node.Kill()
	}
	if h.nats != nil {
		h.nats.Stop()
	}
	if h.dir != "" {
		os.RemoveAll(h.dir)
	}
	h.Each, h.nats, h.dir = nil, nil, ""
}

// Usage implements [Peer]: of the nodes and of what they stand on.
func (h *HalleyNodes) Usage() (Usage, error) {
	sum, err := h.nats.Usage()
	for _, node := range h.Each {
		one, e := node.Usage()
		if e != nil {
			err = e
		}
		sum.CPU += one.CPU
		sum.Memory += one.Memory
	}
	return sum, err
}

// Addr implements [Peer].
func (h *HalleyNodes) Addr() netip.AddrPort { return h.Each[1].Addr() }

// Entry implements [Nodes].
func (h *HalleyNodes) Entry() netip.AddrPort { return h.Each[0].Addr() }

// Subscribe implements [Peer].
func (h *HalleyNodes) Subscribe(transport, channel, position string) load.Dialog {
	return h.Each[1].Subscribe(transport, channel, position)
}

// Publish implements [Peer].
func (h *HalleyNodes) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return h.Each[0].Publish(channel, messages...)
}

// Position implements [Peer].
func (h *HalleyNodes) Position(reply, recent []byte) string { return h.one.Position(reply, recent) }

// CentrifugeNodes is the server of [Centrifuge] twice, with one Redis between
// the two. Redis writes nothing to the disk.
type CentrifugeNodes struct {
	one   Centrifuge // which is built
	redis process
	each  [2]Centrifuge
}

// Name implements [Peer].
func (*CentrifugeNodes) Name() string { return "centrifuge-redis" }

// Version implements [Peer].
func (c *CentrifugeNodes) Version() string {
	version, _ := output("", "redis-server", "--version")
	return c.one.Version() + ", Redis " + between([]byte(version), " v=", " ")
}

// Transports implements [Peer].
func (c *CentrifugeNodes) Transports() []string { return c.one.Transports() }

// Install implements [Peer].
func (c *CentrifugeNodes) Install(dir string) error {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return err
	}
	return c.one.Install(dir)
}

// Start implements [Peer].
func (c *CentrifugeNodes) Start(Options) error {
	err := c.start()
	if err != nil {
		c.Stop()
	}
	return err
}

func (c *CentrifugeNodes) start() error {
	addr, err := free()
	if err != nil {
		return err
	}
	command := exec.Command("redis-server", "--bind", addr.Addr().String(), "--port", strconv.Itoa(int(addr.Port())),
		"--save", "", "--appendonly", "no")
	if err := c.redis.start(addr, command); err != nil {
		return err
	}
	for i := range c.each {
		c.each[i].binary = c.one.binary
		if c.each[i].addr, err = free(); err != nil {
			return err
		}
		node := exec.Command(c.one.binary, c.each[i].addr.String(), addr.String())
		if err := c.each[i].run(node); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return nil
}

// Stop implements [Peer].
func (c *CentrifugeNodes) Stop() {
	for i := range c.each {
		c.each[i].Kill()
	}
	c.redis.Kill()
}

// Usage implements [Peer]: of the nodes and of Redis.
func (c *CentrifugeNodes) Usage() (Usage, error) {
	sum, err := c.redis.Usage()
	for i := range c.each {
		one, e := c.each[i].Usage()
		if e != nil {
			err = e
		}
		sum.CPU += one.CPU
		sum.Memory += one.Memory
	}
	return sum, err
}

// Addr implements [Peer].
func (c *CentrifugeNodes) Addr() netip.AddrPort { return c.each[1].Addr() }

// Entry implements [Nodes].
func (c *CentrifugeNodes) Entry() netip.AddrPort { return c.each[0].Addr() }

// Subscribe implements [Peer].
func (c *CentrifugeNodes) Subscribe(transport, channel, position string) load.Dialog {
	return c.each[1].Subscribe(transport, channel, position)
}

// Publish implements [Peer].
func (c *CentrifugeNodes) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return c.each[0].Publish(channel, messages...)
}

// Position implements [Peer].
func (c *CentrifugeNodes) Position(reply, recent []byte) string { return c.one.Position(reply, recent) }
