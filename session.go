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

	wake     chan struct{} // has a value while there may be something to write
	ready    chan struct{} // closed when the server's first SETTINGS have come, or the reader is gone
	readDone chan struct{} // closed when the reader is gone
	done     chan struct{} // closed when the session has ended
	calls    sync.Pool     // of *pushCall

	mu       sync.Mutex // protects following; taken before that of conn
	queue    callQueue  // messages that wait for a stream
	reserved int        // streams that a Client has reserved
	starved  bool       // a Client wants to reserve a stream, and there was none
	trusted  bool       // a message was accepted
	end      error      // why no more messages are taken; nil while they are
	broken   error      // why messages in flight get no more answers; nil while they may
	seen     *h2.GoAway // the last one that was looked at
	goAway   *goAway    // that one, or the one before if only that had a reason; or nil
	changed  func()     // nil, or called when the number of streams or end changes

	reported int // the stream limit at the last call of changed

	heard   time.Time   // when something was read last
	wanted  time.Time   // since when an answer is expected; zero if none is
	pinged  time.Time   // when a PING was sent; zero once something was heard
	probing bool        // nothing is sent until something is heard
	timer   *time.Timer // calls checkAlive; nil until it is needed
	timed   bool        // the timer is running
}

// A link is what a session needs of the connection under it.
type link struct {
	net.Conn         // with TLS
	setWriteDeadline func(time.Time) error
	closeNow         func()            // closes the connection without waiting for the server
	explain          func(error) error // describes an error of TLS
}

// A pushCall is a message that has no outcome yet.
type pushCall struct {
	message *Message
	bearer  string // the provider token that it was sent with
	stream  uint32 // 0: it is in the queue

	receipt Receipt // the outcome; valid once done has a value
	err     error
	done    chan struct{}

	prev, next *pushCall // in the queue
}

const (
	// maxWrite is the size in bytes at which a write is sent rather than extended:
	// about a TLS record. Larger writes are no faster.
	maxWrite = 16 << 10
	// requestSize estimates what a request takes beside its path, its token and its
	// payload, in bytes: two frame headers, and fields that are in the table.
	requestSize = 30
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

// push sends a message and waits for its outcome. reserved says that the caller has
// reserved a stream for it.
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
	if s.wanted.IsZero() {
		s.expectLocked()
	}
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

// cancel resolves a call whose context has ended, unless it is resolved already. Once
// push has returned, the message belongs to its caller again. So whoever reads it holds
// s.mu and finds the call in the queue, or has taken it from the connection for good.
func (s *session) cancel(c *pushCall, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.queue.remove(c):
		s.resolveLocked(c, Receipt{}, fmt.Errorf("%w: waiting for a stream: %w", ErrNotSent, why))
		s.expectLocked()
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

// CheckForError implements Conn.CheckForError.
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

// Shutdown implements Conn.Shutdown.
func (s *session) Shutdown(ctx context.Context) error {
	s.drain(errConnClosed)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	inFlight := s.conn.Active()
	s.close()
	if inFlight == 0 {
		return nil
	}
	return fmt.Errorf("apns: Shutdown was cancelled while messages were in flight: %w", ctx.Err())
}

// close ends the session, and returns when it has ended.
func (s *session) close() {
	s.fail(errConnClosed)
	<-s.done
}

// drain stops taking messages, for the reason why unless there is one already. Those
// in the queue are resolved as not sent, and the session ends when those in flight are
// resolved. It reports whether there was no reason before.
func (s *session) drain(why error) (first bool) { return s.stop(why, nil) }

// fail ends the session: messages in flight get no more answers. A write that is under
// way has lastWords to finish.
func (s *session) fail(why error) {
	if s.stop(why, why) && why != errConnClosed {
		s.log.Warn("apns: connection ended", "error", why)
	}
	s.link.setWriteDeadline(time.Now().Add(lastWords))
}

// stop is drain and, with broken, fail. It sets both reasons at once, so that whoever
// finds the session broken finds the reason for its end as well.
func (s *session) stop(why, broken error) (first bool) {
	s.mu.Lock()
	if s.broken == nil {
		s.broken = broken
	}
	first = s.end == nil
	if first {
		s.end = why
	}
	for c := s.queue.pop(); c != nil; c = s.queue.pop() {
		s.resolveLocked(c, Receipt{}, s.notSentLocked())
	}
	s.expectLocked()
	changed := s.changed
	s.mu.Unlock()
	s.wakeWriter()
	if first && changed != nil {
		changed()
	}
	return first
}

// notSentLocked returns the error of a message that is not sent because of end.
func (s *session) notSentLocked() error {
	return fmt.Errorf("%w: %w", ErrNotSent, generalError(s.end))
}

// What a Client needs besides ended: to find a connection with a free stream, and to
// reserve it.

// onChange sets the function to call when the number of streams changes, or no more
// messages are taken. It is called without a lock.
func (s *session) onChange(changed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = changed
}

// streams returns how many streams the server allows. trusted is false until a message
// was accepted: until then a server that takes provider tokens allows only one.
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
		// Let goroutines that are about to push queue their messages: to write two
		// together costs little more than to write one.
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
		// The server may have said why: let the reader read that first.
		select {
		case <-s.readDone:
		case <-time.After(lastWords):
		}
		s.fail(s.link.explain(err))
	}
	s.link.closeNow() // so that the reader ends
	<-s.readDone
	rest := s.conn.Rest()
	s.resolve(rest)
	deliver(rest)
	s.mu.Lock()
	s.broken = cmp.Or(s.broken, s.end)
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
	return s.broken != nil || s.end != nil && s.conn.Active() == 0
}

