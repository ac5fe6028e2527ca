package main

import (
	"github.com/halley-comet/halley/bench/result"
)

// A chart is a drawing and its place on the page.
type chart struct {
	image
	svg string
}

// An image is how the page refers to a chart.
type image struct {
	name string // of the file, without its ending
	text string // for those who do not see it
}

// draw returns the charts of a scenario: those for which there are results.
func draw(scenario string, newest map[string]*source) []chart {
	var charts []chart
	add := func(name, title, svg string) { charts = append(charts, chart{image{name, title}, svg}) }
	addBars := func(name string, b bars) {
		b.parts = filled(b.parts)
		if len(b.parts) > 0 {
			add(name, b.title, b.svg())
		}
	}
	addLines := func(name string, l lines) {
		if len(l.lines) > 0 {
			add(name, l.title, l.svg())
		}
	}
	s := newest[scenario]
	addStores(scenario, s, addBars, addLines)
	addNodes(scenario, s, addBars, addLines)
	switch scenario {
	case "idle":
		rows := usual(s.rows("idle", "bytes"))
		addBars("idle", bars{
			title: "Memory of an idle connection", note: "Resident bytes of the server's processes; event streams",
			unit: "bytes a connection", parts: levels(rows, "", compare("bytes", " B")),
		})
		ours := where(s.rows("idle", "bytes"), func(row *result.Row) bool { return row.Server == "halley" })
		addBars("idle-transports", bars{
			title: "Memory of an idle connection of Halley, by transport", note: "Resident bytes of the server",
			unit: "bytes a connection", parts: levels(ours, "", func(rows []*result.Row) []bar {
				list := compare("bytes", " B")(rows)
				for i, row := range rows {
					list[i].label = row.Transport
				}
				return list
			}),
		})
		addLines("idle-growth", lines{
			title: "Memory of an idle connection as connections grow", note: "Resident bytes of the server's processes; event streams",
			unit: "bytes a connection", lines: grow(rows, "bytes"),
		})
	case "fanout":
		rows := s.rows("fanout", "cpu")
		one, ten := burst(rows, 1), burst(rows, 10)
		addBars("fanout-cpu", bars{
			title: "CPU time of a delivery", note: "The server's user and system time; one channel; the next message when all have the one before",
			unit:  "µs a delivery, which is seconds a million",
			parts: append(levels(one, "one message", compare("cpu", " µs")), levels(ten, "ten messages at once", compare("cpu", " µs"))...),
		})
		addBars("fanout-latency", bars{
			title: "Latency under load", note: "From publishing to each subscriber, median (dark) and 99th percentile (light)",
			unit:  "ms; the next message is published when all have the one before",
			parts: append(levels(one, "one message", spread("p50", "p99", " ms")), levels(ten, "ten messages at once", spread("p50", "p99", " ms"))...),
		})
		addLines("fanout-growth", lines{
			title: "CPU time of a delivery as connections grow", note: "One channel, one message, the next when all have it",
			unit: "µs a delivery", lines: grow(one, "cpu"),
		})
	case "latency":
		rows := s.rows("latency", "p50")
		addBars("latency", bars{
			title: "Latency of an idle server", note: "From publishing to one subscriber, median (dark) and 99th percentile (light)",
			unit: "µs", parts: []part{{bars: spread("p50", "p99", " µs")(rows)}},
		})
	case "quiet":
		rows := s.rows("quiet", "p99")
		addBars("quiet", bars{
			title: "A quiet channel next to a busy one", note: "99th percentile of the quiet channel; the connections are those of the busy one",
			unit: "ms",
			parts: append(levels(rows, "the busy one sends at half its maximum rate", compare("p99", " ms")),
				levels(rows, "it is silent", compare("alone", " ms"))...),
		})
	case "storm":
		rows := s.rows("storm", "seconds")
		addBars("storm", bars{
			title: "Reconnect storm", note: "All are cut at once, miss 20 messages, come back and have them",
			unit: "seconds until the last has caught up", parts: levels(rows, "", compare("seconds", " s")),
		})
		addBars("storm-cpu", bars{
			title: "CPU time of a reconnect", note: "The server's user and system time in the same storm",
			unit: "µs a connection", parts: levels(rows, "", compare("cpu", " µs")),
		})
		addLines("storm-growth", lines{
			title: "Reconnect storm as connections grow", note: "All are cut at once, miss 20 messages, come back and have them",
			unit: "seconds until the last has caught up", lines: grow(rows, "seconds"),
		})
	case "polls":
		rows := s.rows("polls", "cpu")
		addBars("polls", bars{
			title: "CPU time of a long poll", note: "An answer and the next request",
			unit: "µs a cycle, which is seconds a million", parts: levels(rows, "", compare("cpu", " µs")),
		})
	case "bayeux":
		addBars("bayeux", bars{
			title: "CPU time of a Bayeux long poll", note: "A delivery and the next connect",
			unit: "µs a cycle, which is seconds a million", parts: levels(s.rows("bayeux", "cpu"), "", compareWith("halley", "cpu", " µs")),
		})
	case "bayeux-idle":
		addBars("bayeux-idle", bars{
			title: "Memory of an idle Bayeux session", note: "Each holds a connect by long-polling",
			unit: "bytes a session", parts: levels(s.rows("bayeux-idle", "bytes"), "", compare("bytes", "")),
		})
	case "channels":
		rows := s.rows("channels", "cpu")
		addBars("channels", bars{
			title: "CPU time of a publish and its one delivery", note: "A channel for each connection, an HTTP request for each message",
			unit: "µs a publish and delivery", parts: levels(rows, "", compare("cpu", " µs")),
		})
	case "never-reading":
		rows := s.rows("never-reading", "because")
		addBars("never-reading", bars{
			title: "Memory because of clients that never read", note: "The most that the server took more with them than without",
			unit: "MB", parts: levels(rows, "", compare("because", " MB")),
		})
	case "siege":
		rows := s.rows("siege", "p99")
		for _, p := range cases(rows, kind, spread("before", "p99", " ms")) {
			// Each has an axis of its own: some take a thousand times what others do.
			attack := p.heading
			p.heading = ""
			addBars("siege-"+attack, bars{
				title: "Under attack: " + attack, note: "99th percentile of a healthy channel before (dark) and during the attack (light)",
				unit: "ms", parts: []part{p},
			})
		}
	case "restart":
		rows := s.rows("restart", "back")
		addLines("restart", lines{
			title: "Clients that come back from a restart", note: "10,000 clients over all transports; the server is told to restart at 0",
			unit: "subscribed again in each quarter of a second", across: "seconds", linear: true,
			lines: curves(rows, colours["halley"], colours["nchan"]),
		})
	case "simulation-one":
		addLines("simulation-bytes", lines{
			title: "Memory of a connection, by simulation", note: "Bytes of the heap in use; Halley without sockets",
			unit: "bytes a connection",
			lines: []line{
				simulated(newest, "simulation-one", "bytes", "one channel", colours["halley"]),
				simulated(newest, "simulation-each", "bytes", "a channel each", colours["nchan"]),
			},
		}.filled())
		addLines("simulation-times", lines{
			title: "Times of a million connections, by simulation", note: "Halley without sockets: what remains is the system call of each delivery",
			unit: "ms, on a logarithmic scale", logarithmic: true,
			lines: []line{
				simulated(newest, "simulation-one", "fanout", "message to all", colours["halley"]),
				simulated(newest, "simulation-one", "gc", "GC, one channel", colours["limit"]),
				simulated(newest, "simulation-each", "gc", "GC, a channel each", colours["nchan"]),
			},
		}.filled())
	}
	return charts
}

