package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
	"github.com/halley-comet/halley/engine"
)

// fixed are signers whose keys are the same in each process, as a fuzzer's
// workers are many. The last one's is nobody's.
func fixed() []signer {
	seed := sha256.Sum256([]byte("a seed for tests"))
	ed := ed25519.NewKeyFromSeed(seed[:])
	p256 := must(ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:]))
	strange := sha256.Sum256([]byte("a stranger's seed"))
	return []signer{
		{"secret", jwt.SigningMethodHS256, secret, nil},
		{"Ed25519", jwt.SigningMethodEdDSA, ed, ed.Public()},
		{"P-256", jwt.SigningMethodES256, p256, p256.Public()},
		{"strange", jwt.SigningMethodEdDSA, ed25519.NewKeyFromSeed(strange[:]), nil},
	}
}

// signedWell tells whether a token has a good signature by s, by its own
// reading of RFC 7515, 5.2.
func signedWell(token string, s signer) bool {
	part := strings.Split(token, ".")
	if len(part) != 3 {
		return false
	}
	header, err := base64.RawURLEncoding.DecodeString(part[0])
	if err != nil {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil {
		return false
	}
	var h map[string]any
	if json.Unmarshal(header, &h) != nil {
		return false
	}
	text := []byte(part[0] + "." + part[1])
	switch key := s.public.(type) {
	case nil:
		hashes := map[any]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}
		alg, ok := h["alg"].(string)
		if !ok || hashes[alg] == nil {
			return false
		}
		mac := hmac.New(hashes[alg], s.key.([]byte))
		mac.Write(text)
		return bytes.Equal(mac.Sum(nil), sig)
	case ed25519.PublicKey:
		return h["alg"] == "EdDSA" && ed25519.Verify(key, text, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(text)
		return h["alg"] == "ES256" && len(sig) == 64 &&
			ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	return false
}

// FuzzJWT wants nothing but a well-signed token to give a grant, and that to be
// what the claims say.
func FuzzJWT(f *testing.F) {
	list := fixed()
	var authorizers []*auth.JWT
	for _, s := range list[:3] {
		o := s.options()
		o.Remember = -1
		authorizers = append(authorizers, newJWT(f, o))
	}
	for _, s := range list {
		for _, header := range []string{
			`{"alg":"` + s.method.Alg() + `"}`, `{"alg":"none"}`, `{"alg":"HS256","kid":"../a"}`, `{"alg":"EdDSA","jwk":{"kty":"OKP"}}`, `{"alg":"` + s.method.Alg() + `","crit":["a"]}`, `{}`, `[]`,
		} {
			for _, payload := range []string{
				`{"exp":99999999999,"sub":"ann","jti":"a","iat":1,"halley":{"subscribe":["a/**"],"publish":["b"],"admin":true,"limits":{"connections":1}}}`,
				`{"exp":99999999999,"exp":1,"halley":{}}`, `{"exp":1e300,"halley":{}}`, `{"exp":-1,"halley":{}}`, `{"halley":{}}`, `{"exp":99999999999,"halley":{"subscribe":["a/../b","meta/*","a*"]}}`,
			} {
				text := b64(header) + "." + b64(payload)
				f.Add(text+"."+b64(string(must(s.method.Sign(text, s.key)))), header, payload)
				f.Add(text+".", header, payload)
			}
		}
	}
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		tokens := []string{token}
		for _, s := range list {
			// The fuzzer cannot sign, so it is done for it.
			text := b64(header) + "." + b64(payload)
			tokens = append(tokens, text+"."+b64(string(must(s.method.Sign(text, s.key)))))
		}
		for _, token := range tokens {
			for i, j := range authorizers {
				g, err := authorize(t, j, token)
				switch {
				case err != nil && !errors.Is(err, halley.ErrUnauthorized):
					t.Errorf("%q: %v", token, err)
				case err == nil && !signedWell(token, list[i]):
					t.Errorf("%q is granted by %s, which has not signed it", token, list[i].name)
				case err == nil:
					checkGrant(t, g)
					checkClaims(t, g, token)
				}
			}
		}
	})
}

