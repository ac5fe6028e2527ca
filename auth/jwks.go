package auth

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"golang.org/x/sync/singleflight"
)

const (
	// refetchAfter is the time from one fetch of a key set to the next at
	// least: tokens with made-up keys ask for it as well.
	refetchAfter = 10 * time.Second
	// retryAfter is the time until a fetch that failed is tried again by
	// itself.
	retryAfter = 30 * time.Second
	// maxSetBytes and maxSetKeys bound a key set.
	maxSetBytes = 1 << 20
	maxSetKeys  = 100
)

// A jwks is a key set (RFC 7517, 5) at a URL. One goroutine fetches it again
// from time to time. Jwkset could do that too, but cannot tell a key that is
// not in the set from a set that was not got, and lets requests queue.
type jwks struct {
	url     string
	client  *http.Client
	timeout time.Duration
	every   time.Duration
	logger  *slog.Logger

	set    atomic.Pointer[keySet] // nil until it was fetched once
	flight singleflight.Group     // of fetches

	// of the flight
	last time.Time
	err  error

	ctx  context.Context // ends fetching
	stop context.CancelFunc
	gone chan struct{}
}

func openJWKS(o *JWTOptions) *jwks {
	s := &jwks{
		url: o.JWKS, client: clientOf(o.Client, 1), timeout: o.Timeout, every: o.Refresh, logger: o.Logger,
		gone: make(chan struct{}),
	}
	s.client.Transport = bounded{s.client.Transport}
	s.ctx, s.stop = context.WithCancel(context.Background())
	go s.run()
	return s
}

// run fetches until the set is closed.
func (s *jwks) run() {
	defer close(s.gone)
	for s.ctx.Err() == nil {
		wait := s.every
		if err := s.fetch(s.ctx); err != nil {
			wait = min(wait, retryAfter)
		}
		wait -= rand.N(wait / 10) // #nosec G404 -- no secret: it parts servers that were started together
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
		}
	}
}

func (s *jwks) close() {
	s.stop()
	<-s.gone
	// Whoever came in the meantime.
	_, _, _ = s.flight.Do("", func() (any, error) { return nil, nil })
}

// fetch gets the set, or waits for who is getting it. If that was only just
// done, its outcome is returned.
func (s *jwks) fetch(ctx context.Context) error {
	ch := s.flight.DoChan("", func() (any, error) {
		if s.last.IsZero() || time.Since(s.last) >= refetchAfter {
			s.last, s.err = time.Now(), s.get()
		}
		return nil, s.err
	})
	select {
	case r := <-ch:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// get gets the set. What it says of a failure is logged here, as those who
// asked for it may be gone.
func (s *jwks) get() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	set, err := s.load(ctx)
	if err != nil {
		err = fmt.Errorf("the key set could not be fetched: %w", err)
		if s.ctx.Err() == nil {
			s.logger.Warn("a key set could not be fetched: tokens of known keys go on", "url", redacted(s.url), "error", err)
		}
		return err
	}
	// An equal set stays the same one, as what was verified by it is still.
	if old := s.set.Load(); old == nil || old.text != set.text {
		s.set.Store(set)
		s.logger.Info("the key set is new", "url", redacted(s.url), "keys", len(set.keys))
	}
	return nil
}

func (s *jwks) load(ctx context.Context) (*keySet, error) {
	got, err := jwkset.NewStorageFromHTTP(s.url, jwkset.HTTPClientStorageOptions{Client: s.client, Ctx: ctx, HTTPTimeout: s.timeout})
	if err != nil {
		return nil, err
	}
	all, err := got.KeyReadAll(ctx)
	if err != nil {
		return nil, err
	}
	set := &keySet{}
	var usable []jwkset.JWK
	for _, k := range all {
		key := public(k.Key())
		if use := k.Marshal().USE; use != "" && use != jwkset.UseSig || checkPublic(key) != nil {
			continue // for something else, or too weak: it is as if it were not there
		}
		set.keys = append(set.keys, key)
		usable = append(usable, k)
	}
	if len(usable) == 0 || len(usable) > maxSetKeys {
		return nil, fmt.Errorf("it has %d keys that can be used, not between 1 and %d", len(usable), maxSetKeys)
	}
	storage := jwkset.NewMemoryStorage()
	if err := storage.KeyReplaceAll(ctx, usable); err != nil {
		return nil, err
	}
	text, err := storage.JSONPublic(ctx)
	if err != nil {
		return nil, err
	}
	set.text = string(text)
	set.named, err = keyfunc.New(keyfunc.Options{Storage: storage})
	return set, err
}

// public returns the public half, if a set has a private key.
func public(key any) any {
	if k, ok := key.(crypto.Signer); ok {
		return k.Public()
	}
	return key
}

// clientOf returns a copy of a client, or a new one, that follows no redirects
// and keeps so many connections.
func clientOf(c *http.Client, idle int) *http.Client {
	var client http.Client
	if c != nil {
		client = *c
	}
	if client.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = idle
		client.Transport = t
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// bounded bounds the bodies of answers.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxSetBytes), res.Body}
	}
	return res, err
}

// checkURL reports what is wrong with the URL of a service.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not an http or https URL", redacted(s))
	}
	return nil
}

// redacted returns a URL without its password, to be logged.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	return u.Redacted()
}
