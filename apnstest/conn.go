package apnstest

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"example.com/apns/internal/plain"
)

// A conn is the server's end of a connection.
type conn struct {
	raw    endpoint
	corked *cork // on top of raw
	tls    plain.Session
	number int // counted from 1

	inFlight atomic.Int32 // streams that are open or half-closed
	goAway   atomic.Bool  // a GOAWAY was sent

	closed    chan struct{} // closed by close
	closeOnce sync.Once

	// Protected by Server.mu:
	opened        time.Time // the end of the handshake; zero before
	port          int       // of the service, as in OnConnect
	state         tls.ConnectionState
	keyID, teamID string // of the first valid provider token
}

// An endpoint is a connection whose two directions end separately. It is a TCP
// connection or one in memory.
type endpoint interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error // 0 makes Close send a reset
}

func newConn(raw endpoint, config *tls.Config, number int) *conn {
	corked := &cork{Conn: raw}
	c := &conn{raw: raw, corked: corked, tls: tls.Server(corked, config), number: number, closed: make(chan struct{})}
	if m, ok := raw.(*memoryConn); ok && m.plain {
		session := &plain.Conn{Conn: corked}
		if len(config.NextProtos) > 0 {
			session.Protocol = config.NextProtos[0]
		}
		c.tls = session
	}
	return c
}

// close closes the connection, whatever its goroutine is doing. It may be called concurrently.
func (c *conn) close() {
	c.closeOnce.Do(func() { close(c.closed) })
	c.raw.Close()
}

// A cork collects writes while it is held, and sends them in one write when it is
// released.
type cork struct {
	net.Conn
	mu      sync.Mutex // protects following
	pending []byte
	held    bool
}

func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		c.pending = append(c.pending, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

func (c *cork) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	if len(c.pending) > 0 {
		c.SetWriteDeadline(time.Time{}) // tls.Conn.CloseWrite leaves a deadline that has passed
		c.Conn.Write(c.pending)
		c.pending = nil
	}
}
