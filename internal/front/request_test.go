package front

import (
	"bytes"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	poll      = "GET /comet/subscribe?channel=a/b&cursor=x-1 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: x-2\r\n\r\n"
	webSocket = "GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	post = "POST /comet/publish?channel=a&type=t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
)

// Requests that are read here, and what varies among those that are alike.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		request string
		want    Request
		key     string
	}{
		{poll, Request{Channel: []byte("a/b"), Cursor: []byte("x-1"), LastEventID: []byte("x-2")},
			"GET /comet/subscribe?channel=\x00&cursor=\x00 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \x00\r\n\r\n"},
		{webSocket, Request{Channel: []byte("a"), WebSocketKey: []byte("dGhlIHNhbXBsZSBub25jZQ==")},
			"GET /comet/subscribe?channel=\x00 HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
				"Sec-WebSocket-Key: \x00\r\nSec-WebSocket-Version: 13\r\n\r\n"},
		{post, Request{Channel: []byte("a"), Body: []byte("hello")},
			"POST /comet/publish?channel=\x00&type=t HTTP/1.1\r\nhost: localhost\r\ncontent-length: \x00\r\nContent-Type: text/plain\r\n\r\n"},
		{"GET /comet/subscribe?cursor=now&channel=a&channel=b HTTP/1.1\r\nHost: h\r\n\r\n", Request{Cursor: []byte("now")},
			"GET /comet/subscribe?cursor=\x00&channel=a&channel=b HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"GET /comet/subscribe?channel=a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n", Request{}, "GET /comet/subscribe?channel=a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"GET /comet/subscribe?channel=&cursor= HTTP/1.1\r\nHost: h\r\nlast-event-id: \r\n\r\n", Request{Channel: []byte{}, Cursor: []byte{}, LastEventID: []byte{}},
			"GET /comet/subscribe?channel=\x00&cursor=\x00 HTTP/1.1\r\nHost: h\r\nlast-event-id: \x00\r\n\r\n"},
	} {
		const next = "GET / HTTP/1.1\r\n"
		r, ok := cut([]byte(c.request+next), [][]byte{[]byte("/comet/")}, nil)
		if !ok || r.size != len(c.request) || r.parse() == nil {
			t.Errorf("%q: got %d bytes, %v", c.request, r.size, ok)
			continue
		}
		if !reflect.DeepEqual(r.Request, c.want) || string(r.key) != c.key {
			t.Errorf("%q:\n got %q, key %q\nwant %q, key %q", c.request, r.Request, r.key, c.want, c.key)
		}
		for i := range c.request {
			if r, ok := cut([]byte(c.request[:i]), [][]byte{[]byte("/comet/")}, nil); ok && r.missing == 0 {
				t.Errorf("%q: there is a request in its first %d bytes", c.request, i)
			}
		}
	}
}

// Requests that are for the HTTP server, because it refuses them, or because
// they are not as plain as most.
var notPlain = []string{
	// Request lines.
	"get /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"HEAD /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"OPTIONS /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.0\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.2\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a\r\nHost: h\r\n\r\n",
	"GET  /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a  HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a b HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&x=\t HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&x=\xff HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET http://h/comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET //comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/%73ubscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/a%2fb HTTP/1.1\r\nHost: h\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",

	// Queries.
	"GET /comet/subscribe?channel=a&chann%65l=b HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?chann%65l=b&channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST /comet/publish?channel=a&chann%65l=b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
	"GET /comet/subscribe?channel=a&cur%73or=x-1 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&cur%73or=x-1&cursor=x-2 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&cur%73or=x-1&cursor=x-1 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&cursor=x-1&cursor=x-2 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&cursor=x%2D1 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a&cursor HTTP/1.1\r\nHost: h\r\n\r\n",

	// Lines.
	"GET /comet/subscribe?channel=a HTTP/1.1\nHost: h\n\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\nHost: h\n\nGET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\nA: b\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\rA: b\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nA: \x00\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nA: \xc3\xa9\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\n Host: h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nA\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n",

	// Headers.
	"GET /comet/subscribe?channel=a HTTP/1.1\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost:\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: localhost:1/x\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: u@h\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Host\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLAST-EVENT-ID: x-1\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLast-Event-ID:x-1\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLast-Event-ID: x-1 \r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLast-Event-ID: X\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLast-Event-ID: x-1\r\nlast-event-id: x-2\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nLast-Event-ID: x-1\r\nLast-Event-ID: x-1\r\n\r\n",
	"GET /comet/subscribe?channel=a HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-Websocket-Key: a\r\n\r\n",

	// Bodies.
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1,1\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 4294967297\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nCONTENT-LENGTH: 2\r\n\r\nhh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\nTransfer-encoding : chunked\r\n\r\nhello",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTrailer: A\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nIdempotency-Key: k\r\n\r\nh",
	"POST /comet/publish?channel=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Encoding: gzip\r\n\r\nh",
}

