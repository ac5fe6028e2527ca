package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

// access holds who may do what, and how much of it.
type access struct {
	Open               bool     `env:"HALLEY_OPEN" help:"Let everybody do everything: a decision that is asked for on other addresses than loopback, where there are no tokens and no anonymous rights."`
	AnonymousSubscribe []string `env:"HALLEY_ANONYMOUS_SUBSCRIBE" help:"Names and patterns of channels that may be read without a token." placeholder:"PATTERN"`
	AnonymousPublish   []string `env:"HALLEY_ANONYMOUS_PUBLISH" help:"Names and patterns of channels that may be published to without a token." placeholder:"PATTERN"`

	AuthSecretFile string   `env:"HALLEY_AUTH_SECRET_FILE" help:"Take JSON Web Tokens that are signed with the secret in a file, of 32 bytes or more." placeholder:"FILE"`
	AuthKeyFile    string   `env:"HALLEY_AUTH_KEY_FILE" help:"Take JSON Web Tokens that are signed for the public keys in a file, PEM." placeholder:"FILE"`
	AuthJWKS       string   `name:"auth-jwks" env:"HALLEY_AUTH_JWKS" help:"Take JSON Web Tokens that are signed for a key of the set at a URL." placeholder:"URL"`
	AuthIssuer     string   `env:"HALLEY_AUTH_ISSUER" help:"What a token's iss must be." placeholder:"NAME"`
	AuthAudience   []string `env:"HALLEY_AUTH_AUDIENCE" help:"What a token's aud must have one of." placeholder:"NAME"`

	AuthWebhook           string        `env:"HALLEY_AUTH_WEBHOOK" help:"Ask an application what a client may do, by POST to a URL." placeholder:"URL"`
	AuthWebhookSecretFile string        `env:"HALLEY_AUTH_WEBHOOK_SECRET_FILE" help:"The secret in a file is sent to the application as a bearer token." placeholder:"FILE"`
	AuthWebhookHeaders    []string      `env:"HALLEY_AUTH_WEBHOOK_HEADERS" help:"Headers of the client's request that the application is told, such as Cookie." placeholder:"NAME"`
	AuthWebhookTimeout    time.Duration `default:"3s" env:"HALLEY_AUTH_WEBHOOK_TIMEOUT" help:"How long the application may take (${default})." placeholder:"DUR"`

	TokenCookie  string        `default:"comet-token" env:"HALLEY_TOKEN_COOKIE" help:"Name of the cookie that a token may be in (${default})." placeholder:"NAME"`
	URLTokens    time.Duration `name:"url-tokens" default:"1m" env:"HALLEY_URL_TOKENS" help:"How long a token in a URL may still last (${default}); URLs are kept in logs." placeholder:"DUR"`
	JSONPCookies bool          `name:"jsonp-cookies" env:"HALLEY_JSONP_COOKIES" help:"Serve jsonp to clients that have only a cookie, though any page may load a script."`

	MaxConnectionsPerAddress int     `default:"1000" env:"HALLEY_MAX_CONNECTIONS_PER_ADDRESS" help:"Subscriptions that one address may hold (${default}); none for loopback, -1 for no bound." placeholder:"N"`
	MaxConnectionsPerUser    int     `default:"100" env:"HALLEY_MAX_CONNECTIONS_PER_USER" help:"Subscriptions that a user may hold whose token does not say (${default}); -1 for no bound." placeholder:"N"`
	PublishRate              float64 `default:"1000" env:"HALLEY_PUBLISH_RATE" help:"Messages a second that a user may publish whose token does not say, or an address without tokens (${default}); none for loopback without tokens, -1 for no bound." placeholder:"N"`
	PublishBurst             int     `default:"0" env:"HALLEY_PUBLISH_BURST" help:"Messages that may be published at once; 0 for ten times the rate (default)." placeholder:"N"`
}

// set sets the options of a hub.
func (a *access) set(o *halley.Options) {
	o.TokenCookie, o.URLTokens, o.JSONPCookies = a.TokenCookie, a.URLTokens, a.JSONPCookies
	o.MaxConnectionsPerAddress, o.MaxConnectionsPerUser = a.MaxConnectionsPerAddress, a.MaxConnectionsPerUser
	o.PublishRate, o.PublishBurst = a.PublishRate, a.PublishBurst
}

