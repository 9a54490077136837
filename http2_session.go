package apns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"time"

	"example.com/apns/internal/h2"
)

// An http2Session is the HTTP/2 half of a session. Each message is a request on a stream
// of its own, and its answer is the response.
type http2Session struct {
	session
	conn     *h2.Conn
	provider *provider
	link     *link
	log      *slog.Logger
	ready    chan struct{} // closed when the server's first SETTINGS have come, or the reader is gone
	readDone chan struct{} // closed when the reader is gone

	// Protected by dispatcher.mu, which is taken before that of conn:

	size         sizer
	hasAccepted  bool       // a message was accepted
	largestLimit int        // the most streams that the server has allowed
	limited      bool       // messages waited during the last measurement of size, at the server's limit
	broken       error      // why messages in flight get no more answers; nil while they may
	seen         *h2.GoAway // the last one that was looked at
	goAway       *goAway    // the last GOAWAY that had a reason, or else the first; or nil

	alive
}

const (
	// maxWrite is the size in bytes at which a write is sent rather than extended:
	// about a TLS record. Larger writes are no faster.
	maxWrite = 16 << 10
	// requestSize estimates what a request takes beside its tokens and its
	// payload, in bytes: two frame headers, and fields that are in the table.
	requestSize = 40
)

var errConnClosed = fmt.Errorf("connection closed: %w", net.ErrClosed)

