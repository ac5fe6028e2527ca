package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// event is one frame of a stream, or one message of a page.
type event struct {
	control string // empty for a message
	id      string
	envelope
	raw  string // sse's raw format: the data lines, joined; the rest is in id and typ
	wire string // the envelope as it came
}

// envelope has the members of the contract's envelopes.
type envelope struct {
	Channel     string
	Type        *string
	Time        *int64
	Data        json.RawMessage
	Data64      *string
	ContentType *string
	Heartbeat   *float64
	Delay       *float64
	Ref         json.RawMessage
	Status      int
	Code        string
	Title       string
}

// parseEnvelope reads an envelope and checks its shape.
func parseEnvelope(b []byte) (event, error) {
	// encoding/json would take names in any case.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return event{}, fmt.Errorf("envelope %s: %w", clip(b), err)
	}
	for name := range members {
		if known := strings.ToLower(name); name != known && name != "contentType" {
			delete(members, name)
		}
	}
	var e event
	e.wire = string(b)
	cleaned, _ := json.Marshal(members)
	if err := json.Unmarshal(cleaned, &e.envelope); err != nil {
		return event{}, fmt.Errorf("envelope %s: %w", clip(b), err)
	}
	// As it was written: Marshal above escaped what only HTML minds.
	e.Data = members["data"]
	has := func(name string) bool { _, ok := members[name]; return ok }
	text := func(name string) (s string) { json.Unmarshal(members[name], &s); return s }
	e.control, e.id = text("control"), text("id")
	if e.id != "" || has("id") {
		if _, _, err := parseCursor(e.id); err != nil {
			return event{}, fmt.Errorf("envelope %s: id: %w", clip(b), err)
		}
	}
	if has("control") {
		return e, checkControl(e, has)
	}
	switch {
	case e.id == "":
		return event{}, fmt.Errorf("envelope %s: no id", clip(b))
	case e.Channel == "":
		return event{}, fmt.Errorf("envelope %s: no channel", clip(b))
	case e.Time == nil:
		return event{}, fmt.Errorf("envelope %s: no time", clip(b))
	case e.Type != nil && *e.Type == "":
		return event{}, fmt.Errorf("envelope %s: a type that is empty, where it should be left out", clip(b))
	case has("data") == has("data64"):
		return event{}, fmt.Errorf("envelope %s: want one of data and data64", clip(b))
	case has("data64") != has("contentType"):
		return event{}, fmt.Errorf("envelope %s: data64 and contentType go together", clip(b))
	}
	return e, nil
}

func checkControl(e event, has func(string) bool) error {
	switch e.control {
	case "open":
		if e.id == "" || e.Heartbeat == nil || *e.Heartbeat <= 0 {
			return fmt.Errorf("control %s: want an id, and a heartbeat above 0", e.wire)
		}
	case "gap", "heartbeat", "skip":
		if e.id == "" {
			return fmt.Errorf("control %s: want an id", e.wire)
		}
	case "reconnect":
		if e.Delay == nil || *e.Delay < 0 {
			return fmt.Errorf("control %s: want a delay of 0 or more", e.wire)
		}
	case "error":
		if e.Status < 400 || e.Status > 599 || e.Code == "" || e.Title == "" {
			return fmt.Errorf("control %s: want a status, a code and a title", e.wire)
		}
	case "ack":
		if e.id == "" || e.Ref == nil {
			return fmt.Errorf("control %s: want a ref and an id", e.wire)
		}
	case "":
		return fmt.Errorf("envelope %s: a control that is empty", e.wire)
	}
	if has("channel") {
		return fmt.Errorf("envelope %s: both a control and a channel", e.wire)
	}
	return nil
}

// typ returns the message's type, empty if there is none.
func (e event) typ() string {
	if e.Type == nil {
		return ""
	}
	return *e.Type
}

func (e event) String() string {
	if e.wire != "" {
		return clip([]byte(e.wire))
	}
	return fmt.Sprintf("{raw id %s type %q data %q}", e.id, e.typ(), clip([]byte(e.raw)))
}

// is tells what differs between a message and what was published; nil if
// nothing does.
func (e event) is(p *publication) error {
	if e.control != "" || e.id != p.id || e.typ() != p.typ {
		return fmt.Errorf("got %v, want the message %s of type %q", e, p.id, p.typ)
	}
	if e.wire == "" {
		if want := rawData(p); e.raw != want {
			return fmt.Errorf("got data %q, want %q", clip([]byte(e.raw)), clip([]byte(want)))
		}
		return nil
	}
	if e.Channel != p.channel {
		return fmt.Errorf("got %v, want the channel %s", e, p.channel)
	}
	switch kindOf(p.contentType) {
	case "json":
		if got, want := literal(e.Data), literal([]byte(p.data)); got == nil || !reflect.DeepEqual(got, want) {
			return fmt.Errorf("got data %s, want %s", clip(e.Data), clip([]byte(p.data)))
		}
	case "text":
		var got string
		if json.Unmarshal(e.Data, &got) != nil || got != p.data {
			return fmt.Errorf("got data %s, want the text %q", clip(e.Data), clip([]byte(p.data)))
		}
	default:
		want := p.contentType
		if want == "" {
			want = "application/octet-stream"
		}
		if e.Data64 == nil || *e.Data64 != base64.StdEncoding.EncodeToString([]byte(p.data)) || *e.ContentType != want {
			return fmt.Errorf("got %v, want data64 of %q and the content type %s", e, clip([]byte(p.data)), want)
		}
	}
	return nil
}

func kindOf(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	switch {
	case media == "application/json", strings.HasSuffix(media, "+json"):
		return "json"
	case strings.HasPrefix(media, "text/"):
		return "text"
	}
	return "binary"
}

// rawData returns what an event source makes of a message in sse's raw format:
// line ends become LF.
func rawData(p *publication) string {
	if kindOf(p.contentType) == "binary" {
		return base64.StdEncoding.EncodeToString([]byte(p.data))
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(p.data)
}

// literal returns a JSON value whose numbers are kept as they were written.
func literal(b []byte) any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

// isAll checks that messages are what was published, in order.
func isAll(t tb, what string, got []event, want []*publication) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if err := got[i].is(want[i]); err != nil {
			t.Errorf("%s: message %d of %d: %v", what, i+1, len(want), err)
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d messages, want %d; the first too many or missing: %v", what, len(got), len(want), firstOver(got, want))
	}
}

func firstOver(got []event, want []*publication) any {
	if len(got) > len(want) {
		return got[len(want)]
	}
	return *want[len(got)]
}
