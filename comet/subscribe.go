package comet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// A Transport is a way in which messages are framed on a response.
type Transport string

// The protocol's transports. All carry the same messages and the same cursors.
const (
	SSE          Transport = "sse"
	XHRStreaming Transport = "xhr-streaming" // newline-delimited JSON
	WebSocket    Transport = "websocket"
	LongPolling  Transport = "long-polling"
	JSONP        Transport = "jsonp"
	IFrame       Transport = "iframe"
	Multipart    Transport = "multipart"
)

// Transports lists all of them, the default first.
var Transports = []Transport{SSE, XHRStreaming, WebSocket, LongPolling, JSONP, IFrame, Multipart}

// Options say what to subscribe to and how.
type Options struct {
	// Channels are names and patterns, at least one: a pattern's last segment
	// is "*", for exactly one segment, or "**", for one or more.
	Channels []string
	// Transport is empty for SSE.
	Transport Transport
	// Raw asks for sse's raw format, as an EventSource sees it. See [Message]
	// for what it does not tell.
	Raw bool
	// Cursor is where to start: that of an event or of a ServerInfo,
	// "earliest", or empty for now.
	Cursor string
	// Hold is for how long a long poll is held; 0 means 25 seconds. Servers
	// may hold it for less.
	Hold time.Duration
	// MaxFrame bounds the size of one envelope, or of one poll's answer, in
	// bytes; 0 means 32 MiB. A larger one is a fault that coming back does not
	// mend, so this must be above what the server lets publish.
	MaxFrame int
	// Retrying, if not nil, is told of each fault and of when the subscription
	// tries again. It is called between events, never at the same time as the
	// loop's body.
	Retrying func(err error, delay time.Duration)
}

// Subscribe yields the messages of some channels, and the controls between
// them, for as long as the loop over it goes on.
//
// It ends with an error in one of two cases, and that error is the last thing
// it yields: ctx ended, or the server refused for good, which is a [*Problem].
// One with the code "too-slow" is such an end too: the caller reloads what the
// messages would have told, and begins again from now.
// After any other fault (a lost connection, one that was silent for two
// heartbeats, an end without a say-so, a server that is away) it comes back
// from its cursor, for ever. The cursor lives in the events: one that begins
// again with Options.Cursor set to the last Event.Cursor misses nothing.
//
// The connection is closed when the loop ends. While the loop's body runs
// nothing is read: a slow body makes the server cut the connection, never the
// client grow.
func (c *Client) Subscribe(ctx context.Context, o Options) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := &subscription{client: c, o: o, cursor: o.Cursor}
		err := s.check()
		if err == nil {
			err = s.run(ctx, func(e Event) bool { return yield(e, nil) })
		}
		if !errors.Is(err, errStopped) {
			yield(Event{}, err)
		}
	}
}

// startTimeout is how long a connection may be silent before the server has
// said what its heartbeat is, and a poll beyond its time.
const startTimeout = 30 * time.Second

// tooSlow is the code of a subscription that was cut because its loop did not
// keep up, in channels where the server wants the state loaded again.
const tooSlow = "too-slow"

var (
	errSilent  = errors.New("comet: nothing came for two heartbeat intervals")
	errStopped = errors.New("comet: the loop was left")
	errIdle    = errors.New("comet: a poll was answered at once, with nothing")
)

// subscription is one run of a loop over Subscribe.
type subscription struct {
	client *Client
	o      Options

	cursor   string
	floor    time.Duration // the server's wish for the first backoff bound
	silence  time.Duration // a connection is dead after so much of it
	attempt  int           // faults since something came
	answered bool          // the last poll was answered
}

func (s *subscription) check() error {
	if len(s.o.Channels) == 0 {
		return errors.New("comet: Options.Channels is empty")
	}
	if s.o.Transport == "" {
		s.o.Transport = SSE
	}
	if !slices.Contains(Transports, s.o.Transport) {
		return fmt.Errorf("comet: Options.Transport %q is none of %q", s.o.Transport, Transports)
	}
	if s.o.Raw && s.o.Transport != SSE {
		return fmt.Errorf("comet: Options.Raw is for sse, not for %s", s.o.Transport)
	}
	if s.o.Hold <= 0 {
		s.o.Hold = 25 * time.Second
	}
	if s.o.MaxFrame <= 0 {
		s.o.MaxFrame = 32 << 20
	}
	// What the client itself must be able to ask, before it asks for ever.
	_, err := s.client.request(context.Background(), "GET", "/subscribe", nil, nil)
	return err
}

// polls tells whether each answer is complete in itself.
func (s *subscription) polls() bool {
	return s.o.Transport == LongPolling || s.o.Transport == JSONP
}

