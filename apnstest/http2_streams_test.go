package apnstest_test

import (
	"slices"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// A streamState is a state of a stream.
type streamState struct {
	name  string
	begin func(c rawConn) // brings stream 3 into the state; stream 1 is skipped
}

var (
	responded     = streamState{"responded", func(c rawConn) { c.wantAccepted("at first", 3) }}
	resetByClient = streamState{"reset by the client", func(c rawConn) {
		c.write(h2.AppendRSTStream(appendHeaders(nil, 3, 0, good...), 3, h2.CodeCancel))
	}}
	resetAsMalformed = streamState{"reset as malformed", func(c rawConn) {
		c.write(appendHeaders(nil, 3, 0, ":scheme", "https"))
		c.wantReset("at first", 3, h2.CodeProtocol)
	}}
	resetByFault = streamState{"reset by a Fault", func(c rawConn) {
		c.write(appendData(appendHeaders(nil, 3, 0, with("apns-collapse-id", "reset")...), 3, h2.FlagEndStream, "{}"))
		c.wantReset("at first", 3, h2.CodeCancel)
	}}
	halfClosed = streamState{"half-closed", func(c rawConn) {
		c.write(appendData(appendHeaders(nil, 3, 0, with("apns-collapse-id", "silence")...), 3, h2.FlagEndStream, "{}"))
	}}
	idle = streamState{"idle", func(rawConn) {}}
)

const noError = h2.Code(99) // not a code

// The source is RFC 9113, sections 5.1 and 5.1.1.
var streamStates = []struct {
	streamState
	frame  string
	reset  h2.Code // of the RST_STREAM for the frame
	goAway h2.Code // of the GOAWAY for the frame
}{
	{responded, "DATA", h2.CodeStreamClosed, noError},
	{responded, "HEADERS", noError, h2.CodeStreamClosed},
	{responded, "WINDOW_UPDATE", noError, noError},
	{responded, "RST_STREAM", noError, noError},
	{responded, "PRIORITY", noError, noError},
	{responded, "WINDOW_UPDATE of 0", h2.CodeProtocol, noError},
	{responded, "short PRIORITY", h2.CodeFrameSize, noError},

	{resetByClient, "DATA", h2.CodeStreamClosed, noError},
	{resetByClient, "HEADERS", noError, h2.CodeStreamClosed},
	{resetByClient, "WINDOW_UPDATE", noError, noError},
	{resetByClient, "RST_STREAM", noError, noError},
	{resetByClient, "PRIORITY", noError, noError},

	{resetAsMalformed, "DATA", noError, noError},
	{resetAsMalformed, "HEADERS", noError, noError},
	{resetAsMalformed, "WINDOW_UPDATE", noError, noError},
	{resetAsMalformed, "WINDOW_UPDATE of 0", noError, noError},
	{resetAsMalformed, "RST_STREAM", noError, noError},
	{resetAsMalformed, "PRIORITY", noError, noError},
	{resetByFault, "DATA", noError, noError},
	{resetByFault, "HEADERS", noError, noError},

	{halfClosed, "DATA", noError, h2.CodeStreamClosed},
	{halfClosed, "HEADERS", noError, h2.CodeStreamClosed},
	{halfClosed, "WINDOW_UPDATE", noError, noError},
	{halfClosed, "RST_STREAM", noError, noError},
	{halfClosed, "PRIORITY", noError, noError},
	{halfClosed, "WINDOW_UPDATE of 0", h2.CodeProtocol, noError},
	{halfClosed, "short PRIORITY", h2.CodeFrameSize, noError},

	{idle, "DATA", noError, h2.CodeProtocol},
	{idle, "WINDOW_UPDATE", noError, h2.CodeProtocol},
	{idle, "WINDOW_UPDATE of 0", noError, h2.CodeProtocol},
	{idle, "RST_STREAM", noError, h2.CodeProtocol},
	{idle, "PRIORITY", noError, noError},
	{idle, "short PRIORITY", noError, h2.CodeFrameSize},
}

// The state of a stream decides what the server does about a frame of the stream.
func TestFramesByStreamState(t *testing.T) {
	for _, test := range streamStates {
		t.Run(test.name+" "+test.frame, func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				switch m.CollapseID {
				case "reset":
					return apnstest.Fault{End: apnstest.EndRST}
				case "silence":
					return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
				}
				return nil
			}, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.wantPingAck() // after this the SETTINGS are acknowledged
			test.begin(c)
			b := frameOfStream3(test.frame)
			c.write(b)
			switch {
			case test.reset != noError:
				c.wantReset("at first", 3, test.reset)
				c.write(b) // now the frame is ignored
			case test.goAway != noError:
				last := uint32(3)
				if test.name == "idle" {
					last = 0
				}
				c.wantGoAway("at last", test.goAway, last)
				return
			}
			c.wantNoFrame("after the frame")
			c.wantAccepted("at last", 5)
		})
	}
}

func frameOfStream3(name string) []byte {
	switch name {
	case "DATA":
		return appendData(nil, 3, h2.FlagEndStream, "{}")
	case "HEADERS":
		return appendHeaders(nil, 3, h2.FlagEndStream, "x", "y")
	case "WINDOW_UPDATE":
		return h2.AppendWindowUpdate(nil, 3, 1)
	case "WINDOW_UPDATE of 0":
		return h2.AppendWindowUpdate(nil, 3, 0)
	case "RST_STREAM":
		return h2.AppendRSTStream(nil, 3, h2.CodeCancel)
	case "PRIORITY":
		return h2.AppendFrame(nil, h2.TypePriority, 0, 3, []byte{0, 0, 0, 0, 9})
	case "short PRIORITY":
		return h2.AppendFrame(nil, h2.TypePriority, 0, 3, make([]byte, 4))
	}
	panic("no frame " + name)
}

// A stream whose number the client has skipped is closed. A client cannot use a stream with
// an even number.
func TestFramesOfSkippedStreams(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	c.wantAccepted("at first", 5)
	c.write(appendData(nil, 3, 0, "{}"))
	c.wantReset("DATA of stream 3", 3, h2.CodeStreamClosed)
	c.write(h2.AppendWindowUpdate(nil, 3, 1))
	c.wantNoFrame("WINDOW_UPDATE of stream 3")
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
		c.wantAccepted("at first", 5)
		c.write(b)
		c.wantGoAway(name+" of stream 2", h2.CodeProtocol, 5)
	}
}

// Header blocks of streams that are reset count for the header table.
func TestHeaderTableOfResetStreams(t *testing.T) {
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
	if f := c.untilStream(3); f.kind != headers || f.status() != "200" {
		t.Errorf("got %+v, want status 200", f)
	}
}

// An error of a stream does not end the connection: RFC 9113, sections 5.3.1, 6.3 and 6.9.
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
		c.wantNoFrame(name + ", DATA after the RST_STREAM")
		c.wantAccepted(name, id+2)
		id += 4
	}
	if n := len(s.Records()); n != 5 {
		t.Errorf("got %d records, want 5: those of the good requests", n)
	}
}
