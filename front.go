package halley

import (
	"bytes"
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/front"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/socket"
	"github.com/halley-comet/halley/internal/transport"
)

// Front returns a listener for a server to serve in place of l:
//
//	server.Serve(hub.Front(server, l))
//
// The hub then reads plain requests to subscribe and to publish from the
// sockets that l accepts, by itself: a poll that comes back costs a sixth, and
// a client that reconnects a third of what it costs through net/http. All else
// is the server's, which keeps its time-outs. These requests do not reach the
// server's Handler: no middleware, no log and no other handler sees them. So it
// is for programs that have nothing of the kind around the hub's path, which
// [Options.Path] must say (default "/comet").
//
// With an Authorizer, it does so for clients whose token is in the Authorization
// header, or who have none, if the Authorizer is a [Rememberer].
//
// If the server has a TLSConfig, for ServeTLS, all requests are the server's.
// The hub then takes over the connections of its responses, which is not
// possible without Front.
//
// A listener that Front returns may have the method StopAccepting(), for a
// socket that outlives the server: connections then wait for whoever serves it
// next, while those that were accepted are still served.
//
// Where the server has no time-outs, connections are closed on which nothing
// comes for 10 s at first, or for 2 minutes after a request. Where connections
// cannot be parked, Front returns l.
func (h *Hub) Front(server *http.Server, l net.Listener) net.Listener {
	if p := server.Protocols; h.opts.NoParking || p != nil && !p.HTTP1() {
		return l
	}
	if server.TLSConfig != nil {
		return socket.TLSListener(l)
	}
	return front.New(l, front.Options{
		Pump:          h.pump,
		Mounts:        h.frontMounts(),
		Plan:          h.plan,
		Polls:         h.transports.PreparedPolls,
		MaxHead:       limit(http.DefaultMaxHeaderBytes, server.MaxHeaderBytes),
		HeaderTimeout: limit(10*time.Second, server.ReadHeaderTimeout, server.ReadTimeout),
		IdleTimeout:   limit(2*time.Minute, server.IdleTimeout, server.ReadTimeout),
		WriteTimeout:  h.opts.WriteTimeout,
	})
}

// limit returns the first of a server's settings that is set; or, as negative
// ones mean that there is no limit, a default.
func limit[T int | time.Duration](otherwise T, settings ...T) T {
	if v := cmp.Or(settings...); v > 0 {
		return v
	}
	return otherwise
}

func (h *Hub) mount() string { return strings.TrimSuffix(cmp.Or(h.opts.Path, "/comet"), "/") }

// plan returns what is done with a request and those alike, or nil if it is
// not as plain as most, or wrong: it is then served, or refused, by ServeHTTP.
func (h *Hub) plan(r *http.Request, polls *pump.Kind) *front.Plan {
	header := http.Header{}
	if len(h.opts.TrustedProxies) > 0 && forwards(r) {
		return nil // it is a proxy's, and each may be another client's
	}
	if h.opts.Authorizer != nil && h.rememberer == nil || h.begin(header, r) != nil {
		return nil // an authorizer may have to wait, which a worker must not
	}
	if open := h.frontEnd(r); open != nil && h.opts.Authorizer == nil {
		return h.planPoll(r, header, open, polls.Next)
	}
	switch rest := strings.TrimPrefix(r.URL.Path, h.mount()+"/"); {
	case rest == "subscribe" && r.Method == http.MethodGet:
		return h.planSubscribe(r, header, polls)
	case rest == "publish" && r.Method == http.MethodPost:
		return h.planPublish(r, header)
	}
	return nil
}

func (h *Hub) planSubscribe(r *http.Request, header http.Header, polls *pump.Kind) *front.Plan {
	form, p := query(r)
	if p != nil || h.opts.Authorizer != nil && (form.Has("token") || form.Has("ticket")) {
		return nil
	}
	q, p := h.parseSubscribe(r, form)
	if p != nil {
		return nil
	}
	prepared := h.transports.Prepare(r, q, header, polls)
	if prepared == nil {
		return nil
	}
	return &front.Plan{Join: func(c *pump.Conn, r *front.Request) bool {
		start, ok := prepared.StartAt(r.Cursor, r.LastEventID)
		if !ok || q.Transport == transport.WebSocket && len(r.WebSocketKey) != webSocketKey {
			return false
		}
		channels := q.Channels
		if r.Channel != nil {
			name := string(r.Channel)
			if engine.CheckPattern(name) != nil {
				return false
			}
			channels = []string{name}
		}
		v := h.knownCaller(r)
		if v == nil || v.grant.maySubscribe(channels) != nil {
			return false
		}
		after := h.after(start)
		if h.enter(q, after, v.addr) != nil {
			return false
		}
		held, p := h.hold(v, 1)
		if p != nil {
			h.leave()
			return false
		}
		prepared.Join(c, channels, after, r.WebSocketKey, held.place())
		h.release(held)
		return true
	}}
}

