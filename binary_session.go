package apns

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"time"
)

// A binarySession is the binary protocol's half of a session. A gateway says nothing
// about a message that it accepts. So a session takes a number of messages and then ends
// with a barrier, a message that the gateway must reject: its rejection confirms that
// all before it were accepted. Meanwhile another session takes messages.
//
// The identifier of a message is its number on the connection, counted from 1.
type binarySession struct {
	session
	conn *binaryConn
	pace *pace // shared by the sessions of the dispatcher

	// Of the writer:
	buf     []byte      // encoded messages
	offsets []int       // where each of them ends
	scratch []byte      // for TLS records
	barrier bool        // the barrier is to be written
	silence *time.Timer // assumes that all were accepted

	// Protected by dispatcher.mu:
	taken        int           // messages so far: the identifier of the last one
	written      int           // of these, known to be completely written
	acknowledged int           // of these, as far as the gateway has said that it accepted them (status 0)
	since        time.Duration // when the first one without an outcome was taken, or the last status 0 came
	gatewaySince time.Duration // since when a write or the barrier waits for the gateway; 0: none does
	barrierSent  bool          // the barrier was written, or is about to be: no message follows
	timer        *time.Timer   // wakes the writer for the barrier
}

// A pace says how many messages the sessions of a dispatcher take before their barriers,
// and when those are due. It is protected by dispatcher.mu.
type pace struct {
	most         int           // messages before a barrier, at most
	n            int           // messages before the next barriers
	ceiling      int           // up to which n doubles with each confirmation
	confirmed    int           // barriers since the ceiling was set
	last         time.Duration // when the last barrier was written; long ago, if there was none
	acknowledges bool          // the gateway says what it accepts (status 0), so that barriers can wait
}

const (
	// maxBinarySessions limits the connections: one that takes messages, and those that
	// wait for the answers to their barriers.
	maxBinarySessions = 3
	// maxBinaryWrite is the size in bytes at which messages are written.
	maxBinaryWrite = 64 << 10
	// minRejectedPace is how many messages a session takes at least after a rejection. To
	// resend so many costs less than to dial.
	minRejectedPace = 512
	// spareTimeout is how long a connection is kept on which nothing was written, or all
	// that was has its outcome.
	spareTimeout = 10 * time.Second
)

func (p *pace) init(maxInFlight int) {
	// While a barrier is on its way, the next session takes the rest.
	p.most = max(1, maxInFlight/4*3+maxInFlight%4*3/4)
	p.n, p.ceiling = p.most, p.most
	p.last = math.MinInt64 / 2
}

// lost notes that a session with n messages has ended, and nothing was said about them.
// The next sessions send their barriers earlier: with a gateway that takes only a few
// messages on each connection, the number soon matches.
func (p *pace) lost(n int) {
	p.n = max(1, min(p.n, n/4))
	p.ceiling, p.confirmed = max(1, n/2), 0
}

// confirm notes that a barrier was answered. Only after many of them does n reach a number
// that was once too much: or else most messages would be in doubt again and again.
func (p *pace) confirm() {
	if p.confirmed++; p.n >= p.ceiling/2 && p.confirmed >= 16 {
		p.ceiling, p.confirmed = 2*p.ceiling, 0
	}
	p.ceiling = min(p.ceiling, p.most)
	p.n = max(p.n, min(2*p.n, p.ceiling))
}

// newBinarySession begins to send messages over a connection.
func newBinarySession(d *dispatcher, c *Conn) *binarySession {
	s := &binarySession{conn: c.binary, pace: &d.pace}
	s.session = newSession(d, s, c.link.yield)
	s.conn.serveSession(s.wakeWriter, s.takeAcknowledgement)
	d.running.Go(s.write)
	return s
}

func (s *binarySession) capacityLocked() int {
	if s.comesSecondLocked() {
		return 0
	}
	return s.roomToBarrierLocked()
}