// run connects again and again. It returns why it ended.
func (s *subscription) run(ctx context.Context, yield func(Event) bool) error {
	for {
		err := s.connect(ctx, yield)
		if errors.Is(err, errStopped) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			continue
		}
		var wait time.Duration
		var told *comeBack
		switch p, ok := errors.AsType[*Problem](err); {
		case errors.Is(err, errIdle):
			wait = s.client.Backoff.delay(0, 0)
		case ok && (!p.Temporary() || p.Code == tooSlow):
			return p
		default:
			// What the server asks for, it may ask of all its clients alike.
			wait = s.client.Backoff.delay(s.attempt, s.floor)
			if errors.As(err, &told) {
				wait += told.delay
				err = told.cause
			}
			s.attempt++
			s.answered = false
			if err != nil && s.o.Retrying != nil {
				s.o.Retrying(err, wait)
			}
		}
		if sleep(ctx, wait) != nil {
			return context.Cause(ctx)
		}
	}
}

// comeBack is a server's word on when to come back, at the earliest.
type comeBack struct {
	delay time.Duration
	cause error // nil for a reconnect control, which is no fault
}

func (c *comeBack) Error() string { return fmt.Sprintf("comet: told to come back in %v", c.delay) }
func (c *comeBack) Unwrap() error { return c.cause }

// connect runs one connection, or one poll. It returns nil after a poll that
// was answered in order, and otherwise what ended the connection.
func (s *subscription) connect(ctx context.Context, yield func(Event) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.silence = startTimeout
	if s.polls() {
		s.silence += s.o.Hold
	}
	// The watchdog counts only while the client waits for the server.
	watchdog := time.AfterFunc(s.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	fault := func(err error) error {
		if errors.Is(context.Cause(ctx), errSilent) {
			return errSilent
		}
		return err
	}

	if s.polls() && (s.cursor == "" || s.cursor == "now") {
		// A poll without a cursor would lose what comes before the next.
		info, err := s.client.infoOnce(ctx)
		if err != nil {
			return fault(err)
		}
		s.cursor = info.Cursor
		watchdog.Reset(s.silence)
	}
	asked := time.Now()
	resp, err := s.open(ctx)
	watchdog.Stop()
	if err != nil {
		return fault(err)
	}
	defer resp.Body.Close()
	p, err := s.parser(resp)
	if err != nil {
		return err
	}
	h := &handler{subscription: s, yield: yield, asked: asked}
	if rw, ok := resp.Body.(io.ReadWriter); ok && s.o.Transport == WebSocket {
		h.pong = rw
		// The transport lets go of a connection that was upgraded.
		defer context.AfterFunc(ctx, func() { resp.Body.Close() })()
		defer writeFrame(rw, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))
	}
	buf := make([]byte, 32<<10)
	for {
		watchdog.Reset(s.silence)
		n, readErr := resp.Body.Read(buf)
		watchdog.Stop()
		frames, err := p.feed(buf[:n])
		if err := h.handle(frames); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if readErr == io.EOF {
			frames, err := p.end()
			if err := h.handle(frames); err != nil {
				return err
			}
			return err
		}
		if readErr != nil {
			return fault(fmt.Errorf("comet: the stream was cut: %w", readErr))
		}
	}
}

