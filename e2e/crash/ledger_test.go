package crash

import (
	"testing"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// An entry is a message and its place.
type entry struct {
	seq  uint64
	name name
}

// A ledger is the log as history shows it, read on after each crash.
type ledger struct {
	t       *testing.T
	client  *comet.Client
	cursor  string
	entries []entry
	at      map[name]uint64
	time    int64
	last    uint64

	lost, doubled, disordered int
	epochs                    map[string]bool
}

func newLedger(t *testing.T, client *comet.Client, cursor string) *ledger {
	return &ledger{t: t, client: client, cursor: cursor, at: make(map[name]uint64), epochs: make(map[string]bool)}
}

// read reads on to the log's end. A gap is only right if retention is on.
func (l *ledger) read(retention bool) {
	l.t.Helper()
	for {
		page, err := l.client.History(l.t.Context(), comet.Query{Channels: []string{"**"}, Cursor: l.cursor, Limit: 1000})
		if err != nil {
			l.t.Fatalf("history after %s: %v", l.cursor, err)
		}
		if page.Gap && !retention {
			l.lost++
			l.t.Errorf("history after %s: a gap", l.cursor)
		}
		for _, m := range page.Messages {
			l.add(m)
		}
		l.cursor = page.Cursor
		if !page.More {
			return
		}
	}
}

func (l *ledger) add(m comet.Message) {
	l.t.Helper()
	n, err := nameOf(m)
	if err != nil {
		l.t.Error(err)
	}
	id, err := engine.ParseCursor(m.ID)
	if err != nil {
		l.t.Error(err)
	}
	if l.epochs[id.Epoch] = true; len(l.epochs) > 1 {
		l.t.Errorf("%s is of another epoch: %v", m.ID, l.epochs)
	}
	if id.Seq <= l.last || m.Time < l.time {
		l.disordered++
		l.t.Errorf("%d of time %d comes after %d of %d", id.Seq, m.Time, l.last, l.time)
	}
	if at, ok := l.at[n]; ok {
		l.doubled++
		l.t.Errorf("%v is at %d and at %d", n, at, id.Seq)
	}
	l.last, l.time, l.at[n] = id.Seq, m.Time, id.Seq
	l.entries = append(l.entries, entry{id.Seq, n})
}

// check compares what publishers did with the log. It returns the number of
// messages that were acknowledged.
func (l *ledger) check(done []*publish) (acked int) {
	l.t.Helper()
	for _, r := range done {
		if r.first != 0 {
			acked += len(r.names)
			for i, n := range r.names {
				if at := l.at[n]; at != r.first+uint64(i) {
					l.lost++
					l.t.Errorf("%v was acknowledged at %d and is at %d", n, r.first+uint64(i), at)
				}
			}
			continue
		}
		// Nobody knows; but it was one request.
		first := l.at[r.names[0]]
		for i, n := range r.names {
			want := first
			if first != 0 {
				want += uint64(i)
			}
			if at := l.at[n]; at != want {
				l.disordered++
				l.t.Errorf("%v is at %d, and the first of its batch at %d", n, at, first)
			}
		}
	}
	return acked
}
