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
	"strings"
	"sync"
	"time"

	"example.com/apns/internal/iomutex"
)

// A binaryConn is the binary protocol's half of a Conn. It sends messages to a gateway, or
// reads the list of a feedback service: the first verb that is called decides which.
//
// A gateway is silent about the messages that it accepts. It sends an error packet about
// the first message that it rejects, discards all later ones, and closes the connection.
// So one goroutine writes, and another one listens from the first verb on. It must have
// read the packet before a later write reaches the closed connection: on some systems the
// reset that follows throws away what has not been read.
//
// A connection ends once, and the first cause counts: see ending.
//
// Locks: writing is locked before mu. Under mu nothing is read or written, no other lock
// is taken, and no callback is called.
type binaryConn struct {
	link *link
	log  *slog.Logger

	writing  *iomutex.Mutex // guards buf, and keeps messages and the barrier in order
	buf      []byte         // the encoded message; kept so that its memory is used again
	feedback feedbackReader

	// Set by serveSession before the connection is used; nil without a session.

	onEnd      func()          // is called when the connection has ended
	onAccepted func(id uint32) // is called with the ID of each packet of status 0

	listening sync.WaitGroup // the goroutine that listens
	done      chan struct{}  // closed when the connection has ended

	mu         sync.Mutex // guards following
	purpose    purpose
	ending     *ending // nil while the connection lives
	isWriting  bool    // a message is being written
	written    uint64  // how many messages were written
	lastID     uint32  // the ID of the last of these
	minID      uint32  // their smallest ID
	maxID      uint32  // their largest ID
	hasBarrier bool    // the barrier is being written, or was: no message may follow
	barrierID  uint32  // differs from the ID of every message; 0 if there is no such ID
}

// A purpose is what a connection is for.
type purpose int

const (
	undecided purpose = iota
	sending
	readingFeedback
)

// An ending says how a connection ended. It never changes.
type ending struct {
	packet    *PushError // the error packet that ended it; nil if there was none
	cause     error      // if packet is nil: why it ended; net.ErrClosed: this side closed it
	confirmed bool       // the gateway accepted all messages that were written
	refused   bool       // the gateway accepted no message, because it refused the sender
}

func newBinaryConn(l *link, log *slog.Logger) *binaryConn {
	return &binaryConn{
		link:     l,
		log:      log,
		writing:  iomutex.New(l.setWriteDeadline),
		feedback: newFeedbackReader(l),
		done:     make(chan struct{}),
	}
}

// Deciding what the connection is for.

// setPurpose decides what the connection is for. The error is for a verb of the other
// kind. A connection that sends begins to listen.
func (c *binaryConn) setPurpose(p purpose) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.purpose == p || c.ending != nil && c.purpose == undecided:
		return nil
	case c.purpose == sending:
		return errors.New("this connection sends messages: dial the feedback service for another that reads from it")
	case c.purpose == readingFeedback:
		return errors.New("this connection reads the feedback service: dial the gateway for another that sends messages")
	}
	c.purpose = p
	if p == sending {
		// Not after the end, or else close would not wait for it.
		c.listening.Go(c.listen)
	}
	return nil
}

// serveSession makes the connection one of a session, which numbers its messages itself.
// It is called before any other method.
func (c *binaryConn) serveSession(onEnd func(), onAccepted func(id uint32)) {
	c.onEnd, c.onAccepted = onEnd, onAccepted
	c.setPurpose(sending) // on an unused connection there is no error
}

// Writing.

// writeMessage implements Conn.WritePushMsg.
func (c *binaryConn) writeMessage(ctx context.Context, m *Message) error {
	if err := c.setPurpose(sending); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if err := c.writing.Lock(ctx, c.done); err != nil {
		return c.notSent(err)
	}
	defer c.writing.Unlock()
	if m == nil {
		return errNoMessage
	}
	b, err := AppendMsg(c.buf[:0], m)
	if err != nil {
		return err
	}
	c.buf = b
	if !c.beginMessages() {
		return c.notSent(nil)
	}
	if err := c.writeLocked(ctx, b); err != nil {
		return c.notSent(err)
	}
	c.wroteMessages(m.ID, m.ID)
	return nil
}

