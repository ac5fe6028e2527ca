package browser

import (
	"context"
	"sync"
	"time"
)

// A Shared is a browser that the first who wants it starts, and those that
// follow have too.
type Shared struct {
	name  string
	start sync.Once
	b     Browser
	err   error
}

// SharedEngines returns one of each of Engines, by its name.
func SharedEngines() map[string]*Shared {
	all := make(map[string]*Shared)
	for _, name := range Engines {
		all[name] = &Shared{name: name}
	}
	return all
}

// Browser returns the browser.
func (s *Shared) Browser() (Browser, error) {
	s.start.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.b, s.err = Start(ctx, s.name)
	})
	return s.b, s.err
}

// Close ends the browser, if it was started. It is for when nobody uses it any
// more.
func (s *Shared) Close() {
	if s.b != nil {
		_ = s.b.Close() // the run is over
	}
}
