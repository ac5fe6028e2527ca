package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// testStorm has clients that lose their connections at any byte, come back
// over any transport, and read now fast and now slowly, while messages are
// published all the time.
func testStorm(t *testing.T, newEngine New) {
	s := newSeam(t, newEngine, engine.Retention{})
	hub := newHub(t, s.log, halley.Options{Heartbeat: 40 * time.Millisecond})
	servers := []*Server{Serve(t, &http.Server{Handler: hub}, HTTP1), Serve(t, &http.Server{Handler: hub}, H2C)}

	var publishers, clients sync.WaitGroup
	for i := range 3 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		publishers.Go(func() {
			names := []string{"a", "b", "b/c", "b/d", "of/no/interest"}
			for n := range 100 {
				var batch []engine.Message
				for range 1 + r.IntN(6) {
					size := r.IntN(100)
					if r.IntN(20) == 0 {
						size = r.IntN(20_000)
					}
					batch = append(batch, text(names[r.IntN(len(names))], strconv.Itoa(n)+strings.Repeat("\n", size)))
				}
				publish(t, hub, batch...)
				if r.IntN(3) == 0 {
					time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) // the bubble's time
				}
			}
		})
	}
	positions := make([]position, 7)
	cuts := make([]int, len(positions))
	for i := range positions {
		p := &positions[i]
		*p = begin(s.start)
		r := rand.New(rand.NewPCG(2, uint64(i)))
		clients.Go(func() {
			for n := 0; ; n++ {
				cuts[i] = n
				v, srv := variants[r.IntN(len(variants))], servers[r.IntN(len(servers))]
				if v.silent || v.webSocket() && srv == servers[1] {
					continue
				}
				ended, err := follow(srv, v, r, p)
				if err != nil {
					t.Errorf("client %d, over %s: %v", i, v.name, err)
				}
				if ended || err != nil {
					return
				}
			}
		})
	}
	publishers.Wait()
	publish(t, hub, text("a", "the end"))
	clients.Wait()

	for _, m := range (&fixture{T: t, log: s.log}).after(engine.Cursor{}) {
		if !strings.HasPrefix(m.Channel, "of/") {
			s.all = append(s.all, m)
		}
	}
	for i, p := range positions {
		if p.gap {
			t.Errorf("client %d was told of a gap", i)
		}
		for n := range max(len(p.seen), len(s.all)) {
			if n >= len(p.seen) || n >= len(s.all) || p.seen[n].ID != s.all[n].ID.String() {
				t.Errorf("client %d, after %d connections: message %d of %d is not as in the log, of %d", i, cuts[i], n, len(p.seen), len(s.all))
				break
			}
		}
	}
	synctest.Wait()
	if n := hub.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// follow goes on from a position over one connection, until it is cut or the
// last message is there.
func follow(srv *Server, v variant, r *rand.Rand, p *position) (ended bool, err error) {
	budget := 200 + r.IntN(60_000)
	tr := srv.Client.Transport.(*http.Transport).Clone()
	defer tr.CloseIdleConnections()
	var dialed []net.Conn
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if len(dialed) > 0 {
			return nil, errCut // no second try
		}
		c, err := srv.pipes.dial(budget)
		dialed = append(dialed, c)
		return c, err
	}
	defer func() {
		for _, c := range dialed {
			c.Close()
		}
	}()
	cut := &Server{URL: srv.URL, Client: &http.Client{Transport: tr}}
	params := append([]string{"timeout=0.1", "cursor=" + p.cursor}, channels...)
	resp, err := cut.send(context.Background(), v, nil, params)
	if err != nil {
		if strings.HasPrefix(err.Error(), "status") {
			return false, err
		}
		return false, nil
	}
	defer resp.Body.Close()
	over := func() bool { return len(p.seen) > 0 && p.seen[len(p.seen)-1].Body == "the end" }
	if v.polls {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return false, nil
		}
		events, err := v.parseAnswer(resp.Header, body)
		for _, e := range events {
			p.add(e)
		}
		return over(), err
	}
	next, err := v.scanner(resp.Header)
	if err != nil {
		return false, err
	}
	var body []byte
	buf := make([]byte, 1+r.IntN(8<<10))
	for {
		if r.IntN(30) == 0 {
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
		}
		n, readErr := resp.Body.Read(buf)
		body = append(body, buf[:n]...)
		for {
			events, n, err := next(body)
			if err != nil {
				return false, err
			}
			if n == 0 {
				break
			}
			body = body[n:]
			for _, e := range events {
				if e.Control == "reconnect" || e.Control == "error" || e.Control == "close" {
					return false, fmt.Errorf("got %+v", e)
				}
				p.add(e)
			}
		}
		if over() {
			return true, nil
		}
		if errors.Is(readErr, io.EOF) && v.transport != "websocket" {
			return false, errors.New("the stream has ended")
		}
		if readErr != nil {
			return false, nil
		}
	}
}
