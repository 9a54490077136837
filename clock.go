package apns

import (
	"context"
	"time"
)

// The timers of a dispatcher, each nil until it is needed. There is none for each
// message.
type timers struct {
	clock   *time.Timer // looks for deliveries whose time has ended
	ticking bool
	later   *time.Timer // looks for back-offs and pauses that have ended
	laterAt time.Duration
	idle    *time.Timer // looks for sessions without work
	idling  bool        // it runs
}

// ticks is how often the clock ticks within Timeout. A message ends at most an eighth of
// Timeout too late.
const ticks = 8

func (t *timers) stop() {
	for _, timer := range []*time.Timer{t.clock, t.later, t.idle} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// startTimerLocked starts a timer, or makes it. The timer calls f with mu held. It does not
// after close, and close waits for a call that is under way.
func (d *dispatcher) startTimerLocked(t **time.Timer, after time.Duration, f func()) {
	if *t != nil {
		(*t).Reset(after)
		return
	}
	*t = time.AfterFunc(after, func() {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return
		}
		d.running.Add(1)
		defer d.running.Done()
		defer d.unlock()
		f()
	})
}

// startClockLocked starts the clock, unless it runs.
func (d *dispatcher) startClockLocked() {
	if d.timers.ticking || d.timeout == 0 || d.closed {
		return
	}
	d.timers.ticking = true
	d.startTimerLocked(&d.timers.clock, max(1, d.timeout/ticks), d.tickLocked)
}

// tickLocked ends the deliveries whose time is over.
func (d *dispatcher) tickLocked() {
	d.timers.ticking = false
	d.queueStagedLocked()
	now := d.now()
	d.endLateLocked(now)
	more := d.pending > 0
	for _, s := range d.sessions {
		s.answers = false
		if s.protocol.tickLocked(now) {
			more = true
		}
	}
	if more {
		d.startClockLocked()
	}
	d.dispatchLocked()
}

// endLateLocked ends the deliveries whose time is over.
func (d *dispatcher) endLateLocked(now time.Duration) {
	isLate := func(r *delivery) bool { return r.deadline != 0 && r.deadline <= now }
	late := d.queue.find(nil, isLate)
	late = d.backingOff.find(late, isLate)
	for _, s := range d.sessions {
		late = s.flight.find(late, isLate)
	}
	for _, r := range late {
		if r.state != unlisted {
			d.lateLocked(r, now)
		}
	}
}

// minSilence is the least time that a message must have waited, for its answer or for room, so
// that the end of its time counts as a failure: a caller's short deadline says nothing about
// a connection, and neither does one that was queued for most of its time.
const minSilence = time.Second

// lateLocked ends a delivery whose time is over. If it was in flight, that counts as a
// failure of its session. If it was queued, it counts for each session without room. It
// counts for none that answers other messages. A session keeps the pointer to the message for
// longer than the message is ours, so it only compares the pointer.
func (d *dispatcher) lateLocked(r *delivery, now time.Duration) {
	m, was, on, since := r.message, r.state, r.session, r.at
	d.abandonLocked(r, context.DeadlineExceeded)
	if r.state != unlisted {
		return // its answer is about to be taken
	}
	for _, s := range d.sessions {
		unanswered := was == inFlight && s == on
		noRoom := was == queued && s.roomLocked() == 0 && s.pausedUntil == 0
		if (unanswered || noRoom) && !s.answers && now-since >= min(minSilence, d.timeout/2) {
			s.blameLocked(m, errNoAnswer)
		}
	}
}

// wakeAtLocked has endBackOffsLocked called at the given time, or earlier: when a back-off or a
// pause ends, or a session may turn out to be stuck.
func (d *dispatcher) wakeAtLocked(due time.Duration) {
	if d.timers.laterAt != 0 && d.timers.laterAt <= due || d.closed {
		return
	}
	d.timers.laterAt = due
	d.startTimerLocked(&d.timers.later, max(0, due-d.now()), d.endBackOffsLocked)
}

// minBackOffStep is how much time there is between two looks at the back-offs, since
// each looks at all of them.
const minBackOffStep = 5 * time.Millisecond

// endBackOffsLocked queues the deliveries whose back-off has ended, lets sessions go on whose
// pause has, and sees to it that what waits is not left to a session that is stuck.
func (d *dispatcher) endBackOffsLocked() {
	d.timers.laterAt = 0
	now := d.now()
	var next time.Duration
	due := d.backingOff.find(nil, func(r *delivery) bool {
		if r.at > now && (next == 0 || r.at < next) {
			next = r.at
		}
		return r.at <= now
	})
	for _, r := range due {
		if r.state != backingOff {
			continue
		}
		d.backingOff.remove(r)
		r.source.noteBackOffs(-1)
		r.state = unlisted
		d.resendLocked(r, r.err, 0)
	}
	for _, s := range d.sessions {
		if s.pausedUntil > now && (next == 0 || s.pausedUntil < next) {
			next = s.pausedUntil
		}
	}
	if next != 0 {
		d.wakeAtLocked(max(next, now+minBackOffStep))
	}
	d.dispatchLocked()
}

// watchIdleLocked starts to look for sessions that have had no work for idleTimeout.
func (d *dispatcher) watchIdleLocked() {
	if d.dialer != nil && !d.closed && !d.timers.idling {
		d.timers.idling = true
		d.startTimerLocked(&d.timers.idle, idleTimeout, d.closeIdleLocked)
	}
}

// closeIdleLocked drains the sessions that have had no work for idleTimeout.
func (d *dispatcher) closeIdleLocked() {
	d.timers.idling = false
	now := d.now()
	var next time.Duration
	for _, s := range d.sessions {
		if s.end != nil {
			continue
		}
		left := idleTimeout
		if s.flight.n == 0 {
			left = s.idleSince + idleTimeout - now
		}
		if left <= 0 {
			s.drainLocked(errIdle)
		} else if next == 0 || left < next {
			next = left
		}
	}
	if next > 0 {
		d.timers.idling = true
		d.startTimerLocked(&d.timers.idle, next, d.closeIdleLocked)
	}
}
