package apns

import (
	"errors"
	"time"
)

// This is how a session finds out that the server is gone.

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
)

// mayHaveDiedLocked reports whether the connection may have died while idle. It then
// sends a PING, and messages wait until something is heard.
func (s *session) mayHaveDiedLocked() bool {
	now := time.Now()
	// The monotonic clock does not count the time that the machine was suspended.
	quiet := max(now.Sub(s.heard), now.Round(0).Sub(s.heard.Round(0)))
	if !s.probing && quiet >= idleAfter {
		s.probing = true
		s.pingLocked()
	}
	return s.probing
}

func (s *session) pingLocked() {
	s.pinged = time.Now()
	s.conn.Ping()
	s.expectLocked()
}

// expectLocked records whether something is expected of the server, and starts the
// timer of checkAlive if so: an answer, room for a message of the queue or, once the
// session drains, that the server reads what is still to be written.
func (s *session) expectLocked() {
	if s.broken != nil {
		return
	}
	switch expected := s.queue.n > 0 || s.end != nil || s.conn.Active() > 0 || s.conn.Pinging(); {
	case !expected:
		s.wanted = time.Time{}
	case s.wanted.IsZero():
		s.wanted = time.Now()
		if !s.timed {
			s.startTimerLocked(pingAfter)
		}
	}
}

func (s *session) startTimerLocked(d time.Duration) {
	s.timed = true
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.checkAlive)
	} else {
		s.timer.Reset(d)
	}
}

// checkAlive ends the session if the server no longer answers. It asks with a PING
// first.
func (s *session) checkAlive() {
	s.mu.Lock()
	s.timed = false
	if s.wanted.IsZero() || s.broken != nil {
		s.mu.Unlock()
		return
	}
	quiet := min(time.Since(s.heard), time.Since(s.wanted))
	dead := false
	switch pinged := !s.pinged.IsZero(); {
	case pinged && time.Since(s.pinged) >= pingTimeout:
		dead = true
	case pinged:
		s.startTimerLocked(pingTimeout - time.Since(s.pinged))
	case quiet >= pingAfter:
		s.pingLocked()
		s.startTimerLocked(pingTimeout)
	default:
		s.startTimerLocked(pingAfter - quiet)
	}
	s.mu.Unlock()
	if dead {
		s.fail(errors.New("the server does not answer, not even a PING"))
		return
	}
	s.wakeWriter()
}
