package apns_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns/apnstest"
)

// The clock of a world.
//
// Two things that happen at the same instant run in an order of the Go scheduler's own.
// So each actor in a world has instants of its own: those whose number of nanoseconds
// since the start, modulo grain, is the actor's. Only the timers of the Client are at
// instants that the world does not choose. They are so few that one in tens of thousands
// meets another event; then that world may not repeat.
const grain = 256 // nanoseconds

// The actors. Those in the plural have a number after that of the constant.
const (
	actorMain      = 0
	actorClose     = 1
	actorSettings  = 2 // changes the settings of HTTP/2
	actorDial      = 3
	actorStats     = 4
	actorHandler   = 5 // of all connections of the server, which are independent
	actorFault     = 6 // a fault with a delay
	actorsFeeder   = 8
	actorsLoop     = 10 // the body of a PushAll loop
	actorsContext  = 12 // of a PushAll
	actorsPusher   = 20
	actorsDeadline = 40 // of a Push
	actorsConn     = 64 // perConn of each connection
)

// The actors of a connection.
const (
	connWriter = iota // the Client's goroutine that writes
	connOut           // delivers what the client wrote
	connIn            // delivers what the server wrote
	connBreak
	perConn
)

// until returns the time from now to the first instant of an actor that is at least
// after from now. It is never 0.
func (w *world) until(actor int, after time.Duration) time.Duration {
	now := time.Since(w.start)
	at := now + max(after, 1)
	return at + (time.Duration(actor)-at%grain+grain)%grain - now
}

func (w *world) sleep(actor int, after time.Duration) { time.Sleep(w.until(actor, after)) }

// A simConn is the client's end of a connection over a poor network.
//
// What one end writes is on its way until a seeded instant, at which all of it can be
// read at the other end, however it was cut into writes. On a slow connection it may take
// long, or a part of it may come first. The choices go by the number of the delivery in
// its direction, never by that of a read or write.
type simConn struct {
	net.Conn // in memory; what is written to it can be read by the server at once
	world    *world
	number   uint64
	slow     bool
	size     int           // bytes that may be on their way in a direction
	breaks   time.Duration // since the start of the world: the next delivery after that is the last; 0: none

	mu      sync.Mutex // protects following
	changed *sync.Cond
	closed  bool // by the client
	broken  bool
	timer   *time.Timer // breaks the connection where nothing is delivered

	sent    []byte // by the client, and on its way
	sendErr error  // of what is sent from now on

	coming     []byte // from the server, and on its way
	comingErr  error  // what comes after that
	delivering bool   // a delivery is due
	delivered  int    // deliveries to the client so far
	records    recordScanner
	received   []byte
	receiveErr error // what comes after that

	reading, writing simDeadline
}

func newSimConn(raw net.Conn, w *world, number uint64) *simConn {
	c := &simConn{Conn: raw, world: w, number: number, size: w.server.BufferSize}
	c.changed = sync.NewCond(&c.mu)
	c.slow = w.chance(0.5, "is slow", number)
	if !w.talking && w.chance(0.1, "breaks", number) {
		after := w.duration(time.Millisecond<<w.pick(14, "breaks within", number), "breaks after", number)
		c.breaks = time.Since(w.start) + after
		c.timer = time.AfterFunc(w.until(c.actor(connBreak), after+100*time.Millisecond), c.snap)
	}
	go c.carryOut()
	go c.carryIn()
	return c
}

func (c *simConn) actor(which int) int {
	return actorsConn + perConn*int(c.number%((grain-actorsConn)/perConn)) + which
}

// Pause has the writer write at an instant of its own: see plain.Pauser.
func (c *simConn) Pause() { c.world.sleep(c.actor(connWriter), 1) }

// delay returns how long the nth delivery in a direction takes.
func (c *simConn) delay(direction string, n int) time.Duration {
	if c.slow && c.world.chance(0.2, "late", direction, c.number, n) {
		return c.world.duration(100*time.Millisecond, "is late by", direction, c.number, n)
	}
	return c.world.duration(20*time.Microsecond, "takes", direction, c.number, n)
}

// part returns how many of so many bytes come with the nth delivery in a direction, and
// whether it is the last because the connection breaks.
func (c *simConn) part(direction string, n, bytes int) (part int, last bool) {
	if c.breaks > 0 && time.Since(c.world.start) >= c.breaks {
		return int(c.world.pick(uint64(bytes)+1, "comes before the end", direction, c.number, n)), true
	}
	if c.slow && bytes > 1 && c.world.chance(0.2, "partial", direction, c.number, n) {
		return 1 + int(c.world.pick(uint64(bytes)-1, "part", direction, c.number, n)), false
	}
	return bytes, false
}

