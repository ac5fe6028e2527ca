package halley_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
)

// A revocation is kept before it takes effect, or refused, and the next hub
// begins with it.
func TestKeepRevocation(t *testing.T) {
	var mu sync.Mutex // of what the server's goroutines look at
	var hub *halley.Hub
	var kept []halley.Revocation
	full := errors.New("no space left")
	var err error
	mu.Lock()
	_, hub, mount := newPeople(t, halley.Options{KeepRevocation: func(r halley.Revocation) error {
		mu.Lock()
		defer mu.Unlock()
		if hub.Connections() == 0 {
			t.Error("it took effect before it was kept")
		}
		if err == nil {
			kept = append(kept, r)
		}
		return err
	}}, true)
	mu.Unlock()
	lines, _ := dial(t, mount+"subscribe?channel=ann/x", bearer("ann#1"))
	held(t, hub, 1)

	mu.Lock()
	err = full
	mu.Unlock()
	a := ask(t, "POST", mount+"revoke?user=ann", "", bearer("root"))
	if a.status != 503 || a.code != "engine-unavailable" || a.header.Get("Retry-After") == "" || strings.Contains(a.body, "space") {
		t.Errorf("what cannot be kept: %+v", a)
	}
	if _, err := hub.Revoke(halley.Revocation{User: "ann"}); !errors.Is(err, halley.ErrUnavailable) || !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if a := ask(t, "GET", mount+"history?channel=ann/x", "", bearer("ann#1")); a.status != 200 || hub.Connections() != 1 {
		t.Errorf("it took effect though it was refused: %+v", a)
	}

	mu.Lock()
	err = nil
	mu.Unlock()
	before := time.Now()
	if a := ask(t, "POST", mount+"revoke?user=ann", "", bearer("root")); a.body != `{"connections":1}` {
		t.Errorf("revoke: %+v", a)
	}
	until(t, "the token's stream", lines, "token-revoked")
	mu.Lock()
	defer mu.Unlock()
	if len(kept) != 1 || kept[0].User != "ann" || kept[0].Time.Before(before) || time.Since(kept[0].Time) < 0 {
		t.Fatalf("kept %+v", kept)
	}

	kept = append(kept, halley.Revocation{ID: "7", Time: time.Now()}, halley.Revocation{User: "bob", Time: time.Now().Add(-halley.RevocationTime)})
	_, _, mount = newPeople(t, halley.Options{
		Revoked:        slices.Clone(kept),
		KeepRevocation: func(r halley.Revocation) error { t.Errorf("%+v was kept again", r); return nil },
	}, true)
	for token, code := range map[string]string{"ann#1": "token-revoked", "eve#7": "token-revoked", "eve#8": "", "bob#9": ""} {
		user, _, _ := strings.Cut(token, "#")
		if a := ask(t, "GET", mount+"history?channel="+user+"/x", "", bearer(token)); a.code != code {
			t.Errorf("%s after a restart: %+v, want %q", token, a, code)
		}
	}
}

func TestRevokedOptions(t *testing.T) {
	now := time.Now()
	many := slices.Repeat([]halley.Revocation{{User: "ann", Time: now}}, halley.MaxRevocations+1)
	for want, list := range map[string][]halley.Revocation{
		"Options.Revoked[1]: invalid: one of": {{User: "ann", Time: now}, {User: "ann", ID: "1", Time: now}},
		"Options.Revoked[0]: invalid: no":     {{User: "ann"}},
		"Options.Revoked has 100001":          many,
	} {
		err := (&halley.Options{Revoked: list}).Check()
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), halley.ErrInvalid.Error(), "invalid"), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := (&halley.Options{Revoked: many[1:]}).Check(); err != nil {
		t.Error(err)
	}
}
