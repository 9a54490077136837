package apns

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// A Message is one notification: for the device with the Token, or for all devices that
// are subscribed to the Channel.
//
// The package does not modify a Message, and does not keep it after the call that it was
// passed to. (Client.PushAll and PushChan keep it until they yield it.) So messages may
// share a Payload.
//
// Topic, PushType, CollapseID and APNsID exist only over HTTP/2. The binary protocol leaves
// them out.
//
// encoding/json marshals a Message, for a queue or a log, and unmarshals an equal one:
//
//	{
//	  "id": 7,
//	  "token": "00c0ffee",
//	  "payload": {"aps": {"alert": "Hi"}},
//	  "expiry": "2026-11-30T12:00:00Z",
//	  "priority": 10,
//	  "topic": "com.example.app",
//	  "push_type": "alert",
//	  "collapse_id": "score",
//	  "apns_id": "123e4567-e89b-12d3-a456-4266554400a0"
//	}
//
// A broadcast has "channel" in place of "token". A field that is zero is left out, and so is
// Value. See [Message.MarshalJSON] and [Message.UnmarshalJSON].
type Message struct {
	// ID identifies the message in an error. Zero is valid. A binary gateway sends the ID
	// back when it rejects the message, and uses it for nothing else. A gateway that cannot
	// tell which message it means says 0. So a caller of Conn should give the messages of
	// a connection the IDs 1, 2, 3 and so on.
	ID uint32

	// Token is the device token in hexadecimal, in lower or upper case. It has 1 to
	// MaxTokenSize bytes on the binary protocol. Over HTTP/2, where Apple states no limit,
	// it has up to 2,048 bytes. Store tokens in lower case: the package returns them so,
	// for example in a Feedback, and == then compares them.
	Token string

	// Channel is the ID of a broadcast channel, as Channels.Create returns it. Empty means
	// that the message is for one device. A Channel takes the place of the Token, and makes
	// the message a broadcast: it updates or ends a Live Activity on all devices that are
	// subscribed to the channel. Config.BundleID, which is required, is the app. Token,
	// Topic and CollapseID must be empty. The binary protocol has no broadcasts.
	//
	// The source is "Sending broadcast push notification requests to APNs". By its text
	// broadcasts go to the same addresses as other messages. By its samples they go to
	// api-broadcast.push.apple.com and api-broadcast.sandbox.push.apple.com; a Client whose
	// Addr has one of those hosts sends them there.
	Channel string

	// Payload is the notification: a JSON object in UTF-8, of 1 to MaxPayload bytes. The
	// limit is MaxVoIPPayload for PushTypeVoIP and for a broadcast, and MaxBinaryPayload on
	// the binary protocol. AlertPayload and Payload make one. The package does not check
	// that it is JSON when it sends the message.
	Payload []byte

	// Expiry is the time after which the server need not try to reach the device any
	// more, in whole seconds. The zero Time leaves it to the server; Apple's tries for 30
	// days. The start of 1970, or a time before it, means now or never: the server tries
	// once and does not store the message.
	//
	// On the binary protocol the zero Time leaves it to the server only if Priority is
	// set. Without a Priority it means now or never, because the extended format always
	// has an expiry.
	//
	// A broadcast always has an expiry too, and the zero Time means now or never. A channel
	// with StoreNone takes no other. Apple stores a broadcast for at most 8 hours.
	Expiry time.Time

	// Priority says how urgent the message is. Zero leaves it to the server, which takes
	// PriorityImmediate. Over HTTP/2 zero means PriorityPowerSaving for
	// PushTypeBackground, which may have no other. In a broadcast zero means
	// PriorityImmediate.
	//
	// On the binary protocol a message with a Priority is sent in the framed format, the
	// only one that has a priority.
	Priority Priority

	// Topic is the apns-topic header. Empty means that PushType.Topic makes it from
	// Config.BundleID. If that is empty too, the server takes the topic of the certificate,
	// if that has exactly one.
	Topic string

	// PushType is the apns-push-type header: what the payload is for. Empty means
	// PushTypeAlert. In a broadcast empty means PushTypeLiveActivity, the only type that it
	// can have. Over HTTP/2 the push type may not be empty if the payload is one of a Live
	// Activity or of a background push.
	PushType PushType

	// CollapseID is the apns-collapse-id header, of at most 64 bytes: on the device a
	// message replaces an earlier one that has the same CollapseID. Empty means that the
	// message replaces none.
	CollapseID string

	// APNsID is the apns-id header, with which the server identifies the message: a UUID
	// in its canonical form, such as 123e4567-e89b-12d3-a456-4266554400a0. Empty means that
	// the server generates one. In a broadcast it is the apns-request-id header.
	APNsID string

	// Value is the caller's: for example the queue's message that this one was made from,
	// to acknowledge it when the Result comes. It is not sent, and not part of the JSON.
	Value any
}

