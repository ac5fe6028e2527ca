package halley

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// An originList tells pages that may use the hub from those that may not. A
// browser that runs a stranger's page reaches whatever its user reaches, a
// server on loopback too: so Host and Origin are checked from the start.
type originList struct {
	any     bool
	origins []string // serialised, lower case
	hosts   []string // host[:port], lower case
}

func newOriginList(origins, hosts []string) originList {
	var l originList
	for _, o := range origins {
		if o == "*" {
			l.any = true
			continue
		}
		l.origins = append(l.origins, strings.ToLower(strings.TrimSuffix(o, "/")))
	}
	for _, h := range hosts {
		l.hosts = append(l.hosts, strings.ToLower(h))
	}
	return l
}

// originHost returns the host[:port] of a serialised origin.
func originHost(origin string) (string, bool) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	return strings.ToLower(u.Host), true
}

// allows tells whether pages of an origin may use the hub that a request
// reached as host: its own, configured ones, and loopback names.
func (l *originList) allows(origin, host string) bool {
	from, ok := originHost(origin)
	if !ok {
		return false // "null" too: nobody knows whose it is
	}
	return l.any || strings.EqualFold(from, host) ||
		slices.Contains(l.origins, strings.ToLower(origin)) ||
		slices.Contains(l.hosts, from) || isLoopback(from)
}

// lists tells whether pages of an origin are among those that are named: the
// hub's own, and configured ones. Only they may use a cookie.
func (l *originList) lists(origin, host string) bool {
	from, ok := originHost(origin)
	return ok && (strings.EqualFold(from, host) || slices.Contains(l.origins, strings.ToLower(origin)) || slices.Contains(l.hosts, from))
}

// isLoopback tells whether host[:port] is a name of this machine alone: no
// stranger's name server can answer for it.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// checkHost refuses requests under a name that the hub does not have: a page
// that has its own name point here (DNS rebinding) is of its own origin then.
func (h *Hub) checkHost(r *http.Request) *wire.Problem {
	if isLoopback(r.Host) || r.Host == "" && r.ProtoMajor == 1 && r.ProtoMinor == 0 {
		return nil
	}
	if len(h.origins.hosts) > 0 {
		if slices.Contains(h.origins.hosts, strings.ToLower(r.Host)) {
			return nil
		}
	} else if !onLoopback(r) {
		return nil
	}
	return wire.NewProblem(wire.ForbiddenHost, "the request names a host that this server was not told of: add it to its hosts")
}

// onLoopback tells whether a request came in on a loopback address.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	ap, err := netip.ParseAddrPort(addr.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// setCORS lets pages of allowed origins read the response (Fetch Standard,
// "HTTP-network-or-cache fetch" and "CORS protocol").
func (h *Hub) setCORS(header http.Header, r *http.Request) {
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !h.origins.allows(origin, r.Host) {
		return
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "Retry-After")
	if h.opts.Authorizer != nil && h.origins.lists(origin, r.Host) {
		header.Set("Access-Control-Allow-Credentials", "true")
	}
}

// setPreflight answers what a browser asks before a request.
func (h *Hub) setPreflight(header http.Header, r *http.Request, methods string) {
	if header.Get("Access-Control-Allow-Origin") == "" {
		return
	}
	header.Set("Access-Control-Allow-Methods", methods)
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Cache-Control, Pragma, traceparent, tracestate")
	header.Set("Access-Control-Max-Age", "7200")
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		header.Set("Access-Control-Allow-Private-Network", "true")
	}
}

// checkOrigin refuses requests that a page of another origin makes and that
// would have an effect whether or not the page can read the answer.
func (h *Hub) checkOrigin(r *http.Request) *wire.Problem {
	if origin := r.Header.Get("Origin"); origin != "" {
		if h.origins.allows(origin, r.Host) {
			return nil
		}
		return forbiddenOrigin(origin)
	}
	// Elements (<script>, <img>, <iframe>) and forms may come without Origin,
	// but say so (Fetch Metadata). Who follows a link is not a stranger.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
	default:
		return nil
	}
	if r.Header.Get("Sec-Fetch-Dest") == "document" && r.Method != http.MethodPost {
		return nil
	}
	referer, err := url.Parse(r.Header.Get("Referer"))
	if err != nil || referer.Host == "" {
		return forbiddenOrigin("unknown")
	}
	if origin := referer.Scheme + "://" + referer.Host; !h.origins.allows(origin, r.Host) {
		return forbiddenOrigin(origin)
	}
	return nil
}

// checkPage is checkOrigin for a subscribe request, whose origin parameter
// must not be a stranger's if a browser sends it for another site's page.
func (h *Hub) checkPage(r *http.Request, q *transport.Request) *wire.Problem {
	if p := h.checkOrigin(r); p != nil {
		return p
	}
	if q.Callback != "" && q.Origin == "" && r.Header.Get("Sec-Fetch-Dest") == "document" &&
		strings.HasSuffix(r.Header.Get("Sec-Fetch-Site"), "-site") {
		// In a window of a stranger's, the callback could be any function of
		// ours, or its opener's.
		return forbiddenOrigin("unknown")
	}
	if q.Origin != "" && r.Header.Get("Sec-Fetch-Site") == "cross-site" && !h.origins.allows(q.Origin, r.Host) {
		return forbiddenOrigin(q.Origin)
	}
	return nil
}

func forbiddenOrigin(origin string) *wire.Problem {
	return wire.NewProblem(wire.ForbiddenOrigin, "pages of origin "+origin+" may not use this server: add it to its origins")
}
