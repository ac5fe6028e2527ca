package conformance

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patience is how long the suite waits for something that is due at once. Only
// its own tests change it.
var patience = 10 * time.Second

// server is the server under test.
type server struct {
	o         Options
	base      *url.URL
	client    *http.Client
	heartbeat time.Duration
}

func newServer(t tb, rawURL string, o Options) *server {
	t.Helper()
	base, err := url.Parse(strings.TrimSuffix(rawURL, "/"))
	if err != nil || base.Host == "" {
		t.Fatalf("URL %q: want http:// or https:// and a host (%v)", rawURL, err)
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 1 << 20
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 16 << 20
	}
	s := &server{o: o, base: base, client: &http.Client{
		Transport: &http.Transport{
			DisableCompression: true, TLSClientConfig: o.TLS.Clone(), MaxIdleConnsPerHost: 100, DialContext: dialAbortive,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r := s.get(t, "/info")
	if r.status != http.StatusOK {
		t.Fatalf("GET info: got %s, want 200: is this the protocol's mount?", r)
	}
	var info struct{ Heartbeat float64 }
	if err := json.Unmarshal(r.body, &info); err != nil {
		t.Fatalf("GET info: %s: %v", r, err)
	}
	s.heartbeat = time.Duration(info.Heartbeat * float64(time.Second))
	return s
}

// dialAbortive makes connections that are reset when they are closed: the suite
// closes thousands before the server does, and none may linger.
func dialAbortive(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	return c, err
}

// channel returns a name that nobody else uses.
func (s *server) channel() string { return "conformance/" + rand.Text() }

// query encodes pairs of names and values.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

// response is an answer that was read whole.
type response struct {
	request string
	status  int
	header  http.Header
	body    []byte
}

func (r *response) String() string {
	return fmt.Sprintf("%d %q (%s)", r.status, clip(r.body), r.request)
}

// clip shortens what a failure shows.
func clip(b []byte) string {
	const most = 400
	if len(b) <= most {
		return string(b)
	}
	return string(b[:most/2]) + "…" + string(b[len(b)-most/2:])
}

func (s *server) request(ctx context.Context, method, path, body string, header []string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range s.o.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	return r, nil
}

// send sends a request and reads the answer, from any goroutine.
func (s *server) send(ctx context.Context, method, path, body string, header ...string) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	r, err := s.request(ctx, method, path, body, header)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &response{method + " " + path, resp.StatusCode, resp.Header, b}, err
}

// do sends a request and checks what every answer must have.
func (s *server) do(t tb, method, path, body string, header ...string) *response {
	t.Helper()
	r, err := s.send(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	checkHeader(t, r.request, r.header)
	return r
}

func (s *server) get(t tb, path string, header ...string) *response {
	t.Helper()
	return s.do(t, "GET", path, "", header...)
}

// checkHeader checks what the header of every response must have that is not
// to be kept.
func checkHeader(t tb, what string, h http.Header) {
	t.Helper()
	if !hasToken(h, "Cache-Control", "no-store") {
		t.Errorf("%s: got Cache-Control %q, want no-store", what, h.Values("Cache-Control"))
	}
	checkCommonHeader(t, what, h)
}

// checkCommonHeader checks what the header of every response must have.
func checkCommonHeader(t tb, what string, h http.Header) {
	t.Helper()
	if got := h.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("%s: got X-Content-Type-Options %q, want nosniff", what, got)
	}
	media, params, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if strings.HasPrefix(media, "text/") || strings.Contains(media, "json") {
		if !strings.EqualFold(params["charset"], "utf-8") {
			t.Errorf("%s: got Content-Type %q, want charset=utf-8", what, h.Get("Content-Type"))
		}
	}
}

// hasToken tells whether a header that is a list has the token.
func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(h.Values(name), ","), ","), func(s string) bool {
		return strings.EqualFold(strings.TrimSpace(s), token)
	})
}

