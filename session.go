package apns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"example.com/apns/internal/h2"
)

// A session sends messages over one HTTP/2 connection. It has two goroutines. One
// writes: it takes the messages that wait, as many as there is room for, and writes
// them together. The other reads, and resolves all answers of a read together. A
// caller of push puts its message in the queue and waits for its outcome.
//
// The writer also ends the session: it is the last to leave, when the reader is
// gone and every message has its outcome.
type session struct {
	conn     *h2.Conn
	provider *provider
	link     link
	log      *slog.Logger

	wake     chan struct{} // holds a token while there may be something to write
	ready    chan struct{} // closed when the server's first SETTINGS have come, or the reader is gone
	readDone chan struct{} // closed when the reader is gone
	done     chan struct{} // closed when the session has ended
	calls    sync.Pool     // of *pushCall

	mu       sync.Mutex // protects following; taken before that of conn
	queue    callQueue  // messages that wait for a stream
	reserved int        // streams that a Client has reserved
	starved  bool       // a Client wants to reserve a stream, and there was none
	trusted  bool       // a message was accepted
	end      error      // why no more messages are taken; nil: they are
	broken   bool       // what is in flight gets no more answers
	changed  func()     // unless nil: told when the number of streams, or end, is another

	limit int // that changed was told

	heard   time.Time   // when something was read last
	wanted  time.Time   // since when an answer has been expected; zero: none is
	pinged  time.Time   // when a PING was sent; zero: or something was heard since
	probing bool        // nothing is sent until something is heard
	timer   *time.Timer // calls checkAlive; nil until it is needed
	timed   bool        // the timer is running
}

// A link is what a session needs of the connection under it.
type link struct {
	net.Conn         // with TLS
	setWriteDeadline func(time.Time) error
	setReadDeadline  func(time.Time) error
	hangUp           func()            // closes the connection, and waits for nobody
	explain          func(error) error // puts an error of TLS into words
}

// A pushCall is a message that has no outcome yet.
type pushCall struct {
	message *Message
	bearer  string // with which it was sent
	stream  uint32 // 0: it is in the queue

	receipt Receipt // the outcome, once done holds a token
	err     error
	done    chan struct{}

	prev, next *pushCall // in the queue
}

const (
	// maxBatch is how many bytes are written together: about a TLS record. More
	// makes nothing faster.
	maxBatch = 16 << 10
	// requestSize estimates what a request takes beside its path, its token and its
	// payload, in bytes: two frame headers, and fields that are in the table.
	requestSize = 30

	// pingAfter is how long nothing may be heard while an answer is expected,
	// before a PING asks whether the server is there; and pingTimeout is how long
	// that may take.
	pingAfter   = 10 * time.Second
	pingTimeout = 10 * time.Second
	// idleAfter is how long nothing may be heard before the next message has to
	// wait for the answer to a PING: it is not to be lost on a connection that has
	// died meanwhile. While nothing is sent there are no PINGs, since Apple wants
	// at most one an hour ("Sending notification requests to APNs").
	idleAfter = time.Minute
)

var errConnClosed = fmt.Errorf("connection closed: %w", net.ErrClosed)

// newSession begins to speak HTTP/2 over a connection that has negotiated it, and
// returns when the server has said how many streams it allows.
func newSession(ctx context.Context, l link, p *provider, firstStream uint32, log *slog.Logger) (*session, error) {
	s := &session{
		conn:     h2.NewConn(l),
		provider: p,
		link:     l,
		log:      log,
		wake:     make(chan struct{}, 1),
		ready:    make(chan struct{}),
		readDone: make(chan struct{}),
		done:     make(chan struct{}),
		heard:    time.Now(),
	}
	s.conn.SkipTo(firstStream)
	if p.tokens != nil {
		// With provider tokens one stream is allowed until a message was accepted.
		// ("Establishing a connection to Apple Push Notification service (APNs)")
		s.conn.SetLimit(1)
	}
	s.wakeWriter()
	go s.read()
	go s.write()
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

// push sends a message and waits for its outcome. With reserved, the caller has
// reserved a stream.
func (s *session) push(ctx context.Context, m *Message, reserved bool) (Receipt, error) {
	err := s.provider.check(m)
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrNotSent, ctx.Err())
	}
	c, _ := s.calls.Get().(*pushCall)
	if c == nil {
		c = &pushCall{done: make(chan struct{}, 1)}
	}
	s.mu.Lock()
	if reserved {
		s.reserved--
	}
	if err == nil && s.end != nil {
		err = s.notSentLocked()
	}
	if err != nil {
		s.mu.Unlock()
		s.calls.Put(c)
		return Receipt{}, err
	}
	c.message = m
	s.queue.push(c)
	first := s.queue.n == 1
	s.mu.Unlock()
	if first {
		s.wakeWriter() // it looks at the whole queue
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		s.cancel(c, ctx.Err())
		<-c.done
	}
	r, err := c.receipt, c.err
	*c = pushCall{done: c.done}
	s.calls.Put(c)
	return r, err
}

