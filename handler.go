package halley

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// Bounds of a request that are the same everywhere.
const (
	maxForm        = 1 << 20 // bytes of a subscribe request's form
	historyDefault = 100
	historyMax     = 1000
	// historyBytes bounds the data in one page of history.
	historyBytes = 4 << 20
)

// An endpoint is one path under the mount.
type endpoint struct {
	methods string // as Allow has them, but for OPTIONS
	serve   func(*Hub, http.ResponseWriter, *http.Request)
}

var endpoints = map[string]endpoint{
	"subscribe": {"GET, POST", (*Hub).serveSubscribe},
	"publish":   {"POST", (*Hub).servePublish},
	"history":   {"GET, HEAD", (*Hub).serveHistory},
	"info":      {"GET, HEAD", (*Hub).serveInfo},
}

// ServeHTTP serves the native protocol below the path that the hub is mounted
// at.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if p := h.checkHost(r); p != nil {
		p.Write(w)
		return
	}
	h.setCORS(header, r)
	e, ok := endpoints[h.endpoint(r)]
	if !ok {
		wire.NewProblem(wire.NotFound, fmt.Sprintf("%.100q is not a path of the protocol", r.URL.Path)).Write(w)
		return
	}
	if r.Method == http.MethodOptions {
		header.Set("Allow", e.methods+", OPTIONS")
		h.setPreflight(header, r, e.methods)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if !allows(e.methods, r.Method) {
		p := wire.NewProblem(wire.MethodNotAllowed, fmt.Sprintf("%.20q is not allowed here", r.Method))
		p.Allow = e.methods + ", OPTIONS"
		p.Write(w)
		return
	}
	e.serve(h, w, r)
}

func allows(methods, method string) bool {
	for m := range strings.SplitSeq(methods, ", ") {
		if m == method {
			return true
		}
	}
	return false
}

// endpoint returns the request's path below the mount.
func (h *Hub) endpoint(r *http.Request) string {
	mount := h.opts.Path
	if mount == "" {
		mount = "/comet"
		// As ServeMux matched it: "METHOD host/comet/".
		if _, pattern, found := strings.Cut(r.Pattern, "/"); found {
			mount = "/" + pattern
		}
	}
	if rest, ok := cutMount(r.URL.Path, mount); ok {
		return rest
	}
	return strings.TrimPrefix(r.URL.Path, "/")
}

// cutMount removes the segments of a mount from a path. Those of the mount may
// be wildcards of ServeMux.
func cutMount(path, mount string) (rest string, ok bool) {
	rest = strings.TrimPrefix(path, "/")
	for segment := range strings.SplitSeq(strings.Trim(mount, "/"), "/") {
		if strings.HasSuffix(segment, "...}") || segment == "" {
			break
		}
		first, after, found := strings.Cut(rest, "/")
		if !found || first != segment && !strings.HasPrefix(segment, "{") {
			return "", false
		}
		rest = after
	}
	return rest, true
}

func (h *Hub) serveSubscribe(w http.ResponseWriter, r *http.Request) {
	form, p := subscribeForm(w, r)
	if p != nil {
		p.Write(w)
		return
	}
	q, p := transport.Parse(r, form, transport.Defaults{Timeout: h.opts.PollTimeout, MaxChannels: h.opts.MaxChannels})
	if p == nil {
		p = h.checkPage(r, q)
	}
	n, ok := h.enter()
	defer h.leave()
	switch {
	case p != nil:
	case !ok:
		p = wire.NewProblem(wire.Draining, "come back in a moment")
		p.RetryAfter = comeBack(time.Second, 4*time.Second)
	case h.opts.MaxConnections > 0 && n > int64(h.opts.MaxConnections):
		p = wire.NewProblem(wire.TooManyConns, "come back in a moment")
		p.RetryAfter = comeBack(2*time.Second, 8*time.Second)
	}
	if p != nil {
		h.transports.Refuse(w, r, q, p)
		return
	}
	after := q.Start.Cursor
	if q.Start.Now {
		after = h.engine.End()
	}
	h.transports.Serve(w, r, q, after)
}

// comeBack draws by lot when a client is to come back, so that those which are
// turned away together do not return together.
func comeBack(least, spread time.Duration) time.Duration {
	return least + rand.N(spread)
}

// subscribeForm returns the parameters of a subscribe request, from its query
// and, with POST, its body.
func subscribeForm(w http.ResponseWriter, r *http.Request) (url.Values, *wire.Problem) {
	form, p := query(r)
	if p != nil || r.Method != http.MethodPost {
		return form, p
	}
	if t := mediaType(r.Header.Get("Content-Type")); t != formType && t != "" {
		return nil, wire.NewProblem(wire.UnsupportedBody, fmt.Sprintf("a subscribe request's body is %s, not %.80q", formType, t))
	}
	body, p := readBody(w, r, maxForm)
	if p != nil {
		return nil, p
	}
	more, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, wire.NewProblem(wire.InvalidParameter, "the form cannot be parsed: "+err.Error())
	}
	for name, values := range more {
		form[name] = append(form[name], values...)
	}
	return form, nil
}

func query(r *http.Request) (url.Values, *wire.Problem) {
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wire.NewProblem(wire.InvalidParameter, "the query cannot be parsed: "+err.Error())
	}
	return form, nil
}

