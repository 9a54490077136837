package apnstest

import "example.com/apns/internal/h2"

// Flow control in both directions: RFC 9113, sections 5.2 and 6.9.

// An inflow counts the bytes of DATA that a client sends, on a stream or on the
// connection, against the client's window.
type inflow struct {
	used int // bytes received since the last WINDOW_UPDATE
}

// take counts n bytes that were received. It returns false if they exceed the window.
func (in *inflow) take(n, window int) bool {
	in.used += n
	return in.used <= window
}

// increment returns the increment of a WINDOW_UPDATE that must be sent now, in bytes, or 0
// if none is due. None is due until the window is almost used up. If the window grew with
// each frame, a client that ignores its window would not be noticed.
func (in *inflow) increment(window int) int {
	const almost = 1024 // bytes; some clients wait rather than send a very small frame
	if window-in.used > min(window/2, almost) {
		return 0
	}
	n := in.used
	in.used = 0
	return n
}

// An outflow has the client's limits for what the server sends.
type outflow struct {
	window   int // bytes of DATA on the connection
	initial  int // bytes of DATA on a new stream
	maxFrame int // bytes of a frame's payload
}

func newOutflow() outflow {
	return outflow{window: h2.DefaultWindow, initial: h2.DefaultWindow, maxFrame: h2.MinMaxFrameSize}
}

// updateWindowLocked sends a WINDOW_UPDATE for the connection if one is due.
func (h *http2Conn) updateWindowLocked() {
	if n := h.in.increment(h.settings.ConnectionWindow); n > 0 {
		h.writeLocked(h2.AppendWindowUpdate(h.bufferLocked(), 0, uint32(n)))
	}
}

// updateStreamWindowLocked sends a WINDOW_UPDATE for a stream if one is due and the
// request is not complete.
func (h *http2Conn) updateStreamWindowLocked(st *stream) {
	if st.ended {
		return
	}
	if n := st.in.increment(h.announced.last.window); n > 0 {
		h.writeLocked(h2.AppendWindowUpdate(h.bufferLocked(), st.id, uint32(n)))
	}
}

// windowUpdateLocked handles a WINDOW_UPDATE.
func (h *http2Conn) windowUpdateLocked(f *h2.Frame) error {
	n := int(f.Uint32())
	st := h.streams[f.Stream]
	switch {
	case f.Stream == 0:
		if h.out.window += n; h.out.window > h2.MaxWindow {
			return connError(h2.CodeFlowControl, "window of %d bytes, expected at most %d", h.out.window, h2.MaxWindow)
		}
	case st != nil:
		if st.window += n; st.window > h2.MaxWindow {
			h.resetLocked(st, h2.CodeFlowControl)
		}
	case h.idleLocked(f.Stream):
		return connError(h2.CodeProtocol, "WINDOW_UPDATE of stream %d, which is idle", f.Stream)
	}
	h.unblockLocked()
	return nil
}

// setInitialWindowLocked handles the client's SETTINGS_INITIAL_WINDOW_SIZE, which changes
// the windows of all streams.
func (h *http2Conn) setInitialWindowLocked(n int) error {
	for _, st := range h.streams {
		if st.window += n - h.out.initial; st.window > h2.MaxWindow {
			return connError(h2.CodeFlowControl, "window of %d bytes on stream %d, expected at most %d", st.window, st.id, h2.MaxWindow)
		}
	}
	h.out.initial = n
	return nil
}

// sendBodyLocked sends as much of a response's body as the windows allow. If some of it
// remains, the stream is blocked.
func (h *http2Conn) sendBodyLocked(st *stream) {
	for {
		n := min(len(st.unsent), h.out.window, st.window, h.out.maxFrame)
		if n <= 0 {
			h.blocked = append(h.blocked, st)
			return
		}
		part := st.unsent[:n]
		st.unsent = st.unsent[n:]
		st.window -= n
		h.out.window -= n
		if len(st.unsent) == 0 {
			h.writeLocked(h2.AppendFrame(h.bufferLocked(), h2.TypeData, h2.FlagEndStream, st.id, part))
			h.removeLocked(st)
			return
		}
		h.writeLocked(h2.AppendFrame(h.bufferLocked(), h2.TypeData, 0, st.id, part))
	}
}

// unblockLocked sends what the blocked streams can send after a window has grown.
func (h *http2Conn) unblockLocked() {
	blocked := h.blocked
	h.blocked = nil
	for _, st := range blocked {
		h.sendBodyLocked(st)
	}
}
