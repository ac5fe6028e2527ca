// Package metrics has what a hub and its log know of themselves for Prometheus
// (https://prometheus.io).
//
//	registry := prometheus.NewRegistry()
//	registry.MustRegister(metrics.New(hub))
//	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
//
// Everything is read when it is asked for. Labels have few values: transports,
// reasons and the codes of problems, never channels or users. docs/operations.md
// lists all metrics.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-comet/halley"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("halley_"+name, help, labels, nil)
}

var (
	connections = desc("connections", "Subscriptions that are held.", "transport")
	opened      = desc("connections_opened_total", "Subscriptions that began.", "transport")
	ended       = desc("connections_ended_total", "Subscriptions that ended, and why: a word or the code of the problem that the client was told.", "transport", "reason")
	visitors    = desc("visitors", "Connections that are subscribed to nothing: new ones, and those between two requests.")

	deliveries = desc("deliveries_total", "Messages handed to connections, each for each.", "transport")
	sent       = desc("sent_bytes_total", "Bytes handed to connections, of messages and controls.", "transport")
	lag        = desc("slowest_connection_lag_messages", "Messages between the log's end and the position of the connection that is furthest behind.")
	gaps       = desc("gaps_told_total", "Times a client was told that messages may be missing.")
	skips      = desc("skips_told_total", "Times a slow client was told that older messages were left out.")
	slow       = desc("slow_client_events_total", "Times a client took no more, or not soon enough, and fell behind.")

	published      = desc("published_messages_total", "Messages that were stored.")
	publishedBytes = desc("published_bytes_total", "Bytes of data of the messages that were stored.")
	publish        = desc("publish_duration_seconds", "Time from a whole request to publish to its acknowledgement.")
	appended       = desc("engine_append_duration_seconds", "The engine's part of publishing: until a batch is as safe as promised.")
	failures       = desc("engine_append_failures_total", "Batches that the engine should have stored and did not.")
	refused        = desc("refused_total", "What clients were refused, by the code of the problem.", "code")
	ready          = desc("ready", "1 while subscribers and publishers are taken, 0 while draining or once the engine has stopped.")
)

type hubCollector struct{ hub *halley.Hub }

// New returns a collector of a hub's metrics.
func New(hub *halley.Hub) prometheus.Collector { return hubCollector{hub} }

func (hubCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		connections, opened, ended, visitors, deliveries, sent, lag, gaps, skips, slow,
		published, publishedBytes, publish, appended, failures, refused, ready,
	} {
		ch <- d
	}
}

func (c hubCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.hub.Stats()
	for name, t := range s.Transports {
		ch <- gauge(connections, t.Connections, name)
		ch <- counter(opened, t.Opened, name)
		ch <- counter(deliveries, t.Messages, name)
		ch <- counter(sent, t.Bytes, name)
		for reason, n := range t.Ended {
			ch <- counter(ended, n, name, reason)
		}
	}
	for code, n := range s.Refused {
		ch <- counter(refused, n, code)
	}
	ch <- gauge(visitors, s.Visitors)
	ch <- gauge(lag, s.Lag)
	ch <- counter(gaps, s.Gaps)
	ch <- counter(skips, s.Skips)
	ch <- counter(slow, s.Slow)
	ch <- counter(published, s.Published)
	ch <- counter(publishedBytes, s.PublishedBytes)
	ch <- counter(failures, s.AppendFailures)
	ch <- histogram(publish, &s.Publish)
	ch <- histogram(appended, &s.Append)
	up := 1
	if c.hub.Ready() != nil {
		up = 0
	}
	ch <- gauge(ready, up)
}

type number interface {
	int | int64 | uint64 | float64
}

func gauge[T number](d *prometheus.Desc, v T, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
}

func counter[T number](d *prometheus.Desc, v T, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func histogram(d *prometheus.Desc, h *halley.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var n uint64
	for i, count := range h.Counts {
		n += count
		if i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = n
		}
	}
	return prometheus.MustNewConstHistogram(d, n, h.Sum.Seconds(), buckets)
}
