package apns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// An answer is what an attempt to send a message came to.
type answer struct {
	kind       answerKind
	receipt    Receipt
	err        error         // nil if the message was accepted; otherwise fit for the caller
	retryAfter time.Duration // for which the server asks; 0: it does not
	blames     bool          // of unprocessed and lost: the server fails (a 5xx without a reason)
}

// The kinds of answers differ in what follows from them.
type answerKind int

const (
	accepted    answerKind = iota
	rejected               // for good
	throttled              // not accepted now; the message is resent after a back-off
	failing                // as throttled, and the server is to blame
	unprocessed            // the server did not look at the message, which is resent
	draining               // as unprocessed, and the connection takes no more messages
	refused                // the server refuses the sender
	unsent                 // the message cannot be sent on any connection
	lost                   // in doubt
)

// acceptedLocked takes the answer that a delivery in flight was accepted.
func (d *dispatcher) acceptedLocked(r *delivery, receipt Receipt) {
	if d.observe != nil {
		d.observeLocked(r, receipt.APNsID, nil).Final = true
	}
	d.leaveFlightLocked(r)
	r.session.noteAnswerLocked(true)
	d.finishLocked(r, receipt, nil)
}

// answeredLocked takes the answer to a delivery in flight. The delivery is finished, or
// will be resent.
func (d *dispatcher) answeredLocked(r *delivery, a answer) {
	if a.kind == accepted {
		d.acceptedLocked(r, a.receipt)
		return
	}
	if d.observe != nil && a.kind != unsent {
		at := len(d.observations)
		d.observeLocked(r, "", a.err)
		defer func() { d.observations[at].attempt.Final = r.state == unlisted }()
	}
	s := r.session
	d.leaveFlightLocked(r)
	if a.blames {
		s.blameLocked(r.message, a.err)
	}
	switch a.kind {
	case rejected:
		s.noteAnswerLocked(false)
		d.finishLocked(r, a.receipt, a.err)
	case throttled:
		s.noteAnswerLocked(false)
		d.resendLocked(r, a.err, backOffOf(r, &a))
	case failing:
		wait := backOffOf(r, &a)
		if a.retryAfter > 0 && d.dialer != nil { // a Conn has no policy
			s.pauseLocked(wait, a.err)
		}
		s.blameLocked(r.message, a.err)
		d.resendLocked(r, a.err, wait)
	case draining, unprocessed:
		if e, ok := errors.AsType[*drainError](a.err); ok && s.drainLocked(e) {
			d.afterLocked(func() { d.log.Warn("apns: connection drains", "error", e) })
		}
		var wait time.Duration
		if r.attempts > 1 && s.isHTTP2 {
			wait = backOff(minRedial, maxRetry, int(r.attempts)-2)
		}
		d.resendLocked(r, a.err, wait)
	case refused:
		if d.dialer != nil {
			d.dialer.refusedLocked(s, a.err)
		}
		d.finishLocked(r, Receipt{}, a.err)
	case unsent:
		d.finishLocked(r, Receipt{}, a.err)
	case lost:
		d.doubtLocked(r, a.err)
	}
}

// backOffOf returns how long a message waits before it is resent: as long as the server
// asks, but no longer than a minute.
func backOffOf(r *delivery, a *answer) time.Duration {
	if a.retryAfter > 0 {
		return min(a.retryAfter, maxRetry)
	}
	return backOff(minRetry, maxRetry, int(r.attempts)-1)
}

// doubtLocked takes a delivery that was written, and about which nothing was heard.
func (d *dispatcher) doubtLocked(r *delivery, err error) {
	r.inDoubt = true
	if d.closed || int(r.attempts) >= d.maxAttempts || !d.maySendTwice(r) {
		d.finishLocked(r, Receipt{}, err)
		return
	}
	d.resendLocked(r, err, 0)
}

// maySendTwice reports whether a message that is in doubt is resent.
func (d *dispatcher) maySendTwice(r *delivery) bool {
	switch d.inDoubt {
	case InDoubtResend:
		return true
	case InDoubtResendCollapsible:
		return r.message.CollapseID != "" && r.session.isHTTP2
	}
	return false
}

