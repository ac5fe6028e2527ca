package halley

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

const (
	formType   = "application/x-www-form-urlencoded"
	ndjsonType = "application/x-ndjson"
	textType   = "text/plain; charset=utf-8"
	jsonType   = "application/json"
	binaryType = "application/octet-stream"
	// maxKey is the length of an Idempotency-Key at most.
	maxKey = 255
)

// checkMessage checks a message that is to be stored, and sets what it left to
// its default.
func (h *Hub) checkMessage(m *Message) error {
	if m.ContentType == "" {
		m.ContentType = binaryType
	}
	if err := m.Check(); err != nil {
		return err
	}
	if len(m.Data) > h.opts.MaxMessage {
		return fmt.Errorf("%w: data of %d bytes, at most %d", ErrTooLarge, len(m.Data), h.opts.MaxMessage)
	}
	if engine.KindOf(m.ContentType) == engine.JSON {
		if !utf8.Valid(m.Data) {
			return fmt.Errorf("%w: JSON data is not UTF-8", ErrInvalid)
		}
		if !json.Valid(m.Data) {
			return fmt.Errorf("%w: data is not valid JSON", ErrInvalid)
		}
	}
	return nil
}

// servePublish answers POST publish.
func (h *Hub) servePublish(w http.ResponseWriter, r *http.Request) {
	batch, list, p := h.readPublish(w, r)
	if p != nil {
		p.Write(w)
		return
	}
	receipt, err := h.append(r.Context(), batch)
	if err != nil {
		h.problem(r, err).Write(w)
		return
	}
	body := []byte{'{'}
	if list {
		ids := make([]Cursor, receipt.Count)
		for i := range ids {
			ids[i] = receipt.ID(i)
		}
		body = append(body, `"ids":`...)
		body = wire.AppendCursors(body, ids)
	} else {
		body = append(body, `"id":"`...)
		body = receipt.First.Append(body)
		body = append(body, '"')
	}
	writeJSON(w, append(body, '}'))
}

// readPublish reads a publish request. list tells that the answer is a list of
// ids, whatever their number.
func (h *Hub) readPublish(w http.ResponseWriter, r *http.Request) (b Batch, list bool, p *wire.Problem) {
	if p = h.checkOrigin(r); p != nil {
		return b, false, p
	}
	params, p := query(r)
	if p != nil {
		return b, false, p
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return b, false, wire.NewProblem(wire.UnsupportedBody, fmt.Sprintf("Content-Encoding %.40q: send the body as it is", e))
	}
	contentType := r.Header.Get("Content-Type")
	if err := engine.CheckContentType(contentType); err != nil {
		return b, false, wire.NewProblem(wire.InvalidMessage, wire.Detail(err))
	}
	body, p := readBody(w, r, int64(h.opts.MaxBody))
	if p != nil {
		return b, false, p
	}
	switch mediaType(contentType) {
	case ndjsonType:
		list = true
		b.Messages, p = h.readBatch(body, params)
	case formType:
		b.Messages, p = h.readForm(body, params)
	default:
		b.Messages, p = h.messages(params["channel"], Message{Type: params.Get("type"), ContentType: contentType, Data: body})
	}
	if p != nil {
		return b, list, p
	}
	if b.Key, p = idempotencyKey(r.Header); p == nil && b.Key != "" {
		b.Digest = digest(b.Messages, list)
	}
	return b, list || len(b.Messages) > 1, p
}

// messages returns one message for each channel, repeats collapsed.
func (h *Hub) messages(channels []string, m Message) ([]Message, *wire.Problem) {
	if len(channels) == 0 {
		return nil, wire.NewProblem(wire.InvalidChannel, "channel is missing: name at least one in the query")
	}
	seen := make(map[string]bool, len(channels))
	var list []Message
	for _, name := range channels {
		if seen[name] {
			continue
		}
		seen[name] = true
		m.Channel = name
		if p := h.checkPublish(&m); p != nil {
			return nil, p
		}
		list = append(list, m)
	}
	if len(list) > engine.MaxBatch {
		return nil, wire.NewProblem(wire.InvalidChannel, fmt.Sprintf("%d channels, at most %d", len(list), engine.MaxBatch))
	}
	return list, nil
}

// checkPublish is checkMessage for clients.
func (h *Hub) checkPublish(m *Message) *wire.Problem {
	if err := engine.CheckChannel(m.Channel); err != nil {
		return wire.NewProblem(wire.InvalidChannel, wire.Detail(err))
	}
	err := h.checkMessage(m)
	switch {
	case errors.Is(err, ErrTooLarge):
		return wire.NewProblem(wire.TooLarge, fmt.Sprintf("data of %d bytes, at most %d", len(m.Data), h.opts.MaxMessage))
	case err != nil:
		return wire.NewProblem(wire.InvalidMessage, wire.Detail(err))
	}
	return nil
}

// readForm reads what a plain HTML form sends.
func (h *Hub) readForm(body []byte, params url.Values) ([]Message, *wire.Problem) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !form.Has("data") {
		return nil, wire.NewProblem(wire.InvalidMessage,
			"a form needs a data field; to send JSON with curl, add -H 'Content-Type: application/json', as curl -d says it sends a form")
	}
	m := Message{Type: form.Get("type"), ContentType: textType, Data: []byte(form.Get("data"))}
	if m.Type == "" {
		m.Type = params.Get("type")
	}
	return h.messages(append(params["channel"], form["channel"]...), m)
}

