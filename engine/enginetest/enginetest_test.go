package enginetest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

// TestSuiteFails runs the suite against engines that break one promise each,
// and wants the checks of that promise to fail.
func TestSuiteFails(t *testing.T) {
	for _, b := range []struct {
		name  string
		opts  func(o *Options)
		wrap  func(t testing.TB, e engine.Engine) *wrapped
		fails []string
	}{
		{
			name: "says nothing of gaps",
			wrap: onPage(func(q engine.Query, p *engine.Page) { p.Gap = false }),
			fails: []string{
				"Read/UnknownCursor", "Read/Model", "Retention/Count", "Retention/Bytes", "Retention/Age",
				"Retention/Forgotten", "Reopen/NewEpoch",
			},
		},
		{
			name: "says nothing of gaps in patterns",
			wrap: onPage(func(q engine.Query, p *engine.Page) {
				p.Gap = p.Gap && !slices.ContainsFunc(q.Channels, func(c string) bool { return c[len(c)-1] == '*' })
			}),
			fails: []string{"Retention/Count", "Retention/Forgotten"},
		},
		{
			name:  "says gap all the time",
			wrap:  onPage(func(q engine.Query, p *engine.Page) { p.Gap = true }),
			fails: []string{"Read/UnknownCursor", "Read/Resume", "Retention/Count", "Concurrent"},
		},
		{
			name: "repeats a message at the seam of pages",
			wrap: onQuery(func(q *engine.Query) {
				if q.After.Seq > 0 && !q.Backward {
					q.After.Seq--
				}
			}),
			fails: []string{"Read/Model", "Read/Resume", "Concurrent"},
		},
		{
			name: "loses a message at the seam of pages",
			wrap: onPage(func(q engine.Query, p *engine.Page) {
				if p.More && !q.Backward {
					p.End.Seq++
				}
			}),
			fails: []string{"Read/Model", "Read/Resume", "Concurrent"},
		},
		{
			name: "returns messages out of order",
			wrap: onPage(func(q engine.Query, p *engine.Page) {
				if n := len(p.Messages); n > 1 {
					p.Messages[n-1], p.Messages[n-2] = p.Messages[n-2], p.Messages[n-1]
				}
			}),
			fails: []string{"Append/Order", "Read/Model", "Read/Resume", "Read/Backward", "Concurrent"},
		},
		{
			name:  "says that there is no more",
			wrap:  onPage(func(q engine.Query, p *engine.Page) { p.More = false }),
			fails: []string{"Append/Batches", "Read/Model", "Read/Resume", "Read/Backward", "Read/DefaultLimit"},
		},
		{
			name:  "ignores From",
			wrap:  onQuery(func(q *engine.Query) { q.From = nil }),
			fails: []string{"Read/Model", "Read/Invalid"},
		},
		{
			name:  "ignores Until",
			wrap:  onQuery(func(q *engine.Query) { q.Until = 0 }),
			fails: []string{"Read/Model", "Read/Backward"},
		},
		{
			name: "stores the messages of a batch one by one",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, append: func(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
					var first engine.Receipt
					for i, m := range b.Messages {
						r, err := e.Append(ctx, engine.Batch{Messages: []engine.Message{m}})
						if err != nil {
							return r, err
						}
						if i == 0 {
							first = r
						}
						runtime.Gosched()
					}
					first.Count = len(b.Messages)
					return first, nil
				}}
			},
			fails: []string{"Append/Invalid", "Keys/Repeat", "Concurrent"},
		},
		{
			name: "strips headers",
			wrap: onBatch(func(b *engine.Batch) {
				for i := range b.Messages {
					b.Messages[i].Headers = nil
				}
			}),
			fails: []string{"Append/Content"},
		},
		{
			name:  "knows no keys",
			wrap:  onBatch(func(b *engine.Batch) { b.Key = "" }),
			fails: []string{"Append/Invalid", "Keys/Repeat", "Keys/Concurrent"},
		},
		{
			name:  "does not compare digests",
			wrap:  onBatch(func(b *engine.Batch) { b.Digest = [32]byte{} }),
			fails: []string{"Keys/Repeat", "Keys/Concurrent"},
		},
		{
			name:  "keeps keys for good",
			opts:  func(o *Options) { o.KeyWindow *= 1000 },
			fails: []string{"Keys/Expiry"},
		},
		{
			name:  "keeps keys for a moment",
			opts:  func(o *Options) { o.KeyWindow /= 100 },
			fails: []string{"Keys/Expiry"},
		},
		{
			name:  "knows no rules of retention",
			opts:  func(o *Options) { o.Rules = nil },
			fails: []string{"Retention/Count", "Retention/Bytes", "Retention/Age"},
		},
		{
			name: "turns time back",
			wrap: onPage(func(q engine.Query, p *engine.Page) {
				for i, m := range p.Messages {
					copied := *m
					copied.Time -= int64(m.ID.Seq)
					p.Messages[i] = &copied
				}
			}),
			fails: []string{"Append/Order", "Concurrent"},
		},
		{
			name: "returns messages that it writes to later",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				var shared [5000]engine.Message
				return onPage(func(q engine.Query, p *engine.Page) {
					for i, m := range p.Messages {
						shared[i] = *m
						p.Messages[i] = &shared[i]
					}
				})(t, e)
			},
			fails: []string{"Retention/Immutable"},
		},
		{
			name: "shows an end that is not there",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, end: func() engine.Cursor {
					end := e.End()
					end.Seq++
					return end
				}}
			},
			fails: []string{"Append/Order", "Concurrent"},
		},
		{
			name: "does not wake waiters",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, wait: func(ctx context.Context, after engine.Cursor) error {
					if e.End() != after {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}}
			},
			fails: []string{"Wait/Woken", "Wait/Close"},
		},
		{
			name: "does not wait",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, wait: func(context.Context, engine.Cursor) error { return nil }}
			},
			fails: []string{"Wait/Positions", "Wait/Woken", "Wait/Close", "Close/Closed"},
		},
		{
			name: "has no tail beyond retention",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, tail: func(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
					if _, ok := e.Tail(after, nil); !ok || len(buf) == cap(buf) {
						return buf, ok
					}
					page, err := e.Read(context.Background(), engine.Query{
						Channels: []string{"**"}, After: after, Limit: cap(buf) - len(buf),
					})
					return append(buf, page.Messages...), err == nil
				}}
			},
			fails: []string{"Tail/Follow"},
		},
		{
			name: "goes on from any position",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, tail: func(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
					buf, _ = e.Tail(after, buf)
					return buf, true
				}}
			},
			fails: []string{"Tail/Positions"},
		},
		{
			name: "does not close",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				return &wrapped{Engine: e, close: func() error { return nil }}
			},
			fails: []string{"Wait/Close", "Close/Closed"},
		},
		{
			name: "closes once",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				closed := false
				return &wrapped{Engine: e, close: func() error {
					if closed {
						return engine.ErrClosed
					}
					closed = true
					return e.Close()
				}}
			},
			fails: []string{"Close/Closed"},
		},
		{
			name: "leaves a goroutine behind",
			wrap: func(t testing.TB, e engine.Engine) *wrapped {
				stop := make(chan struct{})
				t.Cleanup(func() { close(stop) })
				go func() { <-stop }()
				return &wrapped{Engine: e}
			},
			fails: []string{"Append/Canceled"},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			s := Suite{Synctest: true, Open: func(_ string, o Options) (engine.Engine, error) {
				if b.opts != nil {
					b.opts(&o)
				}
				e, err := openMemory(o)
				if err != nil || b.wrap == nil {
					return e, err
				}
				return b.wrap(t, e), nil
			}}
			for _, name := range b.fails {
				wantFailure(t, s, name)
			}
		})
	}
}

