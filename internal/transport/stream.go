package transport

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// A stream is how a response that is held open is written.
type stream struct {
	transport   string
	contentType string
	framing     pump.Framing
	// header sets what else the response's head has; nil for nothing.
	header func(http.Header)
	// head returns what the body begins with, at least so many bytes of it.
	head func(padding int) []byte
	// tail is what the body ends with.
	tail []byte
	// prefix returns what is to be written before a message, for the one framing
	// that depends on what went before: the content type of the message that was
	// written last. It returns nil for nothing.
	prefix func(contentType string, m *engine.Message) []byte
	// limit ends the stream after a time; 0 never does.
	limit time.Duration
	// silent streams have no heartbeats.
	silent bool
}

// kind returns what the stream has in common with others of its transport.
func (t *stream) kind() *pump.Kind {
	return &pump.Kind{Framing: t.framing, Class: Class(t.transport), Silent: t.silent, Limit: t.limit}
}

// serveStream serves a stream until one side ends it, or returns true if it
// goes on by itself.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, t *stream, padding int, o pump.ConnOptions) (parked bool) {
	if s.mayPark(w, r) {
		if conn, _, _, err := hijack(w); err == nil {
			return s.parkStream(conn, w.Header(), t, padding, o)
		}
	}
	if !can[http.Flusher](w) {
		s.Logger.Error("halley: a handler around the hub buffers responses: it must pass on http.Flusher", "writer", fmt.Sprintf("%T", w))
		p := wire.NewProblem(wire.Internal, "the server cannot stream here")
		s.refused(p)
		p.Write(w)
		return false
	}
	// The embedder's time-outs are for requests that are answered at once.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // where it is not supported, there is none
	o.Kind = s.kinds[t.framing.Slot()]
	conn := s.Pump.Join(o)
	defer conn.Leave()
	body := s.bodyWriter(w)
	defer body.end()

	t.setHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	body.extend() // there may be nothing to write yet but headers
	if _, err := body.Write(t.head(padding)); err == nil {
		s.writeStream(r.Context(), body, conn, t.prefixWriter(false), t.tail)
	}
	return false
}

// writeStream writes what a connection gets, and tail after it.
func (s *Server) writeStream(ctx context.Context, body *bodyWriter, conn *pump.Conn, prefix func(pump.Item) []byte, tail []byte) {
	for body.flush() == nil {
		// HTTP/2 resets a stream when its deadline passes, whether or not it is
		// being written to then.
		body.deadline.clear()
		f, err := conn.Next(ctx)
		body.extend()
		if err != nil {
			return
		}
		for _, it := range f.Items {
			if b := prefix(it); b != nil {
				if _, err := body.Write(b); err != nil {
					return
				}
			}
			if _, err := body.Write(it.Bytes); err != nil {
				return
			}
		}
		if f.Last {
			_, _ = body.Write(tail) // it is over in any case
			_ = body.flush()
			return
		}
	}
}

// prefixWriter returns what is to be written before each item of one stream.
func (t *stream) prefixWriter(chunks bool) func(pump.Item) []byte {
	announced := ""
	return func(it pump.Item) []byte {
		if t.prefix == nil || it.Message == nil || len(it.Bytes) == 0 {
			return nil
		}
		b := t.prefix(announced, it.Message)
		announced = it.Message.ContentType
		if chunks {
			return appendChunk(nil, b)
		}
		return b
	}
}

func (t *stream) setHeader(h http.Header) {
	h.Set("Content-Type", t.contentType)
	streamHeaders(h)
	if t.header != nil {
		t.header(h)
	}
}

// refuse writes a stream that says why it is none.
func (t *stream) refuse(w http.ResponseWriter, c *wire.Control) {
	t.setHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	body := append(t.head(0), t.framing.AppendControl(nil, c)...)
	_, _ = w.Write(append(body, t.tail...)) // the client is told or is gone
}

// pad returns as many of a byte as body is short of n.
func pad(body string, n int, with string) string {
	return strings.Repeat(with, max(0, n-len(body)))
}
