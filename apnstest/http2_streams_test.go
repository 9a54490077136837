package apnstest_test

import (
	"slices"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// Frames of streams that are closed, idle or half-closed, and what is said about
// each: RFC 9113, sections 5.1 and 5.1.1.
func TestFramesOfClosedStreams(t *testing.T) {
	const none = h2.Code(99)
	type state struct {
		name  string
		begin func(c rawConn) // has stream 3 come to the state; stream 1 was skipped
	}
	answered := state{"answered", func(c rawConn) { c.wantAnswer("at first", 3) }}
	resetByClient := state{"reset by the client", func(c rawConn) {
		c.write(h2.AppendRSTStream(appendHeaders(nil, 3, 0, good...), 3, h2.CodeCancel))
	}}
	malformed := state{"reset since it was malformed", func(c rawConn) {
		c.write(appendHeaders(nil, 3, 0, ":scheme", "https"))
		c.wantReset("at first", 3, h2.CodeProtocol)
	}}
	fault := state{"reset by a Fault", func(c rawConn) {
		c.write(appendData(appendHeaders(nil, 3, 0, with("apns-collapse-id", "reset")...), 3, h2.FlagEndStream, "{}"))
		c.wantReset("at first", 3, h2.CodeCancel)
	}}
	halfClosed := state{"half-closed", func(c rawConn) {
		c.write(appendData(appendHeaders(nil, 3, 0, with("apns-collapse-id", "stall")...), 3, h2.FlagEndStream, "{}"))
	}}
	idle := state{"idle", func(rawConn) {}}
	for _, test := range []struct {
		state
		frame  string
		reset  h2.Code // of a RST_STREAM
		goAway h2.Code
	}{
		{answered, "DATA", h2.CodeStreamClosed, none},
		{answered, "HEADERS", none, h2.CodeStreamClosed},
		{answered, "WINDOW_UPDATE", none, none},
		{answered, "RST_STREAM", none, none},
		{answered, "PRIORITY", none, none},
		{answered, "WINDOW_UPDATE of 0", h2.CodeProtocol, none},
		{answered, "short PRIORITY", h2.CodeFrameSize, none},

		{resetByClient, "DATA", h2.CodeStreamClosed, none},
		{resetByClient, "HEADERS", none, h2.CodeStreamClosed},
		{resetByClient, "WINDOW_UPDATE", none, none},
		{resetByClient, "RST_STREAM", none, none},
		{resetByClient, "PRIORITY", none, none},

		{malformed, "DATA", none, none},
		{malformed, "HEADERS", none, none},
		{malformed, "WINDOW_UPDATE", none, none},
		{malformed, "WINDOW_UPDATE of 0", none, none},
		{malformed, "RST_STREAM", none, none},
		{malformed, "PRIORITY", none, none},
		{fault, "DATA", none, none},
		{fault, "HEADERS", none, none},

		{halfClosed, "DATA", none, h2.CodeStreamClosed},
		{halfClosed, "HEADERS", none, h2.CodeStreamClosed},
		{halfClosed, "WINDOW_UPDATE", none, none},
		{halfClosed, "RST_STREAM", none, none},
		{halfClosed, "PRIORITY", none, none},
		{halfClosed, "WINDOW_UPDATE of 0", h2.CodeProtocol, none},
		{halfClosed, "short PRIORITY", h2.CodeFrameSize, none},

		{idle, "DATA", none, h2.CodeProtocol},
		{idle, "WINDOW_UPDATE", none, h2.CodeProtocol},
		{idle, "WINDOW_UPDATE of 0", none, h2.CodeProtocol},
		{idle, "RST_STREAM", none, h2.CodeProtocol},
		{idle, "PRIORITY", none, none},
		{idle, "short PRIORITY", none, h2.CodeFrameSize},
	} {
		t.Run(test.name+" "+test.frame, func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				switch m.CollapseID {
				case "reset":
					return apnstest.Fault{End: apnstest.EndRST}
				case "stall":
					return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
				}
				return nil
			}, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.alive() // so that the SETTINGS are acknowledged
			test.begin(c)
			b := map[string][]byte{
				"DATA":               appendData(nil, 3, h2.FlagEndStream, "{}"),
				"HEADERS":            appendHeaders(nil, 3, h2.FlagEndStream, "x", "y"),
				"WINDOW_UPDATE":      h2.AppendWindowUpdate(nil, 3, 1),
				"WINDOW_UPDATE of 0": h2.AppendWindowUpdate(nil, 3, 0),
				"RST_STREAM":         h2.AppendRSTStream(nil, 3, h2.CodeCancel),
				"PRIORITY":           h2.AppendFrame(nil, h2.TypePriority, 0, 3, []byte{0, 0, 0, 0, 9}),
				"short PRIORITY":     h2.AppendFrame(nil, h2.TypePriority, 0, 3, make([]byte, 4)),
			}[test.frame]
			c.write(b)
			switch {
			case test.reset != none:
				c.wantReset("at first", 3, test.reset)
				c.write(b) // which is dropped now
			case test.goAway != none:
				last := uint32(3)
				if test.name == "idle" {
					last = 0
				}
				c.wantGoAway("at last", test.goAway, last)
				return
			}
			c.quiet("after the frame")
			c.wantAnswer("at last", 5)
		})
	}
}

