package apns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// A dialer opens the connections of a Client, one after the other.
type dialer struct {
	d          *dispatcher
	addr       string
	config     *Config
	maxBackOff time.Duration
	ctx        context.Context // ends when the Client is closed
	cancel     context.CancelFunc
	worked     chan struct{} // has a value when due was reset

	// Protected by dispatcher.mu:

	running         bool          // connect is running
	dialing         bool          // an attempt is under way
	failures        int           // in a row: attempts to dial, and connections that were of no use
	due             time.Duration // when the next attempt may begin
	failure         error         // the last failure; nil after a success
	permanent       bool          // failure does not pass with time
	refused         bool          // failure is the answer to a message: the server refuses the sender
	connectCalls    []chan error  // calls of Client.Connect
	replacementUsed bool          // a connection was replaced because of few messages, and no message was answered since
}

func newDialer(d *dispatcher, addr string, config *Config, maxBackOff time.Duration) *dialer {
	l := &dialer{d: d, addr: addr, config: dialConfig(config), maxBackOff: maxBackOff, worked: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

const (
	// dialTimeout is how long an attempt to connect may take.
	dialTimeout = 30 * time.Second
	// minRedial is the back-off after the first failure to connect, and of a message that
	// the server has not processed twice. It doubles with each further one.
	minRedial = 100 * time.Millisecond
	// maxPermanentBackOff is the longest back-off when the failure is permanent.
	maxPermanentBackOff = time.Minute
	// minRetry and maxRetry are the shortest and the longest back-off of a message.
	minRetry = time.Second
	maxRetry = time.Minute
	// idleTimeout is how long a connection is kept without work. Apple asks for "hours
	// or days" ("Sending notification requests to APNs"), and for no PINGs meanwhile; a
	// connection that was silent for long is checked with a PING before it is used again.
	idleTimeout = time.Hour
)

// growLocked starts to open another connection, if one is wanted.
func (l *dialer) growLocked() {
	if !l.running && l.isWantedLocked() {
		l.running = l.d.goLocked(l.connect)
	}
}

// isWantedLocked reports whether messages wait and all open sessions are full, or
// whether one of them is to be replaced. During a pause no other is opened in its place,
// since the server asks for less work.
func (l *dialer) isWantedLocked() bool {
	open, full, binary, now := 0, 0, 0, l.d.now()
	for _, s := range l.d.sessions {
		if !s.isHTTP2 {
			binary++
		}
		switch {
		case s.end != nil || s.maybeDead:
		case s.replaceBecause != nil && s.pausedUntil <= now:
			return true
		default:
			open++
			if s.protocol.isFullLocked() {
				full++
			}
		}
	}
	if len(l.connectCalls) > 0 && open == 0 {
		return true
	}
	if binary > 0 {
		return l.d.waiting.Load() > 0 && open == full && binary < maxBinarySessions
	}
	return l.d.waiting.Load() > 0 && open == full && open < l.d.maxConns
}

// nextOutcomeLocked returns a channel that gets the outcome of the next attempt to connect.
// If a session takes messages, the outcome is nil, at once.
func (l *dialer) nextOutcomeLocked() <-chan error {
	outcome := make(chan error, 1)
	now := l.d.now()
	switch {
	case l.d.closing != nil:
		outcome <- fmt.Errorf("apns: %w", l.d.closing)
	case l.d.isConnectedLocked():
		outcome <- nil
	case l.permanent && l.due > now:
		outcome <- l.failure
	default:
		l.connectCalls = append(l.connectCalls, outcome)
		l.growLocked()
	}
	return outcome
}

// stopWaitingLocked removes a channel of nextOutcomeLocked, and returns the error for the
// call that waited, because of why.
func (l *dialer) stopWaitingLocked(outcome <-chan error, why error) error {
	l.connectCalls = slices.DeleteFunc(l.connectCalls, func(c chan error) bool { return c == outcome })
	if l.failure != nil {
		return fmt.Errorf("apns: no connection (%s): %w", plainText(l.failure), why)
	}
	return fmt.Errorf("apns: no connection: %w", why)
}

func (l *dialer) announceLocked(outcome error) {
	for _, c := range l.connectCalls {
		c <- outcome
	}
	l.connectCalls = nil
}

// connect opens connections while they are wanted. It waits for the back-off between
// two attempts, unless waiting is pointless. The next message then starts it once more.
func (l *dialer) connect() {
	d := l.d
	d.mu.Lock()
	for !d.closed && l.isWantedLocked() {
		if wait := l.due - d.now(); wait > 0 {
			if l.isHopelessLocked() {
				l.announceLocked(l.failure)
				break
			}
			d.unlock()
			l.sleep(wait)
			d.mu.Lock()
			if d.pending == 0 && len(l.connectCalls) == 0 {
				break // the next message takes it up again
			}
			continue
		}
		l.dialing = true
		check := len(l.connectCalls) > 0 && d.assumeAccepted == 0 // or else there may be no answer
		d.unlock()
		s, err := l.dial(l.ctx, check)
		d.mu.Lock()
		l.dialing = false
		l.dialedLocked(s, err)
	}
	l.running = false
	d.unlock()
}

// sleep waits for a back-off, which may be over earlier.
func (l *dialer) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.worked:
	case <-l.ctx.Done():
	}
}

