package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

// A crasher publishes and reads a log whose machine loses its power again and
// again, and keeps the books.
type crasher struct {
	*testing.T
	rand    *rand.Rand
	fs      *vfs.MemFS
	syncs   syncHold
	opts    Options
	boot    int // of the machine
	epoch   string
	serial  int // of publishers
	readers []*reader

	acked, lost, doubled, disordered int
	torn                             int // openings that cut something off
	epochs                           map[string]bool

	mu      sync.Mutex
	over    bool // what is told from now on, the crash may take back
	left    int  // appends before enough is closed
	enough  chan struct{}
	known   map[uint64]string // "channel data" by sequence, acknowledged or shown to a reader
	end     uint64            // the highest position that was told
	keys    []keyed           // that were acknowledged
	pending []engine.Batch    // under keys, and their publishers do not know
}

// A keyed is a batch that was acknowledged under a key.
type keyed struct {
	batch   engine.Batch
	receipt engine.Receipt
}

func newCrasher(t *testing.T, opts Options) *crasher {
	c := &crasher{T: t, rand: crashtest.Seeded(t), fs: vfs.NewCrashableMem(), opts: opts, known: make(map[uint64]string), epochs: make(map[string]bool)}
	c.opts.Rules = []engine.RetentionRule{
		{Pattern: "few/*", Retention: engine.Retention{Count: 3}},
		{Pattern: "**", Retention: engine.Retention{}},
	}
	c.opts.bootID = func() string { return fmt.Sprint("boot ", c.boot) }
	c.readers = []*reader{
		{channels: []string{"**"}, tails: true},
		{channels: []string{"keep/**"}},
		{channels: []string{"keep/a/b", "few/*"}},
	}
	return c
}

// run goes through so many crashes. A crash returns what is then on the disk.
func (c *crasher) run(rounds int, crash func(*Log) *vfs.MemFS) {
	for range rounds {
		l := c.open()
		c.check(l)
		c.load(l, crash)
	}
	l := c.open()
	defer l.Close()
	c.check(l)
	for _, r := range c.readers {
		c.checkReader(l, r)
	}
	c.Logf("%d rounds: acknowledged %d, lost %d, doubled %d, out of order %d, epochs %d; %d torn ends",
		rounds, c.acked, c.lost, c.doubled, c.disordered, len(c.epochs), c.torn)
}

func (c *crasher) open() *Log {
	c.boot++
	c.opts.fs = errorfs.Wrap(c.fs, &c.syncs)
	l, err := Open("log", c.opts)
	if err != nil {
		c.Fatalf("Open after crash %d: %v", c.boot-1, err)
	}
	if l.Opened().Cut > 0 {
		c.torn++
	}
	return l
}

// load publishes and reads until the power is cut.
func (c *crasher) load(l *Log, crash func(*Log) *vfs.MemFS) {
	var wg sync.WaitGroup
	enough := make(chan struct{})
	c.mu.Lock()
	c.over, c.left, c.enough = false, 1+c.rand.IntN(400), enough
	c.mu.Unlock()
	for p := range 8 {
		c.serial++
		serial, choose := c.serial, rand.New(rand.NewPCG(c.rand.Uint64(), 0))
		wg.Go(func() {
			for i := 0; ; i++ {
				if !c.publish(l, newBatch(choose, serial, i, p)) {
					return
				}
			}
		})
	}
	for _, r := range c.readers {
		wg.Go(func() {
			for r.read(c, l) {
			}
		})
	}
	await(l, enough)
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	crashed := crash(l)
	l.Close()
	wg.Wait()
	c.fs = crashed
}

// await waits for something that publishers bring about, unless the log stops.
func await[T any](l *Log, happens <-chan T) (v T) {
	select {
	case v = <-happens:
	case <-l.fault.stopped:
	}
	return v
}

