package halley

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

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
func readBody(w http.ResponseWriter, r *http.Request, max int64) ([]byte, *wire.Problem) {
	tooLarge := wire.NewProblem(wire.TooLarge, fmt.Sprintf("the body may have at most %d bytes", max))
	if r.ContentLength > max {
		return nil, tooLarge
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, 64<<10)) + bytes.MinRead)
	}
	_, err := io.Copy(&buf, http.MaxBytesReader(w, r.Body, max))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, wire.NewProblem(wire.InvalidMessage, "the body ended early")
	}
	return buf.Bytes(), nil
}
