package apnstest

import (
	"encoding/binary"
	"errors"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// maxBody is how many bytes of a request's body are stored. It is more than the largest
// payload that is accepted.
const maxBody = 64 << 10

// headers handles HEADERS: the header of a request, or its trailers.
func (h *http2Conn) headers(f *h2.Frame) error {
	h.mu.Lock()
	complete, err := h.handleHeadersLocked(f)
	h.mu.Unlock()
	if complete != nil {
		h.process(complete)
	}
	return err
}

// handleHeadersLocked returns the stream if its request is complete.
func (h *http2Conn) handleHeadersLocked(f *h2.Frame) (complete *stream, err error) {
	st := h.streams[f.Stream]
	section := h2.RequestHeader
	if st != nil {
		section = h2.Trailer
	}
	// Every block must be decoded, even if its stream is ignored, since later blocks
	// depend on the header table.
	b, err := h.decode(f.Payload, section)
	if err != nil {
		return nil, err
	}
	switch {
	case st == nil:
		if opens, err := h.checkStreamIDLocked(f.Stream); !opens || err != nil {
			return nil, err
		}
		st = h.openLocked(f.Stream)
		st.fields, st.length = b.fields, b.ContentLength()
	case st.ended:
		return nil, connError(h2.CodeStreamClosed, "HEADERS after the end of stream %d", st.id)
	case !f.Has(h2.FlagEndStream):
		h.resetLocked(st, h2.CodeProtocol)
		return nil, nil
	}
	switch {
	case b.tooLarge:
		h.rejectHeaderLocked(st, f.Has(h2.FlagEndStream))
	case b.Malformed() != "":
		h.resetLocked(st, h2.CodeProtocol)
	case f.Has(h2.FlagEndStream):
		return h.endLocked(st), nil
	}
	return nil, nil
}

// A headerBlock is a decoded and checked header block.
type headerBlock struct {
	h2.Validator
	fields   []headerField
	tooLarge bool // the fields exceed MaxHeaderListSize, and not all are in fields
}

func (h *http2Conn) decode(encoded []byte, section h2.Section) (*headerBlock, error) {
	if err := h.checkTableSize(encoded); err != nil {
		return nil, err
	}
	b := new(headerBlock)
	b.Reset(section)
	err := h.decoder.Decode(encoded, func(name, value []byte) {
		b.Add(name, value)
		b.fields = append(b.fields, headerField{string(name), string(value)})
	})
	if b.tooLarge = errors.Is(err, hpack.ErrListSize); err != nil && !b.tooLarge {
		return nil, connError(h2.CodeCompression, "%v", err)
	}
	return b, nil
}

// checkTableSize checks the table size updates at the start of a block. A client that has
// acknowledged a smaller header table than it uses must begin its next block with an
// update (RFC 9113, section 4.3.1). The decoder cannot check that, since it does not know
// of acknowledgements.
func (h *http2Conn) checkTableSize(block []byte) error {
	const sizeUpdate, prefix = 0x20, 0x1f
	for len(block) > 0 && block[0]&^prefix == sizeUpdate {
		n := int(block[0] & prefix)
		block = block[1:]
		if n == prefix {
			more, size := binary.Uvarint(block)
			if size <= 0 {
				return nil // the decoder will return the error
			}
			n, block = n+int(more), block[size:]
		}
		h.tableSize = n
	}
	if limit := h.settings.HeaderTableSize; h.tableAcked && h.tableSize > limit {
		return connError(h2.CodeCompression, "dynamic table of %d bytes, expected an update to at most %d", h.tableSize, limit)
	}
	return nil
}

// checkStreamIDLocked reports whether HEADERS of a stream that is not open begin a new
// stream. If not, the HEADERS must be ignored.
func (h *http2Conn) checkStreamIDLocked(id uint32) (opens bool, err error) {
	if id%2 == 0 {
		return false, connError(h2.CodeProtocol, "HEADERS of stream %d, which is not a client's", id)
	}
	if id <= h.highestID {
		switch kind := h.closed.kind(id); {
		case kind == closedByReset, h.ignoredLocked(id):
			return false, nil
		case kind == closedByClient:
			return false, connError(h2.CodeStreamClosed, "HEADERS of stream %d, which is closed", id)
		}
		return false, connError(h2.CodeProtocol, "HEADERS of stream %d after stream %d", id, h.highestID)
	}
	h.highestID = id
	switch {
	case h.ignoredLocked(id):
		return false, nil // the client knows it from the GOAWAY
	case len(h.streams) >= h.announced.allowed.limit:
		return false, connError(h2.CodeEnhanceYourCalm, "Maximum active streams violated") // as Apple's server says it
	}
	return true, nil
}

// openLocked opens a stream.
func (h *http2Conn) openLocked(id uint32) *stream {
	st := &stream{id: id, window: h.out.initial}
	h.streams[id] = st
	h.conn.inFlight.Add(1)
	h.lastOpened = id
	return st
}

// data handles DATA: a part of a request's body.
func (h *http2Conn) data(f *h2.Frame) error {
	h.mu.Lock()
	complete, err := h.handleDataLocked(f)
	h.mu.Unlock()
	if complete != nil {
		h.process(complete)
	}
	return err
}

// handleDataLocked returns the stream if its request is complete.
func (h *http2Conn) handleDataLocked(f *h2.Frame) (complete *stream, err error) {
	st := h.streams[f.Stream]
	switch {
	case h.idleLocked(f.Stream):
		return nil, connError(h2.CodeProtocol, "DATA of stream %d, which is idle", f.Stream)
	case st != nil && st.ended:
		return nil, connError(h2.CodeStreamClosed, "DATA after the end of stream %d", st.id)
	case !h.in.take(f.Size, h.settings.ConnectionWindow):
		return nil, connError(h2.CodeFlowControl, "DATA of %d bytes, which is more than the connection's window", f.Size)
	}
	h.updateWindowLocked()
	if st == nil {
		h.resetClosedLocked(f.Stream, h2.CodeStreamClosed)
		return nil, nil
	}
	st.appendBody(f.Payload)
	switch {
	case !st.in.take(f.Size, h.announced.allowed.window):
		h.resetLocked(st, h2.CodeFlowControl)
	case st.length >= 0 && st.received > st.length:
		h.resetLocked(st, h2.CodeProtocol)
	case f.Has(h2.FlagEndStream):
		return h.endLocked(st), nil
	default:
		h.updateStreamWindowLocked(st)
	}
	return nil, nil
}

// appendBody adds p to the body, unless that is too large.
func (st *stream) appendBody(p []byte) {
	st.received += int64(len(p))
	if st.tooLarge = st.tooLarge || len(st.body)+len(p) > maxBody; !st.tooLarge {
		st.body = append(st.body, p...)
	}
}

// endLocked completes a request. It returns the stream, or nil if the size of the body is
// not the content-length.
func (h *http2Conn) endLocked(st *stream) *stream {
	st.ended = true
	if st.length >= 0 && st.received != st.length {
		h.resetLocked(st, h2.CodeProtocol)
		return nil
	}
	return st
}

// rejectHeaderLocked responds with status 431 to a request whose header is too large.
func (h *http2Conn) rejectHeaderLocked(st *stream, ended bool) {
	h.writeLocked(h2.AppendHeaders(h.bufferLocked(), h2.FlagEndStream, st.id, h.appendStatusLocked(431), h.out.maxFrame))
	if ended {
		h.removeLocked(st)
	} else {
		h.resetLocked(st, h2.CodeNo) // the rest of the request is not needed (section 8.1)
	}
}
