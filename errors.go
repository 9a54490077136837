package apns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrNotSent is matched by the error of a message that the server never took:
// it is safe to send again, on another connection.
var ErrNotSent = errors.New("apns: not sent")

// ErrRefused is matched by the error of a message that was not sent because the
// server refuses the sender: its certificate, its key or its environment. The error
// matches ErrNotSent as well, and the Reason if the server gave one. Other messages
// would get the same answer until the cause is mended.
//
// With TLS 1.3 a gateway of the binary protocol may refuse a certificate after messages
// were written: their error matches ErrRefused and ErrInDoubt.
var ErrRefused = errors.New("apns: sender refused")

// ErrInDoubt is matched by the error of a message that was written, and of
// which nothing will be known: sent again, it may arrive twice.
var ErrInDoubt = errors.New("apns: in doubt")

// ErrInvalid is matched by the error of a message that breaks a rule, and was not sent
// for that. The error says which rule, and matches the Status or the Reason with which a
// server would have rejected the message. It does not match ErrNotSent, since the same
// message would fail again.
var ErrInvalid = errors.New("apns: invalid message")

// ErrExpired is the error of a message that was not sent because its Expiry passed while
// it waited. A message that has expired before it is handed over is sent as it is: the
// server then tries once to deliver it, or not at all.
var ErrExpired = errors.New("apns: expired: the message's Expiry passed while it waited to be sent")

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

// Is reports whether the target is the [Reason] with which the HTTP/2 provider
// API says the same, so that one comparison serves both protocols.
func (s Status) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason != "" && reason == s.reason()
}

func (s Status) reason() Reason {
	switch s {
	case StatusNoError, StatusProtocolError:
		return "" // nothing says the same
	case StatusMissingToken:
		return ReasonMissingDeviceToken
	case StatusMissingTopic:
		return ReasonMissingTopic
	case StatusMissingPayload:
		return ReasonPayloadEmpty
	case StatusInvalidTokenSize, StatusInvalidToken:
		return ReasonBadDeviceToken
	case StatusInvalidTopicSize:
		return ReasonBadTopic
	case StatusInvalidPayloadSize:
		return ReasonPayloadTooLarge
	case StatusShutdown:
		return ReasonShutdown
	}
	return ReasonInternalServerError
}

// A Reason is the word with which the HTTP/2 provider API says what was wrong.
// It is an error, as [Status] is. A server may send one that has no constant.
type Reason string

// The reasons of "Handling notification responses from APNs", in the order of
// their HTTP status.
const (
	ReasonBadCollapseID               Reason = "BadCollapseId"               // 400
	ReasonBadDeviceToken              Reason = "BadDeviceToken"              // 400; also for a token of the other environment
	ReasonBadExpirationDate           Reason = "BadExpirationDate"           // 400
	ReasonBadMessageID                Reason = "BadMessageId"                // 400
	ReasonBadPriority                 Reason = "BadPriority"                 // 400
	ReasonBadTopic                    Reason = "BadTopic"                    // 400
	ReasonDeviceTokenNotForTopic      Reason = "DeviceTokenNotForTopic"      // 400
	ReasonDuplicateHeaders            Reason = "DuplicateHeaders"            // 400
	ReasonIdleTimeout                 Reason = "IdleTimeout"                 // 400
	ReasonInvalidPushType             Reason = "InvalidPushType"             // 400
	ReasonMissingDeviceToken          Reason = "MissingDeviceToken"          // 400
	ReasonMissingTopic                Reason = "MissingTopic"                // 400
	ReasonPayloadEmpty                Reason = "PayloadEmpty"                // 400
	ReasonTopicDisallowed             Reason = "TopicDisallowed"             // 400
	ReasonBadCertificate              Reason = "BadCertificate"              // 403
	ReasonBadCertificateEnvironment   Reason = "BadCertificateEnvironment"   // 403
	ReasonExpiredProviderToken        Reason = "ExpiredProviderToken"        // 403
	ReasonForbidden                   Reason = "Forbidden"                   // 403
	ReasonInvalidProviderToken        Reason = "InvalidProviderToken"        // 403
	ReasonMissingProviderToken        Reason = "MissingProviderToken"        // 403
	ReasonUnrelatedKeyIDInToken       Reason = "UnrelatedKeyIdInToken"       // 403
	ReasonBadEnvironmentKeyIDInToken  Reason = "BadEnvironmentKeyIdInToken"  // 403
	ReasonBadPath                     Reason = "BadPath"                     // 404
	ReasonMethodNotAllowed            Reason = "MethodNotAllowed"            // 405
	ReasonExpiredToken                Reason = "ExpiredToken"                // 410
	ReasonUnregistered                Reason = "Unregistered"                // 410
	ReasonPayloadTooLarge             Reason = "PayloadTooLarge"             // 413
	ReasonTooManyProviderTokenUpdates Reason = "TooManyProviderTokenUpdates" // 429
	ReasonTooManyRequests             Reason = "TooManyRequests"             // 429; to this device
	ReasonInternalServerError         Reason = "InternalServerError"         // 500
	ReasonServiceUnavailable          Reason = "ServiceUnavailable"          // 503
	ReasonShutdown                    Reason = "Shutdown"                    // 503
)

