package apnstest_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// badTopic is the body of a response with apns.ReasonBadTopic.
const badTopic = `{"reason":"BadTopic"}`

// The body of a response waits for the window of its stream: RFC 9113, section 6.9.
func TestResponseWaitsForStreamWindow(t *testing.T) {
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "good" {
			return nil
		}
		return apns.ReasonBadTopic
	}, nil)
	c := dialRaw(t, s, true)
	c.begin(setting(4, 0))
	c.write(frames(slices.Concat(pushFrames(1, "{}"), pushFrames(3, "{}", "apns-collapse-id", "good"), pushFrames(5, "{}"))...))
	for _, want := range []uint32{1, 3, 5} {
		if f := c.until(headers); f.id != want {
			t.Errorf("got the header of a response to %d, want %d", f.id, want)
		}
	}
	var got string
	read := func(want string, last bool) {
		t.Helper()
		f := c.until(data)
		got += string(f.payload)
		if f.id != 1 || string(f.payload) != want || (f.flags&endStream != 0) != last {
			t.Errorf("got %+v (%s), want %s on stream 1, last %v", f, f.payload, want, last)
		}
	}
	c.wantPingAck() // if DATA was sent, this skips it, and the next read fails
	c.write(frames(frame{windowUpdate, 0, 1, u32(5)}))
	read(badTopic[:5], false)
	c.write(frames(frame{rst, 0, 5, u32(8)}, setting(4, 3)))
	read(badTopic[5:8], false)
	c.write(frames(setting(4, 1), frame{windowUpdate, 0, 1, u32(2)})) // the window is -2 bytes, then 0
	c.wantPingAck()
	c.write(frames(frame{windowUpdate, 0, 1, u32(100)}))
	read(badTopic[8:], true)
	if got != badTopic {
		t.Errorf("got %s, want %s", got, badTopic)
	}
}

// The body of a response waits for the window of the connection: RFC 9113, section 6.9.
func TestResponseWaitsForConnectionWindow(t *testing.T) {
	s := start(t, false, func(*apns.Message) error { return apns.ReasonBadTopic }, nil)
	c := dialRaw(t, s, true)
	c.begin(setting(4, 1<<20))
	left, id := 65535, uint32(1)
	for ; left >= len(badTopic); left -= len(badTopic) {
		c.write(frames(pushFrames(id, "{}")...))
		if f := c.until(data); string(f.payload) != badTopic {
			t.Fatalf("got %s, want %s", f.payload, badTopic)
		}
		id += 2
	}
	c.write(frames(pushFrames(id, "{}")...))
	if f := c.until(headers); f.id != id {
		t.Errorf("got a response to %d, want %d", f.id, id)
	}
	if left > 0 {
		if f := c.until(data); string(f.payload) != badTopic[:left] {
			t.Errorf("got %s, want %s", f.payload, badTopic[:left])
		}
	}
	c.wantPingAck()
	c.write(frames(frame{windowUpdate, 0, 0, u32(1000)}))
	if f := c.until(data); string(f.payload) != badTopic[left:] {
		t.Errorf("got %s, want %s", f.payload, badTopic[left:])
	}
}

