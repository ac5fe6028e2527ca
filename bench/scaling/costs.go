package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// A cost is a figure that was measured, or that follows from such.
type cost struct {
	name   string
	value  float64
	digits int
	unit   string
	source string
}

// Costs are what everything is computed from. Times are seconds, of one core
// where they are CPU times.
type Costs struct {
	Connection float64 // bytes of a node for a client over TLS
	Kernel     float64 // bytes of its system for a client's socket
	Write      float64 // CPU of a delivery that is a write of its own
	More       float64 // CPU of a further message in the same write
	Publish    float64 // CPU of a node for a publish over HTTP, without the engine
	Append     float64 // CPU of a node to have the log take a message
	Intake     float64 // CPU of a node for a message that it takes in
	Come       float64 // CPU of a node for a client that comes over TLS
	Resume     float64 // CPU of a node for what a client missed
	Store      float64 // CPU of the NATS servers together for a message
	Send       float64 // CPU of theirs to send it to a node
	Rate       float64 // messages a second that one log takes
	Hop        float64 // from a publish to a delivery on another node, nothing else going on
	Copy       float64 // bytes between the NATS servers and a node for a message
	Stored     float64 // bytes on a node's disk for a message
	Wire       float64 // bytes to a client for a message
	Stall      float64 // how long a log takes nothing when its leader dies
	list       []cost
}

// A place is where a figure stands in the results.
type place struct {
	scenario, server, transport string
	connections, burst          int
	key                         string
}

// read takes the costs from the newest results that have them.
func read(dir string) (*Costs, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	type found struct {
		value float64
		file  string
		date  time.Time
	}
	figures := map[place]found{}
	for _, path := range paths {
		file, err := result.Read(path)
		if err != nil {
			return nil, err
		}
		for _, row := range file.Rows {
			for key, value := range row.Median {
				at := place{row.Scenario, row.Server, row.Transport, row.Connections, row.Burst, key}
				if old, ok := figures[at]; !ok || file.Date.After(old.date) {
					figures[at] = found{value, filepath.Base(path), file.Date}
				}
			}
		}
	}
	c := &Costs{}
	var missing error
	get := func(at place) (float64, string) {
		f, ok := figures[at]
		if !ok && missing == nil {
			missing = fmt.Errorf("there are no results of %+v", at)
		}
		return f.value, fmt.Sprintf("[%s, %s](../bench/results/%s)", at.scenario, at.server, f.file)
	}
	note := func(value float64, name string, scale float64, digits int, unit, source string) float64 {
		c.list = append(c.list, cost{name, value * scale, digits, unit, source})
		return value
	}
	const micro = 1e6

	value, source := get(place{"idle-tls", "halley", "", 2000, 0, "bytes"})
	c.Connection = note(value, "memory of a node for a client over TLS", 1, 0, "bytes", source)
	c.Kernel = note(5000, "memory of its system for the client's socket", 1, 0, "bytes", "[performance](performance.md#how-it-is-measured), about")

	one, source := get(place{"fanout", "halley", "", 15000, 1, "cpu"})
	ten, _ := get(place{"fanout", "halley", "", 15000, 10, "cpu"})
	c.Write = note(one/micro, "CPU of a delivery that is a write of its own", micro, 2, "µs", source)
	c.More = note(max(0, 10*ten-one)/9/micro, "CPU of a further message in the same write", micro, 2, "µs", source+", ten at once")

	each, source := get(place{"channels", "halley", "", 5000, 0, "cpu"})
	c.Publish = note((each-one)/micro, "CPU of a node for a publish over HTTP", micro, 1, "µs", source+", without its delivery")
	value, source = get(place{"nodes-publish", "halley", "", 256, 0, "cpu"})
	c.Append = note(value/micro, "CPU of a node to have the log take it", micro, 1, "µs", source+", 256 publishers; with taking it in")
	value, source = get(place{"interest", "whole stream into the replica", "", 10_000, 0, "cpu"})
	c.Intake = note(value/micro, "CPU of a node for each message that it takes in", micro, 1, "µs", source+", 10,000 messages/s")
	value, source = get(place{"handshakes", "halley", "", 2000, 0, "cpu"})
	c.Come = note(value/micro, "CPU of a node for a client that comes over TLS", micro, 0, "µs", source)
	value, source = get(place{"storm", "halley", "", 15000, 0, "cpu"})
	c.Resume = note(value/micro, "CPU of a node to give a client what it missed", micro, 0, "µs", source+", 20 messages")

	value, source = get(place{"nodes-publish", "halley", "", 256, 0, "servers"})
	c.Store = note(value/micro, "CPU of the NATS servers, together, for each message", micro, 1, "µs", source+", 256 publishers")
	value, source = get(place{"interest", "whole stream to eight nodes", "", 10_000, 0, "send"})
	c.Send = note(max(0, value)/micro, "and for each node that it goes to", micro, 1, "µs", source)
	value, source = get(place{"nodes-publish", "halley", "", 256, 0, "rate"})
	c.Rate = note(value, "messages that one log takes", 1, 0, "a second", source+", 256 publishers")
	value, source = get(place{"nodes-latency", "halley-nodes", "", 1, 0, "p50"})
	c.Hop = note(value/1e3, "from a publish to another node's client, with nothing else to do", 1e3, 2, "ms", source+", median")
	value, source = get(place{"interest", "whole stream", "", 10_000, 0, "bytes"})
	c.Copy = note(value, "between the NATS servers and a node for each message", 1, 0, "bytes", source)
	value, source = get(place{"opening", "halley", "", 1000, 0, "each"})
	c.Stored = note(value, "on a node's disk for each message", 1, 0, "bytes", source)
	c.Wire = note(wireBytes(), "to a client for each message", 1, 0, "bytes", "computed: an event of 200 bytes of data, TLS, TCP, IP and Ethernet")
	c.Stall = note(10, "no message is taken once a log's leader was killed", 1, 0, "s", "twelve kills by script/cluster, which is not in the results: half took 7 s or less, the longest 10.2 (13 and 16 in others)")
	return c, missing
}

// wireBytes is the size of a message of 200 bytes on the way to a client, as an
// event and in a packet of its own.
func wireBytes() float64 {
	m := engine.Message{
		ID:      engine.Cursor{Epoch: strings.Repeat("e", 13), Seq: 1e9},
		Channel: "chat/room/1234567", ContentType: "text/plain", Data: load.Message(0, size), Time: 1.7e12,
	}
	event := len("data: \nid: \n\n") + len(wire.AppendEnvelope(nil, &m)) + len(m.ID.Append(nil))
	const (
		record = 5 + 1 + 16       // TLS 1.3 with AES-GCM
		packet = 32 + 20 + 14 + 4 // TCP with time stamps, IPv4, Ethernet
		gap    = 8 + 12           // preamble and pause on the line
	)
	return float64(event + record + packet + gap)
}

// size is the size of the messages that are planned for, in bytes. Deliveries
// were measured with 128.
const size = 200
