package transporttest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// testSeam holds the promise that a client may lose its connection at any byte
// and go on over any other transport, on another node: each message comes
// once, in order.
func testSeam(t *testing.T, newEngine New) {
	t.Run("every byte", func(t *testing.T) {
		bubble(t, func(t *testing.T) { testEveryByte(t, newEngine) })
	})
	t.Run("gap", func(t *testing.T) {
		bubble(t, func(t *testing.T) { testGapSeam(t, newEngine) })
	})
	t.Run("storm", func(t *testing.T) {
		bubble(t, func(t *testing.T) { testStorm(t, newEngine) })
	})
	for _, p := range []Protocol{HTTP1, H2C} {
		t.Run("cut/"+string(p), func(t *testing.T) {
			bubble(t, func(t *testing.T) { testCut(t, newEngine, p) })
		})
	}
}

// A seam is a log and a node on it, where cut clients go on.
type seam struct {
	*testing.T
	log    engine.Engine
	hub    *halley.Hub
	srv    *Server
	start  string // the cursor that clients begin with
	target int    // the next to go on with

	all     []engine.Message // of the subscription, in order
	resumed map[string][]Event
}

// channels of the subscription whose streams are cut. The samples are all on
// these.
var channels = []string{"channel=a", "channel=b", "channel=b/*"}

func newSeam(t *testing.T, newEngine New, r engine.Retention) *seam {
	t.Helper()
	log := newEngine(t, r)
	t.Cleanup(func() { _ = log.Close() })
	s := &seam{T: t, log: log, hub: newHub(t, log, halley.Options{}), resumed: map[string][]Event{}}
	s.srv = Serve(t, &http.Server{Handler: s.hub}, HTTP1)
	s.start = log.End().String()
	return s
}

// publish stores a message of the subscription, after one that is not.
func (s *seam) publish(list ...engine.Message) {
	s.Helper()
	publish(s, s.hub, text("b/c/d", "of no interest"))
	s.all = append(s.all, publish(s, s.hub, list...)...)
}

// A position is what a client knows.
type position struct {
	cursor string
	gap    bool
	seen   []Event // messages
}

// begin is what a client knows that has asked for a cursor.
func begin(cursor string) position { return position{cursor: cursor} }

// add takes an event in.
func (p *position) add(e Event) {
	switch e.Control {
	case "":
		p.seen = append(p.seen, e)
	case "open":
		// A stream that does not start where it was asked to is one with a gap,
		// which must not be lost with the connection (protocol 22.3).
		if e.ID != p.cursor {
			return
		}
	case "gap":
		p.gap = true
	case "page":
		p.gap = p.gap || e.Gap
	}
	if e.ID != "" {
		p.cursor = e.ID
	}
}

// check holds what a client of one variant knows against the log, and goes on
// from there over another.
func (s *seam) check(what string, from variant, p position, to variant) {
	s.Helper()
	n := len(p.seen)
	if n > len(s.all) {
		s.Fatalf("%s: %d messages, of %d", what, n, len(s.all))
	}
	for i, e := range p.seen {
		if want := from.eventOf(&s.all[i]); e != want {
			s.Fatalf("%s: message %d is %+v, want %+v", what, i, e, want)
		}
	}
	if from.silent {
		return // its client knows no position
	}
	key := to.name + " " + p.cursor
	got, ok := s.resumed[key]
	if !ok || *full {
		got = s.resume(to, p.cursor)
		s.resumed[key] = got
	}
	if len(got) != len(s.all)-n {
		s.Fatalf("%s: %d messages, then %d over %s from %s, want %d in all", what, n, len(got), to.name, p.cursor, len(s.all))
	}
	for i, e := range got {
		if want := to.eventOf(&s.all[n+i]); e != want {
			s.Fatalf("%s: then over %s from %s: message %d is %+v, want %+v", what, to.name, p.cursor, n+i, e, want)
		}
	}
}

