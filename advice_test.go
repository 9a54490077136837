package apns_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"example.com/apns"
)

// checkAdvice checks what is to be done about a message. TestErrorsMatchOneClass calls it
// for each situation that the package has an error for.
func (s *situation) checkAdvice(t *testing.T, err error) {
	t.Helper()
	want := s.advice
	if want == apns.ActionDone {
		want = map[string]apns.Action{
			"accepted": apns.ActionDone, "rejected": apns.ActionDrop, "not sent": apns.ActionResend,
			"in doubt": apns.ActionDecide, "invalid": apns.ActionDrop, "expired": apns.ActionDrop,
		}[s.want]
	}
	if got := apns.Advise(err); got.Action != want {
		t.Errorf("%v: the advice is %v, want %v", err, got.Action, want)
	}
}

func TestAdvise(t *testing.T) {
	deadAt := time.Unix(1700000000, 0)
	refusedInDoubt := fmt.Errorf("%w: %w", apns.ErrInDoubt, apns.ErrRefused)
	tests := []struct {
		name string
		err  error
		want apns.Advice
	}{
		{"dead", &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt}, apns.Advice{Action: apns.ActionForget, DeadAt: deadAt}},
		{"dead, and not since when", &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered}, apns.Advice{Action: apns.ActionForget}},
		{"expired, and not since when", &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonExpiredToken}, apns.Advice{Action: apns.ActionForget}},
		{"of a proxy", &apns.PushError{HTTPStatus: 410}, apns.Advice{Action: apns.ActionDrop}},
		{"wrapped", fmt.Errorf("push: %w", &apns.PushError{HTTPStatus: 410, DeadAt: deadAt}), apns.Advice{Action: apns.ActionForget, DeadAt: deadAt}},
		{"a wait", &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 10 * time.Minute}, apns.Advice{Action: apns.ActionResend, After: 10 * time.Minute}},
		{"a wait with a rejection for good", &apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadTopic, RetryAfter: time.Minute}, apns.Advice{Action: apns.ActionDrop}},
		{"the last one accepted", &apns.PushError{ID: 7, Status: apns.StatusShutdown}, apns.Advice{Action: apns.ActionDone}},
		{"an unknown status", &apns.PushError{Status: apns.StatusUnknown}, apns.Advice{Action: apns.ActionDrop}},
		{"refused, and in doubt", refusedInDoubt, apns.Advice{Action: apns.ActionDecide}},
		{"of another package", errors.New("apns: not sent"), apns.Advice{Action: apns.ActionDecide}},
		{"a context's", context.Canceled, apns.Advice{Action: apns.ActionDecide}},
	}
	for _, test := range tests {
		if got := apns.Advise(test.err); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestActionString(t *testing.T) {
	got := fmt.Sprint(apns.ActionDone, apns.ActionForget, apns.ActionDrop, apns.ActionResend, apns.ActionFix, apns.ActionDecide, apns.Action(-1), apns.Action(6))
	if want := "done forget drop resend fix decide unknown unknown"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
