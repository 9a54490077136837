package apnstest_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"example.com/apns/apnstest"
)

// A rawConn is a client that writes its frames by hand: RFC 9113, section 6.
type rawConn struct {
	*tls.Conn
	t *testing.T
}

type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

const (
	data, headers, rst, settings, ping, goAway, windowUpdate, continuation = 0, 1, 3, 4, 6, 7, 8, 9

	endStream, endHeaders, padded, priority = 1, 4, 8, 0x20
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func (f frame) append(b []byte) []byte {
	b = append(b, byte(len(f.payload)>>16), byte(len(f.payload)>>8), byte(len(f.payload)), f.kind, f.flags)
	return append(binary.BigEndian.AppendUint32(b, f.id), f.payload...)
}

func frames(fs ...frame) []byte {
	var b []byte
	for _, f := range fs {
		b = f.append(b)
	}
	return b
}

// block returns a header block, of literals alone (RFC 7541, section 6.2.2).
func block(pairs ...string) []byte {
	var b []byte
	for i, s := range pairs {
		if i%2 == 0 {
			b = append(b, 0)
		}
		if len(s) < 127 {
			b = append(b, byte(len(s)))
		} else {
			b = binary.AppendUvarint(append(b, 127), uint64(len(s)-127))
		}
		b = append(b, s...)
	}
	return b
}

// push returns the header block of a good request.
func pushBlock(more ...string) []byte {
	return block(append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/3/device/" + token}, more...)...)
}

func pushFrames(id uint32, body string, more ...string) []frame {
	return []frame{{headers, endHeaders, id, pushBlock(more...)}, {data, endStream, id, []byte(body)}}
}

func u32(n ...uint32) []byte {
	var b []byte
	for _, n := range n {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func setting(id byte, n uint32) frame {
	return frame{settings, 0, 0, append([]byte{0, id}, u32(n)...)}
}

// dialRaw connects with the client certificate or without; it writes nothing.
func dialRaw(t *testing.T, s *apnstest.Server, cert bool) rawConn {
	t.Helper()
	config := s.Config()
	raw, err := config.DialContext(t.Context(), "tcp", "localhost:443")
	if err != nil {
		t.Fatal(err)
	}
	config.TLS.ServerName = "localhost"
	config.TLS.NextProtos = []string{"h2"}
	if !cert {
		config.TLS.Certificates = nil
	}
	c := tls.Client(raw, config.TLS)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.NetConn().Close() })
	return rawConn{c, t}
}

// begin writes the preface, the settings, and the acknowledgement of the
// server's, which it awaits.
func (c rawConn) begin(fs ...frame) {
	c.t.Helper()
	c.write(append([]byte(preface), frames(append([]frame{{settings, 0, 0, nil}}, fs...)...)...))
	c.until(settings)
	c.write(frames(frame{settings, endStream, 0, nil}))
}

func (c rawConn) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c rawConn) next() (frame, error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil {
		return frame{}, err
	}
	f := frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
	_, err := io.ReadFull(c, f.payload)
	return f, err
}

// until skips frames up to one of the kind.
func (c rawConn) until(kind byte) frame {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for a frame of kind %d: %v", kind, err)
		}
		if f.kind == kind && !(kind == settings && f.flags != 0) {
			return f
		}
	}
}

// status returns what the header block of an answer begins with.
func (f frame) status() string {
	switch f.payload[0] {
	case 0x88:
		return "200"
	case 0x8c:
		return "400"
	case 0x8d:
		return "404"
	}
	return string(f.payload[2:5])
}

// over reports how the connection ends.
func (c rawConn) over() {
	c.t.Helper()
	for {
		f, err := c.next()
		if err == io.EOF {
			return
		}
		if err != nil || f.kind == headers {
			c.t.Errorf("after the GOAWAY: got %+v, %v; want the end", f, err)
			return
		}
	}
}

// alive reports whether the connection answers a PING.
func (c rawConn) alive() {
	c.t.Helper()
	c.write(frames(frame{ping, 0, 0, []byte("12345678")}))
	if f := c.until(ping); f.flags != 1 || string(f.payload) != "12345678" {
		c.t.Errorf("got the PING %+v, want it back", f)
	}
}
