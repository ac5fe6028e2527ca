package memory

import (
	"fmt"
	"slices"
	"time"

	"github.com/halley-comet/halley/engine"
)

// Options configure a Log. The zero value means the defaults.
type Options struct {
	// Retention is what a channel keeps if none of Rules matches it. The zero
	// value means 10,000 messages and 64 MiB. In any other, a zero field sets
	// no bound, as [engine.Retention] says; a rule for "**" with a zero
	// Retention leaves Limit as the only bound.
	Retention engine.Retention

	// Rules set what the channels of a pattern keep; the first that matches a
	// channel holds.
	Rules []engine.RetentionRule

	// Limit bounds the memory that the log takes, in bytes, by an estimate
	// that counts messages, channels, lists and keys with their overhead. Over
	// it the log forgets channels that have no messages, and then drops its
	// oldest messages. Zero means 256 MiB; negative sets no bound.
	Limit int64

	// KeyWindow is how long a batch's Key is remembered. Zero means 10
	// minutes. The oldest keys go earlier where there are more than 100,000 or
	// they take more than a quarter of Limit.
	KeyWindow time.Duration
}

const (
	defaultCount  = 10_000
	defaultBytes  = 64 << 20
	defaultLimit  = 256 << 20
	defaultWindow = 10 * time.Minute
	maxKeys       = 100_000
)

// withDefaults returns the options with their defaults in place, or an error
// that names the field which is wrong.
func (o Options) withDefaults() (Options, error) {
	if err := o.Retention.Check(); err != nil {
		return o, fmt.Errorf("memory: Options.Retention: %w", err)
	}
	for i, r := range o.Rules {
		if err := engine.CheckPattern(r.Pattern); err != nil {
			return o, fmt.Errorf("memory: Options.Rules[%d].Pattern: %w", i, err)
		}
		if err := r.Check(); err != nil {
			return o, fmt.Errorf("memory: Options.Rules[%d].Retention: %w", i, err)
		}
	}
	if o.KeyWindow < 0 {
		return o, fmt.Errorf("memory: Options.KeyWindow: %w: %v is negative", engine.ErrInvalid, o.KeyWindow)
	}
	if o.Retention == (engine.Retention{}) {
		o.Retention = engine.Retention{Count: defaultCount, Bytes: defaultBytes}
	}
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	if o.KeyWindow == 0 {
		o.KeyWindow = defaultWindow
	}
	o.Rules = slices.Clone(o.Rules)
	return o, nil
}
