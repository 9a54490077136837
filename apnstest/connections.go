package apnstest

import (
	"cmp"
	"crypto/tls"
	"maps"
	"slices"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
)

// A Connection describes an open connection to a [Server].
type Connection struct {
	// Number is the number of the connection, counted from 1: see Record.Conn.
	Number int

	// Port is the port of the service, as in Server.OnConnect.
	Port int

	// RemoteAddr is the address of the client.
	RemoteAddr string

	// Opened is when the TLS handshake ended.
	Opened time.Time

	// TLS has the version of TLS, the protocol that it negotiated ("h2", or empty for the
	// binary protocol), and the certificate of the client if it has one.
	TLS tls.ConnectionState

	// KeyID and TeamID are those of the client's provider token. They are empty until the
	// first valid one arrives, and for a client with a certificate.
	KeyID, TeamID string

	// InFlight is how many requests over HTTP/2 have no complete response. It is zero on the
	// binary protocol, where the server does not answer what it accepts.
	InFlight int

	// GoAwaySent reports whether the server has sent a GOAWAY: the client must open another
	// connection for its next message.
	GoAwaySent bool
}

// Connections returns the connections that are open, in the order of their numbers. A
// connection whose TLS handshake has not ended is not among them.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Connection
	for c := range s.conns {
		if c.opened.IsZero() {
			continue
		}
		list = append(list, Connection{
			Number:     c.number,
			Port:       c.port,
			RemoteAddr: c.raw.RemoteAddr().String(),
			Opened:     c.opened,
			TLS:        c.state,
			KeyID:      c.keyID,
			TeamID:     c.teamID,
			InFlight:   int(c.inFlight.Load()),
			GoAwaySent: c.goAway.Load(),
		})
	}
	slices.SortFunc(list, func(a, b Connection) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// GoAway sends a GOAWAY on each open connection over HTTP/2, as Apple's servers do before
// maintenance. The reason in it may be empty. The server responds to the messages in flight,
// and then closes the connection. It ignores those that the client sends after them. GoAway
// waits at most a second for clients that do not read: they get the GOAWAY when they read.
func (s *Server) GoAway(reason apns.Reason) {
	s.mustBeStarted()
	s.orderHTTP2(func(o *orders) {
		if o.goAway == nil {
			o.goAway = &reason
		}
	})
}

// CloseClientConnections closes the open connections of all services, as a server that
// crashes does: without a GOAWAY, and without responses to the messages in flight.
func (s *Server) CloseClientConnections() {
	s.mustBeStarted()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.closeLocked()
	}
}

// Orders are what a connection over HTTP/2 must send because a method of the Server was
// called: new SETTINGS, and a GOAWAY. A goroutine of the connection carries them out, since
// the client may not read, and then a write blocks. Server.mu protects the fields.
type orders struct {
	goAway *apns.Reason  // the reason for a GOAWAY; nil: none
	more   bool          // there are orders that the goroutine has not looked at
	done   chan struct{} // closed when the goroutine ends; nil: there is none
	late   bool          // a call has not waited for the goroutine to its end
}

// orderHTTP2 gives each connection over HTTP/2 the orders that add sets, and lets it announce
// the values of settings that have changed. The connections carry them out one after the
// other, in the order of their numbers. Once they have taken maxBlocked in all, orderHTTP2
// does not wait for the others.
func (s *Server) orderHTTP2(add func(*orders)) {
	const maxBlocked = time.Second
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.http2))
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *http2Conn) int { return cmp.Compare(a.conn.number, b.conn.number) })
	timer := time.NewTimer(maxBlocked)
	defer timer.Stop()
	over := false
	for _, h := range conns {
		done := h.order(add)
		if done == nil || over {
			continue
		}
		select {
		case <-done:
		case <-timer.C:
			over = true
			s.mu.Lock()
			h.orders.late = h.orders.done != nil
			s.mu.Unlock()
		}
	}
}

// order gives the connection orders. It returns a channel that is closed when they are
// carried out, or nil if nobody should wait for that: an earlier call has waited in vain.
func (h *http2Conn) order(add func(*orders)) (done <-chan struct{}) {
	s, o := h.server, &h.orders
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.http2[h]; !open {
		return nil
	}
	add(o)
	o.more = true
	if o.done == nil {
		o.done = make(chan struct{})
		h.timers.Go(h.obey)
	}
	if o.late {
		return nil
	}
	return o.done
}

// obey carries out the orders.
func (h *http2Conn) obey() {
	s, o := h.server, &h.orders
	for {
		s.mu.Lock()
		if !o.more {
			close(o.done)
			o.done, o.late = nil, false
			s.mu.Unlock()
			return
		}
		o.more = false
		goAway := o.goAway
		s.mu.Unlock()

		h.mu.Lock()
		h.announceLocked()
		if goAway != nil && !h.goAwaySent {
			h.goAwayLocked(h.lastOpened, h2.CodeNo, reasonJSON(*goAway, time.Time{}))
			h.flushDelayedLocked()
		}
		h.w.Flush()
		h.mu.Unlock()
	}
}

// noteOpened records that the handshake of a connection has ended.
func (s *Server) noteOpened(c *conn, sv *service) {
	state := c.tls.ConnectionState()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.opened, c.port, c.state = time.Now(), sv.ports[0], state
}

// noteKey records whose provider tokens the client uses. Only the goroutine that reads calls
// it, and only that goroutine changes conn.keyID.
func (h *http2Conn) noteKey() {
	if h.conn.keyID == h.auth.keyID {
		return
	}
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	h.conn.keyID, h.conn.teamID = h.auth.keyID, h.auth.teamID
}
