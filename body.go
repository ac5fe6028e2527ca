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
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, 64<<10)) + bytes.MinRead)
	}
	slow := slowReader{http.MaxBytesReader(w, r.Body, max), http.NewResponseController(w), h.opts.WriteTimeout}
	_, err := io.Copy(&buf, slow)
	slow.end()
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, wire.NewProblem(wire.InvalidMessage, "the body ended early")
	}
	return buf.Bytes(), nil
}

// A slowReader reads from a client that must not pause for longer than a
// time-out.
type slowReader struct {
	r       io.Reader
	rc      *http.ResponseController
	timeout time.Duration
}

func (s slowReader) Read(p []byte) (int, error) {
	_ = s.rc.SetReadDeadline(time.Now().Add(s.timeout)) // where it is supported
	return s.r.Read(p)
}

// end lifts the deadline, which would end the request's context.
func (s slowReader) end() { _ = s.rc.SetReadDeadline(time.Time{}) }
