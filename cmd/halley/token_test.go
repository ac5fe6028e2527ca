package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

const testSecret = "a secret that is long enough for HS256"

// writeFile writes a file of the test, and returns its name.
func writeFile(t *testing.T, name string, parts ...[]byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	if err := os.WriteFile(name, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestTokenMake wants a server to take what was made, and to grant what was
// asked for.
func TestTokenMake(t *testing.T) {
	secret := writeFile(t, "secret", []byte(testSecret+"\r\n"))
	out := mustRun(t, "token", "make", "--secret-file", secret, "--user", "ann", "--id", "t1", "--subscribe", "a,b/**", "--subscribe", "news",
		"--publish", "a,b/c", "--admin", "--ttl", "90m", "--audience", "x", "--audience", "halley", "--issuer", "me",
		"--max-connections", "3", "--publish-rate", "0.5", "--publish-burst", "20")
	token, ok := strings.CutSuffix(out, "\n")
	if !ok || strings.ContainsAny(token, " \n") {
		t.Fatalf("make printed %q", out)
	}
	j, err := auth.NewJWT(auth.JWTOptions{Secret: []byte(testSecret), Audience: []string{"halley"}, Issuer: "me", Leeway: -1})
	if err != nil {
		t.Fatal(err)
	}
	got, err := j.Authorize(t.Context(), halley.Credentials{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	want := &halley.Grant{
		User: "ann", ID: "t1", Issued: got.Issued, Expires: got.Issued.Add(90 * time.Minute),
		Subscribe: []string{"a,b/**", "news"}, Publish: []string{"a,b/c"}, Admin: true,
		Limits: halley.Limits{Connections: 3, PublishRate: 0.5, PublishBurst: 20},
	}
	if !reflect.DeepEqual(got, want) || time.Since(got.Issued).Abs() > time.Hour {
		t.Errorf("it grants %+v, want %+v", got, want)
	}

	for want, flags := range map[string][]string{
		"--publish-burst goes with --publish-rate": {"--publish-burst", "3"},
		"--publish-burst is -1, not at least 0":    {"--publish-rate", "1", "--publish-burst=-1"},
		"limits: connections: 2e+09, at most":      {"--max-connections", "2000000000"},
		"limits: publishRate: NaN, at most":        {"--publish-rate", "NaN"},
	} {
		if out, stderr, err := run(t, nil, append([]string{"token", "make", "--secret-file", secret}, flags...)...); err == nil || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: %v, %s%s", flags, err, out, stderr)
		}
	}

	ids := map[string]bool{}
	for range 2 {
		_, claims, err := splitToken(strings.TrimSpace(mustRun(t, "token", "make", "--secret-file", secret)))
		if err != nil {
			t.Fatal(err)
		}
		ids[string(claims["jti"])] = true
	}
	if len(ids) != 2 || ids[""] {
		t.Errorf("tokens without --id have the ids %v", ids)
	}
}

// TestTokenKeys wants each kind and form of key to sign, and its public half to
// verify.
func TestTokenKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pemBlock("PRIVATE KEY", der)
	}
	pkix := func(key any) string {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return writeFile(t, "public.pem", pemBlock("PUBLIC KEY", der))
	}
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	secret := writeFile(t, "secret", []byte(testSecret))
	stranger := writeFile(t, "other", []byte("another secret that is long enough too"))
	for _, tt := range []struct {
		what, alg     string
		private, with []string // flags
	}{
		{"secret", "HS256", []string{"--secret-file", secret}, []string{"--secret-file", secret}},
		{"RSA", "RS256", []string{"--key-file", writeFile(t, "a", pkcs8(rsaKey))}, []string{"--key-file", pkix(rsaKey.Public())}},
		{"RSA, PKCS #1", "RS256", []string{"--key-file", writeFile(t, "a", pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)))}, []string{"--key-file", pkix(rsaKey.Public())}},
		{"ECDSA", "ES384", []string{"--key-file", writeFile(t, "a", pkcs8(ecKey))}, []string{"--key-file", pkix(ecKey.Public())}},
		{"ECDSA, SEC 1", "ES384", []string{"--key-file", writeFile(t, "a", pemBlock("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), pemBlock("EC PRIVATE KEY", sec1))}, []string{"--key-file", pkix(ecKey.Public())}},
		{"Ed25519", "EdDSA", []string{"--key-file", writeFile(t, "a", pkcs8(edKey))}, []string{"--key-file", pkix(public)}},
	} {
		token := strings.TrimSpace(mustRun(t, append([]string{"token", "make", "--subscribe", "**"}, tt.private...)...))
		for _, with := range [][]string{tt.private, tt.with} {
			out := mustRun(t, append([]string{"token", "inspect", token}, with...)...)
			if !strings.Contains(out, "\nsignature  good\n") || !strings.Contains(out, `{"alg":"`+tt.alg+`","typ":"JWT"}`) {
				t.Errorf("%s: inspect printed\n%s", tt.what, out)
			}
		}
		out := mustRun(t, "token", "inspect", token)
		if !strings.Contains(out, "\nsignature  not checked: anybody may have made this token") || strings.Contains(out, "good") {
			t.Errorf("%s: inspect without a key printed\n%s", tt.what, out)
		}
		out, stderr, err := run(t, nil, "token", "inspect", "--secret-file", stranger, token)
		if err == nil || stderr != "halley: the token is not good\n" || !strings.Contains(out, "\nsignature  NOT GOOD\nwrong      halley: unauthorized: token signature is invalid") {
			t.Errorf("%s: inspect with another key: %v\n%s%s", tt.what, err, out, stderr)
		}
	}
}

// TestTokenInspect wants everything that is wrong with a token to be told, and a
// good signature to make none of it good.
func TestTokenInspect(t *testing.T) {
	secret := writeFile(t, "secret", []byte(testSecret))
	now := time.Now()
	const expires = "\nexp        "
	for what, tt := range map[string]struct {
		claims jwt.MapClaims
		want   []string // in what is printed
	}{
		"expired":         {jwt.MapClaims{"exp": now.Add(-3 * time.Hour).Unix()}, []string{expires + now.Add(-3*time.Hour).UTC().Format("2006-01-02 15:04:05 UTC") + ", 3h0m", " ago\n", "wrong      token is expired\n"}},
		"long expired":    {jwt.MapClaims{"exp": 1}, []string{expires + "1970-01-01 00:00:01 UTC, ", " days ago\n", "token is expired"}},
		"no exp":          {jwt.MapClaims{"exp": nil}, []string{"exp claim is required"}},
		"exp in words":    {jwt.MapClaims{"exp": "tomorrow"}, []string{"wrong      "}},
		"huge exp":        {jwt.MapClaims{"exp": 1e300}, []string{expires + "1e+300, which is no time", "wrong      "}},
		"not yet":         {jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}, []string{"\nnbf        ", ", in ", "wrong      token is not valid yet\n"}},
		"from the future": {jwt.MapClaims{"iat": now.Add(72*time.Hour + time.Minute).Unix()}, []string{"\niat        ", ", in 3 days\n", "wrong      token used before issued\n"}},
		"no claim":        {jwt.MapClaims{"halley": nil}, []string{"wrong      there is no claim halley, so it grants nothing\n"}},
		"a bad pattern":   {jwt.MapClaims{"halley": map[string]any{"publish": []string{"a", "a/../b"}}}, []string{"wrong      halley: publish[1]: ", `"a/../b"`}},
		"a bad member":    {jwt.MapClaims{"halley": map[string]any{"subscibe": []string{"a"}}}, []string{`wrong      halley: "subscibe" is not known`}},
		"several":         {jwt.MapClaims{"exp": 1, "halley": nil}, []string{"wrong      token is expired\n", "wrong      there is no claim halley"}},
		"another's":       {jwt.MapClaims{"aud": "other"}, []string{"wrong      token has invalid audience\n"}},
		"by another":      {jwt.MapClaims{"iss": "other"}, []string{"wrong      token has invalid issuer\n"}},
		"a user's name":   {jwt.MapClaims{"sub": "a\x00b"}, []string{"wrong      halley: unauthorized: token has invalid claims: sub: "}},
	} {
		claims := jwt.MapClaims{"exp": now.Add(time.Hour).Unix(), "aud": "halley", "iss": "me", "halley": map[string]any{}}
		for name, v := range tt.claims {
			claims[name] = v
			if v == nil {
				delete(claims, name)
			}
		}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		out, stderr, err := run(t, strings.NewReader(token+"\n"), "token", "inspect", "--secret-file", secret, "--audience", "halley", "--issuer", "me", "-")
		if err == nil || stderr != "halley: the token is not good\n" {
			t.Errorf("%s: %v\n%s", what, err, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", what, want, out)
			}
		}
	}
}

// TestTokenOfStrangers wants nothing of a token to reach the terminal but text,
// and what is none to be told.
func TestTokenOfStrangers(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	token := func(header, claims string) string {
		return b64([]byte(header)) + "." + b64([]byte(claims)) + "."
	}
	for what, tt := range map[string]struct{ token, want string }{
		"two parts":    {"a.b", "halley: not a JSON Web Token: 2 parts"},
		"nothing":      {"", "halley: not a JSON Web Token: 1 parts"},
		"no base64":    {"!.!.!", "halley: not a JSON Web Token: header: "},
		"no JSON":      {token("{}", "{"), "halley: not a JSON Web Token: claims: not a JSON object"},
		"null":         {token("null", "{}"), "halley: not a JSON Web Token: header: not a JSON object"},
		"alg none":     {token(`{"alg":"None"}`, `{"exp":99999999999,"halley":{}}`), "halley: the token is not good"},
		"no alg":       {token(`{}`, `{"exp":99999999999,"halley":{}}`), "halley: the token is not good"},
		"too long":     {token(`{"alg":"HS256"}`, `{"exp":99999999999,"halley":{},"a":"`+strings.Repeat("a", auth.MaxToken)+`"}`), "halley: the token is not good"},
		"for terminal": {token("{\"alg\":\"HS256\",\"a\":\"\u009b31m\u202e\"}", "{\"\u009b\":\"\u009d0;x\",\"exp\":9e99,\"halley\":{\"\u009b\":\"\\u001b[31m\"}}"), "halley: the token is not good"},
	} {
		out, stderr, err := run(t, strings.NewReader(tt.token), "token", "inspect", "-")
		if err == nil || !strings.HasPrefix(stderr, tt.want) {
			t.Errorf("%s: %v\n%s", what, err, stderr)
		}
		if strings.ContainsAny(out+stderr, "\x1b\u009b\u009d\u202e") {
			t.Errorf("%s: it prints %q", what, out+stderr)
		}
		if strings.Contains(out, "signature  good") {
			t.Errorf("%s: it is good:\n%s", what, out)
		}
	}
}

// TestTokenMakeRefuses wants no token that a server would not take.
func TestTokenMakeRefuses(t *testing.T) {
	secret := writeFile(t, "secret", []byte(testSecret))
	short := writeFile(t, "short", []byte("secret\n"))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakFile := writeFile(t, "weak", pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weak)))
	public := writeFile(t, "public", pemBlock("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&weak.PublicKey)))
	for what, tt := range map[string]struct {
		args []string
		want string
	}{
		"no key":                {nil, "--secret-file or --key-file is needed"},
		"two keys":              {[]string{"--secret-file", secret, "--key-file", weakFile}, "can't be used together"},
		"no file":               {[]string{"--secret-file", secret + "x"}, "no such file"},
		"a short secret":        {[]string{"--secret-file", short}, "6 bytes, at least 32"},
		"a key as the secret":   {[]string{"--secret-file", public}, "a PEM file, not a secret"},
		"a public key":          {[]string{"--key-file", public}, "no private key in PEM"},
		"a weak key":            {[]string{"--key-file", weakFile}, "RSA key of 1024 bits"},
		"a pattern":             {[]string{"--secret-file", secret, "--subscribe", "a*"}, "subscribe[0]: "},
		"a reserved channel":    {[]string{"--secret-file", secret, "--publish", "meta/a"}, "publish[0]: "},
		"a user":                {[]string{"--secret-file", secret, "--user", "a\nb"}, "sub: "},
		"no time":               {[]string{"--secret-file", secret, "--ttl", "0s"}, "--ttl is 0s"},
		"more than can be sent": {[]string{"--secret-file", secret, "--issuer", strings.Repeat("a", auth.MaxToken)}, "at most 8192"},
	} {
		out, stderr, err := run(t, nil, append([]string{"token", "make"}, tt.args...)...)
		if err == nil || out != "" && !strings.HasPrefix(out, "Usage:") || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: %v, want %q\n%s%s", what, err, tt.want, out, stderr)
		}
	}
}