func TestNotPlain(t *testing.T) {
	for _, request := range notPlain {
		if r, ok := cut([]byte(request), [][]byte{[]byte("/comet/")}, nil); ok && r.missing == 0 && r.parse() != nil {
			t.Errorf("%q is served", request)
		}
	}
}

// What is served here, the HTTP server would have accepted, and would have read
// the same in it; and so for all requests that are alike.
func FuzzRequest(f *testing.F) {
	for _, request := range slices.Concat(notPlain, []string{poll, webSocket, post,
		"GET /comet/subscribe?channel=a&transport=jsonp&callback=f&timeout=0 HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 0\r\n\r\n",
		"GET /comet/subscribe?channel=&channel HTTP/1.1\r\nHost: h\r\nAccept: a\r\nAccept: b\r\n\r\n",
		"GET /comet/x/../subscribe?channel=a;b HTTP/1.1\r\nHost: h\r\n\r\n",
	}) {
		f.Add([]byte(request), []byte("b/c"), []byte("y-9"), []byte("AAAAAAAAAAAAAAAAAAAAAA=="), []byte("bye"))
	}
	f.Fuzz(func(t *testing.T, b, channel, cursor, key, body []byte) {
		r, ok := cut(b, [][]byte{[]byte("/comet/")}, nil)
		if !ok || r.missing > 0 {
			return
		}
		if r.size > len(b) || !bytes.Equal(r.filled(nil), r.head) {
			t.Fatalf("%q: %d bytes, key %q", b, r.size, r.key)
		}
		h := r.parse()
		if h == nil {
			return
		}
		check(t, &r, h, b[:r.size])
		if !all(channel, isChannel) || !all(cursor, isCursor) || !all(key, isBase64) || len(body) > 1000 {
			return
		}
		// Another one that is alike.
		other := r.filled(func(after, _ []byte) []byte {
			switch {
			case bytes.HasSuffix(after, []byte("channel=")):
				return channel
			case bytes.HasSuffix(after, []byte("ength: ")):
				return strconv.AppendInt(nil, int64(len(body)), 10)
			case bytes.HasSuffix(after, []byte("ey: ")):
				return key
			}
			return cursor
		})
		if h.Method == "POST" {
			other = append(other, body...)
		}
		like, ok := cut(other, [][]byte{[]byte("/comet/")}, nil)
		if !ok || like.size != len(other) || !bytes.Equal(like.key, r.key) {
			t.Fatalf("%q is like %q: got %d bytes, %v, key %q, want %q", other, b, like.size, ok, like.key, r.key)
		}
		g := like.parse()
		if g == nil {
			t.Fatalf("%q is refused, and %q, which is like it, is served", other, b)
		}
		check(t, &like, g, other)
		if want, got := rest(h), rest(g); !reflect.DeepEqual(want, got) {
			t.Fatalf("of %q and %q, which are alike, the rest is %v and %v", b, other, want, got)
		}
	})
}

