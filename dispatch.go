package apns

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A dispatcher is between the sources of messages and the sessions that send them. A
// source hands messages over; a session takes what it has room for, encodes and writes
// it together; the reader of its connection hears the answers; each outcome is reported
// to its source.
//
// A Client has one dispatcher, which dials. A Conn over HTTP/2 has one with a single
// session, which does not.
//
// One mutex protects the dispatcher, its dialer, its sessions and all deliveries that were
// handed over. It is released by unlock, which then reports the outcomes. When a source
// hears of an outcome, the mutex is free and so is the place of the message: it can hand
// over the next one at once.
type dispatcher struct {
	settings
	dialer  *dialer // nil: no other connection is opened
	log     *slog.Logger
	epoch   time.Time      // from which now counts
	running sync.WaitGroup // of all goroutines that close waits for
	calls   sync.Pool      // of *pushCall

	provider atomic.Pointer[provider] // knows the rules for messages; nil unless the last connection speaks HTTP/2
	waiting  atomic.Int64             // deliveries that are staged or queued; Stats.Waiting is another number

	mu           sync.Mutex    // protects the fields below, and those marked so in other types
	queue        list          // what a session may take, in order
	backingOff   list          // what is to be queued again later
	finished     list          // what unlock reports
	mixed        bool          // finished has deliveries of more than one source
	observations []observation // what unlock tells the observer
	deferred     []func()      // what unlock calls
	staged       []*pushAll    // those with messages that are not queued yet
	sessions     []*session    // in the order in which they were opened
	opened       uint64        // sessions so far
	inFlight     int           // deliveries on sessions
	pending      int           // deliveries without an outcome
	queueRoom    sync.Cond     // of mu: fewer messages wait, or a PushAll ends
	producing    int           // PushAlls that have messages to come
	flushing     int           // PushAlls that have none, and wait for outcomes
	pace         pace          // of the barriers on the binary protocol
	timers       timers
	closing      error           // why no messages are taken; nil while they are
	ending       chan struct{}   // closed when closing is set: each PushAll stops; set once, readable without mu
	closed       bool            // close was called
	waiters      []chan struct{} // closed when nothing is pending
	stats        Stats           // but for what is computed
}

// The settings of a dispatcher.
type settings struct {
	timeout         time.Duration // of each message; 0: none
	maxAttempts     int
	maxInFlight     int
	maxConns        int
	confirmInterval time.Duration
	assumeAccepted  time.Duration // 0: never
	inDoubt         InDoubtPolicy
	observe         func(context.Context, Attempt) // or nil
}

// maxWaiting is how many messages may wait before a PushAll takes no more. The time of a
// message begins when it is taken, so no more are taken than can be sent soon.
func (s *settings) maxWaiting() int { return min(s.maxInFlight, 1024) }

func newDispatcher(s settings, log *slog.Logger) *dispatcher {
	d := &dispatcher{settings: s, log: log, epoch: time.Now().Add(-time.Second), ending: make(chan struct{})}
	d.queueRoom.L = &d.mu
	d.pace.init(s.maxInFlight)
	return d
}

// now returns the time since epoch, a moment before the dispatcher was made: it is never
// 0, which stands for no time.
func (d *dispatcher) now() time.Duration { return time.Since(d.epoch) }

// unlock releases mu, and then reports what was finished while it was held.
func (d *dispatcher) unlock() {
	finished, mixed, observations, deferred := d.finished, d.mixed, d.observations, d.deferred
	d.finished, d.mixed, d.observations, d.deferred = list{}, false, nil, nil
	d.mu.Unlock()
	for _, f := range deferred {
		f()
	}
	for _, o := range observations {
		d.observe(o.ctx, o.attempt)
	}
	for finished.n > 0 {
		rs := finished
		if mixed {
			rs = finished.popSource()
		} else {
			finished = list{}
		}
		rs.first.source.report(rs)
	}
}

// afterLocked defers f until mu is released. It may log, which can take a while.
func (d *dispatcher) afterLocked(f func()) { d.deferred = append(d.deferred, f) }

// goLocked runs f in a goroutine that close waits for. If the dispatcher is closed it
// does nothing, and is false.
func (d *dispatcher) goLocked(f func()) bool {
	if d.closed {
		return false
	}
	d.running.Go(f)
	return true
}

// checkMessage says which rule a message breaks, as far as that is known before it is
// encoded. checked says that nothing is left to be checked for HTTP/2, expires says
// that the message has an Expiry, and that it is ahead.
func (d *dispatcher) checkMessage(m *Message) (checked, expires bool, err error) {
	if m == nil {
		return false, false, errNoMessage
	}
	expires = !m.Expiry.IsZero() && m.Expiry.After(time.Now())
	p := d.provider.Load()
	if p == nil {
		return false, expires, nil
	}
	return true, expires, p.check(m)
}

