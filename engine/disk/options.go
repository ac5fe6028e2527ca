package disk

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// Fsync says what a message has survived when it is acknowledged.
type Fsync uint8

const (
	// Group syncs every batch to the disk before it is acknowledged, and waits
	// up to Options.GroupWait for other publishers to share the sync, where
	// several published just before. A power cut loses nothing acknowledged.
	Group Fsync = iota
	// Always does the same without waiting: who publishes while a sync goes on
	// shares the next one.
	Always
	// Never hands every batch to the operating system and syncs none. A killed
	// process loses nothing; a power cut or a crash of the machine may. The
	// log then begins a new epoch, so that every cursor from before is a gap.
	//
	// A replica (Options.Follow) does less, whatever is set: a killed process
	// loses what came in its last second, which the log that it follows has.
	Never
)

var fsyncNames = [...]string{Group: "group", Always: "always", Never: "never"}

// String returns the mode's name, as flags and files have it.
func (f Fsync) String() string {
	if int(f) < len(fsyncNames) {
		return fsyncNames[f]
	}
	return fmt.Sprintf("Fsync(%d)", uint8(f))
}

// Options configure a Log. The zero value means the defaults.
type Options struct {
	// Fsync is when messages are synced to the disk. Zero is Group.
	Fsync Fsync

	// GroupWait is how long Group waits for other publishers at most. Zero
	// means 200 µs.
	GroupWait time.Duration

	// Retention is what a channel keeps if none of Rules matches it. The zero
	// value means 10,000 messages and 64 MiB, as in package memory. In any
	// other, a zero field sets no bound; a rule for "**" with a zero Retention
	// leaves Limit as the only bound.
	Retention engine.Retention

	// Rules set what the channels of a pattern keep; the first that matches a
	// channel holds. An age is kept to the millisecond, rounded up.
	Rules []engine.RetentionRule

	// Limit bounds what all messages together may take, in bytes of records
	// and list entries before compression. Over it the oldest messages go. The
	// disk in use follows, some compactions later. Zero means 8 GiB; negative
	// sets no bound.
	Limit int64

	// KeyWindow is how long a batch's Key is remembered. Zero means 10
	// minutes. The oldest are forgotten earlier where they would take more than
	// a quarter of Limit: 192 bytes each, and there are more than 4,096.
	KeyWindow time.Duration

	// TailBytes bounds the newest messages that are held in memory for live
	// readers, by their data, headers and some overhead. There are at most
	// 65,536 of them. Zero means 64 MiB.
	TailBytes int64

	// CacheBytes is the memory for blocks of tables that were read, shared by
	// all readers, beside up to 96 MiB for what is not in tables yet. Zero means
	// 64 MiB.
	CacheBytes int64

	// ReadOnly opens a log without changing anything. There has to be one.
	// Append returns engine.ErrUnavailable. The directory is locked all the
	// same.
	ReadOnly bool

	// NewEpoch begins a new epoch, so that every cursor from before is a gap.
	// It is for whoever changes what the log holds beside Append. Open does it
	// by itself where sequences could be given out twice: see [Opened].
	NewEpoch bool

	// Follow makes the log a replica of another, and is the epoch of that one.
	// Its messages come by [Log.Follow], with their positions and times; Append
	// is refused. What a directory holds of another epoch is removed. Nothing
	// begins an epoch by itself then, since a replica that has lost its newest
	// messages is still a part of the log that it follows: whoever follows that
	// looks at [Log.Followed] first. AsBefore stands for the epoch of the replica
	// that the directory has; without one it is fs.ErrNotExist.
	Follow string

	fs     vfs.FS        // nil means the operating system's
	bootID func() string // nil means the kernel's
	// What tells a directory from its copies; nil means dirIdentity.
	identity func(dir string) string
	delay    time.Duration // how long a channel may be over its bounds; 0 means trimDelay
	maxTrims uint64        // lists whose removals are remembered; 0 means maxTrims
	channels int           // that the writer has in memory; 0 means maxChannels
	many     int           // requests in a commit from which two are under way
	group    int           // messages that share entries at most; 0 means maxGroup
}

// AsBefore is for Options.Follow, where the epoch cannot be had.
const AsBefore = "*"

const (
	defaultGroupWait = 200 * time.Microsecond
	defaultCount     = 10_000
	defaultBytes     = 64 << 20
	defaultLimit     = 8 << 30
	defaultWindow    = 10 * time.Minute
	defaultTail      = 64 << 20
	defaultCache     = 64 << 20
	maxTrims         = 1 << 20
)

// withDefaults returns the options with their defaults in place, or an error
// that names the field which is wrong.
func (o Options) withDefaults() (Options, error) {
	if int(o.Fsync) >= len(fsyncNames) {
		return o, fmt.Errorf("disk: Options.Fsync: %w: %v", engine.ErrInvalid, o.Fsync)
	}
	if err := o.Retention.Check(); err != nil {
		return o, fmt.Errorf("disk: Options.Retention: %w", err)
	}
	for i, r := range o.Rules {
		if err := engine.CheckPattern(r.Pattern); err != nil {
			return o, fmt.Errorf("disk: Options.Rules[%d].Pattern: %w", i, err)
		}
		if err := r.Check(); err != nil {
			return o, fmt.Errorf("disk: Options.Rules[%d].Retention: %w", i, err)
		}
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"GroupWait", int64(o.GroupWait)}, {"KeyWindow", int64(o.KeyWindow)},
		{"TailBytes", o.TailBytes}, {"CacheBytes", o.CacheBytes},
	} {
		if f.value < 0 {
			return o, fmt.Errorf("disk: Options.%s: %w: %d is negative", f.name, engine.ErrInvalid, f.value)
		}
	}
	if o.Follow != "" && o.Follow != AsBefore && !engine.ValidEpoch(o.Follow) {
		return o, fmt.Errorf("disk: Options.Follow: %w: epoch %.40q", engine.ErrInvalid, o.Follow)
	}
	if o.Follow != "" && o.NewEpoch {
		return o, fmt.Errorf("disk: Options.NewEpoch: %w: the epoch is that of the log that is followed", engine.ErrInvalid)
	}
	if o.Retention == (engine.Retention{}) {
		o.Retention = engine.Retention{Count: defaultCount, Bytes: defaultBytes}
	}
	o.GroupWait = cmp.Or(o.GroupWait, defaultGroupWait)
	o.Limit = cmp.Or(o.Limit, defaultLimit)
	o.KeyWindow = cmp.Or(o.KeyWindow, defaultWindow)
	o.TailBytes = cmp.Or(o.TailBytes, defaultTail)
	o.CacheBytes = cmp.Or(o.CacheBytes, defaultCache)
	o.maxTrims = cmp.Or(o.maxTrims, maxTrims)
	o.delay = cmp.Or(o.delay, trimDelay)
	o.channels = cmp.Or(o.channels, maxChannels)
	o.many = cmp.Or(o.many, 64)
	o.group = cmp.Or(o.group, maxGroup)
	if o.identity == nil {
		o.identity = dirIdentity
		if o.fs != nil {
			o.identity = func(string) string { return "" }
		}
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.bootID == nil {
		o.bootID = kernelBootID
	}
	o.Rules = slices.Clone(o.Rules)
	return o, nil
}

// milliseconds rounds up.
func milliseconds(d time.Duration) int64 {
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}
