package comet

import (
	"encoding/json"
	"fmt"
)

// pollParser parses the answer of a long poll: one JSON object, read whole.
type pollParser struct {
	buf []byte
	max int
}

func (p *pollParser) feed(b []byte) ([]frame, error) {
	if len(p.buf)+len(b) > p.max {
		return nil, errTooLarge
	}
	p.buf = append(p.buf, b...)
	return nil, nil
}

func (p *pollParser) end() ([]frame, error) { return parsePage(p.buf) }

// answer is the body of long-polling and history.
type answer struct {
	Cursor   string    `json:"cursor"`
	Messages []Message `json:"messages"`
	Gap      bool      `json:"gap"`
	More     bool      `json:"more"`
}

func parsePage(b []byte) ([]frame, error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("comet: answer %.80q: %w", b, err)
	}
	if a.Cursor == "" {
		return nil, fmt.Errorf("comet: answer %.80q: no cursor", b)
	}
	frames := make([]frame, 0, len(a.Messages)+2)
	if a.Gap {
		frames = append(frames, frame{Event: Event{Control: Gap}})
	}
	for _, m := range a.Messages {
		if m.ID == "" {
			return nil, fmt.Errorf("comet: answer %.80q: a message has no id", b)
		}
		frames = append(frames, frame{Event: Event{Message: m, Cursor: m.ID}})
	}
	return append(frames, frame{Event: Event{Control: Heartbeat, Cursor: a.Cursor}, polled: true}), nil
}