// writeMessages writes messages of a session, whose IDs count from first to last. After
// an error only those within the first n bytes of b can have reached the gateway. It uses
// the memory of scratch, and returns what the next call may use.
func (c *binaryConn) writeMessages(b []byte, first, last uint32, scratch []byte) (n int, _ []byte, err error) {
	if err := c.writing.Lock(context.Background(), c.done); err != nil {
		return 0, scratch, err
	}
	defer c.writing.Unlock()
	if !c.beginMessages() {
		return 0, scratch, net.ErrClosed
	}
	n, scratch, err = c.link.writeTogether(b, scratch)
	if err != nil {
		return n, scratch, c.writeFailed(context.Background(), err)
	}
	c.wroteMessages(first, last)
	return n, scratch, nil
}

// writeLocked writes b, a message or the barrier. The caller has locked writing. An error
// ends the connection, unless nothing was written because ctx had ended before.
func (c *binaryConn) writeLocked(ctx context.Context, b []byte) error {
	if err := c.writing.Start(ctx); err != nil {
		c.endOfWrite()
		return err
	}
	_, err := c.link.Write(b)
	c.writing.Stop()
	if err != nil {
		return c.writeFailed(ctx, err)
	}
	return nil
}

// beginMessages notes that messages are about to be written. It is false if they may not
// be, because the connection has ended or the barrier comes first.
func (c *binaryConn) beginMessages() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil || c.hasBarrier {
		return false
	}
	c.isWriting = true
	return true
}

// wroteMessages counts messages that were written, whose IDs count from first to last.
func (c *binaryConn) wroteMessages(first, last uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.written == 0 {
		c.minID, c.maxID = first, last
	}
	c.isWriting = false
	c.written += uint64(last-first) + 1
	c.lastID, c.minID, c.maxID = last, min(c.minID, first), max(c.maxID, last)
}

// endOfWrite notes that nothing is being written any more, and that no message is to be
// counted.
func (c *binaryConn) endOfWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isWriting = false
}

// writeFailed ends the connection after a write has failed with err. It returns the error
// to report.
func (c *binaryConn) writeFailed(ctx context.Context, err error) error {
	var cause error
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		// Every caller learns what ended the connection, but the context concerns only
		// the one that gave it.
		cause = errors.New("a message was cut off in the middle")
		err = fmt.Errorf("cut off in the middle of the message: %w", ctx.Err())
	} else {
		// A write is often the first to notice that the gateway has closed the
		// connection. Why it did is in the error packet, which may be about to be read.
		select {
		case <-c.done:
		case <-time.After(lastWords):
		}
		err = c.link.explain(err)
		cause = err
	}
	c.endOfWrite()
	c.end(cause)
	c.disconnect()
	return err
}

// notSent returns the error for a message that was not written. If err is nil, the reason
// is that the connection takes no messages any more.
//
// What ended the connection is in the text only, so that the error does not match it: it
// may be about another message, or about the context of another caller.
func (c *binaryConn) notSent(err error) error {
	ended := c.endError()
	switch {
	case ended == nil && err == nil:
		return fmt.Errorf("%w: the connection is being shut down: %w", ErrNotSent, net.ErrClosed)
	case ended == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	case errors.Is(ended, net.ErrClosed):
		return fmt.Errorf("%w: %w", ErrNotSent, net.ErrClosed)
	}
	text := strings.TrimPrefix(ended.Error(), ErrNotSent.Error()+": ")
	return fmt.Errorf("%w: the connection has ended (%s)", ErrNotSent, strings.TrimPrefix(text, "apns: "))
}

// The barrier.

