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
// and then closes the connection. It ignores messages that the client sends after the
// GOAWAY. A client that does not read, and thus cannot be told, is disconnected after 5 s.
func (s *Server) GoAway(reason apns.Reason) {
	s.mustBeStarted()
	s.eachHTTP2(func(h *http2Conn) {
		if !h.goAwaySent {
			h.goAwayLocked(h.lastOpened, h2.CodeNo, reasonJSON(reason, time.Time{}))
			h.flushDelayedLocked()
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
		c.close()
	}
}

// maxBlocked is how long clients may keep a method of the Server waiting, and minBlocked how
// long each may after that.
const (
	maxBlocked = 5 * time.Second
	minBlocked = 100 * time.Millisecond
)

// eachHTTP2 calls f with the mutex of each connection over HTTP/2, in the order of their
// numbers. A client that does not read may block a write, and with it the mutex: after a
// while its connection is closed, which ends the write.
func (s *Server) eachHTTP2(f func(*http2Conn)) {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.http2))
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *http2Conn) int { return cmp.Compare(a.conn.number, b.conn.number) })
	wait := maxBlocked
	for _, h := range conns {
		began := time.Now()
		timer := time.AfterFunc(wait, h.conn.close)
		h.mu.Lock()
		f(h)
		h.mu.Unlock()
		timer.Stop()
		wait = max(minBlocked, wait-time.Since(began))
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