// The reasons that "Handling error responses from Apple Push Notification
// service" has beside those, for broadcasts and their channels.
const (
	ReasonFeatureNotEnabled         Reason = "FeatureNotEnabled"         // 400
	ReasonMissingChannelID          Reason = "MissingChannelId"          // 400
	ReasonBadChannelID              Reason = "BadChannelId"              // 400
	ReasonChannelNotRegistered      Reason = "ChannelNotRegistered"      // 400
	ReasonBadRequestParams          Reason = "BadRequestParams"          // 400
	ReasonBadRequestPayload         Reason = "BadRequestPayload"         // 400
	ReasonMissingPushType           Reason = "MissingPushType"           // 400
	ReasonCannotCreateChannelConfig Reason = "CannotCreateChannelConfig" // 400
	ReasonTopicMismatch             Reason = "TopicMismatch"             // 403
)

// Error returns the word itself.
func (r Reason) Error() string { return string(r) }

// Is reports whether r is another spelling of target: "Service Unavailable", which
// Apple prints for broadcasts, is ReasonServiceUnavailable, and
// "BadEnvironmentKeyInToken" is ReasonBadEnvironmentKeyIDInToken.
func (r Reason) Is(target error) bool {
	return r == reasonServiceUnavailable && target == ReasonServiceUnavailable ||
		r == reasonBadEnvironmentKey && target == ReasonBadEnvironmentKeyIDInToken
}

// The other spellings.
const (
	reasonServiceUnavailable Reason = "Service Unavailable"
	reasonBadEnvironmentKey  Reason = "BadEnvironmentKeyInToken"
)

// known reports whether there is a constant for the reason.
func (r Reason) known() bool {
	switch r {
	case ReasonBadCollapseID, ReasonBadDeviceToken, ReasonBadExpirationDate, ReasonBadMessageID,
		ReasonBadPriority, ReasonBadTopic, ReasonDeviceTokenNotForTopic, ReasonDuplicateHeaders,
		ReasonIdleTimeout, ReasonInvalidPushType, ReasonMissingDeviceToken, ReasonMissingTopic,
		ReasonPayloadEmpty, ReasonTopicDisallowed, ReasonBadCertificate, ReasonBadCertificateEnvironment,
		ReasonExpiredProviderToken, ReasonForbidden, ReasonInvalidProviderToken, ReasonMissingProviderToken,
		ReasonUnrelatedKeyIDInToken, ReasonBadEnvironmentKeyIDInToken, ReasonBadPath, ReasonMethodNotAllowed,
		ReasonExpiredToken, ReasonUnregistered, ReasonPayloadTooLarge, ReasonTooManyProviderTokenUpdates,
		ReasonTooManyRequests, ReasonInternalServerError, ReasonServiceUnavailable, ReasonShutdown,
		ReasonFeatureNotEnabled, ReasonMissingChannelID, ReasonBadChannelID, ReasonChannelNotRegistered,
		ReasonBadRequestParams, ReasonBadRequestPayload, ReasonMissingPushType, ReasonCannotCreateChannelConfig,
		ReasonTopicMismatch:
		return true
	}
	return false
}

// isGeneral reports whether the reason is about the sender or the server, and so
// about any message.
func (r Reason) isGeneral() bool {
	switch r {
	case reasonServiceUnavailable, reasonBadEnvironmentKey, ReasonIdleTimeout, ReasonBadCertificate, ReasonBadCertificateEnvironment, ReasonExpiredProviderToken,
		ReasonInvalidProviderToken, ReasonMissingProviderToken, ReasonUnrelatedKeyIDInToken,
		ReasonBadEnvironmentKeyIDInToken, ReasonTooManyProviderTokenUpdates, ReasonInternalServerError,
		ReasonServiceUnavailable, ReasonShutdown:
		return true
	}
	return false
}

// endsConnection reports whether the reason says that the message was not processed,
// and that another connection may take it.
func (r Reason) endsConnection() bool {
	return r == ReasonShutdown || r == ReasonIdleTimeout || r == ReasonUnrelatedKeyIDInToken
}

