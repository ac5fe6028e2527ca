package conformance

import (
	"bytes"
	"net/http"
)

var negotiationCases = []testCase{
	{"negotiation/transport", "8.1", "transport: long-polling, jsonp, iframe, multipart, xhr-streaming, sse, websocket; anything else 400", negotiationTransport},
	{"negotiation/accept", "8.3", "Left out: Accept by q, ties in this order: text/event-stream → sse, multipart/x-mixed-replace → multipart, application/x-ndjson → xhr-streaming, anything else → long-polling", negotiationAccept},
	{"negotiation/upgrade", "15.1", "Left out: Upgrade: websocket → websocket; websocket without an upgrade 426", negotiationUpgrade},
	{"negotiation/format", "8.1", "envelope, or for sse and multipart raw, which is their default; elsewhere raw is 400", negotiationFormat},
	{"negotiation/channel", "8.1", "channel: at least one, except for websocket", negotiationChannel},
}

func negotiationTransport(t tb, s *server) {
	ch := s.channel()
	for _, k := range kinds {
		if k.transport == "websocket" {
			continue
		}
		// Whatever it accepts.
		st := s.connect(t, k, subscription{channels: []string{ch}, extra: []string{"timeout", "0"}, header: []string{"Accept", "application/x-ndjson"}})
		if st.status != http.StatusOK {
			t.Errorf("%s: got %d, want 200", k.name, st.status)
		}
		checkMedia(t, k.name, st.header, k.media)
	}
	for _, name := range []string{"SSE", "eventsource", "long_polling", "ws", "sse,websocket", "sse "} {
		problem(t, s.get(t, "/subscribe?"+query("channel", ch, "transport", name)), http.StatusBadRequest)
	}
}

func negotiationAccept(t tb, s *server) {
	const (
		poll, sse, multipart, ndjson = "application/json", "text/event-stream", "multipart/x-mixed-replace", "application/x-ndjson"
	)
	ch := s.channel()
	for accept, want := range map[string]string{
		"":                                      poll,
		"*/*":                                   poll,
		"text/*":                                poll,
		"application/json":                      poll,
		"text/html":                             poll,
		"image/png,image/*":                     poll,
		sse:                                     sse,
		multipart:                               multipart,
		ndjson:                                  ndjson,
		"Text/Event-Stream":                     sse,
		"text/event-stream;charset=utf-8":       sse,
		ndjson + ", " + sse:                     sse,
		ndjson + "," + multipart:                multipart,
		multipart + ", " + sse:                  sse,
		sse + ";q=0.5, " + ndjson:               ndjson,
		sse + ";q=0.5, " + multipart + ";q=0.6": multipart,
		sse + ";q=0.8, " + ndjson + ";q=0.8":    sse,
		sse + "; q=0.801, " + ndjson + "; q=0.802": ndjson,
		ndjson + ";Q=0.3, " + multipart + ";q=0.2": ndjson,
		sse + ";q=0":                                        poll,
		sse + ";q=0, " + ndjson + ";q=0.1":                  ndjson,
		sse + ";q=0.9, application/json":                    poll,
		"application/json;q=0.9, " + sse + ";q=0.9":         sse,
		"text/html, application/xhtml+xml, */*;q=0.8":       poll,
		sse + ", */*;q=0.1":                                 sse,
		"application/x-ndjson;profile=\"a,b;q=0\", " + poll: ndjson,
	} {
		header := []string{"Accept", accept}
		if accept == "" {
			header = nil
		}
		st := s.negotiate(t, ch, header)
		if st.status != http.StatusOK {
			t.Errorf("Accept %q: got %d, want 200", accept, st.status)
		}
		checkMedia(t, "Accept "+accept, st.header, want)
	}
}

// negotiate subscribes without naming a transport.
func (s *server) negotiate(t tb, channel string, header []string) *stream {
	t.Helper()
	k := kind{name: "negotiated"}
	return s.connect(t, k, subscription{channels: []string{channel}, extra: []string{"timeout", "0"}, header: header})
}

func negotiationUpgrade(t tb, s *server) {
	ch := s.channel()
	upgrade := func(path string) *stream { return s.handshake(t, path) }
	if st := upgrade("/subscribe?" + query("channel", ch)); st.status != http.StatusSwitchingProtocols {
		t.Errorf("Upgrade without a transport: got %d, want 101", st.status)
	} else if e := st.next(); e.control != "open" {
		t.Errorf("Upgrade without a transport: got %v, want open", e)
	}
	if st := upgrade("/subscribe"); st.status != http.StatusSwitchingProtocols {
		t.Errorf("Upgrade without a channel: got %d, want 101", st.status)
	}
	if st := upgrade("/subscribe?" + query("channel", ch, "transport", "sse")); st.status != http.StatusOK {
		t.Errorf("Upgrade with transport=sse: got %d, want 200", st.status)
	} else {
		checkMedia(t, "Upgrade with transport=sse", st.header, "text/event-stream")
	}
	r := s.get(t, "/subscribe?"+query("channel", ch, "transport", "websocket"))
	problem(t, r, http.StatusUpgradeRequired)
	if !hasToken(r.header, "Upgrade", "websocket") {
		t.Errorf("got Upgrade %q, want websocket (RFC 9110, 15.5.22)", r.header.Get("Upgrade"))
	}
	if got := r.header.Get("Sec-WebSocket-Version"); got != "13" {
		t.Errorf("got Sec-WebSocket-Version %q, want 13 (RFC 6455, 4.4)", got)
	}
	problem(t, s.get(t, "/subscribe?"+query("transport", "websocket")), http.StatusUpgradeRequired)
}

func negotiationFormat(t tb, s *server) {
	ch := s.channel()
	p := &publication{channel: ch, typ: "said", contentType: "application/json", data: `{"a":1}`}
	s.publish(t, p)
	raw := kind{name: "sse without a format", transport: "sse", media: "text/event-stream"}
	st := s.connect(t, raw, on(ch, "earliest"))
	st.reader = &eventStream{raw: true}
	st.next()
	isAll(t, raw.name, []event{st.nextMessage()}, []*publication{p})
	st = s.connect(t, kind{name: "multipart without a format", transport: "multipart"}, on(ch, "earliest"))
	st.wait("a raw part", func(data []byte, _ error) bool { return bytes.Contains(data, []byte("\r\n\r\n"+p.data)) })

	for _, k := range []kind{kindLongPolling, kindJSONP, kindIframe, kindXHRStreaming, kindWebSocket} {
		k.format = "envelope"
		if k.polls {
			isAll(t, k.name, s.receive(t, k, 1, on(ch, "earliest")).messages, []*publication{p})
		} else if e := s.open(t, k, on(ch, "earliest")).next(); e.control != "open" {
			t.Errorf("%s with format=envelope: got %v, want open", k.name, e)
		}
		k.format = ""
		s.refused(t, k, subscription{channels: []string{ch}, extra: []string{"format", "raw"}}, http.StatusBadRequest)
	}
}

func negotiationChannel(t tb, s *server) {
	for _, k := range kinds {
		if k.transport != "websocket" {
			s.refused(t, k, subscription{}, http.StatusBadRequest)
			continue
		}
		if e := s.open(t, k, subscription{}).next(); e.control != "open" {
			t.Errorf("websocket without a channel: got %v, want open", e)
		}
	}
}