// roomToBarrierLocked returns how many more messages are to come before the barrier.
func (s *binarySession) roomToBarrierLocked() int {
	if s.barrierSent || s.conn.isEnded() {
		return 0
	}
	if s.taken == math.MaxInt32 {
		return 0 // the identifiers are used up
	}
	return s.pace.n - (s.taken - s.acknowledged)
}

// comesSecondLocked reports whether another connection has ended and its writer has yet to
// conclude what that means: messages that it resends go before those that wait.
func (s *binarySession) comesSecondLocked() bool {
	for _, other := range s.d.sessions {
		if b, ok := other.protocol.(*binarySession); ok && b != s && b.flight.n > 0 && b.conn.isEnded() {
			return true
		}
	}
	return false
}

// isFullLocked reports whether another connection will help soon: it is early, since dialing
// takes time.
func (s *binarySession) isFullLocked() bool {
	if s.roomToBarrierLocked() <= s.pace.n/2 || s.isStuckLocked() {
		return true
	}
	due, at := s.barrierDueLocked()
	return due || at != 0 && at-s.d.now() < s.d.confirmInterval/2
}

// barrierDueLocked reports whether it is time for the barrier and, if not, when it will
// be; 0 if that is not known.
func (s *binarySession) barrierDueLocked() (due bool, at time.Duration) {
	full := s.taken-s.acknowledged >= s.pace.n || s.taken == math.MaxInt32
	switch {
	case s.barrierSent || s.flight.n == 0 && !full:
		return false, 0
	case full || !s.d.hasQueuedLocked() && s.isWaitedForLocked():
		return true, 0
	}
	at = s.pace.last
	if s.pace.acknowledges || s.d.hasQueuedLocked() || s.d.producing > 0 { // status 0 or others will follow
		at = max(at, s.since)
	}
	at += s.d.confirmInterval
	return s.d.now() >= at, at
}

// isWaitedForLocked reports whether the outcomes of messages in flight are wanted without
// delay.
func (s *binarySession) isWaitedForLocked() bool {
	if s.d.closing != nil {
		return true
	}
	if s.d.flushing == 0 || s.pace.acknowledges {
		return false
	}
	for r := s.flight.first; r != nil; r = r.next {
		if r.source.isFlushing() {
			return true
		}
	}
	return false
}

// fillLocked encodes messages or, if there is none, decides on the barrier.
func (s *binarySession) fillLocked() bool {
	if s.conn.isEnded() {
		return false
	}
	s.buf, s.offsets = s.buf[:0], s.offsets[:0]
	now := s.d.now()
	due := false
	if s.taken > 0 {
		due, _ = s.barrierDueLocked()
	}
	for !due && len(s.buf) < maxBinaryWrite && s.session.roomLocked() > 0 {
		r := s.d.takeLocked(&s.session)
		if r == nil {
			break
		}
		var err error
		if s.buf, err = appendMsg(s.buf, r.message, uint32(s.taken+1)); err != nil {
			s.d.answeredLocked(r, answer{kind: unsent, err: err})
			continue
		}
		s.offsets = append(s.offsets, len(s.buf))
		if s.taken++; s.flight.n == 1 {
			s.since = now
		}
		r.seq = uint32(s.taken)
		r.at = now
	}
	if len(s.buf) > 0 {
		s.gatewaySince = now
		return true
	}
	return s.decideLocked(now)
}

// decideLocked reports whether the barrier is to be written now. Otherwise it starts
// the timer that wakes the writer then.
func (s *binarySession) decideLocked(now time.Duration) bool {
	due, at := s.barrierDueLocked()
	switch {
	case due:
		s.barrier, s.barrierSent, s.gatewaySince = true, true, now
		s.end = errBarrier
		s.pace.last = now
		s.pace.acknowledges = s.pace.acknowledges && s.flight.n == 0
	case at != 0:
		s.d.startTimerLocked(&s.timer, max(0, at-now), s.wakeWriter)
	case s.barrierSent || s.flight.n > 0 || !s.isAdded:
	case s.taken > s.acknowledged || now-s.idleSince >= spareTimeout: // there is nothing to confirm
		s.end = errIdle
		s.conn.end(net.ErrClosed)
	default:
		s.d.startTimerLocked(&s.timer, s.idleSince+spareTimeout-now, s.wakeWriter)
	}
	return due
}

