package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"example.com/apns"
)

// attemptSpans makes a span for each attempt, as a child of the span in the context of the
// call of Push or PushAll.
type attemptSpans struct{ tracer trace.Tracer }

// observe is for Client.OnAttempt. The attempt is over, so the span starts and ends in the
// past.
//
// The text of the error stays out of the span. It shows neither the device token nor the
// payload, but may have addresses of this network. The outcome and the reason say what to do, and
// have few values, by which spans can be counted.
func (s attemptSpans) observe(ctx context.Context, a apns.Attempt) {
	outcome := a.Outcome()
	attributes := []attribute.KeyValue{
		attribute.String("apns.protocol", a.Protocol),
		attribute.Int64("apns.connection", int64(a.Conn)),
		attribute.Int("apns.attempt", a.Number),
		attribute.String("apns.outcome", outcome),
		attribute.Bool("apns.final", a.Final),
	}
	if a.PushType != "" {
		attributes = append(attributes, attribute.String("apns.push_type", string(a.PushType)))
	}
	if a.Err != nil {
		attributes = append(attributes, attribute.String("apns.reason", a.Reason()))
	}
	_, span := s.tracer.Start(ctx, "apns.attempt",
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(a.Sent),
		trace.WithAttributes(attributes...)) // here, so that a sampler sees them
	if a.Err != nil {
		span.SetStatus(codes.Error, outcome)
	}
	span.End(trace.WithTimestamp(a.Sent.Add(a.Latency)))
}
