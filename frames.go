package apns

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A frameConn is a connection under net/http that sees the frames which pass, for
// what net/http keeps to itself: how many streams the server allows, why it goes
// away, and whether it still answers. On their way out it gathers what is written
// at about the same time, since net/http writes each message in two pieces, and a
// TLS record for each piece costs more than all else about it.
type frameConn struct {
	net.Conn
	disconnect func()
	explain    func(error) error
	onLimit    func(streams int)
	onGoAway   func(*goAway)
	onEnd      func(error)
	ready      chan struct{} // closed when net/http knows the server's SETTINGS, or the connection has ended
	ended      chan struct{} // closed when there is nothing more to read

	in      frameScanner // of the one goroutine that reads
	heard   atomic.Int64 // how often something was read
	writing sync.WaitGroup

	wmu      sync.Mutex   // protects following
	out      frameScanner // of what net/http writes
	changed  *sync.Cond   // of wmu
	gathered []byte
	werr     error // that ended the writing

	mu      sync.Mutex // protects following
	isReady bool
	isEnded bool
	err     error // that ended the connection
	limits  []int // of the SETTINGS that net/http has not acknowledged
	limit   int   // of the last one that it has
	timer   *time.Timer
}

// start begins to write what is gathered. Close ends it.
func (f *frameConn) start() {
	f.ready, f.ended = make(chan struct{}), make(chan struct{})
	f.changed = sync.NewCond(&f.wmu)
	f.limit = 1000 // net/http's, for a server that says nothing
	f.in.frame = f.received
	f.out.frame = f.sent
	f.out.skip = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	f.writing.Go(f.write)
}

// Read reads from the connection and looks at the frames that pass.
func (f *frameConn) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.heard.Add(1)
	f.in.look(p[:n])
	if err != nil {
		f.mu.Lock()
		if !f.isEnded {
			f.isEnded = true
			close(f.ended)
		}
		f.mu.Unlock()
		if err == io.EOF {
			f.fail(errors.New("the server closed the connection"))
		} else {
			f.fail(f.explain(err))
		}
	}
	return n, err
}

// maxGathered is how much is gathered at most, of messages of a few hundred bytes
// each, while the connection takes no more.
const maxGathered = 64 << 10

// Write gathers what is to be written.
func (f *frameConn) Write(p []byte) (int, error) {
	f.wmu.Lock()
	defer f.wmu.Unlock()
	for len(f.gathered) >= maxGathered && f.werr == nil {
		f.changed.Wait()
	}
	if f.werr != nil {
		return 0, f.werr
	}
	if len(f.gathered) == 0 {
		f.changed.Broadcast()
	}
	f.gathered = append(f.gathered, p...)
	f.out.look(p)
	return len(p), nil
}

// write writes what was gathered, until the connection ends.
func (f *frameConn) write() {
	var b []byte
	for {
		f.wmu.Lock()
		for len(f.gathered) == 0 && f.werr == nil {
			f.changed.Wait()
		}
		f.wmu.Unlock()
		runtime.Gosched() // whoever has something to add may do so
		f.wmu.Lock()
		if f.werr != nil {
			f.wmu.Unlock()
			return
		}
		b, f.gathered = f.gathered, b[:0]
		f.changed.Broadcast()
		f.wmu.Unlock()
		if _, err := f.Conn.Write(b); err != nil {
			// The server may have said why: net/http is to read that first.
			t := time.NewTimer(lastWords)
			select {
			case <-f.ended:
			case <-t.C:
			}
			t.Stop()
			f.fail(f.explain(err))
			f.stopWriting(err)
			return
		}
	}
}

func (f *frameConn) stopWriting(err error) {
	f.wmu.Lock()
	defer f.wmu.Unlock()
	if f.werr == nil {
		f.werr = err
	}
	f.changed.Broadcast()
}

// Close closes the connection without waiting for the server. It is net/http that
// calls it, unless we did, because it cannot go on.
func (f *frameConn) Close() error {
	f.fail(errors.New("the server broke the rules of HTTP/2"))
	f.mu.Lock()
	if f.timer != nil {
		f.timer.Stop()
	}
	if !f.isEnded {
		f.isEnded = true
		close(f.ended)
	}
	f.mu.Unlock()
	f.stopWriting(net.ErrClosed)
	f.disconnect()
	f.writing.Wait()
	return nil
}