// resume returns the messages from a cursor on.
func (s *seam) resume(to variant, cursor string) []Event {
	s.Helper()
	params := append(slices.Clone(channels), "cursor="+cursor)
	header := http.Header{}
	if to.transport == "sse" {
		// An EventSource comes back with the URL that it began with.
		params[len(params)-1] = "cursor=" + s.start
		header.Set("Last-Event-ID", cursor)
	}
	c := s.srv.open(s, to, header, params...)
	got := settled(c)
	c.close()
	if slices.ContainsFunc(got, func(e Event) bool { return e.Control == "gap" || e.Gap }) {
		s.Errorf("a gap over %s from %s: %+v", to.name, cursor, got)
	}
	return messages(got)
}

// A recording is what a server wrote on one connection.
type recording struct {
	cursor string // that was asked for
	wire   []byte
}

// record subscribes, and returns what comes on the connection once the server
// has closed it: on one connection for a stream, one for each of its polls.
func record(t testing.TB, srv *Server, v variant, cursor string) <-chan []recording {
	t.Helper()
	result := make(chan []recording, 1)
	go func() {
		var list []recording
		for {
			r := recording{cursor: cursor}
			r.wire = exchange(t, srv, v, cursor)
			list = append(list, r)
			if !v.polls {
				break
			}
			a, err := arrivalOf(r.wire)
			if err != nil || a.status != 200 {
				break
			}
			events, err := v.parseAnswer(a.header, a.body)
			if err != nil || events[len(events)-1].Control != "page" {
				break
			}
			cursor = events[len(events)-1].ID
		}
		result <- list
	}()
	return result
}

// exchange sends one request and returns all that the server writes.
func exchange(t testing.TB, srv *Server, v variant, cursor string) []byte {
	conn, err := srv.Dial()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	r, err := v.request(context.Background(), srv.URL, append(slices.Clone(channels), "cursor="+cursor))
	if err == nil {
		r.Close = !v.webSocket()
		err = r.Write(conn)
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	wire, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return wire
}

// An arrival is a response, and how it came.
type arrival struct {
	header http.Header
	status int
	body   []byte
	// at holds, for each byte of the body, after how many bytes on the wire a
	// client has it.
	at []int
	// whole is after how many it knows that the body is whole; -1 for never.
	whole int
}

// known returns how much of the body a client has after k bytes on the wire.
func (a *arrival) known(k int) int {
	return sort.SearchInts(a.at, k+1)
}

// arrivalOf reads what a server wrote byte by byte.
func arrivalOf(wire []byte) (*arrival, error) {
	slow := &oneByte{b: wire}
	br := bufio.NewReader(slow)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, fmt.Errorf("%q is not a response: %w", wire, err)
	}
	a := &arrival{header: resp.Header, status: resp.StatusCode, whole: -1}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = io.NopCloser(br)
	}
	for {
		var b [1]byte
		n, err := resp.Body.Read(b[:])
		if n > 0 {
			a.body = append(a.body, b[0])
			a.at = append(a.at, slow.n)
		}
		if err == io.EOF {
			a.whole = slow.n
		}
		if err != nil {
			return a, nil
		}
	}
}

// oneByte reads a byte at a time.
type oneByte struct {
	b []byte
	n int // were read
}

func (r *oneByte) Read(p []byte) (int, error) {
	if r.n == len(r.b) {
		return 0, io.EOF
	}
	p[0] = r.b[r.n]
	r.n++
	return 1, nil
}