// TestSuiteDurable has the suite pass on a durable engine, or what looks like
// one, and fail on some that are not as durable as they say.
func TestSuiteDurable(t *testing.T) {
	good := newSurvivors()
	Run(t, Suite{Open: good.open, Crash: good.crash, Durable: true, Synctest: true})

	t.Run("but not volatile", func(t *testing.T) {
		s := newSurvivors()
		wantFailure(t, Suite{Open: s.open}, "Reopen/NewEpoch")
	})
	t.Run("forgets everything", func(t *testing.T) {
		s := Suite{
			Open:    func(_ string, o Options) (engine.Engine, error) { return openMemory(o) },
			Crash:   func(_ string, e engine.Engine) error { return e.Close() },
			Durable: true,
		}
		for _, name := range []string{"Close/Busy", "Reopen/Same", "Reopen/Crash"} {
			wantFailure(t, s, name)
		}
	})
	t.Run("forgets keys", func(t *testing.T) {
		s := newSurvivors()
		opened := 0
		open := func(dir string, o Options) (engine.Engine, error) {
			opened++
			suffix := fmt.Sprint(" ", opened)
			e, err := s.open(dir, o)
			return onBatch(func(b *engine.Batch) { b.Key += suffix })(t, e), err
		}
		crash := func(dir string, e engine.Engine) error { return s.crash(dir, e.(*wrapped).Engine) }
		for _, name := range []string{"Reopen/Same", "Reopen/Crash"} {
			wantFailure(t, Suite{Open: open, Crash: crash, Durable: true}, name)
		}
	})
	t.Run("forgets gaps", func(t *testing.T) {
		s := newSurvivors()
		open := func(dir string, o Options) (engine.Engine, error) {
			e, err := s.open(dir, o)
			known := e.End().Seq
			return onPage(func(q engine.Query, p *engine.Page) {
				p.Gap = p.Gap && (known == 0 || q.After.Epoch != e.End().Epoch)
			})(t, e), err
		}
		wantFailure(t, Suite{Open: open, Durable: true}, "Reopen/Same")
	})
}

