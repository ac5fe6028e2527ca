package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// minSecret is the length of a secret at least, in bytes: RFC 7518, 3.2
	// wants that of the hash.
	minSecret = 32
	// maxTried is how many keys a token is tried with at most: forged ones
	// cost as much.
	maxTried = 8
	// An RSA key is of so many bits: RFC 7518, 3.3 wants 2,048 at least.
	minRSA, maxRSA = 2048, 8192
)

// algorithms returns those that tokens signed by the key may have. They follow
// from the key's kind alone, never from the token: a public key is no secret.
func algorithms(key any) []string {
	switch key := key.(type) {
	case []byte:
		return []string{"HS256", "HS384", "HS512"}
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize { // RFC 7518, 3.4: each curve has its own
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

// checkPublic reports what is wrong with a public key.
func checkPublic(key any) error {
	if _, secret := key.([]byte); secret || algorithms(key) == nil {
		return fmt.Errorf("a key of type %T, not RSA, ECDSA (P-256, P-384, P-521) or Ed25519", key)
	}
	if k, ok := key.(*rsa.PublicKey); ok {
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("an RSA key of %d bits, not between %d and %d", n, minRSA, maxRSA)
		}
	}
	return nil
}

// checkSecret reports what is wrong with a secret.
func checkSecret(secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("%d bytes, at least %d: make one by openssl rand -hex 32", len(secret), minSecret)
	}
	if strings.Contains(string(secret), "-----BEGIN ") {
		return errors.New("a PEM file, not a secret: anybody may have a public key, and sign with it then")
	}
	return nil
}

// parsePublic reads public keys and certificates in PEM.
func parsePublic(text []byte) ([]any, error) {
	var keys []any
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		key, err := parseBlock(block)
		if err == nil {
			err = checkPublic(key)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		if keys = append(keys, key); len(keys) > maxTried {
			return nil, fmt.Errorf("over %d keys: a token would be tried with all of them", maxTried)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key in PEM")
	}
	return keys, nil
}

func parseBlock(b *pem.Block) (any, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	if strings.Contains(b.Type, "PRIVATE") {
		return nil, fmt.Errorf("%s: only the public key is needed, keep this one from the server", b.Type)
	}
	return nil, fmt.Errorf("%q is no public key", b.Type)
}

// A keySet is what tokens are verified by. It does not change.
type keySet struct {
	keys []any // of them all

	// named finds keys by a token's kid and alg, in a set where they have
	// names. Without it a kid says nothing.
	named keyfunc.Keyfunc
	text  string // of the set, to know another by
}

// errUnknownKey is for a token whose key is not in the set.
var errUnknownKey = errors.New("there is no key of its kid")

// find returns the keys that a token is tried with: those that it names, or
// else all, and of these the ones its algorithm suits.
func (s *keySet) find(t *jwt.Token) (any, error) {
	found := s.keys
	if kid, ok := t.Header["kid"]; ok && s.named != nil {
		key, err := s.named.Keyfunc(t)
		if errors.Is(err, jwkset.ErrKeyNotFound) {
			return nil, errUnknownKey
		}
		if err != nil {
			return nil, fmt.Errorf("its kid %.64q does not go with its alg", fmt.Sprint(kid))
		}
		found = []any{key}
	}
	var suit jwt.VerificationKeySet
	for _, key := range found {
		if slices.Contains(algorithms(key), t.Method.Alg()) {
			suit.Keys = append(suit.Keys, key)
		}
	}
	switch {
	case len(suit.Keys) == 0:
		return nil, fmt.Errorf("there is no key for its alg %.64q", t.Method.Alg())
	case len(suit.Keys) > maxTried:
		return nil, errors.New("it names no key by a kid, and there are many")
	}
	return suit, nil
}