// cancel gives a call its outcome because its context has ended, unless it has one
// already.
func (s *session) cancel(c *pushCall, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.queue.remove(c):
		s.resolveLocked(c, Receipt{}, fmt.Errorf("%w: waiting for a stream: %w", ErrNotSent, why))
	case c.stream != 0:
		o, ok := s.conn.Cancel(c.stream)
		if !ok {
			return // the reader is about to resolve it
		}
		r, err := s.provider.outcome(c, &o, why)
		s.resolveLocked(c, r, err)
		s.expectLocked()
		s.wakeWriter()
	}
}

func (s *session) resolveLocked(c *pushCall, r Receipt, err error) {
	c.receipt, c.err = r, err
	c.done <- struct{}{}
}

// CheckForError is that of Conn.
func (s *session) CheckForError() error {
	if err := s.ended(); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	return nil
}

// ended returns why no more messages are taken, or nil.
func (s *session) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Shutdown is that of Conn.
func (s *session) Shutdown(ctx context.Context) error {
	s.drain(errConnClosed)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.close()
	return fmt.Errorf("apns: Shutdown was given up while messages were in flight: %w", ctx.Err())
}

// close ends the session, and returns when it has ended.
func (s *session) close() {
	s.fail(errConnClosed)
	<-s.done
}

// drain has no more messages taken, for the given reason or for the one that there
// was before. Those in the queue are not sent. The session ends when those in
// flight have their outcomes.
func (s *session) drain(why error) (first bool) {
	s.mu.Lock()
	first = s.drainLocked(why)
	changed := s.changed
	s.mu.Unlock()
	s.wakeWriter()
	if first && changed != nil {
		changed()
	}
	return first
}

func (s *session) drainLocked(why error) (first bool) {
	first = s.end == nil
	if first {
		s.end = why
	}
	for c := s.queue.pop(); c != nil; c = s.queue.pop() {
		s.resolveLocked(c, Receipt{}, s.notSentLocked())
	}
	return first
}

// fail ends the session: what is in flight gets no more answers. A write that is
// under way has a moment to come to its end.
func (s *session) fail(why error) {
	s.mu.Lock()
	s.broken = true
	s.mu.Unlock()
	if s.drain(why) && why != errConnClosed {
		s.log.Warn("apns: connection ended", "error", why)
	}
	s.link.setWriteDeadline(time.Now().Add(lastWords))
}

// notSentLocked is the error of a message that is not sent because of end. The
// reason of a GOAWAY may be about another message, and then it stands in the text
// alone.
func (s *session) notSentLocked() error {
	return fmt.Errorf("%w: %w", ErrNotSent, generalError(s.end))
}

// What a Client needs of a session beside ended: to see which connection has a
// stream free, and to take it.

// onChange has a function told when the number of streams changes, and when no more
// messages are taken. It is called with no lock held.
func (s *session) onChange(changed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = changed
}

// streams returns how many the server allows, and whether that is all it ever will:
// not if it waits for a message that it can accept.
func (s *session) streams() (n int, trusted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return 0, false
	}
	return s.conn.Limit(), s.trusted
}

// reserve takes a stream for a push, if one is free.
func (s *session) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return false
	}
	if s.conn.Room() <= s.queue.n+s.reserved {
		s.starved = true
		return false
	}
	s.reserved++
	return true
}

// release gives back a stream that was reserved and is not needed.
func (s *session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved--
}

// The writer.

func (s *session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer. It writes until the session has nothing more to do, and then
// ends it.
func (s *session) write() {
	var err error
	for err == nil && !s.isOver() {
		<-s.wake
		// Whoever is about to push may do so: to write two messages together costs
		// little more than to write one.
		runtime.Gosched()
		for err == nil && s.fill() {
			err = s.conn.Flush()
		}
	}
	switch over := s.isOver(); {
	case err == nil:
		s.conn.Close(h2.CodeNo)
		s.conn.Flush()
	case !over:
		// The server may have said why. The reader is to hear that first.
		s.link.setReadDeadline(time.Now().Add(lastWords))
		<-s.readDone
		s.fail(s.link.explain(err))
	}
	s.link.hangUp() // so that the reader ends
	<-s.readDone
	s.resolve(s.conn.Rest())
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	close(s.done)
}

// isOver reports whether the writer has nothing more to do.
func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken || s.end != nil && s.conn.Active() == 0
}

// fill opens streams for messages of the queue, about as many as are written
// together. It reports whether there is something to be written.
func (s *session) fill() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.n > 0 && s.mayHaveDiedLocked() {
		return s.conn.Pending()
	}
	size := 0
	for room := s.conn.Room(); size < maxBatch && s.queue.n > 0 && room > 0; room-- {
		c := s.queue.first
		r, bearer, err := s.provider.request(c.message)
		if err == nil {
			r.Tag = c
			c.bearer = bearer
			c.stream, err = s.conn.Open(r)
			if c.stream == 0 && err == nil {
				break // there is no room any more
			}
		}
		s.queue.remove(c)
		if err != nil {
			// It would be the same on any other connection.
			s.resolveLocked(c, Receipt{}, fmt.Errorf("%w: %w", ErrNotSent, &setupError{err}))
			continue
		}
		size += requestSize + len(r.Path) + len(r.Literals) + len(r.Body)
	}
	s.expectLocked()
	return s.conn.Pending()
}

