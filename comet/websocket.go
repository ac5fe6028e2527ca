package comet

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- RFC 6455 says so, and it keeps nothing secret
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
)

// frameParser parses what a server sends after a WebSocket handshake (RFC
// 6455, 5): an envelope in each text message.
type frameParser struct {
	streaming
	max        int
	buf        []byte
	message    []byte // of the fragments so far
	fragmented bool
}

func (p *frameParser) feed(b []byte) (frames []frame, err error) {
	p.buf = append(p.buf, b...)
	rest := p.buf
	defer func() { p.buf = append(p.buf[:0], rest...) }()
	for {
		r := bytes.NewReader(rest)
		h, err := ws.ReadHeader(r)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return frames, nil
		}
		if err == nil {
			err = p.check(h)
		}
		if err != nil {
			return frames, err
		}
		header := len(rest) - r.Len()
		if int64(r.Len()) < h.Length {
			return frames, nil
		}
		payload := rest[header : header+int(h.Length)]
		rest = rest[header+int(h.Length):]
		switch h.OpCode {
		case ws.OpPing:
			frames = append(frames, frame{ping: append([]byte{}, payload...)})
		case ws.OpPong:
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			return frames, fmt.Errorf("comet: the server closed the WebSocket: %d %.120q", code, reason)
		default:
			p.message = append(p.message, payload...)
			if p.fragmented = !h.Fin; p.fragmented {
				continue
			}
			if frames, err = appendDecoded(frames, p.message); err != nil {
				return frames, err
			}
			p.message = p.message[:0]
		}
	}
}

func (p *frameParser) check(h ws.Header) error {
	state := ws.StateClientSide
	if p.fragmented {
		state = state.Set(ws.StateFragmented)
	}
	switch {
	case h.Masked:
		return ws.ErrProtocolMaskUnexpected
	case h.OpCode == ws.OpBinary:
		return errors.New("comet: binary WebSocket message")
	case h.Length+int64(len(p.message)) > int64(p.max):
		return errTooLarge
	}
	return ws.CheckHeader(h, state)
}

// upgrade makes r a WebSocket handshake. The function it returns checks the
// answer to it (RFC 6455, 4.1).
func upgrade(r *http.Request) func(*http.Response) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", key)
	return func(resp *http.Response) error {
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- as RFC 6455 has it
		if !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") ||
			resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
			return errors.New("comet: not a WebSocket handshake's answer")
		}
		return nil
	}
}

// writeFrame writes a control frame, masked as a client's must be.
func writeFrame(w io.Writer, f ws.Frame) error {
	return ws.WriteFrame(w, ws.MaskFrameInPlace(f))
}
