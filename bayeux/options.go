package bayeux

import (
	"fmt"
	"time"
)

// Options of a Handler. The zero value, and nil, are the defaults.
type Options struct {
	// Timeout is how long a connect is held while there is nothing to say;
	// default 30 s, at most 60 s. A client may ask for less.
	Timeout time.Duration
	// Interval is what clients are told to wait between two connects; default
	// none.
	Interval time.Duration
	// MaxInterval is how long a session lasts beyond Interval that has no
	// connect; default 10 s.
	MaxInterval time.Duration
	// IdleTimeout ends sessions that have sent nothing but connects for so
	// long; 0 never does. With IdleDeliveries, messages that they get count too.
	IdleTimeout    time.Duration
	IdleDeliveries bool
	// Timestamp adds the time to every message and reply, as an HTTP date.
	Timestamp bool

	// MaxSessions is how many there may be at once; default 100,000.
	MaxSessions int
	// MaxSessionsPerUser is how many a user may have, or an address of those that
	// are nobody; default 1,000. Clients on this machine that are nobody have no
	// such bound. Negative for none.
	MaxSessionsPerUser int
	// MaxSocketsPerAddress is how many WebSockets an address may hold; default
	// 1,000, with the same exception. Negative for no bound.
	MaxSocketsPerAddress int
	// MaxSubscriptions is how many names and patterns a session may have;
	// default 1,000.
	MaxSubscriptions int
	// MaxBatch is how many messages a request may have; default 1,000.
	MaxBatch int
	// MaxBody is the size of a request's body or a WebSocket message at most;
	// default 2 MiB.
	MaxBody int
	// MaxQueue is how many replies of service handlers may wait for one
	// session; default 100.
	MaxQueue int
	// MaxSessionsPerBrowser is how many sessions of one browser, by its cookie
	// BAYEUX_BROWSER, may hold a connect over HTTP/1.1, which gives a page few
	// connections; default 1. Others are told to poll every
	// MultiSessionInterval, default 2 s. Negative for no bound.
	MaxSessionsPerBrowser int
	MultiSessionInterval  time.Duration

	// PrivateExt are members of ext that are not delivered with what is published,
	// beside those that are a token's place (token, authentication, halley,
	// authToken) or an extension's of this handler.
	PrivateExt []string
}

func (o *Options) withDefaults() (Options, error) {
	var d Options
	if o != nil {
		d = *o
	}
	for _, t := range []struct {
		name           string
		value          *time.Duration
		standard, most time.Duration
	}{
		{"Timeout", &d.Timeout, 30 * time.Second, time.Minute},
		{"Interval", &d.Interval, 0, time.Hour},
		{"MaxInterval", &d.MaxInterval, 10 * time.Second, 24 * time.Hour},
		{"IdleTimeout", &d.IdleTimeout, 0, 365 * 24 * time.Hour},
		{"MultiSessionInterval", &d.MultiSessionInterval, 2 * time.Second, time.Hour},
	} {
		if *t.value < 0 || *t.value > t.most {
			return d, fmt.Errorf("bayeux: Options.%s is %v: want 0 to %v", t.name, *t.value, t.most)
		}
		if *t.value == 0 {
			*t.value = t.standard
		}
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"MaxSessions", &d.MaxSessions, 100_000},
		{"MaxSubscriptions", &d.MaxSubscriptions, 1000},
		{"MaxBatch", &d.MaxBatch, 1000},
		{"MaxBody", &d.MaxBody, 2 << 20},
		{"MaxQueue", &d.MaxQueue, 100},
	} {
		if *n.value < 0 {
			return d, fmt.Errorf("bayeux: Options.%s is %d", n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.standard
		}
	}
	if d.MaxSessionsPerBrowser == 0 {
		d.MaxSessionsPerBrowser = 1
	}
	if d.MaxSessionsPerUser == 0 {
		d.MaxSessionsPerUser = 1000
	}
	if d.MaxSocketsPerAddress == 0 {
		d.MaxSocketsPerAddress = 1000
	}
	return d, nil
}
