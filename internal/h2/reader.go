package h2

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// maxBlock bounds a header block as it is sent, in bytes, with all its
	// CONTINUATION frames. Requests and responses have a few hundred bytes.
	maxBlock = 16 << 10
	// maxContinuations bounds the CONTINUATION frames of a block, since empty ones
	// cost work and add nothing to the block's size. A block of maxBlock bytes needs
	// none, and eight if its sender is wasteful.
	maxContinuations = 8
	// maxSettings bounds the entries of a SETTINGS frame. Six are defined.
	maxSettings = 32
	// readSize is the size of a Reader's buffer in bytes: room for the largest
	// frame, and for a whole TLS record after the beginning of one.
	readSize = 2*MinMaxFrameSize + HeaderSize
)

// A Frame is a frame that a Reader has read and checked.
type Frame struct {
	Type   Type
	Flags  Flags
	Stream uint32
	// Payload has no padding and, in HEADERS, no priority. HEADERS carry the whole
	// block, CONTINUATION included, and have FlagEndHeaders. It is valid until the
	// Reader is used again.
	Payload []byte
	// Size is that of the payload as it was sent, with the padding: what counts for
	// flow control.
	Size int
}

// Has reports whether the frame has a flag.
func (f *Frame) Has(flag Flags) bool { return f.Flags&flag != 0 }

// Uint32 returns the number that the payload begins with, without the reserved bit
// of a stream's number or a window's increment.
func (f *Frame) Uint32() uint32 { return binary.BigEndian.Uint32(f.Payload) &^ (1 << 31) }

// Code returns the error code of a RST_STREAM or GOAWAY.
func (f *Frame) Code() Code {
	if f.Type == TypeGoAway {
		return Code(binary.BigEndian.Uint32(f.Payload[4:]))
	}
	return Code(binary.BigEndian.Uint32(f.Payload))
}

// Settings calls set for each setting of a SETTINGS frame, in order.
func (f *Frame) Settings(set func(s Setting, value uint32) error) error {
	for p := f.Payload; len(p) >= 6; p = p[6:] {
		if err := set(Setting(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	return nil
}

// A Reader reads frames from a connection, and checks them. Fill reads from the
// connection, and is the only method that waits; Next returns the frames of what
// was read. A Reader is for one goroutine.
//
// It enforces what can be said of a frame without knowledge of the streams: its
// size, whether it has to have a stream, its padding, the values of settings, and
// the order of HEADERS and CONTINUATION. The errors are a *ConnError, or a
// *StreamError after which Next can go on.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int // of what was read and not yet returned

	inBlock       bool   // HEADERS without FlagEndHeaders have come
	headers       Frame  // those; without Payload
	block         []byte // of the HEADERS and CONTINUATION frames so far
	continuations int
}

// NewReader returns a Reader for a connection.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, buf: make([]byte, readSize)}
}

// Fill reads once from the connection. What Next returned is not valid any more.
func (r *Reader) Fill() error {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	n, err := r.r.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil // an error comes again with the next Read
	}
	return err
}

// Unread returns the bytes that were read and are not part of a frame so far.
func (r *Reader) Unread() []byte { return r.buf[r.start:r.end] }

// Discard drops n bytes that were read: a preface.
func (r *Reader) Discard(n int) { r.start += n }

// Next returns the next frame of what was read. ok is false if there is no whole
// frame.
func (r *Reader) Next() (f Frame, ok bool, err error) {
	for r.end-r.start >= HeaderSize {
		head := r.buf[r.start:]
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		f := Frame{
			Type:   Type(head[3]),
			Flags:  Flags(head[4]),
			Stream: binary.BigEndian.Uint32(head[5:]) &^ (1 << 31),
			Size:   size,
		}
		if size > MinMaxFrameSize {
			return Frame{}, false, connError(CodeFrameSize, "%v of %d bytes, expected at most %d", f.Type, size, MinMaxFrameSize)
		}
		if r.end-r.start < HeaderSize+size {
			return Frame{}, false, nil
		}
		f.Payload = head[HeaderSize : HeaderSize+size]
		r.start += HeaderSize + size
		if err := r.checkOrder(&f); err != nil {
			return Frame{}, false, err
		}
		if err := f.check(); err != nil {
			return Frame{}, false, err
		}
		whole, err := r.assemble(&f)
		if whole || err != nil {
			return f, err == nil, err
		}
	}
	return Frame{}, false, nil
}

// checkOrder checks that a header block is whole before another frame comes. This
// comes first, since after an error of a single stream the block would go on.
func (r *Reader) checkOrder(f *Frame) error {
	switch {
	case r.inBlock && (f.Type != TypeContinuation || f.Stream != r.headers.Stream):
		return connError(CodeProtocol, "%v of stream %d, expected CONTINUATION of stream %d", f.Type, f.Stream, r.headers.Stream)
	case !r.inBlock && f.Type == TypeContinuation:
		return connError(CodeProtocol, "CONTINUATION without HEADERS")
	}
	return nil
}

