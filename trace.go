package halley

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A publish may be part of a trace (W3C Trace Context). The trace's headers are
// stored with its messages, where subscriptions find them.

const (
	traceParent = "traceparent"
	traceState  = "tracestate"
	// maxTraceState is what everybody is to pass on (W3C Trace Context,
	// 3.3.1.5). More is left out, as messages' headers are bounded.
	maxTraceState = 512
)

var traceContext propagation.TraceContext

// traced returns the context of a publish request with the trace that it is
// part of. What is not valid is none.
func traced(r *http.Request) context.Context {
	ctx := r.Context()
	parent := r.Header.Values(traceParent)
	if len(parent) != 1 || trace.SpanContextFromContext(ctx).IsValid() { // of a handler around the hub
		return ctx
	}
	carrier := propagation.MapCarrier{traceParent: parent[0]}
	if state := strings.Join(r.Header.Values(traceState), ","); len(state) <= maxTraceState {
		carrier[traceState] = state
	}
	return traceContext.Extract(ctx, carrier)
}

// startSpan begins the span of a publish, if there is to be one, and has the
// batch's messages carry their trace, if there is one.
func (h *Hub) startSpan(ctx context.Context, b *Batch) (context.Context, trace.Span) {
	var span trace.Span
	if h.tracer != nil && len(b.Messages) > 0 {
		ctx, span = h.tracer.Start(ctx, "halley.publish", trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.String("messaging.system", "halley"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", b.Messages[0].Channel),
			attribute.Int("messaging.batch.message_count", len(b.Messages)),
		))
	}
	if trace.SpanContextFromContext(ctx).IsValid() {
		carrier := propagation.MapCarrier{}
		traceContext.Inject(ctx, carrier)
		if len(carrier[traceState]) > maxTraceState {
			delete(carrier, traceState)
		}
		b.Messages = withHeaders(b.Messages, carrier)
	}
	return ctx, span
}

// withHeaders returns messages that have these headers too, as far as they have
// room for them and no trace of their own.
func withHeaders(messages []Message, headers map[string]string) []Message {
	messages = slices.Clone(messages) // which are the caller's
	for i := range messages {
		m := &messages[i]
		own := m.Headers
		if own == nil {
			m.Headers = headers
			continue
		}
		if _, ok := own[traceParent]; ok {
			continue
		}
		m.Headers = maps.Clone(own)
		maps.Copy(m.Headers, headers)
		if m.Check() != nil { // it was good without
			m.Headers = own
		}
	}
	return messages
}

func endSpan(span trace.Span, r *Receipt, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "not stored")
	} else {
		span.SetAttributes(attribute.String("messaging.message.id", r.First.String()))
	}
	span.End()
}
