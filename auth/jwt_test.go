package auth_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

// goodClaims are those of a token that is good, with all that there is.
func goodClaims() jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"sub": "ann", "jti": "t1", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"halley": map[string]any{
			"subscribe": []string{"chat/**", "news"}, "publish": []string{"chat/7"}, "admin": true,
			"limits": map[string]any{"connections": 3, "publishRate": 1.5, "publishBurst": -1},
		},
	}
}

// with returns good claims of which some are others, or not there if they are
// nil.
func with(changes jwt.MapClaims) jwt.MapClaims {
	c := goodClaims()
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// rights returns good claims with other rights.
func rights(r any) jwt.MapClaims { return with(jwt.MapClaims{"halley": r}) }

func (s signer) sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	return s.signText(t, map[string]any{"typ": "JWT", "alg": s.method.Alg()}, mustJSON(t, claims))
}

// signText signs a header and claims as they are written.
func (s signer) signText(t testing.TB, header map[string]any, payload string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(mustJSON(t, header))) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	sig, err := s.method.Sign(text, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJWT(t *testing.T) {
	for _, s := range signers() {
		t.Run(s.name, func(t *testing.T) {
			claims := goodClaims()
			got := wantGranted(t, "a good token", newJWT(t, s.options()), s.sign(t, claims))
			want := &halley.Grant{
				User: "ann", ID: "t1", Issued: time.Unix(claims["iat"].(int64), 0), Expires: time.Unix(claims["exp"].(int64)+10, 0),
				Subscribe: []string{"chat/**", "news"}, Publish: []string{"chat/7"}, Admin: true,
				Limits: halley.Limits{Connections: 3, PublishRate: 1.5, PublishBurst: -1},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestJWTLeast(t *testing.T) {
	s := signers()[0]
	exp := time.Now().Add(time.Hour).Unix()
	o := s.options()
	o.Claim, o.Leeway = "https://example.com/halley", -1
	got := wantGranted(t, "a token with the least", newJWT(t, o), s.sign(t, jwt.MapClaims{"exp": exp, o.Claim: map[string]any{}}))
	if want := (&halley.Grant{Expires: time.Unix(exp, 0)}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if text := wantRefused(t, "another claim", newJWT(t, o), s.sign(t, goodClaims())); !strings.Contains(text, `no claim "https://example.com/halley"`) {
		t.Errorf("a token without the claim: %q", text)
	}
}

func TestAnonymous(t *testing.T) {
	o := signers()[0].options()
	wantRefused(t, "no token", newJWT(t, o), "")
	o.Anonymous = &halley.Grant{Subscribe: []string{"news"}}
	j := newJWT(t, o)
	if g := wantGranted(t, "no token", j, ""); g != o.Anonymous {
		t.Errorf("got %+v", g)
	}
	wantRefused(t, "a token that is not good", j, "a.b.c")
}

// Whoever has no key gets nothing, whatever they write. Every case is made of a
// good token.
func TestForgedTokens(t *testing.T) {
	for i, s := range signers() {
		t.Run(s.name, func(t *testing.T) {
			j := newJWT(t, s.options())
			good := s.sign(t, goodClaims())
			wantGranted(t, "a good token", j, good)
			part := strings.Split(good, ".")
			header, payload, signature := part[0], part[1], part[2]
			sig, err := base64.RawURLEncoding.DecodeString(signature)
			if err != nil {
				t.Fatal(err)
			}
			other := func(change jwt.MapClaims) string { return b64(mustJSON(t, with(change))) }
			head := func(h map[string]any) string { return b64(mustJSON(t, h)) }
			refuse := func(what, token string) {
				t.Helper()
				wantRefused(t, what, j, token)
				wantGranted(t, "the good token after "+what, j, good)
			}

			flipped := append([]byte{}, sig...)
			flipped[len(flipped)/2] ^= 1
			refuse("a flipped bit", header+"."+payload+"."+b64(string(flipped)))
			refuse("no signature", header+"."+payload+".")
			refuse("no third part", header+"."+payload)
			refuse("zeros for a signature", header+"."+payload+"."+b64(string(make([]byte, len(sig)))))
			refuse("half a signature", header+"."+payload+"."+b64(string(sig[:len(sig)/2])))
			refuse("a longer signature", header+"."+payload+"."+b64(string(sig)+"\x00"))
			refuse("another's claims", header+"."+other(jwt.MapClaims{"sub": "bob"})+"."+signature)
			refuse("a later end", header+"."+other(jwt.MapClaims{"exp": time.Now().Add(9 * time.Hour).Unix()})+"."+signature)
			refuse("another header", head(map[string]any{"alg": s.method.Alg(), "typ": "JWT", "kid": "a"})+"."+payload+"."+signature)
			refuse("four parts", good+".a")
			refuse("five parts, as of a JWE", good+".a.b")
			refuse("padding", header+"."+payload+"."+signature+"=")
			refuse("a line end", good+"\n")
			refuse("a blank before", " "+good)
			refuse("a scheme before", "Bearer "+good)
			if last, ok := unlikeLast(signature); ok {
				refuse("unused bits that are set", header+"."+payload+"."+last)
			}

			for _, alg := range []any{"none", "None", "NONE", "nOnE", "", "HS0", nil, 0, []string{"none"}, true} {
				h := head(map[string]any{"typ": "JWT", "alg": alg})
				refuse("alg "+mustJSON(t, alg)+" without a signature", h+"."+payload+".")
				refuse("alg "+mustJSON(t, alg)+" with the signature", h+"."+payload+"."+signature)
			}
			refuse("no alg", head(map[string]any{"typ": "JWT"})+"."+payload+".")
			refuse("alg twice", b64(`{"alg":"`+s.method.Alg()+`","alg":"none"}`)+"."+payload+".")
			refuse("Alg none", b64(`{"Alg":"none"}`)+"."+payload+".")

			for k, by := range signers() {
				if k == i {
					continue
				}
				refuse("a key of kind "+by.name, by.sign(t, goodClaims()))
			}
			for what, guess := range guesses(s) {
				for _, m := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
					by := signer{method: m, key: guess}
					refuse(m.Alg()+" by "+what, by.sign(t, goodClaims()))
					for _, kid := range []any{"../../../../dev/null", "/dev/null", "' UNION SELECT '' -- ", "https://example.com/key", "", "\x00", 7, nil, []string{"a"}, map[string]any{}} {
						refuse(m.Alg()+" by "+what+" with kid "+mustJSON(t, kid),
							by.signText(t, map[string]any{"alg": m.Alg(), "kid": kid}, mustJSON(t, goodClaims())))
					}
				}
			}
		})
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// unlikeLast returns base64 that has bits set which a lenient decoder drops.
func unlikeLast(s string) (string, bool) {
	if len(s[strings.LastIndexByte(s, '.')+1:])%4 == 0 {
		return "", false
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, s[len(s)-1])
	return s[:len(s)-1] + string(digits[last|1]), last|1 != last
}

// guesses are what everybody knows and might be taken for a secret: no key at
// all, and the public key in each of its forms.
func guesses(s signer) map[string][]byte {
	all := map[string][]byte{"no key": {}, "a zero": {0}, "a word": []byte("secret")}
	if s.public == nil {
		return all
	}
	text := pemOf(s.public)
	der, err := x509.MarshalPKIXPublicKey(s.public)
	if err != nil {
		panic(err)
	}
	all["its PEM"] = text
	all["its PEM without the last line end"] = []byte(strings.TrimSpace(string(text)))
	all["its PEM with CRLF"] = []byte(strings.ReplaceAll(string(text), "\n", "\r\n"))
	all["its DER"] = der
	all["its DER in hex"] = []byte(hex.EncodeToString(der))
	all["its DER in base64"] = []byte(base64.StdEncoding.EncodeToString(der))
	switch key := s.public.(type) {
	case *rsa.PublicKey:
		all["its modulus"] = key.N.Bytes()
	case ed25519.PublicKey:
		all["its bytes"] = key
	}
	return all
}

// A key that a token brings along is a stranger's.
func TestEmbeddedKeys(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	for _, s := range signers() {
		if s.public == nil {
			continue
		}
		strange := signer{method: jwt.SigningMethodEdDSA, key: newEd25519()}
		public := strange.key.(crypto.Signer).Public().(ed25519.PublicKey)
		jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(string(public)), "kid": "a"}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		o := s.options()
		o.PublicKeys = append(o.PublicKeys, pemOf(newEd25519().Public())...) // so that EdDSA suits
		j := newJWT(t, o)
		for what, h := range map[string]map[string]any{
			"jwk":            {"jwk": jwk},
			"jwk with kid":   {"jwk": jwk, "kid": "a"},
			"jku":            {"jku": server.URL, "kid": "a"},
			"x5u":            {"x5u": server.URL},
			"x5c":            {"x5c": []string{base64.StdEncoding.EncodeToString(der)}},
			"keys":           {"keys": []any{jwk}},
			"all":            {"jwk": jwk, "jku": server.URL, "x5u": server.URL, "kid": server.URL},
			"nothing at all": {},
		} {
			h["alg"] = "EdDSA"
			wantRefused(t, what, j, strange.signText(t, h, mustJSON(t, goodClaims())))
		}
		// With the right key they do no harm.
		wantGranted(t, "a good token with a jwk", j, s.signText(t, map[string]any{"alg": s.method.Alg(), "jwk": jwk, "jku": server.URL, "kid": "../a"}, mustJSON(t, goodClaims())))
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests for keys of strangers", n)
	}
}

// Claims are looked at after the signature; these are all signed well.
func TestClaims(t *testing.T) {
	s := signers()[0]
	o := s.options()
	o.Issuer, o.Audience = "https://issuer", []string{"halley", "push"}
	j := newJWT(t, o)
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, tt := range []struct {
		what   string
		claims jwt.MapClaims
		want   string // in the refusal; "" for a grant
	}{
		{"all good", nil, ""},
		{"several audiences", jwt.MapClaims{"aud": []string{"other", "push"}}, ""},
		{"expired", jwt.MapClaims{"exp": at(-11 * time.Second)}, "token is expired"},
		{"expired within the leeway", jwt.MapClaims{"exp": at(-5 * time.Second)}, ""},
		{"long expired", jwt.MapClaims{"exp": 1}, "token is expired"},
		{"at the start of time", jwt.MapClaims{"exp": 0}, "token is expired"},
		{"no exp", jwt.MapClaims{"exp": nil}, "exp claim is required"},
		{"exp with a fraction", jwt.MapClaims{"exp": float64(at(time.Minute)) + 0.5}, ""},
		{"exp just expired with a fraction", jwt.MapClaims{"exp": float64(at(-12*time.Second)) + 0.9}, "token is expired"},
		{"negative exp", jwt.MapClaims{"exp": -1}, "exp: want a time"},
		{"very negative exp", jwt.MapClaims{"exp": json.Number("-9223372036854775809")}, "exp: want a time"},
		{"exp beyond int64", jwt.MapClaims{"exp": json.Number("9223372036854775808")}, "exp: want a time"},
		{"exp that is int64's last", jwt.MapClaims{"exp": json.Number("9223372036854775807")}, "exp: want a time"},
		{"exp of year 10000", jwt.MapClaims{"exp": json.Number("253402300800")}, "exp: want a time"},
		{"exp of year 9999", jwt.MapClaims{"exp": json.Number("253402300799")}, ""},
		{"huge exp", jwt.MapClaims{"exp": json.Number("1e300")}, "exp: want a time"},
		{"exp beyond float64", jwt.MapClaims{"exp": json.Number("1e999")}, "exp: want a time"},
		{"exp in words", jwt.MapClaims{"exp": "9999999999"}, "exp: want a time"},
		{"exp true", jwt.MapClaims{"exp": true}, "exp: want a time"},
		{"exp in a list", jwt.MapClaims{"exp": []any{at(time.Hour)}}, "exp: want a time"},
		{"not yet", jwt.MapClaims{"nbf": at(15 * time.Second)}, "not valid yet"},
		{"not yet, within the leeway", jwt.MapClaims{"nbf": at(5 * time.Second)}, ""},
		{"nbf in words", jwt.MapClaims{"nbf": "0"}, "nbf: want a time"},
		{"issued in the future", jwt.MapClaims{"iat": at(15 * time.Second)}, "used before issued"},
		{"no iat", jwt.MapClaims{"iat": nil}, ""},
		{"wrong audience", jwt.MapClaims{"aud": "halley2"}, "invalid audience"},
		{"audience in capitals", jwt.MapClaims{"aud": "Halley"}, "invalid audience"},
		{"no audience", jwt.MapClaims{"aud": nil}, "aud claim is required"},
		{"empty audience", jwt.MapClaims{"aud": ""}, "aud claim is required"},
		{"audience of another type", jwt.MapClaims{"aud": map[string]any{"halley": 1}}, "aud: want"},
		{"wrong issuer", jwt.MapClaims{"iss": "https://issuer/"}, "invalid issuer"},
		{"no issuer", jwt.MapClaims{"iss": nil}, "iss claim is required"},
		{"issuers", jwt.MapClaims{"iss": []string{"https://issuer"}}, "iss: want a string"},
		{"no user", jwt.MapClaims{"sub": nil}, ""},
		{"user of another type", jwt.MapClaims{"sub": 7}, "sub: want a string"},
		{"user with a zero", jwt.MapClaims{"sub": "ann\x00bob"}, "sub: "},
		{"user with a line end", jwt.MapClaims{"sub": "ann\nbob"}, "sub: "},
		{"user of half a character", jwt.MapClaims{"sub": json.RawMessage(`"ann\ud800"`)}, "sub: "},
		{"user in any script", jwt.MapClaims{"sub": "Änne 安"}, ""},
		{"long user", jwt.MapClaims{"sub": strings.Repeat("a", 256)}, "sub: 256 bytes, at most 255"},
		{"longest user", jwt.MapClaims{"sub": strings.Repeat("a", 255)}, ""},
		{"id with a zero", jwt.MapClaims{"jti": "\x00"}, "jti: "},
		{"long id", jwt.MapClaims{"jti": strings.Repeat("a", 256)}, "jti: 256 bytes, at most 255"},
		{"no rights", jwt.MapClaims{"halley": nil}, `no claim "halley"`},
		{"rights in other letters", jwt.MapClaims{"halley": nil, "Halley": map[string]any{}}, `no claim "halley"`},
	} {
		claims := with(jwt.MapClaims{"iss": "https://issuer", "aud": "halley"})
		maps.Copy(claims, tt.claims)
		maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
		token := s.sign(t, claims)
		if tt.want == "" {
			wantGranted(t, tt.what, j, token)
		} else if text := wantRefused(t, tt.what, j, token); !strings.Contains(text, tt.want) {
			t.Errorf("%s: %q, want %q", tt.what, text, tt.want)
		}
	}
}

// What Go's JSON would take for something else is refused.
func TestClaimsText(t *testing.T) {
	s := signers()[0]
	j := newJWT(t, s.options())
	later := time.Now().Add(time.Hour).Unix()
	for what, tt := range map[string]struct{ text, want string }{
		"good":                  {`{"exp":EXP,"halley":{}}`, ""},
		"exp twice":             {`{"exp":1,"exp":EXP,"halley":{}}`, `"exp" is there twice`},
		"exp twice, once null":  {`{"exp":null,"exp":EXP,"halley":{}}`, `"exp" is there twice`},
		"exp twice, escaped":    {`{"exp":1,"\u0065xp":EXP,"halley":{}}`, `"exp" is there twice`},
		"EXP":                   {`{"exp":1,"EXP":EXP,"halley":{}}`, "token is expired"},
		"only Exp":              {`{"Exp":EXP,"halley":{}}`, "exp claim is required"},
		"null exp":              {`{"exp":null,"halley":{}}`, "exp claim is required"},
		"sub twice":             {`{"exp":EXP,"sub":"ann","sub":"bob","halley":{}}`, `"sub" is there twice`},
		"rights twice":          {`{"exp":EXP,"halley":{},"halley":{"admin":true}}`, `"halley" is there twice`},
		"a right twice":         {`{"exp":EXP,"halley":{"subscribe":["a"],"subscribe":["**"]}}`, `"subscribe" is there twice`},
		"a limit twice":         {`{"exp":EXP,"halley":{"limits":{"connections":1,"connections":-1}}}`, `"connections" is there twice`},
		"a list":                {`[{"exp":EXP,"halley":{}}]`, "JSON object"},
		"null":                  {`null`, "exp claim is required"},
		"two objects":           {`{"exp":EXP,"halley":{}}{}`, "malformed"},
		"not UTF-8":             {"{\"exp\":EXP,\"sub\":\"\xff\",\"halley\":{}}", "not UTF-8"},
		"nothing":               {``, "malformed"},
		"a comment":             {`{"exp":EXP,/**/"halley":{}}`, "malformed"},
		"null rights":           {`{"exp":EXP,"halley":null}`, `no claim "halley"`},
		"rights in text":        {`{"exp":EXP,"halley":"{}"}`, "want a JSON object"},
		"unknown right":         {`{"exp":EXP,"halley":{"subscibe":["a"]}}`, `"subscibe" is not known`},
		"a right in capitals":   {`{"exp":EXP,"halley":{"Admin":true}}`, `"Admin" is not known`},
		"unknown limit":         {`{"exp":EXP,"halley":{"limits":{"conections":1}}}`, `limits: "conections" is not known`},
		"admin in text":         {`{"exp":EXP,"halley":{"admin":"false"}}`, "admin: want true or false"},
		"admin in numbers":      {`{"exp":EXP,"halley":{"admin":1}}`, "admin: want true or false"},
		"one pattern in text":   {`{"exp":EXP,"halley":{"subscribe":"a"}}`, "subscribe: want a list of strings"},
		"a pattern in a list":   {`{"exp":EXP,"halley":{"publish":[["a"]]}}`, "publish: want a list of strings"},
		"a null pattern":        {`{"exp":EXP,"halley":{"publish":[null]}}`, "publish[0]"},
		"a fraction of a limit": {`{"exp":EXP,"halley":{"limits":{"connections":1.5}}}`, "connections: want a whole number"},
		"a limit over int64":    {`{"exp":EXP,"halley":{"limits":{"connections":99999999999999999999}}}`, "connections: want a whole number"},
		"a limit over the most": {`{"exp":EXP,"halley":{"limits":{"publishRate":1e10}}}`, "publishRate: 1e+10, at most"},
		"crit":                  {`{"exp":EXP,"halley":{},"crit":["exp"]}`, ""}, // it is the header's that counts
	} {
		text := strings.ReplaceAll(tt.text, "EXP", json.Number(mustJSON(t, later)).String())
		token := s.signText(t, map[string]any{"alg": "HS256"}, text)
		if tt.want == "" {
			wantGranted(t, what, j, token)
		} else if got := wantRefused(t, what, j, token); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", what, got, tt.want)
		}
	}
	for what, h := range map[string]map[string]any{
		"crit":         {"crit": []string{"exp"}, "exp": 1},
		"crit of b64":  {"crit": []string{"b64"}, "b64": false},
		"empty crit":   {"crit": []string{}},
		"crit is null": {"crit": nil},
	} {
		h["alg"] = "HS256"
		wantRefused(t, what, j, s.signText(t, h, mustJSON(t, goodClaims())))
	}
}

func TestPatterns(t *testing.T) {
	s := signers()[0]
	j := newJWT(t, s.options())
	for _, p := range []string{
		"", "/", "/a", "a/", "a//b", "a/../b", "../a", "..", "./a", "a/.", "meta/*", "meta/connect", "service/**", "a*", "*a", "a/*b", "*/a",
		"a/*/b", "a/**/b", "**/a", "***", "a b", "a\x00", "a\nb", "a?b", "a#b", "a\\b", "{a,b}", "[ab]", "сhat/7", "chat/７", "chat／7", "chat/＊", "chat/\u200b7", "e\u0301", "é",
		strings.Repeat("a", 256),
	} {
		for _, right := range []string{"subscribe", "publish"} {
			got := wantRefused(t, right+" "+p, j, s.sign(t, rights(map[string]any{right: []string{"ok", p}})))
			if !strings.Contains(got, "halley: "+right+"[1]: ") {
				t.Errorf("the refusal of %q does not say which it is: %q", p, got)
			}
		}
	}
	for _, p := range []string{"a", "a/b", "*", "**", "a/*", "a/b/**", "meta", "metadata/x", "Chat/7", "%2e%2e/a"} {
		if g := wantGranted(t, p, j, s.sign(t, rights(map[string]any{"subscribe": []string{p}}))); !reflect.DeepEqual(g.Subscribe, []string{p}) {
			t.Errorf("%q is granted as %q", p, g.Subscribe)
		}
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = "a"
	}
	wantGranted(t, "1,000 patterns", j, s.sign(t, rights(map[string]any{"publish": many[:1000]})))
	wantRefused(t, "1,001 patterns", j, s.sign(t, rights(map[string]any{"publish": many})))
}

func TestLongToken(t *testing.T) {
	s := signers()[0]
	j := newJWT(t, s.options())
	// A character of the claims is 4/3 of the token.
	longest := 0
	for n := 5800; n < 6000; n++ {
		token := s.sign(t, with(jwt.MapClaims{"note": strings.Repeat("a", n)}))
		if len(token) <= auth.MaxToken {
			longest = max(longest, len(token))
			wantGranted(t, "a long token", j, token)
		} else if text := wantRefused(t, "a token that is too long", j, token); !strings.Contains(text, "at most 8192") {
			t.Errorf("a token of %d bytes: %q", len(token), text)
		}
	}
	if longest < auth.MaxToken-2 {
		t.Errorf("the longest token that was tried has %d bytes", longest)
	}
}

// A verified token is not verified again, until it expires.
func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signers()[3]
		o := s.options()
		o.Remember = 2
		j := newJWT(t, o)
		a, b, c := s.sign(t, with(jwt.MapClaims{"jti": "a"})), s.sign(t, with(jwt.MapClaims{"jti": "b"})), s.sign(t, with(jwt.MapClaims{"jti": "c"}))
		first := wantGranted(t, "a", j, a)
		wantGranted(t, "b", j, b)
		if again := wantGranted(t, "a again", j, a); again != first {
			t.Error("a token was verified again")
		}
		wantGranted(t, "c", j, c)
		if again := wantGranted(t, "a after c", j, a); again != first {
			t.Error("what was used last was forgotten first")
		}
		unlike, ok := unlikeLast(a)
		if !ok {
			t.Fatal("the token has no unused bits")
		}
		wantRefused(t, "a token that differs in its end", j, unlike)

		time.Sleep(time.Until(first.Expires) - time.Nanosecond)
		if again := wantGranted(t, "a at its end", j, a); again != first {
			t.Error("a token was verified again at its end")
		}
		time.Sleep(time.Nanosecond)
		wantRefused(t, "a after its end", j, a)

		o.Remember = -1
		j = newJWT(t, o)
		d := s.sign(t, goodClaims())
		if wantGranted(t, "d", j, d) == wantGranted(t, "d again", j, d) {
			t.Error("a token was remembered, which nobody wants")
		}
	})
}

func BenchmarkJWT(b *testing.B) {
	for _, s := range signers() {
		for _, mode := range []struct {
			name     string
			remember int
		}{{"remembered", 0}, {"verified", -1}} {
			b.Run(s.name+"/"+mode.name, func(b *testing.B) {
				o := s.options()
				o.Remember = mode.remember
				j := newJWT(b, o)
				c := halley.Credentials{Token: s.sign(b, goodClaims())}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := j.Authorize(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
