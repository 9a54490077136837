package apnstest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/apns"
)

// The frames of HTTP/2 that the server knows. See RFC 9113, section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingMaxStreams    = 0x3
	settingInitialWindow = 0x4

	codeNo            = 0x0
	codeProtocol      = 0x1
	codeFlowControl   = 0x3
	codeStreamClosed  = 0x5
	codeFrameSize     = 0x6
	codeRefusedStream = 0x7
	codeCancel        = 0x8
	codeCompression   = 0x9
	codeCalm          = 0xb

	maxFrameSize  = 16 << 10
	maxBody       = 64 << 10
	maxWindow     = 1<<31 - 1
	streamWindow  = 1 << 20
	defaultWindow = 65535
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// An http2Conn is the server's end of an HTTP/2 connection. One goroutine reads
// and decides; answers that are late come from others.
type http2Conn struct {
	server *Server
	conn   *conn
	r      *bufio.Reader
	hpack  *hpackDecoder
	auth   authState // of the goroutine that reads
	late   sync.WaitGroup

	mu       durableMutex // protects following
	w        *bufio.Writer
	streams  map[uint32]*stream // those not answered
	last     uint32             // the last stream that was opened
	after    uint32             // streams after this one are ignored; see goingAway
	going    bool               // a GOAWAY was sent
	limits   []int              // that were sent and not acknowledged
	limit    int                // acknowledged; negative: none
	grace    bool               // no stream was opened since limit was lowered
	received int                // bytes of DATA that the client's window has to be given back
	window   int                // bytes of DATA that the client takes on the connection
	initial  int                // and on a new stream
	blocked  []func() bool      // answers that wait for a window; each reports whether it was sent
}

// A durableMutex is a mutex that is held while something is written, which may
// take long. In a bubble of testing/synctest the time goes on while somebody waits
// for it.
type durableMutex chan struct{}

func (m durableMutex) Lock()   { m <- struct{}{} }
func (m durableMutex) Unlock() { <-m }

// A stream is a request that has no answer yet.
type stream struct {
	id       uint32
	fields   []headerField
	body     []byte
	tooLarge bool
	ended    bool // the request is whole
	taken    bool // the message was accepted or refused, whatever the client hears of it
	window   int
	timer    *time.Timer // of a late answer
	now      func()      // gives the late answer at once
}

// A connectionError ends the connection with a GOAWAY.
type connectionError struct {
	code uint32
	text string
}

func (e connectionError) Error() string { return e.text }

// serveHTTP2 serves the HTTP/2 provider API on a connection.
func (s *Server) serveHTTP2(c *conn) {
	if c.tls.ConnectionState().NegotiatedProtocol != "h2" {
		return // "HTTP/2 only"
	}
	h := &http2Conn{
		server:  s,
		conn:    c,
		mu:      make(durableMutex, 1),
		r:       bufio.NewReaderSize(c.tls, 64<<10),
		hpack:   newHPACKDecoder(4096),
		w:       bufio.NewWriterSize(c.tls, 16<<10),
		streams: make(map[uint32]*stream),
		limit:   -1,
		window:  defaultWindow,
		initial: defaultWindow,
	}
	h.auth = newAuthState(s, c.tls.ConnectionState())
	defer h.stopTimers()
	s.setHTTP2(h, true)
	defer s.setHTTP2(h, false)
	h.mu.Lock()
	h.sendSettings(s.limitFor(&h.auth), true)
	h.frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30))
	h.w.Flush()
	h.mu.Unlock()
	if err := s.onConnect(c, apns.ProviderPort); judge(err, 0).ends {
		h.turnAway(err)
		return
	}
	err := h.read()
	var ce connectionError
	if errors.As(err, &ce) {
		h.mu.Lock()
		h.goAway(h.lastTaken(), ce.code, []byte(ce.text))
		h.mu.Unlock()
		s.finish(c, Fault{}, nil, func() { io.Copy(io.Discard, h.r) })
		return
	}
	c.tls.Close()
}

