package apnstest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// inFlight is a push that the server of TestConnectionErrors accepts and never responds to.
var inFlight = pushFrames(1, "{}")

// The source is RFC 9113, sections 4 to 6.
var connectionErrors = map[string]struct {
	b    []byte
	want h2.Code
	last uint32 // the last stream of the GOAWAY
}{
	"garbage":                    {bytes.Repeat([]byte("garbage "), 100), h2.CodeFrameSize, 0},
	"HTTP/1.1":                   {[]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"), h2.CodeFrameSize, 0},
	"frame too large":            {frames(frame{data, 0, 1, make([]byte, 16<<10+1)}), h2.CodeFrameSize, 0},
	"bad index":                  {frames(frame{headers, endHeaders, 1, []byte{0xff, 0xff, 0x7f}}), h2.CodeCompression, 0},
	"cut block":                  {frames(frame{headers, endHeaders, 1, []byte{0, 10, 'a'}}), h2.CodeCompression, 0},
	"cut block after a message":  {frames(append(inFlight, frame{headers, endHeaders, 3, []byte{0, 10, 'a'}})...), h2.CodeCompression, 1},
	"HEADERS padding":            {frames(frame{headers, endHeaders | padded, 1, []byte{5, 0, 0}}), h2.CodeProtocol, 0},
	"HEADERS, no padding length": {frames(frame{headers, endHeaders | padded, 1, nil}), h2.CodeFrameSize, 0},
	"HEADERS, no priority":       {frames(frame{headers, endHeaders | priority, 1, []byte{0, 0, 0}}), h2.CodeFrameSize, 0},
	"DATA padding":               {frames(frame{headers, endHeaders, 1, pushBlock()}, frame{data, padded, 1, []byte{3, 0, 0}}), h2.CodeProtocol, 0},
	"stream 0":                   {frames(frame{headers, endHeaders, 0, pushBlock()}), h2.CodeProtocol, 0},
	"even stream":                {frames(frame{headers, endHeaders, 2, pushBlock()}), h2.CodeProtocol, 0},
	"earlier stream":             {frames(append(pushFrames(5, "{}"), pushFrames(3, "{}")...)...), h2.CodeProtocol, 5},
	"CONTINUATION alone":         {frames(frame{continuation, endHeaders, 1, nil}), h2.CodeProtocol, 0},
	"no CONTINUATION":            {frames(frame{headers, 0, 1, pushBlock()}, frame{ping, 0, 0, make([]byte, 8)}), h2.CodeProtocol, 0},
	"CONTINUATION of another":    {frames(frame{headers, 0, 1, pushBlock()}, frame{continuation, endHeaders, 3, nil}), h2.CodeProtocol, 0},
	"CONTINUATIONs without end":  {frames(append([]frame{{headers, 0, 1, nil}}, slices.Repeat([]frame{{continuation, 0, 1, make([]byte, 16<<10)}}, 5)...)...), h2.CodeEnhanceYourCalm, 0},
	"DATA of no stream":          {frames(frame{data, 0, 0, nil}), h2.CodeProtocol, 0},
	"DATA of an idle stream":     {frames(frame{data, 0, 1, nil}), h2.CodeProtocol, 0},
	"DATA after the end":         {frames(append(inFlight, frame{data, 0, 1, nil})...), h2.CodeStreamClosed, 1},
	"HEADERS after the end":      {frames(append(inFlight, frame{headers, endHeaders | endStream, 1, nil})...), h2.CodeStreamClosed, 1},
	"RST_STREAM of an idle one":  {frames(frame{rst, 0, 1, u32(0)}), h2.CodeProtocol, 0},
	"RST_STREAM of 3 bytes":      {frames(frame{rst, 0, 1, make([]byte, 3)}), h2.CodeFrameSize, 0},
	"PING of 7 bytes":            {frames(frame{ping, 0, 0, make([]byte, 7)}), h2.CodeFrameSize, 0},
	"PING on a stream":           {frames(frame{ping, 0, 1, make([]byte, 8)}), h2.CodeProtocol, 0},
	"SETTINGS of 5 bytes":        {frames(frame{settings, 0, 0, make([]byte, 5)}), h2.CodeFrameSize, 0},
	"SETTINGS on a stream":       {frames(frame{settings, 0, 1, nil}), h2.CodeProtocol, 0},
	"initial window too large":   {frames(setting(4, 1<<31)), h2.CodeFlowControl, 0},
	"WINDOW_UPDATE of 3 bytes":   {frames(frame{windowUpdate, 0, 0, make([]byte, 3)}), h2.CodeFrameSize, 0},
	"WINDOW_UPDATE of 0":         {frames(frame{windowUpdate, 0, 0, u32(0)}), h2.CodeProtocol, 0},
	"window too large":           {frames(frame{windowUpdate, 0, 0, u32(1<<31 - 1)}), h2.CodeFlowControl, 0},
}

// A violation of the protocol ends the connection with a GOAWAY and an error code.
func TestConnectionErrors(t *testing.T) {
	for name, test := range connectionErrors {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(*apns.Message) error { return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence} }, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.write(test.b)
			c.wantGoAway(name, test.want, test.last)
			if n := len(s.Records()); (n == 1) != (test.last > 0) {
				t.Errorf("got %d records with last stream %d", n, test.last)
			}
		})
	}
	t.Run("no preface", func(t *testing.T) {
		c := dialRaw(t, start(t, false, nil, nil), true)
		c.write([]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"))
		if f := c.until(goAway); h2.Code(binary.BigEndian.Uint32(f.payload[4:])) != h2.CodeProtocol {
			t.Errorf("got %+v, want a PROTOCOL_ERROR", f)
		}
	})
}

