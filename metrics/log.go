package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	logMessages    = desc("log_messages", "Messages that the log keeps.")
	logBytes       = desc("log_bytes", "What they take, as the log's limit counts.")
	logStopped     = desc("log_stopped", "1 once the log takes no messages until it is opened again.")
	diskBytes      = desc("log_disk_bytes", "Bytes of the log's files.")
	streamAway     = desc("stream_away", "1 while this node does not follow the cluster's stream, so that it takes no messages.")
	streamBehind   = desc("stream_behind", "Positions that this node is behind the end of the cluster's stream.")
	streamFollowed = desc("stream_followed_total", "How often this node has begun to follow the cluster's stream: again after a connection was lost, or another leader elected.")
	streamReceived = desc("stream_received_total", "Messages that this node was given by the cluster's stream.")
	streamHoles    = desc("stream_holes_total", "How often positions were missing in the cluster's stream, which is a gap for who comes from before.")
	streamSkipped  = desc("stream_skipped_total", "Messages of the cluster's stream that could not be any of their channel, and were left out.")
	streamRetries  = desc("stream_retries_total", "Batches that were published to the cluster's stream again, since their fate was not known.")
	compaction     = desc("log_compaction_debt_bytes", "Estimate of the bytes on disk that are to be compacted: it rises where the disk does not keep up.")
)

// LogStats tell what a log holds.
type LogStats struct {
	Messages uint64
	Bytes    int64
	// Stopped is why the log takes no messages any more; nil while it does.
	Stopped error
	// Disk is of a log on disk, nil for others.
	Disk *DiskStats
	// Stream is of a log that follows a stream of NATS JetStream, nil for others.
	Stream *StreamStats
}

// StreamStats tell how a node follows a stream.
type StreamStats struct {
	// Away is why it does not; nil while it does.
	Away error
	// Behind is how many positions it is behind the stream's end.
	Behind uint64
	// Followed counts how often it has begun to follow. The others count
	// messages, missing positions, messages that were none, and batches that were
	// published again.
	Followed, Received, Holes, Skipped, Retries uint64
}

// DiskStats tell of a log's files, in bytes.
type DiskStats struct {
	Bytes, CompactionDebt uint64
}

type logCollector struct{ stats func() LogStats }

// NewLog returns a collector of a log's metrics, which stats returns when they
// are asked for. The engines have methods Stats to make it of.
func NewLog(stats func() LogStats) prometheus.Collector { return logCollector{stats} }

func (logCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		logMessages, logBytes, logStopped, diskBytes, compaction,
		streamAway, streamBehind, streamFollowed, streamReceived, streamHoles, streamSkipped, streamRetries,
	} {
		ch <- d
	}
}

func (c logCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	ch <- gauge(logMessages, s.Messages)
	ch <- gauge(logBytes, s.Bytes)
	flag := func(err error) int {
		if err != nil {
			return 1
		}
		return 0
	}
	ch <- gauge(logStopped, flag(s.Stopped))
	if s.Disk != nil {
		ch <- gauge(diskBytes, s.Disk.Bytes)
		ch <- gauge(compaction, s.Disk.CompactionDebt)
	}
	if s := s.Stream; s != nil {
		ch <- gauge(streamAway, flag(s.Away))
		ch <- gauge(streamBehind, s.Behind)
		ch <- counter(streamFollowed, s.Followed)
		ch <- counter(streamReceived, s.Received)
		ch <- counter(streamHoles, s.Holes)
		ch <- counter(streamSkipped, s.Skipped)
		ch <- counter(streamRetries, s.Retries)
	}
}