// A Priority says how urgent a message is.
type Priority uint8

const (
	// PriorityImmediate sends the message at once. The message must cause an alert, a
	// sound or a badge: it is an error with a payload that has only content-available.
	PriorityImmediate Priority = 10
	// PriorityPowerSaving sends the message at a time that suits the device's battery.
	PriorityPowerSaving Priority = 5
	// PriorityLowest saves the device's battery above all else: the message does not wake
	// the device. The binary protocol does not have this priority.
	PriorityLowest Priority = 1
)

// A PushType says what a push is for. Apple requires one with every push, and it must fit
// the payload. The topic depends on it: the app's bundle ID with, for most types, a suffix.
// [PushType.Topic] returns that topic. A type without a constant here is sent as it is.
type PushType string

// The push types, with their topics. The source is "Sending notification requests to
// APNs".
const (
	// PushTypeAlert shows, plays or badges something. The topic is the bundle ID.
	PushTypeAlert PushType = "alert"
	// PushTypeBackground wakes the app. It requires PriorityPowerSaving. The topic is the
	// bundle ID.
	PushTypeBackground PushType = "background"
	// PushTypeLocation requests the location of the device. The topic is the bundle ID and
	// ".location-query".
	PushTypeLocation PushType = "location"
	// PushTypeVoIP announces a call. The topic is the bundle ID and ".voip". The token is the
	// one that the app has from PushKit, and not its device token ("Responding to VoIP
	// Notifications from PushKit").
	PushTypeVoIP PushType = "voip"
	// PushTypeComplication updates a watch face. The topic is the bundle ID and ".complication".
	PushTypeComplication PushType = "complication"
	// PushTypeFileProvider says that files changed. The topic is the bundle ID and
	// ".pushkit.fileprovider".
	PushTypeFileProvider PushType = "fileprovider"
	// PushTypeMDM tells a managed device to contact its management server. The topic is the
	// UID in the subject of the MDM push certificate.
	PushTypeMDM PushType = "mdm"
	// PushTypeLiveActivity is for Live Activities. The topic is the bundle ID and
	// ".push-type.liveactivity". A start goes to the app's push-to-start token. An update or
	// an end goes to the token of the activity itself ("Starting and updating Live Activities
	// with ActivityKit push notifications").
	PushTypeLiveActivity PushType = "liveactivity"
	// PushTypePushToTalk announces a speaker. The topic is the bundle ID and ".voip-ptt".
	PushTypePushToTalk PushType = "pushtotalk"
	// PushTypeWidgets reloads widgets. The topic is the bundle ID and ".push-type.widgets".
	PushTypeWidgets PushType = "widgets"
	// PushTypeControls reloads controls. The topic is the bundle ID and ".push-type.controls".
	PushTypeControls PushType = "controls"
)

