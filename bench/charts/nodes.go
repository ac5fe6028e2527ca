package main

// addNodes adds the charts of the scenarios of several nodes.
func addNodes(name string, s *source, addBars func(string, bars), addLines func(string, lines)) {
	switch name {
	case "nodes-publish":
		addBars(name, bars{
			title: "Publishing to three NATS servers", note: "Messages of 200 bytes; each publisher waits until two of three servers have its message",
			unit: "messages a second", parts: highest(cases(s.rows(name, "rate"), size("publishers: ", ""), compareWith("jetstream", "rate", "/s"))),
		})
	case "nodes-latency":
		addBars(name, bars{
			title: "From one node to clients of another", note: "From before the publish request until a client has read it; median (dark) and 99th percentile (light)",
			unit: "ms", parts: cases(s.rows(name, "p50"), size("clients: ", ""), spread("p50", "p99", " ms")),
		})
	case "nodes-kill":
		list := curves(s.rows(name, "back"), colours["halley"])
		for i := range list {
			list[i].label = "halley"
		}
		addLines(name, lines{
			title: "Clients that come back from a killed node", note: "10,000 clients over all transports; one node of three, which has them all, is killed at 0",
			unit: "subscribed again in each quarter of a second", across: "seconds", linear: true, lines: list,
		})
	case "interest":
		addBars(name, bars{
			title: "What a node pays for messages that nobody reads there", note: "By what it takes of a stream of 10,000 channels, and by how many messages are published",
			unit: "CPU seconds of the node for a million messages published", parts: cases(s.rows(name, "cpu"), size("", " messages/s"), compareWith("whole stream", "cpu", " s")),
		})
	}
}
