package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/halley-comet/halley/comet"
)

const (
	messages   = 5
	maxPadding = 64 << 10 // as much as the protocol has
	// minPrecision is that of a buffer's size, in bytes, where a sixteenth of it
	// is less.
	minPrecision = 64

	heartbeat = `"control":"heartbeat"`
	opened    = `"control":"open"`
)

// subscribe starts a subscription to a transport's own channel. More are
// further parameters.
func (p *patient) subscribe(ctx context.Context, transport, cursor string, more ...string) *stream {
	q := url.Values{"channel": {p.channel + "/" + transport}, "transport": {transport}, "cursor": {cursor}}
	switch comet.Transport(transport) {
	case comet.JSONP, comet.IFrame:
		q.Set("callback", "_")
	case comet.SSE, comet.Multipart:
		q.Set("format", "envelope")
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1]) // #nosec G602 -- they are pairs
	}
	r := p.request("/subscribe", q)
	if transport != string(comet.WebSocket) {
		return start(ctx, p.plain, r, p.ping)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(nonce[:]),
	} {
		r.Header.Set(name, value)
	}
	return start(ctx, p.upgrade, r, p.ping)
}

// accept looks at a response's head. It returns false, with a verdict, if there
// will be no messages.
func (p *patient) accept(ctx context.Context, s *stream, r *Result) bool {
	resp, at := s.response(ctx, p.o.Wait)
	if resp == nil {
		if _, err, over := s.over(ctx, 0); over {
			r.Verdict, r.Detail = Fails, cause(err)
			return false
		}
		if r.Transport == string(comet.WebSocket) {
			r.Verdict, r.Detail = Fails, fmt.Sprintf("no answer within %v", p.o.Wait)
			return false
		}
		return true // even the head is held back
	}
	r.Headers = ms(at.Sub(s.began))
	r.note(resp)
	want := http.StatusOK
	if r.Transport == string(comet.WebSocket) {
		want = http.StatusSwitchingProtocols
	}
	if resp.StatusCode != want {
		s.over(ctx, p.o.Wait)
		r.Verdict = Refused
		if r.code = problemCode(resp, s.text()); r.code != "" {
			r.Detail = fmt.Sprintf("the server answers %d %s", resp.StatusCode, r.code)
		} else {
			r.Detail = fmt.Sprintf("%s answers %s", cmp.Or(r.Via, "something on the way"), resp.Status)
		}
		if r.code == "upgrade-required" {
			r.Detail += ": Upgrade was taken out of the request on the way"
		}
		return false
	}
	return true
}

// note takes from a response what its head shows.
func (r *Result) note(resp *http.Response) {
	r.Status = resp.StatusCode
	r.HTTP, r.ALPN, r.Via = versions(resp)
	r.Compressed = resp.Header.Get("Content-Encoding")
	if resp.StatusCode != http.StatusOK {
		return
	}
	r.Lost = nil
	if !strings.Contains(resp.Header.Get("Cache-Control"), "no-store") {
		r.Lost = append(r.Lost, "Cache-Control")
	}
	if resp.Header.Get("X-Accel-Buffering") != "no" && !polls(r.Transport) {
		r.Lost = append(r.Lost, "X-Accel-Buffering")
	}
}

// told is the code of an error that is told in the body, under status 200.
var told = regexp.MustCompile(`"control":"error",.*?"code":"([a-z-]+)"`)

// refusedInBand sets the verdict if a response's body tells an error.
func refusedInBand(s *stream, r *Result) bool {
	code := told.FindStringSubmatch(s.text())
	if code == nil {
		return false
	}
	r.Verdict, r.code, r.Detail = Refused, code[1], "the server answers "+code[1]
	return true
}

// cause says why there is no answer, without the URL that everybody knows.
func cause(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if err == nil || errors.Is(err, io.EOF) {
		return "the connection was closed"
	}
	return err.Error()
}

// tryStream tries a transport whose response is held open.
func (p *patient) tryStream(ctx context.Context, r *Result) {
	s := p.subscribe(ctx, r.Transport, p.report.Server.cursor)
	defer s.stop()
	if !p.accept(ctx, s, r) {
		return
	}
	openAt, open := s.has(ctx, p.o.Wait, opened, 0)
	if open {
		r.Open = ms(openAt.Sub(s.began))
	} else if _, err, over := s.over(ctx, 0); over {
		if !refusedInBand(s, r) {
			r.Verdict, r.Detail = Fails, "it ended before it had begun: "+cause(err)
		}
		return
	}
	if p.writes {
		p.deliver(ctx, s, r)
	}
	switch {
	case !open || r.Received < r.Messages:
		r.Verdict = Held
		p.measureBuffer(ctx, r)
	case p.isLate(r):
		r.Verdict = Late
		r.Detail = fmt.Sprintf("messages come up to %v later than they should", r.Worst)
		if r.Together > 0 {
			r.Detail = fmt.Sprintf("%d of %d messages came together, up to %v late", r.Together, r.Messages, r.Worst)
		}
	default:
		r.Verdict = Works
	}
	if open {
		p.watch(ctx, s, r)
	}
	p.end(ctx, r)
}

