package apns_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/plain"
)

// A network connects a Client to one server after the other: the first dial reaches the
// first server, and so on; all dials after that reach the last one. The connections have
// no TLS.
type network struct {
	servers  []dialer
	protocol string        // that is negotiated
	takes    time.Duration // by each dial

	mu    sync.Mutex // protects following
	dials []time.Time
	conns []*networkConn // those that were opened
}

// newNetwork returns a network to servers in memory that speak HTTP/2.
func newNetwork(servers ...*apnstest.Server) *network {
	n := &network{protocol: "h2"}
	for _, s := range servers {
		n.servers = append(n.servers, s.Config().DialContext)
	}
	return n
}

// client returns a Client on the network. It is closed at the end of the test.
func (n *network) client(t *testing.T, settings ...func(*apns.Client)) *apns.Client {
	t.Helper()
	addr := apns.Production
	if n.protocol == "" {
		addr = "gateway.push.apple.com:2195"
	}
	set := append([]func(*apns.Client){func(c *apns.Client) { c.Addr = addr }}, settings...)
	return http2Client(t, &apns.Config{BundleID: apnstest.BundleID, DialContext: n.dial}, set...)
}

func (n *network) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	next := n.servers[min(len(n.dials), len(n.servers))-1]
	n.mu.Unlock()
	if n.takes > 0 {
		time.Sleep(n.takes)
	}
	raw, err := next(plain.Context(ctx), network, addr)
	if err != nil {
		return nil, err
	}
	if p, ok := raw.(*plain.Conn); ok {
		raw = p.Conn // of a scriptedPeer
	}
	c := &networkConn{Conn: raw}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return &plain.Conn{Conn: c, Protocol: n.protocol}, nil
}

// dialed returns how many dials there have been.
func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dials)
}

func (n *network) dialedAt(i int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i >= len(n.dials) {
		return time.Time{}
	}
	return n.dials[i]
}

func (n *network) conn(i int) *networkConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[i]
}

// A networkConn is the Client's end of a connection.
type networkConn struct {
	net.Conn

	mu       sync.Mutex    // protects following
	hole     bool          // what is written is lost
	late     time.Duration // by which the next write is
	writes   int
	closedAt time.Time
}

// cut loses all that is written from now on, as a path does that was cut.
func (c *networkConn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hole = true
}

// hold lets the next write, and so all after it, take so long.
func (c *networkConn) hold(late time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = late
}

// written returns how many writes there have been.
func (c *networkConn) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// closed returns when the Client closed the connection, or the zero time.
func (c *networkConn) closed() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closedAt
}

func (c *networkConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	hole, late := c.hole, c.late
	c.late = 0
	c.mu.Unlock()
	if late > 0 {
		time.Sleep(late)
	}
	if hole {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *networkConn) Close() error {
	c.mu.Lock()
	if c.closedAt.IsZero() {
		c.closedAt = time.Now()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// A framePeer is a server of HTTP/2 that does with each frame what a test says.
type framePeer struct {
	settings []h2.SettingValue
	// handle returns what is written when a frame was read. Nil answers each request
	// with status 200, and acknowledges PINGs.
	handle func(f *h2.Frame) []byte
}

// answerFrame accepts a message at its last frame, and acknowledges a PING.
func answerFrame(f *h2.Frame) []byte {
	switch {
	case f.Type == h2.TypeData && f.Has(h2.FlagEndStream):
		return h2.AppendHeaders(nil, h2.FlagEndStream, f.Stream, []byte{0x88}, h2.MinMaxFrameSize)
	case f.Type == h2.TypePing && !f.Has(h2.FlagAck):
		return h2.AppendPing(nil, h2.FlagAck, [8]byte(f.Payload))
	}
	return nil
}

func (p *framePeer) serve(c net.Conn) {
	c.Write(h2.AppendSettings(nil, p.settings...))
	r := h2.NewReader(c)
	for len(r.Unread()) < len(h2.Preface) {
		if r.Fill() != nil {
			return
		}
	}
	r.Discard(len(h2.Preface))
	// Writes are a goroutine's of their own, since both ends may be writing.
	out := make(chan []byte, 1<<16)
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(out)
	writing.Go(func() {
		for b := range out {
			c.Write(b)
		}
	})
	for {
		f, ok, err := r.Next()
		switch {
		case err != nil || !ok && r.Fill() != nil:
			return
		case !ok:
		case f.Type == h2.TypeSettings && !f.Has(h2.FlagAck):
			out <- h2.AppendSettingsAck(nil)
		default:
			if b := p.handle(&f); b != nil {
				out <- b
			}
		}
	}
}

// add appends a framePeer to the servers of the network, which is for one connection.
func (n *network) add(t *testing.T, p *framePeer) {
	n.servers = append(n.servers, scriptedPeer(t, p.serve).DialContext)
}

// classes returns the outcomes that the error of a message matches: for each error exactly
// one.
func classes(err error) (found []string) {
	if e, ok := errors.AsType[*apns.PushError](err); ok && e.Rejected() {
		found = append(found, "rejected")
	}
	for name, target := range map[string]error{"not sent": apns.ErrNotSent, "in doubt": apns.ErrInDoubt, "invalid": apns.ErrInvalid, "expired": apns.ErrExpired} {
		if errors.Is(err, target) {
			found = append(found, name)
		}
	}
	return found
}

// wantClass checks that the error matches that outcome, and no other. The outcome of a nil
// error is "accepted".
func wantClass(t *testing.T, err error, want string, matches ...error) {
	t.Helper()
	got := classes(err)
	if err == nil {
		got = []string{"accepted"}
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %v, whose outcomes are %q, want %q alone", err, got, want)
	}
	for _, m := range matches {
		if !errors.Is(err, m) {
			t.Errorf("got %v, want one that matches %v", err, m)
		}
	}
}

// acceptedTimes returns how often the servers accepted each message, by its token.
func acceptedTimes(servers ...*apnstest.Server) map[string]int {
	n := make(map[string]int)
	for _, s := range servers {
		for _, m := range s.Messages(apnstest.Accepted) {
			n[m.Token]++
		}
	}
	return n
}

// always returns a handler that gives each message the same answer.
func always(err error) func(*apns.Message) error {
	return func(*apns.Message) error { return err }
}
