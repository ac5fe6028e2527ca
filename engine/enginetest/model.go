package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/halley-comet/halley/engine"
)

// A model is a log written for being right: a slice of all messages ever
// published, and whether each is still kept, as the engine says. What reading
// the engine must give follows from that.
type model struct {
	epoch    string
	messages []*engine.Message // sequence s is at s-1
	kept     []bool
}

// newModel models an engine that is still empty.
func newModel(e engine.Engine) *model { return &model{epoch: e.End().Epoch} }

func (m *model) end() uint64 { return uint64(len(m.messages)) }

func (m *model) cursor(seq uint64) engine.Cursor { return engine.Cursor{Epoch: m.epoch, Seq: seq} }

// publish appends to the engine and the model, and checks the receipt.
func (m *model) publish(t *tester, e engine.Engine, b engine.Batch) engine.Receipt {
	t.Helper()
	r := t.append(e, b)
	if r.First != m.cursor(m.end()+1) || r.Count != len(b.Messages) || r.Repeated {
		t.Fatalf("Append of %d messages after %d: got receipt %+v", len(b.Messages), m.end(), r)
	}
	if n := len(m.messages); n > 0 && r.Time < m.messages[n-1].Time {
		t.Fatalf("Append: time went back from %d to %d", m.messages[n-1].Time, r.Time)
	}
	for i, msg := range b.Messages {
		msg.ID, msg.Time = r.ID(i), r.Time
		if msg.ContentType == "" {
			msg.ContentType = "application/octet-stream"
		}
		m.messages = append(m.messages, &msg)
		m.kept = append(m.kept, true)
	}
	return r
}

// publishRandom publishes n messages, in batches, to channels of which a few
// get the most.
func (m *model) publishRandom(t *tester, e engine.Engine, n int) {
	t.Helper()
	for n > 0 {
		var b engine.Batch
		for range min(n, 1+t.rand.IntN(4)) {
			x := t.rand.Float64()
			channel := channels[int(x*x*float64(len(channels)))]
			b.Messages = append(b.Messages, text(channel, fmt.Sprint("message ", t.rand.IntN(1<<t.rand.IntN(30)))))
			n--
		}
		m.publish(t, e, b)
	}
}

var channels = []string{"a", "a/b/c", "b", "a/b", "x/y/z/w", "a/c", "a/b/d", "ab", "x", "x/y"}

var patterns = append([]string{
	"*", "**", "a/*", "a/**", "a/b/*", "a/b/**", "x/**", "x/y/z/*", "none", "none/*", "none/**", "a/b/c/**",
}, channels...)

// observe asks the engine which messages it keeps. They must be unchanged.
func (m *model) observe(t *tester, e engine.Engine) {
	t.Helper()
	clear(m.kept)
	last := uint64(0)
	for _, msg := range t.readAll(e, engine.Cursor{}, "**") {
		seq := msg.ID.Seq
		if msg.ID.Epoch != m.epoch || seq <= last || seq > m.end() {
			t.Fatalf("the log of %d messages has %v after %d", m.end(), msg.ID, last)
		}
		if want := m.messages[seq-1]; !equal(msg, want) {
			t.Fatalf("the log has %+v, want %+v", *msg, *want)
		}
		m.kept[seq-1] = true
		last = seq
	}
}

// of returns the kept and the removed messages of a channel or pattern.
func (m *model) of(pattern string) (kept, removed []*engine.Message) {
	for i, msg := range m.messages {
		if !engine.Match(pattern, msg.Channel) {
			continue
		}
		if m.kept[i] {
			kept = append(kept, msg)
		} else {
			removed = append(removed, msg)
		}
	}
	return kept, removed
}