var (
	errBarrier = errors.New("the barrier was written")
	errPacket  = errors.New("the gateway ended the connection")
)

// flush writes what was encoded, or the barrier.
func (s *binarySession) flush() error {
	if s.barrier {
		s.barrier = false
		s.conn.writeBarrier()
		if after := s.d.assumeAccepted; after > 0 {
			s.silence = time.AfterFunc(after, s.conn.endConfirmed)
		}
		return nil
	}
	last := uint32(s.taken)
	first := last - uint32(len(s.offsets)) + 1
	var n int
	var err error
	// The lock is free here, and a cancelled message belongs to its caller again. So only
	// the copy in buf is used.
	n, s.scratch, err = s.conn.writeMessages(s.buf, first, last, s.scratch)
	s.d.mu.Lock()
	defer s.d.unlock()
	s.gatewaySince = 0
	if err == nil {
		s.written = s.taken
		return nil
	}
	for _, end := range s.offsets {
		if end <= n {
			s.written++
		}
	}
	return err
}

func (s *binarySession) isOverLocked() bool { return s.conn.isEnded() }

func (s *binarySession) onDrainLocked() {}

func (s *binarySession) expectLocked() {} // tickLocked watches the gateway

// cancelLocked abandons a message. It was written, or will be, so it is in doubt.
func (s *binarySession) cancelLocked(r *delivery, why error) (answer, bool) {
	s.wakeWriter() // there may be nothing left to confirm
	return answer{kind: lost, err: fmt.Errorf("%w: the gateway was not heard from: %w", ErrInDoubt, why)}, true
}

// tickLocked ends a connection whose gateway does not read, or does not answer the barrier:
// after Timeout, or at the next tick if no message waits for it.
func (s *binarySession) tickLocked(now time.Duration) bool {
	if s.gatewaySince == 0 {
		return false
	}
	waited := now - s.gatewaySince
	switch isWaitedFor := s.flight.n > 0; {
	case waited < s.d.timeout && isWaitedFor, waited < s.d.timeout/ticks:
	case s.barrierSent:
		s.endLocked("the gateway did not answer the barrier for %v", waited.Round(time.Second/10))
	default:
		s.endLocked("the gateway did not read for %v", waited.Round(time.Second/10))
	}
	return true
}

func (s *binarySession) endLocked(format string, args ...any) {
	cause := fmt.Errorf(format, args...)
	s.d.afterLocked(func() { s.conn.end(cause) })
}

func (s *binarySession) close() {
	s.conn.close()
	<-s.done
}

// takeAcknowledgement takes a packet with status 0: the gateway has accepted the message
// with the ID, and all before it.
func (s *binarySession) takeAcknowledgement(id uint32) {
	s.d.mu.Lock()
	defer s.d.unlock()
	if id == 0 || int64(id) > int64(s.taken) {
		return
	}
	s.acceptUpToLocked(id)
	s.acknowledged, s.since, s.pace.acknowledges = max(s.acknowledged, int(id)), s.d.now(), true
	s.wakeWriter() // there is room, or nothing left to confirm
}

// acceptUpToLocked answers the messages up to the one with the identifier.
func (s *binarySession) acceptUpToLocked(id uint32) {
	for r := s.flight.first; r != nil && r.seq <= id; r = s.flight.first {
		s.d.acceptedLocked(r, Receipt{})
	}
}

// finish answers all that is in flight, by what ended the connection.
func (s *binarySession) finish(error) {
	e := s.conn.waitForEnd()
	s.d.mu.Lock()
	for _, t := range []*time.Timer{s.timer, s.silence} {
		if t != nil {
			t.Stop()
		}
	}
	s.concludeLocked(e)
	s.d.unlock()
	s.conn.close()
}

