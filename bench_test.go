package apns_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/apns"
)

// Each benchmark has its floor beside it, which is what the machine takes for
// the same bytes without the package. Compare the two of one run.

// The floor of AppendMsg is an encoder that checks nothing but the hexadecimal.
func BenchmarkAppendMsg(b *testing.B) {
	m := message(1)
	buf := make([]byte, 0, 4096)
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = appendBare(buf[:0], m.Token, m.ID, 0, m.Payload)
		}
	})
	b.Run("apns", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = apns.AppendMsg(buf[:0], m)
		}
	})
	framed := message(1)
	framed.Priority = apns.PriorityImmediate
	b.Run("apns framed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = apns.AppendMsg(buf[:0], framed)
		}
	})
}

var hexValues = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i := range 10 {
		values['0'+i] = byte(i)
	}
	for i := range 6 {
		values['a'+i], values['A'+i] = byte(10+i), byte(10+i)
	}
	return values
}()

func appendBare(b []byte, token string, id, expiry uint32, payload []byte) ([]byte, bool) {
	b = append(b, 1)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, expiry)
	b = binary.BigEndian.AppendUint16(b, uint16(len(token)/2))
	var bad byte
	for i := 0; i+1 < len(token); i += 2 {
		hi, lo := hexValues[token[i]], hexValues[token[i+1]]
		bad |= hi | lo
		b = append(b, hi<<4|lo)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...), bad < 16
}

// bareTLS returns a connection with nothing but TLS.
func bareTLS(tb testing.TB, config *apns.Config) *tls.Conn {
	raw, err := config.DialContext(tb.Context(), "tcp", "")
	if err != nil {
		tb.Fatal(err)
	}
	tlsConfig := config.TLS.Clone()
	tlsConfig.ServerName = "localhost"
	return tls.Client(raw, tlsConfig)
}

// The floor of WritePushMsg is the same bytes written to a tls.Conn.
func BenchmarkWritePushMsg(b *testing.B) {
	config := sink(b)
	m := message(1)
	wire, err := apns.BuildMsg(m)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("floor", func(b *testing.B) {
		c := bareTLS(b, config)
		defer c.Close()
		write(b, func() error { _, err := c.Write(wire); return err })
	})
	cancellable, cancel := context.WithCancel(b.Context())
	defer cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
	}{{"Background", context.Background()}, {"cancellable", cancellable}} {
		b.Run("apns "+test.name, func(b *testing.B) {
			c, err := apns.Dial(b.Context(), net.JoinHostPort("localhost", "2195"), config)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			write(b, func() error { return c.WritePushMsg(test.ctx, m) })
		})
	}
}

func write(b *testing.B, f func() error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
}

// The floor of ReadMsg is to make and fill what it returns: the message, its
// token in hexadecimal, its payload.
var read *apns.Message // keeps the compiler from leaving out what is read

func BenchmarkReadMsg(b *testing.B) {
	wire, err := apns.BuildMsg(message(1))
	if err != nil {
		b.Fatal(err)
	}
	stream := bytes.Repeat(wire, 1000)
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		var token [64]byte
		for b.Loop() {
			hex.Encode(token[:], wire[11:43])
			read = &apns.Message{Token: string(token[:]), Payload: bytes.Clone(wire[45:])}
		}
	})
	b.Run("apns", func(b *testing.B) {
		b.ReportAllocs()
		src := bytes.NewReader(stream)
		r := bufio.NewReaderSize(src, 64<<10)
		n := 0
		for b.Loop() {
			if n == 1000 {
				n = 0
				src.Reset(stream)
				r.Reset(src)
			}
			if read, err = apns.ReadMsg(r); err != nil {
				b.Fatal(err)
			}
			n++
		}
	})
}

// The floor is one writer and one reader with hand-written frames and no bookkeeping of
// outcomes: each caller hands over a message and waits for its answer. The server
// answers without looking: what it costs is in both.
func BenchmarkHTTP2(b *testing.B) {
	config := http2Sink(b)
	m := message(1)
	m.Topic = "com.example.app"
	for _, inFlight := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("floor %d in flight", inFlight), func(b *testing.B) {
			bare := newBareHTTP2(b, config, m)
			defer bare.close()
			inParallel(b, inFlight, func() error { return bare.push(b.Context(), m) })
		})
		b.Run(fmt.Sprintf("apns %d in flight", inFlight), func(b *testing.B) {
			conn, err := apns.Dial(b.Context(), "localhost:443", config)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			inParallel(b, inFlight, func() error { return conn.WritePushMsg(b.Context(), m) })
		})
	}
}