// fill opens streams for queued messages, up to maxWrite bytes. It reports whether
// there is something to write.
func (s *session) fill() bool {
	s.mu.Lock()
	s.openLocked()
	s.expectLocked()
	pending, renewed := s.conn.Pending(), s.provider.renewed
	s.provider.renewed = false
	s.mu.Unlock()
	if renewed {
		s.log.Info("apns: new provider token")
	}
	return pending
}

// openLocked opens streams for queued messages. A call has its stream before the reader
// can resolve it, since that takes s.mu first.
func (s *session) openLocked() {
	if s.queue.n > 0 && s.mayHaveDiedLocked() {
		return
	}
	for size := 0; size < maxWrite && s.queue.n > 0 && s.conn.Room() > 0; {
		c := s.queue.first
		r, bearer, err := s.provider.request(c.message)
		if err == nil {
			r.Tag = c
			c.bearer = bearer
			c.stream, err = s.conn.Open(r)
			if c.stream == 0 && err == nil {
				return // there is no room any more
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
		} else {
			s.noteRead(len(outcomes) > 0)
		}
		// Last, so that the callers, who may push again at once, find all else done.
		deliver(outcomes)
		if !isReady && (err != nil || s.conn.Ready()) {
			isReady = true
			close(s.ready)
		}
		if err != nil {
			return
		}
	}
}

func (s *session) noteReadError(err error) {
	if err == io.EOF {
		err = errors.New("the server closed the connection")
	}
	s.fail(s.link.explain(err))
}

// resolve gives messages their outcomes, which deliver then tells their callers.
func (s *session) resolve(outcomes []h2.Outcome) {
	if len(outcomes) == 0 {
		return
	}
	s.mu.Lock()
	lost, unprocessed := generalError(cmp.Or(s.broken, s.end)), generalError(s.end)
	if s.goAway != nil {
		unprocessed = generalError(s.goAway)
	}
	s.mu.Unlock()
	accepted := false
	var leaving error
	for i := range outcomes {
		c := outcomes[i].Tag.(*pushCall)
		why := lost
		if outcomes[i].Kind == h2.Unprocessed {
			why = unprocessed
		}
		c.receipt, c.err = s.provider.outcome(c, &outcomes[i], why)
		accepted = accepted || c.err == nil
		if e, ok := errors.AsType[*drainError](c.err); ok {
			leaving = e
		}
	}
	if accepted {
		s.trust()
	}
	if leaving != nil && s.drain(leaving) {
		s.log.Warn("apns: the server ends the connection", "error", leaving)
	}
}

func deliver(outcomes []h2.Outcome) {
	for i := range outcomes {
		outcomes[i].Tag.(*pushCall).done <- struct{}{}
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

// noteGoAway drains the session once the server has sent a GOAWAY. A server that shuts
// down may send two, and give the reason in either.
func (s *session) noteGoAway() {
	g := s.conn.GoAway()
	s.mu.Lock()
	if g == s.seen {
		s.mu.Unlock()
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
	s.mu.Unlock()
	s.log.Warn("apns: GOAWAY", "reason", string(e.reason), "code", uint32(e.code), "debug", e.debug)
	s.drain(e)
}

// noteRead wakes whoever waits for what was read: the writer, and a Client without a
// free stream. resolved says that there were outcomes, after which a Client looks for
// free streams anyway.
func (s *session) noteRead(resolved bool) {
	s.mu.Lock()
	s.heard, s.pinged, s.probing = time.Now(), time.Time{}, false
	wake := s.queue.n > 0 || s.end != nil || s.conn.Pending()
	var changed func()
	limit := s.conn.Limit()
	if limit != s.reported || s.starved && !resolved && s.conn.Room() > s.queue.n+s.reserved {
		s.reported, s.starved = limit, false
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