// turnAway ends a connection that OnConnect does not like.
func (h *http2Conn) turnAway(err error) {
	v := judge(err, 0)
	var words []byte
	reason := v.fault.Reason
	if v.said != nil {
		reason = toReason(v.said)
	}
	if v.said != nil || v.fault.End == EndGoAway || v.fault.End == EndGoAwayNow {
		words = appendFrame(nil, frameGoAway, 0, 0, appendGoAway(nil, 0, codeNo, reasonJSON(reason, time.Time{})))
	}
	h.server.finish(h.conn, v.fault, words, func() { io.Copy(io.Discard, h.r) })
}

// read reads frames to the end of the connection.
func (h *http2Conn) read() error {
	b := make([]byte, len(preface))
	if err := h.fill(b); err != nil {
		return err
	}
	if string(b) != preface {
		return connectionError{codeProtocol, "no HTTP/2 preface"}
	}
	head := make([]byte, 9)
	for {
		if err := h.fill(head); err != nil {
			return err
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if size > maxFrameSize {
			return connectionError{codeFrameSize, "frame too large"}
		}
		payload := make([]byte, size)
		if err := h.fill(payload); err != nil {
			return err
		}
		id := binary.BigEndian.Uint32(head[5:]) &^ (1 << 31)
		if err := h.handle(head[3], head[4], id, payload); err != nil {
			return err
		}
		if h.drained() {
			h.server.finish(h.conn, Fault{}, nil, func() { io.Copy(io.Discard, h.r) })
			return nil
		}
	}
}

// fill reads what fills b. Before it waits, what is to be sent leaves.
func (h *http2Conn) fill(b []byte) error {
	if h.r.Buffered() < len(b) {
		h.mu.Lock()
		h.w.Flush()
		h.mu.Unlock()
	}
	_, err := io.ReadFull(h.r, b)
	return err
}

func (h *http2Conn) handle(kind, flags byte, id uint32, p []byte) error {
	switch kind {
	case frameHeaders:
		return h.headers(flags, id, p)
	case frameData:
		return h.data(flags, id, p)
	case frameContinuation:
		return connectionError{codeProtocol, "CONTINUATION without HEADERS"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case kind == frameSettings && len(p)%6 != 0, kind == framePing && len(p) != 8,
		(kind == frameWindowUpdate || kind == frameReset) && len(p) != 4:
		return connectionError{codeFrameSize, "frame of a wrong size"}
	case (kind == frameSettings || kind == framePing) && id != 0, kind == frameReset && h.idle(id):
		return connectionError{codeProtocol, "frame of a wrong stream"}
	}
	switch kind {
	case frameSettings:
		if flags&flagAck != 0 {
			if len(h.limits) > 0 {
				h.grace = h.limit < 0 || h.limits[0] < h.limit
				h.limit, h.limits = h.limits[0], h.limits[1:]
			}
			return nil
		}
		for ; len(p) >= 6; p = p[6:] {
			if binary.BigEndian.Uint16(p) == settingInitialWindow {
				n := int(binary.BigEndian.Uint32(p[2:]))
				if n > maxWindow {
					return connectionError{codeFlowControl, "window too large"}
				}
				for _, st := range h.streams {
					st.window += n - h.initial
				}
				h.initial = n
			}
		}
		h.frame(frameSettings, flagAck, 0, nil)
		h.unblock()
	case framePing:
		if flags&flagAck == 0 {
			h.frame(framePing, flagAck, 0, p)
		}
	case frameWindowUpdate:
		n := int(binary.BigEndian.Uint32(p) &^ (1 << 31))
		window := &h.window
		if st := h.streams[id]; st != nil {
			window = &st.window
		} else if id != 0 {
			return nil // answered
		}
		switch *window += n; {
		case n == 0:
			return connectionError{codeProtocol, "WINDOW_UPDATE of nothing"}
		case *window > maxWindow:
			return connectionError{codeFlowControl, "window too large"}
		}
		h.unblock()
	case frameReset:
		if st := h.streams[id]; st != nil {
			h.forget(st)
		}
	}
	return nil
}

// idle reports whether no stream of that number was ever opened; the caller
// holds h.mu.
func (h *http2Conn) idle(id uint32) bool {
	return id%2 == 0 || id > h.last && !h.going
}

// headers reads a request's header, to the end of its last CONTINUATION.
func (h *http2Conn) headers(flags byte, id uint32, p []byte) error {
	p, err := unpad(flags, p)
	if err != nil {
		return err
	}
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return connectionError{codeProtocol, "HEADERS without its priority"}
		}
		p = p[5:]
	}
	block := p
	for end := flags&flagEndHeaders != 0; !end; {
		head := make([]byte, 9)
		if err := h.fill(head); err != nil {
			return err
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if head[3] != frameContinuation || binary.BigEndian.Uint32(head[5:]) != id || len(block)+size > maxBody {
			return connectionError{codeProtocol, "HEADERS without its CONTINUATION"}
		}
		rest := make([]byte, size)
		if err := h.fill(rest); err != nil {
			return err
		}
		block = append(block, rest...)
		end = head[4]&flagEndHeaders != 0
	}
	fields, err := h.hpack.decode(block)
	if err != nil {
		return connectionError{codeCompression, err.Error()}
	}
	h.mu.Lock()
	if st := h.streams[id]; st != nil { // trailers
		h.mu.Unlock()
		switch {
		case st.ended:
			return connectionError{codeStreamClosed, "HEADERS after the end of the stream"}
		case flags&flagEndStream == 0:
			return connectionError{codeProtocol, "HEADERS amid the body"}
		}
		st.ended = true
		h.request(st)
		return nil
	}
	if id%2 == 0 || id <= h.last {
		h.mu.Unlock()
		return connectionError{codeProtocol, "HEADERS of a stream that cannot be opened"}
	}
	switch {
	case h.going && id > h.after:
		h.mu.Unlock()
		return nil // the GOAWAY has told the client
	case h.tooMany():
		h.mu.Unlock()
		return connectionError{codeCalm, "Maximum active streams violated"}
	}
	h.last, h.grace = id, false
	st := &stream{id: id, fields: fields, window: h.initial}
	h.streams[id] = st
	h.mu.Unlock()
	if flags&flagEndStream != 0 {
		st.ended = true
		h.request(st)
	}
	return nil
}

// tooMany reports whether the client may not open a stream more. A limit holds
// from its acknowledgement on, but a higher one may be used before. The first
// stream after a lower one is not counted: net/http decides to open it before it
// acknowledges, and sends it after. The caller holds h.mu.
func (h *http2Conn) tooMany() bool {
	return h.limit >= 0 && !h.grace && len(h.streams) >= max(h.limit, slices.Max(append(h.limits, 0)))
}

// data reads a part of a request's body.
func (h *http2Conn) data(flags byte, id uint32, p []byte) error {
	whole := len(p)
	p, err := unpad(flags, p)
	if err != nil {
		return err
	}
	h.mu.Lock()
	if h.received += whole; h.received > 1<<28 {
		h.frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(h.received)))
		h.received = 0
	}
	st, idle := h.streams[id], h.idle(id)
	if st != nil && st.tooLarge && whole > 0 { // of which the client's window runs out
		h.frame(frameWindowUpdate, 0, id, binary.BigEndian.AppendUint32(nil, uint32(whole)))
	}
	h.mu.Unlock()
	switch {
	case idle:
		return connectionError{codeProtocol, "DATA of a stream that is not open"}
	case st == nil:
		return nil // reset or ignored
	case st.ended:
		return connectionError{codeStreamClosed, "DATA after the end of the stream"}
	case len(st.body)+len(p) > maxBody:
		st.tooLarge = true
	default:
		st.body = append(st.body, p...)
	}
	if flags&flagEndStream != 0 {
		st.ended = true
		h.request(st)
	}
	return nil
}

