package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// A stream is one request, and what came of its response so far, and when.
type stream struct {
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing comes any more
	// ping returns once something else has gone to the server and back: what is
	// not there by then is not merely slow, as everything may be.
	ping func(context.Context)

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, with each change
	resp    *http.Response
	headers time.Time // when resp came
	body    []byte
	reads   []read
	err     error
	ended   time.Time
}

// A read is some bytes that came together.
type read struct {
	at  time.Time
	end int // in the body
}

// maxBody is as much of a response as is kept: more than anything that is asked
// for.
const maxBody = 1 << 20

// start sends a request and reads the response until ctx ends, or stop is
// called. The ping may be nil.
func start(ctx context.Context, client *http.Client, r *http.Request, ping func(context.Context)) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{began: time.Now(), cancel: cancel, ping: ping, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := s.run(client, r.WithContext(ctx))
		s.change(func() { s.err, s.ended = err, time.Now() })
	}()
	return s
}

func (s *stream) run(client *http.Client, r *http.Request) error {
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// What was upgraded has left the hands of net/http.
	defer context.AfterFunc(r.Context(), func() { resp.Body.Close() })()
	s.change(func() { s.resp, s.headers = resp, time.Now() })
	var body io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	for buf := make([]byte, 64<<10); ; {
		n, err := body.Read(buf)
		if n > 0 {
			s.change(func() {
				s.body = append(s.body, buf[:n]...)
				s.reads = append(s.reads, read{time.Now(), len(s.body)})
			})
		}
		if err != nil || len(s.body) > maxBody {
			return err
		}
	}
}

// change makes a change that those who wait are to see.
func (s *stream) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// stop ends the request, and returns when its goroutine has.
func (s *stream) stop() {
	s.cancel()
	<-s.done
}

// await waits until has, which is called with the stream locked, is true, or
// nothing comes any more, or the time is over. It returns what has does at the
// end.
func (s *stream) await(ctx context.Context, limit time.Duration, has func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.mu.Lock()
		ok, over, changed := has(), !s.ended.IsZero(), s.changed
		s.mu.Unlock()
		if ok || over {
			return ok
		}
		select {
		case <-changed:
		case <-timer.C:
			if s.ping == nil || limit <= 0 {
				return false
			}
			s.ping(ctx)
			limit = 0
			timer.Reset(0)
		case <-ctx.Done():
			return false
		}
	}
}

// found returns when a text had come as a whole, at or after an offset of the
// body, and the number of the read that completed it. The stream is locked.
func (s *stream) found(text string, after int) (at time.Time, number int, ok bool) {
	i := bytes.Index(s.body[min(after, len(s.body)):], []byte(text))
	if i < 0 {
		return time.Time{}, 0, false
	}
	end := after + i + len(text)
	for number, r := range s.reads {
		if r.end >= end {
			return r.at, number, true
		}
	}
	return time.Time{}, 0, false
}

// has waits for a text, at or after an offset of the body.
func (s *stream) has(ctx context.Context, limit time.Duration, text string, after int) (at time.Time, ok bool) {
	ok = s.await(ctx, limit, func() bool {
		var found bool
		at, _, found = s.found(text, after)
		return found
	})
	return at, ok
}

// over waits for the end, and returns when it came and its error, io.EOF for an
// end that is whole.
func (s *stream) over(ctx context.Context, limit time.Duration) (time.Time, error, bool) {
	s.await(ctx, limit, func() bool { return false })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.err, !s.ended.IsZero()
}

// size returns how many bytes of the body have come.
func (s *stream) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.body)
}

// text returns the body that has come.
func (s *stream) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.body)
}

// response returns the response if its headers came in time.
func (s *stream) response(ctx context.Context, limit time.Duration) (*http.Response, time.Time) {
	s.await(ctx, limit, func() bool { return s.resp != nil })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resp, s.headers
}
