package apns

import (
	"errors"
	"slices"
	"time"
)

// A session sends a dispatcher's messages over one connection. This is what both
// protocols have in common; the rest is the protocol's.
//
// A session has a writer, which takes messages from the dispatcher while there is room
// for them. Its connection has a reader. Over HTTP/2 the reader takes the answers. On the
// binary protocol it takes the packets with status 0, and records how the connection ended;
// the writer then answers all that is in flight. The writer also ends the session: it is
// the last to leave, when each message that it took has its answer.
type session struct {
	d        *dispatcher
	protocol protocol
	isHTTP2  bool
	yield    func()        // lets other goroutines run: see write
	wake     chan struct{} // has a value while there may be something to write
	done     chan struct{} // closed when the session has ended

	// Protected by dispatcher.mu:

	number         uint64 // of the sessions of the dispatcher, from 1
	isAdded        bool   // the dispatcher has added it: it takes messages while end is nil
	end            error  // why it takes no more messages; nil while it does
	replaceBecause error  // why it drains once another session is open; or nil
	isBlamed       bool   // the dialer has counted a failure of it; the next answer about a message takes that back
	flight         list   // deliveries in flight, in the order of writing
	idleSince      time.Duration
	maybeDead      bool // it was idle and does not answer so far: it does not count among the connections

	writing     time.Duration // since when the writer writes; 0: it does not
	hasAnswered bool          // an answer was about a message: not one that blames the connection
	answers     bool          // so was one since the clock of the dispatcher ticked last
	failures    int           // in a row: answers that blame the connection, or none in time
	failed      []*Message    // up to minFailed different messages that those were about; the pointers are only compared
	pausedUntil time.Duration // the server wants no messages before; 0: it is not paused
	pausedBy    error         // the answer that says so
}

// A protocol is the half of a session that knows its protocol: it encodes messages,
// reads answers, and knows when a message was accepted. Only the writer calls fillLocked,
// flush and finish. dispatcher.mu is held in those with the suffix Locked.
type protocol interface {
	// capacityLocked returns how many messages the connection takes now.
	capacityLocked() int
	// isFullLocked reports whether another connection would help, now or soon.
	isFullLocked() bool
	// expectLocked is called when messages may have begun to wait. The HTTP/2 half notes
	// that it expects to hear from the server, and starts its timer.
	expectLocked()
	// fillLocked takes messages until there is no more room, or the write is large
	// enough, and encodes them. It reports whether there is something to flush.
	fillLocked() bool
	// flush writes what was encoded. After an error finish is next.
	flush() error
	// isOverLocked reports whether the writer has nothing more to do.
	isOverLocked() bool
	// finish ends the connection, for an error of flush or because it is over, and
	// answers all that is in flight.
	finish(err error)
	// cancelLocked abandons a delivery in flight and returns its answer. It returns false
	// if the real answer is about to be taken.
	cancelLocked(r *delivery, why error) (answer, bool)
	// onDrainLocked is called when the session takes no more messages.
	onDrainLocked()
	// tickLocked is called by the dispatcher's clock. It reports whether the clock has
	// to go on, also without deliveries.
	tickLocked(now time.Duration) bool
	// close ends the session, and returns when it has ended.
	close()
}

