package apns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrNotSent is matched by the error of a message that the server never took:
// it is safe to send again, on another connection.
var ErrNotSent = errors.New("apns: not sent")

// ErrInDoubt is matched by the error of a message that was written, and of
// which nothing will be known: sent again, it may arrive twice.
var ErrInDoubt = errors.New("apns: in doubt")

// A Status is the number with which a server of the binary protocol says what
// was wrong. It is an error, so that
//
//	errors.Is(err, apns.StatusInvalidToken)
//
// holds for a [PushError] with that status, and for the error of a local check
// that found the same. The source of the table is Table A-4 in the chapter
// "Binary Provider API" of Apple's Local and Remote Notification Programming
// Guide. A server may send a number that is not in it.
type Status uint8

// The error-code table.
const (
	StatusNoError            Status = 0
	StatusProcessingError    Status = 1
	StatusMissingToken       Status = 2
	StatusMissingTopic       Status = 3
	StatusMissingPayload     Status = 4
	StatusInvalidTokenSize   Status = 5
	StatusInvalidTopicSize   Status = 6
	StatusInvalidPayloadSize Status = 7
	StatusInvalidToken       Status = 8   // unknown to the server, or of another app or environment
	StatusShutdown           Status = 10  // the server is closing; the ID is that of the last message it took
	StatusProtocolError      Status = 128 // the server could not read the message
	StatusUnknown            Status = 255
)

var statusTexts = [...]string{
	StatusNoError:            "no error",
	StatusProcessingError:    "processing error",
	StatusMissingToken:       "missing device token",
	StatusMissingTopic:       "missing topic",
	StatusMissingPayload:     "missing payload",
	StatusInvalidTokenSize:   "invalid token size",
	StatusInvalidTopicSize:   "invalid topic size",
	StatusInvalidPayloadSize: "invalid payload size",
	StatusInvalidToken:       "invalid token",
	StatusShutdown:           "shutdown",
	StatusProtocolError:      "protocol error",
	StatusUnknown:            "unknown error",
}

// Error returns the status's text from the error-code table, or "status 42"
// for a number that is not in it.
func (s Status) Error() string {
	if s.known() {
		return statusTexts[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

func (s Status) known() bool {
	return int(s) < len(statusTexts) && statusTexts[s] != ""
}

// A PushError is what a server said about a message, and the last thing it says
// on a connection. Every message written before the one with the ID was
// accepted; every one written after it was discarded, and is safe to send again.
// What it means for that message itself, Rejected tells.
//
//	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && pushErr.Rejected() {
//		// the message pushErr.ID cannot be delivered
//	}
type PushError struct {
	// ID is that of the Message. It is 0 where the server could not tell which
	// message it means. If no message was written with it, which ones the
	// server took is not known.
	ID uint32
	// Status says why. errors.Is compares with it.
	Status Status
}

// Rejected reports whether the message with the ID was refused. It is false for
// StatusShutdown alone, whose ID is that of the last message that was accepted.
func (e *PushError) Rejected() bool {
	return e.Status != StatusShutdown
}

// Error returns, for example, "apns: message 7 rejected: invalid token (status 8)".
func (e *PushError) Error() string {
	if !e.Rejected() {
		return fmt.Sprintf("apns: server shut down after message %d, the last one it accepted (status %d)", e.ID, uint8(e.Status))
	}
	if !e.Status.known() {
		return fmt.Sprintf("apns: message %d rejected: %v", e.ID, e.Status)
	}
	return fmt.Sprintf("apns: message %d rejected: %v (status %d)", e.ID, e.Status, uint8(e.Status))
}

// Unwrap returns the status.
func (e *PushError) Unwrap() error { return e.Status }

// The error packet: command, status, identifier. See Figure A-2 in the chapter
// "Binary Provider API".
const (
	cmdError        = 8
	errorPacketSize = 1 + 1 + 4
)

// AppendError appends to b the 6 bytes with which a server of the binary
// protocol sends e.
func AppendError(b []byte, e *PushError) []byte {
	b = append(b, cmdError, byte(e.Status))
	return binary.BigEndian.AppendUint32(b, e.ID)
}

// ParseError reads the error packet at the start of b. It takes 6 bytes. Where b
// ends before it does, the error matches io.ErrUnexpectedEOF.
func ParseError(b []byte) (*PushError, error) {
	switch {
	case len(b) > 0 && b[0] != cmdError:
		return nil, malformed(0, "error packet has command %d, expected %d", b[0], cmdError)
	case len(b) < errorPacketSize:
		return nil, cutShort("error packet", b, errorPacketSize)
	}
	return &PushError{ID: binary.BigEndian.Uint32(b[2:]), Status: Status(b[1])}, nil
}

// A fieldError is what a local check finds: the text says what came and what was
// expected, the status is what a server would have said.
type fieldError struct {
	status Status
	text   string
}

func (e *fieldError) Error() string { return "apns: " + e.text }
func (e *fieldError) Unwrap() error { return e.status }

// A syntaxError is a decoder's, about the field at an offset. It wraps
// StatusProtocolError or io.ErrUnexpectedEOF.
type syntaxError struct {
	offset int
	text   string
	err    error
}

func (e *syntaxError) Error() string { return "apns: " + e.text }
func (e *syntaxError) Unwrap() error { return e.err }

func malformed(offset int, format string, args ...any) error {
	text := fmt.Sprintf("at offset %d: "+format, append([]any{offset}, args...)...)
	return &syntaxError{offset, text, StatusProtocolError}
}

func cutShort(record string, b []byte, size int) error {
	text := fmt.Sprintf("%s is cut short after %d bytes, expected at least %d", record, len(b), size)
	return &syntaxError{len(b), text, io.ErrUnexpectedEOF}
}

func offset(err error) int { return err.(*syntaxError).offset }