// checkGrant wants a grant to hold what every grant must.
func checkGrant(t *testing.T, g *halley.Grant) {
	t.Helper()
	for _, p := range append(append([]string{}, g.Subscribe...), g.Publish...) {
		if err := engine.CheckPattern(p); err != nil {
			t.Errorf("granted: %v", err)
		}
	}
	for _, name := range []string{g.User, g.ID} {
		if len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			t.Errorf("granted: the name %q", name)
		}
	}
	if !g.Expires.IsZero() && !g.Expires.After(time.Now()) {
		t.Errorf("granted: what has ended at %v", g.Expires)
	}
}

// checkClaims wants a grant to have no more than a token's claims, as
// encoding/json reads them into a map.
func checkClaims(t *testing.T, g *halley.Grant, token string) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatalf("%q was granted, and is no object: %v", payload, err)
	}
	exp, ok := claims["exp"].(float64)
	if !ok || g.Expires.IsZero() || g.Expires.Unix() != int64(exp)+10 {
		t.Errorf("%q is granted until %v", payload, g.Expires)
	}
	if sub, _ := claims["sub"].(string); g.User != sub {
		t.Errorf("%q is granted to %q", payload, g.User)
	}
	rights, ok := claims["halley"].(map[string]any)
	if !ok {
		t.Fatalf("%q was granted", payload)
	}
	subscribe, _ := rights["subscribe"].([]any)
	publish, _ := rights["publish"].([]any)
	admin, _ := rights["admin"].(bool)
	if len(g.Subscribe) != len(subscribe) || len(g.Publish) != len(publish) || g.Admin != admin {
		t.Errorf("%q is granted as %+v", payload, g)
	}
}

// FuzzGrant wants an answer of a webhook to be a good grant, a refusal or
// nothing.
func FuzzGrant(f *testing.F) {
	for _, status := range []int{200, 401, 403, 500, 201, 302} {
		for _, body := range []string{
			`{"user":"ann","id":"a","ttl":60,"subscribe":["a/**"],"publish":["b"],"admin":true,"limits":{"connections":1,"publishRate":0.5,"publishBurst":-1}}`,
			`{"expires":99999999999}`, `{"expires":1}`, `{"expires":-1e300}`, `{"ttl":1e300}`, `{"user":"a\u0000"}`, `{"subscribe":["a/../b"]}`, `{"Subscribe":["**"]}`,
			`{"subscribe":["a"],"subscribe":["**"]}`, `{} {}`, `null`, `[]`, ``, "no\r\nSet-Cookie: a", `{"limits":{"connections":1e99}}`,
		} {
			f.Add(status, "application/json", body)
			f.Add(status, "text/plain; charset=utf-8", body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		if status < 100 || status > 999 {
			return // no HTTP
		}
		w, err := auth.NewWebhook(auth.WebhookOptions{URL: "http://a", Client: &http.Client{Transport: answers(func(*http.Request) *http.Response {
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}
		})}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		g, err := authorize(t, w, "t")
		switch {
		case err == nil:
			checkGrant(t, g)
			if status != 200 || !json.Valid([]byte(body)) {
				t.Errorf("status %d and %q are a grant", status, body)
			}
		case errors.Is(err, halley.ErrUnauthorized):
			if text := err.Error(); len(text) > 300 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("a client is told %q", text)
			}
			if status != 401 && status != 403 && status != 200 {
				t.Errorf("status %d is a refusal", status)
			}
		case !errors.Is(err, halley.ErrUnavailable):
			t.Errorf("status %d and %q: %v", status, body, err)
		}
	})
}

// answers is an http.RoundTripper that is a function.
type answers func(*http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }
