package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
)

func TestRetentionFor(t *testing.T) {
	rules := []engine.RetentionRule{
		{Pattern: "a/b", Retention: engine.Retention{Count: 1}},
		{Pattern: "a/*", Retention: engine.Retention{Count: 2}},
		{Pattern: "a/**", Retention: engine.Retention{}},
		{Pattern: "a/c", Retention: engine.Retention{Count: 4}},
	}
	for channel, want := range map[string]int{"a/b": 1, "a/c": 2, "a/b/c": 0, "a": 9, "b": 9} {
		if got := engine.RetentionFor(channel, rules, engine.Retention{Count: 9}).Count; got != want {
			t.Errorf("%s keeps %d, want %d", channel, got, want)
		}
	}
}

func TestCheckRetention(t *testing.T) {
	for _, r := range []engine.Retention{{}, {Count: 1}, {Age: time.Hour, Bytes: 1}} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []engine.Retention{{Count: -1}, {Age: -1}, {Bytes: -1}} {
		if err := r.Check(); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%+v: got %v, want ErrInvalid", r, err)
		}
	}
}
