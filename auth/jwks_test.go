package auth_test

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

// keySet returns a key set with a key for each name, and for no name one
// without.
func keySet(keys map[string]any) http.HandlerFunc {
	var set jwkset.JWKSMarshal
	for kid, key := range keys {
		o := jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}}
		if _, ok := key.([]byte); ok {
			o.Marshal.Private = true
		}
		set.Keys = append(set.Keys, must(jwkset.NewJWKFromKey(key, o)).Marshal())
	}
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(set) } // a client that is gone
}

// named signs good claims by the key of a name.
func (s signer) named(t testing.TB, kid string) string {
	t.Helper()
	return s.signText(t, map[string]any{"alg": s.method.Alg(), "kid": kid}, mustJSON(t, goodClaims()))
}

func newRemote(t *testing.T, b *backend, change func(*auth.JWTOptions)) *auth.JWT {
	t.Helper()
	o := auth.JWTOptions{JWKS: "http://backend/keys", Client: b.client, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	return newJWT(t, o)
}

func TestKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := signers()
		keys := map[string]any{}
		for _, s := range list[1:] {
			keys[s.name] = s.public
		}
		b := newBackend(t)
		b.answer(keySet(keys))
		j := newRemote(t, b, nil)
		for _, s := range list[1:] {
			wantGranted(t, s.name, j, s.named(t, s.name))
			wantGranted(t, s.name+" without a kid", j, s.sign(t, goodClaims()))
			for _, o := range list[1:] {
				if o.name != s.name {
					wantRefused(t, s.name+" by the kid of "+o.name, j, s.named(t, o.name))
				}
			}
			for what, guess := range guesses(s) {
				by := signer{method: jwt.SigningMethodHS256, key: guess}
				wantRefused(t, what, j, by.named(t, s.name))
				wantRefused(t, what+" without a kid", j, by.sign(t, goodClaims()))
			}
		}
		for _, kid := range []any{7, nil, []string{"RSA"}, map[string]any{"RSA": 1}, "", "rsa", "RSA\x00", "../RSA", "' OR 1=1 --"} {
			wantRefused(t, "kid "+mustJSON(t, kid), j, list[1].signText(t, map[string]any{"alg": "RS256", "kid": kid}, mustJSON(t, goodClaims())))
		}
		wantRefused(t, "none", j, b64(`{"alg":"none","kid":"RSA"}`)+"."+b64(mustJSON(t, goodClaims()))+".")
	})
}

// Keys that are no public ones for signing, or too weak, are as if they were
// not there.
func TestKeySetOfOtherKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		weak := must(weakRSA())
		good := signers()[3]
		encrypts := signers()[1]
		b := newBackend(t)
		answer := keySet(map[string]any{"good": good.public, "secret": secret})
		b.answer(func(w http.ResponseWriter, r *http.Request) {
			var set jwkset.JWKSMarshal
			if err := json.Unmarshal(record(answer), &set); err != nil {
				t.Error(err)
			}
			set.Keys = append(set.Keys,
				jwkset.JWKMarshal{KTY: "RSA", KID: "weak", N: b64(string(weak.N.Bytes())), E: "AQAB"},
				jwkset.JWKMarshal{KTY: "RSA", KID: "enc", USE: "enc", N: b64(string(encrypts.public.(*rsa.PublicKey).N.Bytes())), E: "AQAB"},
				jwkset.JWKMarshal{KTY: "OKP", KID: "x", CRV: "X25519", X: b64(strings.Repeat("a", 32))},
				jwkset.JWKMarshal{KTY: "new", KID: "new"})
			_ = json.NewEncoder(w).Encode(set) // a client that is gone
		})
		j := newRemote(t, b, nil)
		wantGranted(t, "the good key", j, good.named(t, "good"))
		hs := signer{method: jwt.SigningMethodHS256, key: secret}
		wantRefused(t, "a secret of the set", j, hs.named(t, "secret"))
		wantRefused(t, "a secret of the set without a kid", j, hs.sign(t, goodClaims()))
		// An algorithm is looked up before anything is computed.
		if text := wantRefused(t, "a curve that no key is of", j, signers()[4].sign(t, goodClaims())); !strings.Contains(text, `no key for its alg "ES384"`) {
			t.Errorf("a curve that no key is of: %q", text)
		}
		short := signer{method: jwt.SigningMethodRS256, key: weak}
		wantRefused(t, "a weak key", j, short.named(t, "weak"))
		wantRefused(t, "a weak key without a kid", j, short.sign(t, goodClaims()))
		wantRefused(t, "a key for encryption", j, encrypts.named(t, "enc"))
		wantRefused(t, "a key for encryption without a kid", j, encrypts.sign(t, goodClaims()))
	})
}

