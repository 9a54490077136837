package apns

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net"
	"time"

	"example.com/apns/internal/iomutex"
)

// A Feedback is a record of the feedback service: a device from which the app was removed.
type Feedback struct {
	// Token is the device token in lower-case hexadecimal. A server may send a token that
	// no device can have: see Check.
	Token string

	// DeadAt is when the server found that the app was gone, in UTC and whole seconds. If
	// the app registered the token after that time, the token is valid: keep it.
	DeadAt time.Time
}

// Check says what is wrong with the token. Nil means that a device can have such a token:
// it is 1 to MaxTokenSize bytes in hexadecimal. Like the error of [BuildMsg], the error
// matches ErrInvalid, and the Status or Reason with which a server would reject a message
// to the token.
func (f Feedback) Check() error {
	if badTokenSize(f.Token, MaxTokenSize) || !isHexadecimal(f.Token) {
		return tokenError(f.Token, MaxTokenSize)
	}
	return nil
}

// ReadFeedbackMsg returns the next record of the feedback service, and io.EOF after the
// last one.
//
// Reading the list empties it on the server: save each record, or act on it, before you
// read the next.
//
// A record is returned as the server sent it, even if no device can have its token:
// [Feedback.Check] says what is wrong with the token. The next call returns the next
// record.
//
// An error is about the connection, never about a record. It matches io.ErrUnexpectedEOF if
// the list ends within a record. If ctx ends first, the error matches ctx.Err() and no
// record is lost: the next call continues with the same record.
//
// Any number of goroutines may call ReadFeedbackMsg.
//
// A Conn either reads feedback or sends messages: after a method of one kind, those of the
// other return an error. Over HTTP/2 there is no feedback service, and the error matches
// errors.ErrUnsupported.
func (c *Conn) ReadFeedbackMsg(ctx context.Context) (Feedback, error) {
	if c.http2 != nil {
		return Feedback{}, fmt.Errorf("apns: no feedback service over HTTP/2, where the answer to each message says that its device is dead: %w", errors.ErrUnsupported)
	}
	return c.binary.readFeedback(ctx)
}

// Feedback ranges over the records that [Conn.ReadFeedbackMsg] returns, up to the end of the
// list. An error ends the loop: it comes last, with a zero Feedback.
func (c *Conn) Feedback(ctx context.Context) iter.Seq2[Feedback, error] {
	return func(yield func(Feedback, error) bool) {
		for {
			f, err := c.ReadFeedbackMsg(ctx)
			if err == io.EOF || !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// AppendFeedback appends to b the record as a feedback service sends it. The token may have
// 0 to 65,535 bytes, so that every record from ParseFeedback can be appended. A longer
// token, a token that is not hexadecimal and a time that does not fit into 32 bits are
// errors. On an error AppendFeedback returns b unchanged.
func AppendFeedback(b []byte, f Feedback) ([]byte, error) {
	if len(f.Token) > 2*math.MaxUint16 || len(f.Token)%2 != 0 {
		return b, tokenError(f.Token, math.MaxUint16)
	}
	if int64(expirySeconds(f.DeadAt)) != f.DeadAt.Unix() {
		return b, fmt.Errorf("apns: time of death is %v, expected 1970 to 2106", f.DeadAt)
	}
	out := binary.BigEndian.AppendUint32(b, uint32(f.DeadAt.Unix()))
	out = binary.BigEndian.AppendUint16(out, uint16(len(f.Token)/2))
	out, ok := appendToken(out, f.Token)
	if !ok {
		return b, tokenError(f.Token, math.MaxUint16)
	}
	return out, nil
}

// ParseFeedback decodes the record at the start of b and returns its size in bytes. The token
// may have any length: see [Feedback.Check].
//
// The error is io.EOF if b is empty. It matches io.ErrUnexpectedEOF if b ends before the
// record does. In both cases n is len(b). There is no other error.
func ParseFeedback(b []byte) (f Feedback, n int, err error) {
	if len(b) == 0 {
		return Feedback{}, 0, io.EOF
	}
	size, _ := feedbackSize(b)
	if size > len(b) {
		name := "feedback record"
		if size > feedbackHead+MaxTokenSize {
			// The peer may not be a feedback service. The first bytes show what it is.
			name = fmt.Sprintf("feedback record that begins %q", b[:feedbackHead])
		}
		return Feedback{}, len(b), cutShort(name, b, size)
	}
	return Feedback{
		Token:  tokenString(b[feedbackHead:size]),
		DeadAt: expiryTime(b),
	}, size, nil
}

const (
	// feedbackHead is the size in bytes of the time and the length before the token.
	feedbackHead = 4 + 2
	// maxFeedback is the size in bytes of the largest record.
	maxFeedback = feedbackHead + math.MaxUint16
)

// feedbackSize returns the size of the record at the start of b, as msgSize does for a
// message. The error is always nil: a token may have any length.
func feedbackSize(b []byte) (int, error) {
	if len(b) < feedbackHead {
		return feedbackHead, nil
	}
	return feedbackHead + int(binary.BigEndian.Uint16(b[4:])), nil
}

// readFeedback implements Conn.ReadFeedbackMsg.
func (c *binaryConn) readFeedback(ctx context.Context) (Feedback, error) {
	if err := c.setPurpose(readingFeedback); err != nil {
		return Feedback{}, fmt.Errorf("apns: %w", err)
	}
	f, err := c.feedback.next(ctx, c.done)
	if err != nil && c.isEnded() {
		return Feedback{}, c.endError()
	}
	return f, err
}

// A feedbackReader reads the records of a feedback service.
type feedbackReader struct {
	link    *link
	reading *iomutex.Mutex // guards buf, and keeps the records in order
	buf     *bufio.Reader  // keeps what was read of a record; nil before the first read
}

func newFeedbackReader(l *link) feedbackReader {
	return feedbackReader{link: l, reading: iomutex.New(l.setReadDeadline)}
}

// next returns the next record, unless done is closed. If ctx ends before the whole record
// has been read, the next call goes on with the same record.
func (r *feedbackReader) next(ctx context.Context, done <-chan struct{}) (Feedback, error) {
	if err := r.reading.Lock(ctx, done); err != nil {
		return Feedback{}, r.readError(ctx, err)
	}
	defer r.reading.Unlock()
	select {
	case <-done: // a record that is in buf does not come any more
		return Feedback{}, r.readError(ctx, net.ErrClosed)
	default:
	}
	if err := r.reading.Start(ctx); err != nil {
		return Feedback{}, r.readError(ctx, err)
	}
	if r.buf == nil {
		r.buf = bufio.NewReaderSize(r.link, maxFeedback)
	}
	b, _, err := peekRecord(r.buf, feedbackSize) // buf has room for any record
	r.reading.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		return Feedback{}, r.readError(ctx, err)
	}
	f, n, err := ParseFeedback(b) // it tells the end of the list from a cut record
	if err != nil {
		return Feedback{}, err
	}
	_, err = r.buf.Discard(n)
	return f, err
}

// readError returns the error of next if reading was interrupted or has failed.
func (r *feedbackReader) readError(ctx context.Context, err error) error {
	return fmt.Errorf("apns: reading feedback: %w", cmp.Or(ctx.Err(), r.link.explain(err)))
}

// close stops watching the context of the last call. It waits until that has returned.
func (r *feedbackReader) close() { r.reading.Close() }