// newBatch returns a batch that no other is equal to.
func newBatch(choose *rand.Rand, serial, i, p int) engine.Batch {
	var b engine.Batch
	for j := range 1 + (i+p)%3 {
		data := fmt.Appendf(nil, "%d %d %d ", serial, i, j)
		if choose.IntN(20) == 0 {
			for n := choose.IntN(16 << 10); len(data) < n; {
				data = append(data, byte(choose.Uint32()))
			}
		}
		b.Messages = append(b.Messages, engine.Message{Channel: []string{"keep/a", "few/a", "keep/a/b", "few/b"}[(i+j)%4], Data: data})
	}
	if choose.IntN(3) == 0 {
		b.Key = fmt.Sprint(serial, " ", i)
		copy(b.Digest[:], b.Key)
	}
	return b
}

func text(m *engine.Message) string { return m.Channel + " " + string(m.Data) }

// publish reports whether the log still takes something.
func (c *crasher) publish(l *Log, b engine.Batch) bool {
	r, err := l.Append(context.Background(), b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.enough)
	}
	switch {
	case c.over:
		if b.Key != "" {
			c.pending = append(c.pending, b)
		}
		return err == nil
	case err != nil:
		c.Errorf("Append: %v", err)
		return false
	}
	c.acknowledge(b, r)
	return true
}

// acknowledge notes what was promised. It is called with mu held.
func (c *crasher) acknowledge(b engine.Batch, r engine.Receipt) {
	for j := range b.Messages {
		c.know(r.ID(j).Seq, text(&b.Messages[j]))
	}
	c.acked += r.Count
	if b.Key != "" {
		c.keys = append(c.keys, keyed{b, r})
	}
}

// know notes that somebody was told of a message. It is called with mu held.
func (c *crasher) know(seq uint64, text string) {
	if was, ok := c.known[seq]; ok && was != text {
		c.lost++
		c.Errorf("%d is %.60q, and was %.60q", seq, text, was)
	}
	c.known[seq] = text
	c.end = max(c.end, seq)
}

// check compares what a crash has left with what was told before.
func (c *crasher) check(l *Log) {
	if c.opts.Fsync == Never && c.epoch != "" {
		c.forget(l)
	}
	end := l.End()
	c.epochs[end.Epoch] = true
	c.epoch = end.Epoch
	if c.opts.Fsync != Never && len(c.epochs) > 1 || end.Seq < c.end {
		c.Fatalf("the log ends at %v, told was %d, epochs %v", end, c.end, c.epochs)
	}
	if _, err := l.Verify(context.Background()); err != nil {
		c.Error(err)
	}
	kept := make(map[uint64]bool)
	at := make(map[string]uint64)
	var last, time uint64
	for _, m := range readAll(c.T, l, "**") {
		seq, text := m.ID.Seq, text(m)
		if at[text] != 0 {
			c.doubled++
			c.Errorf("%.60q is at %d and at %d", text, at[text], seq)
		}
		if seq <= last || uint64(m.Time) < time {
			c.disordered++
			c.Errorf("%d of time %d comes after %d of %d", seq, m.Time, last, time)
		}
		at[text], kept[seq], last, time = seq, true, seq, uint64(m.Time)
		// It may have been stored and nobody told.
		c.know(seq, text)
	}
	c.checkMissing(l, kept)
	c.checkKeys(l)
	c.checkPending(l, at)
	c.end = l.End().Seq
}

// forget drops what was told, which a power cut may take back with Never. The
// cursors from before must be gaps then.
func (c *crasher) forget(l *Log) {
	page, err := l.Read(context.Background(), engine.Query{Channels: []string{"**"}, After: engine.Cursor{Epoch: c.epoch, Seq: 1}})
	if err != nil || !page.Gap || l.End().Epoch == c.epoch {
		c.Errorf("after a power cut with fsync never: epoch %s, before %s; gap %v, %v", l.End().Epoch, c.epoch, page.Gap, err)
	}
	clear(c.known)
	c.end, c.keys, c.pending = 0, nil, nil
	for _, r := range c.readers {
		*r = reader{channels: r.channels, tails: r.tails}
	}
}

