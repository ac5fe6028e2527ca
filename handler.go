package halley

import (
	"context"
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

// maxForm is the size of a subscribe request's form at most, in bytes.
const maxForm = 1 << 20

// An endpoint is one path under the mount.
type endpoint struct {
	methods string // as Allow has them, but for OPTIONS
	serve   func(*Hub, http.ResponseWriter, *http.Request)
	answers bool // at once, and not when there is something to say
}

var endpoints = map[string]endpoint{
	"subscribe": {"GET, POST", (*Hub).serveSubscribe, false},
	"publish":   {"POST", (*Hub).servePublish, true},
	"history":   {"GET, HEAD", (*Hub).serveHistory, true},
	"info":      {"GET, HEAD", (*Hub).serveInfo, true},
	"ticket":    {"POST", (*Hub).serveTicket, true},
	"renew":     {"POST", (*Hub).serveRenew, true},
	"revoke":    {"POST", (*Hub).serveRevoke, true},

	"client.js":  {"GET, HEAD", serveClient("client.js"), true},
	"client.mjs": {"GET, HEAD", serveClient("client.mjs"), true},
}

// ServeHTTP serves the native protocol below the path that the hub is mounted
// at.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if r.Method == http.MethodPost {
		// Net/http reads what a refused request has left of its body, and would
		// wait for it without end. readBody lifts this.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.opts.WriteTimeout)) // where it is supported
	}
	if p := h.begin(header, r); p != nil {
		h.refuse(w, p)
		return
	}
	e, ok := endpoints[h.endpoint(r)]
	if !ok {
		h.refuse(w, wire.NewProblem(wire.NotFound, fmt.Sprintf("%.100q is not a path of the protocol", r.URL.Path)))
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
		h.refuse(w, p)
		return
	}
	if e.answers {
		// The answer may be written after this returns.
		defer func() {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.opts.WriteTimeout)) // where it is supported
		}()
	}
	e.serve(h, w, r)
}

// begin checks what every request must keep, and sets what every response has.
func (h *Hub) begin(header http.Header, r *http.Request) *wire.Problem {
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if p := h.checkHost(r); p != nil {
		return p
	}
	h.setCORS(header, r)
	return nil
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
		// As ServeMux matched it: "METHOD host/comet/", or with an endpoint.
		if _, pattern, found := strings.Cut(r.Pattern, "/"); found {
			mount = "/" + pattern
			if !strings.HasSuffix(mount, "...}") {
				mount = mount[:strings.LastIndexByte(mount, '/')]
			}
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
	form, p := h.subscribeForm(w, r)
	if p != nil {
		h.refuse(w, p)
		return
	}
	q, p := h.parseSubscribe(r, form)
	var held *hold
	var after Cursor
	if p == nil {
		after = h.after(q.Start)
		held, p = h.admitCaller(w.Header(), r, form, q, after)
	}
	if p != nil {
		if p.Code == wire.Draining {
			w.Header().Set("Connection", "close") // the next request is for whoever comes after
		}
		h.transports.Refuse(w, r, q, p)
		return
	}
	parked := false
	defer func() {
		h.release(held)
		if !parked { // or also if Serve panics
			h.leave()
		}
	}()
	parked = h.transports.Serve(w, r, q, after, held.place())
}

// admitCaller finds out who subscribes and whether that is allowed, and counts the
// request in.
func (h *Hub) admitCaller(header http.Header, r *http.Request, form url.Values, q *transport.Request, after Cursor) (*hold, *wire.Problem) {
	v, p := h.authorize(r, form)
	if p != nil {
		h.forgetCookie(header, r, v, p)
		return nil, p
	}
	if p = h.checkTransport(v, q); p != nil {
		return nil, p
	}
	if p = v.grant.maySubscribe(q.Channels); p != nil {
		return nil, p
	}
	h.setCookie(header, r, form, v) // also if it has to come back: the ticket is used
	if p = h.enter(q, after, v.addr); p != nil {
		return nil, p
	}
	held, p := h.hold(v, 1)
	if p != nil {
		h.leave()
		return nil, p
	}
	return held, nil
}

func (h *Hub) parseSubscribe(r *http.Request, form url.Values) (*transport.Request, *wire.Problem) {
	q, p := transport.Parse(r, form, transport.Defaults{Timeout: h.opts.PollTimeout, MaxChannels: h.opts.MaxChannels})
	if p == nil {
		p = h.checkPage(r, q)
	}
	return q, p
}

// after returns the position of a start.
func (h *Hub) after(s transport.Start) Cursor {
	if s.Now {
		return h.engine.End()
	}
	return s.Cursor
}

// comeBack draws by lot when a client is to come back, so that those which are
// turned away together do not return together.
func comeBack(least, spread time.Duration) time.Duration {
	return least + rand.N(spread) // #nosec G404 -- no secret
}

// subscribeForm returns the parameters of a subscribe request, from its query
// and, with POST, its body.
func (h *Hub) subscribeForm(w http.ResponseWriter, r *http.Request) (url.Values, *wire.Problem) {
	form, p := query(r)
	if p != nil || r.Method != http.MethodPost {
		return form, p
	}
	if t := r.Header.Get("Content-Type"); t != "" && mediaType(t) != formType {
		return nil, wire.NewProblem(wire.UnsupportedBody, fmt.Sprintf("a subscribe request's body is %s, not %.80q", formType, t))
	}
	body, p := h.readBody(w, r, maxForm)
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

func (h *Hub) serveInfo(w http.ResponseWriter, r *http.Request) {
	if _, p := query(r); p != nil {
		h.refuse(w, p)
		return
	}
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
	h.writeJSON(w, append(body, `"}`...))
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

// answerType is the content type of what is answered at once.
const answerType = "application/json; charset=utf-8"

func (h *Hub) writeJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", answerType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_ = h.transports.WriteBody(w, body) // the client has it or is gone
}

// problem returns what a client is told of an error of the engine.
func (h *Hub) problem(err error) *wire.Problem {
	switch {
	case errors.Is(err, engine.ErrKeyReused):
		return wire.NewProblem(wire.KeyReused, "an earlier request with this key had other content")
	case errors.Is(err, engine.ErrTooLarge):
		return wire.NewProblem(wire.TooLarge, "a message, or the batch, is larger than the log takes")
	case errors.Is(err, engine.ErrInvalid):
		return wire.NewProblem(wire.InvalidMessage, wire.Detail(err))
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrClosed):
		p := wire.NewProblem(wire.EngineUnavailable, "try again, with the same Idempotency-Key if there was one")
		p.RetryAfter = comeBack(time.Second, 2*time.Second)
		return p
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wire.NewProblem(wire.EngineUnavailable, "the request ended before the log answered")
	}
	h.opts.Logger.Error("halley: the engine failed", "error", err)
	return wire.NewProblem(wire.Internal, "the server's own log has the reason")
}
