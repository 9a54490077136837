package apns

import (
	"context"
	"time"
)

// A delivery is a message on its way from its source to its outcome. Its state says which
// list has it. dispatcher.mu protects it from the hand-over until its
// outcome is reported; before and after that it belongs to its source.
//
// The message belongs to the caller again once the delivery is finished. So it may be read
// only with dispatcher.mu held, and code that kept a delivery while the lock was free must
// check its state first.
type delivery struct {
	message    *Message
	source     source
	next, prev *delivery // on the list

	session   *session // that the last attempt was on
	seq       uint32   // its number there: the binary identifier, or the stream
	token     uint32   // the provider token of the last attempt, by provider.token
	attempts  uint16   // that were begun
	state     state
	checked   bool          // the message keeps the rules of HTTP/2
	expires   bool          // the message's Expiry was ahead when its source took it
	inDoubt   bool          // an earlier attempt ended in doubt
	isResend  bool          // an earlier attempt may have written it: the next one counts as resent
	abandoned error         // why its source gave it up while its answer was about to be taken; or nil
	deadline  time.Duration // when its time ends, by dispatcher.now; 0: never
	at        time.Duration // queued: since when; in flight: when it was given to the session; backing off: when it is resent

	receipt Receipt // the outcome, once it is finished
	err     error   // the outcome; before that, what the last attempt came to; before the hand-over, why it is not to be sent
}

// isExpired reports whether the message's Expiry has passed since its source took it.
func (d *delivery) isExpired() bool {
	return d.expires && !time.Now().Before(d.message.Expiry)
}

// A state says which list a delivery is on.
type state uint8

const (
	unlisted   state = iota // none of these: its source has it, or it has its outcome
	queued                  // dispatcher.queue
	backingOff              // dispatcher.backingOff
	inFlight                // session.flight
)

// A source hands messages over, and is told their outcomes.
type source interface {
	// report is told that deliveries of the source are finished. From then on the list and
	// the deliveries belong to the source. No lock is held.
	report(finished list)
	// isFlushing reports whether the source has handed over its last message, so that
	// its outcomes are wanted without delay. The caller holds dispatcher.mu.
	isFlushing() bool
	// noteBackOffs changes how many deliveries of the source back off. The caller holds
	// dispatcher.mu.
	noteBackOffs(change int64)
	// context returns the context of the call.
	context() context.Context
}

// A list has deliveries in an order. Its zero value is empty.
type list struct {
	first, last *delivery
	n           int
}

// push adds a delivery at the end.
func (l *list) push(d *delivery) {
	if d.prev = l.last; l.last != nil {
		l.last.next = d
	} else {
		l.first = d
	}
	l.last = d
	l.n++
}

// remove takes a delivery from the list that it is on.
func (l *list) remove(d *delivery) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		l.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		l.last = d.prev
	}
	d.prev, d.next = nil, nil
	l.n--
}

// pop takes the first delivery from the list. It returns nil if the list is empty.
func (l *list) pop() *delivery {
	d := l.first
	if d != nil {
		l.remove(d)
	}
	return d
}

// append moves all deliveries of another list to the end of this one.
func (l *list) append(other *list) {
	switch {
	case other.n == 0:
		return
	case l.n == 0:
		*l = *other
	default:
		l.last.next, other.first.prev = other.first, l.last
		l.last = other.last
		l.n += other.n
	}
	*other = list{}
}

// prepend moves all deliveries of another list to the beginning of this one.
func (l *list) prepend(other *list) {
	other.append(l)
	*l, *other = *other, list{}
}

// popSource takes the first delivery from the list, and all others that have the same
// source: so a source learns at once what was finished at once.
func (l *list) popSource() list {
	rs := l.popSegment()
	source := rs.first.source
	if _, isOne := source.(*pushCall); isOne {
		return rs
	}
	for r := l.first; r != nil; {
		next := r.next
		if r.source == source {
			l.remove(r)
			rs.push(r)
		}
		r = next
	}
	return rs
}

// popSegment takes the first delivery from the list, and those that follow it and have the
// same source.
func (l *list) popSegment() (run list) {
	run.first = l.first
	for d := l.first; d != nil && d.source == run.first.source; d = d.next {
		run.last = d
		run.n++
	}
	if l.first = run.last.next; l.first != nil {
		l.first.prev, run.last.next = nil, nil
	} else {
		l.last = nil
	}
	l.n -= run.n
	return run
}

// find appends the deliveries for which is returns true. Ending a delivery may change any
// list, so callers collect first and end afterwards.
func (l *list) find(some []*delivery, is func(*delivery) bool) []*delivery {
	for r := l.first; r != nil; r = r.next {
		if is(r) {
			some = append(some, r)
		}
	}
	return some
}