// The reader.

// read is the reader. It takes what the server says until the connection ends.
func (s *session) read() {
	defer s.wakeWriter()
	defer close(s.readDone)
	isReady := false
	for {
		outcomes, err := s.conn.Read()
		s.noteGoAway() // which may be the cause of an outcome
		s.resolve(outcomes)
		if err != nil {
			s.noteReadError(err)
		}
		if !isReady && (err != nil || s.conn.Settled()) {
			isReady = true
			close(s.ready)
		}
		if err != nil {
			return
		}
		s.noteRead(len(outcomes) > 0)
	}
}

func (s *session) noteReadError(err error) {
	switch {
	case err == io.EOF:
		s.fail(errors.New("the server closed the connection"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The deadline is the writer's, whose own error is the one to report.
	default:
		s.fail(s.link.explain(err))
	}
}

// resolve gives messages their outcomes.
func (s *session) resolve(outcomes []h2.Outcome) {
	if len(outcomes) == 0 {
		return
	}
	why := generalError(s.ended())
	accepted := false
	var leaving error
	for i := range outcomes {
		c := outcomes[i].Tag.(*pushCall)
		c.receipt, c.err = s.provider.outcome(c, &outcomes[i], why)
		accepted = accepted || c.err == nil
		if e, ok := errors.AsType[*leavingError](c.err); ok {
			leaving = e
		}
	}
	if accepted {
		s.trust()
	}
	if leaving != nil && s.drain(leaving) {
		s.log.Warn("apns: the server ends the connection", "error", leaving)
	}
	for i := range outcomes {
		c := outcomes[i].Tag.(*pushCall)
		c.done <- struct{}{}
	}
}

// trust notes that a message was accepted: from now on the server alone limits the
// streams.
func (s *session) trust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.trusted {
		s.trusted = true
		s.conn.SetLimit(math.MaxInt)
	}
}

// noteGoAway sees to a GOAWAY, after which the server takes no more messages.
func (s *session) noteGoAway() {
	g := s.conn.GoAway()
	if g == nil || s.ended() != nil {
		return
	}
	e := newGoAway(g)
	if s.drain(e) {
		s.log.Warn("apns: GOAWAY", "reason", string(e.reason), "code", uint32(e.code), "debug", e.debug)
	}
}

// noteRead sees to what may have changed with what was read. With resolved, there
// were outcomes, after which a Client looks for free streams by itself.
func (s *session) noteRead(resolved bool) {
	s.mu.Lock()
	s.heard, s.pinged, s.probing = time.Now(), time.Time{}, false
	wake := s.queue.n > 0 || s.end != nil || s.conn.Pending()
	var changed func()
	limit := s.conn.Limit()
	if limit != s.limit || s.starved && !resolved && s.conn.Room() > s.queue.n+s.reserved {
		s.limit, s.starved = limit, false
		changed = s.changed
	}
	s.expectLocked()
	s.mu.Unlock()
	if wake {
		s.wakeWriter()
	}
	if changed != nil {
		changed()
	}
}

// Is the server there?

// mayHaveDiedLocked reports whether the connection may have died while nothing was
// sent. Then a PING finds out before the next message is sent.
func (s *session) mayHaveDiedLocked() bool {
	now := time.Now()
	// The monotonic clock does not count the time that the machine was suspended.
	quiet := max(now.Sub(s.heard), now.Round(0).Sub(s.heard.Round(0)))
	if !s.probing && quiet >= idleAfter && s.conn.Active() == 0 {
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

// expectLocked notes whether an answer is expected, and sees to it that checkAlive
// is called when it is late.
func (s *session) expectLocked() {
	switch expected := s.conn.Active() > 0 || s.conn.Pinging(); {
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

// checkAlive ends the session if the server is not there any more. It asks with a
// PING if nothing was heard for a while.
func (s *session) checkAlive() {
	s.mu.Lock()
	s.timed = false
	if s.wanted.IsZero() || s.broken {
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

// A callQueue is a list of calls, in the order in which they came.
type callQueue struct {
	first, last *pushCall
	n           int
}

func (q *callQueue) push(c *pushCall) {
	if c.prev = q.last; q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
	q.n++
}

// pop removes the first call and returns it, or nil.
func (q *callQueue) pop() *pushCall {
	c := q.first
	if c != nil {
		q.remove(c)
	}
	return c
}

// remove removes a call. It is false if the call is not in the queue.
func (q *callQueue) remove(c *pushCall) bool {
	if c.prev == nil && q.first != c {
		return false
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.last = c.prev
	}
	c.prev, c.next = nil, nil
	q.n--
	return true
}
