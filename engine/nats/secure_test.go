package nats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/halley-comet/halley/internal/certtest"
	"github.com/halley-comet/halley/internal/natstest"
)

// TestSecured has a server that speaks TLS, and asks for a password and for the
// client's certificate.
func TestSecured(t *testing.T) {
	dir := t.TempDir()
	cert, key := certtest.SelfSigned(t)
	server := natstest.Start(t, dir, fmt.Sprintf(
		"tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\nauthorization { user: halley, password: s3cret }", cert, key, cert))
	address := strings.TrimPrefix(server.URL, "nats://")
	open := func(patience time.Duration, user string, connect ...natsgo.Option) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		l, err := Open(ctx, t.TempDir(), Options{URL: "tls://" + user + "@" + address, Replicas: 1, StreamBytes: 64 << 20, Connect: connect})
		if err != nil {
			return err
		}
		defer l.Close()
		_, err = l.Append(t.Context(), one("a", "1"))
		return err
	}
	if err := open(testPatience, "halley:s3cret", natsgo.RootCAs(cert), natsgo.ClientCert(cert, key)); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"Authorization Violation": open(2*time.Second, "halley:wrong", natsgo.RootCAs(cert), natsgo.ClientCert(cert, key)),
		"unknown authority":       open(2*time.Second, "halley:s3cret", natsgo.ClientCert(cert, key)),
		"tls":                     open(2*time.Second, "halley:s3cret", natsgo.RootCAs(cert)),
	} {
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error does not tell of %q: %v", what, err)
		}
	}
}

// TestAccount has a server of accounts, and a node with a credentials file, whose
// user may do what docs/cluster.md says a node needs to do, and nothing else.
func TestAccount(t *testing.T) {
	dir := t.TempDir()
	operator, account, system, user := nkey(t, nkeys.CreateOperator), nkey(t, nkeys.CreateAccount), nkey(t, nkeys.CreateAccount), nkey(t, nkeys.CreateUser)
	a := jwt.NewAccountClaims(account.public)
	a.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	o := jwt.NewOperatorClaims(operator.public)
	o.SystemAccount = system.public
	u := jwt.NewUserClaims(user.public)
	u.Pub.Allow.Add("halley.>", "$JS.API.>", "$KV.>")
	u.Sub.Allow.Add("_INBOX.>")
	signed := func(c jwt.Claims, by key) string {
		token, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(signed(u, account), seed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "halley.creds")
	if err := os.WriteFile(path, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	server := natstest.Start(t, dir, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s: %s\n%s: %s\n}",
		signed(o, operator), system.public,
		account.public, signed(a, operator), system.public, signed(jwt.NewAccountClaims(system.public), operator)))
	open := func(patience time.Duration, connect ...natsgo.Option) (*Log, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return Open(ctx, t.TempDir(), Options{URL: server.URL, Replicas: 1, StreamBytes: 64 << 20, Connect: connect})
	}
	var refused atomic.Pointer[error]
	l, err := open(testPatience, natsgo.UserCredentials(path), natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
		refused.Store(&err)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Append(t.Context(), one("a", "1")); err != nil {
		t.Error(err)
	}
	batch := one("a", "2")
	batch.Messages = append(batch.Messages, batch.Messages[0])
	if _, err := l.Append(t.Context(), batch); err != nil {
		t.Error(err)
	}
	things := l.Table("things", time.Minute)
	if _, err := things.Put(t.Context(), "key", []byte("value")); err != nil {
		t.Error(err)
	}
	if value, _, err := things.Get(t.Context(), "key"); err != nil || string(value) != "value" {
		t.Errorf("%q, %v", value, err)
	}
	if err := refused.Load(); err != nil {
		t.Errorf("the node did what it was not allowed to: %v", *err)
	}
	if _, err := open(2 * time.Second); err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("without credentials: %v", err)
	}
}

// A key is an nkey and its public part.
type key struct {
	nkeys.KeyPair
	public string
}

func nkey(t *testing.T, create func() (nkeys.KeyPair, error)) key {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key{k, public}
}
