package halley_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/halley-comet/halley"
)

const (
	parent      = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	otherParent = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-00"
)

// A publish's trace context is stored if it is valid, and is no part of what a
// key stands for. It is so in front of the server and behind.
func TestTraceContext(t *testing.T) {
	for _, fronted := range []bool{false, true} {
		hub := newHub(t, halley.Options{})
		server := httptest.NewUnstartedServer(hub)
		if fronted {
			server.Listener = hub.Front(server.Config, server.Listener)
		}
		server.Start()
		t.Cleanup(server.Close)
		post := func(h http.Header) (int, string) {
			t.Helper()
			r, _ := http.NewRequest("POST", server.URL+"/comet/publish?channel=a&channel=b", strings.NewReader("hello"))
			r.Header = h
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(b)
		}
		for _, tt := range []struct {
			name string
			h    http.Header
			want map[string]string
		}{
			{"none", http.Header{}, nil},
			{"a parent", http.Header{"Traceparent": {parent}}, map[string]string{"traceparent": parent}},
			{"another", http.Header{"Traceparent": {otherParent}}, map[string]string{"traceparent": otherParent}},
			{"with state", http.Header{"Traceparent": {parent}, "Tracestate": {"a=1", "b=2"}}, map[string]string{"traceparent": parent, "tracestate": "a=1,b=2"}},
			{"state alone", http.Header{"Tracestate": {"a=1"}}, nil},
			{"a state that is not valid", http.Header{"Traceparent": {parent}, "Tracestate": {"="}}, map[string]string{"traceparent": parent}},
			{"a state that is too long", http.Header{"Traceparent": {parent}, "Tracestate": {"a=" + strings.Repeat("x", 200), "b=" + strings.Repeat("x", 200), "c=" + strings.Repeat("x", 200)}}, map[string]string{"traceparent": parent}},
			{"two parents", http.Header{"Traceparent": {parent, otherParent}}, nil},
			{"of zeros", http.Header{"Traceparent": {"00-00000000000000000000000000000000-b7ad6b7169203331-01"}}, nil},
			{"not one", http.Header{"Traceparent": {"hello"}}, nil},
		} {
			before := len(all(t, hub))
			if status, body := post(tt.h); status != 200 {
				t.Fatalf("front %v, %s: %d %s", fronted, tt.name, status, body)
			}
			for _, m := range all(t, hub)[before:] {
				if !maps.Equal(m.Headers, tt.want) {
					t.Errorf("front %v, %s: %s has %v, want %v", fronted, tt.name, m.Channel, m.Headers, tt.want)
				}
			}
		}
		_, first := post(http.Header{"Idempotency-Key": {"k"}, "Traceparent": {parent}})
		if status, again := post(http.Header{"Idempotency-Key": {"k"}, "Traceparent": {otherParent}}); status != 200 || again != first {
			t.Errorf("front %v: a repeat in another trace: %d %s, want %s", fronted, status, again, first)
		}
	}
}

// spans is a TracerProvider that records.
type spans struct {
	noop.TracerProvider
	mu   sync.Mutex
	list []*span
}

func (s *spans) Tracer(string, ...trace.TracerOption) trace.Tracer { return &tracer{spans: s} }

type tracer struct {
	noop.Tracer
	spans *spans
}

type span struct {
	noop.Span
	name    string
	parent  trace.SpanContext
	context trace.SpanContext
	status  codes.Code
	ended   bool
}

func (s *span) SpanContext() trace.SpanContext      { return s.context }
func (s *span) SetStatus(code codes.Code, _ string) { s.status = code }
func (s *span) End(...trace.SpanEndOption)          { s.ended = true }

func (t *tracer) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	t.spans.mu.Lock()
	defer t.spans.mu.Unlock()
	s := &span{name: name, parent: trace.SpanContextFromContext(ctx)}
	id := s.parent.TraceID()
	if !id.IsValid() {
		id[0] = 1
	}
	t.spans.list = append(t.spans.list, s)
	s.context = trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{7: byte(len(t.spans.list))}, TraceFlags: trace.FlagsSampled})
	return trace.ContextWithSpan(ctx, s), s
}

// With a TracerProvider every publish is a span, a child of the request's, and
// messages carry the span.
func TestTraceSpans(t *testing.T) {
	provider := &spans{}
	hub := newHub(t, halley.Options{TracerProvider: provider})
	server := httptest.NewUnstartedServer(hub)
	server.Listener = hub.Front(server.Config, server.Listener)
	server.Start()
	defer server.Close()
	for _, header := range []string{"", parent} {
		r, _ := http.NewRequest("POST", server.URL+"/comet/publish?channel=a", strings.NewReader("hello"))
		if header != "" {
			r.Header.Set("traceparent", header)
		}
		resp, err := server.Client().Do(r)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	}
	own := map[string]string{"traceparent": otherParent}
	full := map[string]string{"x": strings.Repeat("x", 4090)}
	given := []halley.Message{{Channel: "a"}, {Channel: "a", Headers: own}, {Channel: "a", Headers: full}, {Channel: "a", Headers: map[string]string{"x": "y"}}}
	if _, err := hub.Publish(t.Context(), given...); err != nil {
		t.Fatal(err)
	}
	if given[0].Headers != nil || len(given[3].Headers) != 1 {
		t.Errorf("the caller's messages were changed: %v", given)
	}
	first := "00-01000000000000000000000000000000-0000000000000001-01"
	second := "00-0af7651916cd43dd8448eb211c80319c-0000000000000002-01"
	third := "00-01000000000000000000000000000000-0000000000000003-01"
	for i, want := range []map[string]string{{"traceparent": first}, {"traceparent": second}, {"traceparent": third}, own, full, {"x": "y", "traceparent": third}} {
		if got := all(t, hub)[i].Headers; !maps.Equal(got, want) {
			t.Errorf("message %d has %v, want %v", i, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hub.Publish(ctx, halley.Message{Channel: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for i, s := range provider.list {
		want := codes.Unset
		if i == 3 {
			want = codes.Error
		}
		if s.name != "halley.publish" || !s.ended || s.status != want {
			t.Errorf("span %d: %+v", i, s)
		}
	}
	if len(provider.list) != 4 || provider.list[0].parent.IsValid() || provider.list[1].parent.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("%d spans, want 4, the second one of the request's trace", len(provider.list))
	}
}
