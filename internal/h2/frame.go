// Package h2 has the frames of HTTP/2 (RFC 9113), in both directions, and the
// client's end of a connection. It knows nothing of push notifications.
//
//   - Reader reads frames and checks them.
//   - The Append functions write frames.
//   - Validator checks the fields of a request or a response.
//   - Conn is the client's end.
package h2

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// A Type is what kind of frame a frame is. See RFC 9113, section 6.
type Type uint8

// The types of frames.
const (
	TypeData         Type = 0x0
	TypeHeaders      Type = 0x1
	TypePriority     Type = 0x2
	TypeRSTStream    Type = 0x3
	TypeSettings     Type = 0x4
	TypePushPromise  Type = 0x5
	TypePing         Type = 0x6
	TypeGoAway       Type = 0x7
	TypeWindowUpdate Type = 0x8
	TypeContinuation Type = 0x9
)

var typeNames = [...]string{"DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"}

// String returns, for example, "HEADERS".
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "frame type " + strconv.Itoa(int(t))
}

// Flags are those of a frame. What a bit means depends on the frame's type.
type Flags uint8

// The flags of frames.
const (
	FlagAck        Flags = 0x1 // of SETTINGS and PING
	FlagEndStream  Flags = 0x1 // of DATA and HEADERS
	FlagEndHeaders Flags = 0x4 // of HEADERS, PUSH_PROMISE and CONTINUATION
	FlagPadded     Flags = 0x8
	FlagPriority   Flags = 0x20
)

// A Code says why a stream or a connection ends. See RFC 9113, section 7.
type Code uint32

// The error codes.
const (
	CodeNo                 Code = 0x0
	CodeProtocol           Code = 0x1
	CodeInternal           Code = 0x2
	CodeFlowControl        Code = 0x3
	CodeSettingsTimeout    Code = 0x4
	CodeStreamClosed       Code = 0x5
	CodeFrameSize          Code = 0x6
	CodeRefusedStream      Code = 0x7
	CodeCancel             Code = 0x8
	CodeCompression        Code = 0x9
	CodeConnect            Code = 0xa
	CodeEnhanceYourCalm    Code = 0xb
	CodeInadequateSecurity Code = 0xc
	CodeHTTP11Required     Code = 0xd
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

// String returns, for example, "PROTOCOL_ERROR".
func (c Code) String() string {
	if int64(c) < int64(len(codeNames)) {
		return codeNames[c]
	}
	return "error code " + strconv.FormatUint(uint64(c), 10)
}

// A Setting is a number with which one end tells the other what it can take. See
// RFC 9113, section 6.5.2.
type Setting uint16

// The settings.
const (
	SettingHeaderTableSize      Setting = 0x1
	SettingEnablePush           Setting = 0x2
	SettingMaxConcurrentStreams Setting = 0x3
	SettingInitialWindowSize    Setting = 0x4
	SettingMaxFrameSize         Setting = 0x5
	SettingMaxHeaderListSize    Setting = 0x6
)

const (
	// Preface is what a client sends first, before its SETTINGS.
	Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	// HeaderSize is the size of a frame's header in bytes.
	HeaderSize = 9

	// MinMaxFrameSize is the largest payload that each end can take without
	// having said so, in bytes. This package never says more.
	MinMaxFrameSize = 16 << 10

	// MaxWindow is the largest flow-control window in bytes.
	MaxWindow = 1<<31 - 1

	// DefaultWindow is the size of a window in bytes as long as the other end has
	// not said otherwise.
	DefaultWindow = 65535

	// MaxStream is the last number that a stream can have.
	MaxStream = 1<<31 - 1
)

// A ConnError is an error after which the connection cannot go on. It is sent in a
// GOAWAY. See RFC 9113, section 5.4.1.
type ConnError struct {
	Code Code
	Text string
}

func (e *ConnError) Error() string { return fmt.Sprintf("%s (%v)", e.Text, e.Code) }

func connError(code Code, format string, args ...any) error {
	return &ConnError{code, fmt.Sprintf(format, args...)}
}

// A StreamError is an error of one stream. It is sent in a RST_STREAM. See RFC
// 9113, section 5.4.2.
type StreamError struct {
	Stream uint32
	Code   Code
	Text   string
}

func (e *StreamError) Error() string { return fmt.Sprintf("%s (%v)", e.Text, e.Code) }

// AppendHeader appends the header of a frame with a payload of length bytes.
func AppendHeader(b []byte, length int, t Type, flags Flags, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

// AppendFrame appends a whole frame. The payload must not be larger than the other
// end takes.
func AppendFrame(b []byte, t Type, flags Flags, stream uint32, payload []byte) []byte {
	return append(AppendHeader(b, len(payload), t, flags, stream), payload...)
}

// A SettingValue is a setting with its value.
type SettingValue struct {
	Setting Setting
	Value   uint32
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(b []byte, settings ...SettingValue) []byte {
	b = AppendHeader(b, 6*len(settings), TypeSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.Setting))
		b = binary.BigEndian.AppendUint32(b, s.Value)
	}
	return b
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(b []byte) []byte {
	return AppendHeader(b, 0, TypeSettings, FlagAck, 0)
}

// AppendPing appends a PING frame, or with FlagAck the answer to one.
func AppendPing(b []byte, flags Flags, data [8]byte) []byte {
	return AppendFrame(b, TypePing, flags, 0, data[:])
}

// AppendGoAway appends a GOAWAY frame: no stream after last was or will be
// processed.
func AppendGoAway(b []byte, last uint32, code Code, debug []byte) []byte {
	b = AppendHeader(b, 8+len(debug), TypeGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

// AppendRSTStream appends a RST_STREAM frame.
func AppendRSTStream(b []byte, stream uint32, code Code) []byte {
	b = AppendHeader(b, 4, TypeRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame for a stream, or with stream 0
// for the connection.
func AppendWindowUpdate(b []byte, stream, increment uint32) []byte {
	b = AppendHeader(b, 4, TypeWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, increment)
}

// AppendHeaders appends a HEADERS frame with a header block, and CONTINUATION
// frames if the block is larger than maxFrameSize.
func AppendHeaders(b []byte, flags Flags, stream uint32, block []byte, maxFrameSize int) []byte {
	start := len(b)
	b = AppendHeader(b, 0, TypeHeaders, flags, stream)
	return EndHeaders(append(b, block...), start, maxFrameSize)
}

// EndHeaders ends a HEADERS frame that was begun at b[start:] with AppendHeader and
// whose block was appended after that. It fills in the length, and moves to
// CONTINUATION frames what is more than maxFrameSize.
func EndHeaders(b []byte, start, maxFrameSize int) []byte {
	block := start + HeaderSize
	size := len(b) - block
	first := min(size, maxFrameSize)
	b[start], b[start+1], b[start+2] = byte(first>>16), byte(first>>8), byte(first)
	if size <= maxFrameSize {
		b[start+4] |= byte(FlagEndHeaders)
		return b
	}
	rest := append([]byte(nil), b[block+first:]...)
	stream := binary.BigEndian.Uint32(b[start+5:])
	b = b[:block+first]
	for len(rest) > 0 {
		n := min(len(rest), maxFrameSize)
		var flags Flags
		if n == len(rest) {
			flags = FlagEndHeaders
		}
		b = AppendFrame(b, TypeContinuation, flags, stream, rest[:n])
		rest = rest[n:]
	}
	return b
}