// Topic returns the topic of the app with the bundle ID for pushes of the type.
func (t PushType) Topic(bundleID string) string {
	switch t {
	case PushTypeLocation:
		return bundleID + ".location-query"
	case PushTypeVoIP:
		return bundleID + ".voip"
	case PushTypeComplication:
		return bundleID + ".complication"
	case PushTypeFileProvider:
		return bundleID + ".pushkit.fileprovider"
	case PushTypeLiveActivity:
		return bundleID + ".push-type.liveactivity"
	case PushTypePushToTalk:
		return bundleID + ".voip-ptt"
	case PushTypeWidgets:
		return bundleID + ".push-type.widgets"
	case PushTypeControls:
		return bundleID + ".push-type.controls"
	}
	return bundleID
}

// AlertPayload returns the payload that shows a text: {"aps":{"alert":text}}. It writes
// the text in UTF-8, with few escapes. A byte that is not UTF-8 becomes U+FFFD.
func AlertPayload(text string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"aps":{"alert":`)
	writeString(&b, text)
	b.WriteString(`}}`)
	return b.Bytes()
}

// BuildMsg returns the message as it is sent on the binary protocol: in the framed format
// (command 2) if it has a Priority, and in the extended format (command 1) otherwise.
//
// If the message breaks a rule, the error says which field is wrong, where, and what was
// expected. It matches ErrInvalid, and the Status with which a server would have rejected
// the message. It is not a *PushError.
func BuildMsg(m *Message) ([]byte, error) {
	return AppendMsg(nil, m)
}

// AppendMsg appends to b what [BuildMsg] returns. On an error it returns b unchanged. It
// does not allocate if b has enough capacity.
func AppendMsg(b []byte, m *Message) ([]byte, error) {
	return appendMsg(b, m, m.ID)
}

// appendMsg is AppendMsg with id in place of the message's ID.
func appendMsg(b []byte, m *Message, id uint32) ([]byte, error) {
	if m.Channel != "" {
		return b, errBinaryBroadcast
	}
	if badTokenSize(m.Token, MaxTokenSize) {
		return b, tokenError(m.Token, MaxTokenSize)
	}
	if badPayloadSize(m.Payload, MaxBinaryPayload) {
		return b, payloadSizeError(m.Payload, MaxBinaryPayload)
	}
	var ok bool
	out := b
	switch m.Priority {
	case 0:
		out = append(out, cmdExtended)
		out = binary.BigEndian.AppendUint32(out, id)
		out = binary.BigEndian.AppendUint32(out, expirySeconds(m.Expiry))
		out = binary.BigEndian.AppendUint16(out, uint16(len(m.Token)/2))
		if out, ok = appendToken(out, m.Token); !ok {
			return b, tokenError(m.Token, MaxTokenSize)
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(m.Payload)))
		out = append(out, m.Payload...)

	case PriorityImmediate, PriorityPowerSaving:
		size := 3 + len(m.Token)/2 + 3 + len(m.Payload) + 3 + 4 + 3 + 1
		if !m.Expiry.IsZero() {
			size += 3 + 4
		}
		out = append(out, cmdFramed)
		out = binary.BigEndian.AppendUint32(out, uint32(size))
		out = appendItemHead(out, itemToken, len(m.Token)/2)
		if out, ok = appendToken(out, m.Token); !ok {
			return b, tokenError(m.Token, MaxTokenSize)
		}
		out = appendItemHead(out, itemPayload, len(m.Payload))
		out = append(out, m.Payload...)
		out = appendItemHead(out, itemID, 4)
		out = binary.BigEndian.AppendUint32(out, id)
		if !m.Expiry.IsZero() {
			out = appendItemHead(out, itemExpiry, 4)
			out = binary.BigEndian.AppendUint32(out, expirySeconds(m.Expiry))
		}
		out = appendItemHead(out, itemPriority, 1)
		out = append(out, byte(m.Priority))

	default:
		return b, &fieldError{StatusProcessingError, fmt.Sprintf(
			"priority is %d, expected %d or %d on the binary protocol, or 0 to leave it out", m.Priority, PriorityImmediate, PriorityPowerSaving)}
	}
	return out, nil
}

// ParseMsg decodes the message at the start of b, in any of the three formats: simple
// (command 0), extended (1) or framed (2). It returns the size of the message in bytes, or
// io.EOF if b is empty. The Message shares no memory with b.
//
// ParseMsg accepts messages that a server has to understand in order to reject them: a
// token or payload may be empty or over the limit (in the framed format, also missing), and
// a priority may be any number.
//
// On an error n is the offset in bytes of the field at fault. The error matches
// io.ErrUnexpectedEOF if b ends before the message does, and StatusProtocolError
// otherwise.
func ParseMsg(b []byte) (m *Message, n int, err error) {
	if len(b) == 0 {
		return nil, 0, io.EOF
	}
	size, err := msgSize(b)
	if err != nil {
		return nil, offset(err), err
	}
	if size > len(b) {
		return nil, len(b), cutShort("message", b, size)
	}
	m, err = decodeMsg(b[:size])
	if err != nil {
		return nil, offset(err), err
	}
	return m, size, nil
}

// ReadMsg reads the next message from r and decodes it as [ParseMsg] does. It does not wait
// for bytes after the message. The error is io.EOF if r ends between two messages, and
// matches io.ErrUnexpectedEOF if r ends within a message. After any error except io.EOF
// the next byte of r may be one within a message.
func ReadMsg(r *bufio.Reader) (*Message, error) {
	b, taken, err := peekRecord(r, msgSize)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF && len(b) > 0:
		_, _, err = ParseMsg(b) // its error says how much of the message there is
		return nil, err
	case err != nil && !errors.Is(err, StatusProtocolError):
		return nil, fmt.Errorf("apns: reading a message: %w", err)
	case err != nil:
		return nil, err
	}
	m, err := decodeMsg(b)
	if err == nil && !taken {
		_, err = r.Discard(len(b))
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// The commands, and the items of the framed format.
const (
	cmdSimple   = 0
	cmdExtended = 1
	cmdFramed   = 2

	itemToken    = 1
	itemPayload  = 2
	itemID       = 3
	itemExpiry   = 4
	itemPriority = 5
)

// maxFrame is the size of the largest frame in bytes. It has each item once; the token and
// the payload have the largest size that a length field can express.
const maxFrame = 2*(3+math.MaxUint16) + 2*(3+4) + (3 + 1)

var itemNames = [...]string{itemToken: "token", itemPayload: "payload", itemID: "identifier", itemExpiry: "expiry", itemPriority: "priority"}

func appendItemHead(b []byte, item byte, size int) []byte {
	return append(b, item, byte(size>>8), byte(size))
}

// expirySeconds returns t in seconds since 1970, limited to what 32 bits can hold. A time
// before 1970 becomes 0: in older editions of Apple's guide "zero or less" means what zero
// means in the last one.
func expirySeconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}

func expiryTime(b []byte) time.Time {
	return time.Unix(int64(binary.BigEndian.Uint32(b)), 0).UTC()
}

func badPayloadSize(payload []byte, limit int) bool {
	return len(payload) == 0 || len(payload) > limit
}

func payloadSizeError(payload []byte, limit int) error {
	if len(payload) == 0 {
		return &fieldError{StatusMissingPayload, fmt.Sprintf(
			"payload is empty, expected 1 to %d bytes of JSON", limit)}
	}
	return &fieldError{StatusInvalidPayloadSize, fmt.Sprintf(
		"payload has %d bytes, expected at most %d", len(payload), limit)}
}

// msgSize returns the size in bytes of the message at the start of b. If b is too short to
// tell, it returns a larger number than len(b): how many bytes it needs to tell more.
func msgSize(b []byte) (int, error) {
	if len(b) == 0 {
		return 1, nil
	}
	var tokenAt int
	switch b[0] {
	case cmdFramed:
		if len(b) < 5 {
			return 5, nil
		}
		size := binary.BigEndian.Uint32(b[1:])
		if size > maxFrame {
			return 0, malformed(1, "frame has a length of %d bytes, expected at most %d", size, maxFrame)
		}
		return 5 + int(size), nil
	case cmdSimple:
		tokenAt = 1 + 2
	case cmdExtended:
		tokenAt = 1 + 4 + 4 + 2
	default:
		return 0, malformed(0, "message has command %d, expected %d, %d or %d", b[0], cmdSimple, cmdExtended, cmdFramed)
	}
	if len(b) < tokenAt {
		return tokenAt, nil
	}
	payloadAt := tokenAt + int(binary.BigEndian.Uint16(b[tokenAt-2:])) + 2
	if len(b) < payloadAt {
		return payloadAt, nil
	}
	return payloadAt + int(binary.BigEndian.Uint16(b[payloadAt-2:])), nil
}

// decodeMsg decodes b, which is one whole message by msgSize.
func decodeMsg(b []byte) (*Message, error) {
	m := new(Message)
	switch b[0] {
	case cmdFramed:
		if err := decodeItems(m, b); err != nil {
			return nil, err
		}
		return m, nil
	case cmdExtended:
		m.ID = binary.BigEndian.Uint32(b[1:])
		m.Expiry = expiryTime(b[5:])
		b = b[9:]
	case cmdSimple:
		b = b[1:]
	}
	n := int(binary.BigEndian.Uint16(b))
	m.Token = tokenString(b[2 : 2+n])
	m.Payload = bytes.Clone(b[2+n+2:])
	return m, nil
}

// decodeItems decodes the items of the frame b. They may come in any order: Apple's guide
// does not require one.
func decodeItems(m *Message, b []byte) error {
	var seen [len(itemNames)]bool
	for at := 5; at < len(b); {
		if len(b)-at < 3 {
			return malformed(at, "frame ends %d bytes into the head of an item, expected 3", len(b)-at)
		}
		item, size := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		if item == 0 || int(item) >= len(itemNames) {
			return malformed(at, "frame has item %d, expected 1 to %d", item, len(itemNames)-1)
		}
		name := itemNames[item]
		if seen[item] {
			return malformed(at, "frame has item %d (%s) twice", item, name)
		}
		seen[item] = true
		if size > len(b)-at-3 {
			return malformed(at, "item %d (%s) has a length of %d bytes, and the frame only %d left", item, name, size, len(b)-at-3)
		}
		want := size
		switch item {
		case itemID, itemExpiry:
			want = 4
		case itemPriority:
			want = 1
		}
		if size != want {
			return malformed(at, "item %d (%s) has a length of %d bytes, expected %d", item, name, size, want)
		}
		data := b[at+3 : at+3+size]
		switch item {
		case itemToken:
			m.Token = tokenString(data)
		case itemPayload:
			m.Payload = bytes.Clone(data)
		case itemID:
			m.ID = binary.BigEndian.Uint32(data)
		case itemExpiry:
			m.Expiry = expiryTime(data)
		case itemPriority:
			m.Priority = Priority(data[0])
		}
		at += 3 + size
	}
	return nil
}

// peekRecord returns the next record of r. The function size returns the record's size, as
// msgSize does. The caller has to discard the record from r, unless taken is true: a record
// that is larger than the buffer of r cannot be peeked at and is read instead.
//
// On an error, also if r ends within the record, it returns the bytes that there are. They
// are still in r unless taken is true, so a later call can continue after a read that a
// deadline interrupted.
func peekRecord(r *bufio.Reader, size func([]byte) (int, error)) (b []byte, taken bool, err error) {
	n := 1
	for n <= r.Size() {
		b, err = r.Peek(max(n, r.Buffered()))
		if err != nil {
			return b, false, err
		}
		if n, err = size(b); err != nil {
			return b, false, err
		}
		if n <= len(b) {
			return b[:n], false, nil
		}
	}
	b = nil
	for n > len(b) {
		have := len(b)
		b = append(make([]byte, 0, n), b...)[:n]
		k, err := io.ReadFull(r, b[have:])
		if err != nil {
			return b[:have+k], true, err
		}
		if n, err = size(b); err != nil {
			return b, true, err
		}
	}
	return b, true, nil
}
