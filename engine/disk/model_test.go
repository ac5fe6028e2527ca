package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/halley-comet/halley/engine"
)

// TestModel does random things to a log, crashes and reopening among them, and
// compares it with a list of all that was ever published. rapid prints the
// seed, and the shortest way to a failure.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{T: t, fs: vfs.NewCrashableMem(), keys: make(map[string]engine.Receipt)}
		m.opts = Options{
			Fsync:     rapid.SampledFrom([]Fsync{Group, Always}).Draw(t, "fsync"),
			TailBytes: rapid.SampledFrom([]int64{1, 30 * tailMessage, 0}).Draw(t, "tail"),
			Limit:     rapid.SampledFrom([]int64{0, 8 << 10}).Draw(t, "limit"),
			maxTrims:  rapid.SampledFrom([]uint64{0, 3}).Draw(t, "trims"),
			delay:     rapid.SampledFrom([]time.Duration{0, 1}).Draw(t, "delay"),
			channels:  rapid.SampledFrom([]int{0, 2}).Draw(t, "cached"),
			group:     rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "group"),
			Rules: []engine.RetentionRule{
				{Pattern: "a/**", Retention: engine.Retention{Count: 2}},
				{Pattern: "b/*", Retention: engine.Retention{Bytes: 30}},
				{Pattern: "c", Retention: engine.Retention{}},
			},
		}
		m.open()
		m.epoch = m.log.End().Epoch
		defer func() { m.log.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "read": m.read, "reopen": m.reopen, "crash": m.crash, "repeat": m.repeat, "tail": m.tail,
		})
	})
}

type model struct {
	*rapid.T
	fs       *vfs.MemFS
	opts     Options
	log      *Log
	epoch    string
	messages []*engine.Message // sequence s is at s-1
	keys     map[string]engine.Receipt
}

var (
	modelChannels = []string{"a", "a/x", "a/x/y", "b/x", "b/y", "c", "d/x"}
	modelPatterns = append([]string{"*", "**", "a/*", "a/**", "b/*", "b/**", "none", "none/*"}, modelChannels...)
)

func (m *model) open() {
	m.opts.fs = m.fs
	l, err := Open("log", m.opts)
	if err != nil {
		m.Fatalf("Open: %v", err)
	}
	m.log = l
	m.check()
	if _, err := l.Verify(context.Background()); err != nil {
		m.Fatal(err)
	}
}

// check wants the end where it was.
func (m *model) check() {
	if end := m.log.End(); m.epoch != "" && end != (engine.Cursor{Epoch: m.epoch, Seq: uint64(len(m.messages))}) {
		m.Fatalf("End is %v, want %s-%d", end, m.epoch, len(m.messages))
	}
}

func (m *model) publish(t *rapid.T) {
	var b engine.Batch
	for range rapid.IntRange(1, 40).Draw(t, "messages") {
		b.Messages = append(b.Messages, engine.Message{
			Channel: rapid.SampledFrom(modelChannels).Draw(t, "channel"), Data: fmt.Append(nil, "message ", len(m.messages)+len(b.Messages)+1),
		})
	}
	if rapid.Bool().Draw(t, "keyed") {
		b.Key = fmt.Sprint(len(m.messages))
	}
	r, err := m.log.Append(context.Background(), b)
	if err != nil || r.First.Seq != uint64(len(m.messages)+1) || r.Count != len(b.Messages) || r.Repeated {
		t.Fatalf("Append: %+v, %v", r, err)
	}
	for i := range b.Messages {
		msg := &b.Messages[i]
		msg.ID = r.ID(i)
		m.messages = append(m.messages, msg)
	}
	if b.Key != "" {
		m.keys[b.Key] = r
	}
	m.check()
}

// repeat publishes again under a key, and wants the first receipt.
func (m *model) repeat(t *rapid.T) {
	for key, want := range m.keys {
		want.Repeated = true
		got, err := m.log.Append(context.Background(), engine.Batch{Key: key, Messages: []engine.Message{{Channel: "a"}}})
		if err != nil || got != want {
			t.Fatalf("Append again under %s: %+v, %v, want %+v", key, got, err, want)
		}
	}
}

func (m *model) reopen(*rapid.T) {
	if err := m.log.Close(); err != nil {
		m.Fatalf("Close: %v", err)
	}
	m.open()
}

