package halley_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
)

// remembering is people that knows again whom it was asked for.
type remembering struct {
	people
	mu    sync.Mutex
	known map[string]*halley.Grant
	again int // how often it was
}

func (r *remembering) Authorize(ctx context.Context, c halley.Credentials) (*halley.Grant, error) {
	g, err := r.people.Authorize(ctx, c)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.known == nil {
			r.known = map[string]*halley.Grant{}
		}
		r.known[c.Token] = g
	}
	return g, err
}

func (r *remembering) Remembered(token string) (*halley.Grant, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, ok := r.known[token]
	if ok {
		r.again++
	}
	return g, ok
}

// What Front serves by tokens that are known is what ServeHTTP would, and what
// it would refuse is refused.
func TestFrontAuthorized(t *testing.T) {
	type side struct {
		authorizer *remembering
		hub        *halley.Hub
		host       string
	}
	var sides []side
	for _, front := range []bool{true, false} {
		r := &remembering{}
		_, hub, mount := newPeople(t, halley.Options{Authorizer: r, PublishRate: 1000}, front)
		sides = append(sides, side{r, hub, strings.TrimSuffix(strings.TrimPrefix(mount, "http://"), "/comet/")})
	}
	exchange := func(s side, request string) string {
		t.Helper()
		c, err := net.Dial("tcp", s.host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprint(c, request); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		defer resp.Body.Close()
		body := make([]byte, 200)
		n, _ := resp.Body.Read(body)
		text := string(body[:n])
		if strings.HasPrefix(text, `{"id"`) || strings.HasPrefix(text, `{"cursor"`) {
			text = text[:5] // the log's epoch is its own
		}
		return fmt.Sprint(resp.StatusCode, resp.Header["Set-Cookie"], resp.Header["Content-Type"], text)
	}
	get := func(query string, headers ...string) string {
		return "GET /comet/subscribe?" + query + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	post := func(query string, headers ...string) string {
		return "POST /comet/publish?" + query + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n1"
	}
	const ann, bob = "Authorization: Bearer ann", "authorization: bearer bob"
	requests := []string{
		get("channel=ann/x&timeout=0", ann), get("channel=bob/x&timeout=0", ann), get("channel=bob/x&timeout=0", bob), get("channel=news&timeout=0"), get("channel=ann/x&timeout=0"),
		get("channel=**&timeout=0", ann), get("channel=ann/**&timeout=0", ann), get("channel=ann/x&channel=bob/x&timeout=0", ann),
		get("channel=ann/x&timeout=0", "Authorization: Bearer bad"), get("channel=ann/x&timeout=0", "Authorization: Basic ann"), get("channel=ann/x&timeout=0", "Authorization: Bearer"),
		get("channel=ann/x&timeout=0", "Authorization: ann"), get("channel=ann/x&timeout=0", ann, "Authorization: Bearer bob"), get("channel=ann/x&timeout=0", "Authorization:Bearer ann"),
		get("channel=ann/x&timeout=0", "Cookie: comet-token=ann"), get("channel=news&timeout=0", "Cookie: comet-token=bad"), get("channel=ann/x&timeout=0", ann, "Cookie: comet-token=bob"),
		get("channel=ann/x&timeout=0&token=ann"), get("channel=ann/x&timeout=0&ticket=nonsense"), get("channel=ann/x&timeout=0&token=bob", ann),
		get("channel=ann/x&timeout=0", ann, "Origin: https://evil.example"),
		post("channel=ann/x", ann), post("channel=bob/x", ann), post("channel=ann/x"), post("channel=ann/x", "Authorization: Bearer bad"), post("channel=ann/x", "Cookie: comet-token=ann"),
		post("channel=ann/x", ann, "Cookie: x=y"), post("channel=ann/x&token=ann"), post("channel=ann/x&channel=bob/x", ann), post("channel=bob/x", bob),
	}
	for range 3 {
		for _, request := range requests {
			if got, want := exchange(sides[0], request), exchange(sides[1], request); got != want {
				t.Errorf("%q:\nwith Front:    %s\nwithout Front: %s", request, got, want)
			}
		}
	}
	known := sides[0].authorizer
	known.mu.Lock()
	if known.again == 0 {
		t.Error("Front has served nothing")
	}
	known.mu.Unlock()
	if a, b := sides[0].hub.End().Seq, sides[1].hub.End().Seq; a != b || a == 0 {
		t.Errorf("%d messages with Front, %d without", a, b)
	}
	// What is known is not what is good for ever.
	for _, s := range sides {
		if _, err := s.hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
			t.Fatal(err)
		}
		for _, request := range []string{get("channel=ann/x&timeout=0", ann), post("channel=ann/x", ann)} {
			if got := exchange(s, request); !strings.Contains(got, "token-revoked") {
				t.Errorf("%q: %s", request, got)
			}
		}
	}
	soon := time.Now().Add(100 * time.Millisecond)
	s := sides[0]
	s.authorizer.expires.Store(&soon)
	if got := exchange(s, get("channel=carl/x&timeout=0", "Authorization: Bearer carl")); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	time.Sleep(150 * time.Millisecond)
	if got := exchange(s, get("channel=carl/x&timeout=0", "Authorization: Bearer carl")); !strings.Contains(got, "token-expired") {
		t.Error(got)
	}
}