// newHTTP2Session begins to speak HTTP/2 over a connection that has negotiated it, and
// returns when the server has said how many streams it allows. The session takes no
// messages until the dispatcher adds it.
func newHTTP2Session(ctx context.Context, d *dispatcher, l *link, p *provider, firstStream uint32, log *slog.Logger) (*http2Session, error) {
	s := &http2Session{
		conn:     h2.NewConn(l),
		provider: p,
		link:     l,
		log:      log,
		ready:    make(chan struct{}),
		readDone: make(chan struct{}),
		alive:    alive{heard: time.Now()},
	}
	s.session = newSession(d, s, l.yield)
	s.isHTTP2 = true
	s.size.n = math.MaxInt
	if d.dialer != nil {
		s.size.n = minInFlight
	}
	s.conn.SkipTo(firstStream)
	if p.tokens != nil {
		// With provider tokens one stream is allowed until a message was accepted.
		// ("Establishing a connection to Apple Push Notification service (APNs)")
		s.conn.SetLimit(1)
	}
	s.wakeWriter()
	go s.read()
	d.running.Go(s.write)
	var err error
	select {
	case <-s.ready:
		err = s.ended()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// ended returns why no more messages are taken, or nil.
func (s *http2Session) ended() error {
	s.d.mu.Lock()
	defer s.d.unlock()
	return s.end
}

// CheckForError implements Conn.CheckForError.
func (s *http2Session) CheckForError() error {
	if err := s.ended(); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	return nil
}

// Shutdown implements Conn.Shutdown.
func (s *http2Session) Shutdown(ctx context.Context) error {
	s.d.mu.Lock()
	s.session.drainLocked(errConnClosed)
	s.d.unlock()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	active := s.conn.Active()
	s.close()
	if active == 0 {
		return nil
	}
	return fmt.Errorf("apns: Shutdown was cancelled while messages were in flight: %w", ctx.Err())
}

// close ends the session, and returns when it has ended.
func (s *http2Session) close() {
	s.fail(errConnClosed)
	<-s.done
}

// fail ends the session: messages in flight get no more answers. A write that is under
// way has lastWords to finish.
func (s *http2Session) fail(why error) {
	s.d.mu.Lock()
	s.failLocked(why)
	s.d.unlock()
}

func (s *http2Session) failLocked(why error) {
	if s.broken == nil {
		s.broken = why
	}
	if s.session.drainLocked(why) && why != errConnClosed {
		s.d.afterLocked(func() { s.log.Warn("apns: connection ended", "error", why) })
	}
	s.wakeWriter()
	s.d.afterLocked(func() { s.link.setWriteDeadline(time.Now().Add(lastWords)) })
}

func (s *http2Session) onDrainLocked() { s.expectLocked() }

func (s *http2Session) tickLocked(time.Duration) bool { return false }

// Room.

func (s *http2Session) capacityLocked() int {
	if s.probing {
		return 0
	}
	return min(s.conn.Room(), s.size.n-s.flight.n)
}

// isFullLocked reports whether another connection would help: the server's limit keeps
// messages waiting, now and throughout the last measurement. Before the first message is
// accepted, the limit may be our own. A server that has lowered its limit to 1 wants less.
func (s *http2Session) isFullLocked() bool {
	limit := s.conn.Limit()
	switch {
	case !s.hasAccepted || s.flight.n == 0 || s.pausedUntil != 0 || limit == 1 && s.largestLimit > 1:
		return false
	}
	return s.limited && s.size.n >= limit
}

// Writing.

// fillLocked opens a stream for each message. A delivery has its stream before the
// reader can take its answer, since that needs dispatcher.mu.
func (s *http2Session) fillLocked() bool {
	now, room := s.d.now(), s.session.roomLocked()
	if room > 0 && s.d.hasQueuedLocked() && s.mayHaveDiedLocked() {
		room = 0
	}
	room = min(room, max(1, s.size.n/2)) // so that the server has work while the other half is written
	for size := 0; size < maxWrite && room > 0; room-- {
		r := s.d.takeLocked(&s.session)
		if r == nil {
			break
		}
		r.at = now
		n := s.openStreamLocked(r)
		if n == 0 {
			break
		}
		size += n
	}
	s.expectLocked()
	pending, renewed := s.conn.Pending(), s.provider.renewed
	s.provider.renewed = false
	if renewed {
		s.d.afterLocked(func() { s.log.Info("apns: new provider token") })
	}
	return pending
}

// openStreamLocked opens a stream for a delivery, and returns the approximate size of the
// request in bytes. It returns 1 if the message got its outcome instead, and 0 if there is
// no room.
func (s *http2Session) openStreamLocked(r *delivery) (size int) {
	if !r.checked {
		if err := s.provider.check(r.message); err != nil {
			s.d.answeredLocked(r, answer{kind: unsent, err: err})
			return 1
		}
	}
	req, err := s.provider.request(r)
	if err == nil {
		req.Tag, r.token = r, s.provider.token
		r.seq, err = s.conn.Open(req)
		if r.seq == 0 && err == nil {
			if r.isResend {
				s.d.stats.Resent-- // it will be counted when there is room
			}
			var back list
			s.flight.remove(r)
			back.push(r)
			s.d.requeueLocked(&back)
			return 0
		}
	}
	if err != nil {
		// It would be the same on any other connection.
		s.d.answeredLocked(r, answer{kind: unsent, err: fmt.Errorf("%w: %w", ErrNotSent, &permanentError{err})})
		return 1
	}
	return requestSize + len(req.Name) + len(req.Literals) + len(req.Body)
}

func (s *http2Session) flush() error { return s.conn.Flush() }

func (s *http2Session) isOverLocked() bool {
	return s.broken != nil || s.end != nil && s.conn.Active() == 0
}

func (s *http2Session) finish(err error) {
	s.d.mu.Lock()
	over := s.isOverLocked()
	s.d.unlock()
	switch {
	case err == nil:
		s.conn.Close(h2.CodeNo)
		s.conn.Flush()
	case !over:
		// The server may have said why: let the reader read that first.
		select {
		case <-s.readDone:
		case <-time.After(lastWords):
		}
		s.fail(s.link.explain(err))
	}
	s.link.close() // so that the reader ends
	<-s.readDone
	rest := s.conn.Rest()
	s.d.mu.Lock()
	s.takeAnswersLocked(rest)
	s.broken = cmp.Or(s.broken, s.end)
	s.stopTimerLocked()
	s.d.unlock()
}

func (s *http2Session) cancelLocked(r *delivery, why error) (answer, bool) {
	o, ok := s.conn.Cancel(r.seq)
	if !ok {
		return answer{}, false
	}
	s.wakeWriter()
	return s.provider.answer(r, &o, why), true
}

// Reading.

// read is the reader. It takes what the server says until the connection ends.
func (s *http2Session) read() {
	defer s.wakeWriter()
	defer close(s.readDone)
	isReady := false
	for {
		outcomes, err := s.conn.Read()
		s.d.mu.Lock()
		s.noteGoAwayLocked() // which may be the cause of an outcome
		s.takeAnswersLocked(outcomes)
		if err == nil {
			s.noteReadLocked()
		} else {
			if err == io.EOF {
				err = errors.New("the server closed the connection")
			}
			s.failLocked(s.link.explain(err))
		}
		s.d.unlock()
		if !isReady && (err != nil || s.conn.Ready()) {
			isReady = true
			close(s.ready)
		}
		if err != nil {
			return
		}
	}
}

// takeAnswersLocked takes the outcomes of requests.
func (s *http2Session) takeAnswersLocked(outcomes []h2.Outcome) {
	if len(outcomes) == 0 {
		return
	}
	lost, unprocessed := generalError(cmp.Or(s.broken, s.end)), generalError(s.end)
	if s.goAway != nil {
		unprocessed = generalError(s.goAway)
	}
	waited := s.d.hasQueuedLocked()
	for i := range outcomes {
		o := &outcomes[i]
		why := lost
		if o.Kind == h2.Unprocessed {
			why = unprocessed
		}
		r := o.Tag.(*delivery)
		a := s.provider.answer(r, o, why)
		if a.kind == accepted && !s.hasAccepted {
			s.hasAccepted = true
			s.conn.SetLimit(math.MaxInt) // from now on the server alone limits the streams
		}
		s.d.answeredLocked(r, a)
	}
	if s.d.dialer != nil {
		s.measureLocked(len(outcomes), waited)
	}
	s.expectLocked()
}

// noteGoAwayLocked drains the session once the server has sent a GOAWAY. A server that
// shuts down may send two, and give the reason in either.
func (s *http2Session) noteGoAwayLocked() {
	g := s.conn.GoAway()
	if g == s.seen {
		return
	}
	s.seen = g
	e, before := newGoAway(g), s.goAway
	if before == nil || e.reason != "" {
		s.goAway = e
		if before != nil && s.end == before {
			s.end = e
		}
	}
	s.d.afterLocked(func() {
		s.log.Warn("apns: GOAWAY", "reason", string(e.reason), "code", uint32(e.code), "debug", e.debug)
	})
	s.session.drainLocked(e)
}

// noteReadLocked wakes the writer if what was read gives it something to do.
func (s *http2Session) noteReadLocked() {
	s.heardLocked()
	s.largestLimit = max(s.largestLimit, s.conn.Limit())
	if s.end != nil || s.conn.Pending() || s.session.roomLocked() > 0 && s.d.hasQueuedLocked() {
		s.wakeWriter()
	}
	s.expectLocked()
}
