package apns

import (
	"errors"
	"time"
)

// alive is how a session over HTTP/2 finds out that the server is gone. All of it is
// protected by dispatcher.mu.
type alive struct {
	heard   time.Time   // when something was read last
	wanted  time.Time   // since when an answer is expected; zero if none is
	pinged  time.Time   // when a PING was sent; zero once something was heard
	probing bool        // messages wait until something is heard
	timer   *time.Timer // calls checkAliveLocked; nil until it is needed
	timed   bool        // the timer is running
}

const (
	// pingAfter is how long nothing may be heard while something is expected, before
	// a PING asks whether the server is there; and pingTimeout is how long the answer
	// may take.
	pingAfter   = 10 * time.Second
	pingTimeout = 10 * time.Second
	// idleAfter is how long nothing may be heard before the next message waits for
	// the answer to a PING, so that it is not lost on a dead connection. No PINGs are
	// sent while idle: Apple wants at most one an hour ("Sending notification
	// requests to APNs").
	idleAfter = time.Minute
	// maybeDeadAfter is how long that answer may take before another connection is
	// dialed, for what waits.
	maybeDeadAfter = time.Second
)

// mayHaveDiedLocked reports whether the connection may have died while idle. It then
// sends a PING, and the session takes no messages until something is heard.
func (s *http2Session) mayHaveDiedLocked() bool {
	now := time.Now()
	// The monotonic clock does not count the time that the machine was suspended.
	quiet := max(now.Sub(s.heard), now.Round(0).Sub(s.heard.Round(0)))
	if !s.probing && quiet >= idleAfter {
		s.probing = true
		s.pingLocked()
		s.checkAliveInLocked(maybeDeadAfter)
	}
	return s.probing
}

// heardLocked notes that something was read.
func (s *http2Session) heardLocked() {
	s.heard, s.pinged, s.probing, s.maybeDead = time.Now(), time.Time{}, false, false
}

func (s *http2Session) pingLocked() {
	s.pinged = time.Now()
	s.conn.Ping()
	s.expectLocked()
}

// expectLocked records since when the server is expected to do something, and starts the
// timer. It is expected to if messages are in flight or wait, if a PING is unanswered, or
// if the session drains.
func (s *http2Session) expectLocked() {
	if s.broken != nil {
		return
	}
	switch expected := s.end != nil || s.conn.Active() > 0 || s.conn.Pinging() || s.isAdded && s.d.hasQueuedLocked(); {
	case !expected:
		s.wanted = time.Time{}
	case s.wanted.IsZero():
		s.wanted = time.Now()
		if !s.timed {
			s.checkAliveInLocked(pingAfter)
		}
	}
}

func (s *http2Session) checkAliveInLocked(d time.Duration) {
	s.timed = true
	s.d.startTimerLocked(&s.timer, d, s.checkAliveLocked)
}

func (s *http2Session) stopTimerLocked() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// checkAliveLocked is called by the timer. A connection that has been quiet for pingAfter
// is sent a PING. Without an answer within pingTimeout it has failed. If messages wait for
// the answer, because it was idle, it may be dead after maybeDeadAfter already.
func (s *http2Session) checkAliveLocked() {
	s.timed = false
	if s.wanted.IsZero() || s.broken != nil {
		return
	}
	quiet := min(time.Since(s.heard), time.Since(s.wanted))
	if !s.pinged.IsZero() {
		waited := time.Since(s.pinged)
		if waited >= pingTimeout {
			s.failLocked(errors.New("the server does not answer, not even a PING"))
			return
		}
		if s.probing && waited >= maybeDeadAfter {
			s.maybeDead = true
			s.d.dispatchLocked()
		}
		s.checkAliveInLocked(pingTimeout - waited)
		return
	}
	if quiet >= pingAfter {
		s.pingLocked()
		s.checkAliveInLocked(pingTimeout)
		s.wakeWriter()
		return
	}
	s.checkAliveInLocked(pingAfter - quiet)
}
