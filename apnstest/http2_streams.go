package apnstest

import (
	"maps"
	"slices"
	"time"

	"example.com/apns/internal/h2"
)

// A stream is a request that is not completely answered.
type stream struct {
	id       uint32
	fields   []headerField
	length   int64 // content-length; negative if the header has none
	received int64 // bytes of the body
	body     []byte
	tooLarge bool // body is too large, and incomplete
	ended    bool // the request is complete
	taken    bool // the message was accepted or refused, whatever the client hears of it

	in     inflow
	window int         // bytes of DATA that the client takes
	answer []byte      // what is left to send of the answer's body
	timer  *time.Timer // of a late answer
	now    func()      // gives the late answer at once
}

type headerField struct{ name, value string }

// idleLocked reports whether a stream was never begun. Streams with even numbers are the
// server's to open, and it opens none.
func (h *http2Conn) idleLocked(id uint32) bool { return id%2 == 0 || id > h.highest }

// ignoredLocked reports whether a stream is after the last one of a GOAWAY.
func (h *http2Conn) ignoredLocked(id uint32) bool { return h.going && id > h.after }

// inOrderLocked returns the streams by their number.
func (h *http2Conn) inOrderLocked() []*stream {
	var list []*stream
	for _, id := range slices.Sorted(maps.Keys(h.streams)) {
		list = append(list, h.streams[id])
	}
	return list
}

// closedStreams remembers how the last streams were closed.
type closedStreams struct {
	ring []closedStream
	next int // where the next one goes
}

type closedStream struct {
	id   uint32
	kind closedKind
}

// A closedKind says how a stream was closed. The answer to a frame that comes after
// that depends on it.
type closedKind int

const (
	closedUnknown  closedKind = iota // its number was skipped, or too many were closed since
	closedByClient                   // the client has sent END_STREAM or RST_STREAM
	closedByReset                    // the server has sent RST_STREAM; the client may not know
)

// closedMemory is how many closed streams are remembered. A client that has just
// been told of a reset sends no more frames of that stream.
const closedMemory = 256

func (c *closedStreams) add(id uint32, kind closedKind) {
	if len(c.ring) < closedMemory {
		c.ring = append(c.ring, closedStream{id, kind})
		return
	}
	c.ring[c.next] = closedStream{id, kind}
	c.next = (c.next + 1) % closedMemory
}

func (c *closedStreams) kind(id uint32) closedKind {
	kind := closedUnknown
	for _, s := range c.ring {
		if s.id == id {
			kind = max(kind, s.kind) // it may be there twice
		}
	}
	return kind
}

// forgetLocked lets go of a stream that has come to its end.
func (h *http2Conn) forgetLocked(st *stream) { h.closeLocked(st, closedByClient) }

// resetLocked ends a stream with a RST_STREAM.
func (h *http2Conn) resetLocked(st *stream, code h2.Code) {
	h.writeLocked(h2.AppendRSTStream(h.bufferLocked(), st.id, code))
	h.closeLocked(st, closedByReset)
}

func (h *http2Conn) closeLocked(st *stream, kind closedKind) {
	if st.timer != nil && st.timer.Stop() {
		h.late.Done()
	}
	if len(st.answer) > 0 {
		h.blocked = slices.DeleteFunc(h.blocked, func(s *stream) bool { return s == st })
	}
	delete(h.streams, st.id)
	h.closed.add(st.id, kind)
}

// resetClosedLocked answers a frame that a client must not send on a closed stream. It
// does nothing if the server has closed the stream by a RST_STREAM or a GOAWAY, since
// the client may not have known that.
func (h *http2Conn) resetClosedLocked(id uint32, code h2.Code) {
	if h.ignoredLocked(id) || h.closed.kind(id) == closedByReset {
		return
	}
	h.writeLocked(h2.AppendRSTStream(h.bufferLocked(), id, code))
	h.closed.add(id, closedByReset)
}

// streamError answers a frame that is wrong in itself.
func (h *http2Conn) streamError(e *h2.StreamError) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch st := h.streams[e.Stream]; {
	case st != nil:
		h.resetLocked(st, e.Code)
	case h.idleLocked(e.Stream):
		return &h2.ConnError{Code: e.Code, Text: e.Text} // an idle stream cannot be reset
	default:
		h.resetClosedLocked(e.Stream, e.Code)
	}
	return nil
}

// lastTakenLocked returns the last stream that a GOAWAY has to own up to: every one
// after it that has no answer was not processed.
func (h *http2Conn) lastTakenLocked() uint32 {
	last := uint32(0)
	first := h.last + 2
	for id, st := range h.streams {
		if st.taken {
			last = max(last, id)
		} else {
			first = min(first, id)
		}
	}
	return max(last, max(first, 2)-2)
}

// goAwayLocked tells the client that no stream after last will be processed.
func (h *http2Conn) goAwayLocked(last uint32, code h2.Code, debug []byte) {
	h.writeLocked(h2.AppendGoAway(h.bufferLocked(), last, code, debug))
	h.going, h.after = true, last
	h.w.Flush()
}

// giveLateAnswersLocked answers at once what was to be answered later.
func (h *http2Conn) giveLateAnswersLocked() {
	for _, st := range h.inOrderLocked() {
		if now := st.now; now != nil {
			st.now = nil
			now()
		}
	}
}

// drained reports whether a GOAWAY was sent and all is answered.
func (h *http2Conn) drained() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.going || len(h.streams) > 0 {
		return false
	}
	h.w.Flush()
	return true
}

// stopTimers waits for the answers that are on their way, and cancels the rest.
func (h *http2Conn) stopTimers() {
	h.mu.Lock()
	for _, st := range h.streams {
		h.forgetLocked(st)
	}
	h.mu.Unlock()
	h.late.Wait()
}
