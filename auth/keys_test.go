package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

var secret = []byte("a secret that is long enough for HS256")

// A signer signs tokens by one kind of key.
type signer struct {
	name   string
	method jwt.SigningMethod
	key    any // to sign with
	public any // nil for a secret
}

// signers has one of each kind. Keys take long to make, so it is done once.
var signers = sync.OnceValue(func() []signer {
	list := []signer{{"secret", jwt.SigningMethodHS256, secret, nil}}
	for _, s := range []struct {
		name   string
		method jwt.SigningMethod
		key    crypto.Signer
	}{
		{"RSA", jwt.SigningMethodRS256, must(rsa.GenerateKey(rand.Reader, 2048))},
		{"RSA-PSS", jwt.SigningMethodPS384, must(rsa.GenerateKey(rand.Reader, 2048))},
		{"P-256", jwt.SigningMethodES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))},
		{"P-384", jwt.SigningMethodES384, must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))},
		{"P-521", jwt.SigningMethodES512, must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))},
		{"Ed25519", jwt.SigningMethodEdDSA, newEd25519()},
	} {
		list = append(list, signer{s.name, s.method, s.key, s.key.Public()})
	}
	return list
})

func newEd25519() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// pemOf returns a public key in PEM.
func pemOf(public any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(public))})
}

// options are those by which the signer's tokens are good.
func (s signer) options() auth.JWTOptions {
	if s.public == nil {
		return auth.JWTOptions{Secret: s.key.([]byte)}
	}
	return auth.JWTOptions{PublicKeys: pemOf(s.public)}
}

func newJWT(t testing.TB, o auth.JWTOptions) *auth.JWT {
	t.Helper()
	j, err := auth.NewJWT(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // it has no error
	return j
}

func authorize(t testing.TB, a halley.Authorizer, token string) (*halley.Grant, error) {
	t.Helper()
	g, err := a.Authorize(t.Context(), halley.Credentials{Token: token})
	if (g == nil) == (err == nil) {
		t.Fatalf("a grant %v and an error %v", g, err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("an error of several lines, which may become a header: %q", err)
	}
	return g, err
}

// wantRefused wants ErrUnauthorized, and returns its text.
func wantRefused(t testing.TB, what string, a halley.Authorizer, token string) string {
	t.Helper()
	g, err := authorize(t, a, token)
	if !errors.Is(err, halley.ErrUnauthorized) || errors.Is(err, halley.ErrUnavailable) {
		t.Errorf("%s: grant %+v, error %v, want ErrUnauthorized", what, g, err)
		return ""
	}
	return err.Error()
}

func wantUnavailable(t testing.TB, what string, a halley.Authorizer, token string) {
	t.Helper()
	g, err := authorize(t, a, token)
	if !errors.Is(err, halley.ErrUnavailable) || errors.Is(err, halley.ErrUnauthorized) {
		t.Errorf("%s: grant %+v, error %v, want ErrUnavailable", what, g, err)
	}
}

func wantGranted(t testing.TB, what string, a halley.Authorizer, token string) *halley.Grant {
	t.Helper()
	g, err := authorize(t, a, token)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return &halley.Grant{}
	}
	return g
}

func TestKeys(t *testing.T) {
	rsaKey := signers()[1].key.(*rsa.PrivateKey)
	certificate := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a"}, NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{}, rsaKey.Public(), rsaKey))
	good := map[string][]byte{
		"PKIX":        pemOf(rsaKey.Public()),
		"PKCS #1":     pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)}),
		"certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
	}
	token := signers()[1].sign(t, goodClaims())
	for name, text := range good {
		wantGranted(t, name, newJWT(t, auth.JWTOptions{PublicKeys: text}), token)
		wantGranted(t, name+" after another key", newJWT(t, auth.JWTOptions{PublicKeys: append(pemOf(signers()[3].public), text...)}), token)
	}
}

func TestJWTOptions(t *testing.T) {
	private := must(x509.MarshalPKCS8PrivateKey(signers()[1].key))
	public := pemOf(signers()[1].public)
	many := []byte(strings.Repeat(string(pemOf(signers()[6].public)), 9))
	for _, tt := range []struct {
		what string
		o    auth.JWTOptions
		want string
	}{
		{"nothing", auth.JWTOptions{}, "0 of them are given"},
		{"secret and keys", auth.JWTOptions{Secret: secret, PublicKeys: public}, "2 of them are given"},
		{"keys and a key set", auth.JWTOptions{JWKS: "https://a", PublicKeys: public}, "2 of them are given"},
		{"short secret", auth.JWTOptions{Secret: secret[:31]}, "Secret: 31 bytes, at least 32"},
		{"public key as the secret", auth.JWTOptions{Secret: public}, "Secret: a PEM file"},
		{"no PEM", auth.JWTOptions{PublicKeys: secret}, "PublicKeys: no public key in PEM"},
		{"private key", auth.JWTOptions{PublicKeys: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}, "PRIVATE KEY: only the public key is needed"},
		{"weak RSA", auth.JWTOptions{PublicKeys: pemOf(must(weakRSA()).Public())}, "RSA key of 1024 bits"},
		{"P-224", auth.JWTOptions{PublicKeys: pemOf(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public())}, "*ecdsa.PublicKey, not RSA, ECDSA"},
		{"a weak key after a good one", auth.JWTOptions{PublicKeys: append(public, pemOf(must(weakRSA()).Public())...)}, "PEM block 2"},
		{"too many keys", auth.JWTOptions{PublicKeys: many}, "over 8 keys"},
		{"URL", auth.JWTOptions{JWKS: "file:///etc/keys"}, "JWKS: \"file:///etc/keys\" is not"},
		{"URL with a password", auth.JWTOptions{JWKS: "ftp://u:hush@a/"}, "u:xxxxx@a"},
		{"leeway", auth.JWTOptions{Secret: secret, Leeway: time.Hour}, "Leeway is 1h0m0s, not between 0s and 5m0s"},
		{"refresh", auth.JWTOptions{JWKS: "https://a", Refresh: time.Second}, "Refresh is 1s"},
		{"timeout", auth.JWTOptions{JWKS: "https://a", Timeout: time.Hour}, "Timeout is 1h"},
		{"anonymous", auth.JWTOptions{Secret: secret, Anonymous: &halley.Grant{Subscribe: []string{"a*"}}}, `Anonymous: subscribe[0]`},
		{"anonymous user", auth.JWTOptions{Secret: secret, Anonymous: &halley.Grant{User: "a\x00b"}}, `Anonymous: User`},
	} {
		j, err := auth.NewJWT(tt.o)
		if err == nil || !strings.HasPrefix(err.Error(), "auth: JWTOptions.") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.what, err, tt.want)
		}
		if err == nil {
			_ = j.Close() // it has no error
		}
	}
}

// weakRSA returns a key that is too short.
func weakRSA() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) }