func newSession(d *dispatcher, p protocol, yield func()) session {
	return session{d: d, protocol: p, yield: yield, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

const (
	// maxFailures is how many answers in a row may blame a connection, to at least
	// minFailed different messages, before it is replaced.
	maxFailures = 5
	minFailed   = 3
	// maxFew is the number of pending messages up to which one message that has failed twice
	// is enough.
	maxFew = 4
)

var (
	errNoAnswer = errors.New("the server does not answer messages")
	errIdle     = errors.New("the connection had nothing to do")
)

// wakeWriter wakes the writer, which then looks for something to write.
func (s *session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer. While nothing can be written it sleeps, until it is woken. It
// then lets goroutines that are about to hand over a message do so first, because to
// write two messages together costs little more than to write one. After that it takes
// messages and writes them, for as long as there are some that it has room for; others
// come while it writes, so that busier sources make for larger writes.
func (s *session) write() {
	defer close(s.done)
	var err error
	for err == nil && !s.isOver() {
		<-s.wake
		s.yield()
		for err == nil && s.fill() {
			err = s.protocol.flush()
		}
	}
	s.protocol.finish(err)
	s.d.mu.Lock()
	s.d.removeLocked(s)
	s.d.unlock()
}

func (s *session) isOver() bool {
	s.d.mu.Lock()
	defer s.d.unlock()
	return s.protocol.isOverLocked()
}

func (s *session) fill() bool {
	s.d.mu.Lock()
	defer s.d.unlock()
	if s.protocol.isOverLocked() {
		return false // finish decides first what that means for the next connection
	}
	something := s.protocol.fillLocked()
	if s.writing = 0; something {
		s.writing = s.d.now()
	}
	s.d.filledLocked()
	return something
}

// isStuckLocked reports whether the server does not read what the writer writes.
func (s *session) isStuckLocked() bool {
	return s.writing != 0 && s.d.now()-s.writing >= maybeDeadAfter
}

// roomLocked returns how many messages the session takes now.
func (s *session) roomLocked() int {
	switch {
	case s.end != nil || !s.isAdded:
		return 0
	case s.pausedUntil != 0:
		if s.pausedUntil > s.d.now() {
			return 0
		}
		s.pausedUntil, s.pausedBy = 0, nil
	}
	return s.protocol.capacityLocked()
}

// drainLocked stops taking messages, for the given reason unless there is one already.
// The session ends when what is in flight has its answers.
func (s *session) drainLocked(why error) (first bool) {
	if s.end != nil {
		return false
	}
	s.end = why
	s.protocol.onDrainLocked()
	s.d.drainingLocked(s)
	s.wakeWriter()
	return true
}

// noteAnswerLocked notes an answer about a message, which proves that the connection is of
// use. Nothing else does: not that it was opened, and not that PINGs are answered.
func (s *session) noteAnswerLocked(accepted bool) {
	s.answers = true
	if s.failures > 0 {
		s.failures, s.failed, s.replaceBecause = 0, nil, nil
	}
	if accepted && s.pausedUntil != 0 {
		s.pausedUntil, s.pausedBy = 0, nil
		s.wakeWriter()
	}
	if !s.hasAnswered || s.isBlamed {
		s.hasAnswered, s.isBlamed = true, false
		if s.d.dialer != nil {
			s.d.dialer.workedLocked()
		}
	}
}

// blameLocked notes a failure of the connection: an answer that blames it, or a message
// that had no answer in time. After some in a row another connection is dialed, and replaces
// this one.
func (s *session) blameLocked(m *Message, why error) {
	if s.d.dialer == nil || !s.isHTTP2 || s.end != nil || s.replaceBecause != nil {
		return
	}
	s.failures++
	twice := slices.Contains(s.failed, m)
	if !twice && len(s.failed) < minFailed {
		s.failed = append(s.failed, m)
	}
	few := twice && s.d.pending <= maxFew && s.d.dialer.claimReplacementLocked()
	if s.failures >= maxFailures && len(s.failed) >= minFailed || few {
		s.replaceBecause, s.isBlamed = why, true
		s.d.afterLocked(func() { s.d.log.Warn("apns: connection is to be replaced", "error", why) })
		s.d.dialer.noteFailureLocked(why)
		s.d.dialer.growLocked()
	}
}

// pauseLocked stops the session from taking messages for a while, because the server asks
// for that. The pause that ends last counts.
func (s *session) pauseLocked(wait time.Duration, because error) {
	until := s.d.now() + wait
	if until <= s.pausedUntil {
		return
	}
	s.pausedUntil, s.pausedBy = until, because
	s.d.wakeAtLocked(until)
	s.d.endUnsendableLocked()
}
