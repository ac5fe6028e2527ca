package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The forever frame is shown in pages of the server's own origin, of the one
// that it delivers to, and of those that are listed. A browser that has it in
// any other page lets go of it at once.
func TestFrameAncestors(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		elsewhere := elsewhere(t) // a loopback name, whose pages may use the server, but is not listed
		open := serve(t, "--admin-listen", "127.0.0.1:0")
		listing := serve(t, "--admin-listen", "127.0.0.1:0", "--origins", elsewhere+",https://app.example.com")
		all := serve(t, "--admin-listen", "127.0.0.1:0", "--origins", "*")
		six, own := sixth(t, open)
		for _, tt := range []struct {
			name       string
			server     *server
			page       string
			mount      string
			parameters string
			held       bool
		}{
			{"the page that is named", open, elsewhere, open.mount(), "origin=" + elsewhere, true},
			{"another than is named", open, elsewhere, open.mount(), "origin=http://a.localhost:1", false},
			{"another port than is named", open, elsewhere, open.mount(), "origin=http://localhost:1", false},
			{"a page that is not named", open, elsewhere, open.mount(), "callback=f", false},
			{"a page that is listed", listing, elsewhere, listing.mount(), "callback=f", true},
			{"a page that is listed, another named", listing, elsewhere, listing.mount(), "origin=http://a.localhost:1", true},
			{"a page that is not listed", listing, strings.Replace(elsewhere, "localhost", "127.0.0.1", 1), listing.mount(), "callback=f", false},
			{"a page where all may", all, elsewhere, all.mount(), "callback=f", true},
			{"the server's own page", open, open.url("/healthz"), open.mount(), "callback=f", true},
			{"a page of an address that no policy can name", open, six, open.mount(), "origin=" + six, true},
			{"the server's own page, by such an address", open, six, own, "callback=f", true},
		} {
			if tt.page == "" {
				continue // there is no IPv6 here
			}
			t.Run(tt.name, func(t *testing.T) {
				p, s := p.in(t), tt.server
				before := s.frames(t, "opened_total")
				p.navigate(tt.page)
				p.eval(fmt.Sprintf(`
					const element = document.createElement("iframe");
					element.src = %s;
					document.body.append(element);`, quote(tt.mount+"/subscribe?channel=news&transport=iframe&"+tt.parameters)), nil)
				for deadline := time.Now().Add(patience); s.frames(t, "opened_total") == before; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the browser does not ask for the frame")
					}
				}
				held := true
				for end := time.Now().Add(2 * time.Second); held && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					held = s.frames(t, "") == 1
				}
				if held != tt.held {
					t.Errorf("held %v, want %v", held, tt.held)
				}
				p.eval(`document.querySelector("iframe").remove();`, nil)
				for deadline := time.Now().Add(patience); s.frames(t, "") != 0; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the frame outlives its page")
					}
				}
			})
		}
	})
}

// sixth serves a page, and a server beside it, at an address of IPv6; it returns
// the page's origin and the server's mount, empty where there is no IPv6.
func sixth(t *testing.T, s *server) (origin, mount string) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Logf("without IPv6: %v", err)
		return "", ""
	}
	target, err := url.Parse(s.url(""))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/comet/", &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}})
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!doctype html><title>six</title><body>")
	})
	front := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	front.Start()
	t.Cleanup(front.CloseClientConnections)
	return front.URL, front.URL + "/comet"
}

var operators = regexp.MustCompile(`metrics, health and profiles url=(\S+)`)

// frames returns a metric of a server's iframes, by the end of its name: how
// many there are, or what else is counted.
func (s *server) frames(t *testing.T, what string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := s.process.Await(ctx, operators)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Get(found[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	name := "halley_connections"
	if what != "" {
		name += "_" + what
	}
	var n int
	_, after, ok := strings.Cut(string(text), "\n"+name+`{transport="iframe"} `)
	if _, err := fmt.Sscan(after, &n); !ok || err != nil {
		t.Fatalf("there is no %s of iframes: %v", name, err)
	}
	return n
}
