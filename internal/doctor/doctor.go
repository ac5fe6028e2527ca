package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley/comet"
)

// Options say how to look. The zero value is usable.
type Options struct {
	// Origin is sent as the origin of a page, if not empty.
	Origin string
	// Token is sent as a bearer token, if not empty.
	Token string
	// TLS is for https URLs; nil means the defaults.
	TLS *tls.Config
	// Wait is how long something may take that should come at once; 0 means
	// 2 s.
	Wait time.Duration
	// Patience is how long a silent stream is watched for heartbeats and cuts;
	// 0 means two heartbeat intervals, and below 0 streams are not watched.
	Patience time.Duration
}

// A Report is what was found out.
type Report struct {
	URL    string `json:"url"`
	Server Server `json:"server"`
	// Publish says how publishing went: "works", or why not.
	Publish    string   `json:"publish"`
	Transports []Result `json:"transports"`
	// Advice says in plain words what to do.
	Advice []string `json:"advice"`
}

// Server is what the answer to info shows.
type Server struct {
	// Error says why there is no answer of a Halley server.
	Error     string `json:"error,omitempty"`
	Version   string `json:"version,omitempty"`
	HTTP      string `json:"http,omitempty"`
	ALPN      string `json:"alpn,omitempty"`
	Heartbeat ms     `json:"heartbeatMs,omitzero"`
	// RTT is how long an answer took over a connection that was there.
	RTT ms `json:"rttMs,omitzero"`
	// Via names who shows on the way; empty if nobody does.
	Via string `json:"via,omitempty"`
	// ClockSkew is how far the clock that dates answers is ahead of this one's,
	// as far as a Date in seconds tells.
	ClockSkew ms `json:"clockSkewMs,omitzero"`
	// Origin says whether pages of Options.Origin may read the answer.
	Origin string `json:"origin,omitempty"`
	// Compressed is the content coding of an answer, if it has one.
	Compressed string `json:"compressed,omitempty"`

	cursor string
}

// A Result is what was found out about one transport.
type Result struct {
	Transport string  `json:"transport"`
	Verdict   Verdict `json:"verdict"`
	// Detail says why it is not Works.
	Detail string `json:"detail,omitempty"`
	Status int    `json:"status,omitempty"`
	HTTP   string `json:"http,omitempty"`
	ALPN   string `json:"alpn,omitempty"`
	Via    string `json:"via,omitempty"`
	// Headers and Open are how long the response's headers and the first of its
	// body took.
	Headers ms `json:"headersMs,omitzero"`
	Open    ms `json:"openMs,omitzero"`
	// Messages is how many were published, Received how many came, Together how
	// many of them came in the same read as another.
	Messages int `json:"messages"`
	Received int `json:"received"`
	Together int `json:"together,omitempty"`
	// Latency is the median of the times from publishing to receiving, Worst
	// the longest.
	Latency ms `json:"latencyMs,omitzero"`
	Worst   ms `json:"worstMs,omitzero"`
	// Buffer is what a transport needs to get through that is held back.
	Buffer *Buffer `json:"buffer,omitempty"`
	// Heartbeat says whether one came while the stream was silent.
	Heartbeat string `json:"heartbeat,omitempty"`
	// Cut says after how much silence the stream was cut, and how.
	Cut string `json:"cut,omitempty"`
	// End says whether an end that the server made was seen.
	End string `json:"end,omitempty"`
	// Compressed is the content coding that was put on the response.
	Compressed string `json:"compressed,omitempty"`
	// Lost are headers of the server that did not get through.
	Lost []string `json:"lost,omitempty"`

	code string // of the problem that it was refused with, of Halley's
}

// A Buffer is what holds a stream back.
type Buffer struct {
	// Bytes is how many of the body there must be for any to come, give or take
	// a hundred; 0 if 65,536 do not come.
	Bytes int `json:"bytes"`
	// Freed is set if so many at the start are enough, and all that follows
	// comes at once.
	Freed bool `json:"freed"`
}

// A Verdict sums a transport up.
type Verdict string

const (
	Works   Verdict = "works"
	Late    Verdict = "late"    // everything comes, but not when it should
	Held    Verdict = "held"    // something on the way keeps it
	Refused Verdict = "refused" // the answer is another one
	Fails   Verdict = "fails"   // there is no answer
)

// Transports are what is tried, in the order of the report.
var Transports = []comet.Transport{comet.WebSocket, comet.XHRStreaming, comet.SSE, comet.IFrame, comet.Multipart, comet.LongPolling, comet.JSONP}

