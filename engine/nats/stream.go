package nats

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
)

// ErrMisfit means that the stream is there and is no log: what it keeps, or how,
// does not fit. The error tells what to change.
var ErrMisfit = errors.New("the stream does not fit")

// epochKey is what tells, in a stream's metadata, its epochs apart. Whoever
// writes another value there begins another epoch.
const epochKey = "halley-epoch"

// epochOf returns the epoch of a stream: a hash of its identity. A stream that is
// made again has another, whatever it is made of.
func epochOf(info *jetstream.StreamInfo) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s", info.Config.Name, info.Created.UnixNano(), info.Config.Metadata[epochKey]))
	return strconv.FormatUint(binary.BigEndian.Uint64(sum[:]), 36)
}

// wanted is the stream that is made where there is none.
func (o *Options) wanted() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:               o.Stream,
		Description:        "the log of Halley",
		Subjects:           []string{o.Stream + ".>"},
		MaxBytes:           max(o.StreamBytes, -1),
		MaxAge:             o.StreamAge,
		Replicas:           o.Replicas,
		Duplicates:         min(duplicates, o.Replica.KeyWindow),
		AllowAtomicPublish: true,
		Metadata:           map[string]string{epochKey: engine.NewEpoch()},
	}
	if o.StreamAge > 0 {
		c.Duplicates = min(c.Duplicates, o.StreamAge)
	}
	if o.Memory {
		c.Storage = jetstream.MemoryStorage
	}
	return c
}

// check reports what keeps a stream from being the log, all of it.
func (o *Options) check(c *jetstream.StreamConfig) error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!slices.Contains(c.Subjects, o.Stream+".>"), "its subjects are %q: they must include %s.>", c.Subjects, o.Stream)
	fault(c.Retention != jetstream.LimitsPolicy, "its retention is %v: it must be limits, as every node reads it", c.Retention)
	fault(c.Discard != jetstream.DiscardOld, "it discards %v messages: it must be the old ones", c.Discard)
	fault(c.MaxMsgsPerSubject > 0, "it keeps %d messages a subject: nodes keep what a channel may, and need the others to catch up", c.MaxMsgsPerSubject)
	fault(c.NoAck, "it does not acknowledge")
	fault(c.Sealed, "it is sealed")
	fault(c.Mirror != nil, "it is a mirror")
	fault(c.SubjectTransform != nil, "it changes subjects")
	fault(c.Replicas < o.Replicas, "it has %d replicas, and %d are wanted", c.Replicas, o.Replicas)
	fault(c.Storage == jetstream.MemoryStorage && !o.Memory, "it is in memory")
	fault(c.Duplicates < min(duplicates, o.Replica.KeyWindow)/2, "it knows duplicates for %v: it must do so for %v", c.Duplicates, duplicates)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("stream %s: %w: %w", o.Stream, ErrMisfit, errors.Join(faults...))
}

// find returns the stream, which it makes where there is none and create is
// set.
func (l *Log) find(ctx context.Context, create bool) (jetstream.Stream, *jetstream.StreamInfo, error) {
	if !l.nc.IsConnected() {
		if err := l.nc.LastError(); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errUnreached, err)
		}
		return nil, nil, errUnreached
	}
	if v := l.nc.ConnectedServerVersion(); isOlder(v) {
		return nil, nil, fmt.Errorf("the NATS server is version %s: %w: 2.10 is the oldest whose streams have an epoch", v, ErrMisfit)
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := l.js.Stream(ask, l.opts.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && create {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		s, err = l.js.CreateStream(ctx, l.opts.wanted())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster
			s, err = l.js.Stream(ctx, l.opts.Stream)
		} else if err == nil {
			l.opts.Logger.Info("halley: the stream was made", "stream", l.opts.Stream, "replicas", l.opts.Replicas)
		}
	}
	if err != nil {
		return nil, nil, explain(err)
	}
	info := s.CachedInfo()
	if err := l.opts.check(&info.Config); err != nil {
		return nil, nil, err
	}
	return s, info, nil
}

// isOlder tells of servers before 2.10, whose streams have no metadata.
func isOlder(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return n == 2 && (major < 2 || major == 2 && minor < 10)
}

// explain adds what is to be done to errors of the servers that say little.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == noSuitablePeers:
		return fmt.Errorf("%w: are there as many NATS servers as the stream is to have replicas?", err)
	case errors.As(err, &api) && api.ErrorCode == noStorage:
		return fmt.Errorf("%w: the servers set aside what the stream may take: lower its bytes, or raise max_file_store", err)
	case errors.As(err, &api) && api.ErrorCode == replicasUnsupported:
		return fmt.Errorf("%w: a lone NATS server can have one replica", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, natsgo.ErrNoResponders):
		return fmt.Errorf("%w: is JetStream enabled on the NATS servers, and have they a leader?", err)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the NATS servers do not answer")
	}
	return err
}

// isRefused tells of what the servers will not do, however long one waits.
func isRefused(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.Code == 400 && api.ErrorCode != noSuitablePeers || api.ErrorCode == replicasUnsupported || api.ErrorCode == noStorage)
}

var errUnreached = errors.New("no NATS server can be reached")

const (
	// Servers without a leader leave requests unanswered for ever, and answer the
	// next one once they have one. So who asks again and again gives each little
	// time.
	askTimeout          = 700 * time.Millisecond
	requestTimeout      = 3 * time.Second
	noSuitablePeers     = 10005
	replicasUnsupported = 10074
	noStorage           = 10047
)

// from returns the position of the first message that the stream has from one on,
// and when it was stored, in Unix nanoseconds; 0 if there is none. It asks the
// leader, which has them if anyone does.
func (l *Log) from(ctx context.Context, seq uint64) (at, stored uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+l.opts.Stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, seq))
	if err != nil {
		return 0, 0, explain(err)
	}
	var answer struct {
		Error   *jetstream.APIError
		Message struct {
			Seq  uint64
			Time time.Time
		}
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return 0, 0, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return 0, 0, nil
	case answer.Error != nil:
		return 0, 0, answer.Error
	}
	return answer.Message.Seq, uint64(answer.Message.Time.UnixNano()), nil
}

// renew begins a new epoch: the stream has lost messages that this node was told
// were safe, and gives out their positions again.
func (l *Log) renew(ctx context.Context, info *jetstream.StreamInfo) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c := info.Config
	metadata := map[string]string{}
	for k, v := range c.Metadata {
		metadata[k] = v
	}
	metadata[epochKey] = engine.NewEpoch()
	c.Metadata = metadata
	_, err := l.js.UpdateStream(ctx, c)
	return err
}
