package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
)

// patience is how long a check waits for what must come.
const patience = 30 * time.Second

// A tester is what a check runs with.
type tester struct {
	testing.TB
	s      Suite
	ctx    context.Context // ends after patience
	rand   *rand.Rand      // for the check's goroutine alone
	opened []engine.Engine
	wg     sync.WaitGroup // goroutines, which the check may leave when it fails
}

// runCheck runs a check, closes its engines and looks for what they leave.
func runCheck(tb testing.TB, s Suite, c check) {
	before := goroutines()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t := &tester{TB: tb, s: s, ctx: ctx, rand: rand.New(rand.NewPCG(s.Seed, 0))}
	defer func() {
		cancel()
		for _, e := range t.opened {
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		t.wg.Wait()
		if !t.Failed() {
			t.checkLeaks(before)
		}
	}()
	t.Logf("seed %d", s.Seed)
	c.run(t)
}

// checkLeaks wants the goroutines gone that the check has begun. Those that
// have nothing left to do get a while to end, which is counted in yields since
// time stands still in a bubble while this runs.
func (t *tester) checkLeaks(before map[string]string) {
	t.Helper()
	var leaks map[string]string
	for range 500 {
		leaks = goroutines()
		maps.DeleteFunc(leaks, func(id, _ string) bool { return before[id] != "" })
		if len(leaks) == 0 {
			return
		}
		for range 2000 {
			runtime.Gosched()
		}
	}
	for id, stack := range leaks {
		t.Errorf("goroutine %s is left after Close:\n%s", id, stack)
	}
}

// goroutines returns the stacks of all goroutines by their number.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	n := runtime.Stack(buf, true)
	for ; n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		all[id] = stack
	}
	return all
}

// open opens an engine on a new directory.
func (t *tester) open(o Options) engine.Engine {
	t.Helper()
	return t.openAt(t.TempDir(), o)
}

func (t *tester) openAt(dir string, o Options) engine.Engine {
	t.Helper()
	e, err := t.s.Open(dir, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.opened = append(t.opened, e)
	return e
}

// close closes an engine in the middle of a check.
func (t *tester) close(e engine.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	t.drop(e)
}

// drop leaves an engine that has ended to itself.
func (t *tester) drop(e engine.Engine) {
	t.opened = slices.DeleteFunc(t.opened, func(o engine.Engine) bool { return o == e })
}

// append appends what must be appended, and waits until readers may see it.
func (t *tester) append(e engine.Engine, b engine.Batch) engine.Receipt {
	t.Helper()
	r, err := e.Append(t.ctx, b)
	if err != nil {
		t.Fatalf("Append of %d messages: %v", len(b.Messages), err)
	}
	t.awaitEnd(e, r.ID(r.Count-1).Seq)
	return r
}

// awaitEnd waits until End has come to the sequence.
func (t *tester) awaitEnd(e engine.Engine, seq uint64) {
	t.Helper()
	for {
		end := e.End()
		if end.Seq >= seq {
			return
		}
		if err := e.Wait(t.ctx, end); err != nil {
			t.Fatalf("Wait for %d at %v: %v", seq, end, err)
		}
	}
}

// read reads what must be readable.
func (t *tester) read(e engine.Engine, q engine.Query) engine.Page {
	t.Helper()
	page, err := e.Read(t.ctx, q)
	if err != nil {
		t.Fatalf("Read %s: %v", show(q), err)
	}
	return page
}

// readAll returns all messages of the channels after the cursor, page by page.
func (t *tester) readAll(e engine.Engine, after engine.Cursor, channels ...string) []*engine.Message {
	t.Helper()
	var all []*engine.Message
	for {
		page := t.read(e, engine.Query{Channels: channels, After: after})
		all = append(all, page.Messages...)
		if !page.More {
			return all
		}
		if page.End == after || len(page.Messages) == 0 {
			t.Fatalf("Read %v after %v: more, but no way on: %s", channels, after, showPage(page))
		}
		after = page.End
	}
}

// pass lets time pass.
func (t *tester) pass(e engine.Engine, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, d)
	defer cancel()
	if err := e.Wait(ctx, e.End()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait at the end of a quiet log: got %v, want %v", err, context.DeadlineExceeded)
	}
}

// eventually waits until ok is true, for what engines do in the background. It
// tells whether that came to pass.
func (t *tester) eventually(e engine.Engine, ok func() bool) bool {
	t.Helper()
	for range 100 {
		if ok() {
			return true
		}
		t.pass(e, t.s.Tick/4)
	}
	return ok()
}

// wantError wants one of the errors.
func (t *tester) wantError(what string, got error, want ...error) {
	t.Helper()
	for _, w := range want {
		if errors.Is(got, w) {
			return
		}
	}
	t.Errorf("%s: got error %v, want %v", what, got, want)
}

// wantMessages compares messages in all that they carry.
func (t *tester) wantMessages(what string, got, want []*engine.Message) {
	t.Helper()
	if !slices.Equal(seqs(got), seqs(want)) {
		t.Fatalf("%s: got messages %s, want %s", what, ranges(got), ranges(want))
	}
	for i := range got {
		if !equal(got[i], want[i]) {
			t.Fatalf("%s: got %+v, want %+v", what, *got[i], *want[i])
		}
	}
}

// equal tells whether two messages are the same. Nil and empty are.
func equal(a, b *engine.Message) bool {
	x, y := *a, *b
	x.Data, y.Data = append([]byte{}, x.Data...), append([]byte{}, y.Data...)
	if len(x.Headers) == 0 && len(y.Headers) == 0 {
		x.Headers, y.Headers = nil, nil
	}
	return reflect.DeepEqual(x, y)
}

func seqs(messages []*engine.Message) []uint64 {
	s := make([]uint64, len(messages))
	for i, m := range messages {
		s[i] = m.ID.Seq
	}
	return s
}

// ranges shows the messages' sequences, those without a hole as first-last.
func ranges(messages []*engine.Message) string {
	var b strings.Builder
	b.WriteByte('[')
	for i := 0; i < len(messages); {
		first := messages[i].ID.Seq
		last := first
		for i++; i < len(messages) && messages[i].ID.Seq == last+1; i++ {
			last++
		}
		if b.Len() > 1 {
			b.WriteByte(' ')
		}
		if b.Len() > 500 {
			fmt.Fprintf(&b, "… %d", messages[len(messages)-1].ID.Seq)
			break
		}
		fmt.Fprint(&b, first)
		if last > first {
			fmt.Fprintf(&b, "-%d", last)
		}
	}
	b.WriteByte(']')
	return b.String()
}

// text is a message of type text/plain.
func text(channel, data string) engine.Message {
	return engine.Message{Channel: channel, ContentType: "text/plain", Data: []byte(data)}
}

func batch(messages ...engine.Message) engine.Batch { return engine.Batch{Messages: messages} }

func show(q engine.Query) string { return fmt.Sprintf("%+v", q) }

func showPage(p engine.Page) string {
	return fmt.Sprintf("messages %s, gap %v, start %v, end %v, more %v", ranges(p.Messages), p.Gap, p.Start, p.End, p.More)
}