// removable tells whether retention removes messages of a channel.
func (c *crasher) removable(channel string) bool {
	return c.opts.Limit > 0 || engine.Match("few/*", channel)
}

// checkMissing wants a gap where something is not there any more.
func (c *crasher) checkMissing(l *Log, kept map[uint64]bool) {
	missing := make(map[string]uint64) // the highest of each channel
	for seq, text := range c.known {
		channel, _, _ := strings.Cut(text, " ")
		switch {
		case kept[seq]:
		case c.removable(channel):
			missing[channel] = max(missing[channel], seq)
		default:
			c.lost++
			c.Errorf("%d, %.60q, was told and is missing", seq, text)
		}
	}
	for channel, seq := range missing {
		parent := channel[:strings.LastIndex(channel, "/")]
		for _, pattern := range []string{channel, parent + "/*", parent + "/**", "**"} {
			page, err := l.Read(context.Background(), engine.Query{Channels: []string{pattern}, After: l.cursor(seq - 1)})
			if err != nil || !page.Gap {
				c.Errorf("Read %s after %d, which is missing: gap %v, %v", pattern, seq-1, page.Gap, err)
			}
		}
	}
}

// checkKeys publishes again under keys that were acknowledged: those of the
// last rounds, and some older ones.
func (c *crasher) checkKeys(l *Log) {
	for i, k := range c.keys {
		old := i < len(c.keys)-500
		if old && (c.opts.Limit > 0 || c.rand.IntN(len(c.keys)) > 100) {
			continue // a limit bounds keys as well
		}
		r, err := l.Append(context.Background(), k.batch)
		want := k.receipt
		want.Repeated = true
		if err != nil || r != want {
			c.doubled++
			c.Errorf("Append again under %q: %+v, %v, want %+v", k.batch.Key, r, err, want)
		}
		k.batch.Digest[31]++
		if _, err = l.Append(context.Background(), k.batch); !errors.Is(err, engine.ErrKeyReused) {
			c.Errorf("Append other content under %q: %v, want %v", k.batch.Key, err, engine.ErrKeyReused)
		}
	}
}

// checkPending repeats what nobody knows of, as publishers do. A key is there
// if and only if its messages were stored.
func (c *crasher) checkPending(l *Log, at map[string]uint64) {
	for _, b := range c.pending {
		r, err := l.Append(context.Background(), b)
		if err != nil {
			c.Errorf("Append again under %q, which is not known: %v", b.Key, err)
			continue
		}
		for j := range b.Messages {
			m := &b.Messages[j]
			seq, ok := at[text(m)]
			switch {
			case ok && (!r.Repeated || r.ID(j).Seq != seq):
				c.doubled++
				c.Errorf("%q is at %d; repeated under its key it is at %d, repeated %v", text(m), seq, r.ID(j).Seq, r.Repeated)
			case !ok && r.Repeated && !c.removable(m.Channel):
				c.lost++
				c.Errorf("the key %q is known and its message %q is not there", b.Key, text(m))
			}
		}
		if r.Repeated && r.ID(r.Count-1).Seq > c.end {
			c.end = r.ID(r.Count - 1).Seq
		}
		c.mu.Lock()
		c.acknowledge(b, r)
		c.mu.Unlock()
	}
	c.pending = nil
}

// A reader reads some channels on and on from its cursor, which outlives every
// crash.
type reader struct {
	channels []string
	tails    bool // it reads by Tail where that goes
	cursor   engine.Cursor
	saw      map[uint64]bool
	gaps     [][2]uint64 // told to it: from exclusive, to inclusive
}

