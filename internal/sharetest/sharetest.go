// Package sharetest is what nodes of a cluster share, in memory, for tests: all
// nodes are in one process, and their tables can be taken away.
package sharetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
)

// Tables are what nodes share.
type Tables struct {
	mu      sync.Mutex
	changed chan struct{}      // guarded by mu, as all that follows: closed with each change
	tables  map[string]*shared // by name
	away    bool
	version uint64
}

// New returns tables with nothing in them.
func New() *Tables {
	return &Tables{changed: make(chan struct{}), tables: map[string]*shared{}}
}

// A Node is an engine that has the tables.
type Node struct {
	engine.Engine
	tables *Tables
	cut    bool // guarded by tables.mu
}

var _ engine.Sharer = (*Node)(nil)

// Node returns an engine that has the tables.
func (t *Tables) Node(e engine.Engine) *Node { return &Node{Engine: e, tables: t} }

// Cut has the tables be away for this node alone, for good: it can do no more
// than one that was killed.
func (n *Node) Cut() {
	n.tables.mu.Lock()
	defer n.tables.mu.Unlock()
	n.cut = true
	n.tables.tell()
}

// SetAway has all that is asked of tables fail, or succeed again.
func (t *Tables) SetAway(away bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = away
	t.tell()
}

// Entries returns what is in a table.
func (t *Tables) Entries(name string) []engine.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tables[name] == nil {
		return nil
	}
	return append([]engine.Entry{}, t.tables[name].entries...)
}

func (t *Tables) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Table implements engine.Sharer. Nothing in it grows too old.
func (n *Node) Table(name string, _ time.Duration) engine.Table {
	t := n.tables
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tables[name] == nil {
		t.tables[name] = &shared{}
	}
	return &table{t.tables[name], t, n}
}

// A table is a node's view of what is shared.
type table struct {
	*shared
	all  *Tables
	node *Node
}

type shared struct {
	entries []engine.Entry // guarded by all.mu: the newest last, removed ones included
}

// do calls f with the entry of a key, nil for none, and stores what f returns.
func (t *table) do(ctx context.Context, key string, f func(old *engine.Entry) (*engine.Entry, error)) error {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case t.all.away, t.node.cut:
		return fmt.Errorf("sharetest: %w", engine.ErrUnavailable)
	case len(key) < 1 || len(key) > 100:
		return fmt.Errorf("sharetest: %w: key %q", engine.ErrInvalid, key)
	}
	at := -1
	var old *engine.Entry
	for i := range t.entries {
		if t.entries[i].Key == key {
			if at = i; t.entries[i].Value != nil {
				old = &t.entries[i]
			}
		}
	}
	e, err := f(old)
	if e == nil || err != nil {
		return err
	}
	if at >= 0 {
		t.entries = append(t.entries[:at:at], t.entries[at+1:]...)
	}
	t.all.version++
	e.Key, e.Version = key, t.all.version
	t.entries = append(t.entries, *e)
	t.all.tell()
	return nil
}

func (t *table) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	err = t.do(ctx, key, func(old *engine.Entry) (*engine.Entry, error) {
		if old == nil {
			return nil, engine.ErrNotFound
		}
		value, version = old.Value, old.Version
		return nil, nil
	})
	return value, version, err
}

func (t *table) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	e := &engine.Entry{Value: append([]byte{}, value...)}
	err := t.do(ctx, key, func(*engine.Entry) (*engine.Entry, error) { return e, nil })
	return e.Version, err
}

func (t *table) Update(ctx context.Context, key string, value []byte, version uint64) (uint64, error) {
	e := &engine.Entry{Value: append([]byte{}, value...)}
	err := t.do(ctx, key, func(old *engine.Entry) (*engine.Entry, error) {
		if old == nil && version != 0 || old != nil && old.Version != version {
			return nil, engine.ErrConflict
		}
		return e, nil
	})
	return e.Version, err
}

func (t *table) Take(ctx context.Context, key string) (value []byte, err error) {
	err = t.do(ctx, key, func(old *engine.Entry) (*engine.Entry, error) {
		if old == nil {
			return nil, engine.ErrNotFound
		}
		value = old.Value
		return &engine.Entry{}, nil
	})
	return value, err
}

func (t *table) Delete(ctx context.Context, key string) error {
	return t.do(ctx, key, func(*engine.Entry) (*engine.Entry, error) { return &engine.Entry{}, nil })
}

func (t *table) Watch(ctx context.Context, f func(*engine.Entry)) error {
	told, begun := uint64(0), false
	for {
		t.all.mu.Lock()
		changed := t.all.changed
		var news []engine.Entry
		away := t.all.away || t.node.cut
		if away {
			told, begun = 0, false
		} else {
			for _, e := range t.entries {
				if e.Version > told {
					news = append(news, e)
				}
			}
		}
		begins := !away && !begun
		t.all.mu.Unlock()
		for i := range news {
			told = news[i].Version
			f(&news[i])
		}
		if begins {
			begun = true
			f(nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
