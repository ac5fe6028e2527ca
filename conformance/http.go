package conformance

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

var httpCases = []testCase{
	{"http/stream-headers", "4.5", "Every response has Cache-Control: no-store (streams also no-transform) and X-Content-Type-Options: nosniff; streams also X-Accel-Buffering: no", httpStreamHeaders},
	{"http/unknown-paths", "4.3", "404 for unknown paths", httpUnknownPaths},
	{"http/wrong-methods", "4.4", "405 with Allow for wrong methods (HEAD on subscribe too)", httpWrongMethods},
	{"http/options", "4.4", "OPTIONS 204", httpOptions},
	{"http/problems", "5.1", "Errors are RFC 9457 application/problem+json with status, title, detail and a code", httpProblems},
	{"http/unknown-parameters", "1.5", "Unknown parameters are ignored", httpUnknownParameters},
	{"http/post-subscribe", "8.1", "or POST with the same parameters as a form, for long lists", httpPostSubscribe},
	{"http/cors-loopback", "19.3", "CORS for configured origins and, by default, loopback names with any port", httpCORSLoopback},
	{"http/cors-stranger", "19.4", "Host and Origin are checked from the first day, since pages of strangers can reach a server on loopback", httpCORSStranger},
	{"http/fetch-metadata", "19.4", "Subscribe and publish are refused where Origin is not there, Sec-Fetch-Site says cross-site or same-site, and Referer does not name an allowed origin", httpFetchMetadata},
	{"http/host", "19.1", "Host and Origin are checked from the first day", httpHost},
	{"http/1.0", "21.2", "HTTP/1.0 clients (nginx's default upstream) get streams delimited by the connection's end", http10},
	{"http/2", "21.1", "Subscribe: over HTTP/2 as over HTTP/1.1", http2},
}

func httpStreamHeaders(t tb, s *server) {
	for _, k := range append(slices.Clone(streams), kindMultipartRaw) {
		if k.transport == "websocket" {
			continue
		}
		ch := s.channel()
		s.publish(t, &publication{channel: ch, contentType: "image/png", data: "png"})
		st := s.connect(t, k, on(ch, "earliest"))
		if st.status != http.StatusOK {
			t.Errorf("%s: got %d, want 200", k.name, st.status)
			continue
		}
		checkHeader(t, k.name, st.header)
		checkMedia(t, k.name, st.header, k.media)
		if !hasToken(st.header, "Cache-Control", "no-transform") {
			t.Errorf("%s: got Cache-Control %q, want no-transform in it", k.name, st.header.Values("Cache-Control"))
		}
		if got := st.header.Get("X-Accel-Buffering"); got != "no" {
			t.Errorf("%s: got X-Accel-Buffering %q, want no", k.name, got)
		}
		if st.header.Get("Content-Length") != "" {
			t.Errorf("%s: got Content-Length %q", k.name, st.header.Get("Content-Length"))
		}
	}
}

func httpUnknownPaths(t tb, s *server) {
	for _, path := range []string{"/nosuch", "/subscribe/more", "/publish/more", "/info.json", "/Subscribe", "/subscribe/", "/history/", "/info/"} {
		problem(t, s.get(t, path), http.StatusNotFound)
	}
	problem(t, s.do(t, "POST", "/nosuch", "x", "Content-Type", "text/plain"), http.StatusNotFound)
}

func httpWrongMethods(t tb, s *server) {
	for _, c := range []struct{ method, path, allow string }{
		{"DELETE", "/subscribe", "GET"}, {"DELETE", "/subscribe", "POST"}, {"PUT", "/subscribe", "GET"}, {"HEAD", "/subscribe", "GET"},
		{"GET", "/publish", "POST"}, {"PUT", "/publish", "POST"}, {"DELETE", "/publish", "POST"},
		{"POST", "/history", "GET"}, {"DELETE", "/history", "GET"}, {"POST", "/info", "GET"},
	} {
		r := s.do(t, c.method, c.path+"?channel="+url.QueryEscape(s.channel()), "")
		if c.method != "HEAD" {
			problem(t, r, http.StatusMethodNotAllowed)
		} else if r.status != http.StatusMethodNotAllowed {
			t.Errorf("got %s, want 405", r)
		}
		if r.status == http.StatusMethodNotAllowed && !hasToken(r.header, "Allow", c.allow) {
			t.Errorf("%s %s: got Allow %q, want %s in it", c.method, c.path, r.header.Values("Allow"), c.allow)
		}
		if hasToken(r.header, "Allow", c.method) {
			t.Errorf("%s %s: got Allow %q, which has the method that was refused", c.method, c.path, r.header.Values("Allow"))
		}
	}
}

