package auth

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims are those of a token that matter here (RFC 7519, 4.1), and the others
// as they are.
type claims struct {
	exp, nbf, iat time.Time // zero: not there
	aud           jwt.ClaimStrings
	iss, sub, jti string
	others        map[string]json.RawMessage
}

var _ jwt.Claims = (*claims)(nil)

// UnmarshalJSON refuses claims that are there twice, or of a wrong type.
func (c *claims) UnmarshalJSON(b []byte) error {
	m, err := members(b)
	if err != nil {
		return err
	}
	*c = claims{others: m}
	return cmp.Or(
		takeTime(m, "exp", &c.exp),
		takeTime(m, "nbf", &c.nbf),
		takeTime(m, "iat", &c.iat),
		take(m, "aud", "a string or a list of strings", &c.aud),
		take(m, "iss", "a string", &c.iss),
		take(m, "sub", "a string", &c.sub),
		take(m, "jti", "a string", &c.jti),
	)
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return numericDate(c.exp), nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return numericDate(c.iat), nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return numericDate(c.nbf), nil }
func (c *claims) GetIssuer() (string, error)                   { return c.iss, nil }
func (c *claims) GetSubject() (string, error)                  { return c.sub, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.aud, nil }

func numericDate(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return jwt.NewNumericDate(t)
}
