package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// inner is a request that an attacker wants to get past a proxy, as a part of
// another one.
const inner = "POST /comet/publish?channel=smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"

// attacks are requests of whose end a proxy and a server could have different
// opinions. %d is the length of inner.
var attacks = []struct{ name, request string }{
	{"CL.TE", head("Content-Length: %d", "Transfer-Encoding: chunked") + "0\r\n\r\n" + inner},
	{"CL.TE whose body is for the length", head("Content-Length: 6", "Transfer-Encoding: chunked") + "0\r\n\r\nX"},
	{"TE.CL", head("Transfer-Encoding: chunked", "Content-Length: 4") + chunk(inner) + "0\r\n\r\n"},
	{"lengths that are the same", head("Content-Length: %d", "Content-Length: %d") + inner},
	{"lengths, the second larger", head("Content-Length: 0", "Content-Length: %d") + inner},
	{"lengths, the second smaller", head("Content-Length: %d", "Content-Length: 0") + inner},
	{"lengths in a list", head("Content-Length: 0, %d") + inner},
	{"a length with a sign", head("Content-Length: +%d") + inner},
	{"a length below 0", head("Content-Length: -1") + inner},
	{"a length in hexadecimal", head("Content-Length: 0x5") + inner},
	{"a length that overflows", head("Content-Length: 18446744073709551616") + inner},
	{"a length with a space in it", head("Content-Length: 0 %d") + inner},
	{"a length without a number", head("Content-Length: ") + inner},
	{"a length with a space before the colon", head("Content-Length : %d") + inner},
	{"obs-fold of a coding", head("Content-Length: 5", "Transfer-Encoding:\r\n chunked") + "0\r\n\r\n" + inner},
	{"obs-fold that hides a coding", head("Content-Length: %d", "X: y\r\n Transfer-Encoding: chunked") + inner},
	{"obs-fold of a length", head("Content-Length:\r\n\t%d") + inner},
	{"bare LF before a coding", head("Content-Length: 5\nTransfer-Encoding: chunked") + "0\r\n\r\n" + inner},
	{"bare LF in a header", head("X: y\nContent-Length: 0", "Content-Length: %d") + inner},
	{"bare LF everywhere", strings.ReplaceAll(head("Content-Length: 0"), "\r\n", "\n") + inner},
	{"bare LF that ends the head", strings.TrimSuffix(head("Content-Length: %d"), "\r\n") + "\n" + inner},
	{"bare CR before a coding", head("X: y\rTransfer-Encoding: chunked", "Content-Length: %d") + inner},
	{"a chunk extension", head("Transfer-Encoding: chunked") + "1;a=b\r\nx\r\n0;c=\"d\"\r\n\r\n" + inner},
	{"a chunk extension with LF", head("Transfer-Encoding: chunked") + "2;\nxx\r\n" + chunk(inner) + "0\r\n\r\n"},
	{"a chunk extension with CR", head("Transfer-Encoding: chunked") + "2;\rxx\r\n" + chunk(inner) + "0\r\n\r\n"},
	{"a chunk's size that ends with LF", head("Transfer-Encoding: chunked") + "1\nx\r\n0\n\n" + inner},
	{"a chunk's data that ends with LF", head("Transfer-Encoding: chunked") + "1\r\nx\n0\r\n\r\n" + inner},
	{"a chunk's data without an end", head("Transfer-Encoding: chunked") + "1\r\nxyz0\r\n\r\n" + inner},
	{"a chunk's size with 0x", head("Transfer-Encoding: chunked") + "0x1\r\nx\r\n0\r\n\r\n" + inner},
	{"a chunk's size with a sign", head("Transfer-Encoding: chunked") + "+1\r\nx\r\n0\r\n\r\n" + inner},
	{"a chunk's size that overflows", head("Transfer-Encoding: chunked") + "10000000000000001\r\nx\r\n0\r\n\r\n" + inner},
	{"a trailer", head("Transfer-Encoding: chunked") + "0\r\nContent-Length: %d\r\n\r\n" + inner},
	{"a coding with a space before the colon", head("Content-Length: 5", "Transfer-Encoding : chunked") + "0\r\n\r\n" + inner},
	{"a coding with a vertical tab", head("Content-Length: 5", "Transfer-Encoding: \x0bchunked") + "0\r\n\r\n" + inner},
	{"a coding that is none", head("Content-Length: 5", "Transfer-Encoding: xchunked") + "0\r\n\r\n" + inner},
	{"a coding in quotes", head("Content-Length: 5", `Transfer-Encoding: "chunked"`) + "0\r\n\r\n" + inner},
	{"codings, chunked first", head("Content-Length: 5", "Transfer-Encoding: chunked, identity") + "0\r\n\r\n" + inner},
	{"codings, chunked last", head("Content-Length: 5", "Transfer-Encoding: identity, chunked") + "0\r\n\r\n" + inner},
	{"codings, chunked twice", head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + "0\r\n\r\n" + inner},
	{"codings in two lines", head("Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-encoding: cow") + "0\r\n\r\n" + inner},
	{"a coding with an underscore", head("Content-Length: 5", "Transfer_Encoding: chunked") + "0\r\n\r\n" + inner},
	{"a NUL in a header", head("Content-Length: %d", "X: \x00\r\nTransfer-Encoding: chunked") + inner},
	{"a coding in HTTP/1.0", strings.Replace(head("Content-Length: 5", "Transfer-Encoding: chunked"), "HTTP/1.1", "HTTP/1.0", 1) + "0\r\n\r\n" + inner},
	{"a GET with a body", strings.Replace(head("Content-Length: %d"), "POST /comet/publish?", "GET /comet/subscribe?timeout=0&", 1) + inner},
	{"a GET with chunks", strings.Replace(head("Transfer-Encoding: chunked"), "POST /comet/publish?", "GET /comet/subscribe?timeout=0&", 1) + chunk(inner) + "0\r\n\r\n"},
	{"Connection that removes the length", head("Content-Length: %d", "Connection: Content-Length") + inner},
	{"Expect", head("Content-Length: %d", "Expect: 100-continue") + inner},
	{"an upgrade that fails", strings.Replace(head("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 1777", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "POST /comet/publish?", "GET /comet/subscribe?", 1) + inner},
	{"an upgrade to HTTP/2", strings.Replace(head("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), "POST /comet/publish?", "GET /comet/subscribe?timeout=0&", 1) + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner},
	{"a version 2 in the open", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner},
	{"line ends before the request", "\r\n\r\n" + head("Content-Length: %d") + inner},
	{"an absolute URL", strings.Replace(head("Content-Length: %d"), "POST /", "POST http://localhost/", 1) + inner},
}

// head returns that of a request to publish, with these headers.
func head(headers ...string) string {
	return "POST /comet/publish?channel=a HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// What a proxy has passed on, or asked itself, has its header, and what the server has taken for
// a request is answered.
var (
	passedOn = regexp.MustCompile(`(?mi)^(X-Forwarded-Proto: http|User-Agent: haproxy-check)\r$`)
	answered = regexp.MustCompile(`HTTP/1\.1 [2-5]\d\d `)
)

// What a client sends, the server takes for no more requests than the proxy has
// passed on, and the next client gets the answer to its own.
func TestSmuggling(t *testing.T) {
	each(t, func(t *testing.T, p *proxy) {
		// The tap sees what is smuggled, where no proxy is.
		send(t, p.tap.address, head("X-Forwarded-Proto: http", "Content-Length: 1")+"x"+inner)
		seen, _ := p.tap.excess(passedOn, answered)
		if seen != 1 {
			t.Fatalf("%d requests without a proxy were seen, want 1", seen)
		}
		for _, a := range attacks {
			got := send(t, p.address, strings.ReplaceAll(a.request, "%d", fmt.Sprint(len(inner))))
			for range 3 { // over connections that the proxy keeps
				resp, err := http.Get(p.mount() + "/info")
				if err != nil {
					t.Fatalf("after %s: %v", a.name, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), `"protocol":1`) {
					t.Errorf("after %s the next client got %s %q, %v", a.name, resp.Status, body, err)
				}
			}
			if n, sent := p.tap.excess(passedOn, answered); n > seen {
				t.Errorf("%s: the server took more for requests than the proxy; the client got %q; the server got %q", a.name, got, sent)
				seen = n
			}
		}
	})
}

// send sends bytes and returns what comes until nothing more does for a moment.
func send(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return "" // it was closed early
	}
	var got strings.Builder
	b := make([]byte, 16<<10)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // if it fails, reading does too
		n, err := conn.Read(b)
		got.Write(b[:n])
		if err != nil {
			return got.String()
		}
	}
}
