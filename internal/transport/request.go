package transport

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// Bounds of a request's parameters.
const (
	MaxTimeout    = 60 * time.Second
	MaxPadding    = 65536
	maxCallback   = 64
	iframePadding = 2048
)

// A Request is a subscribe request, read and checked.
type Request struct {
	Transport string
	// Raw is set for data without envelopes, on sse and multipart.
	Raw      bool
	Channels []string
	Start    Start
	// Timeout is how long a poll is held.
	Timeout time.Duration
	// Callback and Origin are where iframe and jsonp deliver to. They are set
	// only if they are valid, so that a refusal can be delivered too.
	Callback string
	Origin   string
	// Padding is how many bytes a stream has at least before its first message.
	Padding int
}

// A Start is where a subscription begins: Now, or else after Cursor.
type Start struct {
	Now    bool
	Cursor engine.Cursor
}

// nowhere is a cursor of no log's epoch.
var nowhere = engine.Cursor{Epoch: "-"}

// Defaults are what a request that leaves a parameter out gets.
type Defaults struct {
	Timeout     time.Duration
	MaxChannels int
}

// Parse reads the parameters of a subscribe request. With a problem the
// request is returned as well, with what Refuse needs of it.
func Parse(r *http.Request, form url.Values, d Defaults) (*Request, *wire.Problem) {
	q := &Request{Transport: form.Get("transport"), Timeout: d.Timeout}
	if q.Transport == "" {
		q.Transport = negotiate(r.Header)
	}
	// Where a refusal goes has to be known before anything is refused.
	if p := q.parseTarget(form); p != nil {
		return q, p
	}
	for _, parse := range []func(*http.Request, url.Values, Defaults) *wire.Problem{
		q.parseFormat, q.parseChannels, q.parseStart, q.parseTimeout, q.parsePadding,
	} {
		if p := parse(r, form, d); p != nil {
			return q, p
		}
	}
	return q, nil
}

func (q *Request) parseTarget(form url.Values) *wire.Problem {
	switch q.Transport {
	case LongPolling, Multipart, XHRStreaming, SSE, WebSocket:
		return nil
	case JSONP, IFrame:
	default:
		p := wire.NewProblem(wire.InvalidTransport, fmt.Sprintf("transport %.40q: want one of %s", q.Transport, strings.Join(Names, ", ")))
		q.Transport = LongPolling
		return p
	}
	if callback := form.Get("callback"); callback != "" {
		if len(callback) > maxCallback || !callbackName.MatchString(callback) {
			return wire.NewProblem(wire.InvalidCallback, fmt.Sprintf("callback %.80q: want names joined by dots, at most %d bytes", callback, maxCallback))
		}
		q.Callback = callback
	}
	if origin := form.Get("origin"); q.Transport == IFrame && origin != "" {
		if !serializedOrigin(origin) {
			q.Callback = ""
			return wire.NewProblem(wire.InvalidOrigin, fmt.Sprintf("origin %.80q: want the parent's scheme://host[:port]", origin))
		}
		q.Origin = origin
	}
	if q.Callback == "" && q.Origin == "" {
		detail := "jsonp needs a callback"
		if q.Transport == IFrame {
			detail = "iframe needs a callback or an origin"
		}
		return wire.NewProblem(wire.InvalidCallback, detail)
	}
	return nil
}

var callbackName = regexp.MustCompile(`^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$`)

// originSyntax is a serialised origin (HTML Standard, "Origin") of a web page.
var originSyntax = regexp.MustCompile(`^https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)

func serializedOrigin(s string) bool {
	if len(s) > 300 || !originSyntax.MatchString(s) {
		return false
	}
	_, err := url.Parse(s) // what is in brackets is an IPv6 address
	return err == nil
}

func (q *Request) parseFormat(_ *http.Request, form url.Values, _ Defaults) *wire.Problem {
	hasRaw := q.Transport == SSE || q.Transport == Multipart
	switch f := form.Get("format"); {
	case f == "":
		q.Raw = hasRaw
	case f == "raw" && hasRaw:
		q.Raw = true
	case f == "envelope":
	case f == "raw":
		return wire.NewProblem(wire.InvalidParameter, "format raw is for sse and multipart only, not for "+q.Transport)
	default:
		return wire.NewProblem(wire.InvalidParameter, fmt.Sprintf("format %.40q: want envelope or raw", f))
	}
	return nil
}

func (q *Request) parseChannels(_ *http.Request, form url.Values, d Defaults) *wire.Problem {
	channels, p := Channels(form["channel"], d.MaxChannels)
	if p != nil {
		return p
	}
	if len(channels) == 0 && q.Transport != WebSocket {
		return wire.NewProblem(wire.InvalidChannel, "channel is missing: name at least one")
	}
	q.Channels = channels
	return nil
}

// Channels checks names and patterns and returns each once.
func Channels(list []string, max int) ([]string, *wire.Problem) {
	var channels []string
	seen := make(map[string]bool, len(list))
	for _, c := range list {
		if err := engine.CheckPattern(c); err != nil {
			return nil, wire.NewProblem(wire.InvalidChannel, wire.Detail(err))
		}
		if !seen[c] {
			seen[c] = true
			channels = append(channels, c)
		}
	}
	if len(channels) > max {
		return nil, wire.NewProblem(wire.InvalidChannel, fmt.Sprintf("%d channels, at most %d: a pattern may say it in one", len(channels), max))
	}
	return channels, nil
}

func (q *Request) parseStart(r *http.Request, form url.Values, _ Defaults) *wire.Problem {
	start, p := parseStart(form.Get("cursor"), r.Header.Get("Last-Event-ID"))
	if p == nil {
		q.Start = start
	}
	return p
}

func parseStart(cursor, lastEventID string) (Start, *wire.Problem) {
	start, p := ParseStart(cursor)
	if p != nil {
		return start, p
	}
	// A browser's EventSource comes back with the URL it began with, so what
	// it saw last wins. It cannot be told of an error here: a position that
	// makes no sense is a gap.
	if lastEventID != "" {
		if start, p = ParseStart(lastEventID); p != nil {
			start = Start{Cursor: nowhere}
		}
	}
	return start, nil
}

// ParseStart reads a cursor as a client gives it.
func ParseStart(s string) (Start, *wire.Problem) {
	switch s {
	case "", "now":
		return Start{Now: true}, nil
	case "earliest":
		return Start{}, nil
	}
	c, err := engine.ParseCursor(s)
	if err != nil {
		return Start{}, wire.NewProblem(wire.InvalidCursor, wire.Detail(err))
	}
	return Start{Cursor: c}, nil
}

var decimal = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?$`)

func (q *Request) parseTimeout(_ *http.Request, form url.Values, _ Defaults) *wire.Problem {
	s := form.Get("timeout")
	if s == "" {
		return nil
	}
	if !decimal.MatchString(s) {
		return wire.NewProblem(wire.InvalidParameter, fmt.Sprintf("timeout %.40q: want seconds, such as 25 or 0.5", s))
	}
	seconds, _ := strconv.ParseFloat(s, 64) // its syntax is checked
	q.Timeout = min(time.Duration(seconds*float64(time.Second)), MaxTimeout)
	return nil
}

func (q *Request) parsePadding(_ *http.Request, form url.Values, _ Defaults) *wire.Problem {
	s := form.Get("padding")
	if s == "" {
		if q.Transport == IFrame {
			q.Padding = iframePadding
		}
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n > MaxPadding {
		return wire.NewProblem(wire.InvalidParameter, fmt.Sprintf("padding %.40q: want bytes, 0 to %d", s, MaxPadding))
	}
	q.Padding = int(n)
	return nil
}
