package main

import (
	"slices"
	"strings"

	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/bench/scenario"
)

// addStores adds the charts of the scenarios that compare stores.
func addStores(name string, s *source, addBars func(string, bars), addLines func(string, lines)) {
	switch name {
	case "publish-disk":
		rows := s.rows(name, "rate")
		safe := where(rows, func(row *result.Row) bool { return row.Transport == scenario.Synced })
		// Each has an axis of its own: many publishers share what one waits for.
		for _, p := range highest(cases(safe, size("", ""), compareWith("pebble", "rate", "/s"))) {
			n := p.heading
			addBars("publish-disk-"+n, bars{
				title: "Publishing to disk, publishers: " + n, note: "Messages of 200 bytes; each publisher waits until its message is on the disk",
				unit: "messages a second", parts: []part{{bars: p.bars}},
			})
		}
		// The others wait so long that these would not be seen.
		together := where(safe, func(row *result.Row) bool { return row.Server != "bbolt" && row.Server != "jetstream" })
		addBars("publish-disk-wait", bars{
			title: "Waiting for the disk", note: "Median (dark) and 99th percentile (light); stores that sync for several publishers at once",
			unit: "ms", parts: cases(together, size("publishers: ", ""), spread("p50", "p99", " ms")),
		})
		rest := where(rows, func(row *result.Row) bool { return row.Transport != scenario.Synced })
		addBars("publish-disk-never", bars{
			title: "Publishing without waiting for the disk", note: "A power cut may take what was acknowledged",
			unit: "messages a second", parts: highest(cases(rest, size("publishers: ", ""), compareWith("pebble-never", "rate", "/s"))),
		})
	case "catch-up":
		// What is read from memory would leave no room for the others.
		held := func(row *result.Row) bool { return strings.HasSuffix(row.Transport, scenario.InMemory) }
		rows := s.rows(name, "rate")
		addBars("catch-up", bars{
			title: "Reading from disk, one reader", note: "Pages of 1,000 messages of 200 bytes, from a store that was just opened",
			unit:  "messages a second",
			parts: highest(cases(where(rows, func(row *result.Row) bool { return !held(row) }), kind, compareWith("pebble-index", "rate", "/s"))),
		})
		addBars("catch-up-memory", bars{
			title: "Reading from memory, one reader", note: "Pages of 1,000 messages, from the oldest on that the log holds in memory",
			unit: "messages a second", parts: cases(where(rows, held), kind, compare("rate", "/s")),
		})
	case "opening":
		rows := s.rows(name, "killed")
		var parts []part
		for _, one := range []struct{ key, after string }{
			{"killed", "the process was killed"}, {"closed", "closed"}, {"cold", "closed, the system's cache is empty"},
		} {
			parts = append(parts, cases(rows, size("", " channels, "+one.after), compareWith("pebble-index", one.key, " s"))...)
		}
		addBars("opening", bars{
			title: "Opening ten million messages", note: "The last 20,000 are in the write-ahead log",
			unit: "seconds", parts: parts,
		})
	case "resume-storm":
		rows := s.rows(name, "seconds")
		addBars("resume-storm", bars{
			title: "All clients resume after a restart", note: "10,000 clients, 100 messages for each, of 10 channels of its own; 64 read at a time",
			unit: "seconds until the last has caught up", parts: cases(rows, kind, compare("seconds", " s")),
		})
		addBars("resume-storm-read", bars{
			title: "Bytes read while all resume", note: "By the sizes of all calls that read files; 1 is each byte stored, once",
			unit: "times what is stored", parts: cases(rows, kind, compare("times", " × stored")),
		})
	case "many-channels":
		grown := func(key string) []line { return grow(s.rows(name, key), key) }
		const note = "64 publishers to random channels, a million messages there before"
		addLines("many-channels-publish", lines{
			title: "Publishing as channels grow", note: note, across: "channels",
			unit: "publishes a second, on disk", lines: grown("rate"),
		})
		addLines("many-channels-read", lines{
			title: "Reading as channels grow", note: "100 of a pattern that matches all, and the newest 100 of a channel, which has fewer where there are many", across: "channels",
			unit: "µs a page, on a logarithmic scale", logarithmic: true, lines: append(
				relabel(grown("channel"), "a channel", colours["halley"]), append(
					relabel(grown("pattern"), "a pattern", colours["nchan"]),
					relabel(grown("recent"), "in memory", colours["plain-go"])...)...),
		})
		addLines("many-channels-memory", lines{
			title: "Memory as channels grow", note: note, across: "channels",
			unit: "resident MB", lines: grown("memory"),
		})
		addLines("many-channels-disk", lines{
			title: "Disk as channels grow", note: "Of all files; 200 bytes a message that do not compress", across: "channels",
			unit: "bytes a message", lines: grown("disk"),
		})
	}
}

// cases makes a part of the rows of each case, in the order in which they were
// run.
func cases(rows []*result.Row, heading func(*result.Row) string, bars func([]*result.Row) []bar) []part {
	var parts []part
	for len(rows) > 0 {
		first := rows[0]
		same := func(row *result.Row) bool {
			return row.Transport == first.Transport && row.Connections == first.Connections
		}
		parts = append(parts, part{heading(first), sorted(bars(where(rows, same)))})
		rows = where(rows, func(row *result.Row) bool { return !same(row) })
	}
	return parts
}

// kind heads a part with the kind of its case, size with its size.
func kind(row *result.Row) string { return row.Transport }

func size(before, after string) func(*result.Row) string {
	return func(row *result.Row) string { return before + short(float64(row.Connections)) + after }
}

// highest puts the longest bars first.
func highest(parts []part) []part {
	for _, p := range parts {
		slices.Reverse(p.bars)
	}
	return parts
}

// relabel names lines and colours them.
func relabel(list []line, label, colour string) []line {
	for i := range list {
		list[i].label, list[i].colour = label, colour
	}
	return list
}
