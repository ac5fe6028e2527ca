package crashtest

import (
	"testing"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
)

// An Entry is a message and its place.
type Entry struct {
	Seq  uint64
	Name Name
}

// A Ledger is the log as history shows it, read on after each crash.
type Ledger struct {
	t       *testing.T
	client  *comet.Client
	cursor  string
	Entries []Entry
	At      map[Name]uint64 // the place of each
	time    int64
	Last    uint64 // the newest place

	Lost, Doubled, Disordered int
	Epochs                    map[string]bool
}

// NewLedger returns a ledger of what comes after a cursor, not read yet.
func NewLedger(t *testing.T, client *comet.Client, cursor string) *Ledger {
	return &Ledger{t: t, client: client, cursor: cursor, At: make(map[Name]uint64), Epochs: make(map[string]bool)}
}

// Read reads on to the log's end. A gap is only right if retention is on.
func (l *Ledger) Read(retention bool) {
	l.t.Helper()
	for {
		page, err := l.client.History(l.t.Context(), comet.Query{Channels: []string{"**"}, Cursor: l.cursor, Limit: 1000})
		if err != nil {
			l.t.Fatalf("history after %s: %v", l.cursor, err)
		}
		if page.Gap && !retention {
			l.Lost++
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

func (l *Ledger) add(m comet.Message) {
	l.t.Helper()
	n, err := nameOf(m)
	if err != nil {
		l.t.Error(err)
	}
	id, err := engine.ParseCursor(m.ID)
	if err != nil {
		l.t.Error(err)
	}
	if l.Epochs[id.Epoch] = true; len(l.Epochs) > 1 {
		l.t.Errorf("%s is of another epoch: %v", m.ID, l.Epochs)
	}
	if id.Seq <= l.Last || m.Time < l.time {
		l.Disordered++
		l.t.Errorf("%d of time %d comes after %d of %d", id.Seq, m.Time, l.Last, l.time)
	}
	if at, ok := l.At[n]; ok {
		l.Doubled++
		l.t.Errorf("%v is at %d and at %d", n, at, id.Seq)
	}
	l.Last, l.time, l.At[n] = id.Seq, m.Time, id.Seq
	l.Entries = append(l.Entries, Entry{id.Seq, n})
}

// Check compares what publishers did with the log. It returns the number of
// messages that were acknowledged.
func (l *Ledger) Check(done []*Publish) (acked int) {
	l.t.Helper()
	for _, r := range done {
		if r.First != 0 {
			acked += len(r.Names)
			for i, n := range r.Names {
				if at := l.At[n]; at != r.First+uint64(i) {
					l.Lost++
					l.t.Errorf("%v was acknowledged at %d and is at %d", n, r.First+uint64(i), at)
				}
			}
			continue
		}
		// Nobody knows; but it was one request.
		first := l.At[r.Names[0]]
		for i, n := range r.Names {
			want := first
			if first != 0 {
				want += uint64(i)
			}
			if at := l.At[n]; at != want {
				l.Disordered++
				l.t.Errorf("%v is at %d, and the first of its batch at %d", n, at, first)
			}
		}
	}
	return acked
}