// filled returns the head with something else in place of what was cut out
// after a text, or as it was.
func (r *request) filled(replace func(after, value []byte) []byte) []byte {
	var b []byte
	key := r.key
	for _, s := range r.holes[:r.n] {
		text, rest, _ := bytes.Cut(key, []byte{hole})
		b = append(b, text...)
		value := r.head[s.at:s.end]
		if replace != nil {
			value = replace(text, value)
		}
		b, key = append(b, value...), rest
	}
	return append(b, key...)
}

func all(b []byte, kind func(byte) bool) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !kind(c) })
}

// check holds a request that would be served here against what the HTTP server
// makes of its bytes.
func check(t *testing.T, r *request, h *http.Request, b []byte) {
	t.Helper()
	var got *http.Request
	var body []byte
	server := http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body) // what there is
		}),
	}
	conn := &bytesConn{Reader: bytes.NewReader(b), closed: make(chan struct{})}
	_ = server.Serve(&oneConn{conn: conn}) // it ends when there are no more
	<-conn.closed
	if got == nil {
		t.Fatalf("%q: the server answers %q", b, conn.written.Bytes())
	}
	if got.Method != h.Method || got.RequestURI != h.RequestURI || got.Host != h.Host || !reflect.DeepEqual(got.Header, h.Header) || got.Close {
		t.Fatalf("%q: the server reads %v", b, got)
	}
	if !bytes.Equal(body, r.Body) {
		t.Fatalf("%q: the body is %q, the server reads %q", b, r.Body, body)
	}
	query := got.URL.Query()
	if r.Channel != nil && !slices.Equal(query["channel"], []string{string(r.Channel)}) {
		t.Fatalf("%q: the channel is %q, the server reads %q", b, r.Channel, query["channel"])
	}
	if got.Method == http.MethodPost {
		return
	}
	for _, v := range []struct {
		name      string
		got, want string
	}{
		{"cursor", string(r.Cursor), query.Get("cursor")},
		{"Last-Event-ID", string(r.LastEventID), got.Header.Get("Last-Event-ID")},
		{"Sec-WebSocket-Key", string(r.WebSocketKey), got.Header.Get("Sec-WebSocket-Key")},
	} {
		if v.got != v.want {
			t.Fatalf("%q: %s is %q, the server reads %q", b, v.name, v.got, v.want)
		}
	}
	if r.Cursor == nil && query.Has("cursor") || r.LastEventID == nil && got.Header["Last-Event-Id"] != nil ||
		r.WebSocketKey == nil && got.Header["Sec-Websocket-Key"] != nil {
		t.Fatalf("%q: something that varies stays in the key %q", b, r.key)
	}
}

// rest returns what a plan may be made from.
func rest(h *http.Request) []any {
	query, header := h.URL.Query(), maps.Clone(h.Header)
	if len(query["channel"]) == 1 {
		query.Del("channel")
	}
	query.Del("cursor")
	for _, name := range []string{"Last-Event-ID", "Sec-WebSocket-Key", "Content-Length"} {
		header.Del(name)
	}
	return []any{h.Method, h.Host, h.URL.Path, query, header}
}

// bytesConn is a connection of a client that has sent something and no more.
type bytesConn struct {
	net.Conn
	*bytes.Reader
	written bytes.Buffer
	closed  chan struct{}
}

func (c *bytesConn) Read(b []byte) (int, error)       { return c.Reader.Read(b) }
func (c *bytesConn) Write(b []byte) (int, error)      { return c.written.Write(b) }
func (c *bytesConn) Close() error                     { close(c.closed); return nil }
func (c *bytesConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *bytesConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// oneConn is a listener of one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (c net.Conn, err error) {
	if c, l.conn = l.conn, nil; c == nil {
		return nil, errors.New("there was one")
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
