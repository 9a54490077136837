package apns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"
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

// A new session takes the place of one that failed. What waits is the new one's, although
// the next attempt to connect is due after its deadline.
func TestReplacedSessionEndsNoMessage(t *testing.T) {
	d := newDispatcher(settings{maxAttempts: 10, maxInFlight: 100, maxConns: 4}, slog.New(slog.DiscardHandler))
	d.dialer = &dialer{d: d, running: true} // it opens no other
	before, after := newIdleSession(d), newIdleSession(d)
	call := &pushCall{done: make(chan struct{}, 1)}
	call.message, call.source = &Message{}, call
	d.mu.Lock()
	d.addSessionLocked(before)
	before.replaceBecause, before.isBlamed = errNoAnswer, true
	d.dialer.due, d.dialer.failure = d.now()+time.Hour, errNoAnswer
	var one list
	one.push(&call.delivery)
	d.handOverLocked(&one, d.now()+time.Minute, d.now())
	d.addSessionLocked(after)
	if before.end == nil {
		t.Error("the first session takes messages, want it to drain")
	}
	if call.state != queued {
		t.Errorf("the message is in state %d, and its error is %v; want it queued", call.state, call.err)
	}
	d.unlock()
}

// A message is abandoned when the reader has its answer and is about to take it. If that answer
// says that the message is to be resent, it ends.
func TestAbandonedMessageIsNotResent(t *testing.T) {
	for _, test := range []struct {
		name string
		answer
		want error
	}{
		{"TooManyRequests", answer{kind: throttled, err: &PushError{HTTPStatus: 429, Reason: ReasonTooManyRequests}}, ReasonTooManyRequests},
		{"InternalServerError", answer{kind: failing, err: &PushError{HTTPStatus: 500, Reason: ReasonInternalServerError}}, ReasonInternalServerError},
		{"REFUSED_STREAM", answer{kind: unprocessed, err: ErrNotSent}, ErrNotSent},
		{"GOAWAY", answer{kind: draining, err: ErrNotSent}, ErrNotSent},
		{"cut", answer{kind: lost, err: ErrInDoubt}, ErrInDoubt},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDispatcher(settings{maxAttempts: 10, maxInFlight: 100, maxConns: 4, inDoubt: InDoubtResend}, slog.New(slog.DiscardHandler))
			d.dialer = &dialer{d: d, running: true} // it opens no other
			s := newIdleSession(d)
			call := &pushCall{done: make(chan struct{}, 1)}
			call.message, call.source = &Message{}, call
			d.mu.Lock()
			d.addSessionLocked(s)
			d.unlock()
			d.handOver(&call.delivery)
			d.mu.Lock()
			d.takeLocked(s)
			d.unlock()
			d.abandon(&call.delivery, context.Canceled)
			d.mu.Lock()
			d.answeredLocked(&call.delivery, test.answer)
			d.timers.stop()
			d.unlock()
			select {
			case <-call.done:
			default:
				t.Fatalf("the message is in state %d, want it to have its outcome", call.state)
			}
			if !errors.Is(call.err, test.want) {
				t.Errorf("its error is %v, want %v", call.err, test.want)
			}
		})
	}
}

// An idleProtocol is the half of a session that has no room, and whose answers are about to
// be taken.
type idleProtocol struct{ protocol }

func newIdleSession(d *dispatcher) *session {
	s := newSession(d, idleProtocol{}, func() {})
	s.isHTTP2 = true
	return &s
}

func (idleProtocol) capacityLocked() int { return 0 }
func (idleProtocol) isFullLocked() bool  { return true }
func (idleProtocol) expectLocked()       {}
func (idleProtocol) onDrainLocked()      {}

func (idleProtocol) cancelLocked(*delivery, error) (answer, bool) { return answer{}, false }
