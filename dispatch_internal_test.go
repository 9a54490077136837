package apns

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// A source gets what was finished at once in one piece and in order, also where the
// deliveries of other sources are in between.
func TestPopSource(t *testing.T) {
	a, b, c := new(pushAll), new(pushAll), new(pushCall)
	names := map[source]string{a: "a", b: "b", c: "c"}
	var finished list
	for i, s := range []source{a, b, a, c, b, a, b} {
		finished.push(&delivery{source: s, seq: uint32(i)})
	}
	want := map[string][]uint32{"a": {0, 2, 5}, "b": {1, 4, 6}, "c": {3}}
	for finished.n > 0 {
		rs := finished.popSource()
		name := names[rs.first.source]
		if rs.n != len(want[name]) {
			t.Fatalf("source %s: %d deliveries, want %d", name, rs.n, len(want[name]))
		}
		for i, r := 0, rs.first; r != nil; i, r = i+1, r.next {
			if r.source != rs.first.source || r.seq != want[name][i] {
				t.Errorf("source %s: delivery %d of source %s, want %d", name, r.seq, names[r.source], want[name][i])
			}
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// A message that was in doubt, and was then not accepted, is in doubt and nothing else.
func TestDoubtErrorIsOneOutcome(t *testing.T) {
	kinds := []error{ErrInDoubt, ErrNotSent, ErrExpired, ErrInvalid}
	for _, later := range []error{
		fmt.Errorf("%w: %w", ErrNotSent, context.DeadlineExceeded),
		ErrExpired,
		&fieldError{ReasonBadTopic, "a topic that breaks a rule"},
		&PushError{HTTPStatus: 503, Reason: ReasonServiceUnavailable},
	} {
		err := error(&doubtError{later})
		for _, kind := range kinds {
			if got, want := errors.Is(err, kind), kind == ErrInDoubt; got != want {
				t.Errorf("%q matches %q: %v, want %v", err, kind, got, want)
			}
		}
		if e, ok := errors.AsType[*PushError](err); ok {
			t.Errorf("%q is a *PushError: %v", err, e)
		}
	}
	if err := (&doubtError{fmt.Errorf("%w: %w", ErrNotSent, context.DeadlineExceeded)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q does not match the cause of its end", err)
	}
}