// record returns what a handler writes.
func record(h http.HandlerFunc) []byte {
	var w recorder
	h(&w, nil)
	return w.body
}

type recorder struct {
	http.ResponseWriter
	body []byte
}

func (w *recorder) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

// A token without a kid is tried with all keys, so there must not be many.
func TestKeySetWithoutNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newEd25519()
		s := signer{method: jwt.SigningMethodEdDSA, key: key}
		keys := map[string]any{"0": key.Public()}
		for i := 1; i < 8; i++ {
			keys[fmt.Sprint(i)] = newEd25519().Public()
		}
		b := newBackend(t)
		b.answer(keySet(keys))
		wantGranted(t, "among 8 keys", newRemote(t, b, nil), s.sign(t, goodClaims()))
		keys["8"] = newEd25519().Public()
		b.answer(keySet(keys))
		j := newRemote(t, b, nil)
		wantRefused(t, "among 9 keys", j, s.sign(t, goodClaims()))
		wantGranted(t, "by name among 9", j, s.named(t, "0"))
		for i := 9; i < 101; i++ {
			keys[fmt.Sprint(i)] = newEd25519().Public()
		}
		b.answer(keySet(keys))
		wantUnavailable(t, "a set of 101 keys", newRemote(t, b, nil), s.named(t, "0"))
	})
}

// While the set cannot be fetched, what is known goes on.
func TestKeySetDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next, lost := signers()[1], signers()[3], signers()[4]
		b := newBackend(t) // down
		j := newRemote(t, b, nil)
		wantUnavailable(t, "a good token before the first set", j, old.named(t, "old"))
		wantRefusedOrDown(t, "a token that is none", j, "a.b.c")

		// It is tried again by itself.
		b.answer(keySet(map[string]any{"old": old.public}))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := b.asked(); n != 1 {
			t.Errorf("%d requests in 30 s after one that failed, want 1", n)
		}
		wantGranted(t, "a good token", j, old.named(t, "old"))
		wantGranted(t, "a good token without a kid", j, old.sign(t, goodClaims()))

		// An unknown key asks for the set again, but not all the time.
		time.Sleep(time.Minute)
		for i := range 1000 {
			wantRefused(t, "an unknown key", j, next.named(t, fmt.Sprint("unknown", i)))
		}
		if n := b.asked(); n != 1 {
			t.Errorf("%d requests for 1,000 unknown keys, want 1", n)
		}
		b.answer(keySet(map[string]any{"old": old.public, "next": next.public}))
		wantRefused(t, "a new key within 10 s", j, next.named(t, "next"))
		time.Sleep(10 * time.Second)
		wantGranted(t, "a new key", j, next.named(t, "next"))

		b.answer(nil)
		time.Sleep(10 * time.Second)
		remembered := old.named(t, "old")
		wantGranted(t, "a known key while it is down", j, remembered)
		wantUnavailable(t, "an unknown key while it is down", j, lost.named(t, "lost"))
		wantUnavailable(t, "another one at once", j, lost.named(t, "lost2"))
		wantRefused(t, "a bad signature while it is down", j, lost.named(t, "old"))
		if n := b.asked(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}

		// A key that was removed is no longer good, though its token is remembered.
		b.answer(keySet(map[string]any{"next": next.public}))
		time.Sleep(10 * time.Second)
		wantGranted(t, "a removed key before anybody asks", j, remembered)
		wantRefused(t, "an unknown key", j, lost.named(t, "lost"))
		wantRefused(t, "a removed key", j, remembered)
		wantGranted(t, "the other key", j, next.named(t, "next"))
	})
}