// deliver publishes messages, one after the other, and notes when they come.
func (p *patient) deliver(ctx context.Context, s *stream, r *Result) {
	var marks []string
	var began []time.Time
	missed := 0
	for i := range messages {
		mark := fmt.Sprintf("%s-%d.", r.Transport, i)
		at := time.Now()
		if p.publish(ctx, p.channel+"/"+r.Transport, mark) != nil {
			break
		}
		marks, began = append(marks, mark), append(began, at)
		// What is held back is not waited for each time anew.
		if missed < 2 {
			if _, ok := s.has(ctx, p.o.Wait, mark, 0); !ok {
				missed++
			}
		}
	}
	r.Messages = len(marks)
	if r.Messages == 0 {
		return
	}
	s.has(ctx, p.o.Wait, marks[len(marks)-1], 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	var latencies []time.Duration
	byRead := map[int]int{}
	for i, mark := range marks {
		if at, number, ok := s.found(mark, 0); ok {
			latencies = append(latencies, at.Sub(began[i]))
			byRead[number]++
		}
	}
	for _, n := range byRead {
		if n > 1 {
			r.Together += n
		}
	}
	if r.Received = len(latencies); r.Received > 0 {
		slices.Sort(latencies)
		r.Latency, r.Worst = ms(latencies[len(latencies)/2]), ms(latencies[len(latencies)-1])
	}
}

// isLate tells whether messages took longer than a publish and half a way back
// explain.
func (p *patient) isLate(r *Result) bool {
	return r.Together > 0 || time.Duration(r.Worst) >= p.o.Wait ||
		time.Duration(r.Latency) > 4*time.Duration(p.report.Server.RTT)+p.o.Wait/4
}

// measureBuffer finds out how many bytes it takes for any of a stream to come,
// and whether all that follows comes then.
func (p *patient) measureBuffer(ctx context.Context, r *Result) {
	r.Buffer = &Buffer{}
	comes := func(padding int, limit time.Duration) *stream {
		s := p.subscribe(ctx, r.Transport, "now", "padding", strconv.Itoa(padding))
		if !s.await(ctx, limit, func() bool { return len(s.body) > 0 }) {
			s.stop()
			return nil
		}
		return s
	}
	s := comes(maxPadding, p.o.Wait)
	if s == nil {
		r.Detail = fmt.Sprintf("nothing comes within %v, not even of %d bytes", p.o.Wait, maxPadding)
		return
	}
	high := maxPadding
	for {
		low := 0
		for high-low > max(high/16, minPrecision) {
			middle := (low + high) / 2
			if less := comes(middle, p.o.Wait/2); less != nil {
				s.stop()
				s, high = less, middle
			} else {
				low = middle
			}
		}
		// What was not there in half of the time may only have been slow, and
		// the buffer smaller than that.
		if low == 0 {
			break
		}
		less := comes(low, 2*p.o.Wait)
		if less == nil {
			break
		}
		s.stop()
		s, high = less, low
	}
	defer s.stop()
	if resp, _ := s.response(ctx, 0); resp != nil {
		r.note(resp)
	}
	r.Buffer.Bytes = high
	if p.writes && p.publish(ctx, p.channel+"/"+r.Transport, "after padding.") == nil {
		_, r.Buffer.Freed = s.has(ctx, p.o.Wait, "after padding.", 0)
	}
	r.Detail = fmt.Sprintf("some %d bytes are held back until there are more", high)
	if r.Buffer.Freed {
		r.Detail = fmt.Sprintf("nothing comes before the body has some %d bytes; then all does", high)
	}
}

// patience is how long silent streams are watched, 0 for not at all.
func (p *patient) patience() time.Duration {
	if p.o.Patience != 0 {
		return max(0, p.o.Patience)
	}
	return 2*time.Duration(p.report.Server.Heartbeat) + p.o.Wait
}

// watch waits for a heartbeat on a silent stream, and on until it is cut or
// patience is over.
func (p *patient) watch(ctx context.Context, s *stream, r *Result) {
	patience := p.patience()
	if patience == 0 {
		return
	}
	began, from := time.Now(), s.size()
	interval := 2*time.Duration(p.report.Server.Heartbeat) + p.o.Wait
	at, ok := s.has(ctx, min(patience, interval), heartbeat, from)
	switch {
	case ok:
		r.Heartbeat = "after " + ms(at.Sub(began)).String()
	case patience >= interval:
		r.Heartbeat = "none"
	}
	ended, err, over := s.over(ctx, patience-time.Since(began))
	if !over || ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	silent := ended.Sub(s.reads[len(s.reads)-1].at)
	s.mu.Unlock()
	r.Cut = fmt.Sprintf("after %v, the last %v of it silent: %s", ms(ended.Sub(s.began)), ms(silent), cause(err))
	r.Verdict, r.Detail = Late, "it is cut "+r.Cut
}

// end has the server end a response, where a client can, and looks whether that
// is seen.
func (p *patient) end(ctx context.Context, r *Result) {
	var s *stream
	switch comet.Transport(r.Transport) {
	case comet.IFrame:
		// Its errors are told in the stream, which is over then.
		s = p.subscribe(ctx, r.Transport, "no-cursor-")
		defer s.stop()
	case comet.WebSocket:
		// The server closes on a binary message.
		s = p.subscribe(ctx, r.Transport, p.report.Server.cursor)
		defer s.stop()
		resp, _ := s.response(ctx, p.o.Wait)
		if resp == nil {
			return
		}
		w, ok := resp.Body.(io.Writer)
		if !ok || ws.WriteFrame(w, ws.MaskFrameInPlace(ws.NewBinaryFrame([]byte("x")))) != nil {
			return
		}
	default:
		return
	}
	if at, _, over := s.over(ctx, p.o.Wait); over {
		r.End = "seen after " + ms(at.Sub(s.began)).String()
	} else {
		r.End = "not seen"
	}
}

// cursors finds where the next poll goes on.
var cursors = regexp.MustCompile(`"cursor":"([0-9a-z]+-[0-9]+)"`)

// tryPolling tries a transport whose answers are complete.
func (p *patient) tryPolling(ctx context.Context, r *Result) {
	cursor := p.report.Server.cursor
	first := p.subscribe(ctx, r.Transport, cursor, "timeout", "0")
	defer first.stop()
	if !p.accept(ctx, first, r) {
		return
	}
	at, err, over := first.over(ctx, p.o.Wait)
	found := cursors.FindStringSubmatch(first.text())
	switch {
	case !over:
		r.Verdict, r.Detail = Fails, fmt.Sprintf("a poll that is not to be held is not answered within %v", p.o.Wait)
		return
	case refusedInBand(first, r):
		return
	case found == nil || !errors.Is(err, io.EOF):
		r.Verdict, r.Detail = Fails, "the answer is not whole: "+cause(err)
		return
	}
	r.Open = ms(at.Sub(first.began))
	r.End = "seen after " + r.Open.String()
	r.Verdict = Works
	if p.writes {
		p.deliverPolls(ctx, r, found[1])
	}
	if r.Verdict == Works {
		p.watchPoll(ctx, r)
	}
}

// deliverPolls publishes messages, each while a poll is held.
func (p *patient) deliverPolls(ctx context.Context, r *Result, cursor string) {
	var latencies []time.Duration
	for i := range messages {
		s := p.subscribe(ctx, r.Transport, cursor)
		mark := fmt.Sprintf("%s-%d.", r.Transport, i)
		began := time.Now()
		if p.publish(ctx, p.channel+"/"+r.Transport, mark) != nil {
			s.stop()
			break
		}
		r.Messages++
		at, ok := s.has(ctx, p.o.Wait, mark, 0)
		_, _, over := s.over(ctx, p.o.Wait)
		found := cursors.FindStringSubmatch(s.text())
		s.stop()
		if !ok || !over || found == nil {
			r.Verdict, r.Detail = Held, fmt.Sprintf("the answer with a message does not come within %v", p.o.Wait)
			break
		}
		cursor = found[1]
		latencies = append(latencies, at.Sub(began))
	}
	if r.Received = len(latencies); r.Received > 0 {
		slices.Sort(latencies)
		r.Latency, r.Worst = ms(latencies[len(latencies)/2]), ms(latencies[len(latencies)-1])
	}
	if r.Verdict == Works && p.isLate(r) {
		r.Verdict, r.Detail = Late, fmt.Sprintf("messages come up to %v later than they should", r.Worst)
	}
}

// watchPoll holds a poll that nothing comes for, and looks whether it is cut.
func (p *patient) watchPoll(ctx context.Context, r *Result) {
	patience := min(p.patience(), time.Minute) // the longest poll
	if patience == 0 {
		return
	}
	s := p.subscribe(ctx, r.Transport, "now", "timeout", strconv.FormatFloat(patience.Seconds(), 'f', 3, 64))
	defer s.stop()
	at, err, over := s.over(ctx, patience+p.o.Wait)
	if ctx.Err() != nil {
		return
	}
	if over && errors.Is(err, io.EOF) && cursors.MatchString(s.text()) {
		return
	}
	held := "never answered"
	if over {
		held = "after " + ms(at.Sub(s.began)).String() + ": " + cause(err)
		if resp, _ := s.response(ctx, 0); resp != nil && resp.StatusCode != http.StatusOK {
			_, _, via := versions(resp)
			held = fmt.Sprintf("after %v: %s answers %s", ms(at.Sub(s.began)), cmp.Or(via, "something on the way"), resp.Status)
		}
	}
	r.Cut = held
	r.Verdict, r.Detail = Late, "a silent poll is cut, "+held
}
