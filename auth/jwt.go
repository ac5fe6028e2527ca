package auth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
)

// MaxToken is the length of a token at most, in bytes.
const MaxToken = 8 << 10

// JWTOptions say which tokens are good. One of Secret, PublicKeys and JWKS must
// be given, and only one. Which algorithms a token may be signed by follows
// from the kind of the key, and is never the token's choice: HS256, 384 and 512
// for a secret; RS and PS for RSA; ES for ECDSA, the one of the key's curve;
// EdDSA for Ed25519. Keys that a token brings along (jwk, jku, x5c, x5u) are
// ignored.
type JWTOptions struct {
	// Secret is shared with who signs the tokens (HMAC); at least 32 bytes.
	Secret []byte
	// PublicKeys are public keys or certificates in PEM, at most 8: RSA of 2,048
	// bits or more, ECDSA, or Ed25519. A token is tried with each that suits
	// it; its kid says nothing.
	PublicKeys []byte
	// JWKS is the URL of a key set (RFC 7517, 5) with at most 100 keys, of the
	// same kinds; symmetric keys in it are ignored. Whoever is on the way to an
	// http URL can forge tokens. Redirects are not followed.
	//
	// The set is fetched at the start and then every Refresh. It is also
	// fetched when a token names a key (kid) that is not in it, but at most
	// every 10 seconds. While it cannot be fetched, tokens of the keys that are
	// known go on, and it is tried again every 30 seconds; tokens of others get
	// ErrUnavailable, and all do as long as it never was. NewJWT does not wait
	// for it. What is no longer in a set that was fetched is no longer good, be
	// it remembered or not.
	JWKS string
	// Refresh is how often the key set is fetched; default 1 hour, at least
	// 1 minute.
	Refresh time.Duration
	// Timeout is that of a fetch; default 5 s.
	Timeout time.Duration
	// Client fetches, if http.DefaultTransport is not what is wanted. Its
	// CheckRedirect is not used.
	Client *http.Client

	// Issuer must be a token's iss, if it is given.
	Issuer string
	// Audience has what a token must have one of in its aud, if it is given.
	// Without, tokens that are meant for others are good here too.
	Audience []string
	// Leeway is how far clocks may differ: a token may be used by so much before
	// its nbf and iat and after its exp; default 10 s, at most 5 minutes,
	// negative for none. Every token must have an exp.
	Leeway time.Duration
	// Claim is the name of the claim that has the Rights; default "halley". A
	// token without it is refused.
	Claim string

	// Anonymous is what a client without a token may do; nil: nothing, it gets
	// ErrUnauthorized.
	Anonymous *halley.Grant
	// Remember is how many verified tokens are remembered, by their SHA-256, so
	// that they are not verified again; default 10,000, negative for none. Each
	// takes some 500 bytes and what its rights take.
	Remember int
	// Logger takes what becomes of the key set; default slog.Default.
	Logger *slog.Logger
}

// A JWT is a halley.Authorizer for JSON Web Tokens (RFC 7519). The claim sub is
// the grant's user, jti its ID, iat when it was issued, and exp with the leeway
// when it ends. The claim halley has the client's Rights:
//
//	{"sub": "ann", "exp": 1795730400, "halley": {"subscribe": ["chat/**"]}}
//
// Claims must not come twice, and sub and jti have at most 255 bytes and no
// control characters. Tokens with critical headers (crit) are refused.
type JWT struct {
	options JWTOptions
	static  *keySet // of a secret or public keys
	remote  *jwks   // or else
	parser  *jwt.Parser
	cache   cache
}

var _ halley.Rememberer = (*JWT)(nil)

// NewJWT returns an authorizer, which its user closes. The error names the
// option at fault.
func NewJWT(o JWTOptions) (*JWT, error) {
	j := &JWT{options: o}
	if err := j.setOptions(); err != nil {
		return nil, fmt.Errorf("auth: JWTOptions%w", err)
	}
	parse := []jwt.ParserOption{
		jwt.WithValidMethods(j.methods()), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(j.options.Leeway),
	}
	if o.Issuer != "" {
		parse = append(parse, jwt.WithIssuer(o.Issuer))
	}
	if len(o.Audience) > 0 {
		parse = append(parse, jwt.WithAudience(o.Audience...))
	}
	j.parser = jwt.NewParser(parse...)
	j.cache = newCache(j.options.Remember)
	if o.JWKS != "" {
		j.remote = openJWKS(&j.options)
	}
	return j, nil
}

// setOptions checks the options, fills in the defaults and reads the keys. The
// error is the end of the option's name, and what is wrong.
func (j *JWT) setOptions() error {
	o := &j.options
	sources := 0
	for _, given := range []bool{len(o.Secret) > 0, len(o.PublicKeys) > 0, o.JWKS != ""} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		return fmt.Errorf(".Secret, PublicKeys or JWKS: %d of them are given, not one", sources)
	}
	switch {
	case len(o.Secret) > 0:
		if err := checkSecret(o.Secret); err != nil {
			return fmt.Errorf(".Secret: %w", err)
		}
		j.static = &keySet{keys: []any{bytes.Clone(o.Secret)}}
	case len(o.PublicKeys) > 0:
		keys, err := parsePublic(o.PublicKeys)
		if err != nil {
			return fmt.Errorf(".PublicKeys: %w", err)
		}
		j.static = &keySet{keys: keys}
	default:
		if err := checkURL(o.JWKS); err != nil {
			return fmt.Errorf(".JWKS: %w", err)
		}
	}
	if err := checkGrant(o.Anonymous); err != nil {
		return fmt.Errorf(".Anonymous: %w", err)
	}
	o.Claim = cmp.Or(o.Claim, "halley")
	o.Remember = cmp.Or(o.Remember, 10_000)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return cmp.Or(
		duration("Refresh", &o.Refresh, time.Hour, time.Minute, 7*24*time.Hour),
		duration("Timeout", &o.Timeout, 5*time.Second, time.Millisecond, time.Minute),
		leeway(&o.Leeway),
	)
}

