package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	logMessages = desc("log_messages", "Messages that the log keeps.")
	logBytes    = desc("log_bytes", "What they take, as the log's limit counts.")
	logStopped  = desc("log_stopped", "1 once the log takes no messages until it is opened again.")
	diskBytes   = desc("log_disk_bytes", "Bytes of the log's files.")
	compaction  = desc("log_compaction_debt_bytes", "Estimate of the bytes on disk that are to be compacted: it rises where the disk does not keep up.")
)

// LogStats tell what a log holds.
type LogStats struct {
	Messages uint64
	Bytes    int64
	// Stopped is why the log takes no messages any more; nil while it does.
	Stopped error
	// Disk is of a log on disk, nil for others.
	Disk *DiskStats
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
	for _, d := range []*prometheus.Desc{logMessages, logBytes, logStopped, diskBytes, compaction} {
		ch <- d
	}
}

func (c logCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	ch <- gauge(logMessages, s.Messages)
	ch <- gauge(logBytes, s.Bytes)
	stopped := 0
	if s.Stopped != nil {
		stopped = 1
	}
	ch <- gauge(logStopped, stopped)
	if s.Disk != nil {
		ch <- gauge(diskBytes, s.Disk.Bytes)
		ch <- gauge(compaction, s.Disk.CompactionDebt)
	}
}
