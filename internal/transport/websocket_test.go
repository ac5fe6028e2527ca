package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// newWebSocketServer makes a server for websocket alone.
func newWebSocketServer(t testing.TB, frameLimit int) (*Server, engine.Engine) {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := pump.New(log, pump.Options{Workers: 1})
	t.Cleanup(func() {
		p.Close()
		_ = log.Close() // it returns nil
	})
	return New(Options{
		Pump: p, WriteTimeout: 10 * time.Second, FrameLimit: frameLimit,
		Commands: Commands{MaxChannels: 10, Publish: func(ctx context.Context, _ *pump.Lease, raw json.RawMessage) (engine.Cursor, *wire.Problem) {
			if !json.Valid(raw) || bytes.Contains(raw, []byte("no")) {
				return engine.Cursor{}, wire.NewProblem(wire.InvalidMessage, "no")
			}
			r, err := log.Append(ctx, engine.Batch{Messages: []engine.Message{{Channel: "a", ContentType: "application/json", Data: raw}}})
			if err != nil {
				t.Error(err)
			}
			return r.First, nil
		}, Subscribe: func(*pump.Lease, []string) *wire.Problem { return nil }},
		Gone: func() {},
	}), log
}

// A client that is told why it is not read any more can read that: if there
// were bytes of its own unread, the connection would be reset at once.
func TestWebSocketClosesInOrder(t *testing.T) {
	s, log := newWebSocketServer(t, 1000)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(w, r, &Request{Transport: WebSocket, Channels: []string{"a"}}, log.End(), nil)
	}))
	defer ts.Close()
	for range 20 {
		c, err := net.Dial("tcp", ts.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, handshake); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		if _, err := readFrame(br); err != nil { // open
			t.Fatal(err)
		}
		if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewTextFrame(make([]byte, 8<<20)))); err != nil {
			t.Fatal(err)
		}
		f, err := readFrame(br)
		if err != nil || f.Header.OpCode != ws.OpClose {
			t.Fatalf("got %+v, %v, want a close frame", f.Header, err)
		}
		if code, reason := ws.ParseCloseFrameData(f.Payload); code != ws.StatusMessageTooBig || reason != "at most 1000 bytes" {
			t.Errorf("close %d %q, want 1009", code, reason)
		}
		c.Close()
	}
}

const handshake = "GET /comet/subscribe?transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// A memoryConn is a connection that has all of a client's bytes already.
type memoryConn struct {
	net.Conn
	in      *bytes.Reader
	written bytes.Buffer // by one goroutine at a time, under the connection's lock
}

