package apns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrNotSent is matched by the error of a message that the server did not process. It
// is safe to send the message once more, on another connection.
var ErrNotSent = errors.New("apns: not sent")

// ErrRefused is matched by the error of a message that was not sent because the server
// refuses the sender: its certificate, its key or its environment. The error also matches
// ErrNotSent, and the Reason if the server gave one. Every other message gets the same
// answer until the cause is corrected.
//
// With TLS 1.3 a binary gateway may refuse a certificate after messages were written.
// The errors of those messages match ErrRefused and ErrInDoubt.
var ErrRefused = errors.New("apns: sender refused")

// ErrInDoubt is matched by the error of a message that was written and whose answer will
// never come. If it is sent once more, it may arrive twice.
var ErrInDoubt = errors.New("apns: in doubt")

// ErrInvalid is matched by the error of a message that was not sent because it breaks a
// rule. The error says which rule. It also matches the Status or the Reason with which a
// server would have rejected the message, if there is one. It does not match ErrNotSent: the
// same message would fail each time.
var ErrInvalid = errors.New("apns: invalid message")

// ErrExpired is the error of a message that was not sent because its Expiry passed while
// it waited. A message that had expired before the call is sent as it is: the server then
// tries once to deliver it, or not at all.
var ErrExpired = errors.New("apns: expired: the message's Expiry passed while it waited to be sent")

// A Status is the number with which a server of the binary protocol says what is wrong
// with a message. It is an error. So
//
//	errors.Is(err, apns.StatusInvalidToken)
//
// is true for a [PushError] with that status, and for the error of a local check that
// found the same.
//
// The source of the table is Table A-4 in the chapter "Binary Provider API" of Apple's
// Local and Remote Notification Programming Guide. A server may send a number that is not
// in the table.
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
	StatusInvalidToken       Status = 8   // the token is unknown, or is for another app or environment
	StatusShutdown           Status = 10  // the server shuts down; the ID is that of the last message it accepted
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

