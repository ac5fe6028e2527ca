package halley

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/halley-comet/halley/internal/wire"
)

func mediaType(contentType string) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	return t
}

// readBody reads a request's body, up to max bytes.
func (h *Hub) readBody(w http.ResponseWriter, r *http.Request, max int64) ([]byte, *wire.Problem) {
	tooLarge := wire.NewProblem(wire.TooLarge, fmt.Sprintf("the body may have at most %d bytes", max))
	if r.ContentLength > max {
		return nil, tooLarge
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 { // which it may only say
		buf.Grow(int(min(r.ContentLength, 4<<10)) + bytes.MinRead)
	}
	slow := &slowReader{
		r: http.MaxBytesReader(w, r.Body, max), rc: http.NewResponseController(w),
		timeout: h.opts.WriteTimeout, end: time.Now().Add(h.opts.WriteTimeout),
	}
	_, err := io.Copy(&buf, slow)
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, wire.NewProblem(wire.InvalidMessage, "the body ended early")
	}
	slow.lift()
	return buf.Bytes(), nil
}

// bodyRate is how many bytes a second a body must bring, on the whole: a client
// that sends a byte now and then would hold its request for ever.
const bodyRate = 1 << 10

// A slowReader reads from a client that must not pause for longer than a
// time-out, nor take much longer in all than its bytes need.
type slowReader struct {
	r       io.Reader
	rc      *http.ResponseController
	timeout time.Duration
	end     time.Time // for what has been read; more moves it
}

func (s *slowReader) Read(p []byte) (int, error) {
	deadline := time.Now().Add(s.timeout)
	if s.end.Before(deadline) {
		deadline = s.end
	}
	_ = s.rc.SetReadDeadline(deadline) // where it is supported
	n, err := s.r.Read(p)
	s.end = s.end.Add(time.Duration(n) * time.Second / bodyRate)
	return n, err
}

// lift lifts the deadline, which would end the context of a request that was
// read.
func (s *slowReader) lift() { _ = s.rc.SetReadDeadline(time.Time{}) }
