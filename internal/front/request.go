package front

import (
	"bufio"
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A request is cut out of what a client has sent.
type request struct {
	Request
	head []byte // with the empty line
	// key is the head without what varies from one request to the next of a
	// client: requests with one key are alike.
	key  []byte
	size int // of head and body
	// missing is how much of the body has not come yet. There is no Body then.
	missing int

	holes [6]span // in the head, of what varies
	n     int     // of holes
}

type span struct{ at, end int }

// A Request is what varies among requests that are alike.
type Request struct {
	// Channel is the request's only channel. Where there is none, or not one
	// alone, it is nil, and what there is does not vary.
	Channel []byte
	// Cursor and LastEventID are those of a subscribe request, nil where there
	// is none.
	Cursor, LastEventID []byte
	WebSocketKey        []byte // nil where there is none
	// Cookie and Authorization are those headers, nil where there are none.
	Cookie, Authorization []byte
	Body                  []byte
	// Remote is the client's address, the zero Addr if that is this machine.
	Remote netip.Addr
}

// hole stands in a key for what was cut out. There is none in a head.
const hole = 0

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = [2][]byte{[]byte("\r\nContent-Length: "), []byte("\r\ncontent-length: ")}
	lastEventID   = [2][]byte{[]byte("\r\nLast-Event-ID: "), []byte("\r\nlast-event-id: ")}
	authorization = [2][]byte{[]byte("\r\nAuthorization: "), []byte("\r\nauthorization: ")}
	cookie        = [2][]byte{[]byte("\r\nCookie: "), []byte("\r\ncookie: ")}
	webSocketKey  = [2][]byte{[]byte("\r\nSec-WebSocket-Key: "), []byte("\r\nsec-websocket-key: ")}
)

// cut returns the first request of b, and appends its key to buf. It reports
// false unless there is a whole head that begins as those of the protocol do
// which are served here.
func cut(b []byte, mounts [][]byte, buf []byte) (r request, ok bool) {
	get := bytes.HasPrefix(b, []byte("GET "))
	if !get && !bytes.HasPrefix(b, []byte("POST ")) {
		return r, false
	}
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return r, false
	}
	end += len(headEnd)
	r.head, r.size = b[:end], end
	_, path, _ := bytes.Cut(b[:end], []byte{' '})
	if !slices.ContainsFunc(mounts, func(m []byte) bool { return bytes.HasPrefix(path, m) }) || bytes.IndexByte(r.head, hole) >= 0 {
		return r, false
	}
	line := bytes.IndexByte(r.head, '\r')
	r.takeParameters(line)
	r.Cookie = r.takeHeader(line, &cookie, isPrintable)
	r.Authorization = r.takeHeader(line, &authorization, isPrintable)
	if get {
		r.WebSocketKey = r.takeHeader(line, &webSocketKey, isBase64)
		r.LastEventID = r.takeHeader(line, &lastEventID, isCursor)
		r.key = r.fill(buf)
		return r, true
	}
	length := r.takeHeader(line, &contentLength, isDigit)
	n, err := strconv.ParseUint(string(length), 10, 31)
	if err != nil {
		return r, false
	}
	r.size += int(n)
	if r.missing = max(0, r.size-len(b)); r.missing == 0 {
		r.Body = b[end:r.size]
	} else if r.size > maxPartial {
		return r, false
	}
	r.key = r.fill(buf)
	return r, true
}

// maxPartial is the size of a request at most whose body is waited for.
const maxPartial = 16 << 10

// takeParameters takes the only channel and the first cursor of the query.
func (r *request) takeParameters(line int) {
	query := r.head[:line]
	if n := bytes.LastIndexByte(query, ' '); n >= 0 {
		query = query[:n]
	}
	var channel, cursor span
	channels := 0
	for at := bytes.IndexByte(query, '?') + 1; at > 0 && at < len(query); {
		end := len(query)
		if n := bytes.IndexByte(query[at:], '&'); n >= 0 {
			end = at + n
		}
		switch name, _, _ := bytes.Cut(query[at:end], []byte{'='}); string(name) {
		case "channel":
			channels++
			channel = span{at + len("channel="), end}
		case "cursor":
			if cursor.end == 0 {
				cursor = span{at + len("cursor="), end}
			}
		}
		at = end + 1
	}
	if channels == 1 {
		r.Channel = r.take(channel, isChannel)
	}
	r.Cursor = r.take(cursor, isCursor)
}

// takeHeader takes the value of a header.
func (r *request) takeHeader(from int, names *[2][]byte, kind func(byte) bool) []byte {
	for _, name := range names {
		at := bytes.Index(r.head[from:], name)
		if at < 0 {
			continue
		}
		at += from + len(name)
		return r.take(span{at, at + bytes.IndexByte(r.head[at:], '\r')}, kind)
	}
	return nil
}

