package halley

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// A Hub joins connections to a log. It serves the native protocol over HTTP,
// and publishes and subscribes for its own program.
//
// All methods may be called from any number of goroutines.
type Hub struct {
	engine     engine.Engine
	opts       Options
	pump       *pump.Pump
	transports *transport.Server
	origins    originList
	proxies    proxyList

	clients clients
	tickets tickets
	revoked revocations
	rates   rates
	// renewals tell nodes of tokens that were renewed; nil for a lone one.
	renewals  Table
	following sync.WaitGroup // those who watch tables
	// failures are tokens that were refused, admissions subscriptions that
	// began, both of addresses.
	failures, admissions rates
	// proxyHint is given once: of all clients behind a proxy that is not known
	// for one.
	proxyHint sync.Once
	meters    *meters
	tracer    trace.Tracer // nil for no spans

	rememberer Rememberer          // the Authorizer, if it is one
	framings   atomic.Int32        // of front ends
	frontEnds  map[string]OpenPoll // by path

	draining atomic.Bool
	drained  atomic.Pointer[time.Time] // when all will have left; nil unless the hub drains
	admit    *rate.Limiter             // nil if there is no bound
	// subscribers counts the subscribe requests being served.
	subscribers atomic.Int64

	mu     sync.Mutex
	idle   chan struct{} // guarded by mu: closed when the last subscriber leaves a draining hub
	closed bool          // guarded by mu
}

var _ http.Handler = (*Hub)(nil)

