package apnstest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// process decides about a complete request, and responds to it.
func (h *http2Conn) process(st *stream) {
	h.mu.Lock()
	open := h.streams[st.id] == st
	st.processed = true // a GOAWAY that is sent during the call of the handler must include it
	h.mu.Unlock()
	if !open {
		return // a GOAWAY has excluded it
	}
	var a action
	if h.manages {
		a = h.decideCall(st)
	} else {
		a = h.decide(st)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[st.id] != st {
		return // it was reset in the meantime
	}
	st.processed = a.outcome != Discarded
	act := func() {
		if a.outcome == Accepted {
			h.auth.trusted = true
			h.announceLocked()
		}
		h.actLocked(st, a)
	}
	switch {
	case a.fault.Delay > 0:
		h.delayLocked(st, act, h.server.Latency+a.fault.Delay)
	case h.server.Latency > 0:
		h.delayInOrderLocked(st, act, h.server.Latency)
	default:
		act()
	}
}

// A success is the response to a request that is accepted.
type success struct {
	status int
	id     headerField // with the server's ID for the request; a rejection has it too
	fields []headerField
	body   []byte
}

// decide decides about a message, and records it.
func (h *http2Conn) decide(st *stream) action {
	s := h.server
	m, findings, err := h.auth.check(st)
	h.noteKey()
	if err == nil && s.Handler != nil {
		err = s.Handler(m)
	}
	a := actionFor(err, m.ID).overHTTP2()
	r := Record{Message: m, Outcome: a.outcome, Err: err, Findings: findings, Conn: h.conn.number, Port: apns.ProviderPort, Delay: s.Latency + a.fault.Delay}
	if s.KeepRaw {
		r.Header = st.rawHeader()
	}
	s.record(r)
	id := "apns-id"
	if st.isBroadcast() {
		id = "apns-request-id"
	}
	st.success = success{
		status: 200,
		id:     headerField{id, cmp.Or(m.APNsID, newUUID())},
		fields: []headerField{{"apns-unique-id", newUUID()}},
	}
	return a
}

// rawHeader returns the header of the request without credentials.
func (st *stream) rawHeader() []HeaderField {
	fields := make([]HeaderField, len(st.fields))
	for i, f := range st.fields {
		fields[i] = HeaderField{f.name, f.value}
		switch f.name {
		case "authorization", "proxy-authorization", "cookie":
			fields[i].Value = ""
		}
	}
	return fields
}

// delayLocked calls act after the delay, on a goroutine of its own.
func (h *http2Conn) delayLocked(st *stream, act func(), delay time.Duration) {
	st.delayed = act
	h.timers.Add(1)
	st.timer = time.AfterFunc(delay, func() {
		defer h.timers.Done()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.actNowLocked(st)
		h.flushDelayedLocked()
	})
}

// A lateAction is an action that is delayed by Server.Latency.
type lateAction struct {
	st  *stream
	due time.Time
}

// delayInOrderLocked calls act after the delay, which is the same for every call. So one
// timer serves all streams.
func (h *http2Conn) delayInOrderLocked(st *stream, act func(), delay time.Duration) {
	st.delayed = act
	h.late = append(h.late, lateAction{st, time.Now().Add(delay)})
	if len(h.late) == 1 {
		h.timers.Add(1)
		h.lateTimer = time.AfterFunc(delay, h.actLate)
	}
}

// actLate performs the late actions that are due, and waits for the next.
func (h *http2Conn) actLate() {
	defer h.timers.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for len(h.late) > 0 && !h.late[0].due.After(now) {
		st := h.late[0].st
		h.late[0] = lateAction{} // so that the stream can be collected
		h.late = h.late[1:]
		h.actNowLocked(st)
	}
	h.flushDelayedLocked()
	if len(h.late) > 0 {
		h.timers.Add(1)
		h.lateTimer.Reset(h.late[0].due.Sub(now))
	}
}

// actNowLocked performs the delayed action of a stream, unless the stream has ended or
// actDelayedLocked was faster.
func (h *http2Conn) actNowLocked(st *stream) {
	if act := st.delayed; act != nil && h.streams[st.id] == st {
		st.delayed = nil
		act()
	}
}

// flushDelayedLocked sends what delayed actions have written, and ends the connection if
// they were the last after a GOAWAY.
func (h *http2Conn) flushDelayedLocked() {
	h.w.Flush()
	if h.goAwaySent && len(h.streams) == 0 {
		h.conn.tls.CloseWrite()
		h.conn.raw.CloseWrite()
	}
}

// actDelayedLocked performs all delayed actions now.
func (h *http2Conn) actDelayedLocked() {
	for _, st := range h.sortedStreamsLocked() {
		if act := st.delayed; act != nil {
			st.delayed = nil
			act()
		}
	}
}

// actLocked performs the action for a message.
func (h *http2Conn) actLocked(st *stream, a action) {
	switch a.fault.End {
	case EndRST:
		h.resetLocked(st, h2.CodeCancel)
		return
	case EndRefusedStream:
		h.resetLocked(st, h2.CodeRefusedStream)
		return
	case EndSilence:
		return
	case EndFINThenRST, EndFIN:
		h.w.Flush() // the responses to other messages
		h.conn.raw.Close()
		return
	case EndGoAwayUnprocessed:
		h.actDelayedLocked()
		h.goAwayLocked(h.lastProcessedLocked(), h2.CodeEnhanceYourCalm, reasonJSON(a.fault.Reason, time.Time{}))
		h.conn.tls.CloseWrite()
		h.conn.raw.CloseWrite()
		for _, st := range h.streams {
			h.removeLocked(st)
		}
		return
	case EndGoAway:
		h.goAwayLocked(h.lastOpened, h2.CodeNo, reasonJSON(a.fault.Reason, time.Time{}))
	}
	reply := a.reply
	switch {
	case a.outcome == Discarded && reply == nil:
		return // no response, ever
	case a.outcome == Accepted && reply != nil:
		// StatusShutdown: this message is accepted, and is the last.
		reply = nil
		h.goAwayLocked(h.lastOpened, h2.CodeNo, reasonJSON(apns.ReasonShutdown, time.Time{}))
	}
	h.respondLocked(st, reply)
}

// respondLocked sends a response: that of a success, or the rejection e unless it is nil.
func (h *http2Conn) respondLocked(st *stream, e *apns.PushError) {
	var block []byte
	if e == nil {
		block = h.appendStatusLocked(st.success.status)
		st.unsent = st.success.body
	} else {
		reason, status := toReason(e), e.HTTPStatus
		if status == 0 {
			status = httpStatus(reason)
		}
		block = h.appendStatusLocked(status)
		st.unsent = reasonJSON(reason, e.DeadAt)
		if e.RetryAfter > 0 {
			seconds := (e.RetryAfter + time.Second - 1) / time.Second
			block = h.appendField(block, "retry-after", strconv.Itoa(int(seconds)))
		}
	}
	if slices.Contains(st.fields, headerField{":method", "HEAD"}) { // RFC 9110, section 9.3.2
		st.unsent = nil
	}
	block = h.appendField(block, st.success.id.name, st.success.id.value)
	if e == nil {
		for _, f := range st.success.fields {
			block = h.appendField(block, f.name, f.value)
		}
	}
	var flags h2.Flags
	if len(st.unsent) == 0 {
		flags = h2.FlagEndStream
	}
	h.writeLocked(h2.AppendHeaders(h.bufferLocked(), flags, st.id, block, h.out.maxFrame))
	if len(st.unsent) == 0 {
		h.removeLocked(st)
	} else {
		h.sendBodyLocked(st)
	}
}

// appendStatusLocked begins the header block of a response. The block must be sent, since
// it may begin with an update of the size of the server's header table. No field uses that
// table.
func (h *http2Conn) appendStatusLocked(code int) []byte {
	return h.appendField(h.encoder.AppendBegin(nil), ":status", strconv.Itoa(code))
}

func (h *http2Conn) appendField(b []byte, name, value string) []byte {
	return h.encoder.AppendField(b, name, value, hpack.Literal)
}

// reasonJSON returns the body of a rejection, or nil for an empty reason.
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
		panic(err) // a string and a number can always be encoded
	}
	return b
}
