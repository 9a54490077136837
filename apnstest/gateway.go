package apnstest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"example.com/apns"
)

// The two services of the binary protocol: the gateway and the feedback service.
// The source is the chapter "Binary Provider API" of Apple's Local and Remote
// Notification Programming Guide.

// servePush reads messages until the client ends the stream, or until the action
// for a message ends the connection.
func (s *Server) servePush(c *conn) {
	raw := &rawReader{r: c.tls, keeps: s.KeepRaw}
	r := bufio.NewReaderSize(raw, 64<<10)
	if a := actionFor(s.onConnect(c, apns.PushPort), 0); a.ends {
		s.finish(c, a.fault, a.errorPacket(), s.discarder(c, r, raw))
		return
	}
	for {
		command, _ := r.Peek(1)
		simple := len(command) == 1 && command[0] == 0
		m, err := apns.ReadMsg(r)
		switch {
		case errors.Is(err, apns.StatusProtocolError):
			// The start of the next message is unknown, so the rest is discarded as bytes.
			raw.keeps = false
			a := actionFor(apns.StatusProtocolError, 0)
			s.finish(c, a.fault, a.errorPacket(), func() { io.Copy(io.Discard, r) })
			return
		case err != nil:
			c.tls.Close()
			return
		}
		encoded := raw.taken(r)
		err = s.decide(m)
		a := actionFor(err, m.ID)
		if simple {
			a.reply = nil // command 0 has no identifier that an error packet could give
		}
		if !isBarrier(m) {
			rec := Record{Message: m, Outcome: a.outcome, Err: err, Findings: s.inspectBinary(m), Conn: c.number, Port: apns.PushPort, Encoded: encoded}
			if a.reply != nil {
				rec.Delay = s.Latency + a.fault.Delay
			}
			s.record(rec)
		}
		if a.ends {
			a.fault.Delay += s.Latency
			s.finish(c, a.fault, a.errorPacket(), s.discarder(c, r, raw))
			return
		}
	}
}

// serveFeedback sends the list, and waits until the client closes the connection.
func (s *Server) serveFeedback(c *conn) {
	a := actionFor(s.onConnect(c, apns.FeedbackPort), 0)
	if a.reply != nil {
		return
	}
	s.mu.Lock()
	records := s.feedback
	s.feedback = nil
	s.mu.Unlock()
	var list []byte
	for _, r := range records {
		list, _ = apns.AppendFeedback(list, r) // AddFeedback has checked that it can be encoded
	}
	s.finish(c, a.fault, list, func() { io.Copy(io.Discard, c.tls) })
}

func (s *Server) onConnect(c *conn, port int) error {
	if s.OnConnect == nil {
		return nil
	}
	return s.OnConnect(port, c.tls.ConnectionState())
}

// decide returns the error for a message: that of the gateway's own checks, or else
// that of the handler.
func (s *Server) decide(m *apns.Message) error {
	switch {
	case isBarrier(m) && s.Barrier != nil:
		return s.Barrier
	case len(m.Token) == 0:
		return apns.StatusMissingToken
	case len(m.Token) > 2*apns.MaxTokenSize:
		return apns.StatusInvalidTokenSize
	case len(m.Payload) == 0:
		return apns.StatusMissingPayload
	case len(m.Payload) > apns.MaxBinaryPayload:
		return apns.StatusInvalidPayloadSize
	}
	if err := s.checkToken(m, ""); err != nil || s.Handler == nil {
		return err
	}
	return s.Handler(m)
}

// inspectBinary returns the rules that the content of a message breaks. The gateway does not
// reject it for that: no source says with which status Apple's did.
func (s *Server) inspectBinary(m *apns.Message) []Finding {
	in := inspection{binary: true, lenient: s.Lenient}
	if len(m.Payload) > 0 {
		in.payload(m)
	}
	return in.findings
}

func isBarrier(m *apns.Message) bool { return m.Token == "" && len(m.Payload) == 0 }

// discarder returns a function that reads and discards messages to the end of
// the stream.
func (s *Server) discarder(c *conn, r *bufio.Reader, raw *rawReader) func() {
	return func() {
		for {
			m, err := apns.ReadMsg(r)
			switch {
			case errors.Is(err, apns.StatusProtocolError):
				raw.keeps = false
				io.Copy(io.Discard, r)
				return
			case err != nil:
				return
			}
			encoded := raw.taken(r)
			if !isBarrier(m) {
				s.record(Record{Message: m, Outcome: Discarded, Conn: c.number, Port: apns.PushPort, Encoded: encoded})
			}
		}
	}
}

// A rawReader keeps the bytes that a bufio.Reader on top of it has read, if keeps is set.
type rawReader struct {
	r     io.Reader
	keeps bool
	kept  []byte // read and not taken
}

func (raw *rawReader) Read(b []byte) (int, error) {
	n, err := raw.r.Read(b)
	if raw.keeps {
		raw.kept = append(raw.kept, b[:n]...)
	}
	return n, err
}

// taken returns the bytes that were taken from r, which reads from raw, since the last call.
// It returns nil if raw keeps none.
func (raw *rawReader) taken(r *bufio.Reader) []byte {
	if !raw.keeps {
		return nil
	}
	n := len(raw.kept) - r.Buffered()
	b := bytes.Clone(raw.kept[:n])
	raw.kept = append(raw.kept[:0], raw.kept[n:]...)
	return b
}

// finish sends the last bytes, and ends the connection as the fault says. At the same
// time it calls discard, which reads what the client still writes.
func (s *Server) finish(c *conn, f Fault, last []byte, discard func()) {
	var discarding sync.WaitGroup
	if f.End != EndSilence {
		discarding.Go(discard)
	}
	defer discarding.Wait()
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.closed:
			return
		}
	}
	last = last[:max(0, len(last)-max(0, f.Cut))]
	if f.End == EndOneSegment {
		c.corked.hold()
	}
	for len(last) > 0 {
		n := len(last)
		if f.Split > 0 {
			n = min(n, f.Split)
		}
		if _, err := c.tls.Write(last[:n]); err != nil {
			return
		}
		last = last[n:]
	}
	switch f.End {
	default:
		c.tls.CloseWrite()
		c.corked.release()
		c.raw.CloseWrite()
	case EndFIN:
		c.raw.CloseWrite()
	case EndFINThenRST:
		c.raw.Close()
	case EndRST:
		c.raw.SetLinger(0)
		c.raw.Close()
	case EndSilence:
		c.stall()
	}
}

// stall returns when the connection is closed. On a real network it must read to notice that
// the client closes it. So it reads maxStalled bytes at most, and notices nothing after them.
func (c *conn) stall() {
	const maxStalled = 64 << 10
	if m, ok := c.raw.(*memoryConn); ok {
		m.waitForEnd()
	} else if n, _ := io.CopyN(io.Discard, c.raw, maxStalled); n == maxStalled {
		<-c.closed
	}
}