// A stream whose number was skipped is closed, and one of an even number never
// was a client's.
func TestFramesOfSkippedStreams(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	c.wantAnswer("at first", 5)
	c.write(appendData(nil, 3, 0, "{}"))
	c.wantReset("DATA of stream 3", 3, h2.CodeStreamClosed)
	c.write(h2.AppendWindowUpdate(nil, 3, 1))
	c.quiet("WINDOW_UPDATE of stream 3")
	c.write(appendHeaders(nil, 1, 0, good...))
	c.wantGoAway("HEADERS of stream 1", h2.CodeProtocol, 5)

	for name, b := range map[string][]byte{
		"DATA":          appendData(nil, 2, 0, "{}"),
		"HEADERS":       appendHeaders(nil, 2, 0, good...),
		"WINDOW_UPDATE": h2.AppendWindowUpdate(nil, 2, 1),
		"RST_STREAM":    h2.AppendRSTStream(nil, 2, h2.CodeCancel),
	} {
		c := dialRaw(t, s, true)
		c.begin()
		c.wantAnswer("at first", 5)
		c.write(b)
		c.wantGoAway(name+" of stream 2", h2.CodeProtocol, 5)
	}
}

// The header blocks of all streams are decoded, whatever becomes of them.
func TestHeaderTableOutlivesStreams(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	var e hpack.Encoder
	header := func(id uint32, flags h2.Flags, fields ...string) {
		b := e.AppendBegin(nil)
		for i := 0; i < len(fields); i += 2 {
			b = e.AppendField(b, fields[i], fields[i+1], hpack.Index)
		}
		c.write(h2.AppendHeaders(nil, flags, id, b, h2.MinMaxFrameSize))
	}
	header(1, 0, "x-one", "1", ":method", "POST")
	c.wantReset("malformed", 1, h2.CodeProtocol)
	header(1, h2.FlagEndStream, "x-two", "2")
	header(3, 0, append(slices.Clone(good), "x-one", "1", "x-two", "2")...)
	c.write(appendData(nil, 3, h2.FlagEndStream, "{}"))
	if f := c.of(3); f.kind != headers || f.status() != "200" {
		t.Errorf("got %+v, want status 200", f)
	}
}

// What ends a stream and leaves the connection: RFC 9113, sections 5.3.1, 6.3 and
// 6.9.
func TestStreamErrors(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	id := uint32(1)
	for name, test := range map[string]struct {
		frame func(id uint32) []byte
		want  h2.Code
	}{
		"window too large":    {func(id uint32) []byte { return h2.AppendWindowUpdate(nil, id, h2.MaxWindow) }, h2.CodeFlowControl},
		"WINDOW_UPDATE of 0":  {func(id uint32) []byte { return h2.AppendWindowUpdate(nil, id, 0) }, h2.CodeProtocol},
		"PRIORITY of 4 bytes": {func(id uint32) []byte { return h2.AppendFrame(nil, h2.TypePriority, 0, id, make([]byte, 4)) }, h2.CodeFrameSize},
		"PRIORITY of 6 bytes": {func(id uint32) []byte { return h2.AppendFrame(nil, h2.TypePriority, 0, id, make([]byte, 6)) }, h2.CodeFrameSize},
		"PRIORITY of itself": {func(id uint32) []byte {
			return h2.AppendFrame(nil, h2.TypePriority, 0, id, []byte{0, 0, byte(id >> 8), byte(id), 9})
		}, h2.CodeProtocol},
	} {
		c.write(append(appendHeaders(nil, id, 0, good...), test.frame(id)...))
		c.wantReset(name, id, test.want)
		c.write(appendData(nil, id, h2.FlagEndStream, "{}"))
		c.quiet(name + ", DATA after the RST_STREAM")
		c.wantAnswer(name, id+2)
		id += 4
	}
	if n := len(s.Records()); n != 5 {
		t.Errorf("got %d records, want 5: those of the good requests", n)
	}
}
