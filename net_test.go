package apns_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

type (
	tlsState = tls.ConnectionState
	dialer   = func(ctx context.Context, network, addr string) (net.Conn, error)
)

// A deafConn, once deafened, reads nothing until a write has failed.
type deafConn struct {
	net.Conn
	mu     sync.Mutex
	gate   chan struct{} // nil: open
	opened sync.Once
}

func (c *deafConn) dialer(next dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		c.Conn, err = next(ctx, network, addr)
		return c, err
	}
}

func (c *deafConn) deafen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate = make(chan struct{})
}

func (c *deafConn) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate != nil {
		c.opened.Do(func() { close(c.gate) })
	}
}

func (c *deafConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return c.Conn.Read(p)
}

func (c *deafConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.hear()
	}
	return n, err
}

func (c *deafConn) Close() error {
	defer c.hear()
	return c.Conn.Close()
}