func wantRefusedOrDown(t *testing.T, what string, a halley.Authorizer, token string) {
	t.Helper()
	if _, err := authorize(t, a, token); err == nil {
		t.Errorf("%s: granted", what)
	}
}

// A set is fetched once in each Refresh, and the same set again does not make
// tokens be forgotten.
func TestKeySetRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signers()[3]
		b := newBackend(t)
		b.answer(keySet(map[string]any{"a": s.public}))
		j := newRemote(t, b, func(o *auth.JWTOptions) { o.Refresh = 10 * time.Minute })
		token := s.named(t, "a")
		first := wantGranted(t, "a token", j, token)
		time.Sleep(50 * time.Minute)
		if wantGranted(t, "later", j, token) != first {
			t.Error("a token was forgotten for the same set")
		}
		if n := b.asked(); n < 5 || n > 6 { // each up to a tenth earlier
			t.Errorf("%d requests in 50 minutes, want 5 or 6", n)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := b.asked(); n > 0 {
			t.Errorf("%d requests after Close", n)
		}
		wantGranted(t, "a known key after Close", j, s.signText(t, map[string]any{"alg": "ES256", "kid": "a"}, mustJSON(t, with(jwt.MapClaims{"jti": "new"}))))
		wantUnavailable(t, "an unknown key after Close", j, s.named(t, "b"))
	})
}

// An answer that is not a set in time is as none.
func TestKeySetAnswers(t *testing.T) {
	s := signers()[3]
	good := record(keySet(map[string]any{"a": s.public}))
	for what, h := range map[string]http.HandlerFunc{
		"an error":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = w.Write(good) },
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { redirect(w, r, good) },
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"an empty set": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"half a set":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good[:len(good)/2]) },
		"a huge answer": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 1<<20))
			_, _ = w.Write(good)
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a slow answer": func(w http.ResponseWriter, r *http.Request) {
			for _, c := range good {
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
				_, _ = w.Write([]byte{c}) // a client that is gone
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBackend(t)
				b.answer(h)
				j := newRemote(t, b, nil)
				begun := time.Now()
				wantUnavailable(t, what, j, s.named(t, "a"))
				if d := time.Since(begun); d > 5*time.Second {
					t.Errorf("it took %v, want 5 s at most", d)
				}
				b.answer(keySet(map[string]any{"a": s.public}))
				time.Sleep(10 * time.Second)
				wantGranted(t, "after it", j, s.named(t, "a"))
			})
		})
	}
}

// redirect sends to a good answer, which nobody is to follow.
func redirect(w http.ResponseWriter, r *http.Request, good []byte) {
	if r.URL.Path != "/good" {
		http.Redirect(w, r, "/good", http.StatusFound)
		return
	}
	_, _ = w.Write(good) // a client that is gone
}

// Many who wait for one fetch all get its outcome, and those who are gone do
// not end it.
func TestKeySetShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signers()[3]
		good := keySet(map[string]any{"a": s.public})
		b := newBackend(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); good(w, r) })
		j := newRemote(t, b, nil)
		token := s.named(t, "a")
		gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := j.Authorize(gone, halley.Credentials{Token: token}); !errors.Is(err, halley.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait: %v", err)
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { wantGranted(t, "who waits", j, token) })
		}
		wg.Wait()
		if n := b.asked(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestKeySetCloseWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		j := newRemote(t, b, func(o *auth.JWTOptions) { o.Timeout = time.Minute })
		synctest.Wait()
		begun := time.Now()
		if err := j.Close(); err != nil || time.Since(begun) > 0 {
			t.Errorf("Close: %v after %v", err, time.Since(begun))
		}
	})
}
