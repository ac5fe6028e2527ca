package engine

import (
	"fmt"
	"time"
)

// Retention bounds what a channel keeps. A zero field sets no bound; what all
// channels together may take is the engine's own option.
type Retention struct {
	// Count is the number of messages kept.
	Count int
	// Age is how long a message is kept.
	Age time.Duration
	// Bytes is the sum of the messages' sizes, their data and headers; the newest message is kept even
	// where it is larger.
	Bytes int64
}

// A RetentionRule sets the retention of the channels that a pattern matches.
type RetentionRule struct {
	// Pattern is a channel's name or a pattern.
	Pattern string
	Retention
}

// RetentionFor returns the retention of a channel: that of the first rule
// which matches, or else the given one.
func RetentionFor(channel string, rules []RetentionRule, otherwise Retention) Retention {
	for _, r := range rules {
		if Match(r.Pattern, channel) {
			return r.Retention
		}
	}
	return otherwise
}

// Check reports what is wrong with r. The error wraps ErrInvalid.
func (r Retention) Check() error {
	if r.Count < 0 || r.Age < 0 || r.Bytes < 0 {
		return fmt.Errorf("%w: retention %+v has a negative bound", ErrInvalid, r)
	}
	return nil
}