func checkMedia(t tb, what string, h http.Header, want string) {
	t.Helper()
	if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); media != want {
		t.Errorf("%s: got Content-Type %q, want %s (%v)", what, h.Get("Content-Type"), want, err)
	}
}

// codes has the statuses of the problem codes that there were in the beginning.
var codes = map[string]int{
	"invalid-parameter": 400, "invalid-channel": 400, "invalid-cursor": 400, "invalid-transport": 400, "invalid-callback": 400,
	"invalid-origin": 400, "invalid-message": 400, "invalid-key": 400, "invalid-frame": 400,
	"forbidden-origin": 403, "forbidden-host": 403, "not-found": 404, "method-not-allowed": 405, "too-large": 413,
	"unsupported-body": 415, "key-reused": 422, "upgrade-required": 426,
	"internal": 500, "too-many-connections": 503, "draining": 503, "engine-unavailable": 503,
}

// problem checks that r is an error of the given status, or of any from 400 to
// 499 where that is 0, and returns its members.
func problem(t tb, r *response, status int) map[string]any {
	t.Helper()
	if r.status != status && (status != 0 || r.status < 400 || r.status > 499) {
		want := strconv.Itoa(status)
		if status == 0 {
			want = "4xx"
		}
		t.Errorf("got %s, want %s", r, want)
		return nil
	}
	checkMedia(t, r.request, r.header, "application/problem+json")
	var p map[string]any
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Errorf("got %s: %v", r, err)
		return nil
	}
	if p["status"] != float64(r.status) {
		t.Errorf("got %s, want the member status to be %d", r, r.status)
	}
	if code, _ := p["code"].(string); codes[code] != 0 && codes[code] != r.status {
		t.Errorf("got %s, want the status %d with the code %s", r, codes[code], code)
	}
	for _, name := range []string{"title", "code", "detail"} {
		if v, ok := p[name].(string); !ok || v == "" {
			t.Errorf("got %s, want a member %s", r, name)
		}
	}
	return p
}

// publication is a message that the suite published.
type publication struct {
	channel, typ, contentType, data string
	id                              string
}

// publish publishes each and sets its id.
func (s *server) publish(t tb, ps ...*publication) {
	t.Helper()
	for _, p := range ps {
		pairs := []string{"channel", p.channel}
		if p.typ != "" {
			pairs = append(pairs, "type", p.typ)
		}
		var header []string
		if p.contentType != "" {
			header = []string{"Content-Type", p.contentType}
		}
		p.id = s.published(t, s.do(t, "POST", "/publish?"+query(pairs...), p.data, header...))
	}
}

// text publishes texts and returns what was published.
func (s *server) text(t tb, channel string, texts ...string) []*publication {
	t.Helper()
	var ps []*publication
	for _, text := range texts {
		ps = append(ps, &publication{channel: channel, contentType: "text/plain", data: text})
	}
	s.publish(t, ps...)
	return ps
}

// published returns the id of a publish's answer.
func (s *server) published(t tb, r *response) string {
	t.Helper()
	var a struct{ ID string }
	if r.status != http.StatusOK || json.Unmarshal(r.body, &a) != nil || a.ID == "" {
		t.Fatalf("publish: got %s, want 200 and an id", r)
	}
	checkMedia(t, r.request, r.header, "application/json")
	return a.ID
}

// publishedAll returns the ids of the answer to several.
func (s *server) publishedAll(t tb, r *response, n int) []string {
	t.Helper()
	var a struct{ IDs []string }
	if r.status != http.StatusOK || json.Unmarshal(r.body, &a) != nil || len(a.IDs) != n {
		t.Fatalf("publish: got %s, want 200 and %d ids", r, n)
	}
	return a.IDs
}

// page is the body of long-polling and history.
type page struct {
	cursor   string
	messages []event
	gap      bool
	more     *bool
}