// assemble puts HEADERS and their CONTINUATION frames together. It returns true if
// f is a frame to be returned.
func (r *Reader) assemble(f *Frame) (whole bool, err error) {
	switch {
	case f.Type == TypeHeaders && !f.Has(FlagEndHeaders):
		r.inBlock, r.continuations = true, 0
		r.headers = *f
		r.headers.Payload = nil
		r.block = append(r.block[:0], f.Payload...)
		return false, nil
	case !r.inBlock:
		return true, nil
	}
	r.continuations++
	r.block = append(r.block, f.Payload...)
	if len(r.block) > maxBlock || r.continuations > maxContinuations {
		return false, connError(CodeEnhanceYourCalm, "header block of %d bytes in %d frames, expected at most %d bytes and %d frames",
			len(r.block), 1+r.continuations, maxBlock, 1+maxContinuations)
	}
	if !f.Has(FlagEndHeaders) {
		return false, nil
	}
	r.inBlock = false
	*f = r.headers
	f.Flags |= FlagEndHeaders
	f.Payload = r.block
	return true, nil
}

// check enforces the rules about a single frame, and removes padding and priority.
// See RFC 9113, sections 6.1 to 6.10.
func (f *Frame) check() error {
	size := len(f.Payload)
	switch f.Type {
	case TypeData, TypeHeaders, TypePriority, TypeRSTStream, TypePushPromise, TypeContinuation:
		if f.Stream == 0 {
			return connError(CodeProtocol, "%v without a stream", f.Type)
		}
	case TypeSettings, TypePing, TypeGoAway:
		if f.Stream != 0 {
			return connError(CodeProtocol, "%v of stream %d, expected none", f.Type, f.Stream)
		}
	}
	switch f.Type {
	case TypeData:
		return f.unpad()
	case TypeHeaders:
		if err := f.unpad(); err != nil {
			return err
		}
		return f.cutPriority()
	case TypePriority:
		if size != 5 {
			return &StreamError{f.Stream, CodeFrameSize, fmt.Sprintf("PRIORITY of %d bytes, expected 5", size)}
		}
		if f.Uint32() == f.Stream {
			return &StreamError{f.Stream, CodeProtocol, "PRIORITY of a stream that depends on itself"}
		}
	case TypeRSTStream:
		if size != 4 {
			return connError(CodeFrameSize, "RST_STREAM of %d bytes, expected 4", size)
		}
	case TypeSettings:
		return f.checkSettings()
	case TypePing:
		if size != 8 {
			return connError(CodeFrameSize, "PING of %d bytes, expected 8", size)
		}
	case TypeGoAway:
		if size < 8 {
			return connError(CodeFrameSize, "GOAWAY of %d bytes, expected at least 8", size)
		}
	case TypeWindowUpdate:
		switch {
		case size != 4:
			return connError(CodeFrameSize, "WINDOW_UPDATE of %d bytes, expected 4", size)
		case f.Uint32() == 0 && f.Stream == 0:
			return connError(CodeProtocol, "WINDOW_UPDATE of 0 bytes")
		case f.Uint32() == 0:
			return &StreamError{f.Stream, CodeProtocol, "WINDOW_UPDATE of 0 bytes"}
		}
	}
	return nil
}

// unpad removes the padding.
func (f *Frame) unpad() error {
	if !f.Has(FlagPadded) {
		return nil
	}
	p := f.Payload
	if len(p) == 0 {
		return connError(CodeFrameSize, "padded %v of 0 bytes", f.Type)
	}
	if int(p[0]) >= len(p) {
		return connError(CodeProtocol, "%v of %d bytes with padding of %d", f.Type, len(p), p[0])
	}
	f.Payload = p[1 : len(p)-int(p[0])]
	return nil
}

// cutPriority removes the priority of HEADERS, which nobody heeds any more (RFC
// 9113, section 5.3.2).
func (f *Frame) cutPriority() error {
	if !f.Has(FlagPriority) {
		return nil
	}
	switch {
	case len(f.Payload) < 5 && f.Has(FlagPadded) && f.Size >= 6:
		return connError(CodeProtocol, "HEADERS of %d bytes with padding over the priority", f.Size)
	case len(f.Payload) < 5:
		return connError(CodeFrameSize, "HEADERS of %d bytes, expected 5 of priority", f.Size)
	case f.Uint32() == f.Stream:
		return connError(CodeProtocol, "HEADERS of a stream that depends on itself")
	}
	f.Payload = f.Payload[5:]
	return nil
}

// checkSettings enforces the rules about the values. See RFC 9113, section 6.5.2.
func (f *Frame) checkSettings() error {
	switch size := len(f.Payload); {
	case f.Has(FlagAck) && size != 0:
		return connError(CodeFrameSize, "acknowledgement of SETTINGS of %d bytes, expected 0", size)
	case size%6 != 0:
		return connError(CodeFrameSize, "SETTINGS of %d bytes, expected a multiple of 6", size)
	case size > 6*maxSettings:
		return connError(CodeEnhanceYourCalm, "SETTINGS with %d entries, expected at most %d", size/6, maxSettings)
	}
	return f.Settings(func(s Setting, value uint32) error {
		switch {
		case s == SettingEnablePush && value > 1:
			return connError(CodeProtocol, "SETTINGS_ENABLE_PUSH of %d, expected 0 or 1", value)
		case s == SettingInitialWindowSize && value > MaxWindow:
			return connError(CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE of %d, expected at most %d", value, MaxWindow)
		case s == SettingMaxFrameSize && (value < MinMaxFrameSize || value > 1<<24-1):
			return connError(CodeProtocol, "SETTINGS_MAX_FRAME_SIZE of %d, expected %d to %d", value, MinMaxFrameSize, 1<<24-1)
		}
		return nil
	})
}