// open asks for the response that carries the messages.
func (s *subscription) open(ctx context.Context) (*http.Response, error) {
	query := url.Values{"channel": s.o.Channels, "transport": {string(s.o.Transport)}}
	if s.cursor != "" {
		query.Set("cursor", s.cursor)
	}
	switch s.o.Transport {
	case LongPolling, JSONP:
		query.Set("timeout", strconv.FormatFloat(s.o.Hold.Seconds(), 'f', -1, 64))
		if s.o.Transport == JSONP {
			query.Set("callback", jsonpCallback)
		}
	case IFrame:
		query.Set("callback", jsonpCallback)
		query.Set("padding", "0")
	case SSE, Multipart:
		query.Set("format", "envelope")
		if s.o.Raw {
			query.Set("format", "raw")
		}
	}
	method, form := "GET", ""
	if s.o.Transport != WebSocket && len(query.Encode()) > maxQuery {
		method, form, query = "POST", query.Encode(), nil
	}
	r, err := s.client.request(ctx, method, "/subscribe", query, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	want, checkAnswer := http.StatusOK, func(*http.Response) error { return nil }
	if s.o.Transport == WebSocket {
		want, checkAnswer = http.StatusSwitchingProtocols, upgrade(r)
	}
	resp, err := s.client.send(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		defer resp.Body.Close()
		p := readProblem(resp)
		if p.Status < 400 {
			return nil, fmt.Errorf("comet: server answered %d where %d was due", p.Status, want)
		}
		if after := retryAfter(resp); after > 0 && p.Temporary() {
			return nil, &comeBack{delay: after, cause: p}
		}
		return nil, p
	}
	if err := checkAnswer(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// maxQuery is the length of a query, in bytes, from which a subscription is
// asked for by POST: proxies bound the length of a request's first line.
const maxQuery = 2000

// parser returns the parser of a response, if that is what was asked for.
func (s *subscription) parser(resp *http.Response) (parser, error) {
	if s.o.Transport == WebSocket {
		return &frameParser{max: s.o.MaxFrame}, nil
	}
	contentType := resp.Header.Get("Content-Type")
	media, params, _ := mime.ParseMediaType(contentType)
	want := map[Transport]string{
		SSE: "text/event-stream", XHRStreaming: "application/x-ndjson", LongPolling: "application/json",
		JSONP: "text/javascript", IFrame: "text/html", Multipart: "multipart/x-mixed-replace",
	}[s.o.Transport]
	if media != want {
		return nil, fmt.Errorf("comet: answer of type %.80q, want %s", contentType, want)
	}
	switch s.o.Transport {
	case SSE:
		p := &sseParser{max: s.o.MaxFrame, raw: s.o.Raw}
		if only := s.o.Channels[0]; len(s.o.Channels) == 1 && !strings.HasSuffix(only, "*") {
			p.channel = only
		}
		return p, nil
	case XHRStreaming:
		return &lineParser{max: s.o.MaxFrame}, nil
	case IFrame:
		return &iframeParser{max: s.o.MaxFrame}, nil
	case Multipart:
		if params["boundary"] == "" {
			return nil, fmt.Errorf("comet: answer of type %.80q: no boundary", contentType)
		}
		return newMultipartParser(params["boundary"], s.o.MaxFrame), nil
	case JSONP:
		return &jsonpParser{pollParser{max: s.o.MaxFrame}}, nil
	}
	return &pollParser{max: s.o.MaxFrame}, nil
}

// handler deals with the frames of one connection.
type handler struct {
	*subscription
	yield func(Event) bool
	asked time.Time
	pong  io.Writer // nil unless a WebSocket
	told  bool      // something was yielded
}

// handle yields the frames' events. An error ends the connection.
func (h *handler) handle(frames []frame) error {
	for _, f := range frames {
		if h.polls() && !h.answered && f.problem == nil {
			h.answered = true
			if !h.yield(Event{Control: Open, Cursor: h.cursor}) {
				return errStopped
			}
		}
		switch {
		case f.problem != nil:
			return f.problem
		case f.retry > 0:
			h.floor = f.retry
			continue
		case f.ping != nil:
			if h.pong == nil {
				continue
			}
			if err := writeFrame(h.pong, ws.NewPongFrame(f.ping)); err != nil {
				return err
			}
			continue
		case f.polled:
			if err := h.endPoll(f.Event); err != nil {
				return err
			}
			continue
		case f.Cursor == "", // reconnect, or a poll's gap
			f.Control == Open && h.gapDue(f.Cursor):
			f.Cursor = h.cursor
		}
		h.told = true
		h.cursor = f.Cursor
		switch f.Control {
		case Open:
			h.silence = startTimeout
			if f.Heartbeat > 0 {
				h.silence = 2 * f.Heartbeat
			}
		case Gap:
		default:
			h.attempt = 0
		}
		if !h.yield(f.Event) {
			return errStopped
		}
		if f.Control == Reconnect {
			return &comeBack{delay: f.Delay}
		}
	}
	return nil
}

// gapDue tells whether a gap must follow an open with the id: it does where the
// server starts elsewhere than was asked. Until that gap is there, a cut must
// bring the client back to its own cursor, so that the gap is told again.
func (h *handler) gapDue(id string) bool {
	switch h.cursor {
	case "", "now", "earliest":
		return false
	}
	return h.cursor != id
}

// endPoll deals with the cursor at the end of a poll's answer, which is news
// only if it is not that of the last message.
func (h *handler) endPoll(e Event) error {
	h.attempt = 0
	if e.Cursor != h.cursor || !h.told {
		h.cursor = e.Cursor
		if !h.yield(e) {
			return errStopped
		}
	}
	// A server that holds nothing (it is about to stop, say) must not be asked
	// as fast as it answers.
	if !h.told && time.Since(h.asked) < min(time.Second, h.o.Hold/2) {
		return errIdle
	}
	return nil
}