func openMemory(o Options) (engine.Engine, error) {
	return memory.New(memory.Options{Retention: o.Retention, Rules: o.Rules, KeyWindow: o.KeyWindow, Limit: o.Limit})
}

// wantFailure runs a check and wants it to fail.
func wantFailure(t *testing.T, s Suite, name string) {
	t.Helper()
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check %s", name)
	}
	c := checks[i]
	c.start(t, s, func(t *testing.T, s Suite) {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { // which the check may end
			defer close(done)
			runCheck(r, s, c)
		}()
		<-done
		if !r.failed {
			t.Errorf("%s passes, with seed %d", name, s.Seed)
		}
		for _, line := range r.lines {
			t.Logf("%s: %.300s", name, line)
		}
	})
}

// A recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed bool
	lines  []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// A wrapped is an engine some of whose methods are replaced.
type wrapped struct {
	engine.Engine
	append func(context.Context, engine.Batch) (engine.Receipt, error)
	read   func(context.Context, engine.Query) (engine.Page, error)
	tail   func(engine.Cursor, []*engine.Message) ([]*engine.Message, bool)
	end    func() engine.Cursor
	wait   func(context.Context, engine.Cursor) error
	close  func() error
}

func onBatch(f func(b *engine.Batch)) func(testing.TB, engine.Engine) *wrapped {
	return func(_ testing.TB, e engine.Engine) *wrapped {
		return &wrapped{Engine: e, append: func(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
			b.Messages = slices.Clone(b.Messages)
			f(&b)
			return e.Append(ctx, b)
		}}
	}
}

func onQuery(f func(q *engine.Query)) func(testing.TB, engine.Engine) *wrapped {
	return func(_ testing.TB, e engine.Engine) *wrapped {
		return &wrapped{Engine: e, read: func(ctx context.Context, q engine.Query) (engine.Page, error) {
			asked := q.After
			f(&q)
			p, err := e.Read(ctx, q)
			if p.Start == q.After {
				p.Start = asked
			}
			return p, err
		}}
	}
}

func onPage(f func(q engine.Query, p *engine.Page)) func(testing.TB, engine.Engine) *wrapped {
	return func(_ testing.TB, e engine.Engine) *wrapped {
		return &wrapped{Engine: e, read: func(ctx context.Context, q engine.Query) (engine.Page, error) {
			p, err := e.Read(ctx, q)
			f(q, &p)
			return p, err
		}}
	}
}

func (w *wrapped) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	if w.append != nil {
		return w.append(ctx, b)
	}
	return w.Engine.Append(ctx, b)
}

func (w *wrapped) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	if w.read != nil {
		return w.read(ctx, q)
	}
	return w.Engine.Read(ctx, q)
}

func (w *wrapped) Tail(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
	if w.tail != nil {
		return w.tail(after, buf)
	}
	return w.Engine.Tail(after, buf)
}

func (w *wrapped) End() engine.Cursor {
	if w.end != nil {
		return w.end()
	}
	return w.Engine.End()
}

func (w *wrapped) Wait(ctx context.Context, after engine.Cursor) error {
	if w.wait != nil {
		return w.wait(ctx, after)
	}
	return w.Engine.Wait(ctx, after)
}

func (w *wrapped) Close() error {
	if w.close != nil {
		return w.close()
	}
	return w.Engine.Close()
}

// survivors are logs in memory that live on when what Open returned is closed
// or crashed, and so look like durable ones.
type survivors struct {
	mu   sync.Mutex
	logs map[string]engine.Engine
}

func newSurvivors() *survivors {
	return &survivors{logs: make(map[string]engine.Engine)}
}

func (s *survivors) open(dir string, o Options) (engine.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.logs[dir]
	if !ok {
		var err error
		if l, err = openMemory(o); err != nil {
			return nil, err
		}
		s.logs[dir] = l
	}
	v := &survivor{Engine: l}
	v.life, v.end = context.WithCancel(context.Background())
	return v, nil
}

func (s *survivors) crash(_ string, e engine.Engine) error { return e.Close() }

type survivor struct {
	engine.Engine
	mu   sync.RWMutex // held shared by calls in progress
	life context.Context
	end  context.CancelFunc
}

func (v *survivor) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.life.Err() != nil {
		return engine.Receipt{}, engine.ErrClosed
	}
	return v.Engine.Append(ctx, b)
}

func (v *survivor) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	if v.life.Err() != nil {
		return engine.Page{}, engine.ErrClosed
	}
	return v.Engine.Read(ctx, q)
}

func (v *survivor) Tail(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
	if v.life.Err() != nil {
		return buf, false
	}
	return v.Engine.Tail(after, buf)
}

func (v *survivor) Wait(ctx context.Context, after engine.Cursor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.life, cancel)()
	err := v.Engine.Wait(ctx, after)
	if v.life.Err() != nil {
		return engine.ErrClosed
	}
	return err
}

func (v *survivor) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.end()
	return nil
}
