package apnstest

import (
	"encoding/json"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// request decides about a complete request, and answers it.
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
	case v.fault.End == EndRefusedStream || v.fault.End == EndGoAwayUnprocessed:
		v.outcome = Discarded // so the client hears, whatever Err is
	case v.outcome == Discarded && v.said != nil:
		v.outcome = Rejected // StatusShutdown with the ID of another: there are none here
	}
	s.record(Record{Message: m, Outcome: v.outcome, Err: decision, Conn: h.conn.number})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[st.id] != st {
		return // reset meanwhile
	}
	st.taken = v.outcome != Discarded
	if v.outcome == Accepted {
		h.auth.trusted = true
		h.announceLocked()
	}
	answer := func() { h.answerLocked(st, v, m) }
	if v.fault.Delay > 0 {
		h.answerLateLocked(st, answer, v.fault.Delay)
	} else {
		answer()
	}
}

// answerLateLocked calls answer after a delay, on a goroutine of its own.
func (h *http2Conn) answerLateLocked(st *stream, answer func(), delay time.Duration) {
	st.now = answer
	h.late.Add(1)
	st.timer = time.AfterFunc(delay, func() {
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
}

// answerLocked does what the verdict says of the message.
func (h *http2Conn) answerLocked(st *stream, v verdict, m *apns.Message) {
	f := v.fault
	switch f.End {
	case EndRST:
		h.resetLocked(st, h2.CodeCancel)
		return
	case EndRefusedStream:
		h.resetLocked(st, h2.CodeRefusedStream)
		return
	case EndSilence:
		return // never answered
	case EndFINThenRST, EndFIN:
		h.w.Flush() // the answers to others
		h.conn.raw.Close()
		return
	case EndGoAwayUnprocessed:
		h.giveLateAnswersLocked()
		h.goAwayLocked(h.lastTakenLocked(), h2.CodeEnhanceYourCalm, reasonJSON(f.Reason, time.Time{}))
		h.conn.tls.CloseWrite()
		h.conn.raw.CloseWrite()
		for _, st := range h.streams {
			h.forgetLocked(st)
		}
		return
	case EndGoAway:
		h.goAwayLocked(h.last, h2.CodeNo, reasonJSON(f.Reason, time.Time{}))
	}
	e := v.said
	switch {
	case v.outcome == Discarded && e == nil:
		return // never answered
	case v.outcome == Accepted && e != nil:
		// StatusShutdown: this one is the last.
		e = nil
		h.goAwayLocked(h.last, h2.CodeNo, reasonJSON(apns.ReasonShutdown, time.Time{}))
	}
	h.respondLocked(st, e, m.APNsID)
}

// respondLocked sends an answer: the status 200, or the rejection e.
func (h *http2Conn) respondLocked(st *stream, e *apns.PushError, id string) {
	var block []byte
	if e == nil {
		block = h.appendStatusLocked(200)
	} else {
		reason, status := toReason(e), e.HTTPStatus
		if status == 0 {
			status = httpStatus(reason)
		}
		block = h.appendStatusLocked(status)
		st.answer = reasonJSON(reason, e.DeadAt)
		if e.RetryAfter > 0 {
			seconds := (e.RetryAfter + time.Second - 1) / time.Second
			block = h.appendField(block, "retry-after", strconv.Itoa(int(seconds)))
		}
	}
	if id == "" {
		id = newUUID()
	}
	block = h.appendField(block, "apns-id", id)
	if e == nil {
		block = h.appendField(block, "apns-unique-id", newUUID())
	}
	var flags h2.Flags
	if len(st.answer) == 0 {
		flags = h2.FlagEndStream
	}
	h.writeLocked(h2.AppendHeaders(h.bufferLocked(), flags, st.id, block, h.out.maxFrame))
	if len(st.answer) == 0 {
		h.forgetLocked(st)
	} else {
		h.sendBodyLocked(st)
	}
}

// appendStatusLocked begins the header block of an answer. The block must be sent, since
// it can begin with a new size of the server's table. No field uses that table.
func (h *http2Conn) appendStatusLocked(code int) []byte {
	return h.appendField(h.encoder.AppendBegin(nil), ":status", strconv.Itoa(code))
}

func (h *http2Conn) appendField(b []byte, name, value string) []byte {
	return h.encoder.AppendField(b, name, value, hpack.Literal)
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