// simulated makes a line of a figure of a simulation.
func simulated(newest map[string]*source, scenario, key, label, colour string) line {
	one := line{label: label, colour: colour}
	for _, l := range grow(newest[scenario].rows(scenario, key), key) {
		one.points = l.points
	}
	return one
}

// filled leaves out lines without points.
func (l lines) filled() lines {
	var some []line
	for _, one := range l.lines {
		if len(one.points) > 0 {
			some = append(some, one)
		}
	}
	l.lines = some
	return l
}

// filled leaves out parts without bars.
func filled(parts []part) []part {
	var some []part
	for _, p := range parts {
		if len(p.bars) > 0 {
			some = append(some, p)
		}
	}
	return some
}

func burst(rows []*result.Row, n int) []*result.Row {
	return where(rows, func(row *result.Row) bool { return row.Burst == n })
}

// levels makes a part of the rows with the most connections, and another of the
// most that those have which are missing there.
func levels(rows []*result.Row, heading string, bars func([]*result.Row) []bar) []part {
	var parts []part
	seen := map[string]bool{}
	for left := rows; len(left) > 0; {
		most := 0
		for _, row := range left {
			most = max(most, row.Connections)
		}
		level := where(rows, func(row *result.Row) bool { return row.Connections == most })
		for _, row := range level {
			seen[row.Server] = true
		}
		left = where(left, func(row *result.Row) bool { return !seen[row.Server] })
		text := figure(float64(most)) + " connections"
		if heading != "" {
			text += ", " + heading
		}
		parts = append(parts, part{text, sorted(bars(level))})
	}
	return parts
}
