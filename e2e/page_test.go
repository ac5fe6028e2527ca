package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
)

// patience bounds every single step of a test.
const patience = 20 * time.Second

// page is a tab of one test, which fails when a step does.
type page struct {
	t      *testing.T
	engine string
	tab    browser.Tab
}

func newPage(t *testing.T, b browser.Browser) *page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tab, err := b.NewTab(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tab.Close(ctx); err != nil {
			t.Errorf("close the tab: %v", err)
		}
	})
	return &page{t: t, engine: b.Name(), tab: tab}
}

// navigate goes to url, whose load must end.
func (p *page) navigate(url string) {
	p.t.Helper()
	p.step(func(ctx context.Context) error { return p.tab.Navigate(ctx, url) })
}

// eval runs the body of an async function in the page.
func (p *page) eval(body string, result any) {
	p.t.Helper()
	p.step(func(ctx context.Context) error { return p.tab.Eval(ctx, body, result) })
}

func (p *page) step(do func(ctx context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := do(ctx); err != nil {
		p.t.Fatal(err)
	}
}
