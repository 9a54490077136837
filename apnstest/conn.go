package apnstest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/internal/plain"
)

// A conn is the server's end of a connection.
type conn struct {
	raw    endpoint
	corked *cork // on top of raw
	tls    plain.Session
	number int
}

// An endpoint is a connection whose two directions end one by one: of TCP or in
// memory.
type endpoint interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error // 0 has Close send a reset
}

func newConn(raw endpoint, config *tls.Config, number int) *conn {
	corked := &cork{Conn: raw}
	c := &conn{raw: raw, corked: corked, tls: tls.Server(corked, config), number: number}
	if m, ok := raw.(*memoryConn); ok && m.plain {
		session := &plain.Conn{Conn: corked}
		if len(config.NextProtos) > 0 {
			session.Protocol = config.NextProtos[0]
		}
		c.tls = session
	}
	return c
}

// servePush reads messages until the client ends the stream or one is not
// accepted.
func (s *Server) servePush(c *conn) {
	r := bufio.NewReaderSize(c.tls, 64<<10)
	if v := judge(s.onConnect(c, apns.PushPort), 0); v.ends {
		s.finish(c, v.fault, v.packet(), s.discarder(c, r))
		return
	}
	for {
		command, _ := r.Peek(1)
		simple := len(command) == 1 && command[0] == 0
		m, err := apns.ReadMsg(r)
		switch {
		case errors.Is(err, apns.StatusProtocolError):
			// No more messages can be told apart.
			v := judge(apns.StatusProtocolError, 0)
			s.finish(c, v.fault, v.packet(), func() { io.Copy(io.Discard, r) })
			return
		case err != nil:
			c.tls.Close()
			return
		}
		decision := s.decide(m)
		v := judge(decision, m.ID)
		if simple {
			v.said = nil // command 0 has no identifier to answer with
		}
		if !isBarrier(m) {
			s.record(Record{Message: m, Outcome: v.outcome, Err: decision, Conn: c.number})
		}
		if v.ends {
			s.finish(c, v.fault, v.packet(), s.discarder(c, r))
			return
		}
	}
}

// serveFeedback hands out the list, and waits for the client to leave.
func (s *Server) serveFeedback(c *conn) {
	v := judge(s.onConnect(c, apns.FeedbackPort), 0)
	if v.said != nil {
		return
	}
	s.mu.Lock()
	records := s.feedback
	s.feedback = nil
	s.mu.Unlock()
	var list []byte
	for _, r := range records {
		list, _ = apns.AppendFeedback(list, r) // AddFeedback has seen to it
	}
	s.finish(c, v.fault, list, func() { io.Copy(io.Discard, c.tls) })
}

func (s *Server) onConnect(c *conn, port int) error {
	if s.OnConnect == nil {
		return nil
	}
	return s.OnConnect(port, c.tls.ConnectionState())
}

// decide decides about a message: as Apple's gateway would at sight, or else as
// the handler does.
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

func isBarrier(m *apns.Message) bool { return m.Token == "" && len(m.Payload) == 0 }

// A verdict is what the error of a handler comes to.
type verdict struct {
	outcome Outcome         // of the message
	ends    bool            // the connection ends
	said    *apns.PushError // nil: nothing
	fault   Fault           // how it ends
}

// judge gives the verdict that err is for the message with the ID.
func judge(err error, id uint32) verdict {
	if e, ok := err.(*apns.PushError); err == nil || ok && e == nil { // or a nil that has become an error
		return verdict{outcome: Accepted}
	}
	if p, ok := errors.AsType[*Fault](err); ok && p != nil {
		err = *p
	}
	if f, ok := errors.AsType[Fault](err); ok {
		v := verdict{outcome: Discarded}
		if f.Err != nil {
			v = judge(f.Err, id)
		}
		v.ends, v.fault = true, f
		return v
	}
	said := &apns.PushError{ID: id, Status: apns.StatusProcessingError}
	if e, ok := errors.AsType[*apns.PushError](err); ok {
		*said = *e
		if said.Reason != "" && said.Status == 0 {
			said.Status = toStatus(said.Reason)
		}
	} else if status, ok := errors.AsType[apns.Status](err); ok {
		if status == apns.StatusNoError {
			return verdict{outcome: Accepted}
		}
		said.Status = status
	} else if reason, ok := errors.AsType[apns.Reason](err); ok {
		said.Status, said.Reason, said.HTTPStatus = toStatus(reason), reason, httpStatus(reason)
	}
	if said.HTTPStatus == 410 && said.DeadAt.IsZero() {
		said.DeadAt = time.Now() // a 410 has a time
	}
	v := verdict{outcome: Rejected, ends: true, said: said}
	switch {
	case said.Rejected():
	case said.ID == id:
		v.outcome = Accepted
	default:
		v.outcome = Discarded
	}
	return v
}

// packet returns the error packet, if there is one.
func (v verdict) packet() []byte {
	if v.said == nil {
		return nil
	}
	return apns.AppendError(nil, v.said)
}

// discarder returns a function that reads and discards messages to the end of
// the stream.
func (s *Server) discarder(c *conn, r *bufio.Reader) func() {
	return func() {
		for {
			m, err := apns.ReadMsg(r)
			switch {
			case errors.Is(err, apns.StatusProtocolError):
				io.Copy(io.Discard, r)
				return
			case err != nil:
				return
			case !isBarrier(m):
				s.record(Record{Message: m, Outcome: Discarded, Conn: c.number})
			}
		}
	}
}

// finish says the last words, ends the stream as the fault has it, and meanwhile
// discards what the client writes.
func (s *Server) finish(c *conn, f Fault, words []byte, discard func()) {
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
		case <-s.closing:
			return
		}
	}
	words = words[:max(0, len(words)-max(0, f.Cut))]
	if f.End == EndOneSegment {
		c.corked.hold()
	}
	for len(words) > 0 {
		n := len(words)
		if f.Split > 0 {
			n = min(n, f.Split)
		}
		if _, err := c.tls.Write(words[:n]); err != nil {
			return
		}
		words = words[n:]
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
		<-s.closing
	}
}

// A cork holds back what is written, to be sent in one piece.
type cork struct {
	net.Conn
	mu   sync.Mutex // protects following
	held []byte
	on   bool
}

func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
}

func (c *cork) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	if len(c.held) > 0 {
		c.SetWriteDeadline(time.Time{}) // CloseWrite of TLS lets nothing follow
		c.Conn.Write(c.held)
		c.held = nil
	}
}