// handOver takes a message from its source. From then on it gets exactly one outcome.
func (d *dispatcher) handOver(r *delivery) {
	d.mu.Lock()
	var one list
	one.push(r)
	d.handOverLocked(&one, r.deadline, d.now())
	// Where others wait already, dispatchLocked has run for them, and whoever makes room
	// runs it again.
	if d.queue.n == 1 || len(d.sessions) == 0 {
		d.dispatchLocked()
	}
	d.unlock()
}

// handOverLocked queues deliveries of a source, unless their outcomes are known already.
// All have the same deadline; 0 means Timeout. A delivery whose message breaks a rule comes
// with err set.
func (d *dispatcher) handOverLocked(rs *list, deadline, now time.Duration) {
	if d.timeout > 0 && deadline == 0 {
		deadline = now + d.timeout
	}
	err := d.unsendableLocked(deadline, now)
	if d.closing != nil {
		err = fmt.Errorf("%w: %w", ErrNotSent, d.closing)
	}
	d.pending += rs.n
	for r := rs.first; r != nil; {
		next := r.next
		if err != nil && r.err == nil {
			r.err = err
		}
		if r.err != nil {
			rs.remove(r)
			d.finishLocked(r, Receipt{}, r.err)
		} else {
			r.state, r.at, r.deadline = queued, now, deadline
		}
		r = next
	}
	d.waiting.Add(int64(rs.n))
	d.queue.append(rs)
	d.startClockLocked()
}

// noteStaged is called by a PushAll when it has staged the first message. A session takes
// it, and those staged after it, when it has room.
func (d *dispatcher) noteStaged(b *pushAll) {
	d.mu.Lock()
	defer d.unlock()
	d.staged = append(d.staged, b)
	d.startClockLocked()
	d.dispatchLocked()
}

// queueStagedLocked hands over the messages that PushAlls have staged.
func (d *dispatcher) queueStagedLocked() {
	if len(d.staged) == 0 {
		return
	}
	now := d.now()
	for i, b := range d.staged {
		staged := b.takeStaged()
		d.waiting.Add(-int64(staged.n))
		d.handOverLocked(&staged, 0, now)
		d.staged[i] = nil
	}
	d.staged = d.staged[:0]
	d.queueRoom.Broadcast() // some may have got their outcomes at once
}

// dispatchLocked wakes the first session that has room for the messages that wait, or
// opens another connection.
func (d *dispatcher) dispatchLocked() {
	if d.queue.n == 0 && len(d.staged) == 0 || d.inFlight >= d.maxInFlight {
		return
	}
	for _, s := range d.sessions {
		s.protocol.expectLocked()
		if s.roomLocked() > 0 && !s.isStuckLocked() {
			if d.dialer != nil && s.writing != 0 {
				d.wakeAtLocked(s.writing + maybeDeadAfter) // it may be stuck by then
			}
			s.wakeWriter()
			return
		}
	}
	d.queueStagedLocked() // those that cannot be sent in time get their outcomes now
	if d.dialer != nil {
		d.dialer.growLocked()
	}
}

// hasQueuedLocked reports whether there is a message for takeLocked.
func (d *dispatcher) hasQueuedLocked() bool {
	return (d.queue.n > 0 || len(d.staged) > 0) && d.inFlight < d.maxInFlight
}

// takeLocked gives a session the next message to send, or nil.
func (d *dispatcher) takeLocked(s *session) *delivery {
	for d.inFlight < d.maxInFlight {
		if d.queue.n == 0 {
			d.queueStagedLocked()
		}
		r := d.queue.pop()
		if r == nil {
			break
		}
		d.waiting.Add(-1)
		if r.isExpired() {
			d.finishLocked(r, Receipt{}, ErrExpired)
			continue
		}
		r.attempts++
		if r.isResend {
			d.stats.Resent++
		}
		r.state, r.session = inFlight, s
		s.flight.push(r)
		d.inFlight++
		return r
	}
	return nil
}

// filledLocked is called after a session has taken messages: PushAlls may go on, other
// sessions may have room, and another connection may be of use.
func (d *dispatcher) filledLocked() {
	if int(d.waiting.Load()) <= d.maxWaiting()/2 {
		d.queueRoom.Broadcast()
	}
	d.dispatchLocked() // others may have room
	if d.dialer != nil {
		d.dialer.growLocked() // isFullLocked may ask for a connection before there is no room
	}
}

// leaveQueueLocked takes a delivery from the queue that is not sent: PushAlls may go on.
func (d *dispatcher) leaveQueueLocked(r *delivery) {
	d.queue.remove(r)
	d.waiting.Add(-1)
	d.queueRoom.Broadcast()
}

