package apns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

// A stuckConn's writes block while stuck is not nil, as if the other end did not read.
type stuckConn struct {
	net.Conn
	mu    sync.Mutex
	stuck chan struct{}
	dead  chan struct{}
	once  sync.Once
}

func (c *stuckConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	s := c.stuck
	c.mu.Unlock()
	if s != nil {
		select {
		case <-s:
		case <-c.dead:
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(b)
}
func (c *stuckConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		d := time.Until(t)
		time.AfterFunc(max(d, 0), func() { c.once.Do(func() { close(c.dead) }) })
	}
	return nil
}
func (c *stuckConn) Close() error { c.once.Do(func() { close(c.dead) }); return c.Conn.Close() }

// stuckClient returns a Client of a binary gateway, and a function after which the last
// connection takes no more bytes.
func stuckClient(t *testing.T) (c *apns.Client, stick func()) {
	n := newNetwork(inMemory(t, nil))
	n.protocol = ""
	var mu sync.Mutex
	var last *stuckConn
	c = http2Client(t, &apns.Config{BundleID: apnstest.BundleID, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := n.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		p := raw.(*plain.Conn)
		s := &stuckConn{Conn: p.Conn, dead: make(chan struct{})}
		mu.Lock()
		last = s
		mu.Unlock()
		return &plain.Conn{Conn: s, Protocol: p.Protocol}, nil
	}}, func(c *apns.Client) { c.Addr, c.MaxConns = binaryGateway, 1 }) // MaxConns is for HTTP/2
	return c, func() {
		mu.Lock()
		defer mu.Unlock()
		last.mu.Lock()
		defer last.mu.Unlock()
		last.stuck = make(chan struct{})
	}
}

// What is pushed while a gateway has just stopped reading, or later, waits a second at most
// before it goes over another connection.
func TestPushToStuckGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stick := stuckClient(t)
		var pushes sync.WaitGroup
		wantAccepted(t, allAtOnce(t.Context(), c, 1))
		pushes.Go(func() { c.Push(t.Context(), device(2)) })
		time.Sleep(10 * time.Millisecond)
		stick()
		pushes.Go(func() { c.Push(t.Context(), device(3)) }) // is stuck in the write
		for i, after := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
			pushes.Go(func() {
				time.Sleep(after)
				start := time.Now()
				if _, err := c.Push(t.Context(), device(10+i)); err != nil {
					t.Errorf("pushed after %v: %v", after, err)
				}
				if d := time.Since(start); d > 2*time.Second { // and the barrier
					t.Errorf("pushed after %v: the outcome came after %v, want a second later", after, d)
				}
			})
		}
		pushes.Wait()
	})
}

// A gateway that stops reading holds up its own messages, and no others: another connection
// is dialed for those.
func TestGatewayThatStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stick := stuckClient(t)
		var wg sync.WaitGroup
		wantAccepted(t, allAtOnce(t.Context(), c, 1))
		wg.Go(func() { allAtOnce(t.Context(), c, 10) })
		time.Sleep(10 * time.Millisecond)
		stick()
		wg.Go(func() { allAtOnce(t.Context(), c, 2500) })
		for i := range 20 {
			wg.Go(func() {
				time.Sleep(time.Duration(i+1) * 200 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if _, err := c.Push(ctx, device(90000+i)); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

// With AssumeAcceptedAfter there may be no answer to a barrier: Connect does not wait for one.
func TestConnectWithoutBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := http2Client(t, &apns.Config{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			a, b := net.Pipe()
			go io.Copy(io.Discard, b)
			return &plain.Conn{Conn: a}, nil
		}}, func(c *apns.Client) { c.Addr = binaryGateway; c.AssumeAcceptedAfter = 2 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		c.Connect(ctx)
		cancel()
		start := time.Now()
		_, err := c.Push(t.Context(), device(1))
		if d := time.Since(start); err != nil || d > 10*time.Second {
			t.Errorf("Push took %v: %v", d, err)
		}
	})
}

// An open connection on which some messages fail does not reset the back-off of the dials for
// a second one.
func TestDialBackOffWhileConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k atomic.Int64
		server := inMemory(t, func(m *apns.Message) error {
			if k.Add(1)%50 == 0 {
				return apns.ReasonInternalServerError
			}
			return answerAfter(100 * time.Millisecond)
		}, func(s *apnstest.Server) { s.StreamLimit = 10 })
		servers := newNetwork(server)
		var dials atomic.Int64
		c := http2Client(t, &apns.Config{BundleID: apnstest.BundleID, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return servers.dial(ctx, network, addr)
			}
			return nil, errors.New("down")
		}}, func(c *apns.Client) { c.Addr = apns.Production })
		var wg sync.WaitGroup
		start := time.Now()
		for range 100 {
			wg.Go(func() {
				for time.Since(start) < 100*time.Second {
					c.Push(t.Context(), device(1))
				}
			})
		}
		wg.Wait()
		if n := dials.Load(); n > 40 {
			t.Errorf("%d dials in 100 s, want no more than 40", n)
		}
	})
}
