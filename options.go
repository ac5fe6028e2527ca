package halley

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
)

// Options of a Hub. The zero value, and nil, are the defaults.
type Options struct {
	// Path is where the hub is mounted, such as "/comet". It is needed only
	// with routers that neither strip it nor set [http.Request.Pattern]:
	// otherwise the hub finds it out.
	Path string
	// Heartbeat is the longest silence of a stream; default 25 s, at least
	// 10 ms.
	Heartbeat time.Duration
	// PollTimeout is how long a poll is held that does not say; default 25 s,
	// at most 60 s.
	PollTimeout time.Duration
	// WriteTimeout is how long a client may leave a connection unread, once
	// the buffers between are full, or pause in the body of a request, before
	// it is cut; default 30 s.
	WriteTimeout time.Duration
	// MultipartLimit is how long a raw multipart stream lasts; default 5
	// minutes. An <img> cannot close it, and in some engines not even leaving
	// the page does.
	MultipartLimit time.Duration

	// Origins are the web origins whose pages may use the hub, beside its own
	// and those on loopback names: "https://app.example.com", or "*" for all.
	// An iframe's page is shown below them, beside the page that asked for it.
	Origins []string
	// Hosts are the names, with a port if it is not the scheme's own, by which
	// browsers reach the hub. If there are any, requests for other names are
	// refused, but for loopback names; info tells them to clients. If there
	// are none, requests that come in on a loopback address must name a
	// loopback host: a page of a stranger could reach them under its own name.
	Hosts []string
	// TrustedProxies are the addresses, and ranges of them, of the proxies in
	// front of the hub: "127.0.0.1", "10.0.0.0/8". They are believed whom they
	// name in X-Forwarded-For or Forwarded as the client; nobody else is.
	TrustedProxies []string
	// ActiveContent lists names and patterns of channels whose HTML, SVG and
	// XML go out by raw multipart; always sandboxed. Default none.
	ActiveContent []string
	// SlowClients say what clients get that do not take what they are sent.
	// The first rule whose pattern matches a channel holds; without one they
	// catch up. They are not for the program's own subscriptions.
	SlowClients []SlowClientRule

	// DrainWindow is the time over which Drain spreads the ends of connections;
	// default 5 s, at least 1 ms.
	DrainWindow time.Duration
	// AdmitRate is the number of subscriptions a second that may begin, and of
	// those at once after a pause; others are told to come back at a time of
	// their own. Polls that go on from where they were are not counted. One
	// address, but for those on this machine, may take a fifth of it. Default
	// 5,000; less than 0 is no bound.
	AdmitRate int

	// MaxMessage is the size of a message's data at most; default 1 MiB.
	MaxMessage int
	// MaxBody is the size of a publish request's body at most; default 16 MiB.
	MaxBody int
	// MaxChannels is the number of names and patterns of a subscription at
	// most; default 1,000.
	MaxChannels int
	// MaxConnections is the number of subscriptions held at once, after which
	// clients are told to come back; default 0, no bound but the files that
	// the process may open.
	MaxConnections int

	// Authorizer says what clients may do. Without one, everybody may do
	// everything.
	Authorizer Authorizer
	// KeepRevocation keeps a revocation for the time after the hub, whose
	// Options.Revoked it is to be in. It is called with one at a time, before
	// that takes effect; an error refuses it. Without it, the hub's end forgets
	// all of them. On an engine of several nodes, these keep revocations too: it
	// is called with those of other nodes as well, for a start without them, and
	// an error is logged.
	KeepRevocation func(Revocation) error
	// Revoked are the revocations that the hub begins with, MaxRevocations at
	// most, each with its Time. KeepRevocation is not called with them, and what
	// is older than RevocationTime is left out.
	Revoked []Revocation
	// TokenCookie is the name of the cookie that a token may be in, and that
	// the first use of a ticket sets; default "comet-token".
	TokenCookie string
	// URLTokens is how long a token in a URL may still last; default 1 minute.
	// URLs are kept in logs and histories.
	URLTokens time.Duration
	// JSONPCookies has jsonp served to who has only a cookie. Any page may load
	// a script, and older browsers send the cookie with it.
	JSONPCookies bool
	// MaxConnectionsPerAddress is how many subscriptions one address may hold
	// at once, for IPv6 one network of 64 bits; default 1,000. Clients on this
	// machine have no such bound. Negative for none.
	MaxConnectionsPerAddress int
	// MaxConnectionsPerUser is how many subscriptions a user may hold at once
	// whose grant does not say; default 100. Negative for none.
	MaxConnectionsPerUser int
	// PublishRate is how many messages a second a user may publish whose grant
	// does not say, or the clients of an address that are nobody; default 1,000.
	// Negative for no bound. PublishBurst is how many at once; default 10 times
	// as many.
	PublishRate  float64
	PublishBurst int

	// Workers is the number of goroutines that bring messages to connections;
	// default GOMAXPROCS.
	Workers int
	// NoParking has every response written by a goroutine of its own. Without
	// it, responses over HTTP/1.1 take their connections over from the server
	// (http.Hijacker) where that is possible, and cost a fiftieth of the
	// memory; the handler then returns while the response goes on.
	NoParking bool
	// NoIOUring has parked connections written by a system call for each.
	// Without it, a message for many is handed to the kernel in batches
	// (io_uring(7)) where that is possible.
	NoIOUring bool
	// Logger takes what an operator should know; default slog.Default.
	Logger *slog.Logger
	// TracerProvider has every publish be a span, halley.publish. Publish
	// requests then cost more, as Front leaves them to the server. Nil for no
	// spans; a trace that a publish is part of is stored with its messages in
	// any case: see Message.Headers.
	TracerProvider trace.TracerProvider
	// Version is what info says of the program; default "dev".
	Version string
}

