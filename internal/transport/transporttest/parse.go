package transporttest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A scanner takes the next unit of a transport from the front of b: it returns
// the events in it and its length, which is 0 while it is not complete. It
// takes only what the protocol says that a server sends.
type scanner func(b []byte) (events []Event, n int, err error)

// scanner returns the variant's scanner for a response.
func (v variant) scanner(h http.Header) (scanner, error) {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if v.transport == "websocket" {
		return scanFrames(), nil
	}
	want := map[string]string{
		"long-polling": "application/json", "jsonp": "text/javascript", "iframe": "text/html",
		"multipart": "multipart/x-mixed-replace", "xhr-streaming": "application/x-ndjson", "sse": "text/event-stream",
	}[v.transport]
	if err != nil || media != want {
		return nil, fmt.Errorf("Content-Type %q, want %s", h.Get("Content-Type"), want)
	}
	if v.transport == "multipart" {
		if params["boundary"] == "" {
			return nil, fmt.Errorf("Content-Type %q has no boundary", h.Get("Content-Type"))
		}
		if v.raw {
			return scanRawParts(params["boundary"]), nil
		}
		return scanParts(params["boundary"]), nil
	}
	if params["charset"] != "utf-8" {
		return nil, fmt.Errorf("Content-Type %q has no charset=utf-8", h.Get("Content-Type"))
	}
	switch v.transport {
	case "iframe":
		return v.scanScripts(), nil
	case "xhr-streaming":
		return scanLines, nil
	case "sse":
		return scanEvents(v.raw), nil
	}
	return nil, fmt.Errorf("no scanner: %s answers once", v.name)
}

// one returns the event of a unit of n bytes.
func one(envelope []byte, n int) ([]Event, int, error) {
	e, err := decodeEnvelope(envelope)
	return []Event{e}, n, err
}

func scanLines(b []byte) ([]Event, int, error) {
	line, _, ok := bytes.Cut(b, []byte("\n"))
	switch {
	case !ok:
		return nil, 0, nil
	case len(line) == 0:
		return nil, 1, nil
	}
	return one(line, len(line)+1)
}

// scanEvents parses as the HTML Standard says, "Interpreting an event stream",
// of the fields in the order that the protocol has them.
func scanEvents(raw bool) scanner {
	started := false
	return func(b []byte) ([]Event, int, error) {
		i := bytes.Index(b, []byte("\n\n"))
		if i < 0 {
			return nil, 0, nil
		}
		block, n := string(b[:i]), i+2
		if !utf8.ValidString(block) || strings.Contains(block, "\r") {
			return nil, 0, fmt.Errorf("event %q is not UTF-8 or has a CR", block)
		}
		if !started {
			started = true
			if block == "retry: 2000" {
				return nil, n, nil
			}
			return nil, 0, fmt.Errorf("the stream begins with %q", block)
		}
		var e Event
		var data []string
		event, order := "", 0
		for line := range strings.SplitSeq(block, "\n") {
			name, value, ok := strings.Cut(line, ":")
			value, space := strings.CutPrefix(value, " ")
			if name == "" && ok {
				continue // a comment
			}
			at := map[string]int{"retry": 1, "event": 2, "data": 3, "id": 4}[name]
			if !space || at < order || at == order && name != "data" || at == 0 {
				return nil, 0, fmt.Errorf("event %q: line %q", block, line)
			}
			order = at
			switch name {
			case "event":
				event = value
			case "data":
				data = append(data, value)
			case "id":
				e.ID = value
			}
		}
		if data == nil {
			return nil, n, nil
		}
		body := strings.Join(data, "\n")
		control, isControl := strings.CutPrefix(event, "comet:")
		switch {
		case isControl || !raw && event == "":
			d, err := decodeEnvelope([]byte(body))
			if err == nil && (d.ID != e.ID || d.Control != control) {
				err = fmt.Errorf("event %q is not what its envelope is", block)
			}
			return []Event{d}, n, err
		case !raw:
			return nil, 0, fmt.Errorf("event %q has a name", block)
		}
		e.Type, e.Body = event, body
		return []Event{e}, n, nil
	}
}

