package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/halley-comet/halley/engine"
)

// appendOrder wants sequences from 1 without a hole, times that never go back,
// and an End that follows.
func appendOrder(t *tester) {
	e := t.open(Options{})
	if end := e.End(); end.Seq != 0 || !engine.ValidEpoch(end.Epoch) {
		t.Fatalf("End of an empty log: got %+v", end)
	}
	m := newModel(e)
	for i := range 200 {
		m.publish(t, e, batch(text(channels[i%len(channels)], fmt.Sprint(i))))
		if end := e.End(); end != m.cursor(m.end()) {
			t.Fatalf("End after %d messages: got %v", m.end(), end)
		}
	}
	t.wantMessages("the log", t.readAll(e, engine.Cursor{}, "**"), m.messages)
}

// appendContent wants every field and every byte back.
func appendContent(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	headers := make(map[string]string)
	for i := range engine.MaxHeaders {
		headers[fmt.Sprintf("header-%02d", i)] = strings.Repeat("é", 50)
	}
	for _, msg := range []engine.Message{
		{Channel: "a"},
		{Channel: "a", ContentType: "application/octet-stream", Data: every},
		{Channel: "a", ContentType: "text/plain; charset=utf-8", Data: []byte("grüße, 世界\n\x00")},
		{Channel: "a", ContentType: "application/json", Data: []byte(`{"n": 1.50, "big": 12345678901234567890}`)},
		{Channel: "a", Type: "said", ContentType: "application/problem+json", Data: []byte("null")},
		{Channel: "a", Type: strings.Repeat("ü", engine.MaxType/2), ContentType: "text/html", Data: []byte("<b>")},
		{Channel: "a", ContentType: "text/plain", Headers: map[string]string{"traceparent": "00-ab-cd-01", "": "", "n": "\x00\xff"}},
		{Channel: "a", ContentType: "image/png", Data: make([]byte, 1<<20), Headers: headers},
		{Channel: strings.Repeat("a/", 127) + "b", ContentType: "text/plain", Data: []byte("deep")},
		{Channel: "-_.~!$()@:+,=%/%2F", ContentType: "text/plain", Data: []byte("odd")},
		// The engine sets these, whatever they were.
		{Channel: "a", ID: engine.Cursor{Epoch: "x", Seq: 9}, Time: -1, ContentType: "text/plain"},
	} {
		m.publish(t, e, batch(msg))
	}
	t.wantMessages("the log", t.readAll(e, engine.Cursor{}, "**"), m.messages)
}

// appendBatches wants the messages of a batch side by side, at one time.
func appendBatches(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for _, n := range []int{1, 2, 3, 100, engine.MaxBatch, 1, 999} {
		var b engine.Batch
		for i := range n {
			b.Messages = append(b.Messages, text(channels[i%len(channels)], fmt.Sprintf("%d of %d", i, n)))
		}
		r := m.publish(t, e, b)
		if got, want := r.ID(n-1), m.cursor(m.end()); got != want {
			t.Fatalf("batch of %d: last message at %v, want %v", n, got, want)
		}
	}
	t.wantMessages("the log", t.readAll(e, engine.Cursor{}, "**"), m.messages)
	m.checkRandom(t, e, 20)
}

// appendInvalid wants a batch refused whole, wherever it is invalid.
func appendInvalid(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	m.publish(t, e, batch(text("a", "before")))

	many := make(map[string]string)
	for i := range engine.MaxHeaders + 1 {
		many[fmt.Sprint(i)] = ""
	}
	good := text("a", "good")
	for name, bad := range map[string]engine.Message{
		"no channel":           text("", ""),
		"pattern":              text("a/*", ""),
		"pattern of all":       text("**", ""),
		"empty segment":        text("a//b", ""),
		"dot segment":          text("a/../b", ""),
		"reserved":             text("meta/connect", ""),
		"long channel":         text(strings.Repeat("a", engine.MaxChannel+1), ""),
		"byte":                 text("a b", ""),
		"type":                 {Channel: "a", Type: "comet:gap", ContentType: "text/plain"},
		"long type":            {Channel: "a", Type: strings.Repeat("t", engine.MaxType+1)},
		"content type":         {Channel: "a", ContentType: "text"},
		"content type newline": {Channel: "a", ContentType: "text/plain\r\nSet-Cookie: a=b"},
		"not UTF-8":            text("a", "\xff"),
		"many headers":         {Channel: "a", Headers: many},
		"long header":          {Channel: "a", Headers: map[string]string{"a": strings.Repeat("b", engine.MaxHeaderBytes)}},
	} {
		for place, b := range map[string]engine.Batch{
			"alone": batch(bad), "first": batch(bad, good), "in the middle": batch(good, bad, good), "last": batch(good, good, bad),
		} {
			b.Key = "k"
			_, err := e.Append(t.ctx, b)
			t.wantError(name+" "+place, err, engine.ErrInvalid)
		}
	}
	_, err := e.Append(t.ctx, engine.Batch{})
	t.wantError("empty batch", err, engine.ErrInvalid)
	full := make([]engine.Message, engine.MaxBatch+1)
	for i := range full {
		full[i] = good
	}
	_, err = e.Append(t.ctx, batch(full...))
	t.wantError("batch that is too long", err, engine.ErrInvalid)
	_, err = e.Append(t.ctx, engine.Batch{Messages: full[:1], Key: strings.Repeat("k", engine.MaxKey+1)})
	t.wantError("key that is too long", err, engine.ErrInvalid)

	// Nothing of it was stored, and no key is remembered for it.
	if end := e.End(); end.Seq != 1 {
		t.Errorf("End is %v after invalid batches, want 1", end)
	}
	b := batch(text("a", "after"))
	b.Key = "k"
	m.publish(t, e, b)
	t.wantMessages("the log", t.readAll(e, engine.Cursor{}, "**"), m.messages)
}

// appendCanceled wants nothing but ctx's error, or success, once ctx has ended.
func appendCanceled(t *tester) {
	e := t.open(Options{})
	t.append(e, batch(text("a", "1")))
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := e.Append(ctx, batch(text("a", "2"))); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Append: got %v", err)
	}
	if _, err := e.Read(ctx, engine.Query{Channels: []string{"a"}}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Read: got %v", err)
	}
}

// appendArguments wants the batch's own slice left to the caller.
func appendArguments(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	b := batch(text("a", "1"), text("b", "2"))
	m.publish(t, e, b)
	for i := range b.Messages {
		b.Messages[i] = text("c", "overwritten")
	}
	t.wantMessages("the log", t.readAll(e, engine.Cursor{}, "**"), m.messages)
}