// read answers a query.
func (m *model) read(q engine.Query) engine.Page {
	end := m.end()
	known := q.After.Epoch == m.epoch && q.After.Seq <= end
	page := engine.Page{Gap: !known && !q.After.IsZero(), Start: q.After}

	var trimmed, oldest uint64 = 0, math.MaxUint64
	var found []*engine.Message
	until := end
	if q.Until != 0 {
		until = min(until, q.Until)
	}
	for i, msg := range m.messages {
		seq := msg.ID.Seq
		matches, asked := false, false // asked: and after the channel's start
		for j, c := range q.Channels {
			start := uint64(0)
			if known {
				start = q.After.Seq
			}
			if q.From != nil {
				start = max(start, q.From[j])
			}
			if engine.Match(c, msg.Channel) {
				matches = true
				asked = asked || seq > start
			}
		}
		switch {
		case !matches:
		case !m.kept[i]:
			trimmed = seq
			page.Gap = page.Gap || known && asked
		case asked:
			oldest = min(oldest, seq)
			if seq <= until {
				found = append(found, msg)
			}
		}
	}
	if page.Gap || q.After.IsZero() {
		page.Start = m.cursor(min(trimmed, oldest-1))
	}
	page.End = m.cursor(max(until, page.Start.Seq))

	if q.Backward {
		slices.Reverse(found)
	}
	limit, bytes := q.Limit, 0
	if limit == 0 {
		limit = engine.DefaultLimit
	}
	for i, msg := range found {
		if i == limit || i > 0 && q.Bytes > 0 && bytes >= q.Bytes {
			page.More = true
			break
		}
		page.Messages = append(page.Messages, msg)
		bytes += len(msg.Data)
	}
	if q.Backward {
		slices.Reverse(page.Messages)
	} else if page.More {
		page.End = page.Messages[len(page.Messages)-1].ID
	}
	return page
}

// check reads the query from the engine and compares. With loose, gaps that
// are not due pass.
func (m *model) check(t *tester, e engine.Engine, q engine.Query, loose bool) {
	t.Helper()
	got, want := t.read(e, q), m.read(q)
	t.wantMessages("Read "+show(q), got.Messages, want.Messages)
	ok := got.Gap == want.Gap && got.Start == want.Start && got.End == want.End
	if loose {
		// The engine may take more for removed than was, and so begin later;
		// but never after a message that it has.
		ok = (got.Gap || !want.Gap) && got.Start.Epoch == m.epoch && got.End.Epoch == m.epoch &&
			got.Start.Seq >= want.Start.Seq && got.Start.Seq <= m.end() && got.End.Seq >= want.End.Seq
		if !got.Gap && !q.After.IsZero() {
			ok = ok && got.Start == q.After
		}
		if len(got.Messages) > 0 && (!q.Backward || !got.More) {
			ok = ok && got.Start.Seq < got.Messages[0].ID.Seq
		}
	}
	if !ok || got.More != want.More {
		t.Fatalf("Read %s of a log with end %d:\n got %s\nwant %s", show(q), m.end(), showPage(got), showPage(want))
	}
}

// checkRandom checks queries of all kinds.
func (m *model) checkRandom(t *tester, e engine.Engine, n int) {
	t.Helper()
	for range n {
		m.check(t, e, m.query(t), t.s.LooseGaps)
	}
}

// query makes up a query.
func (m *model) query(t *tester) engine.Query {
	r := t.rand
	seq := func() uint64 { return r.Uint64N(m.end() + 1) }
	q := engine.Query{Backward: r.IntN(3) == 0}
	for range 1 + r.IntN(1+r.IntN(12)) {
		q.Channels = append(q.Channels, patterns[r.IntN(len(patterns))])
	}
	switch r.IntN(10) {
	case 0: // the zero Cursor
	case 1:
		q.After = engine.Cursor{Epoch: "another", Seq: seq()}
	case 2:
		q.After = m.cursor(m.end() + 1 + seq())
	default:
		q.After = m.cursor(seq())
	}
	if r.IntN(3) == 0 {
		q.From = make([]uint64, len(q.Channels))
		for i := range q.From {
			q.From[i] = seq()
		}
	}
	if r.IntN(3) == 0 {
		q.Until = 1 + seq()
	}
	if r.IntN(2) == 0 {
		q.Limit = 1 + r.IntN(20)
	}
	if r.IntN(3) == 0 {
		q.Bytes = 1 + r.IntN(200)
	}
	return q
}
