package front

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// A request is one that has come whole, cut out of what a client has sent.
type request struct {
	head []byte // with the empty line
	// key is the head without what varies from one request to the next of a
	// client: requests with one key are alike.
	key []byte
	Request
	size int // of head and body
}

// A Request is what varies among requests that are alike.
type Request struct {
	// Channel is the request's only channel. Where there is none, or not one
	// alone, it is nil, and what there is does not vary.
	Channel []byte
	// Cursor and LastEventID are those of a subscribe request, nil where there
	// is none.
	Cursor, LastEventID []byte
	Body                []byte
}

// hole stands in a key for what was cut out. There is none in a head.
const hole = 0

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = [2][]byte{[]byte("\r\nContent-Length: "), []byte("\r\ncontent-length: ")}
	lastEventID   = [2][]byte{[]byte("\r\nLast-Event-ID: "), []byte("\r\nlast-event-id: ")}
)

// cut returns the first request of b, and appends its key to buf. It reports
// false unless there is a whole one that begins as those of the protocol do
// which are served here.
func cut(b, mount, buf []byte) (r request, ok bool) {
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
	if !bytes.HasPrefix(path, mount) || bytes.IndexByte(r.head, hole) >= 0 {
		return r, false
	}
	line := bytes.IndexByte(r.head, '\r')
	r.key = append(buf, r.head...)
	if get {
		// From the end, so that what is still to be cut out keeps its place.
		r.LastEventID = r.cutHeader(line, &lastEventID, isCursor)
		r.cutParameters(line)
		return r, true
	}
	length := r.cutHeader(line, &contentLength, isDigit)
	r.cutParameters(line)
	n, err := strconv.ParseUint(string(length), 10, 31)
	if err != nil || int(n) > len(b)-end {
		return r, false
	}
	r.Body = b[end : end+int(n)]
	r.size += int(n)
	return r, true
}

// cutHeader cuts a header's value out of the key, if it is of a kind.
func (r *request) cutHeader(from int, names *[2][]byte, kind func(byte) bool) []byte {
	for _, name := range names {
		at := bytes.Index(r.key[from:], name)
		if at < 0 {
			continue
		}
		at += from + len(name)
		value, _, _ := bytes.Cut(r.head[at:], []byte{'\r'})
		return r.cutOut(at, value, kind)
	}
	return nil
}

// cutParameters cuts the only channel and the first cursor out of the key's
// first line.
func (r *request) cutParameters(line int) {
	query := r.head[:line]
	if n := bytes.LastIndexByte(query, ' '); n >= 0 {
		query = query[:n]
	}
	start := bytes.IndexByte(query, '?') + 1
	if start == 0 {
		return
	}
	// Of several, the first is what counts.
	var channel, cursor value
	for end := len(query); end > start; {
		at := start + bytes.LastIndexByte(query[start:end], '&') + 1
		if name := []byte("channel="); bytes.HasPrefix(query[at:end], name) {
			channel = value{at + len(name), end, channel.n + 1}
		} else if name := []byte("cursor="); bytes.HasPrefix(query[at:end], name) {
			cursor = value{at + len(name), end, 1}
		}
		end = at - 1
	}
	// From the end, so that what is still to be cut out keeps its place.
	for _, v := range [2]value{later(channel, cursor), earlier(channel, cursor)} {
		switch {
		case v.n != 1: // there is none, or not one alone
		case v == channel:
			r.Channel = r.cutOut(v.at, r.head[v.at:v.end], isChannel)
		default:
			r.Cursor = r.cutOut(v.at, r.head[v.at:v.end], isCursor)
		}
	}
}

// A value is where a parameter's value stands in the head, and how many there
// are of the parameter.
type value struct{ at, end, n int }

func later(a, b value) value {
	if a.at > b.at {
		return a
	}
	return b
}

func earlier(a, b value) value {
	if a.at > b.at {
		return b
	}
	return a
}

func (r *request) cutOut(at int, value []byte, kind func(byte) bool) []byte {
	for _, c := range value {
		if !kind(c) {
			return nil
		}
	}
	rest := r.key[at+len(value):]
	r.key = append(append(r.key[:at], hole), rest...)
	return value[:len(value):len(value)]
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isCursor(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'z' || c == '-' }

// isChannel tells of the bytes of names and patterns that stand for themselves
// in a query.
func isChannel(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("-_.~!$()@:,*/", c) >= 0
}

// singular are headers that change what a request is. Those with false are for
// the HTTP server; the others may be there once.
var singular = map[string]bool{
	"host": true, "content-length": true, "last-event-id": true, "connection": true, "content-type": true, "origin": true,
	"transfer-encoding": false, "expect": false, "upgrade": false, "te": false, "trailer": false,
	"idempotency-key": false, "content-encoding": false, "http2-settings": false, "proxy-connection": false,
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
	if err != nil || h.ProtoMajor != 1 || h.ProtoMinor != 1 || h.Host == "" || h.Close || h.URL.RawPath != "" ||
		h.URL.Host != "" || len(h.TransferEncoding) > 0 || !keepsAlive(h.Header.Get("Connection")) {
		return nil
	}
	// What varies must have been cut out, or not be there.
	query := h.URL.Query()
	if r.Channel != nil && len(query["channel"]) != 1 {
		return nil
	}
	if h.Method == http.MethodGet && (h.ContentLength != 0 || (r.LastEventID == nil) != (h.Header["Last-Event-Id"] == nil) ||
		r.Cursor == nil && query.Has("cursor")) {
		return nil
	}
	if h.Method == http.MethodPost && int(h.ContentLength) != len(r.Body) {
		return nil
	}
	return h
}

func keepsAlive(connection string) bool {
	return connection == "" || strings.EqualFold(connection, "keep-alive")
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

// isToken tells whether b is a header's name (RFC 9110, 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		if !(isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}