// A SlowClientRule says what becomes of slow clients in the channels that a
// pattern matches. A client is slow once its connection took no more, until it
// has caught up. One that comes back from an old cursor is not slow for that:
// what was in the log when it came, it gets.
type SlowClientRule struct {
	// Pattern is a channel's name or a pattern.
	Pattern string
	Policy  SlowClientPolicy
	// Limit is, with Cut, how many messages of these channels may wait for a
	// client; at least 1. With other policies it is 0.
	Limit int
}

// A SlowClientPolicy is what is done with slow clients.
type SlowClientPolicy int

const (
	// CatchUp sends them everything that is retained, later.
	CatchUp SlowClientPolicy = iota
	// LatestOnly sends them the newest message of each channel, and leaves out
	// older ones, of which a control tells.
	LatestOnly
	// Cut ends their connections when more than Limit messages wait.
	Cut
)

// maxSize is the highest of any number in Options.
const maxSize = 1 << 30

// Check reports what is wrong with the options, as New does.
func (o *Options) Check() error {
	_, err := o.withDefaults()
	return err
}

// withDefaults returns a checked copy. The error names the field at fault.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	for _, d := range []struct {
		name     string
		field    *time.Duration
		def      time.Duration
		min, max time.Duration
	}{
		{"Heartbeat", &c.Heartbeat, 25 * time.Second, 10 * time.Millisecond, time.Hour},
		{"PollTimeout", &c.PollTimeout, 25 * time.Second, time.Millisecond, time.Minute},
		{"WriteTimeout", &c.WriteTimeout, 30 * time.Second, time.Millisecond, time.Hour},
		{"MultipartLimit", &c.MultipartLimit, 5 * time.Minute, time.Millisecond, 24 * time.Hour},
		{"DrainWindow", &c.DrainWindow, 5 * time.Second, time.Millisecond, time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.def
		}
		if *d.field < d.min || *d.field > d.max {
			return c, fmt.Errorf("halley: Options.%s is %v, not between %v and %v", d.name, *d.field, d.min, d.max)
		}
	}
	for _, d := range []struct {
		name  string
		field *int
		def   int
	}{
		{"MaxMessage", &c.MaxMessage, 1 << 20},
		{"MaxBody", &c.MaxBody, 16 << 20},
		{"MaxChannels", &c.MaxChannels, 1000},
		{"MaxConnections", &c.MaxConnections, 0},
		{"Workers", &c.Workers, 0},
	} {
		if *d.field < 0 {
			return c, fmt.Errorf("halley: Options.%s is negative: %d", d.name, *d.field)
		}
		if *d.field == 0 {
			*d.field = d.def
		}
		if *d.field > maxSize {
			return c, fmt.Errorf("halley: Options.%s is %d, over %d", d.name, *d.field, maxSize)
		}
	}
	if err := c.setAccess(); err != nil {
		return c, err
	}
	if c.AdmitRate == 0 {
		c.AdmitRate = 5000
	}
	if c.AdmitRate > maxSize {
		return c, fmt.Errorf("halley: Options.AdmitRate is %d, over %d", c.AdmitRate, maxSize)
	}
	for i, host := range c.Hosts {
		if h, ok := originHost("http://" + host); !ok || h != strings.ToLower(host) {
			return c, fmt.Errorf("halley: Options.Hosts[%d] is %q, not host[:port]", i, host)
		}
	}
	for i, origin := range c.Origins {
		if _, ok := originHost(origin); !ok && origin != "*" {
			return c, fmt.Errorf("halley: Options.Origins[%d] is %q, not scheme://host[:port]", i, origin)
		}
	}
	for i, p := range c.ActiveContent {
		if err := engine.CheckPattern(p); err != nil {
			return c, fmt.Errorf("halley: Options.ActiveContent[%d]: %w", i, err)
		}
	}
	for i, r := range c.SlowClients {
		if err := r.check(); err != nil {
			return c, fmt.Errorf("halley: Options.SlowClients[%d]%w", i, err)
		}
	}
	if len(c.Revoked) > MaxRevocations {
		return c, fmt.Errorf("halley: Options.Revoked has %d revocations, over %d", len(c.Revoked), MaxRevocations)
	}
	for i, r := range c.Revoked {
		err := r.check()
		if err == nil && r.Time.IsZero() {
			err = fmt.Errorf("%w: no Time", ErrInvalid)
		}
		if err != nil {
			return c, fmt.Errorf("halley: Options.Revoked[%d]: %w", i, err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c, nil
}

// check reports what is wrong with the rule, as the end of its name.
func (r SlowClientRule) check() error {
	if err := engine.CheckPattern(r.Pattern); err != nil {
		return fmt.Errorf(".Pattern: %w", err)
	}
	switch {
	case r.Policy < CatchUp || r.Policy > Cut:
		return fmt.Errorf(".Policy is %d, not CatchUp, LatestOnly or Cut", r.Policy)
	case r.Policy == Cut && (r.Limit < 1 || r.Limit > maxSize):
		return fmt.Errorf(".Limit is %d, not between 1 and %d", r.Limit, maxSize)
	case r.Policy != Cut && r.Limit != 0:
		return fmt.Errorf(".Limit is %d, but only Cut has a limit", r.Limit)
	}
	return nil
}

// slowRules returns the rules as the pump has them.
func (o *Options) slowRules() []pump.SlowRule {
	var rules []pump.SlowRule
	for _, r := range o.SlowClients {
		rules = append(rules, pump.SlowRule{Pattern: r.Pattern, Latest: r.Policy == LatestOnly, Limit: r.Limit})
	}
	return rules
}

// setAccess checks what clients may do, and sets the defaults.
func (o *Options) setAccess() error {
	o.TokenCookie = cmp.Or(o.TokenCookie, "comet-token")
	if (&http.Cookie{Name: o.TokenCookie, Value: "x"}).Valid() != nil { // #nosec G124 -- it is sent to nobody
		return fmt.Errorf("halley: Options.TokenCookie is %q, not a cookie's name", o.TokenCookie)
	}
	o.URLTokens = cmp.Or(o.URLTokens, time.Minute)
	o.MaxConnectionsPerAddress = cmp.Or(o.MaxConnectionsPerAddress, 1000)
	o.MaxConnectionsPerUser = cmp.Or(o.MaxConnectionsPerUser, 100)
	o.PublishRate = cmp.Or(o.PublishRate, 1000)
	if o.PublishRate > maxSize || math.IsNaN(o.PublishRate) {
		return fmt.Errorf("halley: Options.PublishRate is %g, over %d", o.PublishRate, maxSize)
	}
	if o.PublishBurst < 0 || o.PublishBurst > maxSize {
		return fmt.Errorf("halley: Options.PublishBurst is %d, not between 0 and %d", o.PublishBurst, maxSize)
	}
	o.PublishBurst = cmp.Or(o.PublishBurst, max(1, int(min(10*o.PublishRate, maxSize))))
	return nil
}
