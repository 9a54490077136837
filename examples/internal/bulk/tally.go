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

// A Tally counts what became of messages.
type Tally struct {
	Accepted, Rejected, InDoubt int
	NotSent                     int // also what broke a rule

	reasons map[string]int
}

// Add counts a message with an error of a Client. It returns what the server said,
// if it rejected the message.
func (t *Tally) Add(err error) (rejection *apns.PushError) {
	pushErr, said := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil:
		t.Accepted++
	case errors.Is(err, apns.ErrInDoubt):
		t.InDoubt++
	case errors.Is(err, apns.ErrNotSent) || !said:
		t.NotSent++
	default:
		t.Rejected++
		if t.reasons == nil {
			t.reasons = make(map[string]int)
		}
		t.reasons[reason(pushErr)]++
		return pushErr
	}
	return nil
}

// reason is what a rejection is counted under.
func reason(e *apns.PushError) string {
	if e.Unwrap() != nil {
		return e.Unwrap().Error()
	}
	return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
}

// Reasons yields the reasons of the rejections, the most frequent first.
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