func parsePage(b []byte) (page, error) {
	var raw struct {
		Cursor   *string
		Messages []json.RawMessage
		Gap      bool
		More     *bool
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return page{}, err
	}
	if raw.Cursor == nil || raw.Messages == nil {
		return page{}, fmt.Errorf("no cursor, or no messages")
	}
	p := page{cursor: *raw.Cursor, gap: raw.Gap, more: raw.More}
	if _, _, err := parseCursor(p.cursor); err != nil {
		return page{}, err
	}
	for _, m := range raw.Messages {
		e, err := parseEnvelope(m)
		if err == nil && e.control != "" {
			err = fmt.Errorf("a control among the messages: %s", m)
		}
		if err != nil {
			return page{}, err
		}
		p.messages = append(p.messages, e)
	}
	return p, nil
}

// page reads a page from an answer.
func (r *response) page(t tb) page {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("got %s, want 200", r)
	}
	checkMedia(t, r.request, r.header, "application/json")
	p, err := parsePage(r.body)
	if err != nil {
		t.Fatalf("got %s: %v", r, err)
	}
	return p
}

// history returns what is retained of channels, 1,000 messages at most.
func (s *server) history(t tb, pairs ...string) page {
	t.Helper()
	p := s.get(t, "/history?"+query(append(pairs, "limit", "1000")...)).page(t)
	if p.more == nil {
		t.Errorf("history: no member more")
	}
	return p
}

// end returns the log's end.
func (s *server) end(t tb) string {
	t.Helper()
	var info struct{ Cursor string }
	r := s.get(t, "/info")
	if json.Unmarshal(r.body, &info) != nil || info.Cursor == "" {
		t.Fatalf("got %s, want a cursor", r)
	}
	return info.Cursor
}

// parseCursor takes a cursor apart, which only the suite may do.
func parseCursor(c string) (epoch string, seq uint64, err error) {
	epoch, digits, ok := strings.Cut(c, "-")
	valid := ok && len(epoch) >= 1 && len(epoch) <= 16 && strings.Trim(epoch, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
	seq, parseErr := strconv.ParseUint(digits, 10, 63)
	if !valid || parseErr != nil {
		return "", 0, fmt.Errorf("%q is not <epoch>-<sequence>", c)
	}
	return epoch, seq, nil
}

// position returns a cursor's sequence.
func position(t tb, c string) uint64 {
	t.Helper()
	_, seq, err := parseCursor(c)
	if err != nil {
		t.Fatalf("cursor: %v", err)
	}
	return seq
}

// foreign returns a cursor of another epoch.
func (s *server) foreign(t tb) string {
	t.Helper()
	if epoch, _, _ := parseCursor(s.end(t)); epoch != "zzz" {
		return "zzz-1"
	}
	return "yyy-1"
}

// beyond returns a position that the log has not reached.
func (s *server) beyond(t tb) string {
	t.Helper()
	epoch, seq, err := parseCursor(s.end(t))
	if err != nil {
		t.Fatalf("info's cursor: %v", err)
	}
	return fmt.Sprintf("%s-%d", epoch, seq+1<<40)
}

// dial opens a plain connection to the server, closed when the case ends.
func (s *server) dial(t tb) net.Conn {
	t.Helper()
	port := s.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.base.Scheme]
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := dialAbortive(ctx, "tcp", net.JoinHostPort(s.base.Hostname(), port))
	if err == nil && s.base.Scheme == "https" {
		config := &tls.Config{}
		if s.o.TLS != nil {
			config = s.o.TLS.Clone()
		}
		if config.ServerName == "" {
			config.ServerName = s.base.Hostname()
		}
		config.NextProtos = []string{"http/1.1"}
		conn = tls.Client(conn, config)
	}
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// writeRequest writes a request line and header as they are, with the options'
// header and a Host.
func (s *server) writeRequest(conn net.Conn, line string, header ...string) error {
	var b strings.Builder
	b.WriteString(line + "\r\nHost: " + s.base.Host + "\r\n")
	for name, values := range s.o.Header {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\r\n")
		}
	}
	for i := 0; i < len(header); i += 2 {
		b.WriteString(header[i] + ": " + header[i+1] + "\r\n")
	}
	_, err := io.WriteString(conn, b.String()+"\r\n")
	return err
}