func (h *Hub) serveInfo(w http.ResponseWriter, _ *http.Request) {
	body := append([]byte(nil), `{"protocol":1,"version":`...)
	body = wire.AppendString(body, h.opts.Version)
	body = append(body, `,"transports":`...)
	body = appendStrings(body, transport.Names)
	body = append(body, `,"heartbeat":`...)
	body = wire.AppendSeconds(body, h.opts.Heartbeat)
	body = append(body, `,"hosts":`...)
	body = appendStrings(body, h.opts.Hosts)
	body = append(body, `,"cursor":"`...)
	body = h.engine.End().Append(body)
	writeJSON(w, append(body, `"}`...))
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendString(dst, s)
	}
	return append(dst, ']')
}

func writeJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is told or is gone
}

func (h *Hub) serveHistory(w http.ResponseWriter, r *http.Request) {
	form, p := query(r)
	if p != nil {
		p.Write(w)
		return
	}
	q, p := h.historyQuery(form)
	if p != nil {
		p.Write(w)
		return
	}
	var page Page
	if q.nothing {
		page.End = Cursor{Epoch: h.engine.End().Epoch}
	} else {
		var err error
		if page, err = h.engine.Read(r.Context(), q.Query); err != nil {
			h.problem(r, err).Write(w)
			return
		}
	}
	body := wire.Page{Cursor: page.End, Gap: q.gap || page.Gap, History: true, More: page.More}
	for _, m := range page.Messages {
		body.Envelopes = append(body.Envelopes, wire.AppendEnvelope(nil, m))
	}
	if q.Backward {
		body.Cursor = q.before
		if len(page.Messages) > 0 {
			body.Cursor = page.Messages[0].ID
		}
	}
	writeJSON(w, body.Append(nil))
}

// A historyQuery is a history request, read and checked.
type historyQuery struct {
	Query
	before Cursor
	// gap is set if a bound names a position that this log never had.
	gap bool
	// nothing is set if a bound lies before the first message, which the
	// Query's own cannot say.
	nothing bool
}

func (h *Hub) historyQuery(form url.Values) (q historyQuery, p *wire.Problem) {
	if q.Channels, p = transport.Channels(form["channel"], h.opts.MaxChannels); p != nil {
		return q, p
	}
	if len(q.Channels) == 0 {
		return q, wire.NewProblem(wire.InvalidChannel, "channel is missing: name at least one")
	}
	q.Limit, q.Bytes = historyDefault, historyBytes
	if s := form.Get("limit"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return q, wire.NewProblem(wire.InvalidParameter, fmt.Sprintf("limit %.40q: want 1 to %d", s, historyMax))
		}
		q.Limit = min(int(n), historyMax)
	}
	end := h.engine.End()
	if s := form.Get("cursor"); s != "" {
		start, p := transport.ParseStart(s)
		if p != nil {
			return q, p
		}
		if q.After = start.Cursor; start.Now {
			q.After = end
		}
	}
	if s := form.Get("until"); s != "" {
		until, p := q.bound(s, end)
		if p != nil {
			return q, p
		}
		q.stopAt(until.Seq)
	}
	if s := form.Get("before"); s != "" {
		if q.before, p = q.bound(s, end); p != nil {
			return q, p
		}
		q.Backward = true
		q.stopAt(max(q.before.Seq, 1) - 1)
		q.before.Seq = min(q.before.Seq, end.Seq) // what a client may be given
	}
	return q, nil
}

// bound reads a position that history is to stop at. Of another epoch's
// position nothing is known but that the present log came after it or instead.
func (q *historyQuery) bound(s string, end Cursor) (Cursor, *wire.Problem) {
	at, p := transport.ParseStart(s)
	afterEnd := Cursor{Epoch: end.Epoch, Seq: end.Seq + 1}
	switch {
	case p != nil:
		return Cursor{}, p
	case at.Now:
		return afterEnd, nil
	case at.Cursor.IsZero():
		return Cursor{Epoch: end.Epoch}, nil
	case at.Cursor.Epoch != end.Epoch:
		q.gap = true
		return afterEnd, nil
	}
	return at.Cursor, nil
}

// stopAt bounds the query at a sequence, inclusive.
func (q *historyQuery) stopAt(seq uint64) {
	switch {
	case seq == 0:
		q.nothing = true
	case q.Until == 0 || seq < q.Until:
		q.Until = seq
	}
}

// problem returns what a client is told of an error of the engine.
func (h *Hub) problem(r *http.Request, err error) *wire.Problem {
	switch {
	case errors.Is(err, engine.ErrKeyReused):
		return wire.NewProblem(wire.KeyReused, "an earlier request with this key had other content")
	case errors.Is(err, engine.ErrTooLarge):
		return wire.NewProblem(wire.TooLarge, "the batch is larger than the log may hold")
	case errors.Is(err, engine.ErrInvalid):
		return wire.NewProblem(wire.InvalidMessage, wire.Detail(err))
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrClosed):
		p := wire.NewProblem(wire.EngineUnavailable, "try again, with the same Idempotency-Key if there was one")
		p.RetryAfter = comeBack(time.Second, 2*time.Second)
		return p
	case r != nil && r.Context().Err() != nil:
		return wire.NewProblem(wire.EngineUnavailable, "the request ended before the log answered")
	}
	h.opts.Logger.Error("halley: the engine failed", "error", err)
	return wire.NewProblem(wire.Internal, "the server's own log has the reason")
}
