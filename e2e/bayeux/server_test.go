package bayeux

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"

	"github.com/halley-comet/halley/engine/memory"
)

// server serves both protocols from a log, and can be started again.
type server struct {
	t       *testing.T
	log     halley.Engine
	options bayeux.Options
	address string
	pages   atomic.Pointer[http.Handler] // all else

	hub     *halley.Hub
	handler *bayeux.Handler
	http    *http.Server
}

func serve(t *testing.T, options bayeux.Options) *server {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, log, options)
}

// serveOn serves from a log, which it closes.
func serveOn(t *testing.T, log halley.Engine, options bayeux.Options) *server {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	s := &server{t: t, log: log, options: options, address: "127.0.0.1:0"}
	s.show(http.NotFoundHandler())
	s.start()
	t.Cleanup(func() {
		s.stop()
		_ = log.Close()
		if t.Failed() || t.Name() != strings.Split(t.Name(), "/")[0] {
			return
		}
		// Nothing of it is left. Other tests' goroutines come and go.
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines before the server, %d after it:\n%s", goroutines, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
	return s
}

// show serves pages beside the protocols.
func (s *server) show(pages http.Handler) { s.pages.Store(&pages) }

func (s *server) start() {
	s.t.Helper()
	var err error
	if s.hub, err = halley.New(s.log, &halley.Options{DrainWindow: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		s.t.Fatal(err)
	}
	if s.handler, err = bayeux.New(s.hub, &s.options); err != nil {
		s.t.Fatal(err)
	}
	s.handler.HandleService("/service/echo", func(c *bayeux.Call) {
		_ = c.Reply(json.RawMessage(c.Data)) // the client is told or is gone
	})
	mux := http.NewServeMux()
	s.handler.Read("/bayeux")
	mux.Handle("/comet/", s.hub)
	mux.Handle("/bayeux", s.handler)
	mux.Handle("/bayeux/", s.handler)
	mux.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.pages.Load()).ServeHTTP(w, r) }))
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := &http.Server{Handler: mux}
	s.http = server
	go func() { _ = server.Serve(s.hub.Front(server, listener)) }() // until it is closed
}

// stop ends the server as if its process had been: sessions are forgotten.
func (s *server) stop() {
	_ = s.handler.Close()
	_ = s.http.Close()
	s.hub.Close()
}

// mount is what Bayeux clients are given.
func (s *server) mount() string { return "http://" + s.address + "/bayeux" }

// publish stores messages {"n": first}, {"n": first + 1}, … in a channel.
func (s *server) publish(channel string, first, count int) {
	s.t.Helper()
	for n := first; n < first+count; n++ {
		_, err := s.hub.Publish(s.t.Context(), halley.Message{Channel: channel, ContentType: "application/json", Data: fmt.Appendf(nil, `{"n":%d}`, n)})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// history is the data of a channel's messages, as JSON.
func (s *server) history(channels ...string) (all []string) {
	s.t.Helper()
	page, err := s.hub.Read(context.Background(), halley.Query{Channels: channels, Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range page.Messages {
		all = append(all, string(m.Data))
	}
	return all
}

// sessions waits until there are so many.
func (s *server) sessions(want int) {
	s.t.Helper()
	for end := time.Now().Add(patience); s.handler.Sessions() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Errorf("%d sessions, want %d", s.handler.Sessions(), want)
			return
		}
	}
}