func unpad(flags byte, p []byte) ([]byte, error) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, connectionError{codeProtocol, "padding longer than its frame"}
	}
	return p[1 : len(p)-int(p[0])], nil
}

// request decides about a whole request, and answers it.
func (h *http2Conn) request(st *stream) {
	s := h.server
	h.mu.Lock()
	open := h.streams[st.id] == st
	st.taken = true // for all that a GOAWAY knows of it meanwhile
	h.mu.Unlock()
	if !open {
		return // a GOAWAY has said that it was not looked at
	}
	m, err := h.auth.check(st)
	var decision error
	switch {
	case err != nil:
		decision = err
	case s.Handler != nil:
		decision = s.Handler(m)
	}
	v := judge(decision, m.ID)
	switch {
	case v.fault.End == EndRefuse || v.fault.End == EndGoAwayNow:
		v.fate = Discarded // so the client hears, whatever Err is
	case v.fate == Discarded && v.said != nil:
		v.fate = Refused // StatusShutdown with the ID of another: there are none here
	}
	s.record(Record{Message: m, Fate: v.fate, Err: decision, Conn: h.conn.number})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[st.id] != st {
		return // reset meanwhile
	}
	st.taken = v.fate != Discarded
	if limit, changed := h.auth.trust(v.fate == Accepted); changed {
		h.sendSettings(limit, false)
	}
	answer := func() { h.answer(st, v, m) }
	if v.fault.Delay > 0 {
		st.now = answer
		h.late.Add(1)
		st.timer = time.AfterFunc(v.fault.Delay, func() {
			defer h.late.Done()
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.streams[st.id] == st && st.now != nil {
				st.now = nil
				answer()
				h.w.Flush()
			}
			if h.going && len(h.streams) == 0 {
				h.conn.tls.CloseWrite()
				h.conn.raw.CloseWrite()
			}
		})
		return
	}
	answer()
}