func httpOptions(t tb, s *server) {
	for _, path := range []string{"/subscribe", "/publish", "/history", "/info"} {
		if r := s.do(t, "OPTIONS", path, ""); r.status != http.StatusNoContent || len(r.body) > 0 {
			t.Errorf("got %s, want 204 without a body", r)
		} else if r.header.Get("Allow") == "" {
			t.Errorf("OPTIONS %s: no Allow", path)
		}
	}
}

func httpProblems(t tb, s *server) {
	ch := url.QueryEscape(s.channel())
	for _, path := range []string{
		"/subscribe", "/subscribe?channel=a//b", "/subscribe?channel=" + ch + "&transport=carrier-pigeon",
		"/subscribe?channel=" + ch + "&cursor=x", "/subscribe?channel=" + ch + "&transport=sse&cursor=x",
		"/history", "/history?channel=", "/history?channel=" + ch + "&cursor=x",
	} {
		problem(t, s.get(t, path), http.StatusBadRequest)
	}
	problem(t, s.do(t, "POST", "/publish", "x"), http.StatusBadRequest)
	problem(t, s.do(t, "POST", "/publish?channel="+ch, "{", "Content-Type", "application/json"), http.StatusBadRequest)
}

func httpUnknownParameters(t tb, s *server) {
	ch := s.channel()
	const more = "&nosuch=1&Cursor=x&__proto__=2&_=1764000000000"
	s.published(t, s.do(t, "POST", "/publish?"+query("channel", ch)+more, "x", "Content-Type", "text/plain"))
	if p := s.get(t, "/history?"+query("channel", ch)+more).page(t); len(p.messages) != 1 {
		t.Errorf("history: got %d messages, want 1", len(p.messages))
	}
	q := subscription{channels: []string{ch}, cursor: "earliest", extra: []string{"nosuch", "1", "Transport", "x", "_", "1"}}
	for _, k := range kinds {
		s.receive(t, k, 1, q)
	}
	if r := s.get(t, "/info?nosuch=1"); r.status != http.StatusOK {
		t.Errorf("got %s, want 200", r)
	}
}

func httpPostSubscribe(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two", "three")
	// A list that no query could hold.
	q := subscription{cursor: want[0].id, form: true}
	for range 300 {
		q.channels = append(q.channels, s.channel())
	}
	q.channels = append(q.channels, ch)
	for _, k := range kinds {
		if k.transport != "websocket" {
			isAll(t, k.name, s.receive(t, k, 2, q).messages, want[1:])
		}
	}
}

