package transport

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// A frameReader splits what a WebSocket client sends into messages (RFC 6455,
// 5), from bytes as they come: a connection has no goroutine of its own that
// could wait for the rest of a frame. Between messages it holds nothing.
type frameReader struct {
	limit   int    // of a message, in bytes
	partial []byte // of a frame that has not come whole
	message []byte // the fragments of a message so far
	within  bool   // a fragmented message has begun
	binary  bool   // it is no text
}

// feed takes the next bytes, which it may change and does not keep. It calls
// message for each text message and control for each ping, pong and close
// frame, in their order, until one returns an error or there is one in what
// the client has sent.
func (r *frameReader) feed(b []byte, message func([]byte) error, control func(ws.OpCode, []byte) error) error {
	kept := len(r.partial) > 0
	if kept {
		r.partial = append(r.partial, b...)
		b = r.partial
	}
	for len(b) > 0 {
		h, n, err := r.header(b)
		if err != nil {
			return err
		}
		if n == 0 || len(b)-n < int(h.Length) {
			// What has come is kept, and no more than the limit can come.
			if !kept {
				r.partial = bytes.Clone(b)
			}
			return nil
		}
		kept = false
		payload := b[n : n+int(h.Length) : n+int(h.Length)]
		b = b[n+int(h.Length):]
		ws.Cipher(payload, h.Mask, 0)
		if h.OpCode.IsControl() {
			err = control(h.OpCode, payload)
		} else {
			err = r.data(h, payload, message)
		}
		if err != nil {
			return err
		}
	}
	r.partial = nil
	return nil
}

// header reads and checks a frame's header and returns its length, 0 if it is
// not whole.
func (r *frameReader) header(b []byte) (h ws.Header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.Fin = b[0]&0x80 != 0
	h.Rsv = b[0] >> 4 & 7
	h.OpCode = ws.OpCode(b[0] & 0x0f)
	h.Masked = b[1]&0x80 != 0
	h.Length = int64(b[1] & 0x7f)
	// What is wrong so far is wrong whatever follows.
	state := ws.StateServerSide
	if r.within {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return h, 0, err
	}
	n = 2
	switch h.Length {
	case 126:
		if len(b) < 4 {
			return h, 0, nil
		}
		h.Length, n = int64(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 10 {
			return h, 0, nil
		}
		length := binary.BigEndian.Uint64(b[2:])
		if length>>63 != 0 {
			return h, 0, ws.ErrHeaderLengthMSB
		}
		h.Length, n = int64(length), 10
	}
	if h.Length > int64(r.limit-len(r.message)) && !h.OpCode.IsControl() {
		return h, 0, wsutil.ErrFrameTooLarge
	}
	if len(b) < n+4 {
		return h, 0, nil
	}
	copy(h.Mask[:], b[n:])
	return h, n + 4, nil
}

// data adds a data frame to its message.
func (r *frameReader) data(h ws.Header, payload []byte, message func([]byte) error) error {
	if !r.within {
		r.binary = h.OpCode == ws.OpBinary
	}
	if r.binary {
		return errBinary
	}
	if r.within = !h.Fin; r.within || r.message != nil {
		r.message = append(r.message, payload...)
		payload = r.message
	}
	if r.within {
		return nil
	}
	r.message = nil
	if !utf8.Valid(payload) {
		return wsutil.ErrInvalidUTF8
	}
	return message(payload)
}
