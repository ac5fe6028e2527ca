package e2e

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
	"github.com/halley-comet/halley/e2e/chaos"
)

// gallery is a site that has the server below /comet and pictures beside it,
// reached through a proxy by several names if so many aliases are wanted. Its
// pages are at /page.
func gallery(t *testing.T, name string, aliases int) (s *site, hosts []string) {
	t.Helper()
	var server *url.URL
	mux := http.NewServeMux()
	mux.Handle("/comet/", &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // tells of every client that goes
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(server)
			r.Out.Host = r.In.Host
		},
	})
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 16, 16))); err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("/picture/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(picture.Bytes())
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>a gallery</title><body>")
	})
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	proxy, err := chaos.Start(front.Listener.Addr().String(), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	_, port, _ := strings.Cut(proxy.Host(0), ":")
	flags := []string{"--heartbeat", heartbeat.String()}
	for i := range aliases {
		hosts = append(hosts, fmt.Sprintf("%c.localhost:%s", 'a'+i, port))
	}
	if aliases > 0 {
		flags = append(flags, "--hosts", strings.Join(hosts, ","))
	}
	s = &site{t: t, name: name, proxy: proxy, server: serve(t, flags...)}
	if server, err = url.Parse(s.server.url("")); err != nil {
		t.Fatal(err)
	}
	return s, hosts
}

// visitGallery gives a page of the gallery the suite.
func (s *site) visitGallery(p *page) {
	s.t.Helper()
	p.navigate("http://" + s.proxy.Host(0) + "/page")
	s.install(p)
}

// pictures loads some in the page and tells how long that took.
func (s *site) pictures(p *page, number int) time.Duration {
	s.t.Helper()
	var milliseconds float64
	p.eval(fmt.Sprintf(`
		const began = performance.now();
		await Promise.all(Array.from({ length: %d }, () => new Promise((yes, no) => {
			const picture = new Image();
			picture.onload = yes;
			picture.onerror = () => no(new Error("a picture does not load"));
			picture.src = "/picture/" + Math.random();
			setTimeout(() => no(new Error("a picture is not there after 10 s")), 10_000);
		})));
		return performance.now() - began;`, number), &milliseconds)
	return time.Duration(milliseconds * float64(time.Millisecond))
}

// Twelve tabs of one host under HTTP/1.1, where a browser has six connections
// for it, still load their pictures, whether they share a connection or not.
// Without aliases, and without sharing, they would not.
func TestClientTwelveTabs(t *testing.T) {
	const number = 12
	everyBrowser(t, nil, func(t *testing.T, first *site, b browser.Browser) {
		for _, share := range []bool{true, false} {
			t.Run(map[bool]string{true: "shared", false: "not shared"}[share], func(t *testing.T) {
				s, _ := gallery(t, b.Name(), 3)
				tr := &traffic{site: s, channels: []string{"gallery"}}
				cursor := s.server.cursor()
				var pages []*page
				var recorders []*recorder
				for i := range number {
					p := newPage(t, b)
					s.visitGallery(p)
					pages = append(pages, p)
					recorders = append(recorders, s.record(p.tab, recording{
						Name: fmt.Sprintf("tab-%d", i), Mount: "http://" + s.proxy.Host(0) + "/comet", Share: share,
						Transports: []string{"fetch", "sse", "long-polling"}, Channels: tr.channels, Cursor: cursor,
					}))
				}
				s.await(recorders, patience, "open", func(state recordState) bool { return state.State == "open" })
				want := number
				if share {
					want = 1
				}
				s.streams(want, "twelve tabs")
				var took []time.Duration
				for _, p := range pages {
					took = append(took, s.pictures(p, 10))
				}
				t.Logf("%s: ten pictures in each of %d tabs, shared %v: %s", s.name, number, share, spread(took))
				if err := tr.batch(t.Context(), 100); err != nil {
					t.Fatal(err)
				}
				s.await(recorders, patience, "every message", func(state recordState) bool { return state.Next >= 100 })
				s.check(recorders, 100)
			})
		}
	})
}

// Every transport works by an alias, which is another origin than the page's.
func TestClientAliases(t *testing.T) {
	everyBrowser(t, nil, func(t *testing.T, first *site, b browser.Browser) {
		s, hosts := gallery(t, b.Name(), 3)
		p := newPage(t, b)
		s.visitGallery(p)
		for _, transport := range s.transports(p.tab) {
			t.Run(transport, func(t *testing.T) {
				s := &site{t: t, name: s.name, server: s.server, proxy: s.proxy}
				p := p.in(t)
				channel := "alias/" + transport
				tr := &traffic{site: s, channels: []string{channel}}
				r := s.record(p.tab, recording{Name: transport, Mount: "http://" + s.proxy.Host(0) + "/comet",
					Transports: []string{transport}, Channels: tr.channels, Cursor: s.server.cursor()})
				s.await([]*recorder{r}, patience, "open", func(state recordState) bool { return state.State == "open" })
				if err := tr.batch(t.Context(), 100); err != nil {
					t.Fatal(err)
				}
				s.await([]*recorder{r}, patience, "every message", func(state recordState) bool { return state.Next >= 100 })
				s.check([]*recorder{r}, 100)
				held := s.proxy.PendingHosts("/subscribe")
				if len(held) != 1 || !slices.Contains(hosts, held[0]) {
					t.Errorf("the connection is held by %q, want one of %q", held, hosts)
				}
				s.eval(p.tab, "suite.stop();", nil)
			})
		}
	})
}