// leaveFlightLocked takes a delivery from its session. Where MaxInFlight was reached,
// dispatchLocked has stopped: the first place that is free starts it again.
func (d *dispatcher) leaveFlightLocked(r *delivery) {
	s := r.session
	s.flight.remove(r)
	r.state = unlisted
	if s.flight.n == 0 {
		s.idleSince = d.now()
	}
	if d.inFlight--; d.inFlight == d.maxInFlight-1 {
		d.dispatchLocked()
	}
}

// requeueLocked puts deliveries of a session at the head of the queue, because the server
// did not process them. The attempt is not counted. It does not dispatch: filledLocked and
// removeLocked do.
func (d *dispatcher) requeueLocked(rs *list) {
	now := d.now()
	for r := rs.first; r != nil; r = r.next {
		r.state, r.at = queued, now
		r.attempts--
	}
	d.inFlight -= rs.n
	d.waiting.Add(int64(rs.n))
	d.queue.prepend(rs)
	for d.closed && d.queue.n > 0 {
		d.abandonLocked(d.queue.first, d.closing)
	}
	if d.dialer != nil && d.dialer.due > now {
		d.endUnsendableLocked() // no other connection may be due in time
	}
}

// The sessions.

// addSessionLocked lets a session take messages. It is false if the dispatcher is closed.
func (d *dispatcher) addSessionLocked(s *session) bool {
	if d.closed {
		return false
	}
	d.opened++
	s.number, s.isAdded, s.idleSince = d.opened, true, d.now()
	d.stats.Connected++
	d.sessions = append(d.sessions, s) // first, so that draining the others ends no messages
	for _, other := range d.sessions {
		if other.replaceBecause != nil {
			other.drainLocked(other.replaceBecause)
		}
	}
	d.watchIdleLocked()
	s.wakeWriter()
	return true
}

// drainingLocked is called when a session takes no more messages. A connection over
// HTTP/2 on which no message was answered counts as a failure to connect, unless it is
// closed because it was idle or the dialer has counted a failure of it already.
// (concludeLocked counts those of the binary protocol.) A Conn has no other session, so
// the messages in its queue end.
func (d *dispatcher) drainingLocked(s *session) {
	if d.dialer != nil {
		if s.isHTTP2 && s.isAdded && !s.hasAnswered && !s.isBlamed && s.end != errIdle && !d.closed {
			d.dialer.noteFailureLocked(s.end)
		} else if d.dialer.due > d.now() {
			d.endUnsendableLocked() // it may have been the last one that was open
		}
		d.dispatchLocked()
		return
	}
	for d.queue.n > 0 {
		d.abandonLocked(d.queue.first, s.end)
	}
}

// removeLocked forgets a session that has ended. The dispatcher of a Conn keeps its session:
// unsendableLocked takes the reason from it.
func (d *dispatcher) removeLocked(s *session) {
	if d.dialer == nil {
		return
	}
	for i, other := range d.sessions {
		if other == s {
			d.sessions = append(d.sessions[:i:i], d.sessions[i+1:]...)
			break
		}
	}
	d.dispatchLocked()
}

// Its end.

// shutDownLocked takes no more messages, because of err, and returns a channel that is
// closed when none is pending.
func (d *dispatcher) shutDownLocked(err error) <-chan struct{} {
	d.queueStagedLocked()
	d.stopTakingLocked(err)
	done := make(chan struct{})
	d.waiters = append(d.waiters, done)
	d.noticeNonePendingLocked()
	for _, s := range d.sessions {
		s.wakeWriter() // for a barrier
	}
	return done
}

// stopTakingLocked takes no more messages, because of err.
func (d *dispatcher) stopTakingLocked(err error) {
	if d.closing == nil {
		d.closing = err
		close(d.ending)
		d.queueRoom.Broadcast()
	}
}

// isEnding reports whether no more messages are taken.
func (d *dispatcher) isEnding() bool {
	select {
	case <-d.ending:
		return true
	default:
		return false
	}
}

// noticeNonePendingLocked tells those who wait for it that nothing is pending.
func (d *dispatcher) noticeNonePendingLocked() {
	if d.pending > 0 {
		return
	}
	for _, done := range d.waiters {
		close(done)
	}
	d.waiters = nil
}

// close ends all sessions and all deliveries, and returns when nothing is left running.
func (d *dispatcher) close(err error) {
	d.mu.Lock()
	d.queueStagedLocked()
	d.stopTakingLocked(err)
	d.closed = true
	d.timers.stop()
	if d.dialer != nil {
		d.dialer.cancel()
		d.dialer.announceLocked(fmt.Errorf("apns: %w", err))
	}
	for _, l := range []*list{&d.queue, &d.backingOff} {
		for l.n > 0 {
			d.abandonLocked(l.first, err)
		}
	}
	d.queueRoom.Broadcast()
	for _, s := range d.sessions {
		d.running.Go(s.protocol.close)
	}
	d.unlock()
	d.running.Wait()
}
