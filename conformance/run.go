package conformance

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options of a run. The zero value is usable.
type Options struct {
	// Quick cuts streams at some of their bytes instead of at each.
	Quick bool
	// Only, if not nil, chooses the cases whose names it matches.
	Only *regexp.Regexp
	// Parallel is how many cases run at once; 0 means 4.
	Parallel int
	// Header is added to every request: credentials, say.
	Header http.Header
	// TLS is for https servers; nil means the platform's defaults.
	TLS *tls.Config
	// MaxMessage and MaxBody are the server's limits of a message's data and of
	// a request's body, in bytes; 0 means the contract's, 1 MiB and 16 MiB.
	MaxMessage, MaxBody int
	// RetainPrefix, if not empty, is a channel name under which the server
	// keeps RetainCount messages of each channel, at least 1. Only with it are
	// the gaps tested that retention makes.
	RetainPrefix string
	RetainCount  int
	// Done, if not nil, is told of each case as it ends, one at a time.
	Done func(Result)
}

// A Result tells how a case went.
type Result struct {
	// Name is the case's, e.g. "sse/raw-lines".
	Name string
	// Section is where docs/protocol.md says what is tested, e.g. "14.4".
	Section string
	// Says is what the contract says there, shortened.
	Says string
	// Failures tells what was expected and what came; empty if all was well.
	Failures []string
	// Skipped tells why nothing was tested; empty if something was.
	Skipped string
	Took    time.Duration
}

// String is a line and, where the case failed, some more: the contract's
// sentence and what was not as it says.
func (r Result) String() string {
	switch {
	case len(r.Failures) > 0:
		s := fmt.Sprintf("FAIL  %s (%.2fs)\n      protocol %s: %s", r.Name, r.Took.Seconds(), r.Section, r.Says)
		for _, f := range r.Failures {
			s += "\n      " + strings.ReplaceAll(f, "\n", "\n      ")
		}
		return s
	case r.Skipped != "":
		return fmt.Sprintf("skip  %s: %s", r.Name, r.Skipped)
	}
	return fmt.Sprintf("ok    %s (%.2fs)", r.Name, r.Took.Seconds())
}

// A Report is what a run found, in the order of the contract.
type Report struct {
	URL     string
	Results []Result
	Took    time.Duration
}

// Failed returns the number of cases that failed.
func (r Report) Failed() int {
	n := 0
	for _, c := range r.Results {
		if len(c.Failures) > 0 {
			n++
		}
	}
	return n
}

// Summary is a line.
func (r Report) Summary() string {
	skipped := 0
	for _, c := range r.Results {
		if c.Skipped != "" {
			skipped++
		}
	}
	return fmt.Sprintf("%s: %d cases, %d failed, %d skipped, %.1fs",
		r.URL, len(r.Results), r.Failed(), skipped, r.Took.Seconds())
}

// WriteTo writes all results and the summary.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, c := range r.Results {
		fmt.Fprintln(&b, c)
	}
	fmt.Fprintln(&b, r.Summary())
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// Run tests the server whose protocol is mounted at url, e.g.
// http://127.0.0.1:8080/comet.
func Run(ctx context.Context, url string, o Options) Report {
	start := time.Now()
	report := Report{URL: url}
	first := testCase{name: "reach", section: "18.1", says: "GET /comet/info"}
	var s *server
	r := first.record(ctx, func(t tb) { s = newServer(t, url, o) })
	if len(r.Failures) > 0 {
		report.Results = []Result{r}
		report.Took = time.Since(start)
		if o.Done != nil {
			o.Done(r)
		}
		return report
	}
	chosen := cases(o)
	report.Results = make([]Result, len(chosen))
	slots := make(chan struct{}, s.o.Parallel)
	var done sync.Mutex
	var running sync.WaitGroup
	for i, c := range chosen {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			r := c.record(ctx, func(t tb) { c.run(t, s) })
			report.Results[i] = r
			if o.Done != nil {
				done.Lock()
				defer done.Unlock()
				o.Done(r)
			}
		})
	}
	running.Wait()
	report.Took = time.Since(start)
	return report
}

// Test tests a server as subtests of t.
func Test(t *testing.T, url string) { TestWith(t, url, Options{Quick: testing.Short()}) }

// TestWith is Test with options; Parallel is that of go test, and Done is not
// called.
func TestWith(t *testing.T, url string, o Options) {
	s := newServer(t, url, o)
	for _, c := range cases(o) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("protocol %s: %s", c.section, c.says)
				}
			})
			c.run(t, s)
		})
	}
}

// tb is what a case needs of a test: a [testing.T] has it.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// A testCase tests one sentence of the contract.
type testCase struct {
	name    string
	section string
	says    string
	run     func(tb, *server)
}

func cases(o Options) []testCase {
	all := slices.Concat(httpCases, parameterCases, channelCases, cursorCases, negotiationCases, envelopeCases, controlCases,
		longPollingCases, jsonpCases, iframeCases, multipartCases, xhrStreamingCases, sseCases, webSocketCases,
		publishCases, batchCases, idempotencyCases, historyCases, infoCases, seamCases)
	return slices.DeleteFunc(all, func(c testCase) bool { return o.Only != nil && !o.Only.MatchString(c.name) })
}

// caseTimeout ends a case that hangs in spite of all.
const caseTimeout = time.Minute

// record runs f as the case and returns how that went.
func (c testCase) record(ctx context.Context, f func(tb)) Result {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	r := &recorder{ctx: ctx, Result: Result{Name: c.name, Section: c.section, Says: c.says}}
	start := time.Now()
	ended := make(chan struct{})
	// A goroutine of its own, so that Fatalf can end it.
	go func() {
		defer close(ended)
		f(r)
	}()
	<-ended
	cancel()
	for _, clean := range slices.Backward(r.cleanups) {
		clean()
	}
	r.Took = time.Since(start)
	return r.Result
}

// recorder is a tb for runs that are no Go test.
type recorder struct {
	Result
	ctx      context.Context
	mu       sync.Mutex // guards Failures
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.Skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Context() context.Context { return r.ctx }