func testEveryByte(t *testing.T, newEngine New) {
	s := newSeam(t, newEngine, engine.Retention{})
	// The sources are on a node that ends in the midst of it.
	first := newHub(t, s.log, halley.Options{})
	srv := Serve(t, &http.Server{Handler: first}, HTTP1)

	list := slices.DeleteFunc(samples(), func(m engine.Message) bool { return m.ContentType == "image/svg+xml" })
	for _, m := range list[:5] {
		s.publish(m)
	}
	recordings := make([]<-chan []recording, len(variants))
	for i, v := range variants {
		recordings[i] = record(s, srv, v, s.start)
	}
	synctest.Wait()
	for _, m := range list[5:8] {
		s.publish(m)
		synctest.Wait()
	}
	pass(30 * time.Second) // a heartbeat
	s.publish(list[8:10]...)
	publish(s, s.hub, text("b/c/d", "of no interest"))
	pass(30 * time.Second) // a heartbeat with an id that is no message's
	s.publish(list[10:14]...)
	if err := first.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	s.publish(list[14:]...)

	bytes := 0
	for i, v := range variants {
		for _, r := range <-recordings[i] {
			bytes += len(r.wire)
			s.cutEveryByte(v, r)
		}
	}
	t.Logf("%d bytes, %d ways to go on", bytes, len(s.resumed))
}

// cutEveryByte goes on from all that a client can know of a recording.
func (s *seam) cutEveryByte(v variant, r recording) {
	s.Helper()
	a, err := arrivalOf(r.wire)
	if err != nil {
		s.Fatal(err)
	}
	p := begin(r.cursor)
	var next scanner
	if v.polls {
		p.seen = s.seenBefore(v, r.cursor)
	} else {
		if next, err = v.scanner(a.header); err != nil {
			s.Fatal(err)
		}
	}
	taken := 0
	for k := range len(r.wire) + 1 {
		what := fmt.Sprintf("%s cut after %d bytes", v.name, k)
		var news []Event
		switch {
		case v.polls && a.status == 200 && k == a.whole:
			var err error
			if news, err = v.parseAnswer(a.header, a.body); err != nil {
				s.Fatalf("%s: %v", what, err)
			}
		case !v.polls:
			for {
				events, n, err := next(a.body[taken:a.known(k)])
				if err != nil {
					s.Fatalf("%s: %v", what, err)
				}
				news = append(news, events...)
				if taken += n; n == 0 {
					break
				}
			}
		}
		for _, e := range news {
			p.add(e)
		}
		if p.gap {
			s.Fatalf("%s: a gap", what)
		}
		// Between two events a client knows the same after each byte.
		if len(news) == 0 && k > 0 && !*full {
			continue
		}
		for _, to := range variants {
			s.check(what, v, p, to)
		}
	}
	if left := a.body[taken:]; !v.polls && len(bytes.Trim(left, "\r\n")) > 0 {
		s.Errorf("%s: %q is left of the stream", v.name, left)
	}
}

// seenBefore returns what a client has seen that has come to a cursor.
func (s *seam) seenBefore(v variant, cursor string) (seen []Event) {
	at, err := engine.ParseCursor(cursor)
	if err != nil {
		s.Fatal(err)
	}
	for i := range s.all {
		if s.all[i].ID.Seq <= at.Seq {
			seen = append(seen, v.eventOf(&s.all[i]))
		}
	}
	return seen
}

// A client is told of a gap, wherever its stream is cut.
func testGapSeam(t *testing.T, newEngine New) {
	s := newSeam(t, newEngine, engine.Retention{Count: 3})
	for i := range 6 {
		s.all = append(s.all, publish(s, s.hub, text("a", fmt.Sprint(i)))...)
	}
	trimmed(s, s.log, "a", 3)
	s.all = s.all[3:]
	for _, v := range variants {
		if v.silent {
			continue
		}
		result := record(t, s.srv, v, s.start)
		synctest.Wait()
		pass(30 * time.Second)
		s.srv.pipes.cut()
		for _, r := range (<-result)[:1] {
			p, known := begin(s.start), false
			a, err := arrivalOf(r.wire)
			if err != nil {
				t.Fatal(err)
			}
			if v.polls {
				events, err := v.parseAnswer(a.header, a.body)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					p.add(e)
				}
				if !p.gap || len(p.seen) != 3 {
					t.Errorf("%s: got %+v", v.name, p)
				}
				continue
			}
			next, err := v.scanner(a.header)
			if err != nil {
				t.Fatal(err)
			}
			taken := 0
			for k := range len(a.body) + 1 {
				events, n, err := next(a.body[taken:k])
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					p.add(e)
				}
				taken += n
				known = known || p.gap
				if p.cursor != s.start && !p.gap {
					t.Fatalf("%s cut after %d bytes: the client has come to %s and knows of no gap", v.name, k, p.cursor)
				}
			}
			if !known || len(p.seen) != 3 {
				t.Errorf("%s: got %+v", v.name, p)
			}
		}
	}
}

