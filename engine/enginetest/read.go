package enginetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/halley-comet/halley/engine"
)

// readModel compares queries of all kinds with the model.
func readModel(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for range 4 {
		m.publishRandom(t, e, 60)
		m.checkRandom(t, e, 300)
	}
}

// readResume goes on from every cursor of the log, in pages of all sizes, and
// wants each message once.
func readResume(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	m.publishRandom(t, e, 150)
	for seq := range m.end() + 1 {
		q := m.query(t)
		q = engine.Query{Channels: q.Channels, After: m.cursor(seq), Limit: 1 + t.rand.IntN(30), Bytes: q.Bytes}
		first := q
		want := m.read(engine.Query{Channels: q.Channels, After: q.After}).Messages
		var got []*engine.Message
		for {
			page := t.read(e, q)
			got = append(got, page.Messages...)
			if page.Gap || page.Start != q.After {
				t.Fatalf("Read %s, gone on from %v: got %s", show(first), q.After, showPage(page))
			}
			if !page.More {
				break
			}
			if page.End.Seq <= q.After.Seq {
				t.Fatalf("Read %s, gone on from %v: no way on: %s", show(first), q.After, showPage(page))
			}
			q.After = page.End
		}
		t.wantMessages(fmt.Sprintf("the pages of %s", show(first)), got, want)
	}
}

// readBackward pages from the end to the beginning.
func readBackward(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	m.publishRandom(t, e, 150)
	for _, p := range patterns {
		var got []*engine.Message
		q := engine.Query{Channels: []string{p}, Backward: true, Limit: 7}
		for {
			page := t.read(e, q)
			got = append(slices.Clone(page.Messages), got...)
			if !page.More {
				break
			}
			if len(page.Messages) == 0 || q.Until == page.Messages[0].ID.Seq-1 {
				t.Fatalf("Read %s: no way on: %s", show(q), showPage(page))
			}
			q.Until = page.Messages[0].ID.Seq - 1
		}
		kept, _ := m.of(p)
		t.wantMessages("the pages of "+p+" backward", got, kept)
	}
}

func readDefaultLimit(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for range 3 {
		var b engine.Batch
		for i := range engine.DefaultLimit / 2 {
			b.Messages = append(b.Messages, text(channels[i%2], fmt.Sprint(i)))
		}
		m.publish(t, e, b)
	}
	for _, q := range []engine.Query{
		{Channels: []string{"**"}},
		{Channels: []string{"**"}, Backward: true},
		{Channels: []string{"**"}, Until: engine.DefaultLimit},
		{Channels: []string{"**"}, Limit: engine.DefaultLimit + 1},
		{Channels: channels[:2], After: m.cursor(engine.DefaultLimit / 2)},
		{Channels: channels[:1]},
	} {
		m.check(t, e, q, t.s.LooseGaps)
	}
}

// readUnknownCursor wants positions told as gaps that are not of this log, and
// the zero Cursor never.
func readUnknownCursor(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for round := range 2 {
		for _, q := range []engine.Query{
			{After: engine.Cursor{Epoch: "another"}},
			{After: engine.Cursor{Epoch: "another", Seq: 3}},
			{After: m.cursor(m.end() + 1)},
			{After: m.cursor(engine.MaxSeq)},
		} {
			for _, q.Channels = range [][]string{{"a"}, {"**"}, {"none"}, {"a", "x/**"}} {
				page := t.read(e, q)
				if !page.Gap || page.Start != m.cursor(0) {
					t.Errorf("Read %s of a log with end %d: got %s, want a gap from 0", show(q), m.end(), showPage(page))
				}
				m.check(t, e, q, t.s.LooseGaps)
			}
		}
		page := t.read(e, engine.Query{Channels: []string{"**"}})
		if page.Gap || page.Start != m.cursor(0) {
			t.Errorf("Read from the zero Cursor: got %s, want no gap, from 0", showPage(page))
		}
		if round == 0 {
			m.publishRandom(t, e, 50)
		}
	}
}

// readEmpty reads a log without messages.
func readEmpty(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for _, backward := range []bool{false, true} {
		for _, q := range []engine.Query{
			{Channels: []string{"a"}, Backward: backward},
			{Channels: []string{"**"}, After: e.End(), Backward: backward},
			{Channels: []string{"*", "a"}, Until: 5, Backward: backward},
			{Channels: []string{"*", "a"}, From: []uint64{0, 0}, After: e.End(), Backward: backward},
		} {
			m.check(t, e, q, t.s.LooseGaps)
		}
	}
}

func readInvalid(t *tester) {
	e := t.open(Options{})
	t.append(e, batch(text("a", "1")))
	for name, q := range map[string]engine.Query{
		"no channels":            {},
		"empty channel":          {Channels: []string{""}},
		"second channel":         {Channels: []string{"a", "a//b"}},
		"wildcard in the middle": {Channels: []string{"a/*/b"}},
		"part of a segment":      {Channels: []string{"a*"}},
		"long pattern":           {Channels: []string{strings.Repeat("a", engine.MaxChannel) + "/*"}},
		"short From":             {Channels: []string{"a", "b"}, From: []uint64{1}},
		"long From":              {Channels: []string{"a"}, From: []uint64{1, 2}},
		"empty From":             {Channels: []string{"a"}, From: []uint64{}},
		"negative limit":         {Channels: []string{"a"}, Limit: -1},
		"negative bytes":         {Channels: []string{"a"}, Bytes: -1},
	} {
		_, err := e.Read(t.ctx, q)
		t.wantError(name, err, engine.ErrInvalid)
		q.After = e.End()
		_, err = e.Read(t.ctx, q)
		t.wantError(name+" at the end", err, engine.ErrInvalid)
	}
}