// snap breaks the connection: nothing that is on its way arrives.
func (c *simConn) snap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return
	}
	c.world.log("connection %d breaks", c.number)
	c.world.mu.Lock()
	c.world.tally.Breaks++
	c.world.mu.Unlock()
	c.broken, c.sent, c.coming = true, nil, nil
	c.changed.Broadcast()
	c.Conn.Close()
}

// A recordScanner finds the ends of TLS records. A client takes what it reads record by
// record. What it does about one must not depend on whether it has come to the next one
// yet, so no two of them are delivered at the same instant.
type recordScanner struct {
	header [5]byte // of the record
	have   int     // bytes of the header that have come
	left   int     // bytes of the record after those
}

// maxDelivery is how many bytes are delivered at a time: as much as the client reads at
// a time.
const maxDelivery = 8 << 10

// next returns how much of b is delivered together, and takes note that it is.
func (s *recordScanner) next(b []byte, tls bool) int {
	b = b[:min(len(b), maxDelivery)]
	if !tls {
		return len(b)
	}
	for i := range b {
		if s.have < len(s.header) {
			s.header[s.have] = b[i]
			if s.have++; s.have == len(s.header) {
				s.left = int(binary.BigEndian.Uint16(s.header[3:]))
			}
		} else {
			s.left--
		}
		if s.have == len(s.header) && s.left == 0 {
			s.have = 0
			return i + 1
		}
	}
	return len(b)
}

// snapLater breaks the connection after the last delivery.
func (c *simConn) snapLater() {
	time.AfterFunc(c.world.until(c.actor(connBreak), 1), c.snap)
}

// From the client to the server.

func (c *simConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return n, c.opError("write", net.ErrClosed)
		case c.writing.passed:
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case c.broken:
			return n, c.opError("write", syscall.ECONNRESET)
		case c.sendErr != nil:
			return n, c.opError("write", c.sendErr)
		case len(p) == 0:
			return n, nil
		}
		if k := min(len(p), c.size-len(c.sent)); k > 0 {
			c.sent = append(c.sent, p[:k]...)
			n, p = n+k, p[k:]
			c.changed.Broadcast()
			continue
		}
		c.changed.Wait()
	}
}

// carryOut delivers what the client sends, and then that it has closed the connection.
func (c *simConn) carryOut() {
	for n := 0; ; n++ {
		if !c.waitSent() {
			return
		}
		c.world.sleep(c.actor(connOut), c.delay("out", n))
		c.mu.Lock()
		if c.closed && len(c.sent) == 0 {
			c.mu.Unlock()
			c.Conn.Close()
			return
		}
		part, last := c.part("out", n, len(c.sent))
		c.world.log("connection %d: %d of %d bytes to the server", c.number, part, len(c.sent))
		b := c.sent[:part:part]
		c.sent = c.sent[part:]
		c.changed.Broadcast()
		c.mu.Unlock()
		_, err := c.Conn.Write(b)
		if last {
			c.snapLater()
		}
		if err != nil {
			c.mu.Lock()
			c.sent, c.sendErr = nil, syscall.EPIPE
			c.changed.Broadcast()
			c.mu.Unlock()
		}
	}
}

// waitSent waits until there is something to deliver. It is false if there will be
// nothing more, and the connection to the server was closed or is about to be.
func (c *simConn) waitSent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.sent) == 0 && !c.closed && !c.broken {
		c.changed.Wait()
	}
	return !c.broken
}

// From the server to the client.

// carryIn takes what the server sends, and has it delivered.
func (c *simConn) carryIn() {
	var buf [4096]byte
	for {
		n, err := c.Conn.Read(buf[:min(c.waitRoom(), len(buf))])
		c.mu.Lock()
		switch {
		case c.broken:
		case c.closed:
			if n > 0 {
				c.setReset()
			}
		default:
			c.coming = append(c.coming, buf[:n]...)
			c.comingErr = err
			if err != nil && err != io.EOF && c.world.chance(0.5, "reset overtakes", c.number) {
				c.coming = nil
			}
			c.deliverLater()
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// waitRoom waits until there is room for more from the server, and returns for how many
// bytes. No more than that is read, so that it does not matter how the server's writes
// are cut up.
func (c *simConn) waitRoom() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		room := c.size - len(c.coming) - len(c.received)
		if c.closed || c.broken {
			return c.size
		}
		if room > 0 {
			return room
		}
		c.changed.Wait()
	}
}

// setReset has the server get a reset when the connection is closed.
func (c *simConn) setReset() { c.Conn.(interface{ SetLinger(int) error }).SetLinger(0) }

// deliverLater delivers what comes from the server, unless that is due already. The
// caller holds c.mu.
func (c *simConn) deliverLater() {
	if c.delivering || len(c.coming) == 0 && c.comingErr == nil {
		return
	}
	c.delivering = true
	time.AfterFunc(c.world.until(c.actor(connIn), c.delay("in", c.delivered)), c.deliver)
}

func (c *simConn) deliver() {
	c.mu.Lock()
	c.delivering = false
	if c.closed || c.broken {
		c.mu.Unlock()
		return
	}
	n := c.delivered
	c.delivered++
	records := c.records
	part, last := c.part("in", n, records.next(c.coming, c.world.tls))
	c.records.next(c.coming[:part], c.world.tls)
	c.world.log("connection %d: %d of %d bytes to the client, then %v", c.number, part, len(c.coming), c.comingErr)
	c.received = append(c.received, c.coming[:part]...)
	c.coming = c.coming[part:]
	switch {
	case last || len(c.coming) > 0 || c.comingErr == nil:
	case part == 0 || !c.world.http2 && c.world.chance(0.5, "end comes with the rest", c.number, n):
		// Over HTTP/2 the end has an instant of its own: the client may do the one thing
		// about what it read before, and the other about the end.
		c.receiveErr, c.comingErr = c.comingErr, nil
		if c.receiveErr != io.EOF {
			c.receiveErr = syscall.ECONNRESET
		}
	}
	if last {
		c.coming = nil
		c.snapLater()
	} else {
		c.deliverLater()
	}
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *simConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.reading.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(c.received) > 0:
			n := copy(p, c.received)
			c.received = c.received[n:]
			c.changed.Broadcast()
			return n, nil
		case c.broken:
			return 0, c.opError("read", syscall.ECONNRESET)
		case c.receiveErr == io.EOF:
			return 0, io.EOF
		case c.receiveErr != nil:
			return 0, c.opError("read", c.receiveErr)
		}
		c.changed.Wait()
	}
}