// read reports whether there may be more to read.
func (r *reader) read(c *crasher, l *Log) bool {
	if r.cursor == (engine.Cursor{}) {
		// Not the zero cursor, from which nothing is a gap.
		r.cursor = l.cursor(0)
	}
	if err := l.Wait(context.Background(), r.cursor); err != nil {
		return false
	}
	page := engine.Page{Start: r.cursor}
	var ok bool
	if r.tails {
		page.Messages, ok = l.Tail(r.cursor, make([]*engine.Message, 0, 64))
		if page.End = r.cursor; len(page.Messages) > 0 {
			page.End = page.Messages[len(page.Messages)-1].ID
		}
	}
	if !ok {
		var err error
		if page, err = l.Read(context.Background(), engine.Query{Channels: r.channels, After: r.cursor, Limit: 100}); err != nil {
			return false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	r.take(c, page)
	return true
}

// take notes a page. It is called with the crasher's mu held.
func (r *reader) take(c *crasher, page engine.Page) {
	if page.Gap {
		// Messages may be missing between those of the page as well.
		r.gaps = append(r.gaps, [2]uint64{r.cursor.Seq, page.End.Seq})
		for _, channel := range r.channels {
			if c.opts.Limit == 0 && engine.Match(channel, "keep/a") && !engine.Match(channel, "few/a") {
				c.Errorf("%v: a gap after %v", r.channels, r.cursor)
			}
		}
	}
	if r.saw == nil {
		r.saw = make(map[uint64]bool)
	}
	last := page.Start.Seq
	for _, m := range page.Messages {
		if m.ID.Seq <= last || m.ID.Epoch != c.epoch {
			c.disordered++
			c.Errorf("%v: %v comes after %d", r.channels, m.ID, last)
		}
		last = m.ID.Seq
		c.know(m.ID.Seq, text(m))
		r.saw[m.ID.Seq] = true
	}
	if page.End.Seq < last {
		c.Errorf("%v: a page to %v has a message at %d", r.channels, page.End, last)
	}
	c.end = max(c.end, page.End.Seq)
	r.cursor = page.End
}

// checkReader lets a reader come to the end, and wants it to have seen all
// there was, or been told of a gap.
func (c *crasher) checkReader(l *Log, r *reader) {
	c.over = false
	for r.cursor != l.End() {
		if !r.read(c, l) {
			c.Fatalf("%v: reading ended at %v", r.channels, r.cursor)
		}
	}
	for seq, text := range c.known {
		channel, _, _ := strings.Cut(text, " ")
		wanted := false
		for _, pattern := range r.channels {
			wanted = wanted || engine.Match(pattern, channel)
		}
		told := false
		for _, gap := range r.gaps {
			told = told || seq > gap[0] && seq <= gap[1]
		}
		if r.saw[seq] != wanted && (r.saw[seq] || !told) {
			c.lost++
			c.Errorf("%v: %d of %s was shown: %v, wanted %v", r.channels, seq, channel, r.saw[seq], wanted)
		}
	}
}

// A syncHold can hold up the syncs of the write-ahead log. It injects no
// errors.
type syncHold struct {
	mu   sync.Mutex
	held chan string   // gets the name of a log whose sync is held up; nil if none is to be
	free chan struct{} // lets it go on
}

// hold holds up all syncs from now on. The channel gets the name of the first
// log that was written and is not synced.
func (h *syncHold) hold() (held chan string, release func()) {
	free := make(chan struct{})
	held = make(chan string, 1)
	h.mu.Lock()
	h.held, h.free = held, free
	h.mu.Unlock()
	return held, func() {
		h.mu.Lock()
		h.held = nil
		h.mu.Unlock()
		close(free)
	}
}

// MaybeError implements errorfs.Injector.
func (h *syncHold) MaybeError(op errorfs.Op) error {
	if op.Kind != errorfs.OpFileSync && op.Kind != errorfs.OpFileSyncData || !strings.HasSuffix(op.Path, ".log") {
		return nil
	}
	h.mu.Lock()
	held, free := h.held, h.free
	h.mu.Unlock()
	if held == nil {
		return nil
	}
	select {
	case held <- op.Path:
	default:
	}
	<-free
	return nil
}

// String implements errorfs.Injector.
func (h *syncHold) String() string { return "syncs" }