// decided tells whether the settings say what strangers may do.
func (a *access) decided() bool {
	return a.Open || a.AuthSecretFile != "" || a.AuthKeyFile != "" || a.AuthJWKS != "" || a.AuthWebhook != "" ||
		len(a.AnonymousSubscribe) > 0 || len(a.AnonymousPublish) > 0
}

// errUndecided is why a server does not start.
var errUndecided = errors.New("halley: who may publish and subscribe is not decided: on an address that others reach, set --auth-secret-file, --auth-key-file, --auth-jwks or --auth-webhook, or --anonymous-subscribe and --anonymous-publish, or --open for everybody and everything")

// check says what an address is open to, or that it must not be.
func (a *access) check(addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	loopback := !ok || tcp.IP.IsLoopback()
	switch {
	case !a.decided() && !loopback:
		return errUndecided
	case a.Open && !loopback:
		slog.Warn("halley: open to everybody: who reaches this address may publish and subscribe to every channel")
	case !a.decided():
		slog.Warn("halley: open for development: every program of this machine, and whoever a proxy on it lets through, may publish and subscribe to every channel")
	}
	return nil
}

// authorizer returns what says who may do what, nil for everybody and
// everything, and what closes it.
func (a *access) authorizer() (halley.Authorizer, io.Closer, error) {
	ways := 0
	for _, s := range []string{a.AuthSecretFile, a.AuthKeyFile, a.AuthJWKS, a.AuthWebhook} {
		if s != "" {
			ways++
		}
	}
	var anonymous *halley.Grant
	if len(a.AnonymousSubscribe) > 0 || len(a.AnonymousPublish) > 0 {
		rights := auth.Rights{Subscribe: a.AnonymousSubscribe, Publish: a.AnonymousPublish}
		if err := rights.Check(); err != nil {
			return nil, nil, fmt.Errorf("--anonymous-subscribe and --anonymous-publish: %w", err)
		}
		anonymous = &halley.Grant{Subscribe: a.AnonymousSubscribe, Publish: a.AnonymousPublish}
	}
	switch {
	case ways > 1:
		return nil, nil, errors.New("only one of --auth-secret-file, --auth-key-file, --auth-jwks and --auth-webhook can be set")
	case a.Open && (ways > 0 || anonymous != nil):
		return nil, nil, errors.New("--open is for everybody and everything: it goes with no --auth- and --anonymous- setting")
	case a.AuthWebhook != "":
		key, err := secret(a.AuthWebhookSecretFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--auth-webhook-secret-file: %w", err)
		}
		w, err := auth.NewWebhook(auth.WebhookOptions{
			URL: a.AuthWebhook, Secret: string(key), Headers: a.AuthWebhookHeaders, Timeout: a.AuthWebhookTimeout, Anonymous: anonymous,
		})
		return w, w, err
	case ways == 1:
		o := auth.JWTOptions{JWKS: a.AuthJWKS, Issuer: a.AuthIssuer, Audience: a.AuthAudience, Anonymous: anonymous}
		var err error
		if o.Secret, err = secret(a.AuthSecretFile); err != nil {
			return nil, nil, fmt.Errorf("--auth-secret-file: %w", err)
		}
		if a.AuthKeyFile != "" {
			if o.PublicKeys, err = os.ReadFile(a.AuthKeyFile); err != nil {
				return nil, nil, fmt.Errorf("--auth-key-file: %w", err)
			}
		}
		j, err := auth.NewJWT(o)
		return j, j, err
	case anonymous != nil:
		return halley.AuthorizerFunc(func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
			if c.Token != "" {
				return nil, fmt.Errorf("%w: this server takes no tokens", halley.ErrUnauthorized)
			}
			return anonymous, nil
		}), nil, nil
	}
	return nil, nil, nil
}

// secret reads a secret from a file, nil if there is no file.
func secret(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return readSecret(file)
}