// The end.

// Close closes the client's end. The server learns that at a seeded instant, after what
// was sent. As with TCP it gets a reset, and not all that was sent, if something was not
// read here.
func (c *simConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.reading.stop()
	c.writing.stop()
	c.changed.Broadcast()
	if len(c.received)+len(c.coming) > 0 && !c.broken {
		c.sent, c.broken = nil, true
		c.setReset()
		time.AfterFunc(c.world.until(c.actor(connOut), c.delay("reset", 0)), func() { c.Conn.Close() })
	}
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *simConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.reading, t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writing, t) }

func (c *simConn) setDeadline(d *simDeadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.stop()
	if d.passed = !t.IsZero() && !t.After(time.Now()); !t.IsZero() && !d.passed {
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if d.timer == timer { // the deadline was not changed in the meantime
				d.passed = true
				c.changed.Broadcast()
			}
		})
		d.timer = timer
	}
	c.changed.Broadcast()
	return nil
}

func (c *simConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "simulation", Err: err}
}

// A simDeadline is the deadline for reads or for writes.
type simDeadline struct {
	timer  *time.Timer // nil: none
	passed bool
}

func (d *simDeadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// What arrives, and when, does not depend on how writes are cut up.
func TestSimConn(t *testing.T) {
	for seed := uint64(1); seed <= 50; seed++ {
		want := simConnLog(t, seed, 2000)
		for _, size := range []int{1, 7, 500} {
			if got := simConnLog(t, seed, size); !slices.Equal(got, want) {
				t.Errorf("seed %d, writes of %d bytes:\n%q, want\n%q", seed, size, got, want)
			}
		}
	}
}

// simConnLog sends 2,000 bytes in each direction over a connection, in writes of the
// size, and returns what arrives.
func simConnLog(t *testing.T, seed uint64, size int) []string {
	var toServer, toClient []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed)
		w.talking = true // the connection does not break
		w.start = time.Now()
		w.server = apnstest.NewUnstartedServer(nil)
		w.server.BufferSize = 600
		client, server := net.Pipe()
		c := newSimConn(client, w, 1)
		c.slow = true
		write := func(c net.Conn) {
			for b := bytes.Repeat([]byte("x"), 2000); len(b) > 0; b = b[min(size, len(b)):] {
				c.Write(b[:min(size, len(b))])
			}
		}
		// arrivals returns the number of bytes that arrive at each instant.
		arrivals := func(c net.Conn) (log []string) {
			var b [2000]byte
			at, sum := time.Duration(0), 0
			for total := 0; total < 2000; {
				n, err := c.Read(b[:])
				if err != nil {
					return append(log, err.Error())
				}
				if now := time.Since(w.start); now != at {
					log, at, sum = append(log, fmt.Sprint(sum, " at ", at)), now, 0
				}
				sum, total = sum+n, total+n
			}
			return append(log, fmt.Sprint(sum, " at ", at))
		}
		var ends sync.WaitGroup
		ends.Go(func() { write(c) })
		ends.Go(func() { write(server) })
		ends.Go(func() { toServer = arrivals(server) })
		ends.Go(func() { toClient = arrivals(c) })
		ends.Wait()
		c.Close()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("seed %d: the server reads %v after the client's Close, want EOF", seed, err)
		}
	})
	return append(toServer, toClient...)
}
