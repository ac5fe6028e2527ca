package chaos

import (
	"bufio"
	"strings"
	"testing"
)

// The end of a body is found wherever its bytes are parted.
func TestBody(t *testing.T) {
	const next = "HTTP/1.1 200 OK\r\n"
	for _, message := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nas it says\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;b=c\r\n0123456789\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: yes\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
	} {
		for size := range len(message) + 1 {
			r := bufio.NewReader(strings.NewReader(message))
			h, err := readHead(r)
			if err != nil {
				t.Fatal(err)
			}
			if h.start == "HTTP/1.1 204 No Content" && size > 0 {
				continue // it has no body, and no length says so
			}
			b, err := responseBody(h, "GET")
			if err != nil {
				t.Fatal(err)
			}
			rest := message[strings.Index(message, "\r\n\r\n")+4:] + next
			taken := 0
			for !b.ended() {
				piece := rest[taken:min(len(rest), taken+size+1)]
				n, err := b.take([]byte(piece))
				if err != nil {
					t.Fatal(err)
				}
				taken += n
			}
			if rest[taken:] != next {
				t.Errorf("%q in pieces of %d: after its end comes %q, want the next message", message, size+1, rest[taken:])
			}
		}
	}
}

func TestHead(t *testing.T) {
	const text = "GET /a HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX: y:z \r\n\r\n"
	h, err := readHead(bufio.NewReader(strings.NewReader("\r\n" + text)))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(h.bytes()); got != text {
		t.Errorf("%q, want %q", got, text)
	}
	if h.get("x") != "y:z" || h.get("y") != "" || !h.upgrades() {
		t.Errorf("fields %q, %q, upgrade %v", h.get("x"), h.get("y"), h.upgrades())
	}
	const stripped = "GET /a HTTP/1.1\r\nHost: b\r\nX: y:z \r\n\r\n"
	if got := string(h.without("connection", "upgrade").bytes()); got != stripped {
		t.Errorf("%q, want %q", got, stripped)
	}
	if _, err := readHead(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: b"))); err == nil {
		t.Error("a head that is cut is taken")
	}
}