// take takes what varies out of the key and returns it, or nil if it is not of
// a kind.
func (r *request) take(s span, kind func(byte) bool) []byte {
	if s.end < s.at || s.end == 0 {
		return nil
	}
	value := r.head[s.at:s.end:s.end]
	for _, c := range value {
		if !kind(c) {
			return nil
		}
	}
	i := r.n
	for ; i > 0 && r.holes[i-1].at > s.at; i-- {
		r.holes[i] = r.holes[i-1]
	}
	r.holes[i] = s
	r.n++
	return value
}

// fill appends the key to buf.
func (r *request) fill(buf []byte) []byte {
	from := 0
	for _, s := range r.holes[:r.n] {
		buf = append(append(buf, r.head[from:s.at]...), hole)
		from = s.end
	}
	return append(buf, r.head[from:]...)
}

func isDigit(c byte) bool     { return '0' <= c && c <= '9' }
func isPrintable(c byte) bool { return ' ' <= c && c <= '~' }
func isBase64(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '+' || c == '/' || c == '='
}
func isCursor(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'z' || c == '-' }

// isChannel tells of the bytes of names and patterns that stand for themselves
// in a query.
func isChannel(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("-_.~!$()@:,*/", c) >= 0
}

// singular are headers that change what a request is. Those with false are for
// the HTTP server; the others may be there once. A traceparent is another one
// in each request, so that no two would be alike.
var singular = map[string]bool{
	"sec-websocket-key": true, "sec-websocket-version": true, "upgrade": true, "host": true, "content-length": true, "last-event-id": true, "connection": true, "content-type": true, "origin": true,
	"authorization": true, "cookie": true,
	"transfer-encoding": false, "expect": false, "te": false, "trailer": false,
	"idempotency-key": false, "content-encoding": false, "http2-settings": false, "proxy-connection": false,
	"traceparent": false, "tracestate": false,
}

// parse reads the head as the HTTP server would. It returns nil for what is not
// as plain as requests of the protocol are.
func (r *request) parse() *http.Request {
	seen := map[string]bool{}
	first, rest, _ := bytes.Cut(r.head[:len(r.head)-len(headEnd)], []byte("\r\n"))
	if !bytes.HasSuffix(first, []byte(" HTTP/1.1")) || bytes.Count(first, []byte{' '}) != 2 || !printable(first) {
		return nil
	}
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte{':'})
		if !found || !isToken(name) || !printable(value) {
			return nil
		}
		key := strings.ToLower(string(name))
		allowed, known := singular[key]
		if known && (!allowed || seen[key]) {
			return nil
		}
		seen[key] = true
	}
	h, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.head)))
	if err != nil || h.ProtoMajor != 1 || h.ProtoMinor != 1 || !isHost(h.Host) || h.Close || h.URL.RawPath != "" ||
		h.URL.Host != "" || len(h.TransferEncoding) > 0 || !keepsAlive(h.Header) {
		return nil
	}
	// What varies must have been cut out, or not be there.
	query := h.URL.Query()
	if r.Channel != nil && !only(query["channel"], r.Channel) || r.Cursor != nil && !only(query["cursor"], r.Cursor) {
		return nil // there are others, whose names are escaped
	}
	if h.Method == http.MethodGet && (h.ContentLength != 0 || (r.LastEventID == nil) != (h.Header["Last-Event-Id"] == nil) ||
		(r.WebSocketKey == nil) != (h.Header["Sec-Websocket-Key"] == nil) ||
		r.Cursor == nil && query.Has("cursor")) {
		return nil
	}
	if (r.Authorization == nil) != (h.Header["Authorization"] == nil) || (r.Cookie == nil) != (h.Header["Cookie"] == nil) {
		return nil
	}
	if h.Method == http.MethodPost && int(h.ContentLength) != r.size-len(r.head) {
		return nil
	}
	return h
}

func only(values []string, value []byte) bool { return len(values) == 1 && values[0] == string(value) }

// keepsAlive tells whether the connection goes on as it is, or as a WebSocket.
func keepsAlive(h http.Header) bool {
	upgrade := h.Get("Upgrade")
	if upgrade != "" && !strings.EqualFold(upgrade, "websocket") {
		return false
	}
	for option := range strings.SplitSeq(h.Get("Connection"), ",") {
		switch strings.ToLower(strings.TrimSpace(option)) {
		case "", "keep-alive":
		case "upgrade":
			if upgrade == "" {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// printable tells whether there are only ASCII characters, spaces and tabs.
func printable(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\t' {
			return false
		}
	}
	return true
}

// isHost tells whether there are only characters that a Host may have (RFC
// 3986, 3.2.2): the HTTP server refuses others, http.ReadRequest does not.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		if !(isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("-._~!$&'()*+,;=%:[]", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// isToken tells whether b is a header's name (RFC 9110, 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		if !(isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}
