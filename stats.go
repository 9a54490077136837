package apns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"
)

// Stats are the figures of a Client since it was made.
type Stats struct {
	Accepted uint64
	// Rejected counts the messages that a server rejected, by what it said: the
	// Reason, also where the binary protocol has a Status that means the same;
	// another Status as its text; an HTTP status without a reason as "HTTP status 400";
	// and "other" for what the package does not know.
	Rejected  map[string]uint64
	Invalid   uint64 // matched ErrInvalid
	Expired   uint64 // matched ErrExpired
	NotSent   uint64 // matched ErrNotSent
	InDoubt   uint64 // matched ErrInDoubt
	InFlight  uint64 // given to a connection, and without an answer so far
	Waiting   uint64 // handed over, and to be written
	Resent    uint64 // times that a message was resent
	Connected uint64 // connections opened
}

// An Attempt is one attempt to send a message. A message that was resent has several, and one
// that was never given to a connection has none. What a gateway of the binary protocol
// discarded after a rejection does not count as an attempt.
type Attempt struct {
	// Protocol is "h2" or "binary".
	Protocol string
	// Conn is the number of the connection, counted from 1 in the order in which the
	// Client opened them. There is no bound to it: do not use it as a metric's label.
	Conn uint64
	// Number is 1 for the first attempt of a message, 2 for the second, and so on.
	Number int
	// Final says that the message has its outcome from this attempt. A message that is to be
	// resent may end before that, for example because of its Timeout. Then none of its
	// attempts is final.
	Final bool
	// Sent is when the message was given to the connection.
	Sent time.Time
	// Latency is the time from Sent until the outcome of the attempt was known. On the
	// binary protocol it is usually a barrier that confirms that a message was accepted.
	Latency time.Duration
	// PushType, Topic and Priority are those of the Message, without defaults.
	PushType PushType
	Topic    string
	Priority Priority
	// APNsID is the server's ID for the message, if it was accepted over HTTP/2.
	APNsID string
	// Err is nil if the message was accepted. Otherwise it says what came of the
	// attempt, as the error of Push does. Its text shows neither the device token nor the
	// payload.
	Err error
}

// Outcome returns "accepted", "rejected", "not_sent" or "in_doubt", fit for a metric's
// label.
func (a *Attempt) Outcome() string {
	switch {
	case a.Err == nil:
		return "accepted"
	case errors.Is(a.Err, ErrInDoubt):
		return "in_doubt"
	case errors.Is(a.Err, ErrNotSent):
		return "not_sent"
	}
	return "rejected"
}

// Reason returns why the message was not accepted, as Stats.Rejected counts it, and "" if
// it was. The number of different values is bounded, whatever a server says.
func (a *Attempt) Reason() string {
	if a.Err == nil {
		return ""
	}
	return label(a.Err)
}

// An observation is an attempt, and the context of its call.
type observation struct {
	ctx     context.Context
	attempt Attempt
}

// observeLocked notes an attempt for the observer.
func (d *dispatcher) observeLocked(r *delivery, apnsID string, err error) *Attempt {
	m, latency := r.message, d.now()-r.at
	a := Attempt{
		Protocol: "binary",
		Conn:     r.session.number,
		Number:   int(r.attempts),
		Sent:     time.Now().Add(-latency), // and not from epoch, since the clock may have been set
		Latency:  latency,
		PushType: m.PushType,
		Topic:    m.Topic,
		Priority: m.Priority,
		APNsID:   apnsID,
		Err:      err,
	}
	if r.session.isHTTP2 {
		a.Protocol = "h2"
	}
	d.observations = append(d.observations, observation{r.source.context(), a})
	return &d.observations[len(d.observations)-1].attempt
}

// countLocked counts an outcome.
func (d *dispatcher) countLocked(err error) {
	s := &d.stats
	switch {
	case err == nil:
		s.Accepted++
	case errors.Is(err, ErrInDoubt):
		s.InDoubt++
	case errors.Is(err, ErrNotSent):
		s.NotSent++
	case errors.Is(err, ErrInvalid):
		s.Invalid++
	case errors.Is(err, ErrExpired):
		s.Expired++
	default:
		if s.Rejected == nil {
			s.Rejected = make(map[string]uint64)
		}
		s.Rejected[label(err)]++
	}
}

// label returns what an error is counted under. There are not many labels, whatever a
// server says.
func label(err error) string {
	if e, ok := errors.AsType[*PushError](err); ok && e.HTTPStatus != 0 && e.Reason == "" {
		return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
	}
	if reason, ok := errors.AsType[Reason](err); ok {
		if reason.Is(ReasonServiceUnavailable) {
			reason = ReasonServiceUnavailable
		} else if reason.Is(ReasonBadEnvironmentKeyIDInToken) {
			reason = ReasonBadEnvironmentKeyIDInToken
		}
		if reason.known() {
			return string(reason)
		}
		return "other"
	}
	status, ok := errors.AsType[Status](err)
	switch {
	case ok && status.known() && status.reason() != "":
		return string(status.reason())
	case ok && status.known():
		return status.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return "other"
}

// figures returns the statistics. They are of one moment.
func (d *dispatcher) figures() Stats {
	d.mu.Lock()
	defer d.unlock()
	d.queueStagedLocked()
	s := d.stats
	s.Rejected = maps.Clone(s.Rejected)
	s.InFlight = uint64(d.inFlight)
	s.Waiting = uint64(d.queue.n + d.backingOff.n)
	return s
}
