package apnstest

import (
	"maps"
	"slices"
	"time"

	"example.com/apns/internal/h2"
)

// A stream is a request whose response is not complete.
type stream struct {
	id       uint32
	fields   []headerField
	length   int64 // content-length; negative if the header has none
	received int64 // bytes of the body
	body     []byte
	tooLarge bool // the body exceeds maxBody, and is not all in body
	ended    bool // the request is complete

	processed bool // the message was accepted or rejected, even if the client gets no response

	in      inflow
	success success     // the response if the request is accepted
	window  int         // bytes of DATA that the server may send
	unsent  []byte      // the part of the response's body that was not sent
	timer   *time.Timer // of a delayed action
	delayed func()      // the action; nil when it has begun
}

type headerField struct{ name, value string }

// idleLocked reports whether a stream is idle: the client has not begun it. All streams
// with an even number are idle, since only a server may open them and this one does not.
func (h *http2Conn) idleLocked(id uint32) bool { return id%2 == 0 || id > h.highestID }

// ignoredLocked reports whether a GOAWAY was sent whose last stream is before this one.
func (h *http2Conn) ignoredLocked(id uint32) bool { return h.goAwaySent && id > h.goAwayLast }

// sortedStreamsLocked returns the streams in the order of their numbers.
func (h *http2Conn) sortedStreamsLocked() []*stream {
	var list []*stream
	for _, id := range slices.Sorted(maps.Keys(h.streams)) {
		list = append(list, h.streams[id])
	}
	return list
}

// closedStreams records how the latest streams were closed.
type closedStreams struct {
	ring []closedStream
	next int // in a full ring, the index of the oldest, which the next one replaces
}

type closedStream struct {
	id   uint32
	kind closedKind
}

// A closedKind says how a stream was closed. It determines the error for a later frame of
// the stream.
type closedKind int

const (
	closedUnknown  closedKind = iota // its number was skipped, or more than closedMemory were closed since
	closedByClient                   // the client has sent END_STREAM or RST_STREAM
	closedByReset                    // the server has sent RST_STREAM; the client may not know
)

// closedMemory is how many closed streams are recorded. Older ones do not matter: a client
// that has seen a reset sends no more frames of that stream.
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
			kind = max(kind, s.kind) // a stream can be recorded twice
		}
	}
	return kind
}

// removeLocked removes a stream that has ended.
func (h *http2Conn) removeLocked(st *stream) { h.closeLocked(st, closedByClient) }

// resetLocked resets a stream with RST_STREAM.
func (h *http2Conn) resetLocked(st *stream, code h2.Code) {
	h.writeLocked(h2.AppendRSTStream(h.bufferLocked(), st.id, code))
	h.closeLocked(st, closedByReset)
}

func (h *http2Conn) closeLocked(st *stream, kind closedKind) {
	if st.timer != nil && st.timer.Stop() {
		h.timers.Done()
	}
	if len(st.unsent) > 0 {
		h.blocked = slices.DeleteFunc(h.blocked, func(s *stream) bool { return s == st })
	}
	delete(h.streams, st.id)
	h.conn.inFlight.Add(-1)
	h.closed.add(st.id, kind)
}

// resetClosedLocked sends RST_STREAM for a frame that a client must not send on a closed
// stream. It does nothing if the server has closed the stream by RST_STREAM or GOAWAY,
// since the client may not have known that when it sent the frame.
func (h *http2Conn) resetClosedLocked(id uint32, code h2.Code) {
	if h.ignoredLocked(id) || h.closed.kind(id) == closedByReset {
		return
	}
	h.writeLocked(h2.AppendRSTStream(h.bufferLocked(), id, code))
	h.closed.add(id, closedByReset)
}

// streamError handles a frame that is invalid in itself.
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

// lastProcessedLocked returns the last stream for a GOAWAY that ends the connection now.
// Every stream after it that has no response was not processed.
func (h *http2Conn) lastProcessedLocked() uint32 {
	last := uint32(0)
	first := h.lastOpened + 2
	for id, st := range h.streams {
		if st.processed {
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
	h.goAwaySent, h.goAwayLast = true, last
	h.conn.goAway.Store(true)
	h.w.Flush()
}

// drained reports whether a GOAWAY was sent and all responses are complete.
func (h *http2Conn) drained() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.goAwaySent || len(h.streams) > 0 {
		return false
	}
	h.w.Flush()
	return true
}

// cancelDelayed cancels the delayed actions, and waits for those that have begun.
func (h *http2Conn) cancelDelayed() {
	h.mu.Lock()
	for _, st := range h.streams {
		h.removeLocked(st)
	}
	h.late = nil
	if h.lateTimer != nil && h.lateTimer.Stop() {
		h.timers.Done()
	}
	h.mu.Unlock()
	h.timers.Wait()
}
