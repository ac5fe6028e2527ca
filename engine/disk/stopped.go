package disk

import "fmt"

// Stopped returns a channel that is closed when the log stops: from then on it
// takes no messages until it is opened again. Closing the log is not stopping.
func (l *Log) Stopped() <-chan struct{} { return l.fault.stopped }

// Err returns why the log has stopped, nil if it has not.
func (l *Log) Err() error {
	if err := l.fault.get(); err != nil {
		return fmt.Errorf("disk: %s: %w", l.dir, err)
	}
	return nil
}
