package apnstest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"example.com/apns/internal/plain"
)

// resetDelay is how long a reset takes to arrive. The delay lets a reader that is ready
// get the data that was sent before the reset.
const resetDelay = time.Millisecond

// A memoryListener accepts connections in memory.
type memoryListener struct {
	addr    memoryAddr
	size    int // of each receive buffer, in bytes
	backlog chan *memoryConn
	once    sync.Once
	closed  chan struct{}
}

func newMemoryListener(addr string, size int) *memoryListener {
	return &memoryListener{
		addr:    memoryAddr(addr),
		size:    size,
		backlog: make(chan *memoryConn),
		closed:  make(chan struct{}),
	}
}

func (l *memoryListener) dial(ctx context.Context, addr string) (net.Conn, error) {
	client, server := newMemoryPipe(memoryAddr("client"), memoryAddr(addr), l.size)
	server.plain = plain.In(ctx)
	select {
	case l.backlog <- server:
		return client, nil
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: l.addr, Err: ctx.Err()}
	case <-l.closed:
		return nil, connectionRefused(addr)
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return l.addr }

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

// A memoryConn is one end of a connection in memory.
type memoryConn struct {
	addr memoryAddr
	peer *memoryConn
	size int // of the receive buffer, in bytes

	plain bool // there is no TLS on top

	mu      *sync.Mutex // of both ends; protects following
	changed *sync.Cond  // of both ends
	buf     []byte      // received and not read
	eof     bool        // the peer has ended its direction
	ended   bool        // this end has ended its direction
	closed  bool        // this end is closed
	reset   bool        // the connection was reset
	abort   bool        // Close sends a reset
	read    deadline
	write   deadline
}

func newMemoryPipe(a, b memoryAddr, size int) (*memoryConn, *memoryConn) {
	mu := new(sync.Mutex)
	changed := sync.NewCond(mu)
	ca := &memoryConn{addr: a, size: size, mu: mu, changed: changed}
	cb := &memoryConn{addr: b, size: size, mu: mu, changed: changed}
	ca.peer, cb.peer = cb, ca
	return ca, cb
}

func (c *memoryConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.read.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(c.buf) > 0:
			n := copy(p, c.buf)
			c.buf = append(c.buf[:0], c.buf[n:]...)
			c.changed.Broadcast()
			return n, nil
		case c.reset:
			return 0, c.opError("read", os.NewSyscallError("read", syscall.ECONNRESET))
		case c.eof:
			return 0, io.EOF
		}
		c.changed.Wait()
	}
}

// waitForEnd waits until either end has closed the connection or its direction.
func (c *memoryConn) waitForEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed && !c.reset && !c.eof {
		c.changed.Wait()
	}
}

func (c *memoryConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waited := false
	for {
		switch {
		case c.closed:
			return n, c.opError("write", net.ErrClosed)
		case c.write.passed:
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case c.reset || c.ended:
			return n, c.opError("write", os.NewSyscallError("write", syscall.EPIPE))
		case len(p) == 0:
			return n, nil
		case c.peer.closed:
			c.resetLater() // the peer's system answers with a reset
			if !waited {
				return n + len(p), nil
			}
		}
		if k := min(len(p), c.size-len(c.peer.buf)); k > 0 && !c.peer.closed {
			c.peer.buf = append(c.peer.buf, p[:k]...)
			n, p = n+k, p[k:]
			c.changed.Broadcast()
			continue
		}
		waited = true
		c.changed.Wait()
	}
}

// resetLater resets this end after resetDelay. The caller holds c.mu.
func (c *memoryConn) resetLater() {
	time.AfterFunc(resetDelay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reset = true
		c.buf = nil
		c.changed.Broadcast()
	})
}

func (c *memoryConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.ended = true
	c.peer.eof = true
	c.changed.Broadcast()
	return nil
}

func (c *memoryConn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort = sec == 0
	return nil
}

// Close closes this end. As with TCP, the peer gets a reset if this end has received data
// that was not read.
func (c *memoryConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	if c.abort || len(c.buf) > 0 {
		c.peer.resetLater()
	} else {
		c.peer.eof = true
	}
	c.buf = nil
	c.read.stop()
	c.write.stop()
	c.changed.Broadcast()
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr  { return c.addr }
func (c *memoryConn) RemoteAddr() net.Addr { return c.peer.addr }

func (c *memoryConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memoryConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.read, t) }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *memoryConn) setDeadline(d *deadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.stop()
	d.passed = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !d.passed {
		d.at = t
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if d.at.Equal(t) { // the deadline was not changed in the meantime
				d.passed = true
				c.changed.Broadcast()
			}
		})
	}
	c.changed.Broadcast()
	return nil
}

func (c *memoryConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: c.addr, Addr: c.peer.addr, Err: err}
}

// A deadline is the deadline for reads or for writes.
type deadline struct {
	at     time.Time
	timer  *time.Timer
	passed bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = time.Time{}
}
