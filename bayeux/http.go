package bayeux

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley"
)

const (
	replyType  = "application/json; charset=utf-8"
	scriptType = "text/javascript; charset=utf-8"
)

// browserCookie tells the sessions of one browser ("Server-side Multiple clients
// detection").
const browserCookie = "BAYEUX_BROWSER"

// ServeHTTP serves all transports.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.hub.Guard(w, r, "GET, POST") {
		return
	}
	switch {
	case r.Method == http.MethodPost:
		h.servePost(w, r)
	case isUpgrade(r):
		h.serveWebSocket(w, r)
	case strings.HasPrefix(r.Header.Get("Accept"), "text/event-stream"):
		h.serveEventSource(w, r)
	default:
		h.serveCallback(w, r)
	}
}

// refuse answers a request that cannot be read.
func refuse(w http.ResponseWriter, status int, text string) {
	body := append((&reply{b: []byte(`[{"successful":false`)}).text("error", fault(status, "", text)).end(), ']')
	w.Header().Set("Content-Type", replyType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is told or is gone
}

// servePost serves long-polling: JSON in the body, or in the parameters message
// of a form. Faye's pages of other origins send a form and say that it is text.
func (h *Handler) servePost(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Encoding") != "" {
		refuse(w, http.StatusUnsupportedMediaType, "the body is encoded")
		return
	}
	body, err := h.hub.ReadBody(w, r, h.options.MaxBody)
	if err != nil {
		status := http.StatusBadRequest
		if p, ok := errors.AsType[*halley.Problem](err); ok {
			status = p.Status
		}
		refuse(w, status, err.Error())
		return
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // what cannot be parsed is of no type
	begin := bytes.TrimLeft(body, " \t\r\n")
	isJSON := len(begin) > 0 && (begin[0] == '[' || begin[0] == '{') // whatever it is called
	if !isJSON && media == "application/x-www-form-urlencoded" || bytes.HasPrefix(body, []byte("message=")) {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			refuse(w, http.StatusBadRequest, "the form cannot be parsed")
			return
		}
		if body, err = fromForm(form); err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	messages, err := parse(body, h.options.MaxBatch)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	w.Header().Set("Content-Type", replyType)
	x := &exchange{handler: h, w: w, r: r, browser: browser(r)}
	x.serve(messages, nil)
}

// fromForm joins the parameters message, each of which is a message or an array
// of some.
func fromForm(form url.Values) ([]byte, error) {
	all := form["message"]
	if len(all) == 1 {
		return []byte(all[0]), nil
	}
	b := []byte{'['}
	for _, text := range all {
		text = strings.TrimSpace(text)
		if inner, ok := strings.CutPrefix(text, "["); ok {
			if text, ok = strings.CutSuffix(inner, "]"); !ok {
				return nil, fmt.Errorf("the messages cannot be parsed")
			}
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, text...)
	}
	return append(b, ']'), nil
}

// callback is what the parameter jsonp may be: what the native protocol takes
// for its own.
var callback = regexp.MustCompile(`^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$`)

// serveCallback serves callback-polling. Any page may load a script, so cookies
// do not count.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) {
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(form["message"]) == 0 {
		refuse(w, http.StatusBadRequest, "there is no message: send it by POST, or as the parameter message")
		return
	}
	name := form.Get("jsonp")
	if name == "" {
		name = "jsonpcallback"
	}
	if len(name) > 64 || !callback.MatchString(name) {
		refuse(w, http.StatusBadRequest, "jsonp is no name of a function")
		return
	}
	body, err := fromForm(form)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	messages, err := parse(body, h.options.MaxBatch)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	x := &exchange{handler: h, w: w, r: r, browser: browser(r)}
	if r.Header["Cookie"] != nil {
		x.r = r.Clone(r.Context())
		x.r.Header.Del("Cookie")
	}
	w.Header().Set("Content-Type", scriptType)
	x.serve(messages, func(b []byte) []byte {
		wrapped := append([]byte("/**/"), name...)
		wrapped = append(wrapped, '(')
		wrapped = append(wrapped, b...)
		return append(wrapped, ");"...)
	})
}

// browser returns the value of the cookie that tells browsers apart.
func browser(r *http.Request) string {
	c, err := r.Cookie(browserCookie)
	if err != nil || len(c.Value) > 64 {
		return ""
	}
	return c.Value
}

// serve answers a request's messages in their order. If a connect is among
// them, the whole answer waits for it.
func (x *exchange) serve(messages []message, wrap func([]byte) []byte) {
	x.run(messages)
	if x.connect != nil {
		x.connect.replies, x.connect.wrap = x.replies, wrap
		err := x.connect.session.hold(x.w, x.r, x.connectClient, x.connect, x.timeout)
		if err == nil {
			return
		}
		x.replies = append(x.replies, x.handler.connectReply(x.connect, x.connectFailed(err), nil))
	}
	body := x.body()
	if wrap != nil {
		body = wrap(body)
	}
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(writeTimeout)) // where it is supported
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = x.w.Write(body) // the client is told or is gone
}

// connectFailed returns the reply to a connect that could not be held.
func (x *exchange) connectFailed(err error) *reply {
	c := x.connect
	c.advice = rehandshake
	if p, ok := err.(*halley.Problem); ok && p.Temporary() {
		c.advice = retryAdvice(p)
	}
	if err == errTaken { // just now: the next connect takes it back
		c.advice = x.handler.replacedAdvice
		return newReply(c.m, true)
	}
	if err == errEnded {
		return newReply(c.m, false).text("error", fault(402, c.session.id, err.Error()))
	}
	return newReply(c.m, false).text("error", errorText(err, c.session.id))
}