func leeway(d *time.Duration) error {
	if *d < 0 {
		*d = 0
		return nil
	}
	return duration("Leeway", d, 10*time.Second, 0, 5*time.Minute)
}

// duration sets an option's default and checks its bounds.
func duration(name string, d *time.Duration, def, least, most time.Duration) error {
	*d = cmp.Or(*d, def)
	if *d < least || *d > most {
		return fmt.Errorf(".%s is %v, not between %v and %v", name, *d, least, most)
	}
	return nil
}

// methods returns the algorithms that some key may have: those of the static
// ones, or all for public keys.
func (j *JWT) methods() []string {
	if j.static == nil {
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	}
	var list []string
	for _, key := range j.static.keys {
		list = append(list, algorithms(key)...)
	}
	return list
}

// Close ends the fetching of a key set. After it only tokens of keys that are
// known are good.
func (j *JWT) Close() error {
	if j.remote != nil {
		j.remote.close()
	}
	return nil
}

// Authorize returns what a token grants. It does not wait, except for a key set
// that is being fetched because it has no key of the token's kid.
//
// The error wraps halley.ErrUnauthorized and the error of package jwt where
// that has found something, or halley.ErrUnavailable if the key set could not
// be fetched. It does not tell a stranger more than is in the token.
func (j *JWT) Authorize(ctx context.Context, c halley.Credentials) (*halley.Grant, error) {
	if c.Token == "" {
		return anonymous(j.options.Anonymous)
	}
	if len(c.Token) > MaxToken {
		return nil, fmt.Errorf("%w: a token of %d bytes, at most %d", halley.ErrUnauthorized, len(c.Token), MaxToken)
	}
	set := j.keys()
	d := sha256.Sum256([]byte(c.Token))
	if e, ok := j.cache.get(d); ok && e.keys == set {
		return e.grant, nil
	}
	g, err := j.verify(c.Token, set)
	if errors.Is(err, errUnknownKey) && j.remote != nil {
		if err := j.remote.fetch(ctx); err != nil {
			return nil, fmt.Errorf("auth: %w: %w", halley.ErrUnavailable, err)
		}
		set = j.keys()
		g, err = j.verify(c.Token, set)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", halley.ErrUnauthorized, err)
	}
	j.cache.put(d, entry{grant: g, until: g.Expires, keys: set})
	return g, nil
}

// Remembered implements halley.Rememberer.
func (j *JWT) Remembered(token string) (*halley.Grant, bool) {
	if token == "" {
		return j.options.Anonymous, j.options.Anonymous != nil
	}
	e, ok := j.cache.get(sha256.Sum256([]byte(token)))
	if !ok || e.keys != j.keys() {
		return nil, false
	}
	return e.grant, true
}

// anonymous returns the grant for a client without a token.
func anonymous(g *halley.Grant) (*halley.Grant, error) {
	if g == nil {
		return nil, fmt.Errorf("%w: a token is needed", halley.ErrUnauthorized)
	}
	return g, nil
}

// keys returns what tokens are verified by now; nil if it was never fetched.
func (j *JWT) keys() *keySet {
	if j.remote != nil {
		return j.remote.set.Load()
	}
	return j.static
}

// verify returns what a token grants, for a signature by a key of the set. An
// error about what it says wraps jwt.ErrTokenInvalidClaims, and means that the
// signature is good.
func (j *JWT) verify(token string, set *keySet) (*halley.Grant, error) {
	if set == nil {
		return nil, errUnknownKey
	}
	// The decoder of base64 passes over line ends: one token would have many
	// spellings.
	if strings.ContainsAny(token, "\r\n") {
		return nil, fmt.Errorf("%w: it has line ends", jwt.ErrTokenMalformed)
	}
	var c claims
	if _, err := j.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		// RFC 7515, 4.1.11: what is not understood is refused.
		if _, ok := t.Header["crit"]; ok {
			return nil, errors.New("its critical headers are not understood")
		}
		return set.find(t)
	}); err != nil {
		return nil, err
	}
	g, err := j.grant(&c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", jwt.ErrTokenInvalidClaims, err)
	}
	return g, nil
}

// grant returns what claims grant that are good so far.
func (j *JWT) grant(c *claims) (*halley.Grant, error) {
	raw, ok := c.others[j.options.Claim]
	if !ok {
		return nil, fmt.Errorf("there is no claim %q", j.options.Claim)
	}
	var r Rights
	if err := r.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", j.options.Claim, err)
	}
	if err := cmp.Or(checkName("sub", c.sub), checkName("jti", c.jti)); err != nil {
		return nil, err
	}
	g := r.grant()
	g.User, g.ID, g.Issued = c.sub, c.jti, c.iat
	g.Expires = c.exp.Add(j.options.Leeway)
	return g, nil
}