// resendLocked resends a delivery after a back-off, unless it was abandoned, or has no
// attempts or no time left. err is the answer to the last attempt.
func (d *dispatcher) resendLocked(r *delivery, err error, wait time.Duration) {
	r.err, r.isResend = err, true
	now := d.now()
	switch {
	case r.abandoned != nil:
		d.abandonLocked(r, r.abandoned)
	case d.closed:
		d.abandonLocked(r, net.ErrClosed)
	case int(r.attempts) >= d.maxAttempts:
		d.finishLocked(r, Receipt{}, err)
	case r.deadline != 0 && now+wait >= r.deadline:
		d.abandonLocked(r, context.DeadlineExceeded)
	case wait > 0:
		r.state, r.at = backingOff, now+wait
		d.backingOff.push(r)
		r.source.noteBackOffs(1)
		d.wakeAtLocked(r.at)
	default:
		if d.endIfUnsendableLocked(r, now) {
			return
		}
		var one list
		one.push(r)
		r.state, r.at = queued, now
		d.queue.prepend(&one)
		d.waiting.Add(1)
		d.dispatchLocked()
	}
}

// abandon ends a delivery, unless it is finished.
func (d *dispatcher) abandon(r *delivery, why error) {
	d.mu.Lock()
	defer d.unlock()
	switch {
	case r.state == unlisted:
	case why == context.DeadlineExceeded:
		d.lateLocked(r, d.now())
	default:
		d.abandonLocked(r, why)
	}
}

// abandonLocked ends a delivery, whichever list it is on. If its answer is about to be
// taken, that decides instead, but the message is not resent.
func (d *dispatcher) abandonLocked(r *delivery, why error) {
	switch r.state {
	case queued:
		d.leaveQueueLocked(r)
	case backingOff:
		d.backingOff.remove(r)
		r.source.noteBackOffs(-1)
	case inFlight:
		a, ok := r.session.protocol.cancelLocked(r, why)
		if !ok {
			r.abandoned = why // its answer has come, and is about to be taken
			return
		}
		if a.kind == accepted { // the answer is not whole, but its status has come
			d.acceptedLocked(r, a.receipt)
			return
		}
		if d.observe != nil {
			d.observeLocked(r, "", a.err).Final = true
		}
		d.leaveFlightLocked(r)
		d.finishLocked(r, Receipt{}, a.err)
		return
	}
	d.finishLocked(r, Receipt{}, d.abandonedError(r, why))
}

// abandonedError returns the error of a delivery that is not in flight and is abandoned
// because of why. If the server has answered an earlier attempt, that answer is the error.
func (d *dispatcher) abandonedError(r *delivery, why error) error {
	switch {
	case r.err == nil && r.isExpired():
		return ErrExpired
	case r.err == nil:
		return d.notSentLocked(why)
	}
	if _, ok := errors.AsType[*PushError](r.err); ok {
		return r.err
	}
	return fmt.Errorf("%w: %w", r.err, why)
}

// notSentLocked returns the error of a message that was not written because of why,
// such as the end of a context.
func (d *dispatcher) notSentLocked(why error) error {
	ended := errors.Is(why, context.Canceled) || errors.Is(why, context.DeadlineExceeded)
	switch {
	case d.closed && !errors.Is(why, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrNotSent, d.closing)
	case !ended:
		return fmt.Errorf("%w: %w", ErrNotSent, generalError(why))
	case d.dialer != nil && d.dialer.failure != nil && !d.isConnectedLocked():
		// It is in the text alone, for it may be about other messages.
		return fmt.Errorf("%w: no connection (%s): %w", ErrNotSent, plainText(d.dialer.failure), why)
	}
	return fmt.Errorf("%w: waiting to be sent: %w", ErrNotSent, why)
}

// isConnectedLocked reports whether a session takes messages.
func (d *dispatcher) isConnectedLocked() bool {
	for _, s := range d.sessions {
		if s.end == nil {
			return true
		}
	}
	return false
}

