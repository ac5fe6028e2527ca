package halley

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// An item is a message as clients write it in JSON: a line of a batch, or what
// a WebSocket publishes.
type item struct {
	Channel     *string
	Type        string
	Data        json.RawMessage
	Data64      *string
	ContentType string
	Key         *string // of a WebSocket's publish only
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
func (h *Hub) readBatch(body []byte, f *publishForm) ([]Message, *wire.Problem) {
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
		m, p := h.readLine(line, f)
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

func (h *Hub) readLine(line []byte, f *publishForm) (m Message, p *wire.Problem) {
	it, err := parseItem(line)
	if err == nil {
		m, err = it.message()
	}
	if err != nil {
		return m, wire.NewProblem(wire.InvalidMessage, err.Error())
	}
	if it.Channel == nil {
		if len(f.channels) != 1 {
			return m, wire.NewProblem(wire.InvalidChannel, "the line has no channel, and the query not just one")
		}
		m.Channel = f.channels[0]
	}
	if m.Type == "" {
		m.Type = f.params.Get("type")
	}
	return m, h.checkPublish(&m)
}

func atLine(n int, p *wire.Problem) *wire.Problem {
	p.Line = n
	return p
}

// publishFrame stores what a WebSocket publishes.
func (h *Hub) publishFrame(ctx context.Context, l *pump.Lease, raw json.RawMessage) (Cursor, *wire.Problem) {
	began := time.Now()
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
	v, p := h.holder(l)
	if p != nil {
		return Cursor{}, p
	}
	if p := h.mayAppend(v, b.Messages); p != nil {
		return Cursor{}, p
	}
	if it.Key != nil {
		if p := checkKey(*it.Key); p != nil {
			return Cursor{}, p
		}
		b.Key, b.Digest = clientKey(v.grant.User, *it.Key), digest(b.Messages, false)
	}
	receipt, err := h.append(ctx, b)
	if err != nil {
		return Cursor{}, h.problem(err)
	}
	h.meters.publish.observe(time.Since(began))
	return receipt.First, nil
}
