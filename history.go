package halley

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// What one page of history holds.
const (
	historyDefault = 100 // messages
	historyMax     = 1000
	historyBytes   = 4 << 20 // of data
)

// serveHistory answers GET history.
func (h *Hub) serveHistory(w http.ResponseWriter, r *http.Request) {
	form, p := query(r)
	if p != nil {
		h.refuse(w, p)
		return
	}
	q, p := h.historyQuery(form)
	if p == nil {
		p = h.mayRead(r, form, q.Channels)
	}
	if p != nil {
		h.refuse(w, p)
		return
	}
	var page Page
	if q.nothing {
		page.End = Cursor{Epoch: h.engine.End().Epoch}
	} else {
		var err error
		if page, err = h.engine.Read(r.Context(), q.Query); err != nil {
			h.refuse(w, h.problem(err))
			return
		}
	}
	body := wire.Page{Cursor: page.End, Gap: q.gap || page.Gap, History: true, More: page.More}
	for _, m := range page.Messages {
		body.Envelopes = append(body.Envelopes, wire.AppendEnvelope(nil, m))
	}
	switch n := len(page.Messages); {
	case q.Backward && n > 0:
		body.Cursor = page.Messages[0].ID
	case q.Backward:
		body.Cursor = q.before
	case n > 0:
		body.Cursor = page.Messages[n-1].ID
	}
	h.writeJSON(w, body.Append(nil))
}

// A historyQuery is a history request, read and checked.
type historyQuery struct {
	Query
	before Cursor
	// gap is set if a bound names a position that this log never had.
	gap bool
	// nothing is set if a bound lies before the first message, which the
	// Query's own cannot say.
	nothing bool
}

func (h *Hub) historyQuery(form url.Values) (q historyQuery, p *wire.Problem) {
	if q.Channels, p = transport.Channels(form["channel"], h.opts.MaxChannels); p != nil {
		return q, p
	}
	if len(q.Channels) == 0 {
		return q, wire.NewProblem(wire.InvalidChannel, "channel is missing: name at least one")
	}
	q.Limit, q.Bytes = historyDefault, historyBytes
	if s := form.Get("limit"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return q, wire.NewProblem(wire.InvalidParameter, fmt.Sprintf("limit %.40q: want 1 to %d", s, historyMax))
		}
		q.Limit = min(int(n), historyMax)
	}
	end := h.engine.End()
	if s := form.Get("cursor"); s != "" {
		start, p := transport.ParseStart(s)
		if p != nil {
			return q, p
		}
		if q.After = start.Cursor; start.Now {
			q.After = end
		}
	}
	if s := form.Get("until"); s != "" {
		until, p := q.bound(s, end)
		if p != nil {
			return q, p
		}
		q.stopAt(until.Seq)
	}
	if s := form.Get("before"); s != "" {
		if q.before, p = q.bound(s, end); p != nil {
			return q, p
		}
		q.Backward = true
		q.stopAt(max(q.before.Seq, 1) - 1)
		q.before.Seq = min(q.before.Seq, end.Seq) // what a client may be given
	}
	return q, nil
}

// bound reads a position that history is to stop at. Of another epoch's
// position nothing is known but that the present log came after it or instead.
func (q *historyQuery) bound(s string, end Cursor) (Cursor, *wire.Problem) {
	at, p := transport.ParseStart(s)
	afterEnd := Cursor{Epoch: end.Epoch, Seq: end.Seq + 1}
	switch {
	case p != nil:
		return Cursor{}, p
	case at.Now:
		return afterEnd, nil
	case at.Cursor.IsZero():
		return Cursor{Epoch: end.Epoch}, nil
	case at.Cursor.Epoch != end.Epoch:
		q.gap = true
		return afterEnd, nil
	}
	return at.Cursor, nil
}

// stopAt bounds the query at a sequence, inclusive.
func (q *historyQuery) stopAt(seq uint64) {
	switch {
	case seq == 0:
		q.nothing = true
	case q.Until == 0 || seq < q.Until:
		q.Until = seq
	}
}
