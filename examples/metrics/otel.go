package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"example.com/apns"
)

// attemptSpans makes a span for each attempt. Each span is the root of a trace: an Attempt
// does not say which call of Push it belongs to.
type attemptSpans struct{ tracer trace.Tracer }

// observe is for Client.OnAttempt. The attempt is over, so the span starts and ends in the
// past.
//
// The text of the error stays out of the span. It may quote a proxy's answer, and that may
// quote the path of the request, which has the device token.
func (s attemptSpans) observe(a apns.Attempt) {
	outcome := outcome(a.Err)
	attributes := []attribute.KeyValue{
		attribute.String("apns.protocol", protocol(a)),
		attribute.Int64("apns.connection", int64(a.Conn)),
		attribute.Int("apns.attempt", a.Number),
		attribute.String("apns.outcome", outcome),
	}
	if a.PushType != "" {
		attributes = append(attributes, attribute.String("apns.push_type", string(a.PushType)))
	}
	if a.Err != nil {
		attributes = append(attributes, attribute.String("apns.reason", reason(a.Err)))
	}
	_, span := s.tracer.Start(context.Background(), "apns.attempt",
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(a.Sent),
		trace.WithAttributes(attributes...)) // here, so that a sampler sees them
	if a.Err != nil {
		span.SetStatus(codes.Error, outcome)
	}
	span.End(trace.WithTimestamp(a.Sent.Add(a.Latency)))
}