func httpCORSLoopback(t tb, s *server) {
	ch := s.channel()
	for _, origin := range []string{"http://localhost:3000", "http://127.0.0.1:18081", "http://[::1]:9", "https://localhost"} {
		allowed := func(what string, h http.Header) {
			if got := h.Get("Access-Control-Allow-Origin"); got != origin && got != "*" {
				t.Errorf("%s from %s: got Access-Control-Allow-Origin %q, want the origin", what, origin, got)
			} else if got == origin && !hasToken(h, "Vary", "Origin") {
				t.Errorf("%s from %s: got Vary %q, want Origin in it, as the answer depends on it", what, origin, h.Values("Vary"))
			}
		}
		for _, path := range []string{"/info", "/history?" + query("channel", ch), "/subscribe?" + query("channel", ch, "timeout", "0")} {
			r := s.get(t, path, "Origin", origin)
			if r.status != http.StatusOK {
				t.Errorf("from %s: got %s, want 200", origin, r)
			}
			allowed(r.request, r.header)
		}
		// A page must be able to read what was wrong.
		allowed("an error", s.get(t, "/history", "Origin", origin).header)
		r := s.do(t, "POST", "/publish?"+query("channel", ch), "x", "Content-Type", "text/plain", "Origin", origin)
		s.published(t, r)
		allowed(r.request, r.header)
		st := s.connect(t, kindSSE, subscription{channels: []string{ch}, header: []string{"Origin", origin}})
		if st.status != http.StatusOK {
			t.Errorf("sse from %s: got %d, want 200", origin, st.status)
		}
		allowed("sse", st.header)

		r = s.do(t, "OPTIONS", "/publish?"+query("channel", ch), "", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,idempotency-key")
		if r.status != http.StatusNoContent {
			t.Errorf("preflight: got %s, want 204", r)
		}
		allowed("preflight", r.header)
		for _, name := range []string{"content-type", "idempotency-key"} {
			if !hasToken(r.header, "Access-Control-Allow-Headers", name) && !hasToken(r.header, "Access-Control-Allow-Headers", "*") {
				t.Errorf("preflight: got Access-Control-Allow-Headers %q, want %s in it", r.header.Values("Access-Control-Allow-Headers"), name)
			}
		}
		if ws := s.connect(t, kindWebSocket, subscription{header: []string{"Origin", origin}}); ws.status != http.StatusSwitchingProtocols {
			t.Errorf("websocket from %s: got %d, want 101", origin, ws.status)
		}
	}
}

func httpCORSStranger(t tb, s *server) {
	ch := s.channel()
	for _, origin := range []string{"https://stranger.example", "http://localhost.stranger.example", "http://127.0.0.1.stranger.example", "null"} {
		refused := func(what string, h http.Header) {
			if got := h.Get("Access-Control-Allow-Origin"); got == origin || got == "*" {
				t.Errorf("%s from %s: got Access-Control-Allow-Origin %q", what, origin, got)
			}
		}
		refused("info", s.get(t, "/info", "Origin", origin).header)
		refused("history", s.get(t, "/history?"+query("channel", ch), "Origin", origin).header)
		// No preflight protects this one.
		r := s.do(t, "POST", "/publish?"+query("channel", ch), "stranger", "Content-Type", "text/plain", "Origin", origin)
		problem(t, r, 0)
		refused("publish", r.header)
		refused("preflight", s.do(t, "OPTIONS", "/publish", "", "Origin", origin, "Access-Control-Request-Method", "POST").header)
		// Nor does anything a WebSocket.
		ws := s.connect(t, kindWebSocket, subscription{channels: []string{ch}, header: []string{"Origin", origin}})
		if ws.status < 400 || ws.status > 499 {
			t.Errorf("websocket from %s: got %d, want 4xx", origin, ws.status)
		}
	}
	if p := s.history(t, "channel", ch); len(p.messages) > 0 {
		t.Errorf("a stranger's message is in the log: %v", p.messages)
	}
}

func httpFetchMetadata(t tb, s *server) {
	ch := s.channel()
	poll := "/subscribe?" + query("channel", ch, "timeout", "0")
	publish := "/publish?" + query("channel", ch)
	for _, site := range []string{"cross-site", "same-site"} {
		for _, referer := range []string{"", "https://stranger.example/page", "no URL"} {
			header := []string{"Sec-Fetch-Site", site, "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}
			if referer != "" {
				header = append(header, "Referer", referer)
			}
			problem(t, s.get(t, poll, header...), http.StatusForbidden)
			problem(t, s.do(t, "POST", publish, "x", append(header, "Content-Type", "text/plain")...), http.StatusForbidden)
		}
		if r := s.get(t, poll, "Sec-Fetch-Site", site, "Sec-Fetch-Dest", "script", "Referer", "http://localhost:3000/page"); r.status != http.StatusOK {
			t.Errorf("from a loopback page: got %s, want 200", r)
		}
	}
	for _, site := range []string{"same-origin", "none"} {
		if r := s.get(t, poll, "Sec-Fetch-Site", site); r.status != http.StatusOK {
			t.Errorf("Sec-Fetch-Site: %s: got %s, want 200", site, r)
		}
	}
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages that were refused are in the log", n)
	}
}

func httpHost(t tb, s *server) {
	host := s.base.Hostname()
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		t.Skipf("%s is not a loopback name: which hosts it answers to is its own affair", host)
	}
	ch := s.channel()
	for _, host := range []string{"stranger.example", "stranger.example:" + s.base.Port(), "localhost.stranger.example", "127.0.0.1.stranger.example"} {
		problem(t, s.get(t, "/info", "Host", host), 0)
		problem(t, s.get(t, "/subscribe?"+query("channel", ch, "timeout", "0"), "Host", host), 0)
		problem(t, s.do(t, "POST", "/publish?"+query("channel", ch), "x", "Content-Type", "text/plain", "Host", host), 0)
	}
	for _, host := range []string{"localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST:" + s.base.Port()} {
		if r := s.get(t, "/info", "Host", host); r.status != http.StatusOK {
			t.Errorf("Host %s: got %s, want 200", host, r)
		}
	}
	if p := s.history(t, "channel", ch); len(p.messages) > 0 {
		t.Errorf("a message under a foreign Host is in the log: %v", p.messages)
	}
}