func polls(t string) bool { return t == string(comet.LongPolling) || t == string(comet.JSONP) }

// Exit is the status of a command: 0 if a streaming transport works, 1 if only
// polling does, 2 if nothing does.
func (r *Report) Exit() int {
	exit := 2
	for _, t := range r.Transports {
		switch {
		case t.Verdict == Works && !polls(t.Transport):
			return 0
		case t.Verdict == Works:
			exit = 1
		}
	}
	return exit
}

// ms is a duration that is JSON in milliseconds.
type ms time.Duration

// MarshalJSON has microseconds for the last digit.
func (d ms) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(d).Microseconds()) / 1000)
}

func (d ms) String() string {
	switch t := time.Duration(d); {
	case t == 0:
		return "-"
	case t.Abs() < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(t.Microseconds())/1000)
	default:
		return t.Round(time.Millisecond).String()
	}
}

// patient is one look at a server.
type patient struct {
	o       Options
	mount   string
	channel string // that others are below
	plain   *http.Client
	upgrade *http.Client // never HTTP/2, which has no upgrades
	report  *Report
	writes  bool // messages can be published
}

// Run looks at the server whose protocol is mounted at a URL. The error is for
// a URL that is none; all else is in the report.
func Run(ctx context.Context, mount string, o Options) (*Report, error) {
	u, err := url.Parse(mount)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: want http:// or https:// and a host", mount)
	}
	if o.Wait <= 0 {
		o.Wait = 2 * time.Second
	}
	p := &patient{o: o, mount: strings.TrimSuffix(mount, "/"), channel: "doctor/" + strings.ToLower(rand.Text()),
		report: &Report{URL: mount, Transports: []Result{}, Advice: []string{}}}
	p.plain = client(o.TLS, true)
	p.upgrade = client(o.TLS, false)
	defer p.plain.CloseIdleConnections()
	defer p.upgrade.CloseIdleConnections()

	p.info(ctx)
	if p.report.Server.Error == "" {
		p.tryPublishing(ctx)
		p.tryTransports(ctx)
	}
	p.advise()
	return p.report, context.Cause(ctx)
}