// shutdown implements Conn.Shutdown.
func (c *binaryConn) shutdown(ctx context.Context) error {
	if err := c.setPurpose(sending); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	cancelled := c.confirm(ctx, false)
	if cancelled != nil {
		c.end(errors.New("Shutdown was cancelled"))
	}
	c.close()
	e, err := c.waitForEnd(), c.endError()
	switch {
	case e.confirmed:
		return nil
	case e.packet == nil && cancelled != nil && errors.Is(cancelled, ctx.Err()):
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return err
}

// check finds out whether the gateway takes messages from this sender: it confirms that no
// message was rejected. That ends the connection, on which nothing must have been written.
func (c *binaryConn) check(ctx context.Context) error {
	c.setPurpose(sending)
	cancelled := c.confirm(ctx, true)
	if cancelled != nil {
		c.end(fmt.Errorf("no answer to a barrier: %w", cancelled))
	}
	c.close()
	switch e := c.waitForEnd(); {
	case e.confirmed:
		return nil
	case e.packet != nil:
		return fmt.Errorf("apns: the gateway answers a barrier with: %s", plainText(e.packet))
	default:
		return fmt.Errorf("apns: the gateway does not answer a barrier: %w", e.cause)
	}
}

// confirm writes the barrier and waits for the answer, which ends the connection. It
// returns nil when the connection has ended, for whatever reason. If no message was
// written, it writes the barrier only if it has to.
func (c *binaryConn) confirm(ctx context.Context, always bool) error {
	if err := c.writing.Lock(ctx, c.done); err != nil {
		return err
	}
	err := c.writeBarrierLocked(ctx, always)
	c.writing.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeBarrier writes the barrier of a session, unless the connection has ended.
func (c *binaryConn) writeBarrier() {
	if c.writing.Lock(context.Background(), c.done) == nil {
		c.writeBarrierLocked(context.Background(), false) // an error ends the connection
		c.writing.Unlock()
	}
}

// writeBarrierLocked writes the barrier, a message without a token and a payload. The
// caller has locked writing. It writes nothing if the barrier was written already or the
// connection has ended. If no message was written, it ends the connection instead, unless
// always is set.
func (c *binaryConn) writeBarrierLocked(ctx context.Context, always bool) error {
	c.mu.Lock()
	isFirst := !c.hasBarrier && c.ending == nil
	c.hasBarrier = true
	if isFirst {
		c.barrierID = c.unusedIDLocked()
	}
	id, written := c.barrierID, c.written
	c.mu.Unlock()
	switch {
	case !isFirst:
		return nil
	case written == 0 && !always:
		c.endConfirmed()
		return nil
	}
	return c.writeLocked(ctx, []byte{
		cmdExtended,
		byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id),
		0, 0, 0, 0, // expiry
		0, 0, // token length
		0, 0, // payload length
	})
}

// unusedIDLocked returns an ID that no message has, or 0 if that would take a search: the
// messages may have the smallest ID and the largest one.
func (c *binaryConn) unusedIDLocked() uint32 {
	switch {
	case c.maxID < math.MaxUint32:
		return c.maxID + 1
	case c.minID > 1:
		return c.minID - 1
	}
	return 0
}

// answersBarrier reports whether a packet answers the barrier. A gateway may name the ID
// of the barrier. Or it may name none (0), because the barrier has no token or no payload:
// then the status tells, unless a message had the ID 0.
func (c *binaryConn) answersBarrier(packet *PushError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if packet.ID == 0 {
		return c.hasBarrier && (c.minID != 0 || c.written == 0) &&
			(packet.Status == StatusMissingToken || packet.Status == StatusMissingPayload)
	}
	return c.hasBarrier && packet.ID == c.barrierID
}

// Listening.

// listen reads what the gateway sends: any number of packets of status 0, then at most one
// other packet, then the end of the stream.
func (c *binaryConn) listen() {
	defer c.disconnect()
	var buf [64]byte // room for the first words of a peer that is no gateway
	for n := 0; ; {
		k, err := c.link.Read(buf[n:])
		n = c.takeAccepted(buf[:n+k])
		packet, parseErr := ParseError(buf[:n])
		switch {
		case parseErr == nil:
			c.endWithPacket(packet)
			// The gateway closes the connection. If this side did so first, the
			// connection could be reset while the gateway still uses it.
			io.Copy(io.Discard, c.link)
			return
		case n > 0 && errors.Is(parseErr, StatusProtocolError):
			said := buf[:n]
			if said[0] <= cmdFramed {
				said = said[:1] // the peer is an echo: this is a message
			}
			c.end(fmt.Errorf("the peer is no gateway of the binary protocol: expected an error packet (command %d), got %q", cmdError, said))
			return
		case err == io.EOF && n == 0:
			c.end(errors.New("the server closed the connection and said nothing"))
			return
		case err == io.EOF:
			c.end(fmt.Errorf("the server closed the connection: % x: %w", buf[:n], plainError{parseErr}))
			return
		case err != nil:
			c.endWith(ending{cause: c.link.explain(err), refused: isCertificateRequired(err)})
			return
		}
	}
}

// takeAccepted takes the packets of status 0 from the beginning of b. With such a packet a
// gateway says that it has accepted all messages up to an ID, and goes on. The rest of b
// moves to its beginning; takeAccepted returns the size of the rest.
func (c *binaryConn) takeAccepted(b []byte) int {
	rest := b
	for {
		packet, err := ParseError(rest)
		if err != nil || packet.Status != StatusNoError {
			return copy(b, rest)
		}
		rest = rest[errorPacketSize:]
		if c.answersBarrier(packet) {
			c.endConfirmed()
		} else if c.onAccepted != nil {
			c.onAccepted(packet.ID)
		}
	}
}

// Ending.

// end ends the connection for the given cause, unless it has ended already.
func (c *binaryConn) end(cause error) { c.endWith(ending{cause: cause}) }

// endConfirmed ends the connection because the gateway has accepted all messages, unless
// the connection has ended already.
func (c *binaryConn) endConfirmed() { c.endWith(ending{cause: net.ErrClosed, confirmed: true}) }

func (c *binaryConn) endWithPacket(packet *PushError) {
	if c.answersBarrier(packet) {
		c.endConfirmed()
	} else {
		c.endWith(ending{packet: packet})
	}
}

// endWith ends the connection, unless it has ended already. It does not close it: see
// disconnect. It logs and sets deadlines, unless the cause is net.ErrClosed: so with
// dispatcher.mu held only that cause is allowed.
func (c *binaryConn) endWith(e ending) {
	c.mu.Lock()
	isFirst := c.ending == nil
	if isFirst {
		c.ending = &e
		close(c.done)
	}
	c.mu.Unlock()
	if !isFirst {
		return
	}
	if c.onEnd != nil {
		c.onEnd()
	}
	if e.cause == net.ErrClosed {
		return
	}
	c.link.interruptWrite() // so that its caller learns of the end
	err := c.endError()
	if e.packet != nil && c.onEnd != nil {
		// Only the session knows which message has the ID.
		err = fmt.Errorf("apns: the gateway said: %w", e.packet.Status)
	}
	c.log.Warn("apns: connection ended", "error", err)
}

// disconnect closes the connection after its end: with a close_notify if this side ended
// it.
func (c *binaryConn) disconnect() {
	if c.waitForEnd().cause == net.ErrClosed {
		c.link.close()
	} else {
		c.link.abort()
	}
}

// close implements Conn.Close.
func (c *binaryConn) close() {
	c.end(net.ErrClosed)
	c.disconnect()
	c.listening.Wait()
	c.writing.Close()
	c.feedback.close()
}

// isEnded reports whether the connection has ended.
func (c *binaryConn) isEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// waitForEnd waits until the connection has ended, and returns how.
func (c *binaryConn) waitForEnd() ending {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.ending
}

// checkForError implements Conn.CheckForError.
func (c *binaryConn) checkForError() error {
	if err := c.setPurpose(sending); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isWriting && c.ending != nil && c.ending.packet == nil {
		// The error depends on how many messages were written, and must not change. It is
		// known when the write returns, which is interrupted.
		return nil
	}
	return c.endErrorLocked()
}

// endError returns the error for how the connection ended, or nil if it has not ended.
func (c *binaryConn) endError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endErrorLocked()
}

func (c *binaryConn) endErrorLocked() error {
	e := c.ending
	switch {
	case e == nil:
		return nil
	case e.packet != nil:
		return e.packet
	case e.cause == net.ErrClosed && (e.confirmed || c.written == 0):
		return fmt.Errorf("apns: connection closed: %w", e.cause)
	case e.refused || c.written == 0:
		return fmt.Errorf("%w: the server took no message: %w", ErrNotSent, e.cause)
	default:
		return fmt.Errorf("%w: messages written: %d, the last with ID %d, and then: %w", ErrInDoubt, c.written, c.lastID, e.cause)
	}
}
