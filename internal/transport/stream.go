package transport

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// A stream is how a response that is held open is written.
type stream struct {
	contentType string
	framing     pump.Framing
	// header sets what else the response's head has; nil for nothing.
	header func(http.Header)
	// head returns what the body begins with, at least so many bytes of it.
	head func(padding int) []byte
	// tail is what the body ends with.
	tail []byte
	// prefix returns what is to be written before an item, for the one framing
	// that depends on what went before; nil for nothing.
	prefix func(pump.Item) []byte
	// limit ends the stream after a time; 0 never does.
	limit time.Duration
	// silent streams have no heartbeats.
	silent bool
}

// serveStream writes a stream until one side ends it.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, t *stream, padding int, o pump.ConnOptions) {
	if !can[http.Flusher](w) {
		s.Logger.Error("halley: a handler around the hub buffers responses: it must pass on http.Flusher", "writer", fmt.Sprintf("%T", w))
		wire.NewProblem(wire.Internal, "the server cannot stream here").Write(w)
		return
	}
	ctx := r.Context()
	rc := http.NewResponseController(w)
	// The embedder's time-outs are for requests that are answered at once.
	_ = rc.SetReadDeadline(time.Time{}) // where it is not supported, there is none
	o.Framing, o.Silent = t.framing, t.silent
	conn := s.Pump.Join(o)
	defer conn.Leave()
	if t.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.limit)
		defer cancel()
	}
	body := s.bodyWriter(w)
	defer body.end()

	t.writeHead(w)
	body.extend() // there may be nothing to write yet but headers
	if _, err := body.Write(t.head(padding)); err != nil || rc.Flush() != nil {
		return
	}
	for {
		// HTTP/2 resets a stream when its deadline passes, whether or not it is
		// being written to then.
		_ = rc.SetWriteDeadline(time.Time{})
		f, err := conn.Next(ctx)
		body.extend()
		if err != nil {
			if r.Context().Err() == nil && ctx.Err() != nil {
				_, _ = w.Write(t.tail) // the limit; if the client is gone, it is over as well
			}
			return
		}
		if t.writeItems(body, f.Items) != nil {
			return
		}
		if f.Last {
			_, _ = w.Write(t.tail) // it is over in any case
			return
		}
		if rc.Flush() != nil {
			return
		}
	}
}

func (t *stream) writeItems(w io.Writer, items []pump.Item) error {
	for _, it := range items {
		if t.prefix != nil {
			if _, err := w.Write(t.prefix(it)); err != nil {
				return err
			}
		}
		if _, err := w.Write(it.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func (t *stream) writeHead(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", t.contentType)
	streamHeaders(h)
	if t.header != nil {
		t.header(h)
	}
	w.WriteHeader(http.StatusOK)
}

// refuse writes a stream that says why it is none.
func (t *stream) refuse(w http.ResponseWriter, c *wire.Control) {
	t.writeHead(w)
	body := append(t.head(0), t.framing.AppendControl(nil, c)...)
	_, _ = w.Write(append(body, t.tail...)) // the client is told or is gone
}

// pad returns as many of a byte as body is short of n.
func pad(body string, n int, with string) string {
	return strings.Repeat(with, max(0, n-len(body)))
}