// testCut cuts connections in use, and goes on over another transport each
// time: on HTTP/1.1 close to where events end, on HTTP/2 everywhere.
func testCut(t *testing.T, newEngine New, protocol Protocol) {
	s := newSeam(t, newEngine, engine.Retention{})
	list := slices.DeleteFunc(samples(), func(m engine.Message) bool { return m.ContentType == "image/svg+xml" })
	for _, m := range list {
		s.publish(m)
	}
	srv := Serve(t, &http.Server{Handler: s.hub}, protocol)
	for _, v := range variants {
		if v.webSocket() && protocol.two() {
			continue
		}
		var cuts []int
		if protocol.two() || v.polls {
			for k := 40; k < 6000; k += 151 {
				cuts = append(cuts, k)
			}
		} else {
			cuts = s.boundaries(v)
		}
		for _, k := range cuts {
			p := s.cutAt(srv, v, k)
			if v.polls && len(p.seen) > 0 && len(p.seen) < len(s.all) {
				t.Errorf("%s cut after %d bytes: %d messages of an answer that is not whole", v.name, k, len(p.seen))
			}
			s.target++
			s.check(fmt.Sprintf("%s cut after %d bytes", v.name, k), v, p, variants[s.target%len(variants)])
		}
	}
	synctest.Wait()
	if n := s.hub.Connections(); n != 0 {
		t.Errorf("%d connections when all were cut", n)
	}
}

// boundaries returns after how many bytes of HTTP/1.1 a client has got an
// event, give or take three.
func (s *seam) boundaries(v variant) (cuts []int) {
	result := record(s, s.srv, v, s.start)
	synctest.Wait()
	s.srv.pipes.cut()
	wire := (<-result)[0].wire
	a, err := arrivalOf(wire)
	if err != nil {
		s.Fatal(err)
	}
	next, err := v.scanner(a.header)
	if err != nil {
		s.Fatal(err)
	}
	ends := []int{0}
	for taken := 0; ; {
		_, n, err := next(a.body[taken:])
		if err != nil {
			s.Fatal(err)
		}
		if n == 0 {
			break
		}
		taken += n
		ends = append(ends, taken)
	}
	for k := range len(wire) + 1 {
		for _, end := range ends {
			if d := a.known(k) - end; -3 <= d && d <= 3 {
				cuts = append(cuts, k)
				break
			}
		}
	}
	return cuts
}

// cutAt subscribes on a connection that is cut after so many bytes, and
// returns what a client knows then.
func (s *seam) cutAt(srv *Server, v variant, budget int) position {
	tr := srv.Client.Transport.(*http.Transport).Clone()
	dials := 0
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, errCut // no second try
		}
		return srv.pipes.dial(budget)
	}
	cut := &Server{URL: srv.URL, Client: &http.Client{Transport: tr}}
	p := begin(s.start)
	params := append(slices.Clone(channels), "cursor="+s.start)
	if v.polls {
		c := cut.open(s, v, nil, params...)
		for _, e := range settled(c) {
			p.add(e)
		}
		c.close()
		tr.CloseIdleConnections()
		return p
	}
	resp, err := cut.send(context.Background(), v, nil, params)
	if err != nil {
		if strings.HasPrefix(err.Error(), "status") {
			s.Fatal(err)
		}
		return p
	}
	next, err := v.scanner(resp.Header)
	if err != nil {
		s.Fatal(err)
	}
	c := &feed{t: s, v: v, done: make(chan struct{})}
	go c.stream(resp.Body, next)
	for _, e := range settled(c) {
		p.add(e)
	}
	resp.Body.Close()
	<-c.done
	tr.CloseIdleConnections()
	return p
}