func (m *model) crash(t *rapid.T) {
	seed := rapid.Uint64().Draw(t, "seed")
	crashed := m.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "unsynced"), RNG: rand.New(rand.NewPCG(seed, 0)),
	})
	m.log.Close()
	m.fs = crashed
	m.open()
}

func (m *model) tail(t *rapid.T) {
	after := rapid.IntRange(0, len(m.messages)).Draw(t, "after")
	got, ok := m.log.Tail(m.log.cursor(uint64(after)), make([]*engine.Message, 0, 50))
	if !ok {
		return
	}
	if len(got) != min(50, len(m.messages)-after) {
		t.Fatalf("Tail after %d of %d: %d messages", after, len(m.messages), len(got))
	}
	m.wantSame(t, got)
}

func (m *model) wantSame(t *rapid.T, got []*engine.Message) {
	for i, msg := range got {
		want := m.messages[msg.ID.Seq-1]
		if msg.ID != want.ID || msg.Channel != want.Channel || string(msg.Data) != string(want.Data) {
			t.Fatalf("got %+v, want %+v", msg, want)
		}
		if i > 0 && got[i-1].ID.Seq >= msg.ID.Seq {
			t.Fatalf("%v comes after %v", msg.ID, got[i-1].ID)
		}
	}
}

// kept asks the log which messages it has.
func (m *model) kept(t *rapid.T) []bool {
	kept := make([]bool, len(m.messages)+1)
	q := engine.Query{Channels: []string{"**"}}
	for {
		page, err := m.log.Read(context.Background(), q)
		if err != nil {
			t.Fatalf("Read %+v: %v", q, err)
		}
		m.wantSame(t, page.Messages)
		for _, msg := range page.Messages {
			kept[msg.ID.Seq] = true
		}
		if !page.More {
			return kept
		}
		q.After = page.End
	}
}

// read asks for something. What is removed meanwhile may be there or not.
func (m *model) read(t *rapid.T) {
	end := len(m.messages)
	q := engine.Query{
		Channels: rapid.SliceOfN(rapid.SampledFrom(modelPatterns), 1, 5).Draw(t, "channels"),
		Backward: rapid.Bool().Draw(t, "backward"),
		Limit:    rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "limit"),
		After:    m.log.cursor(rapid.Uint64Range(0, uint64(end)).Draw(t, "after")),
	}
	if rapid.Bool().Draw(t, "bounded") {
		q.Until = rapid.Uint64Range(1, uint64(end)+1).Draw(t, "until")
	}
	before := m.kept(t)
	page, err := m.log.Read(context.Background(), q)
	if err != nil {
		t.Fatalf("Read %+v: %v", q, err)
	}
	after := m.kept(t)
	m.wantSame(t, page.Messages)

	got := make(map[uint64]bool)
	var first, last uint64
	for i, msg := range page.Messages {
		got[msg.ID.Seq] = true
		if i == 0 {
			first = msg.ID.Seq
		}
		last = msg.ID.Seq
	}
	missing, gone := false, false
	for i, msg := range m.messages {
		seq := uint64(i + 1)
		if seq <= q.After.Seq || !slices.ContainsFunc(q.Channels, func(p string) bool { return engine.Match(p, msg.Channel) }) {
			continue
		}
		missing = missing || !before[seq]
		gone = gone || !after[seq]
		inPage := (q.Until == 0 || seq <= q.Until) && (!page.More || !q.Backward && seq <= last || q.Backward && seq >= first)
		if got[seq] && !inPage || !got[seq] && inPage && before[seq] && after[seq] {
			t.Fatalf("Read %+v: %d is in the page: %v, wanted %v (more %v)", q, seq, got[seq], inPage, page.More)
		}
	}
	if page.Gap != missing && (page.Gap != gone && m.opts.maxTrims == 0 || missing) {
		t.Fatalf("Read %+v: gap %v, missing before %v, after %v", q, page.Gap, missing, gone)
	}
	if len(page.Messages) > 0 && !page.More && (page.Start.Seq >= first || page.End.Seq < last) {
		t.Fatalf("Read %+v: from %v to %v, messages %d to %d", q, page.Start, page.End, first, last)
	}
}
