package wire

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Code is the closed list of what can be wrong, for programs to branch on.
// docs/protocol.md says of each whether a client retries, reloads or stops.
type Code string

// The codes. Codes are added, never changed.
const (
	InvalidParameter  Code = "invalid-parameter"
	InvalidChannel    Code = "invalid-channel"
	InvalidCursor     Code = "invalid-cursor"
	InvalidTransport  Code = "invalid-transport"
	InvalidCallback   Code = "invalid-callback"
	InvalidOrigin     Code = "invalid-origin"
	InvalidMessage    Code = "invalid-message"
	InvalidKey        Code = "invalid-key"
	InvalidFrame      Code = "invalid-frame"
	UnsupportedBody   Code = "unsupported-body"
	TooLarge          Code = "too-large"
	KeyReused         Code = "key-reused"
	ForbiddenOrigin   Code = "forbidden-origin"
	ForbiddenHost     Code = "forbidden-host"
	NotFound          Code = "not-found"
	MethodNotAllowed  Code = "method-not-allowed"
	UpgradeRequired   Code = "upgrade-required"
	Unauthorized      Code = "unauthorized"
	TokenExpired      Code = "token-expired"
	TokenRevoked      Code = "token-revoked"
	InvalidTicket     Code = "invalid-ticket"
	TokenInURL        Code = "token-in-url" // #nosec G101 -- the name of an error
	ForbiddenChannel  Code = "forbidden-channel"
	Forbidden         Code = "forbidden"
	AuthUnavailable   Code = "authorizer-unavailable"
	RateLimited       Code = "rate-limited"
	ConnectionLimit   Code = "connection-limit"
	TooManyConns      Code = "too-many-connections"
	Overloaded        Code = "overloaded"
	TooSlow           Code = "too-slow"
	Draining          Code = "draining"
	EngineUnavailable Code = "engine-unavailable"
	Internal          Code = "internal"
)

// A Problem is an error as clients see it (RFC 9457). It is an error in Go too.
type Problem struct {
	Status int
	Code   Code
	// Title is the same for each Code, Detail tells of this one case.
	Title  string
	Detail string
	// Line is the line of a batch at fault, from 1; 0 if none.
	Line int
	// RetryAfter is when to try again, for temporary refusals; 0 if unknown.
	RetryAfter time.Duration
	// Allow lists the methods allowed, with status 405.
	Allow string
}

// kinds holds the status and title of each code.
var kinds = map[Code]struct {
	status int
	title  string
}{
	InvalidParameter:  {400, "A parameter is not valid"},
	InvalidChannel:    {400, "A channel is not valid"},
	InvalidCursor:     {400, "The cursor is not valid"},
	InvalidTransport:  {400, "The transport is not valid"},
	InvalidCallback:   {400, "The callback is not valid"},
	InvalidOrigin:     {400, "The origin is not valid"},
	InvalidMessage:    {400, "The message is not valid"},
	InvalidKey:        {400, "The Idempotency-Key is not valid"},
	InvalidFrame:      {400, "The frame is not valid"},
	UnsupportedBody:   {415, "The body's type or encoding is not supported"},
	TooLarge:          {413, "The request is too large"},
	KeyReused:         {422, "The Idempotency-Key was used for other content"},
	ForbiddenOrigin:   {403, "The page's origin is not allowed"},
	ForbiddenHost:     {403, "The host name is not allowed"},
	NotFound:          {404, "There is nothing at this path"},
	MethodNotAllowed:  {405, "The method is not allowed"},
	UpgradeRequired:   {426, "WebSocket needs an upgrade request"},
	Unauthorized:      {401, "The request's credentials are not good"},
	TokenExpired:      {401, "The token has expired"},
	TokenRevoked:      {401, "The token was revoked"},
	InvalidTicket:     {401, "The ticket is not valid"},
	TokenInURL:        {400, "The token may not be sent in a URL"},
	ForbiddenChannel:  {403, "The channel is not allowed"},
	Forbidden:         {403, "The request is not allowed"},
	AuthUnavailable:   {503, "The authorizer is not available"},
	RateLimited:       {429, "The client does too much at once"},
	ConnectionLimit:   {429, "The client holds as many connections as it may"},
	TooManyConns:      {503, "The server holds as many connections as it may"},
	Overloaded:        {503, "The server takes no more clients at this moment"},
	TooSlow:           {503, "The client fell too far behind"},
	Draining:          {503, "The server is shutting down"},
	EngineUnavailable: {503, "The log is not available"},
	Internal:          {500, "The server failed"},
}

// Codes returns all codes.
func Codes() []Code { return slices.Sorted(maps.Keys(kinds)) }

// NewProblem returns a problem with the code's status and title.
func NewProblem(code Code, detail string) *Problem {
	k := kinds[code]
	return &Problem{Status: k.status, Code: code, Title: k.title, Detail: detail}
}

// Error returns the title and the detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

// Temporary tells whether the same request may succeed later.
func (p *Problem) Temporary() bool { return p.Status == 429 || p.Status == 503 }

func (p *Problem) appendMembers(dst []byte) []byte {
	dst = append(dst, `"status":`...)
	dst = strconv.AppendInt(dst, int64(p.Status), 10)
	dst = append(dst, `,"code":`...)
	dst = AppendString(dst, string(p.Code))
	dst = append(dst, `,"title":`...)
	dst = AppendString(dst, p.Title)
	if p.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = AppendString(dst, p.Detail)
	}
	if p.Line > 0 {
		dst = append(dst, `,"line":`...)
		dst = strconv.AppendInt(dst, int64(p.Line), 10)
	}
	return dst
}

// MarshalJSON returns the problem as application/problem+json.
func (p *Problem) MarshalJSON() ([]byte, error) {
	return append(p.appendMembers([]byte{'{'}), '}'), nil
}

var _ json.Marshaler = (*Problem)(nil)

// Write answers a request with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json; charset=utf-8")
	if p.Status == http.StatusUnauthorized { // RFC 6750, 3
		h.Set("WWW-Authenticate", `Bearer realm="halley", error="invalid_token"`)
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	body, _ := p.MarshalJSON() // it cannot fail
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client is told or is gone
}

// Detail returns the text of an error for a client: without the names of our
// packages.
func Detail(err error) string {
	s := err.Error()
	for _, prefix := range []string{"halley: publish: ", "halley: unauthorized: ", "halley: ", "engine: invalid argument: ", "engine: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}
