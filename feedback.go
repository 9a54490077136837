package apns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// A Feedback is a record of the feedback service: a device from which the app
// has gone.
type Feedback struct {
	// Token is the device token in lower-case hexadecimal.
	Token string

	// DeadAt is when the server found that the app was gone, in UTC and whole
	// seconds. A token that was registered again after that is alive: compare
	// with the time of its last registration, and keep the token if that is
	// later.
	DeadAt time.Time
}

// ReadFeedbackMsg returns the next record of the feedback service, and io.EOF
// after the last one.
//
// Reading the list empties it on the server: save each record, or act on it,
// before the next. An error that matches io.ErrUnexpectedEOF says that the
// list was cut off within a record. If ctx ends first, the error matches
// ctx.Err() and nothing is lost: a later call goes on with the same record.
// Any number of goroutines may call it.
//
// A Conn is for reading feedback or for sending messages; after a verb of the
// one kind, those of the other return an error. Over HTTP/2 there is no feedback
// service, and the error matches errors.ErrUnsupported.
func (c *Conn) ReadFeedbackMsg(ctx context.Context) (Feedback, error) {
	if c.http2 != nil {
		return Feedback{}, fmt.Errorf("apns: no feedback service over HTTP/2, where the answer to each message says that its device is dead: %w", errors.ErrUnsupported)
	}
	if err := c.use(readsFeedback); err != nil {
		return Feedback{}, fmt.Errorf("apns: %w", err)
	}
	if err := c.reading.lock(ctx, c.done); err != nil {
		return Feedback{}, c.feedbackError(ctx, err)
	}
	defer c.reading.unlock()
	if err := c.ended(); err != nil {
		return Feedback{}, err
	}
	if err := c.reading.begin(ctx); err != nil {
		return Feedback{}, c.feedbackError(ctx, err)
	}
	b, _, err := peekRecord(c.feedback, feedbackSize) // no record is too large for the buffer
	c.reading.end()
	if err == io.EOF && len(b) == 0 {
		return Feedback{}, io.EOF
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, StatusProtocolError) {
		return Feedback{}, c.feedbackError(ctx, err)
	}
	f, n, err := ParseFeedback(b)
	if err != nil {
		return Feedback{}, err
	}
	_, err = c.feedback.Discard(n)
	return f, err
}

// Feedback ranges over the records that [Conn.ReadFeedbackMsg] returns, to the
// end of the list. An error comes last.
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

// AppendFeedback appends to b the record as a feedback service sends it. On an
// error, for a bad token or a time that 32 bits do not hold, it returns b as it
// was.
func AppendFeedback(b []byte, f Feedback) ([]byte, error) {
	if badTokenSize(f.Token) {
		return b, tokenSizeError(f.Token)
	}
	if int64(expirySeconds(f.DeadAt)) != f.DeadAt.Unix() {
		return b, fmt.Errorf("apns: time of death is %v, expected 1970 to 2106", f.DeadAt)
	}
	out := binary.BigEndian.AppendUint32(b, uint32(f.DeadAt.Unix()))
	out = binary.BigEndian.AppendUint16(out, uint16(len(f.Token)/2))
	out, ok := appendToken(out, f.Token)
	if !ok {
		return b, tokenDigitError(f.Token)
	}
	return out, nil
}

// ParseFeedback reads the record at the start of b and returns the number of
// bytes that it takes, or io.EOF if b is empty. On an error n is the offset of
// the field at fault. The error matches StatusProtocolError; or, where b ends
// before the record does, io.ErrUnexpectedEOF.
func ParseFeedback(b []byte) (f Feedback, n int, err error) {
	if len(b) == 0 {
		return Feedback{}, 0, io.EOF
	}
	size, err := feedbackSize(b)
	if err != nil {
		return Feedback{}, offset(err), err
	}
	if size > len(b) {
		return Feedback{}, len(b), cutShort("feedback record", b, size)
	}
	return Feedback{
		Token:  tokenString(b[feedbackHead:size]),
		DeadAt: expiryTime(b),
	}, size, nil
}

// feedbackHead is the size of what comes before the token: time and length.
const feedbackHead = 4 + 2

// feedbackSize is to a record what msgSize is to a message. A token of a length
// that no device has is refused: it is how a peer shows that is not a feedback
// service, whatever it may be.
func feedbackSize(b []byte) (int, error) {
	if len(b) < feedbackHead {
		return feedbackHead, nil
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 || size > MaxTokenSize {
		return 0, malformed(4, "feedback record begins %q: token has a length of %d bytes, expected 1 to %d", b[:feedbackHead], size, MaxTokenSize)
	}
	return feedbackHead + size, nil
}

// feedbackError says what interrupted the reading of feedback.
func (c *Conn) feedbackError(ctx context.Context, err error) error {
	switch {
	case c.ended() != nil:
		return c.ended()
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = c.explain(err)
	}
	return fmt.Errorf("apns: reading feedback: %w", err)
}