func (s *binarySession) concludeLocked(e ending) {
	if s.end == nil {
		s.end = cmp.Or(e.cause, errPacket)
	}
	failure := e.cause
	switch {
	case e.confirmed:
		s.acceptUpToLocked(uint32(s.taken))
		s.pace.confirm()
		failure = nil
	case e.packet != nil && e.packet.ID == 0 && !e.packet.Rejected(): // it accepted nothing
		failure = e.packet.Status
		s.unprocessedLocked(failure)
	case e.packet != nil && s.isNamed(e.packet):
		s.rejectedLocked(e.packet)
		failure = nil
	case e.packet != nil:
		failure = fmt.Errorf("the gateway names a message that it was not sent: %s", plainText(e.packet))
		s.lostLocked(failure)
	case e.refused:
		s.requeueAllLocked()
	case s.d.closed:
		s.lostLocked(s.d.closing)
	default:
		s.lostLocked(failure)
		if failure == net.ErrClosed {
			failure = nil // there was nothing to confirm
		}
	}
	l := s.d.dialer
	switch {
	case s.d.closed:
	case failure != nil:
		l.noteFailureLocked(failure)
	case e.confirmed && s.taken > 0: // also if nobody waits for the messages any more
		l.workedLocked()
	}
}

// isNamed reports whether the gateway names a message that was written.
func (s *binarySession) isNamed(said *PushError) bool {
	return said.ID > 0 && int64(said.ID) <= int64(s.taken)
}

// rejectedLocked takes the gateway's last word: it accepted all before the message, and
// discarded all after it. Those go first on the next connection, in their order.
func (s *binarySession) rejectedLocked(said *PushError) {
	if !said.Rejected() {
		s.acceptUpToLocked(said.ID)
	} else {
		accepted := said.ID - 1
		if mutated(binaryTwice) && accepted > 0 {
			accepted--
		}
		s.acceptUpToLocked(accepted)
		if r := s.flight.first; r != nil && r.seq == said.ID {
			e := *said
			e.ID = r.message.ID
			s.d.answeredLocked(r, answer{kind: rejected, err: &e})
		}
		if mutated(binaryLost) {
			s.acceptUpToLocked(said.ID + 1)
		}
	}
	s.requeueAllLocked()
	s.pace.n = min(s.pace.n, max(minRejectedPace, 8*int(said.ID)))
}

// requeueAllLocked puts back all that is in flight, which the gateway did not look at.
func (s *binarySession) requeueAllLocked() {
	for r := s.flight.first; r != nil; r = r.next {
		r.isResend = r.isResend || int64(r.seq) <= int64(s.written)
	}
	back := s.flight
	s.flight = list{}
	s.d.requeueLocked(&back)
}

// unprocessedLocked resends all that is in flight, because of err, which counts as an
// attempt.
func (s *binarySession) unprocessedLocked(err error) {
	for r := s.flight.last; r != nil; r = s.flight.last { // each goes to the head of the queue, so the last goes first
		s.d.answeredLocked(r, answer{kind: unprocessed, err: fmt.Errorf("%w: %w", ErrNotSent, err)})
	}
}

// lostLocked ends all that was written in doubt, and resends the rest.
func (s *binarySession) lostLocked(err error) {
	if s.flight.n == 0 {
		return
	}
	if !errors.Is(err, ErrInDoubt) {
		err = fmt.Errorf("%w: %w", ErrInDoubt, err)
	}
	s.pace.lost(s.taken - s.acknowledged)
	var doubtful list
	for r := s.flight.first; r != nil && int64(r.seq) <= int64(s.written); r = s.flight.first {
		s.flight.remove(r)
		doubtful.push(r)
	}
	s.requeueAllLocked()
	for r := doubtful.last; r != nil; r = doubtful.last { // each goes to the head of the queue, so the last goes first
		doubtful.remove(r)
		s.flight.push(r)
		s.d.answeredLocked(r, answer{kind: lost, err: err})
	}
}
