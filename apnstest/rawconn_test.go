package apnstest_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"slices"
	"testing"
	"time"

	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// A rawConn is an HTTP/2 client for which a test writes each frame, and which can therefore
// break the rules. The frames are those of RFC 9113, section 6.
type rawConn struct {
	*tls.Conn
	t *testing.T
}

type frame struct {
	kind, flags byte
	id          uint32 // of the stream
	payload     []byte
}

// Frame types and flags.
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

// value returns the value of a setting in a SETTINGS frame, or -1 if it has none.
func (f frame) value(s h2.Setting) int {
	for p := f.payload; len(p) >= 6; p = p[6:] {
		if h2.Setting(binary.BigEndian.Uint16(p)) == s {
			return int(binary.BigEndian.Uint32(p[2:]))
		}
	}
	return -1
}

func (f frame) maxStreams() int { return f.value(h2.SettingMaxConcurrentStreams) }

// status returns the status of a response, with which its header block begins.
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

// block returns a header block from names and values in turn. All fields are literals
// (RFC 7541, section 6.2.2).
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

// pushBlock returns the header block of a good request, with more fields at its end.
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

// encode returns a header block from names and values in turn, by package hpack.
func encode(fields ...string) []byte {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		b = hpack.AppendLiteral(b, fields[i], fields[i+1])
	}
	return b
}

// good is the header of a request that is accepted.
var good = []string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/3/device/" + token}

// with returns the good header with more fields at its end.
func with(more ...string) []string { return slices.Concat(good, more) }

// change returns the good header with another value of a field. The value "-" removes the
// field.
func change(name, value string) []string {
	fields := slices.Clone(good)
	i := slices.Index(fields, name)
	if value == "-" {
		return slices.Delete(fields, i, i+2)
	}
	fields[i+1] = value
	return fields
}

func appendHeaders(b []byte, id uint32, flags h2.Flags, fields ...string) []byte {
	return h2.AppendHeaders(b, flags, id, encode(fields...), h2.MinMaxFrameSize)
}

func appendData(b []byte, id uint32, flags h2.Flags, body string) []byte {
	return h2.AppendFrame(b, h2.TypeData, flags, id, []byte(body))
}

// appendPush appends a request that is accepted.
func appendPush(b []byte, id uint32) []byte {
	return appendData(appendHeaders(b, id, 0, good...), id, h2.FlagEndStream, "{}")
}

// dialRaw connects, with or without the client certificate. It writes no frame.
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

// begin writes the preface, empty SETTINGS and the frames, waits for the server's SETTINGS,
// and acknowledges them.
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

// until skips frames, and returns the next one of the kind. Acknowledgements of SETTINGS
// are always skipped.
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

// untilStream skips frames, and returns the next one of the stream.
func (c rawConn) untilStream(id uint32) frame {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for a frame of stream %d: %v", id, err)
		}
		if f.id == id {
			return f
		}
	}
}

// wantEOF checks that the connection ends without another response.
func (c rawConn) wantEOF() {
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

// wantPingAck checks that the server acknowledges a PING. It skips other frames.
func (c rawConn) wantPingAck() {
	c.t.Helper()
	c.write(frames(frame{ping, 0, 0, []byte("12345678")}))
	if f := c.until(ping); f.flags != 1 || string(f.payload) != "12345678" {
		c.t.Errorf("got the PING %+v, want it back", f)
	}
}

// wantNoFrame checks that the server sends nothing but the acknowledgement of a PING.
func (c rawConn) wantNoFrame(when string) {
	c.t.Helper()
	c.write(h2.AppendPing(nil, 0, [8]byte{7}))
	if f, err := c.next(); err != nil || f.kind != ping {
		c.t.Errorf("%s: got %+v, %v; want no frame", when, f, err)
	}
}

// wantReset checks that the next frame of the stream resets it.
func (c rawConn) wantReset(when string, id uint32, code h2.Code) {
	c.t.Helper()
	f := c.untilStream(id)
	if f.kind != rst {
		c.t.Errorf("%s: got %+v, want RST_STREAM", when, f)
	} else if got := h2.Code(binary.BigEndian.Uint32(f.payload)); got != code {
		c.t.Errorf("%s: got RST_STREAM with %v, want %v", when, got, code)
	}
}

// wantGoAway checks that the connection ends with a GOAWAY.
func (c rawConn) wantGoAway(when string, code h2.Code, last uint32) {
	c.t.Helper()
	f := c.until(goAway)
	gotLast, got := binary.BigEndian.Uint32(f.payload), h2.Code(binary.BigEndian.Uint32(f.payload[4:]))
	if got != code || gotLast != last {
		c.t.Errorf("%s: got GOAWAY with %v and the last stream %d (%s), want %v and %d", when, got, gotLast, f.payload[8:], code, last)
	}
	c.CloseWrite()
	c.wantEOF()
}

// wantAccepted checks that a push on the stream is accepted.
func (c rawConn) wantAccepted(when string, id uint32) {
	c.t.Helper()
	c.write(appendPush(nil, id))
	if f := c.untilStream(id); f.kind != headers || f.status() != "200" {
		c.t.Errorf("%s: the next request: got %+v, want status 200", when, f)
	}
}

// windowUpdates returns the sum of the window updates of a stream that are received before
// the acknowledgement of a PING.
func (c rawConn) windowUpdates(id uint32) (sum int) {
	c.t.Helper()
	c.write(h2.AppendPing(nil, 0, [8]byte{7}))
	for {
		f, err := c.next()
		switch {
		case err != nil:
			c.t.Fatal(err)
		case f.kind == ping:
			return sum
		case f.kind == windowUpdate && f.id == id:
			sum += int(binary.BigEndian.Uint32(f.payload))
		}
	}
}

func (c rawConn) wantWindowUpdates(when string, id uint32, want int) {
	c.t.Helper()
	if got := c.windowUpdates(id); got != want {
		c.t.Errorf("%s: the window of stream %d grew by %d bytes, want %d", when, id, got, want)
	}
}