// client returns one that takes what comes as it is: no redirects are followed,
// and nothing is decompressed.
func client(config *tls.Config, http2 bool) *http.Client {
	t := &http.Transport{
		Proxy:              http.ProxyFromEnvironment,
		DisableCompression: true,
		TLSClientConfig:    config.Clone(),
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(http2)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request makes a request as a browser would, as far as what is on the way can
// tell.
func (p *patient) request(path string, query url.Values) *http.Request {
	target := p.mount + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequest("GET", target, nil)
	if err != nil {
		panic(err) // the mount was parsed, and the rest is ours
	}
	r.Header = p.header()
	r.Header.Set("Accept-Encoding", "gzip")
	return r
}

func (p *patient) header() http.Header {
	h := http.Header{"User-Agent": {"halley-doctor"}}
	if p.o.Origin != "" {
		h.Set("Origin", p.o.Origin)
	}
	if p.o.Token != "" {
		h.Set("Authorization", "Bearer "+p.o.Token)
	}
	return h
}

// info asks for info, and looks at the answer's headers.
func (p *patient) info(ctx context.Context) {
	server := &p.report.Server
	var body string
	var resp *http.Response
	// The first one has the connection to make.
	for i := range 4 {
		began := time.Now()
		s := start(ctx, p.plain, p.request("/info", nil), nil)
		ended, err, over := s.over(ctx, 5*p.o.Wait)
		s.stop()
		if resp, _ = s.response(ctx, 0); resp == nil || !over {
			server.Error = fmt.Sprintf("no answer within %v", 5*p.o.Wait)
			if err != nil {
				server.Error = err.Error()
			}
			return
		}
		body = s.text()
		if rtt := ms(ended.Sub(began)); i > 0 && (server.RTT == 0 || rtt < server.RTT) {
			server.RTT = rtt
		}
	}
	server.HTTP, server.ALPN, server.Via = versions(resp)
	server.Compressed = resp.Header.Get("Content-Encoding")
	// A Date is cut to seconds, and as old as half of the way.
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		if skew := time.Until(date.Add(500*time.Millisecond)) + time.Duration(server.RTT)/2; skew.Abs() > time.Second {
			server.ClockSkew = ms(skew.Round(time.Second))
		}
	}
	var info struct {
		Protocol  int
		Version   string
		Heartbeat float64
		Cursor    string
	}
	err := json.Unmarshal([]byte(body), &info)
	switch code := problemCode(resp, body); {
	case resp.StatusCode == http.StatusOK && err == nil && info.Protocol > 0:
	case code != "":
		server.Error = fmt.Sprintf("info is answered %d %s by the server: %.200s", resp.StatusCode, code, body)
	case resp.StatusCode/100 == 3:
		server.Error = fmt.Sprintf("info is answered %s, to %s: use that URL", resp.Status, strings.TrimSuffix(resp.Header.Get("Location"), "/info"))
	case resp.StatusCode == http.StatusOK:
		server.Error = fmt.Sprintf("what answers is no Halley server, or the URL is not its mount: %.80q", body)
	default:
		server.Error = fmt.Sprintf("info is answered %s by %s", resp.Status, cmp.Or(server.Via, "something without a name"))
	}
	if server.Error != "" {
		return
	}
	server.Version, server.cursor = info.Version, info.Cursor
	server.Heartbeat = ms(info.Heartbeat * float64(time.Second))
	if p.o.Origin != "" {
		server.Origin = "may not read the answers"
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got == p.o.Origin || got == "*" {
			server.Origin = "may read the answers"
		}
	}
}

// ping asks for info, and returns when that is answered, or has taken too long.
func (p *patient) ping(ctx context.Context) {
	s := start(ctx, p.plain, p.request("/info", nil), nil)
	s.over(ctx, 5*p.o.Wait)
	s.stop()
}

// versions returns what a response shows of who carried it.
func versions(resp *http.Response) (proto, alpn, via string) {
	if resp.TLS != nil {
		alpn = resp.TLS.NegotiatedProtocol
	}
	return resp.Proto, alpn, middle(resp.Header)
}

// signs are headers that carriers add, Halley's server never, and what they
// say if it is not their value.
var signs = []struct{ header, name string }{
	{"Server", ""}, {"Via", ""}, {"X-Served-By", ""}, {"Cf-Ray", "Cloudflare"}, {"X-Amz-Cf-Id", "CloudFront"},
	{"X-Varnish", "Varnish"}, {"X-Envoy-Upstream-Service-Time", "Envoy"}, {"Fly-Request-Id", "Fly"}, {"X-Azure-Ref", "Azure"},
	{"X-Cache", "a cache"}, {"Age", "a cache"},
}

// middle names who shows in a response's headers.
func middle(h http.Header) string {
	var names []string
	for _, s := range signs {
		if v := strings.Join(h.Values(s.header), ", "); v != "" && len(v) < 200 {
			if name := cmp.Or(s.name, v); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// problemCode returns the code of an answer that is a problem of Halley's, ""
// for any other answer.
func problemCode(resp *http.Response, body string) string {
	var problem struct{ Code string }
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal([]byte(body), &problem) != nil {
		return ""
	}
	return problem.Code
}

// tryPublishing finds out whether messages can be published.
func (p *patient) tryPublishing(ctx context.Context) {
	err := p.publish(ctx, p.channel+"/publish", "try")
	problem, ok := errors.AsType[*comet.Problem](err)
	switch {
	case err == nil:
		p.writes, p.report.Publish = true, "works"
	case ok && problem.Code != "":
		p.report.Publish = fmt.Sprintf("refused by the server, %d %s: only what reading shows is checked", problem.Status, problem.Code)
	case ok:
		p.report.Publish = fmt.Sprintf("refused on the way, %d: only what reading shows is checked", problem.Status)
	default:
		p.report.Publish = fmt.Sprintf("fails: %v", err)
	}
}

// publish publishes a text as JSON.
func (p *patient) publish(ctx context.Context, channel, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*p.o.Wait)
	defer cancel()
	data, err := json.Marshal(text)
	if err != nil {
		return err
	}
	c := comet.Client{URL: p.mount, HTTPClient: p.plain, Header: p.header(), Attempts: 1}
	_, err = c.Publish(ctx, comet.Publication{Channel: channel, ContentType: "application/json", Data: data})
	return err
}

// tryTransports tries all of them at the same time.
func (p *patient) tryTransports(ctx context.Context) {
	p.report.Transports = make([]Result, len(Transports))
	var trying sync.WaitGroup
	for i, t := range Transports {
		trying.Go(func() {
			r := &p.report.Transports[i]
			r.Transport = string(t)
			if polls(r.Transport) {
				p.tryPolling(ctx, r)
			} else {
				p.tryStream(ctx, r)
			}
		})
	}
	trying.Wait()
}