// A client that exceeds the window of a stream gets a reset: RFC 9113, section 6.9.1.
func TestStreamWindow(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) { s.HTTP2.InitialWindow = 10 })
	c := dialRaw(t, s, true)
	c.begin()
	spaces := strings.Repeat(" ", 20)
	open := func(id uint32) { c.write(appendHeaders(nil, id, 0, good...)) }

	open(1)
	c.write(appendData(nil, 1, 0, spaces[:4]))
	c.wantWindowUpdates("4 of 10 bytes", 1, 0)
	c.write(appendData(nil, 1, 0, spaces[:6]))
	c.wantWindowUpdates("10 of 10 bytes", 1, 10)
	c.write(appendData(nil, 1, h2.FlagEndStream, "{}        "))
	if f := c.untilStream(1); f.kind != headers || f.status() != "200" {
		t.Errorf("got %+v, want status 200", f)
	}
	if got := string(s.Records()[0].Message.Payload); got != spaces[:10]+"{}        " {
		t.Errorf("got the payload %q", got)
	}

	open(3)
	c.write(appendData(nil, 3, 0, spaces[:11]))
	c.wantReset("11 of 10 bytes", 3, h2.CodeFlowControl)
	open(5)
	c.write(appendData(appendData(nil, 5, 0, spaces[:4]), 5, h2.FlagEndStream, spaces[:7]))
	c.wantReset("4 and 7 of 10 bytes", 5, h2.CodeFlowControl)
	open(7)
	c.write(appendData(nil, 7, h2.FlagPadded, "\x0aa"+strings.Repeat("\x00", 10)))
	c.wantReset("a byte and padding", 7, h2.CodeFlowControl)
	c.wantNoFrame("after the resets")
	if n := len(s.Records()); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
	c.wantAccepted("at last", 9)
}

// The initial window can be 0, and can change while requests are sent: RFC 9113, section
// 6.9.2.
func TestSetInitialWindow(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) { s.HTTP2.InitialWindow = -1 })
	c := dialRaw(t, s, true)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	acknowledge := func(want int) {
		t.Helper()
		if got := c.until(settings).value(h2.SettingInitialWindowSize); got != want {
			t.Errorf("got an initial window of %d, want %d", got, want)
		}
		c.write(h2.AppendSettingsAck(nil))
	}
	spaces := strings.Repeat(" ", 100)
	// Until the client acknowledges the SETTINGS, the initial window of RFC 9113 counts.
	c.write(appendHeaders(nil, 1, 0, good...))
	c.write(appendData(nil, 1, 0, spaces))
	acknowledge(0)
	c.wantWindowUpdates("window of 0", 1, 100) // the window was -100 bytes
	c.write(appendData(nil, 1, 0, ""))
	c.wantNoFrame("empty DATA")
	c.write(appendData(nil, 1, 0, " "))
	c.wantReset("a byte", 1, h2.CodeFlowControl)

	s.SetInitialWindow(100)
	acknowledge(100)
	c.write(appendHeaders(nil, 3, 0, good...))
	c.write(appendData(nil, 3, 0, spaces[:40]))
	c.wantPingAck()
	s.SetInitialWindow(10) // the client's window is -30 bytes, then 10
	if got := c.until(settings).value(h2.SettingInitialWindowSize); got != 10 {
		t.Errorf("got an initial window of %d, want 10", got)
	}
	if f := c.untilStream(3); f.kind != windowUpdate || binary.BigEndian.Uint32(f.payload) != 40 {
		t.Errorf("got %+v, want a WINDOW_UPDATE of 40", f)
	}
	c.write(appendData(nil, 3, 0, spaces[:50])) // allowed, since the client may not have read either frame
	c.wantWindowUpdates("before the acknowledgement", 3, 50)
	c.write(h2.AppendSettingsAck(nil))
	c.write(appendData(nil, 3, 0, spaces[:10]))
	c.wantWindowUpdates("after the acknowledgement", 3, 10)
	c.write(appendData(nil, 3, 0, spaces[:11]))
	c.wantReset("11 of 10 bytes", 3, h2.CodeFlowControl)

	// A client may use a larger window before it acknowledges it.
	c.write(appendHeaders(nil, 5, 0, good...))
	s.SetInitialWindow(50)
	c.write(appendData(nil, 5, h2.FlagEndStream, "{}"+spaces[:48]))
	if f := c.untilStream(5); f.kind != headers || f.status() != "200" {
		t.Errorf("got %+v, want status 200", f)
	}
	for _, n := range []int{-1, h2.MaxWindow + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("SetInitialWindow(%d) did not panic", n)
				}
			}()
			s.SetInitialWindow(n)
		}()
	}
}

