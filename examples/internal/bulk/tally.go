package bulk

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"example.com/apns"
)

// A Tally counts the outcomes of messages.
type Tally struct {
	Accepted, Rejected, InDoubt int
	NotSent                     int // also invalid and expired messages

	reasons map[string]int
}

// Outcome returns what an error says about a message: accepted, rejected, in doubt, not sent,
// invalid or expired.
func Outcome(err error) string {
	pushErr, said := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil:
		return "accepted"
	case errors.Is(err, apns.ErrInDoubt):
		return "in doubt"
	case errors.Is(err, apns.ErrNotSent):
		return "not sent"
	case errors.Is(err, apns.ErrInvalid):
		return "invalid"
	case errors.Is(err, apns.ErrExpired):
		return "expired"
	case said && pushErr.Rejected():
		return "rejected"
	}
	return "not sent"
}

// Add counts a message by the error that a Client returned for it. It returns the
// PushError if the server rejected the message, and nil otherwise.
func (t *Tally) Add(err error) (rejection *apns.PushError) {
	switch Outcome(err) {
	case "accepted":
		t.Accepted++
	case "in doubt":
		t.InDoubt++
	case "rejected":
		t.Rejected++
		if t.reasons == nil {
			t.reasons = make(map[string]int)
		}
		pushErr, _ := errors.AsType[*apns.PushError](err)
		t.reasons[Reason(pushErr)]++
		return pushErr
	default:
		t.NotSent++
	}
	return nil
}

// Reason returns the name under which a rejection is counted.
func Reason(e *apns.PushError) string {
	if e.Unwrap() != nil {
		return e.Unwrap().Error()
	}
	return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
}

// Reasons yields the reasons of the rejections with their numbers, the most frequent first.
func (t *Tally) Reasons() iter.Seq2[string, int] {
	names := slices.SortedFunc(maps.Keys(t.reasons), func(a, b string) int {
		return cmp.Or(t.reasons[b]-t.reasons[a], cmp.Compare(a, b))
	})
	return func(yield func(string, int) bool) {
		for _, name := range names {
			if !yield(name, t.reasons[name]) {
				return
			}
		}
	}
}