// isRefusal reports whether the reason refuses the sender, whatever it sends.
func (r Reason) isRefusal() bool {
	switch r {
	case ReasonBadCertificate, ReasonBadCertificateEnvironment, ReasonExpiredProviderToken, ReasonInvalidProviderToken,
		ReasonMissingProviderToken, ReasonBadEnvironmentKeyIDInToken, reasonBadEnvironmentKey:
		return true
	}
	return false
}

// A PushError is what a server said about a message. errors.Is compares it with
// a Status and with a Reason.
//
//	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && pushErr.Rejected() {
//		// the message pushErr.ID cannot be delivered
//	}
//
// On the binary wire it is the last thing that a server says on a connection.
// Every message written before the one with the ID was accepted; every one
// written after it was discarded, and is safe to send again. What it means for
// that message itself, Rejected tells.
type PushError struct {
	// ID is that of the Message. On the binary wire it is 0 where the server
	// could not tell which message it means. If no message was written with it,
	// which ones the server took is not known.
	ID uint32

	// Status is what the binary wire says.
	Status Status

	// HTTPStatus is what the HTTP/2 wire says, where it is never 0. The rest is
	// that wire's as well.
	HTTPStatus int
	// Reason says more than HTTPStatus; it is empty if the server gave none.
	Reason Reason
	// APNsID is the server's name for the message: the message's APNsID, or one
	// that the server made up.
	APNsID string
	// DeadAt is when the server found that the token of an HTTPStatus 410 was
	// dead: see Feedback.DeadAt, which is the same. Otherwise it is zero.
	DeadAt time.Time
	// RetryAfter is how long the server wants to be left alone; zero if it does
	// not say.
	RetryAfter time.Duration
}

// Rejected reports whether the message with the ID was refused. It is false for
// StatusShutdown alone, whose ID is that of the last message that was accepted.
func (e *PushError) Rejected() bool {
	return e.HTTPStatus != 0 || e.Status != StatusShutdown
}

// Retryable reports whether the same message may be accepted later: the server failed,
// was unavailable, or was sent too many messages for the device. Over HTTP/2 a Client has
// tried again before it returns such an error.
func (e *PushError) Retryable() bool {
	if e.HTTPStatus == 0 {
		return e.Status == StatusProcessingError
	}
	return e.Reason == ReasonTooManyRequests || e.Reason == ReasonInternalServerError || errors.Is(e.Reason, ReasonServiceUnavailable)
}

// Error returns, for example, "apns: message 7 rejected: invalid token (status 8)"
// or "apns: message 7 rejected: BadDeviceToken (HTTP status 400)".
func (e *PushError) Error() string {
	switch {
	case !e.Rejected():
		return fmt.Sprintf("apns: server shut down after message %d, the last one it accepted (status %d)", e.ID, uint8(e.Status))
	case e.HTTPStatus == 0 && !e.Status.known():
		return fmt.Sprintf("apns: message %d rejected: %v", e.ID, e.Status)
	case e.HTTPStatus == 0:
		return fmt.Sprintf("apns: message %d rejected: %v (status %d)", e.ID, e.Status, uint8(e.Status))
	}
	var dead string
	if !e.DeadAt.IsZero() {
		dead = ", dead since " + e.DeadAt.Format(time.RFC3339)
	}
	reason := string(e.Reason)
	if reason == "" {
		reason = "no reason given"
	}
	message := "message"
	if e.ID != 0 {
		message = fmt.Sprintf("message %d", e.ID)
	}
	return fmt.Sprintf("apns: %s rejected: %s (HTTP status %d%s)", message, reason, e.HTTPStatus, dead)
}

// Unwrap returns the Status or the Reason, whichever the wire has.
func (e *PushError) Unwrap() error {
	switch {
	case e.HTTPStatus == 0:
		return e.Status
	case e.Reason != "":
		return e.Reason
	}
	return nil
}

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
// expected, the Status or Reason is what a server would have said.
type fieldError struct {
	said error
	text string
}

func (e *fieldError) Error() string { return "apns: " + e.text }
func (e *fieldError) Unwrap() error { return e.said }

func (e *fieldError) Is(target error) bool { return target == ErrInvalid }

// A refusedError says that the server refuses the sender.
type refusedError struct{ err error }

func (e *refusedError) Error() string        { return e.err.Error() }
func (e *refusedError) Is(target error) bool { return target == ErrRefused }
func (e *refusedError) Unwrap() error        { return e.err }

// A setupError is about what does not get better with time: how the server, or
// what is configured for it, was set up.
type setupError struct{ err error }

func (e *setupError) Error() string { return e.err.Error() }
func (e *setupError) Unwrap() error { return e.err }

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