// fail says what ended the connection. The first call counts.
func (f *frameConn) fail(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	err = f.err
	f.mu.Unlock()
	f.onEnd(err)
	f.setReady()
}

func (f *frameConn) setReady() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isReady {
		f.isReady = true
		close(f.ready)
	}
}

// The frames to look at. See RFC 9113, section 6.
const (
	frameSettings = 0x4
	framePing     = 0x6
	frameGoAway   = 0x7
	flagAck       = 0x1

	settingMaxConcurrentStreams = 0x3
)

// received looks at a frame from the server.
func (f *frameConn) received(kind, flags byte, payload []byte) {
	switch {
	case kind == frameSettings && flags&flagAck == 0:
		f.mu.Lock()
		defer f.mu.Unlock()
		limit := f.limit
		if n := len(f.limits); n > 0 {
			limit = f.limits[n-1]
		}
		for ; len(payload) >= 6; payload = payload[6:] {
			if binary.BigEndian.Uint16(payload) == settingMaxConcurrentStreams {
				limit = int(min(binary.BigEndian.Uint32(payload[2:]), 1<<30))
			}
		}
		f.limits = append(f.limits, limit)
		if f.isReady {
			f.setLimit()
		}
	case kind == frameGoAway && len(payload) >= 8:
		g := &goAway{code: binary.BigEndian.Uint32(payload[4:]), debug: string(payload[8:])}
		var a answer
		if json.Unmarshal(payload[8:], &a) == nil {
			g.reason = a.Reason
		}
		f.onGoAway(g)
	}
}

// sent looks at a frame from net/http.
func (f *frameConn) sent(kind, flags byte, _ []byte) {
	switch {
	case kind == frameSettings && flags&flagAck != 0:
		f.mu.Lock()
		if len(f.limits) > 0 {
			f.limit, f.limits = f.limits[0], f.limits[1:]
			f.setLimit()
		}
		f.mu.Unlock()
		f.setReady()
	case kind == framePing && flags&flagAck == 0:
		f.expectAnswer()
	}
}

// setLimit makes the limit known; the caller holds f.mu. A lower one counts at
// once. A higher one counts when net/http knows of it: it would let a message
// that comes before wait for another to end, and all others with it.
func (f *frameConn) setLimit() {
	limit := f.limit
	for _, n := range f.limits {
		limit = min(limit, n)
	}
	f.onLimit(limit)
}

// expectAnswer is told of a PING, which net/http sends when a message got no
// answer in its time and nothing else was heard. If nothing is heard then either,
// the connection is dead, and to wait for anything more is in vain.
func (f *frameConn) expectAnswer() {
	heard := f.heard.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(pingTimeout, func() {
		if f.heard.Load() == heard {
			f.fail(errors.New("the server does not answer, not even a PING"))
			f.Close()
		}
	})
}

const pingTimeout = 10 * time.Second

// A frameScanner finds the frames in a stream of bytes that comes in pieces.
type frameScanner struct {
	skip  int // bytes before the first frame
	frame func(kind, flags byte, payload []byte)

	head    [9]byte
	n       int    // how much of head there is
	left    int    // of the frame's payload
	payload []byte // of a SETTINGS or GOAWAY, as far as it matters
}

func (s *frameScanner) look(p []byte) {
	k := min(s.skip, len(p))
	s.skip -= k
	for p = p[k:]; len(p) > 0; {
		if s.n < len(s.head) {
			k := copy(s.head[s.n:], p)
			s.n += k
			p = p[k:]
			if s.n < len(s.head) {
				return
			}
			s.left = int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
			s.payload = s.payload[:0]
		}
		k := min(s.left, len(p))
		if t := s.head[3]; (t == frameSettings || t == frameGoAway) && len(s.payload) < 1<<12 {
			s.payload = append(s.payload, p[:k]...)
		}
		s.left -= k
		p = p[k:]
		if s.left == 0 {
			s.n = 0
			s.frame(s.head[3], s.head[4], s.payload)
		}
	}
}
