package apnstest_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// "Handling notification responses from APNs": DuplicateHeaders.
func TestDuplicateHeaders(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	id := uint32(1)
	for _, name := range []string{"authorization", "apns-topic", "apns-push-type", "apns-id", "apns-expiration", "apns-priority", "apns-collapse-id", "x-other"} {
		c.write(frames(pushFrames(id, "{}", name, "1", name, "1")...))
		if got := c.until(headers).status(); got != "400" {
			t.Errorf("%s twice: got the status %s, want 400", name, got)
		}
		if got := string(c.until(data).payload); got != `{"reason":"DuplicateHeaders"}` {
			t.Errorf("%s twice: got %s, want DuplicateHeaders", name, got)
		}
		id += 2
	}
	if n := len(s.Messages(apnstest.Rejected)); n != 8 {
		t.Errorf("%d messages were refused, want 8", n)
	}
}

// What ends the connection with a GOAWAY, and its code: RFC 9113, sections 4 to
// 6.
func TestConnectionErrors(t *testing.T) {
	const protocol, flow, closed, size, compression, calm = 1, 3, 5, 6, 9, 11
	stalled := pushFrames(1, "{}")
	for name, test := range map[string]struct {
		fs   []byte
		want uint32
		last uint32
	}{
		"garbage":                    {bytes.Repeat([]byte("garbage "), 100), size, 0},
		"HTTP/1.1":                   {[]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"), size, 0},
		"frame too large":            {frames(frame{data, 0, 1, make([]byte, 16<<10+1)}), size, 0},
		"bad index":                  {frames(frame{headers, endHeaders, 1, []byte{0xff, 0xff, 0x7f}}), compression, 0},
		"cut block":                  {frames(frame{headers, endHeaders, 1, []byte{0, 10, 'a'}}), compression, 0},
		"cut block after a message":  {frames(append(stalled, frame{headers, endHeaders, 3, []byte{0, 10, 'a'}})...), compression, 1},
		"HEADERS padding":            {frames(frame{headers, endHeaders | padded, 1, []byte{5, 0, 0}}), protocol, 0},
		"HEADERS, no padding length": {frames(frame{headers, endHeaders | padded, 1, nil}), size, 0},
		"HEADERS, no priority":       {frames(frame{headers, endHeaders | priority, 1, []byte{0, 0, 0}}), size, 0},
		"DATA padding":               {frames(frame{headers, endHeaders, 1, pushBlock()}, frame{data, padded, 1, []byte{3, 0, 0}}), protocol, 0},
		"stream 0":                   {frames(frame{headers, endHeaders, 0, pushBlock()}), protocol, 0},
		"even stream":                {frames(frame{headers, endHeaders, 2, pushBlock()}), protocol, 0},
		"earlier stream":             {frames(append(pushFrames(5, "{}"), pushFrames(3, "{}")...)...), protocol, 5},
		"CONTINUATION alone":         {frames(frame{continuation, endHeaders, 1, nil}), protocol, 0},
		"no CONTINUATION":            {frames(frame{headers, 0, 1, pushBlock()}, frame{ping, 0, 0, make([]byte, 8)}), protocol, 0},
		"CONTINUATION of another":    {frames(frame{headers, 0, 1, pushBlock()}, frame{continuation, endHeaders, 3, nil}), protocol, 0},
		"CONTINUATIONs without end":  {frames(append([]frame{{headers, 0, 1, nil}}, slices.Repeat([]frame{{continuation, 0, 1, make([]byte, 16<<10)}}, 5)...)...), calm, 0},
		"DATA of no stream":          {frames(frame{data, 0, 0, nil}), protocol, 0},
		"DATA of an idle stream":     {frames(frame{data, 0, 1, nil}), protocol, 0},
		"DATA after the end":         {frames(append(stalled, frame{data, 0, 1, nil})...), closed, 1},
		"HEADERS after the end":      {frames(append(stalled, frame{headers, endHeaders | endStream, 1, nil})...), closed, 1},
		"RST_STREAM of an idle one":  {frames(frame{rst, 0, 1, u32(0)}), protocol, 0},
		"RST_STREAM of 3 bytes":      {frames(frame{rst, 0, 1, make([]byte, 3)}), size, 0},
		"PING of 7 bytes":            {frames(frame{ping, 0, 0, make([]byte, 7)}), size, 0},
		"PING on a stream":           {frames(frame{ping, 0, 1, make([]byte, 8)}), protocol, 0},
		"SETTINGS of 5 bytes":        {frames(frame{settings, 0, 0, make([]byte, 5)}), size, 0},
		"SETTINGS on a stream":       {frames(frame{settings, 0, 1, nil}), protocol, 0},
		"initial window too large":   {frames(setting(4, 1<<31)), flow, 0},
		"WINDOW_UPDATE of 3 bytes":   {frames(frame{windowUpdate, 0, 0, make([]byte, 3)}), size, 0},
		"WINDOW_UPDATE of 0":         {frames(frame{windowUpdate, 0, 0, u32(0)}), protocol, 0},
		"window too large":           {frames(frame{windowUpdate, 0, 0, u32(1<<31 - 1)}), flow, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(*apns.Message) error { return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence} }, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.write(test.fs)
			f := c.until(goAway)
			if last, code := binary.BigEndian.Uint32(f.payload), binary.BigEndian.Uint32(f.payload[4:]); code != test.want || last != test.last {
				t.Errorf("got a GOAWAY with code %d, last stream %d (%s), want %d, %d", code, last, f.payload[8:], test.want, test.last)
			}
			c.CloseWrite()
			c.over()
			if n := len(s.Records()); (n == 1) != (test.last > 0) {
				t.Errorf("got %d records with last stream %d", n, test.last)
			}
		})
	}
	t.Run("no preface", func(t *testing.T) {
		c := dialRaw(t, start(t, false, nil, nil), true)
		c.write([]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"))
		if f := c.until(goAway); binary.BigEndian.Uint32(f.payload[4:]) != protocol {
			t.Errorf("got %+v, want a PROTOCOL_ERROR", f)
		}
	})
}