// A bareHTTP2 pushes over HTTP/2 and cares for nothing but speed.
type bareHTTP2 struct {
	conn    *tls.Conn
	wake    chan struct{}
	running sync.WaitGroup
	calls   sync.Pool

	mu      sync.Mutex // protects following
	queue   []*bareCall
	answers map[uint32]*bareCall
}

type bareCall struct {
	m    *apns.Message
	done chan string // told the apns-id
}

func newBareHTTP2(tb testing.TB, config *apns.Config, m *apns.Message) *bareHTTP2 {
	config.TLS.NextProtos = []string{"h2"}
	defer func() { config.TLS.NextProtos = nil }()
	h := &bareHTTP2{conn: bareTLS(tb, config), wake: make(chan struct{}, 1), answers: make(map[uint32]*bareCall)}
	h.calls.New = func() any { return &bareCall{done: make(chan string, 1)} }
	h.running.Go(func() { h.write(m.Topic) })
	h.running.Go(h.read)
	return h
}

func (h *bareHTTP2) push(ctx context.Context, m *apns.Message) error {
	c := h.calls.Get().(*bareCall)
	c.m = m
	h.mu.Lock()
	h.queue = append(h.queue, c)
	first := len(h.queue) == 1
	h.mu.Unlock()
	if first {
		h.signal()
	}
	select {
	case <-c.done:
		h.calls.Put(c)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *bareHTTP2) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *bareHTTP2) write(topic string) {
	const authority = "localhost"
	out := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + // SETTINGS
		"\x00\x00\x00\x04\x01\x00\x00\x00\x00") // and the answer to those of the server
	stream := uint32(1)
	for range h.wake {
		runtime.Gosched()
		for {
			h.mu.Lock()
			n := 0
			for ; n < len(h.queue) && len(h.answers) < 1000 && len(out) < 16<<10; n++ {
				c := h.queue[n]
				h.answers[stream] = c
				start := len(out)
				out = binary.BigEndian.AppendUint32(append(out, 0, 0, 0, 1, 4), stream) // HEADERS
				out = append(out, 0x83, 0x87, 0x04, byte(len("/3/device/")+len(c.m.Token)))
				out = append(append(out, "/3/device/"...), c.m.Token...)
				if stream == 1 { // what goes into the table
					out = append(append(out, 0x41, byte(len(authority))), authority...)
					out = append(append(out, 0x40, byte(len("apns-topic"))), "apns-topic"...)
					out = append(append(out, byte(len(topic))), topic...)
					out = append(append(out, 0x40, byte(len("apns-push-type"))), "apns-push-type"...)
					out = append(append(out, byte(len("alert"))), "alert"...)
				} else {
					out = append(out, 0xc0, 0xbf, 0xbe)
				}
				size := len(out) - start - 9
				out[start+1], out[start+2] = byte(size>>8), byte(size)
				out = append(out, 0, byte(len(c.m.Payload)>>8), byte(len(c.m.Payload)), 0, 1) // DATA
				out = append(binary.BigEndian.AppendUint32(out, stream), c.m.Payload...)
				stream += 2
			}
			h.queue = h.queue[:copy(h.queue, h.queue[n:])]
			h.mu.Unlock()
			if len(out) == 0 {
				break
			}
			if _, err := h.conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

func (h *bareHTTP2) read() {
	defer close(h.wake)
	r := bufio.NewReaderSize(h.conn, 32<<10)
	var done []*bareCall
	var ids []string
	for {
		if r.Buffered() < 9 && len(done) > 0 {
			h.mu.Lock()
			more := len(h.queue) > 0
			h.mu.Unlock()
			if more {
				h.signal()
			}
			for i, c := range done {
				c.done <- ids[i]
			}
			done, ids = done[:0], ids[:0]
		}
		head, err := r.Peek(9)
		if err != nil {
			return
		}
		size, kind, stream := int(head[1])<<8|int(head[2]), head[3], binary.BigEndian.Uint32(head[5:])
		frame, err := r.Peek(9 + size)
		if err != nil {
			return
		}
		if kind == 1 { // HEADERS
			h.mu.Lock()
			done = append(done, h.answers[stream])
			delete(h.answers, stream)
			h.mu.Unlock()
			ids = append(ids, string(frame[len(frame)-36:]))
		}
		r.Discard(9 + size)
	}
}

// close must be called when no push is left.
func (h *bareHTTP2) close() {
	h.conn.Close()
	h.running.Wait()
}

// The floor of PushAll on the binary protocol is the bare encoder, whose bytes are
// written in TLS records of full size, on one connection and with no account of
// them.
func BenchmarkPushAll(b *testing.B) {
	config := binarySink(b)
	m := message(1)
	b.Run("floor", func(b *testing.B) {
		c := bareTLS(b, config)
		defer c.Close()
		b.ReportAllocs()
		buf := make([]byte, 0, 16<<10)
		id := uint32(0)
		for b.Loop() {
			id++
			buf, _ = appendBare(buf, m.Token, id, 0, m.Payload)
			if len(buf) > 16<<10-200 {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				buf = buf[:0]
			}
		}
	})
	b.Run("apns", func(b *testing.B) {
		c := &apns.Client{Addr: "localhost:2195", Config: config}
		defer c.Close()
		pushAll(b, c, m)
	})
}

// The floor of a Client over HTTP/2 is a Conn.
func BenchmarkClientHTTP2(b *testing.B) {
	config := http2Sink(b)
	config.BundleID = "com.example.app"
	m := message(1)
	b.Run("floor 1000 goroutines", func(b *testing.B) {
		conn, err := apns.Dial(b.Context(), "localhost:443", config)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		inParallel(b, 1000, func() error { return conn.WritePushMsg(b.Context(), m) })
	})
	b.Run("Push 1000 goroutines", func(b *testing.B) {
		c := &apns.Client{Addr: "localhost:443", Config: config}
		defer c.Close()
		inParallel(b, 1000, func() error { _, err := c.Push(b.Context(), m); return err })
	})
	b.Run("PushAll on one connection", func(b *testing.B) {
		c := &apns.Client{Addr: "localhost:443", Config: config, MaxConns: 1}
		defer c.Close()
		pushAll(b, c, m)
	})
}

func pushAll(b *testing.B, c *apns.Client, m *apns.Message) {
	b.ReportAllocs()
	b.ResetTimer()
	for r := range c.PushAll(b.Context(), func(yield func(*apns.Message) bool) {
		for range b.N {
			if !yield(m) {
				return
			}
		}
	}) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

// binarySink starts a binary gateway on loopback that accepts everything, looking at
// no more than it needs to know where a message ends.
func binarySink(b *testing.B) *apns.Config {
	return serve(b, nil, func(c net.Conn) {
		r := bufio.NewReaderSize(c, 64<<10)
		for {
			head, err := r.Peek(11)
			if err != nil {
				return
			}
			token := int(binary.BigEndian.Uint16(head[9:]))
			if token == 0 { // a barrier
				c.Write(append([]byte{8, 2}, head[1:5]...))
				c.(*tls.Conn).CloseWrite()
				io.Copy(io.Discard, r)
				return
			}
			head, err = r.Peek(11 + token + 2)
			if err != nil {
				return
			}
			if _, err := r.Discard(13 + token + int(binary.BigEndian.Uint16(head[11+token:]))); err != nil {
				return
			}
		}
	})
}

// inParallel calls f b.N times from so many goroutines.
func inParallel(b *testing.B, goroutines int, f func() error) {
	b.ReportAllocs()
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range goroutines {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// http2Sink starts an HTTP/2 server on loopback that accepts every request
// without looking at it, and returns the configuration that reaches it.
func http2Sink(tb testing.TB) *apns.Config {
	return serve(tb, []string{"h2"}, func(c net.Conn) {
		r := bufio.NewReaderSize(c, 64<<10)
		w := bufio.NewWriterSize(c, 64<<10)
		r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		w.Write([]byte{0, 0, 12, 4, 0, 0, 0, 0, 0, // SETTINGS
			0, 3, 0, 0, 0x04, 0x00, // 1024 streams
			0, 4, 0, 0x10, 0, 0}) // windows of 1 MiB
		w.Write([]byte{0, 0, 4, 8, 0, 0, 0, 0, 0, 0x40, 0, 0, 0}) // WINDOW_UPDATE by 1 GiB
		answer := append([]byte{0x88, 0, 7}, "apns-id"...)        // status 200
		answer = append(append(answer, 36), "123e4567-e89b-12d3-a456-4266554400a0"...)
		received := 0
		for {
			if r.Buffered() < 9 && w.Flush() != nil {
				return
			}
			head, err := r.Peek(9)
			if err != nil {
				return
			}
			size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
			kind, flags, id := head[3], head[4], [4]byte(head[5:])
			switch kind {
			case 0: // DATA
				if received += size; received > 1<<29 {
					w.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 4, 8, 0, 0, 0, 0, 0}, uint32(received)))
					received = 0
				}
				if flags&1 != 0 { // the end of a request
					w.Write([]byte{0, 0, byte(len(answer)), 1, 5})
					w.Write(id[:])
					w.Write(answer)
				}
			case 4: // SETTINGS
				if flags&1 == 0 {
					w.Write([]byte{0, 0, 0, 4, 1, 0, 0, 0, 0})
				}
			}
			if _, err := r.Discard(9 + size); err != nil {
				return
			}
		}
	})
}