// scanScripts parses the forever frame: a preamble, and script elements.
func (v variant) scanScripts() scanner {
	target := regexp.QuoteMeta("parent.app.on(m)")
	if v.name == "iframe-origin" {
		target = regexp.QuoteMeta(`parent.postMessage(m,"https://page.example")`)
	}
	preamble := regexp.MustCompile(`^<!DOCTYPE html><html><head><meta charset="utf-8"><title>comet</title></head><body>` +
		`<script>function _\(m\)\{var s=document\.currentScript;if\(s\)s\.parentNode\.removeChild\(s\);` + target + `\}</script>\n(<!-- *-->\n)?`)
	started := false
	return func(b []byte) ([]Event, int, error) {
		if !started {
			// The preamble is not seen whole before a script follows.
			m := preamble.Find(b)
			if m == nil || !bytes.HasPrefix(b[len(m):], []byte("<script>")) {
				return nil, 0, nil
			}
			started = true
			return nil, len(m), nil
		}
		const begin, end = "<script>_(", ")</script>"
		if n := min(len(b), len(begin)); string(b[:n]) != begin[:n] {
			return nil, 0, fmt.Errorf("%.80q stands where a script should", b)
		}
		i := bytes.Index(b, []byte(end))
		if i < 0 {
			return nil, 0, nil
		}
		envelope := b[len(begin):i]
		if bytes.ContainsAny(envelope, "<>&") {
			return nil, 0, fmt.Errorf("script %q is not escaped", envelope)
		}
		return one(envelope, i+len(end))
	}
}

// scanParts parses multipart's envelope format. A part is complete with its
// last byte.
func scanParts(boundary string) scanner {
	delimiter := "--" + boundary + "\r\n"
	ended := "--" + boundary + "--\r\n"
	started, newline := false, ""
	return func(b []byte) ([]Event, int, error) {
		if !started {
			i := bytes.Index(b, []byte(delimiter))
			if i < 0 {
				return nil, 0, nil
			}
			if p := strings.TrimLeft(string(b[:i]), " "); p != "" && p != "\r\n" {
				return nil, 0, fmt.Errorf("preamble %q", b[:i])
			}
			started = true
			return nil, i + len(delimiter), nil
		}
		// The end of the part before, and what is after it.
		if newline != "" {
			for _, s := range []string{newline + delimiter, newline + ended} {
				if n := min(len(s), len(b)); string(b[:n]) == s[:n] {
					if n < len(s) {
						return nil, 0, nil
					}
					newline = ""
					return nil, n, nil
				}
			}
			return nil, 0, fmt.Errorf("%.80q stands where a delimiter should", b)
		}
		if s := "\r\n" + ended; string(b[:min(len(s), len(b))]) == s[:min(len(s), len(b))] {
			if len(b) < len(s) {
				return nil, 0, nil
			}
			return nil, len(s), nil
		}
		header, rest, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			return nil, 0, nil
		}
		m := partHeader.FindSubmatch(header)
		if m == nil {
			return nil, 0, fmt.Errorf("part's header %q", header)
		}
		length, err := strconv.Atoi(string(m[1]))
		if err != nil || len(rest) < length {
			return nil, 0, err
		}
		events, n, err := one(rest[:length], len(header)+4+length)
		if err == nil && (events[0].ID != string(m[3]) || events[0].Channel != string(m[5])) {
			err = fmt.Errorf("part's header %q is not of %+v", header, events[0])
		}
		newline = "\r\n"
		return events, n, err
	}
}

var partHeader = regexp.MustCompile(`^Content-Type: application/json\r\nContent-Length: (\d+)(\r\nComet-Id: (\S+))?(\r\nComet-Channel: (\S+))?$`)