// An item is a message as clients write it in JSON: a line of a batch, or what
// a WebSocket publishes.
type item struct {
	Channel     *string
	Type        string
	Data        json.RawMessage
	Data64      *string
	ContentType string
	Key         string // of a WebSocket's publish only
}

// message returns the message that an item describes: a string is text,
// anything else JSON, data64 anything at all.
func (it *item) message() (m Message, err error) {
	m.Type = it.Type
	if it.Channel != nil {
		m.Channel = *it.Channel
	}
	switch {
	case it.Data != nil && it.Data64 != nil:
		return m, errors.New("data and data64 exclude each other")
	case it.Data64 != nil:
		m.ContentType = it.ContentType
		if m.Data, err = base64.StdEncoding.DecodeString(*it.Data64); err != nil {
			return m, fmt.Errorf("data64 is not base64: %v", err)
		}
	case it.Data == nil:
		return m, errors.New("data is missing")
	case it.Data[0] == '"':
		var s string
		if err := json.Unmarshal(it.Data, &s); err != nil {
			return m, err
		}
		m.ContentType, m.Data = textType, []byte(s)
	default:
		m.ContentType, m.Data = jsonType, it.Data
	}
	return m, nil
}

func parseItem(b []byte) (it item, err error) {
	members, err := wire.Members(b)
	if err != nil {
		return it, err
	}
	it.Data = members["data"]
	for name, field := range map[string]any{
		"channel": &it.Channel, "type": &it.Type, "data64": &it.Data64, "contentType": &it.ContentType, "key": &it.Key,
	} {
		raw, ok := members[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, field); err != nil {
			return it, fmt.Errorf("%s is not a string", name)
		}
	}
	return it, nil
}

// readBatch reads a batch of lines.
func (h *Hub) readBatch(body []byte, params url.Values) ([]Message, *wire.Problem) {
	var list []Message
	for n := 1; len(body) > 0; n++ {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(list) == engine.MaxBatch {
			return nil, atLine(n, wire.NewProblem(wire.TooLarge, fmt.Sprintf("a batch has at most %d lines", engine.MaxBatch)))
		}
		m, p := h.readLine(line, params)
		if p != nil {
			return nil, atLine(n, p)
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, wire.NewProblem(wire.InvalidMessage, "the batch is empty")
	}
	return list, nil
}

func (h *Hub) readLine(line []byte, params url.Values) (m Message, p *wire.Problem) {
	it, err := parseItem(line)
	if err == nil {
		m, err = it.message()
	}
	if err != nil {
		return m, wire.NewProblem(wire.InvalidMessage, err.Error())
	}
	if it.Channel == nil {
		channels := params["channel"]
		if len(channels) != 1 {
			return m, wire.NewProblem(wire.InvalidChannel, "the line has no channel, and the query not just one")
		}
		m.Channel = channels[0]
	}
	if m.Type == "" {
		m.Type = params.Get("type")
	}
	return m, h.checkPublish(&m)
}

func atLine(n int, p *wire.Problem) *wire.Problem {
	p.Line = n
	return p
}

// publishFrame stores what a WebSocket publishes.
func (h *Hub) publishFrame(ctx context.Context, raw json.RawMessage) (Cursor, *wire.Problem) {
	it, err := parseItem(raw)
	if err != nil {
		return Cursor{}, wire.NewProblem(wire.InvalidMessage, "publish: "+err.Error())
	}
	m, err := it.message()
	if err != nil {
		return Cursor{}, wire.NewProblem(wire.InvalidMessage, err.Error())
	}
	if p := h.checkPublish(&m); p != nil {
		return Cursor{}, p
	}
	b := Batch{Messages: []Message{m}}
	if it.Key != "" {
		if p := checkKey(it.Key); p != nil {
			return Cursor{}, p
		}
		b.Key, b.Digest = clientKey(it.Key), digest(b.Messages, false)
	}
	receipt, err := h.append(ctx, b)
	if err != nil {
		return Cursor{}, h.problem(nil, err)
	}
	return receipt.First, nil
}

func idempotencyKey(header http.Header) (string, *wire.Problem) {
	values := header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if p := checkKey(values[0]); p != nil {
		return "", p
	}
	return clientKey(values[0]), nil
}

func checkKey(key string) *wire.Problem {
	if len(key) < 1 || len(key) > maxKey || !utf8.ValidString(key) {
		return wire.NewProblem(wire.InvalidKey, fmt.Sprintf("a key has 1 to %d bytes", maxKey))
	}
	return nil
}

// clientKey keeps clients' keys apart from those of the hub's own program, and
// once there are users, those of one user from another's.
func clientKey(key string) string { return "user\x00\x00" + key }

// digest sums up what a publish request asks for, so that a repeat can be told
// from another request under the same key.
func digest(messages []Message, list bool) [32]byte {
	sum := sha256.New()
	field := func(s []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		sum.Write(n[:])
		sum.Write(s)
	}
	if list {
		field([]byte(ndjsonType))
	}
	for i := range messages {
		m := &messages[i]
		field([]byte(m.Channel))
		field([]byte(m.Type))
		field([]byte(m.ContentType))
		field(m.Data)
	}
	return [32]byte(sum.Sum(nil))
}

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