func (c *memoryConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *memoryConn) Write(p []byte) (int, error)      { return c.written.Write(p) }
func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// hijacked is a ResponseWriter whose connection is taken.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// FuzzWebSocket holds that whatever a client sends, the server answers with
// frames as the protocol has them, ends with the connection and holds no more
// than it may.
func FuzzWebSocket(f *testing.F) {
	frame := func(h ws.Header, payload string) []byte {
		h.Length = int64(len(payload))
		var b bytes.Buffer
		fr := ws.Frame{Header: h, Payload: []byte(payload)}
		if h.Masked {
			fr = ws.MaskFrameWith(fr, [4]byte{1, 2, 3, 4})
		}
		if err := ws.WriteFrame(&b, fr); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	text := func(payload string) []byte {
		return frame(ws.Header{Fin: true, OpCode: ws.OpText, Masked: true}, payload)
	}
	f.Add(bytes.Join([][]byte{
		text(`{"subscribe":["a","b/**"],"ref":1}`), text(`{"publish":{"data":1},"ref":"x"}`), text(`{"unsubscribe":["a"],"ref":-1.5e3}`),
		text(`{"publish":"no"}`), text(`{"subscribe":["a//b"]}`), text(`nonsense`), text(`{"ref":{}}`),
		frame(ws.Header{Fin: true, OpCode: ws.OpPing, Masked: true}, "ping"),
		frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, "\x03\xe8bye"),
	}, nil))
	f.Add(bytes.Join([][]byte{
		frame(ws.Header{OpCode: ws.OpText, Masked: true}, `{"publish":`),
		frame(ws.Header{Fin: true, OpCode: ws.OpPing, Masked: true}, "between"),
		frame(ws.Header{Fin: true, OpCode: ws.OpContinuation, Masked: true}, `{}}`),
		frame(ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true}, "x"),
	}, nil))
	f.Add(frame(ws.Header{Fin: true, OpCode: ws.OpText}, "not masked"))
	f.Add(text("\xff"))
	f.Add(text(strings.Repeat("x", 5000)))
	f.Add([]byte{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{0x8f, 0x80, 0, 0, 0, 0})
	f.Add([]byte{0xf1, 0x80, 0, 0, 0, 0})

	s, log := newWebSocketServer(f, 1000)
	r := httptest.NewRequest("GET", "/", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(name, value)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &memoryConn{in: bytes.NewReader(in)}
		s.Serve(hijacked{httptest.NewRecorder(), c}, r, &Request{Transport: WebSocket}, log.End(), nil)
		br := bufio.NewReader(&c.written)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("handshake: %v, %v", resp, err)
		}
		frames := 0
		for closed := false; ; frames++ {
			f, err := readFrame(br)
			if err == io.EOF {
				break
			}
			if err != nil || closed {
				t.Fatalf("frame %d: %+v, %v, closed is %v", frames, f.Header, err, closed)
			}
			if err := ws.CheckHeader(f.Header, ws.StateClientSide); err != nil || !f.Header.Fin {
				t.Fatalf("frame %d: %+v, %v", frames, f.Header, err)
			}
			switch f.Header.OpCode {
			case ws.OpText:
				if !json.Valid(f.Payload) || !utf8.Valid(f.Payload) || f.Payload[0] != '{' {
					t.Errorf("frame %d: %q", frames, f.Payload)
				}
			case ws.OpClose:
				closed = true
				code, reason := ws.ParseCloseFrameData(f.Payload)
				if err := ws.CheckCloseFrameData(code, reason); err != nil {
					t.Errorf("close %d %q: %v", code, reason, err)
				}
			}
		}
		// A frame of a client has six bytes at least; its publish may be
		// answered and come back.
		if frames > 3+2*len(in)/6 {
			t.Errorf("%d frames for %d bytes", frames, len(in))
		}
	})
}

// A message that is too large is answered under its ref before the close.
func TestWebSocketTooLargePublish(t *testing.T) {
	s, log := newWebSocketServer(t, 1000)
	s.Commands.Publish = func(context.Context, *pump.Lease, json.RawMessage) (engine.Cursor, *wire.Problem) {
		return engine.Cursor{}, wire.NewProblem(wire.TooLarge, "too large")
	}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(w, r, &Request{Transport: WebSocket, Channels: []string{"a"}}, log.End(), nil)
	}))
	defer ts.Close()
	for range 200 {
		c, err := net.Dial("tcp", ts.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		frame := ws.MaskFrame(ws.NewTextFrame([]byte(`{"publish":{"channel":"a","data":1},"ref":7}`)))
		if _, err := io.WriteString(c, handshake); err != nil {
			t.Fatal(err)
		}
		if err := ws.WriteFrame(c, frame); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		if _, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range 3 {
			f, err := readFrame(br)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(f.Payload[:min(40, len(f.Payload))]))
		}
		if !strings.Contains(got[0], "open") || !strings.HasPrefix(got[1], `{"control":"error","ref":7,"status":413`) || !strings.HasPrefix(got[2], "\x03\xf1") {
			t.Fatalf("got %q", got)
		}
		c.Close()
	}
}

// readFrame reads a frame of a server, which is not to be large.
func readFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	if h.Length > 1<<20 {
		return ws.Frame{}, fmt.Errorf("a frame of %d bytes", h.Length)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}