// Error returns the text of the status, or, for example, "status 42" for a number that is
// not in the error-code table.
func (s Status) Error() string {
	if s.known() {
		return statusTexts[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

func (s Status) known() bool {
	return int(s) < len(statusTexts) && statusTexts[s] != ""
}

// Is reports whether target is the [Reason] with the same meaning in the HTTP/2 provider
// API. So one comparison serves both protocols.
func (s Status) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason != "" && reason == s.reason()
}

func (s Status) reason() Reason {
	switch s {
	case StatusNoError, StatusProtocolError:
		return "" // no Reason means the same
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

// A Reason is the word with which the HTTP/2 provider API says what is wrong with a
// message. It is an error, like [Status]. A server may send a reason without a constant
// here.
type Reason string

// The reasons, in the order of their HTTP status. The source is "Handling notification
// responses from APNs".
const (
	ReasonBadCollapseID               Reason = "BadCollapseId"               // 400
	ReasonBadDeviceToken              Reason = "BadDeviceToken"              // 400; also for a token from the other environment
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
	ReasonTooManyRequests             Reason = "TooManyRequests"             // 429; to this device or channel, or about channels
	ReasonInternalServerError         Reason = "InternalServerError"         // 500
	ReasonServiceUnavailable          Reason = "ServiceUnavailable"          // 503
	ReasonShutdown                    Reason = "Shutdown"                    // 503
)

// More reasons, for broadcasts and their channels. The reasons above have the same meaning
// there. Two of them have a second one: ReasonBadExpirationDate is also the answer to a
// broadcast with an Expiry if its channel has StoreNone, and ReasonTopicDisallowed to a bundle
// ID with the suffix of a push type. The source is "Handling error responses from Apple Push
// Notification service".
const (
	ReasonFeatureNotEnabled         Reason = "FeatureNotEnabled"         // 400; the app does not have the Broadcast Capability
	ReasonMissingChannelID          Reason = "MissingChannelId"          // 400; there is no apns-channel-id header
	ReasonBadChannelID              Reason = "BadChannelId"              // 400; the channel ID is badly encoded or too long
	ReasonChannelNotRegistered      Reason = "ChannelNotRegistered"      // 400; there is no such channel
	ReasonBadRequestParams          Reason = "BadRequestParams"          // 400; the JSON has an unknown attribute
	ReasonBadRequestPayload         Reason = "BadRequestPayload"         // 400; the JSON cannot be parsed
	ReasonMissingPushType           Reason = "MissingPushType"           // 400; there is no push type
	ReasonCannotCreateChannelConfig Reason = "CannotCreateChannelConfig" // 400; the app has all channels that it can have
	ReasonTopicMismatch             Reason = "TopicMismatch"             // 403; the key or certificate is not for the bundle ID
)

// Error returns the word itself.
func (r Reason) Error() string { return string(r) }

// Is reports whether r is another spelling of target. "Service Unavailable", which Apple's
// page has for broadcasts, is ReasonServiceUnavailable. "BadEnvironmentKeyInToken" is
// ReasonBadEnvironmentKeyIDInToken.
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

// isGeneral reports whether the reason is about the sender or the server, and so concerns
// every message.
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

// endsConnection reports whether the reason means that the message was not processed and
// that another connection may take it.
func (r Reason) endsConnection() bool {
	return r == ReasonShutdown || r == ReasonIdleTimeout || r == ReasonUnrelatedKeyIDInToken
}

// refusesSender reports whether the server refuses the sender, whatever it sends.
func (r Reason) refusesSender() bool {
	switch r {
	case ReasonBadCertificate, ReasonBadCertificateEnvironment, ReasonExpiredProviderToken, ReasonInvalidProviderToken,
		ReasonMissingProviderToken, ReasonBadEnvironmentKeyIDInToken, reasonBadEnvironmentKey:
		return true
	}
	return false
}

// A PushError is what a server says about a message: it rejected the message, or it shuts
// down and this is the last message that it accepted. It is also what a server says about
// a call of [Channels] that it rejected. errors.Is compares a PushError with a Status or a
// Reason.
//
//	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && pushErr.Rejected() {
//		// the message pushErr.ID cannot be delivered
//	}
//
// On the binary protocol it is the last thing that a server sends on a connection. The
// server accepted every message that was written before the one with the ID. It discarded
// every message that was written after it; those are safe to send once more. Rejected
// says what became of the message itself.
type PushError struct {
	// ID is the ID of the Message. On the binary protocol it is 0 if the server does not know
	// which message it means. If no message with the ID was written, it is not known which
	// messages the server accepted.
	ID uint32

	// Status is the status on the binary protocol. Over HTTP/2 it is 0.
	Status Status

	// HTTPStatus is the status over HTTP/2, and never 0 there. On the binary protocol
	// this field and those that follow are zero.
	HTTPStatus int
	// Reason is the reason for the HTTPStatus. It is empty if the server gave none.
	Reason Reason
	// APNsID is the server's ID for the message: the message's APNsID, or one that the
	// server generated.
	APNsID string
	// DeadAt is when the server found that the device was dead, if HTTPStatus is 410.
	// It means the same as Feedback.DeadAt. It is zero if the server gave no time.
	DeadAt time.Time
	// RetryAfter is how long the server asks the sender to wait. It is zero if the
	// server does not say.
	RetryAfter time.Duration
}

// Rejected reports whether the server rejected the message with the ID. It is false only
// for StatusShutdown, whose ID is that of the last message that was accepted.
func (e *PushError) Rejected() bool {
	return e.HTTPStatus != 0 || e.Status != StatusShutdown
}

// Retryable reports whether the same message may be accepted later: the server failed, was
// unavailable, or had received too many messages for the device. Over HTTP/2 a Client
// resends such a message before it returns the error.
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

// Unwrap returns the Status on the binary protocol, and the Reason, if there is one, over
// HTTP/2.
func (e *PushError) Unwrap() error {
	switch {
	case e.HTTPStatus == 0:
		return e.Status
	case e.Reason != "":
		return e.Reason
	}
	return nil
}

// The error packet has a command, a status and an identifier. The source is Figure A-2 in
// the chapter "Binary Provider API".
const (
	cmdError        = 8
	errorPacketSize = 1 + 1 + 4
)

// AppendError appends to b the error packet of e: the 6 bytes that a server of the binary
// protocol sends.
func AppendError(b []byte, e *PushError) []byte {
	b = append(b, cmdError, byte(e.Status))
	return binary.BigEndian.AppendUint32(b, e.ID)
}

// ParseError decodes the error packet in the first 6 bytes of b. If b is shorter, the error
// matches io.ErrUnexpectedEOF.
func ParseError(b []byte) (*PushError, error) {
	switch {
	case len(b) > 0 && b[0] != cmdError:
		return nil, malformed(0, "error packet has command %d, expected %d", b[0], cmdError)
	case len(b) < errorPacketSize:
		return nil, cutShort("error packet", b, errorPacketSize)
	}
	return &PushError{ID: binary.BigEndian.Uint32(b[2:]), Status: Status(b[1])}, nil
}

// A fieldError is the error of a local check. It matches ErrInvalid.
type fieldError struct {
	said error  // the Status or Reason with which a server would reject the message
	text string // what the field is, and what was expected
}

func (e *fieldError) Error() string { return "apns: " + e.text }
func (e *fieldError) Unwrap() error { return e.said }

func (e *fieldError) Is(target error) bool { return target == ErrInvalid }

// A refusedError says that the server refuses the sender.
type refusedError struct{ err error }

func (e *refusedError) Error() string        { return e.err.Error() }
func (e *refusedError) Is(target error) bool { return target == ErrRefused }
func (e *refusedError) Unwrap() error        { return e.err }

// A permanentError is an error that time does not heal: it is about the configuration, or about
// how the server was set up.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// A syntaxError is the error of a decoder.
type syntaxError struct {
	offset int // of the field at fault, in bytes
	text   string
	err    error // StatusProtocolError or io.ErrUnexpectedEOF
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
