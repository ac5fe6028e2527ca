package nats

import (
	"cmp"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// Options configure a Log. The zero value means the defaults.
type Options struct {
	// URL has the NATS servers, separated by commas. Empty means
	// nats://127.0.0.1:4222.
	URL string

	// Connect are further options of the connection: TLS, credentials.
	Connect []natsgo.Option

	// Stream is the stream's name, which its subjects begin with: letters,
	// digits, "-" and "_". Empty means "halley".
	Stream string

	// Replicas is how many servers have the stream. Zero means 3. This and what
	// follows up to Memory is what a stream that is there already must offer, and
	// what one that is not gets.
	Replicas int

	// StreamBytes bounds the stream, StreamAge how long it keeps a message. They
	// are how far a node may fall behind, and what one that begins can have. Zero
	// means 8 GiB, and no bound; negative StreamBytes set no bound.
	StreamBytes int64
	StreamAge   time.Duration

	// Memory keeps the stream in the servers' memory.
	Memory bool

	// Timeout is how long Append waits for the stream's quorum. Zero means 10 s.
	Timeout time.Duration

	// Replica are the options of the node's own log: retention, above all. Fsync
	// has no meaning: what a replica loses, the stream has. KeyWindow holds for the
	// cluster; it should be the same on all nodes, as the rest had better be.
	Replica disk.Options

	// Logger gets what an operator should know. Nil means slog.Default.
	Logger *slog.Logger

	missing time.Duration // how long a stream must be away to be made again; 0 means missingTime
	behind  time.Duration // and have less than a node to have lost it; 0 means behindTime
}

const (
	defaultStreamBytes = 8 << 30
	defaultTimeout     = 10 * time.Second
	defaultKeyWindow   = 10 * time.Minute
	// duplicates is how long the servers know what was published, at most: long
	// enough for what is tried again, and for nodes to see each other's keys.
	duplicates = 2 * time.Minute
	// Servers that have just been started may not know the stream yet, and a
	// leader that was just elected may not have come to its end.
	missingTime = 5 * time.Second
	behindTime  = 10 * time.Second
	// maxPending is how many bytes of batches may wait to be acknowledged.
	maxPending = 256 << 20
)

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// withDefaults returns the options with their defaults in place, or an error
// that names the field which is wrong.
func (o Options) withDefaults() (Options, error) {
	o.URL = cmp.Or(o.URL, natsgo.DefaultURL)
	o.Stream = cmp.Or(o.Stream, "halley")
	o.Replicas = cmp.Or(o.Replicas, 3)
	o.StreamBytes = cmp.Or(o.StreamBytes, defaultStreamBytes)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.missing = cmp.Or(o.missing, missingTime)
	o.behind = cmp.Or(o.behind, behindTime)
	o.Replica.KeyWindow = cmp.Or(o.Replica.KeyWindow, defaultKeyWindow)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	bad := func(field string, value any) (Options, error) {
		return o, fmt.Errorf("nats: Options.%s: %w: %v", field, engine.ErrInvalid, value)
	}
	switch {
	case !streamName.MatchString(o.Stream):
		return bad("Stream", o.Stream)
	case o.Replicas < 1 || o.Replicas > 5:
		return bad("Replicas", o.Replicas)
	case o.StreamAge < 0:
		return bad("StreamAge", o.StreamAge)
	case o.Timeout < 0:
		return bad("Timeout", o.Timeout)
	case o.Replica.Follow != "" || o.Replica.NewEpoch || o.Replica.ReadOnly:
		return bad("Replica", "Follow, NewEpoch and ReadOnly are not to be set")
	}
	o.Replica.Fsync = disk.Never
	return o, nil
}
