package halley

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"
)

// An Authorizer says what clients may do. Package auth has some: for JSON Web
// Tokens, and for an application that is asked by HTTP.
//
// Authorize is called for every request that comes with a token, or without
// one, from any number of goroutines; so it remembers what took it long.
// Connections that are held are not asked for again: a grant holds until it
// expires or is revoked.
//
// It returns an error that wraps ErrUnauthorized for credentials that are not
// good, and ErrUnavailable if it could not find out. The text of an
// ErrUnauthorized is told to the client.
type Authorizer interface {
	Authorize(ctx context.Context, c Credentials) (*Grant, error)
}

// A Rememberer is an Authorizer that can say without waiting what it knows of a
// token already: Front then serves plain requests with it. It grants by nothing
// but the token, which is "" for clients without one. It reports false for what
// Authorize has to find out, or would refuse.
type Rememberer interface {
	Authorizer
	Remembered(token string) (*Grant, bool)
}

// AuthorizerFunc is an Authorizer that is a function.
type AuthorizerFunc func(ctx context.Context, c Credentials) (*Grant, error)

// Authorize calls f.
func (f AuthorizerFunc) Authorize(ctx context.Context, c Credentials) (*Grant, error) {
	return f(ctx, c)
}

// Credentials are what a client shows.
type Credentials struct {
	// Token is the bearer token, from wherever it may be given; "" if there is
	// none.
	Token string
	// Address is the client's, which a trusted proxy may have told; the zero
	// Addr if it is not known.
	Address netip.Addr
	// Request is the request it came with. Its body is not to be read. It may
	// be kept by no one.
	Request *http.Request
}

// A Grant is what a client may do. It must not be changed once it was returned.
type Grant struct {
	// User is who the client is: idempotency keys, limits and revocations go by
	// it. "" is nobody in particular, as all clients without a token are.
	User string
	// ID is the token's own, to revoke it by (RFC 7519, 4.1.7); "" if it has
	// none.
	ID string
	// Issued is when the token was made, to know by whether it is older than a
	// user's revocation; the zero Time is older than any.
	Issued time.Time
	// Expires is when the grant ends, and connections that are held by it; the
	// zero Time is never.
	Expires time.Time
	// Subscribe and Publish are the names and patterns of the channels to read
	// and to write. A right to a pattern is one to all patterns within.
	Subscribe, Publish []string
	// Admin may revoke the tokens of others.
	Admin bool
	// Limits are the user's own, where they are not those of Options.
	Limits Limits
}

// Limits bound what one user does; what is 0 is as Options say, and less than 0
// is no bound.
type Limits struct {
	// Connections is how many subscriptions the user may hold at once.
	Connections int
	// PublishRate is how many messages a second the user may publish, and
	// PublishBurst how many at once.
	PublishRate  float64
	PublishBurst int
}

// ErrUnauthorized is wrapped by the errors of an Authorizer for credentials
// that are not good.
var ErrUnauthorized = errors.New("halley: unauthorized")
