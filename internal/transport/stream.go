package transport

import (
	"bytes"
	"context"
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

	t.writeHead(w)
	_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout)) // as above
	if _, err := w.Write(t.head(padding)); err != nil || rc.Flush() != nil {
		return
	}
	for {
		// HTTP/2 resets a stream when its deadline passes, whether or not it is
		// being written to then.
		_ = rc.SetWriteDeadline(time.Time{})
		f, err := conn.Next(ctx)
		_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
		if err != nil {
			if r.Context().Err() == nil && ctx.Err() != nil {
				_, _ = w.Write(t.tail) // the limit; if the client is gone, it is over as well
			}
			return
		}
		for _, it := range f.Items {
			if t.prefix != nil {
				if _, err := w.Write(t.prefix(it)); err != nil {
					return
				}
			}
			if _, err := w.Write(it.Bytes); err != nil {
				return
			}
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

func constant(head string) func(int) []byte {
	return func(padding int) []byte {
		return append([]byte(head), bytes.Repeat([]byte{'\n'}, max(0, padding-len(head)))...)
	}
}
