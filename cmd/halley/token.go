package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

// tokenCmd are the commands for JSON Web Tokens.
type tokenCmd struct {
	Make    makeTokenCmd    `cmd:"" help:"Print a new token."`
	Inspect inspectTokenCmd `cmd:"" help:"Print what a token says, and what is wrong with it."`
}

// tokenKey is what tokens are signed and verified by.
type tokenKey struct {
	SecretFile string `xor:"key" help:"File with the secret, at least 32 bytes; line ends at its end are left out." placeholder:"FILE"`
	KeyFile    string `xor:"key" help:"File with a key in PEM." placeholder:"FILE"`
}

// readSecret reads a file with a secret. Editors and echo add a line end.
func readSecret(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(b, "\r\n"), nil
}

// private returns what signs, and how.
func (k tokenKey) private() (key any, method jwt.SigningMethod, err error) {
	if k.SecretFile != "" {
		secret, err := readSecret(k.SecretFile)
		return secret, jwt.SigningMethodHS256, err
	}
	text, err := os.ReadFile(k.KeyFile)
	if err != nil {
		return nil, nil, err
	}
	private, err := parsePrivate(text)
	if err != nil {
		return nil, nil, fmt.Errorf("--key-file %s: %w", k.KeyFile, err)
	}
	switch p := private.Public().(type) {
	case *rsa.PublicKey:
		return private, jwt.SigningMethodRS256, nil
	case ed25519.PublicKey:
		return private, jwt.SigningMethodEdDSA, nil
	case *ecdsa.PublicKey:
		for _, m := range []*jwt.SigningMethodECDSA{jwt.SigningMethodES256, jwt.SigningMethodES384, jwt.SigningMethodES512} {
			if m.CurveBits == p.Curve.Params().BitSize {
				return private, m, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("--key-file %s: not an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key", k.KeyFile)
}

// options are those of a server that takes what the key has signed.
func (k tokenKey) options() (o auth.JWTOptions, err error) {
	if k.SecretFile != "" {
		o.Secret, err = readSecret(k.SecretFile)
		return o, err
	}
	text, err := os.ReadFile(k.KeyFile)
	if err != nil {
		return o, err
	}
	o.PublicKeys = text
	if private, err := parsePrivate(text); err == nil {
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			return o, fmt.Errorf("--key-file %s: %w", k.KeyFile, err)
		}
		o.PublicKeys = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return o, nil
}

// parsePrivate reads the private key in a file, in any of the forms that
// openssl writes without a password.
func parsePrivate(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key in PEM")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the private key has a password; openssl pkey takes it off")
		default:
			continue // a certificate, or a curve's parameters
		}
		if err != nil {
			return nil, err
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
}

type makeTokenCmd struct {
	tokenKey
	User           string        `help:"Who the client is." placeholder:"NAME"`
	Subscribe      []string      `sep:"none" help:"Channel or pattern to read; may be given several times." placeholder:"NAME"`
	Publish        []string      `sep:"none" help:"Channel or pattern to write; may be given several times." placeholder:"NAME"`
	Admin          bool          `help:"May revoke the tokens of others."`
	MaxConnections int           `help:"Subscriptions that the user may hold; 0 for what the server says (default), -1 for no bound." placeholder:"N"`
	PublishRate    float64       `help:"Messages a second that the user may publish; 0 for what the server says (default), -1 for no bound." placeholder:"N"`
	PublishBurst   int           `help:"Messages that the user may publish at once; 0 for as many as in a second (default)." placeholder:"N"`
	TTL            time.Duration `default:"1h" help:"How long the token is good (${default})." placeholder:"DURATION"`
	Audience       []string      `sep:"none" help:"Whom the token is for; may be given several times." placeholder:"NAME"`
	Issuer         string        `help:"Who makes the token." placeholder:"NAME"`
	ID             string        `help:"The token's own name, to revoke it by; random by default." placeholder:"NAME"`
}

// Run prints the token, once a server with the key would take it.
func (c *makeTokenCmd) Run() error {
	if c.SecretFile == "" && c.KeyFile == "" {
		return errors.New("--secret-file or --key-file is needed, to sign with")
	}
	if c.TTL < time.Second {
		return fmt.Errorf("--ttl is %v, not at least 1s", c.TTL)
	}
	rights := auth.Rights{
		Subscribe: c.Subscribe, Publish: c.Publish, Admin: c.Admin,
		Limits: auth.Limits{Connections: c.MaxConnections, PublishRate: c.PublishRate, PublishBurst: c.PublishBurst},
	}
	if err := rights.Check(); err != nil {
		return err
	}
	switch {
	case c.PublishBurst < 0:
		return fmt.Errorf("--publish-burst is %d, not at least 0", c.PublishBurst)
	case c.PublishBurst > 0 && c.PublishRate <= 0:
		return errors.New("--publish-burst goes with --publish-rate: without it, the server's own hold")
	}
	key, method, err := c.private()
	if err != nil {
		return err
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	now := time.Now()
	claims := struct {
		jwt.RegisteredClaims
		Halley auth.Rights `json:"halley"`
	}{
		jwt.RegisteredClaims{
			Issuer: c.Issuer, Subject: c.User, Audience: c.Audience, ID: c.ID,
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(c.TTL)),
		},
		rights,
	}
	if claims.ID == "" {
		claims.ID = rand.Text()
	}
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		return err
	}
	if err := c.verify(o, token); err != nil {
		return err
	}
	fmt.Println(token)
	return nil
}

// verify returns why a server with these options would not take a token; nil: it
// would.
func (k tokenKey) verify(o auth.JWTOptions, token string) error {
	j, err := auth.NewJWT(o)
	if err != nil {
		return fmt.Errorf("%s: %w", cmp.Or(k.SecretFile, k.KeyFile), err)
	}
	defer j.Close()
	_, err = j.Authorize(context.Background(), halley.Credentials{Token: token})
	return err
}

type inspectTokenCmd struct {
	tokenKey
	Audience []string `sep:"none" help:"One of whom the token must be for; may be given several times." placeholder:"NAME"`
	Issuer   string   `help:"Who must have made the token." placeholder:"NAME"`
	Token    string   `arg:"" help:"The token; - reads it from standard input, which keeps it out of the list of processes."`
}

// Run prints the token, and returns an error if something is wrong with it.
// Without a key it cannot know whether the token is anybody's at all.
func (c *inspectTokenCmd) Run() error {
	token := c.Token
	if token == "-" {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		if err != nil {
			return err
		}
		token = strings.TrimSpace(string(b))
	}
	header, claims, err := splitToken(token)
	if err != nil {
		return err
	}
	printPart("header", header, "")
	printPart("claims", claims, "  ")
	now := time.Now()
	for _, name := range []string{"iat", "nbf", "exp"} {
		var at json.Number
		if raw, ok := claims[name]; !ok || json.Unmarshal(raw, &at) != nil {
			continue
		}
		if seconds, err := at.Float64(); err == nil {
			fmt.Printf("%-10s %s\n", name, inWords(seconds, now))
		}
	}

	wrong := c.wrongClaims(claims)
	var alg string
	if err := json.Unmarshal(header["alg"], &alg); err != nil || strings.EqualFold(alg, "none") {
		wrong = append(wrong, "it is not signed: its alg is none")
	}
	if len(token) > auth.MaxToken {
		wrong = append(wrong, fmt.Sprintf("%d bytes, at most %d", len(token), auth.MaxToken))
	}
	if c.SecretFile == "" && c.KeyFile == "" {
		fmt.Println("signature  not checked: anybody may have made this token (--secret-file and --key-file check it)")
	} else {
		o, err := c.options()
		if err != nil {
			return err
		}
		o.Audience, o.Issuer = c.Audience, c.Issuer
		err = c.verify(o, token)
		switch {
		case err == nil:
			fmt.Println("signature  good")
		case errors.Is(err, jwt.ErrTokenInvalidClaims): // found after the signature
			fmt.Println("signature  good")
			if len(wrong) == 0 {
				wrong = append(wrong, err.Error())
			}
		case errors.Is(err, halley.ErrUnauthorized):
			fmt.Println("signature  NOT GOOD")
			wrong = append([]string{err.Error()}, wrong...)
		default:
			return err
		}
	}
	for _, w := range wrong {
		fmt.Printf("%-10s %s\n", "wrong", printable(w))
	}
	if len(wrong) > 0 {
		return errors.New("the token is not good")
	}
	return nil
}

// splitToken returns the header and the claims of a token, not verified.
func splitToken(token string) (header, claims map[string]json.RawMessage, err error) {
	part := strings.Split(token, ".")
	if len(part) != 3 {
		return nil, nil, fmt.Errorf("not a JSON Web Token: %d parts with dots between, not 3", len(part))
	}
	for i, to := range []*map[string]json.RawMessage{&header, &claims} {
		name := []string{"header", "claims"}[i]
		b, err := base64.RawURLEncoding.DecodeString(part[i])
		if err != nil {
			return nil, nil, fmt.Errorf("not a JSON Web Token: %s: %w", name, err)
		}
		if err := json.Unmarshal(b, to); err != nil || *to == nil {
			return nil, nil, fmt.Errorf("not a JSON Web Token: %s: not a JSON object", name)
		}
	}
	return header, claims, nil
}

func printPart(name string, members map[string]json.RawMessage, indent string) {
	b, err := json.Marshal(members)
	if err == nil && indent != "" {
		b, err = json.MarshalIndent(members, "", indent)
	}
	if err != nil {
		b = []byte(err.Error()) // it was parsed, so it is JSON
	}
	fmt.Printf("%-10s %s\n", name, printable(string(b)))
}

// printable returns a text that says nothing to a terminal: it is a stranger's.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || unicode.IsGraphic(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// inWords tells a time in seconds since 1970, and how far it is.
func inWords(seconds float64, now time.Time) string {
	const last = 253402300799 // of the year 9999
	if !(math.Abs(seconds) <= last) {
		return fmt.Sprintf("%v, which is no time before the year 10000", seconds)
	}
	at := time.Unix(int64(seconds), 0).UTC()
	far := at.Sub(now).Abs()
	words := far.Round(time.Second).String()
	if far >= 48*time.Hour {
		words = fmt.Sprintf("%d days", far/(24*time.Hour))
	}
	if at.Before(now) {
		words += " ago"
	} else {
		words = "in " + words
	}
	return at.Format("2006-01-02 15:04:05 UTC") + ", " + words
}

// wrongClaims returns what is wrong with the claims.
func (c *inspectTokenCmd) wrongClaims(claims map[string]json.RawMessage) (wrong []string) {
	all := jwt.MapClaims{}
	for name, raw := range claims {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		all[name] = v
	}
	options := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(10 * time.Second)}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if len(c.Audience) > 0 {
		options = append(options, jwt.WithAudience(c.Audience...))
	}
	if err := jwt.NewValidator(options...).Validate(all); err != nil {
		wrong = append(wrong, err.Error())
	}
	if raw, ok := claims["halley"]; !ok || string(raw) == "null" {
		wrong = append(wrong, "there is no claim halley, so it grants nothing")
	} else if err := new(auth.Rights).UnmarshalJSON(raw); err != nil {
		wrong = append(wrong, "halley: "+err.Error())
	}
	return wrong
}