// The connection of a client that exceeds its window ends: RFC 9113, section 6.9.1.
func TestConnectionWindow(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) { s.HTTP2.ConnectionWindow = 65535 })
	part := strings.Repeat(" ", 16<<10)
	for name, test := range map[string]struct {
		flags h2.Flags
		last  string // DATA after 3 * 16 KiB, when the window is 16 KiB less a byte
		want  int    // the window update; negative: a connection error
	}{
		"all of it":               {0, part[1:], 65535},
		"a part":                  {0, part[:15000], 0},
		"almost all":              {0, part[:16000], 3*len(part) + 16000},
		"a byte more":             {0, part, -1},
		"a byte more, of padding": {h2.FlagPadded, "\xff" + part[1:], -1},
	} {
		for _, malformed := range []bool{false, true} { // ignored DATA counts as well
			c := dialRaw(t, s, true)
			c.begin()
			header := good
			if malformed {
				header = change(":path", "-")
			}
			for i := range uint32(3) {
				c.write(appendHeaders(nil, 2*i+1, 0, header...))
				c.write(appendData(nil, 2*i+1, 0, part))
			}
			c.wantPingAck()
			c.write(appendHeaders(nil, 7, 0, header...))
			c.write(appendData(nil, 7, test.flags, test.last))
			if test.want < 0 {
				last := uint32(0)
				if malformed {
					last = 7
				}
				c.wantGoAway(name, h2.CodeFlowControl, last)
			} else {
				c.wantWindowUpdates(name, 0, test.want)
			}
		}
	}
}

// Bodies of all sizes can be sent with the smallest windows.
func TestSmallWindows(t *testing.T) {
	for _, window := range []int{1, 7, 1000, 65535} {
		s := start(t, false, nil, func(s *apnstest.Server) {
			s.HTTP2 = apnstest.HTTP2Settings{InitialWindow: window, ConnectionWindow: 65535}
		})
		c := connect(t, s, true)
		// net/http subtracts a frame from the window before it locks the connection to write
		// it. In between it can acknowledge SETTINGS with a smaller window, which the frame
		// then exceeds. A request without a body lets it acknowledge the first SETTINGS.
		if resp := (request{body: []byte{}}).send(t.Context(), c); resp.String() != "400 PayloadEmpty" {
			t.Fatalf("window of %d: got %v, want 400 PayloadEmpty", window, resp)
		}
		for size, want := range map[int]string{2: "200", 4096: "200", 4097: "413 PayloadTooLarge", 100 * window: ""} {
			if resp := (request{body: bytesOfJSON(size)}).send(t.Context(), c); resp.String() != want && want != "" || resp.err != nil {
				t.Errorf("window of %d, body of %d bytes: got %v, want %s", window, size, resp, want)
			}
		}
	}
}

// No frame of a response exceeds the client's SETTINGS_MAX_FRAME_SIZE: RFC 9113, section
// 4.2.
func TestMaxFrameSize(t *testing.T) {
	reason := apns.Reason(strings.Repeat("x", 50_000))
	for _, size := range []int{0, 16384, 30_000, 1<<24 - 1} {
		s := start(t, false, func(*apns.Message) error { return reason }, nil)
		c := dialRaw(t, s, true)
		if size == 0 {
			c.begin()
		} else {
			c.begin(setting(byte(h2.SettingMaxFrameSize), uint32(size)))
		}
		c.write(appendPush(nil, 1))
		c.until(headers)
		got := 0
		for last := false; !last; {
			f := c.until(data)
			if len(f.payload) > max(size, 16384) {
				t.Errorf("size of %d: got DATA of %d bytes", size, len(f.payload))
			}
			got += len(f.payload)
			last = f.flags&endStream != 0
		}
		if want := len(reason) + len(`{"reason":""}`); got != want {
			t.Errorf("size of %d: got a body of %d bytes, want %d", size, got, want)
		}
	}
}