func http10(t tb, s *server) {
	for _, k := range streams {
		if k.transport == "websocket" {
			continue
		}
		ch := s.channel()
		want := s.text(t, ch, "one", "two")
		conn := s.dial(t)
		conn.SetDeadline(time.Now().Add(patience))
		err := s.writeRequest(conn, "GET "+s.base.EscapedPath()+"/subscribe?"+on(ch, "earliest").query(k)+" HTTP/1.0")
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %v, %v, want 200", k.name, resp, err)
		}
		conn.SetDeadline(time.Time{})
		checkHeader(t, k.name, resp.Header)
		if len(resp.TransferEncoding) > 0 || resp.ContentLength >= 0 {
			t.Fatalf("%s: got Transfer-Encoding %q and Content-Length %d, want neither", k.name, resp.TransferEncoding, resp.ContentLength)
		}
		if hasToken(resp.Header, "Connection", "keep-alive") {
			t.Errorf("%s: got Connection: keep-alive", k.name)
		}
		st := &stream{t: t, kind: k, status: resp.StatusCode, header: resp.Header, resp: resp, changed: make(chan struct{})}
		if st.reader, err = newReader(k, resp.Header); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		st.run(br, func() { conn.Close() })
		if e := st.next(); e.control != "open" {
			t.Errorf("%s: got %v, want open", k.name, e)
		}
		isAll(t, k.name, []event{st.nextMessage(), st.nextMessage()}, want)
	}
	// An answer that is over ends the connection, or says how long it is.
	conn := s.dial(t)
	conn.SetDeadline(time.Now().Add(patience))
	if err := s.writeRequest(conn, "GET "+s.base.EscapedPath()+"/info HTTP/1.0"); err != nil {
		t.Fatalf("info: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK || len(resp.TransferEncoding) > 0 {
		t.Errorf("info: got %v, %v, want 200, not chunked", resp, err)
	}
}

func http2(t tb, s *server) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: s.o.TLS.Clone(), DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialAbortive(ctx, network, address)
		}}
	t.Cleanup(transport.CloseIdleConnections)
	over2 := *s
	over2.client = &http.Client{Transport: transport}
	if r, err := over2.send(t.Context(), "GET", "/info", ""); err != nil || r.status != http.StatusOK {
		t.Skipf("the server does not speak HTTP/2 by prior knowledge: %v %v", r, err)
	}
	for _, k := range kinds {
		if k.transport == "websocket" {
			continue
		}
		ch := s.channel()
		want := over2.text(t, ch, "one", "two", "three")
		isAll(t, k.name, over2.receive(t, k, 3, on(ch, "earliest")).messages, want)
		if k.polls {
			continue
		}
		st := over2.open(t, k, on(ch, want[2].id))
		if st.resp.ProtoMajor != 2 {
			t.Fatalf("%s: got %s", k.name, st.resp.Proto)
		}
		if e := st.next(); e.control != "open" || e.id != want[2].id {
			t.Errorf("%s: got %v, want open at %s", k.name, e, want[2].id)
		}
		// Live, on a stream that is open already.
		more := over2.text(t, ch, "four")
		isAll(t, fmt.Sprintf("%s, live", k.name), []event{st.nextMessage()}, more)
		if h := st.header; h.Get("Connection") != "" || strings.Contains(h.Get("Transfer-Encoding"), "chunked") {
			t.Errorf("%s: got %v: no connection headers in HTTP/2", k.name, h)
		}
	}
}