// knownCaller returns who makes a request, by what is known of its token without
// waiting; nil if that is not enough, or all is not in order: it is then found
// out, and refused, by ServeHTTP. Only a token in the header is looked at.
func (h *Hub) knownCaller(r *front.Request) *caller {
	v := &caller{grant: everything, client: r.Remote, addr: limited(r.Remote)}
	if h.opts.Authorizer == nil {
		return v
	}
	switch {
	case r.Authorization != nil:
		scheme, token, _ := bytes.Cut(r.Authorization, []byte{' '})
		v.token = string(bytes.TrimSpace(token))
		if !bytes.EqualFold(scheme, []byte("Bearer")) || v.token == "" || len(v.token) > maxToken {
			return nil
		}
	case r.Cookie != nil:
		return nil
	}
	grant, ok := h.rememberer.Remembered(v.token)
	if !ok || h.current(grant) != nil {
		return nil
	}
	v.grant = grant
	return v
}

// frontMounts are what the paths begin with that Front reads.
func (h *Hub) frontMounts() [][]byte {
	mounts := [][]byte{[]byte(h.mount() + "/")}
	for path := range h.frontEnds {
		mounts = append(mounts, []byte(path))
	}
	return mounts
}

// frontEnd returns what may serve a request of another protocol.
func (h *Hub) frontEnd(r *http.Request) OpenPoll {
	if r.Method != http.MethodPost || h.checkOrigin(r) != nil {
		return nil
	}
	for path, open := range h.frontEnds {
		if rest, ok := strings.CutPrefix(r.URL.Path, path); ok && (rest == "" || rest[0] == '/') {
			return open
		}
	}
	return nil
}

// planPoll has requests answered by the polls of a front end.
func (h *Hub) planPoll(r *http.Request, header http.Header, open OpenPoll, next *pump.Kind) *front.Plan {
	allowCredentials(header)
	proxied := Proxied(r)
	lines := map[string]string{} // of the response, by its content type
	return &front.Plan{Join: func(c *pump.Conn, r *front.Request) bool {
		connection := ""
		if !proxied {
			a := c.RemoteAddr()
			connection = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
		}
		polls, client, poll := open(bytes.Clone(r.Body), connection)
		if poll == nil {
			return false
		}
		l, ok := lines[poll.ContentType]
		if !ok {
			header := header.Clone()
			header.Set("Content-Type", poll.ContentType)
			l = transport.HeaderLines(header)
			lines[poll.ContentType] = l
		}
		return polls.join(c, client, poll, l, next)
	}}
}

// webSocketKey is the length of a Sec-WebSocket-Key: 16 bytes in base64.
const webSocketKey = 24

func (h *Hub) planPublish(r *http.Request, header http.Header) *front.Plan {
	log, ok := h.engine.(engine.Immediate)
	if !ok || h.tracer != nil {
		return nil // a worker must not wait, and a span may be exported when it ends
	}
	form, p := h.parsePublish(r)
	if p != nil || h.opts.Authorizer != nil && (form.params.Has("token") || form.params.Has("ticket")) {
		return nil
	}
	header.Set("Content-Type", answerType)
	lines := transport.HeaderLines(header)
	return &front.Plan{Answer: func(dst []byte, r *front.Request) ([]byte, bool) {
		if len(r.Body) > h.opts.MaxBody {
			return dst, false
		}
		began := time.Now()
		form := form
		if r.Channel != nil {
			form.channels = []string{string(r.Channel)}
		}
		v := h.knownCaller(r)
		if v == nil {
			return dst, false
		}
		batch, p := form.batch(h, bytes.Clone(r.Body))
		if p != nil || h.mayAppend(v, batch.Messages) != nil {
			return dst, false
		}
		handed := time.Now()
		receipt, err := log.AppendNow(batch)
		h.meters.appended(handed, &batch, &receipt, err)
		if err != nil {
			return dst, false
		}
		dst = transport.AppendResponse(dst, lines, form.appendReceipt(nil, receipt))
		h.meters.publish.observe(time.Since(began))
		return dst, true
	}}
}
