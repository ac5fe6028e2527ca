package memory

// Stats tell what a log holds.
type Stats struct {
	Messages int
	Bytes    int64 // what it takes, by the estimate that Options.Limit bounds
}

// Stats returns what the log holds now. After Close it returns zeros.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return Stats{}
	}
	return Stats{Messages: l.all.live, Bytes: l.used}
}