// answer sends what the verdict says of the message; the caller holds h.mu.
func (h *http2Conn) answer(st *stream, v verdict, m *apns.Message) {
	f := v.fault
	switch f.End {
	case EndReset:
		h.reset(st, codeCancel)
		return
	case EndRefuse:
		h.reset(st, codeRefusedStream)
		return
	case EndStall:
		return // never answered
	case EndClose, EndBare:
		h.w.Flush() // the answers to others
		h.conn.raw.Close()
		return
	case EndGoAwayNow:
		h.giveLateAnswers()
		h.goAway(h.lastTaken(), codeCalm, reasonJSON(f.Reason, time.Time{}))
		h.w.Flush()
		h.conn.tls.CloseWrite()
		h.conn.raw.CloseWrite()
		for _, st := range h.streams {
			h.forget(st)
		}
		return
	case EndGoAway:
		h.goAway(h.last, codeNo, reasonJSON(f.Reason, time.Time{}))
	}
	if v.fate == Discarded && v.said == nil {
		return // never answered
	}
	var block, body []byte
	e := v.said
	if v.fate == Accepted && e != nil {
		// StatusShutdown: this one is the last.
		e = nil
		h.goAway(h.last, codeNo, reasonJSON(apns.ReasonShutdown, time.Time{}))
	}
	if e == nil {
		block = appendStatus(nil, 200)
	} else {
		reason, status := toReason(e), e.HTTPStatus
		if status == 0 {
			status = httpStatus(reason)
		}
		block = appendStatus(nil, status)
		body = reasonJSON(reason, e.DeadAt)
		if e.RetryAfter > 0 {
			seconds := (e.RetryAfter + time.Second - 1) / time.Second
			block = appendField(block, "retry-after", strconv.Itoa(int(seconds)))
		}
	}
	id := m.APNsID
	if id == "" {
		id = newUUID()
	}
	block = appendField(block, "apns-id", id)
	if e == nil {
		block = appendField(block, "apns-unique-id", newUUID())
	}
	if len(body) == 0 {
		h.frame(frameHeaders, flagEndHeaders|flagEndStream, st.id, block)
		h.forget(st)
		return
	}
	h.frame(frameHeaders, flagEndHeaders, st.id, block)
	send := func() bool {
		if h.streams[st.id] != st {
			return true
		}
		n := max(0, min(len(body), h.window, st.window))
		if n == len(body) {
			h.frame(frameData, flagEndStream, st.id, body)
			h.forget(st)
		} else if n > 0 {
			h.frame(frameData, 0, st.id, body[:n])
		}
		body = body[n:]
		h.window -= n
		st.window -= n
		return len(body) == 0
	}
	if !send() {
		h.blocked = append(h.blocked, send)
	}
}