// dial opens a connection. The session does not take messages yet. With check it finds out
// whether a gateway of the binary protocol takes messages, on a separate connection first.
func (l *dialer) dial(ctx context.Context, check bool) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := dial(ctx, l.addr, l.config, l.d)
	if err == nil && c.binary != nil && check {
		if err = c.binary.check(ctx); err == nil {
			c, err = dial(ctx, l.addr, l.config, l.d)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case c.http2 != nil:
		return &c.http2.session, nil
	}
	return &newBinarySession(l.d, c).session, nil
}

// dialedLocked takes the outcome of dial.
func (l *dialer) dialedLocked(s *session, err error) {
	d := l.d
	switch {
	case err == nil && s.end != nil: // since the handshake
		if s.isHTTP2 { // the binary half has counted it
			l.noteFailureLocked(s.end)
		}
		l.announceLocked(s.end)
		d.running.Go(s.protocol.close)
	case err == nil && d.addSessionLocked(s):
		if h, ok := s.protocol.(*http2Session); ok {
			d.provider.Store(h.provider)
		} else {
			d.provider.Store(nil)
		}
		l.announceLocked(nil)
	case err == nil:
		d.running.Go(s.protocol.close)
	case l.ctx.Err() == nil:
		l.noteFailureLocked(err)
		l.announceLocked(err)
		permanent, wait := l.permanent, l.due-d.now()
		d.afterLocked(func() {
			if permanent {
				d.log.Error("apns: the server refuses this sender, or is not the one that is expected", "error", err)
			} else {
				d.log.Warn("apns: cannot connect", "error", err, "again in", wait)
			}
		})
	}
}

// noteFailureLocked notes an attempt to connect that has failed, a connection that was of no
// use or is to be replaced, or an answer that refuses the sender.
func (l *dialer) noteFailureLocked(err error) {
	longest := l.maxBackOff
	if l.permanent = isPermanent(err); l.permanent {
		longest = maxPermanentBackOff
	}
	l.failure, l.refused = err, false
	l.due = l.d.now() + backOff(minRedial, longest, l.failures)
	l.failures++
	l.d.endUnsendableLocked()
}

// workedLocked notes that a message was answered on a new connection.
func (l *dialer) workedLocked() {
	l.failures, l.due, l.failure, l.permanent, l.refused, l.replacementUsed = 0, 0, nil, false, false, false
	select {
	case l.worked <- struct{}{}:
	default:
	}
}

// refusedLocked takes an answer that refuses the sender: all messages would get it.
// Those that wait get it without being sent, and so do those that are handed over
// before the next attempt is due.
func (l *dialer) refusedLocked(s *session, err error) {
	s.isBlamed = true
	if l.refused && l.due > l.d.now() {
		return // another message had the same answer
	}
	if r, ok := errors.AsType[*refusedError](err); ok {
		err = r
	}
	l.noteFailureLocked(err)
	l.refused = true
	l.d.endUnsendableLocked()
	l.d.afterLocked(func() { l.d.log.Error("apns: sender refused", "error", err) })
}

// claimReplacementLocked reports whether a connection may be replaced although only few
// messages have failed: once, until a message is answered.
func (l *dialer) claimReplacementLocked() bool {
	first := !l.replacementUsed
	l.replacementUsed = true
	return first
}

// unsendableLocked returns the error of a message that cannot be sent before its
// deadline, because of what is known of the server; or nil.
func (l *dialer) unsendableLocked(deadline, now time.Duration) error {
	switch {
	case l.due <= now:
	case l.isHopelessLocked():
		return fmt.Errorf("%w: %w", ErrNotSent, plainError{l.failure})
	case deadline != 0 && l.due > deadline && !l.dialing && !l.d.isConnectedLocked():
		return fmt.Errorf("%w: no connection (%s), and the next attempt comes too late: %w", ErrNotSent, plainText(l.failure), context.DeadlineExceeded)
	}
	return nil
}

// isHopelessLocked reports whether it is pointless to wait for the next attempt to connect:
// messages end instead.
func (l *dialer) isHopelessLocked() bool {
	return l.permanent && (l.refused || !l.d.isConnectedLocked())
}

// dialConfig returns a copy of a Config with a cache for TLS sessions: to resume one
// costs a fraction of a full handshake. There is none if GetClientCertificate may
// return another certificate: a resumed session would keep the old one.
func dialConfig(c *Config) *Config {
	config := new(Config)
	if c != nil {
		*config = *c
	}
	if config.TLS == nil {
		config.TLS = new(tls.Config)
	} else {
		config.TLS = config.TLS.Clone()
	}
	if t := config.TLS; t.ClientSessionCache == nil && t.GetClientCertificate == nil {
		t.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	config.TLS.DynamicRecordSizingDisabled = true // a part of a message is of no use
	return config
}

// backOff returns how long to wait after this many earlier failures, with up to
// 50 % jitter. The jitter comes from the clock, so that a simulated one repeats it.
func backOff(shortest, longest time.Duration, failures int) time.Duration {
	d := longest
	if failures < 16 {
		d = min(shortest<<failures, longest)
	}
	random := uint64(time.Now().UnixNano()) * 0x9e3779b97f4a7c15
	jitter, _ := bits.Mul64(random, uint64(d/2))
	return d - time.Duration(jitter)
}

// isPermanent reports whether an error is one that time does not heal.
func isPermanent(err error) bool {
	if _, ok := errors.AsType[*permanentError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	return errors.Is(err, ErrRefused)
}