// More violations that end the connection: RFC 9113, sections 3.4 and 6.
func TestMoreConnectionErrors(t *testing.T) {
	settings := func(s h2.Setting, value uint32) []byte {
		return h2.AppendSettings(nil, h2.SettingValue{Setting: s, Value: value})
	}
	for name, test := range map[string]struct {
		b    []byte
		want h2.Code
	}{
		"6.2 depends on itself":                {h2.AppendFrame(nil, h2.TypeHeaders, h2.FlagEndHeaders|h2.FlagPriority, 1, append([]byte{0, 0, 0, 1, 9}, encode(good...)...)), h2.CodeProtocol},
		"6.3 PRIORITY on stream 0":             {h2.AppendFrame(nil, h2.TypePriority, 0, 0, make([]byte, 5)), h2.CodeProtocol},
		"6.3 PRIORITY within a block":          {h2.AppendFrame(h2.AppendFrame(nil, h2.TypeHeaders, 0, 1, nil), h2.TypePriority, 0, 1, nil), h2.CodeProtocol},
		"6.4 RST_STREAM on stream 0":           {h2.AppendRSTStream(nil, 0, 0), h2.CodeProtocol},
		"6.5 acknowledgement with settings":    {h2.AppendFrame(nil, h2.TypeSettings, h2.FlagAck, 0, make([]byte, 6)), h2.CodeFrameSize},
		"6.5 acknowledgement of nothing":       {h2.AppendSettingsAck(nil), h2.CodeProtocol},
		"6.5.2 ENABLE_PUSH of 2":               {settings(h2.SettingEnablePush, 2), h2.CodeProtocol},
		"6.5.2 MAX_FRAME_SIZE too small":       {settings(h2.SettingMaxFrameSize, 1<<14-1), h2.CodeProtocol},
		"6.5.2 MAX_FRAME_SIZE too large":       {settings(h2.SettingMaxFrameSize, 1<<24), h2.CodeProtocol},
		"6.5.2 a hundred settings":             {h2.AppendSettings(nil, make([]h2.SettingValue, 100)...), h2.CodeEnhanceYourCalm},
		"6.6 PUSH_PROMISE":                     {h2.AppendFrame(nil, h2.TypePushPromise, h2.FlagEndHeaders, 1, make([]byte, 4)), h2.CodeProtocol},
		"6.8 GOAWAY on a stream":               {h2.AppendFrame(nil, h2.TypeGoAway, 0, 1, make([]byte, 8)), h2.CodeProtocol},
		"6.8 GOAWAY of 7 bytes":                {h2.AppendFrame(nil, h2.TypeGoAway, 0, 0, make([]byte, 7)), h2.CodeFrameSize},
		"6.9.2 settings exceed a window":       {slices.Concat(appendHeaders(nil, 1, 0, good...), h2.AppendWindowUpdate(nil, 1, h2.MaxWindow-h2.DefaultWindow), settings(h2.SettingInitialWindowSize, h2.DefaultWindow+1)), h2.CodeFlowControl},
		"6.10 empty CONTINUATIONs without end": {append(h2.AppendFrame(nil, h2.TypeHeaders, 0, 1, nil), bytes.Repeat(h2.AppendFrame(nil, h2.TypeContinuation, 0, 1, nil), 100)...), h2.CodeEnhanceYourCalm},
	} {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(test.b)
		c.wantGoAway(name, test.want, 0)
	}

	for name, b := range map[string][]byte{
		"3.4 PING first":               h2.AppendPing(nil, 0, [8]byte{}),
		"3.4 acknowledgement first":    h2.AppendSettingsAck(nil),
		"3.4 HEADERS first":            appendHeaders(nil, 1, 0, good...),
		"3.4 a short PRIORITY first":   h2.AppendFrame(nil, h2.TypePriority, 0, 1, nil),
		"3.4 another frame type first": h2.AppendFrame(nil, 0xfa, 0, 0, nil),
	} {
		c := dialRaw(t, start(t, false, nil, nil), true)
		c.write(append([]byte(preface), b...))
		code := h2.CodeProtocol
		if name == "3.4 a short PRIORITY first" {
			code = h2.CodeFrameSize
		}
		c.wantGoAway(name, code, 0)
	}
}

