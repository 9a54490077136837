package apns_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

type (
	tlsState = tls.ConnectionState
	dialer   = func(ctx context.Context, network, addr string) (net.Conn, error)
)

// A deafConn, once deafened, reads nothing until a write has failed.
type deafConn struct {
	net.Conn
	mu    sync.Mutex    // guards following
	deaf  chan struct{} // closed when it hears again; nil if it was never deaf
	hears sync.Once     // closes deaf
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
	c.deaf = make(chan struct{})
}

func (c *deafConn) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf != nil {
		c.hears.Do(func() { close(c.deaf) })
	}
}

func (c *deafConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	deaf := c.deaf
	c.mu.Unlock()
	if deaf != nil {
		<-deaf
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

// A limitedConn lets so many bytes through in one direction, and then cuts the
// connection.
type limitedConn struct {
	net.Conn
	mu          sync.Mutex
	read, write int // how many more bytes; negative: any number
}

// limited wraps a DialContext; *last is the last connection that it made.
func limited(next dialer, read, write int, last **limitedConn) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		*last = &limitedConn{Conn: conn, read: read, write: write}
		return *last, nil
	}
}

func (c *limitedConn) limit(read, write int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.write = read, write
}

func (c *limitedConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	left := c.read
	c.mu.Unlock()
	if left == 0 {
		c.Conn.Close()
		return 0, io.EOF
	}
	if left > 0 && len(p) > left {
		p = p[:left]
	}
	n, err := c.Conn.Read(p)
	if left > 0 {
		c.mu.Lock()
		c.read -= n
		c.mu.Unlock()
	}
	return n, err
}

func (c *limitedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.write < 0 || len(p) <= c.write {
		n, err := c.Conn.Write(p)
		if c.write > 0 {
			c.write -= n
		}
		return n, err
	}
	n, _ := c.Conn.Write(p[:c.write])
	c.write = 0
	c.Conn.Close()
	return n, syscall.EPIPE
}

// sink starts a TLS server on loopback that reads and answers nothing, and
// returns the configuration that reaches it. It allocates nothing by the message.
func sink(tb testing.TB) *apns.Config {
	return serve(tb, nil, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for err := error(nil); err == nil; {
			_, err = c.Read(buf)
		}
	})
}

// serve starts a TLS server on loopback and returns the configuration that
// reaches it.
func serve(tb testing.TB, protocols []string, handle func(net.Conn)) *apns.Config {
	tb.Helper()
	s := apnstest.NewServer(nil) // for its certificates
	defer s.Close()
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: protocols})
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	config := s.Config()
	config.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}
	return config
}

// A writeCounter counts the writes of a connection.
type writeCounter struct {
	net.Conn
	n atomic.Int32
}

func (c *writeCounter) dialer(next dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		c.Conn, err = next(ctx, network, addr)
		return c, err
	}
}

func (c *writeCounter) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// A blackHole is a connection that, once it is open, swallows what is written and
// gives nothing to read, as one does whose other end was cut off.
type blackHole struct {
	net.Conn
	open atomic.Bool
}

func (h *blackHole) dialer(next dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		h.Conn, err = next(ctx, network, addr)
		return h, err
	}
}

func (h *blackHole) Write(p []byte) (int, error) {
	if h.open.Load() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}