// What is unusual and allowed.
func TestUnusualFrames(t *testing.T) {
	b := pushBlock("apns-id", "123e4567-e89b-12d3-a456-4266554400a0")
	body := frame{data, endStream, 1, []byte("{}")}
	for name, fs := range map[string][]byte{
		"CONTINUATION":         frames(frame{headers, 0, 1, b[:5]}, frame{continuation, 0, 1, b[5:9]}, frame{continuation, 0, 1, nil}, frame{continuation, endHeaders, 1, b[9:]}, body),
		"padding and priority": frames(frame{headers, endHeaders | padded | priority, 1, slices.Concat([]byte{3, 0, 0, 0, 0, 9}, b, make([]byte, 3))}, frame{data, endStream | padded, 1, []byte("\x02{}\x00\x00")}),
		"body in pieces":       frames(frame{headers, endHeaders, 1, b}, frame{data, 0, 1, []byte("{")}, frame{data, 0, 1, nil}, frame{ping, 0, 0, make([]byte, 8)}, frame{data, padded, 1, []byte("\x00}")}, frame{data, endStream, 1, nil}),
		"trailers":             frames(frame{headers, endHeaders, 1, b}, frame{data, 0, 1, []byte("{}")}, frame{headers, endHeaders | endStream, 1, block("x", "y")}),
		"unknown frame":        frames(frame{0xfa, 0xff, 7, []byte("x")}, frame{2, 0, 1, make([]byte, 5)}, frame{headers, endHeaders, 1, b}, body),
	} {
		for _, bytewise := range []bool{false, true} {
			s := start(t, false, nil, nil)
			c := dialRaw(t, s, true)
			c.begin()
			if bytewise {
				for i := range fs {
					c.write(fs[i : i+1])
				}
			} else {
				c.write(fs)
			}
			if f := c.until(headers); f.status() != "200" || f.flags&endStream == 0 || !bytes.Contains(f.payload, []byte("123e4567-e89b-12d3-a456-4266554400a0")) {
				t.Errorf("%s: got %+v, want status 200", name, f)
			}
			c.alive()
			if ms := s.Messages(apnstest.Accepted); len(ms) != 1 || string(ms[0].Payload) != "{}" {
				t.Errorf("%s: accepted %v, want one message", name, ms)
			}
		}
	}
}

// A connection may be cut anywhere.
func TestCut(t *testing.T) {
	wire := slices.Concat([]byte(preface), frames(frame{settings, 0, 0, nil}), frames(pushFrames(1, "{}")...))
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		for n := range wire {
			c := dialRaw(t, s, true)
			c.write(wire[:n])
			if n%2 == 0 {
				c.Close()
			} else {
				c.NetConn().Close()
			}
			synctest.Wait()
		}
		if n := len(s.Records()); n != 0 {
			t.Errorf("got %d records of parts of a message, want none", n)
		}
		c := dialRaw(t, s, true)
		c.write(wire)
		if got := c.until(headers).status(); got != "200" {
			t.Errorf("the whole got the status %s, want 200", got)
		}
	})
}

// An answer does not wait for the rest of what the client says.
func TestAnswerAmidAFrame(t *testing.T) {
	next := frames(pushFrames(3, "{}")...)
	for n := range next {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(append(frames(pushFrames(1, "{}")...), next[:n]...))
		if f := c.until(headers); f.id != 1 {
			t.Errorf("after %d bytes of the next: got an answer to %d, want 1", n, f.id)
		}
		c.write(next[n:])
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got an answer to %d, want 3", f.id)
		}
		c.NetConn().Close()
		s.Close()
	}
}
