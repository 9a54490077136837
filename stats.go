package apns

import (
	"errors"
	"fmt"
	"maps"
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
	InFlight  uint64 // written, and without an answer so far
	Waiting   uint64 // handed over, and to be written
	Resent    uint64 // times that a message was written once more
	Connected uint64 // connections opened
}

// An Attempt is what one attempt to send a message came to.
type Attempt struct {
	// HTTP2 says that it was over HTTP/2, and not the binary protocol.
	HTTP2 bool
	// Conn is the number of the connection, counted from 1 in the order in which the
	// Client opened them.
	Conn uint64
	// Number is 1 for the first attempt of a message, 2 for the second, and so on.
	Number int
	// Sent is when the message was given to the connection.
	Sent time.Time
	// Latency is the time from then to the answer. On the binary protocol an accepted
	// message is one that a barrier has confirmed.
	Latency time.Duration
	// PushType, Topic and Priority are the message's.
	PushType PushType
	Topic    string
	Priority Priority
	// Err is nil if the message was accepted. Otherwise it says what came of the
	// attempt, as the error of Push does: the message may be resent.
	Err error
}

// observeLocked notes an attempt for the observer.
func (d *dispatcher) observeLocked(r *delivery, err error) {
	m := r.message
	d.attempts = append(d.attempts, Attempt{
		HTTP2:    r.session.isHTTP2,
		Conn:     r.session.number,
		Number:   int(r.attempts),
		Sent:     d.epoch.Add(r.at),
		Latency:  d.now() - r.at,
		PushType: m.PushType,
		Topic:    m.Topic,
		Priority: m.Priority,
		Err:      err,
	})
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

// label returns what a rejection is counted under. There are not many labels, whatever a
// server says.
func label(err error) string {
	e, ok := errors.AsType[*PushError](err)
	switch {
	case !ok:
		return "other"
	case e.HTTPStatus == 0:
		if reason := e.Status.reason(); reason != "" && e.Status.known() {
			return string(reason)
		} else if e.Status.known() {
			return e.Status.Error()
		}
	case e.Reason == "":
		return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
	case errors.Is(e.Reason, ReasonServiceUnavailable):
		return string(ReasonServiceUnavailable)
	case e.Reason.known():
		return string(e.Reason)
	}
	return "other"
}

// figures returns the statistics. They are of one moment.
func (d *dispatcher) figures() Stats {
	d.mu.Lock()
	defer d.unlock()
	d.stageLocked()
	s := d.stats
	s.Rejected = maps.Clone(s.Rejected)
	s.InFlight = uint64(d.inFlight)
	s.Waiting = uint64(d.queue.n + d.backingOff.n)
	return s
}
