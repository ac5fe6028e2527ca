package halley

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
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
	form, p := h.parsePublish(r)
	if p != nil {
		h.refuse(w, p)
		return
	}
	v, p := h.authorize(r, form.params) // before there is a body to hold
	if p != nil {
		h.refuse(w, p)
		return
	}
	body, p := h.readBody(w, r, int64(h.opts.MaxBody))
	if p != nil {
		h.refuse(w, p)
		return
	}
	form.user = v.grant.User
	began := time.Now()
	batch, p := form.batch(h, body)
	if p == nil {
		p = h.mayAppend(v, batch.Messages)
	}
	if p != nil {
		h.refuse(w, p)
		return
	}
	receipt, err := h.append(traced(r), batch)
	if err != nil {
		h.refuse(w, h.problem(err))
		return
	}
	h.meters.publish.observe(time.Since(began))
	h.writeJSON(w, form.appendReceipt(nil, receipt))
}

// appendReceipt appends the body of the answer.
func (f *publishForm) appendReceipt(body []byte, receipt Receipt) []byte {
	body = append(body, '{')
	if f.list || receipt.Count > 1 {
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
	return append(body, '}')
}

// A publishForm is what a publish request says but for its body.
type publishForm struct {
	params      url.Values
	channels    []string // of params
	contentType string
	media       string
	key         string // the client's, empty if there is none
	user        string
	// list tells that the answer is a list of ids, whatever their number.
	list bool
}

func (h *Hub) parsePublish(r *http.Request) (f publishForm, p *wire.Problem) {
	if p = h.checkOrigin(r); p != nil {
		return f, p
	}
	if f.params, p = query(r); p != nil {
		return f, p
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return f, wire.NewProblem(wire.UnsupportedBody, fmt.Sprintf("Content-Encoding %.40q: send the body as it is", e))
	}
	f.channels = f.params["channel"]
	f.contentType = r.Header.Get("Content-Type")
	if err := engine.CheckContentType(f.contentType); err != nil {
		return f, wire.NewProblem(wire.InvalidMessage, wire.Detail(err))
	}
	f.media = mediaType(f.contentType)
	f.list = f.media == ndjsonType
	f.key, p = idempotencyKey(r.Header)
	return f, p
}

// batch returns what is to be stored. The body is the batch's then.
func (f *publishForm) batch(h *Hub, body []byte) (b Batch, p *wire.Problem) {
	switch f.media {
	case ndjsonType:
		b.Messages, p = h.readBatch(body, f)
	case formType:
		b.Messages, p = h.readForm(body, f)
	default:
		b.Messages, p = h.messages(f.channels, Message{Type: f.params.Get("type"), ContentType: f.contentType, Data: body})
	}
	if p == nil && f.key != "" {
		b.Key, b.Digest = clientKey(f.user, f.key), digest(b.Messages, f.list)
	}
	return b, p
}

// messages returns one message for each channel, repeats collapsed.
func (h *Hub) messages(channels []string, m Message) ([]Message, *wire.Problem) {
	if len(channels) == 0 {
		return nil, wire.NewProblem(wire.InvalidChannel, "channel is missing: name at least one in the query")
	}
	seen := make(map[string]bool)
	var list []Message
	for _, name := range channels {
		if seen[name] {
			continue
		}
		seen[name] = true
		if len(list) == engine.MaxBatch {
			return nil, wire.NewProblem(wire.InvalidChannel, fmt.Sprintf("more than %d channels", engine.MaxBatch))
		}
		m.Channel = name
		if len(list) > 0 { // the data is checked
			if err := engine.CheckChannel(name); err != nil {
				return nil, wire.NewProblem(wire.InvalidChannel, wire.Detail(err))
			}
		} else if p := h.checkPublish(&m); p != nil {
			return nil, p
		}
		list = append(list, m)
	}
	return list, nil
}

// mayAppend tells whether a client may publish messages now.
func (h *Hub) mayAppend(v *caller, messages []Message) *wire.Problem {
	if h.opts.Authorizer != nil {
		last := ""
		for i := range messages {
			if name := messages[i].Channel; name != last {
				if p := v.grant.mayPublish([]string{name}); p != nil {
					return p
				}
				last = name
			}
		}
	}
	return h.checkRate(v, len(messages))
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
func (h *Hub) readForm(body []byte, f *publishForm) ([]Message, *wire.Problem) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !form.Has("data") {
		return nil, wire.NewProblem(wire.InvalidMessage,
			"a form needs a data field; to send JSON with curl, add -H 'Content-Type: application/json', as curl -d says it sends a form")
	}
	m := Message{Type: form.Get("type"), ContentType: textType, Data: []byte(form.Get("data"))}
	if m.Type == "" {
		m.Type = f.params.Get("type")
	}
	return h.messages(append(f.channels[:len(f.channels):len(f.channels)], form["channel"]...), m)
}
