package apns_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
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
	framed.Priority = apns.PriorityHigh
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

// The floor of WritePushMsg is the same bytes written to a tls.Conn.
func BenchmarkWritePushMsg(b *testing.B) {
	config := sink(b)
	m := message(1)
	wire, err := apns.BuildMsg(m)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("floor", func(b *testing.B) {
		raw, err := config.DialContext(b.Context(), "tcp", "")
		if err != nil {
			b.Fatal(err)
		}
		tlsConfig := config.TLS.Clone()
		tlsConfig.ServerName = "localhost"
		c := tls.Client(raw, tlsConfig)
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