// New makes a hub on an engine, which stays the caller's to close, after the
// hub. It returns an error that names the field of opts at fault. On an engine of
// several nodes, with an Authorizer, it waits up to 5 s for what was revoked on
// the others.
func New(e Engine, opts *Options) (*Hub, error) {
	if e == nil {
		return nil, errors.New("halley: no engine")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	proxies, err := newProxyList(o.TrustedProxies)
	if err != nil {
		return nil, err
	}
	h := &Hub{engine: e, proxies: proxies, opts: o, origins: newOriginList(o.Origins, o.Hosts), meters: newMeters()}
	for _, r := range o.Revoked {
		if time.Since(r.Time) < RevocationTime {
			_ = h.revoked.add(r, nil) // Options has looked for what is wrong
		}
	}
	h.rememberer, _ = o.Authorizer.(Rememberer)
	if o.TracerProvider != nil {
		h.tracer = o.TracerProvider.Tracer("github.com/halley-comet/halley", trace.WithInstrumentationVersion(o.Version))
	}
	h.pump = pump.New(e, pump.Options{
		Workers: o.Workers, Heartbeat: o.Heartbeat, WriteTimeout: o.WriteTimeout,
		NoParking: o.NoParking, NoRing: o.NoIOUring, SlowRules: o.slowRules(), Logger: o.Logger,
	})
	h.transports = transport.New(transport.Options{
		Pump:           h.pump,
		Logger:         o.Logger,
		WriteTimeout:   o.WriteTimeout,
		MultipartLimit: o.MultipartLimit,
		Boundary:       "comet-" + rand.Text(),
		Framers:        o.Origins,
		Active:         o.ActiveContent,
		Commands: transport.Commands{
			Publish: h.publishFrame, Subscribe: h.subscribeFrame, Renew: h.renewFrame, MaxChannels: o.MaxChannels,
		},
		FrameLimit: o.MaxMessage/3*4 + 4096, // as base64
		Gone:       h.leave,
		Refused:    h.meters.refuse,
	})
	if n := o.AdmitRate; n > 0 {
		h.admit = rate.NewLimiter(rate.Limit(n), n)
	}
	h.join()
	return h, nil
}

// Publish stores messages as one batch, in their order, and returns their
// positions once they are as safe as the engine promises. Each needs a Channel;
// ID and Time are set by the engine. Data of a JSON type must be valid JSON, of
// a text type valid UTF-8. The hub keeps Data and Headers: the caller must not
// change them any more.
//
// Errors wrap ErrInvalid, ErrTooLarge, ErrUnavailable, ErrClosed or ctx's.
func (h *Hub) Publish(ctx context.Context, messages ...Message) ([]Cursor, error) {
	r, err := h.PublishBatch(ctx, Batch{Messages: messages})
	if err != nil {
		return nil, err
	}
	ids := make([]Cursor, r.Count)
	for i := range ids {
		ids[i] = r.ID(i)
	}
	return ids, nil
}

// PublishBatch is Publish for a batch that may have a key, under which it is
// safe to repeat: the error may then wrap ErrKeyReused as well. Keys given here
// and those of HTTP clients are apart. A zero Digest is set from the messages'
// channels, types, content types and data.
func (h *Hub) PublishBatch(ctx context.Context, b Batch) (Receipt, error) {
	began := time.Now()
	for i := range b.Messages {
		m := b.Messages[i] // what is checked may be set, and the slice is the caller's
		if err := h.checkMessage(&m); err != nil {
			return Receipt{}, fmt.Errorf("halley: message %d: %w", i, err)
		}
	}
	if b.Key != "" {
		b.Key = "go\x00" + b.Key
		if b.Digest == [32]byte{} {
			b.Digest = digest(b.Messages, true)
		}
	}
	r, err := h.append(ctx, b)
	if err == nil {
		h.meters.publish.observe(time.Since(began))
	}
	return r, err
}

func (h *Hub) append(ctx context.Context, b Batch) (Receipt, error) {
	ctx, span := h.startSpan(ctx, &b)
	began := time.Now()
	r, err := h.engine.Append(ctx, b)
	h.meters.appended(began, &b, &r, err)
	endSpan(span, &r, err)
	if err != nil {
		return r, fmt.Errorf("halley: publish: %w", err)
	}
	return r, nil
}

// Read returns a part of the log: history. It is engine.Engine's Read.
func (h *Hub) Read(ctx context.Context, q Query) (Page, error) { return h.engine.Read(ctx, q) }

// End returns the position of the newest message: what a page is rendered with
// that subscribes from there.
func (h *Hub) End() Cursor { return h.engine.End() }

// Connections returns how many subscriptions there are, those of the hub's own
// program included.
func (h *Hub) Connections() int { return h.pump.Conns() }

// returnSpread is over what time clients come back at least that a hub has sent
// away.
const returnSpread = 5 * time.Second

// Drain refuses new subscriptions and ends each of those there are at a time of
// its own within [Options.DrainWindow], which it shortens to three quarters of
// the time that ctx gives. Until then a connection gets what is published. Its
// client is then told to come back, and if it comes to this hub again, to do so
// once the hub has gone. Drain returns when all have ended, or with ctx's error.
// Publishing goes on. A program calls it before http.Server.Shutdown, which
// would wait for streams that never end.
func (h *Hub) Drain(ctx context.Context) error {
	window := h.opts.DrainWindow
	if deadline, ok := ctx.Deadline(); ok {
		window = max(min(window, time.Until(deadline)*3/4), 0) // who is slow to go needs time too
	}
	end := time.Now().Add(window)
	h.drained.Store(&end)
	h.draining.Store(true)
	h.pump.Drain(window, func() time.Duration {
		return comeBack(500*time.Millisecond, max(returnSpread-window, time.Second))
	})
	defer func() {
		now := time.Now()
		h.drained.Store(&now)
	}()
	select {
	case <-h.lastLeft():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lastLeft returns a channel that is closed when no subscribe request is being
// served any more.
func (h *Hub) lastLeft() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil {
		h.idle = make(chan struct{})
		if h.subscribers.Load() == 0 {
			close(h.idle)
		}
	}
	return h.idle
}

// admits takes one of those that may begin in a second. An address has no more
// than a share of them, so that one that comes and goes all the time leaves
// something to others.
func (h *Hub) admits(addr netip.Addr) bool {
	if addr.IsValid() {
		share := max(h.opts.AdmitRate/admitShare, 1)
		now := time.Now()
		if !h.admissions.bucket(rateKey{addr: addr}, now, rate.Limit(share), share).AllowN(now, 1) {
			return false
		}
	}
	return h.admit.Allow()
}

// admitShare is the part of AdmitRate that one address may take.
const admitShare = 5

// enter counts a subscribe request in, which starts after a position; leave
// counts it out. enter tells why it may not be served, which it then does not
// count.
func (h *Hub) enter(q *transport.Request, after Cursor, addr netip.Addr) (p *wire.Problem) {
	n := h.subscribers.Add(1)
	switch {
	case h.draining.Load():
		p = wire.NewProblem(wire.Draining, "come back in a moment")
		p.RetryAfter = comeBack(time.Second, returnSpread-time.Second)
		if end := h.drained.Load(); end != nil {
			p.RetryAfter += max(time.Until(*end), 0)
		}
	case h.opts.MaxConnections > 0 && n > int64(h.opts.MaxConnections):
		p = wire.NewProblem(wire.TooManyConns, "come back in a moment")
		p.RetryAfter = comeBack(2*time.Second, 8*time.Second)
	case h.admit != nil && !h.goesOn(q, after) && !h.admits(addr):
		p = wire.NewProblem(wire.Overloaded, "many clients come at once: come back in a moment")
		p.RetryAfter = comeBack(time.Second, returnSpread)
	default:
		return nil
	}
	h.leave() // refusing may take a moment, which is no one else's
	return p
}

// goesOn tells of a poll that goes on from what is in memory, as one does that
// comes back from an answer: to refuse it would take more than to hold it.
func (h *Hub) goesOn(q *transport.Request, after Cursor) bool {
	if q.Transport != transport.LongPolling && q.Transport != transport.JSONP {
		return false
	}
	end := h.engine.End()
	return after.Epoch == end.Epoch && after.Seq+engine.Recent >= end.Seq
}

func (h *Hub) leave() {
	if h.subscribers.Add(-1) > 0 || !h.draining.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle != nil && h.subscribers.Load() == 0 {
		select {
		case <-h.idle:
		default:
			close(h.idle)
		}
	}
}

// Close cuts all connections and returns when the hub's goroutines are gone;
// those of its HTTP requests end with them. Drain first, so that clients know.
// The engine stays open. A second Close does nothing.
func (h *Hub) Close() error {
	h.draining.Store(true)
	h.mu.Lock()
	closed := h.closed
	h.closed = true
	h.mu.Unlock()
	if closed {
		return nil
	}
	h.pump.Close()
	h.following.Wait()
	<-h.lastLeft()
	h.transports.Close()
	return nil
}