// scanRawParts parses server push in its raw format. A part is complete when
// the next delimiter line is. One that is closed empty is no event.
func scanRawParts(boundary string) scanner {
	delimiter := []byte("--" + boundary)
	started := false
	return func(b []byte) ([]Event, int, error) {
		i := bytes.Index(b, delimiter)
		if i < 0 || len(b) < i+len(delimiter)+2 {
			return nil, 0, nil
		}
		switch tail := string(b[i+len(delimiter):][:2]); {
		case tail != "\r\n" && tail != "--":
			return nil, 0, fmt.Errorf("%q follows a boundary", tail)
		case !started:
			if p := strings.TrimLeft(string(b[:i]), " "); p != "" && p != "\r\n" {
				return nil, 0, fmt.Errorf("preamble %q", b[:i])
			}
			started = true
			return nil, i + len(delimiter) + 2, nil
		}
		part := b[:i]
		if string(part) == "\r\n" {
			return nil, i + len(delimiter) + 2, nil // after the close-delimiter
		}
		header, data, ok := bytes.Cut(part, []byte("\r\n\r\n"))
		contentType, named := bytes.CutPrefix(header, []byte("Content-Type: "))
		data, ended := bytes.CutSuffix(data, []byte("\r\n"))
		if !ok || !named || !ended {
			return nil, 0, fmt.Errorf("part %q", part)
		}
		if len(data) == 0 {
			return nil, i + len(delimiter) + 2, nil
		}
		e := Event{ContentType: string(contentType), Body: string(data)}
		return []Event{e}, i + len(delimiter) + 2, nil
	}
}

// scanFrames parses what a server sends on a WebSocket (RFC 6455, 5.2): text
// frames in one piece and without a mask, and control frames.
func scanFrames() scanner {
	closed := false
	return func(b []byte) ([]Event, int, error) {
		if len(b) < 2 {
			return nil, 0, nil
		}
		if closed {
			return nil, 0, fmt.Errorf("%q follows a close frame", b)
		}
		if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 {
			return nil, 0, fmt.Errorf("frame header %x", b[:2])
		}
		length, head := int(b[1]), 2
		switch length {
		case 126:
			head = 4
			if len(b) < head {
				return nil, 0, nil
			}
			length = int(binary.BigEndian.Uint16(b[2:]))
		case 127:
			head = 10
			if len(b) < head {
				return nil, 0, nil
			}
			length = int(binary.BigEndian.Uint64(b[2:]))
		}
		if len(b) < head+length {
			return nil, 0, nil
		}
		payload, n := b[head:head+length], head+length
		switch b[0] & 0xf {
		case 1:
			return one(bytes.TrimRight(payload, " "), n)
		case 8:
			closed = true
			e := Event{Control: "close"}
			if length >= 2 {
				e.Status = int(binary.BigEndian.Uint16(payload))
			}
			return []Event{e}, n, nil
		case 10:
			return []Event{{Control: "pong", Body: string(payload)}}, n, nil
		}
		return nil, 0, fmt.Errorf("frame header %x", b[:2])
	}
}

// parseAnswer parses the whole answer of a poll.
func (v variant) parseAnswer(h http.Header, body []byte) ([]Event, error) {
	want := "application/json; charset=utf-8"
	if v.transport == "jsonp" {
		want = "text/javascript; charset=utf-8"
		call, comment := bytes.CutPrefix(body, []byte("/**/"))
		call, named := bytes.CutPrefix(bytes.TrimLeft(call, " "), []byte("app.on("))
		call, ended := bytes.CutSuffix(call, []byte(");"))
		if !comment || !named || !ended {
			return nil, fmt.Errorf("answer %q is not a call", body)
		}
		body = call
	}
	if got := h.Get("Content-Type"); got != want {
		return nil, fmt.Errorf("Content-Type %q, want %q", got, want)
	}
	members, err := decodeObject(body)
	if err != nil {
		return nil, err
	}
	if _, ok := members["control"]; ok {
		e, err := decodeEnvelope(body)
		return []Event{e}, err
	}
	if err := checkMembers(members, "cursor gap messages", map[string]bool{"gap": true}); err != nil {
		return nil, err
	}
	page := Event{Control: "page"}
	var envelopes []json.RawMessage
	if err := errors.Join(json.Unmarshal(members["cursor"], &page.ID), json.Unmarshal(members["messages"], &envelopes)); err != nil {
		return nil, err
	}
	if gap, ok := members["gap"]; ok {
		if string(gap) != "true" {
			return nil, fmt.Errorf("gap is %s", gap)
		}
		page.Gap = true
	}
	var events []Event
	for _, b := range envelopes {
		e, err := decodeEnvelope(b)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if n := len(events); n > 0 && events[n-1].ID != page.ID {
		return nil, fmt.Errorf("cursor %s after message %s", page.ID, events[n-1].ID)
	}
	if err := checkID(page.ID, map[string]json.RawMessage{"id": nil}); err != nil {
		return nil, err
	}
	return append(events, page), nil
}