func (h *http2Conn) unblock() {
	h.blocked = slices.DeleteFunc(h.blocked, func(send func() bool) bool { return send() })
}

// giveLateAnswers answers at once what was to be answered later.
func (h *http2Conn) giveLateAnswers() {
	for _, st := range h.streams {
		if now := st.now; now != nil {
			st.now = nil
			now()
		}
	}
}

// lastTaken returns the last stream that a GOAWAY has to own up to: every one
// after it that has no answer was not processed.
func (h *http2Conn) lastTaken() uint32 {
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

// forget lets go of a stream that has come to its end.
func (h *http2Conn) forget(st *stream) {
	if st.timer != nil && st.timer.Stop() {
		h.late.Done()
	}
	delete(h.streams, st.id)
}

func (h *http2Conn) reset(st *stream, code uint32) {
	h.frame(frameReset, 0, st.id, binary.BigEndian.AppendUint32(nil, code))
	h.forget(st)
}

// goAway tells the client that no streams after the given one will be looked at.
func (h *http2Conn) goAway(last, code uint32, debug []byte) {
	h.frame(frameGoAway, 0, 0, appendGoAway(nil, last, code, debug))
	h.going, h.after = true, last
	h.w.Flush()
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

// setLimit tells the client of the limit as it is now.
func (h *http2Conn) setLimit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.auth.cert || h.auth.trusted {
		h.sendSettings(h.server.limitFor(&h.auth), false)
		h.w.Flush()
	}
}

// sendSettings sends how many streams may be open.
func (h *http2Conn) sendSettings(limit int, first bool) {
	var p []byte
	p = binary.BigEndian.AppendUint16(p, settingMaxStreams)
	p = binary.BigEndian.AppendUint32(p, uint32(limit))
	if first {
		p = binary.BigEndian.AppendUint16(p, settingInitialWindow)
		p = binary.BigEndian.AppendUint32(p, streamWindow)
	}
	h.limits = append(h.limits, limit)
	h.frame(frameSettings, 0, 0, p)
}

// frame writes a frame; the caller holds h.mu. What goes wrong shows in reading.
func (h *http2Conn) frame(kind, flags byte, id uint32, p []byte) {
	h.w.Write(appendFrame(h.w.AvailableBuffer(), kind, flags, id, p))
}

func appendFrame(b []byte, kind, flags byte, id uint32, p []byte) []byte {
	b = append(b, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, p...)
}

func appendGoAway(b []byte, last, code uint32, debug []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, debug...)
}

// stopTimers waits for the answers that are on their way, and cancels the rest.
func (h *http2Conn) stopTimers() {
	h.mu.Lock()
	for _, st := range h.streams {
		h.forget(st)
	}
	h.mu.Unlock()
	h.late.Wait()
}

// reasonJSON returns the body of a rejection, or nothing for no reason.
func reasonJSON(reason apns.Reason, deadAt time.Time) []byte {
	if reason == "" {
		return nil
	}
	body := struct {
		Reason    apns.Reason `json:"reason"`
		Timestamp int64       `json:"timestamp,omitempty"`
	}{Reason: reason}
	if !deadAt.IsZero() {
		body.Timestamp = deadAt.UnixMilli()
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // a string and a number always encode
	}
	return b
}
