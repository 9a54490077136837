package apnstest

import "example.com/apns/internal/h2"

// Flow control in both directions: RFC 9113, sections 5.2 and 6.9.

// An inflow counts the DATA that a client sends, of a stream or of the connection,
// against the window that the client was given.
type inflow struct {
	used int // bytes that came since the window was given back
}

// take counts n bytes that came. It returns false if they exceed the window.
func (in *inflow) take(n, window int) bool {
	in.used += n
	return in.used <= window
}

// giveBack returns how many bytes the client's window has to grow by. It is 0 until
// the window is almost used up. If the window grew at once, no client could be
// found to exceed it.
func (in *inflow) giveBack(window int) int {
	const rest = 1024 // bytes; some clients do not send very small frames
	if window-in.used > min(window/2, rest) {
		return 0
	}
	n := in.used
	in.used = 0
	return n
}

// An outflow has what the client takes.
type outflow struct {
	window   int // bytes of DATA on the connection
	initial  int // bytes of DATA on a new stream
	maxFrame int // bytes of payload
}

func newOutflow() outflow {
	return outflow{window: h2.DefaultWindow, initial: h2.DefaultWindow, maxFrame: h2.MinMaxFrameSize}
}

// returnWindowLocked lets the window of the connection grow if that is due.
func (h *http2Conn) returnWindowLocked() {
	if n := h.in.giveBack(h.settings.ConnectionWindow); n > 0 {
		h.writeLocked(h2.AppendWindowUpdate(h.bufferLocked(), 0, uint32(n)))
	}
}

// returnStreamWindowLocked does the same for a stream whose request is not complete.
func (h *http2Conn) returnStreamWindowLocked(st *stream) {
	if st.ended {
		return
	}
	if n := st.in.giveBack(h.announced.last.window); n > 0 {
		h.writeLocked(h2.AppendWindowUpdate(h.bufferLocked(), st.id, uint32(n)))
	}
}

// windowUpdateLocked takes a WINDOW_UPDATE.
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

// setInitialWindowLocked takes the client's SETTINGS_INITIAL_WINDOW_SIZE, which changes
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

// sendBodyLocked sends as much of an answer's body as the windows allow. If some is
// left, the stream is blocked.
func (h *http2Conn) sendBodyLocked(st *stream) {
	for {
		n := min(len(st.answer), h.out.window, st.window, h.out.maxFrame)
		if n <= 0 {
			h.blocked = append(h.blocked, st)
			return
		}
		part := st.answer[:n]
		st.answer = st.answer[n:]
		st.window -= n
		h.out.window -= n
		if len(st.answer) == 0 {
			h.writeLocked(h2.AppendFrame(h.bufferLocked(), h2.TypeData, h2.FlagEndStream, st.id, part))
			h.forgetLocked(st)
			return
		}
		h.writeLocked(h2.AppendFrame(h.bufferLocked(), h2.TypeData, 0, st.id, part))
	}
}

// unblockLocked sends what waits for a window, after one has grown.
func (h *http2Conn) unblockLocked() {
	waiting := h.blocked
	h.blocked = nil
	for _, st := range waiting {
		h.sendBodyLocked(st)
	}
}