// Unusual frames that RFC 9113 allows are accepted.
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
			c.wantPingAck()
			if ms := s.Messages(apnstest.Accepted); len(ms) != 1 || string(ms[0].Payload) != "{}" {
				t.Errorf("%s: accepted %v, want one message", name, ms)
			}
		}
	}
}

// Each SETTINGS frame is acknowledged, in order: RFC 9113, section 6.5.3.
func TestSettingsAcknowledged(t *testing.T) {
	c := dialRaw(t, start(t, false, nil, nil), true)
	c.begin()
	c.wantPingAck() // after this the first SETTINGS are acknowledged
	var b []byte
	for i := range byte(5) {
		b = h2.AppendSettings(b, h2.SettingValue{Setting: h2.SettingInitialWindowSize, Value: uint32(i)}, h2.SettingValue{Setting: 0xfafa, Value: 1})
		b = h2.AppendPing(b, 0, [8]byte{i})
	}
	c.write(b)
	for i := range byte(5) {
		if f, err := c.next(); err != nil || f.kind != settings || f.flags != byte(h2.FlagAck) || len(f.payload) != 0 {
			t.Errorf("got %+v, %v; want acknowledgement %d", f, err, i)
		}
		if f, err := c.next(); err != nil || f.kind != ping || f.payload[0] != i {
			t.Errorf("got %+v, %v; want PING %d", f, err, i)
		}
	}
}

// A connection that ends before a request is complete leaves no record.
func TestConnectionEndsEarly(t *testing.T) {
	all := slices.Concat([]byte(preface), frames(frame{settings, 0, 0, nil}), frames(pushFrames(1, "{}")...))
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		for n := range all {
			c := dialRaw(t, s, true)
			c.write(all[:n])
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
		c.write(all)
		if got := c.until(headers).status(); got != "200" {
			t.Errorf("the complete request got the status %s, want 200", got)
		}
	})
}

// The server stops reading from a client that sends frames which need a reply and reads no
// replies.
func TestFloodOfReplies(t *testing.T) {
	for name, b := range map[string][]byte{
		"PING":      h2.AppendPing(nil, 0, [8]byte{}),
		"SETTINGS":  h2.AppendSettings(nil),
		"malformed": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, func(s *apnstest.Server) { s.BufferSize = 4 << 10 })
			c := dialRaw(t, s, true)
			c.begin()
			c.SetWriteDeadline(time.Now().Add(time.Hour))
			written := 0
			for i := uint32(0); written < 10<<20; i++ {
				more := bytes.Repeat(b, 100)
				if b == nil {
					more = appendHeaders(nil, 2*i+1, 0, ":scheme", "https")
				}
				n, err := c.Write(more)
				written += n
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if written > 256<<10 {
				t.Errorf("%s: the server read %d bytes before it stopped", name, written)
			}
		})
	}
}

// Close does not wait for delayed responses, incomplete requests, blocked responses or a
// client that does not read.
func TestCloseHTTP2(t *testing.T) {
	onBothNetworks(t, "on loopback", func(t *testing.T, memory bool) {
		called := make(chan struct{})
		s := start(t, memory, func(m *apns.Message) error {
			switch m.CollapseID {
			case "delayed":
				return apnstest.Fault{Err: apns.ReasonBadTopic, Delay: time.Hour}
			case "silence":
				return apnstest.Fault{End: apnstest.EndSilence}
			case "blocked":
				close(called)
			}
			return apns.ReasonBadTopic
		}, func(s *apnstest.Server) { s.BufferSize = 4 << 10 })
		delayed := dialRaw(t, s, true)
		delayed.begin()
		delayed.write(frames(append(pushFrames(1, "{}", "apns-collapse-id", "delayed"), pushFrames(3, "{}", "apns-collapse-id", "silence")...)...))
		incomplete := dialRaw(t, s, true)
		incomplete.begin()
		incomplete.write(frames(frame{headers, 0, 1, pushBlock()}))
		blocked := dialRaw(t, s, true)
		blocked.begin(setting(4, 0))
		blocked.write(frames(pushFrames(1, "{}", "apns-collapse-id", "blocked")...))
		<-called
		pinging := dialRaw(t, s, true) // writes and never reads
		pinging.begin()
		var writing sync.WaitGroup
		writing.Go(func() {
			pings := bytes.Repeat(frames(frame{ping, 0, 0, make([]byte, 8)}), 100)
			for {
				if _, err := pinging.Write(pings); err != nil {
					return
				}
				time.Sleep(time.Microsecond) // otherwise the time of the bubble stands still
			}
		})
		if err := s.Wait(t.Context(), 3); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		s.Close()
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("Close took %v, want at most 5s", d)
		}
		writing.Wait()
	})
}