// unsendableLocked returns the error of a message that cannot be sent before its deadline,
// because the sender is refused, no connection is due by then, or all are paused; or nil.
func (d *dispatcher) unsendableLocked(deadline, now time.Duration) error {
	if d.dialer != nil {
		if err := d.dialer.unsendableLocked(deadline, now); err != nil {
			return err
		}
	} else if len(d.sessions) > 0 && d.sessions[0].end != nil {
		return d.notSentLocked(d.sessions[0].end)
	}
	if until, because := d.pausedLocked(now); until > deadline && deadline != 0 {
		return fmt.Errorf("%w: the server wants to be left alone for longer than the message has time (%s): %w", ErrNotSent, plainText(because), reasonOf(because))
	}
	return nil
}

// reasonOf returns the reason of an answer.
func reasonOf(err error) error {
	if said, ok := errors.AsType[*PushError](err); ok {
		return said.Reason
	}
	return context.DeadlineExceeded
}

// endUnsendableLocked ends the queued messages that cannot be sent in time. It is called
// when these may have become more. No delivery that it has found can leave the queue
// meanwhile, since finishLocked changes no list but dispatcher.finished.
func (d *dispatcher) endUnsendableLocked() {
	d.queueStagedLocked()
	now := d.now()
	for _, r := range d.queue.find(nil, func(r *delivery) bool { return d.unsendableLocked(r.deadline, now) != nil }) {
		d.leaveQueueLocked(r)
		d.endIfUnsendableLocked(r, now)
	}
}

// endIfUnsendableLocked ends a delivery that is on no list, if it cannot be sent in time. If
// the server has answered an earlier attempt, that answer is the error.
func (d *dispatcher) endIfUnsendableLocked(r *delivery, now time.Duration) bool {
	err := d.unsendableLocked(r.deadline, now)
	if err == nil {
		return false
	}
	if said, ok := errors.AsType[*PushError](r.err); ok {
		err = said
	} else if r.err == nil && r.isExpired() {
		err = ErrExpired
	}
	d.finishLocked(r, Receipt{}, err)
	return true
}

// pausedLocked returns the earliest end of a pause, and the answer that caused the pause,
// if every session that takes messages is paused. Otherwise it returns 0.
func (d *dispatcher) pausedLocked(now time.Duration) (until time.Duration, because error) {
	for _, s := range d.sessions {
		switch {
		case s.end != nil:
		case s.pausedUntil <= now:
			return 0, nil
		case until == 0 || s.pausedUntil < until:
			until, because = s.pausedUntil, s.pausedBy
		}
	}
	return until, because
}

// finishLocked gives a delivery its outcome, which unlock reports.
func (d *dispatcher) finishLocked(r *delivery, receipt Receipt, err error) {
	if r.inDoubt && err != nil && !errors.Is(err, ErrInDoubt) {
		said, ok := errors.AsType[*PushError](err)
		if !ok || said.Retryable() { // which says nothing about the attempt before
			err = &doubtError{err}
		}
	}
	r.state, r.receipt, r.err = unlisted, receipt, err
	if last := d.finished.last; last != nil && last.source != r.source {
		d.mixed = true
	}
	d.finished.push(r)
	d.countLocked(err)
	d.pending--
	d.noticeNonePendingLocked()
}

// A doubtError is about a message that was in doubt, and was then not accepted.
type doubtError struct{ err error }

func (e *doubtError) Error() string {
	return fmt.Sprintf("%v: sent once, and then: %s", ErrInDoubt, plainText(e.err))
}

// Is reports a match with ErrInDoubt, and with what else err matches but the other
// outcomes: a message has one.
func (e *doubtError) Is(target error) bool {
	switch target {
	case ErrInDoubt:
		return true
	case ErrNotSent, ErrExpired, ErrInvalid:
		return false
	}
	return errors.Is(e.err, target)
}

// abandonSourceLocked ends all deliveries of a source.
func (d *dispatcher) abandonSourceLocked(of source, why error) {
	is := func(r *delivery) bool { return r.source == of }
	some := d.queue.find(nil, is)
	some = d.backingOff.find(some, is)
	for _, s := range d.sessions {
		some = s.flight.find(some, is)
	}
	for _, r := range some {
		if r.state != unlisted {
			d.abandonLocked(r, why)
		}
	}
}
