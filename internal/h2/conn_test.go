package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// The first bytes are the preface and SETTINGS (RFC 9113, section 3.4), and nothing
// is opened before the server's SETTINGS have come.
func TestStart(t *testing.T) {
	c := newUnsettled(t)
	if !c.Pending() {
		t.Error("Pending at the start: got false, want true")
	}
	for range 2 {
		if stream, err := c.Open(request("a", "")); stream != 0 || err != nil || c.Room() != 0 || c.Ready() {
			t.Errorf("before SETTINGS: got stream %d, %v, room %d, settled %t, want none of it", stream, err, c.Room(), c.Ready())
		}
		c.flush()
	}
	want := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(unhex(t, ""+
		"00000c"+ // length
		"04"+ // SETTINGS
		"00"+ // no flags
		"00000000"+ // no stream
		"0002"+"00000000"+ // ENABLE_PUSH 0
		"0006"+"00004000"+ // MAX_HEADER_LIST_SIZE 16,384
		"000004"+ // length
		"08"+ // WINDOW_UPDATE
		"00"+ // no flags
		"00000000"+ // the connection
		"000f0001")) // to 1 MiB
	if got := string(c.script.written); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := c.receive(settings()); got != "" || !c.Ready() || c.Room() != h2.DefaultStreams {
		t.Errorf("after SETTINGS: got outcomes %q, settled %t, room %d, want none, true, %d", got, c.Ready(), c.Room(), h2.DefaultStreams)
	}
	c.open("a")
	if got, want := c.flushed(), "SETTINGS 2=0 6=16384; WINDOW_UPDATE 983041; SETTINGS ACK; HEADERS 1; DATA 1 2 END_STREAM"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c.Pending() {
		t.Error("Pending after Flush: got true, want false")
	}
}

// The server's first frame has to be SETTINGS (section 3.4).
func TestFirstFrame(t *testing.T) {
	for _, test := range []struct {
		name  string
		first []byte
		want  string
	}{
		{"SETTINGS", settings(), ""},
		{"acknowledgement of SETTINGS", h2.AppendSettingsAck(nil), "PROTOCOL_ERROR"},
		{"DATA", data(1, 0, "x"), "PROTOCOL_ERROR"},
		{"HEADERS", answer(1, "200"), "PROTOCOL_ERROR"},
		{"PRIORITY", frame(h2.TypePriority, 0, 1, "\x00\x00\x00\x00\x00"), "PROTOCOL_ERROR"},
		{"PRIORITY of a wrong size", frame(h2.TypePriority, 0, 1, ""), "FRAME_SIZE_ERROR"},
		{"RST_STREAM", reset(1, 0), "PROTOCOL_ERROR"},
		{"PUSH_PROMISE", frame(h2.TypePushPromise, h2.FlagEndHeaders, 1, "\x00\x00\x00\x02"), "PROTOCOL_ERROR"},
		{"PING", ping(1), "PROTOCOL_ERROR"},
		{"WINDOW_UPDATE", windowUpdate(0, 1), "PROTOCOL_ERROR"},
		{"CONTINUATION", frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, ""), "PROTOCOL_ERROR"},
		{"an unknown type", frame(0xff, 0, 0, ""), "PROTOCOL_ERROR"},
		{"HTTP/1", []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), `the server speaks HTTP/1: "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"`},
		{"the end", nil, "EOF"},
	} {
		c := newUnsettled(t)
		c.flush()
		c.sent()
		_, err := c.read(0, test.first)
		if test.first == nil {
			c.script.readErr = io.EOF
			_, err = c.Read()
		}
		if got := codeOf(err); got != test.want {
			t.Errorf("%s: got error %q, want %q", test.name, got, test.want)
		}
		if got := c.flushed(); strings.HasSuffix(test.want, "_ERROR") && got != "GOAWAY 0 "+test.want {
			t.Errorf("%s: the client sent %q, want GOAWAY with that code", test.name, got)
		}
		if test.want != "" && c.Room() != 0 {
			t.Errorf("%s: got room %d, want 0", test.name, c.Room())
		}
	}
	// A server may say at once that it has no time, and why (section 3.4).
	c := newUnsettled(t)
	c.receive(h2.AppendGoAway(nil, 0, h2.CodeEnhanceYourCalm, []byte("busy")))
	if g := c.GoAway(); g == nil || *g != (h2.GoAway{0, h2.CodeEnhanceYourCalm, "busy"}) || c.Ready() {
		t.Errorf("GOAWAY first: got %+v, settled %t", g, c.Ready())
	}
	c.receive(settings())
	if c.Room() != 0 {
		t.Errorf("SETTINGS after GOAWAY: got room %d, want 0", c.Room())
	}
}

// An exchange is what the server sends to a client that has sent the requests a and
// b on the streams 1 and 3, and what the client makes of it.
type exchange struct {
	rfc, name string // section of RFC 9113
	server    []byte
	outcomes  string // that Read returns
	sent      string // what the client sends then
	err       string // the connection error's code
}

func (e *exchange) run(t *testing.T, part int) {
	t.Helper()
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	c.sent()
	outcomes, err := c.read(part, e.server)
	if got := codeOf(err); got != e.err {
		t.Errorf("%s (section %s): got error %q (%v), want %q", e.name, e.rfc, got, err, e.err)
	}
	if outcomes != e.outcomes {
		t.Errorf("%s (section %s): got outcomes %q, want %q", e.name, e.rfc, outcomes, e.outcomes)
	}
	sent := e.sent
	if e.err != "" {
		sent = strings.TrimPrefix(sent+"; GOAWAY 0 "+e.err, "; ")
	}
	if got := c.flushed(); got != sent {
		t.Errorf("%s (section %s): the client sent\n%q, want\n%q", e.name, e.rfc, got, sent)
	}
	// What has no outcome yet is lost, and has one then.
	rest := c.end(io.EOF)
	for _, tag := range []string{"a ", "b "} {
		switch n := strings.Count("; "+outcomes, "; "+tag); {
		case n > 1:
			t.Errorf("%s (section %s): got %d outcomes of %s, want one", e.name, e.rfc, n, tag)
		case n == strings.Count("; "+rest, "; "+tag):
			t.Errorf("%s (section %s): got outcomes %q, and %q at the end, want one of %s", e.name, e.rfc, outcomes, rest, tag)
		}
	}
	if c.Active() != 0 || c.Rest() != nil {
		t.Errorf("%s: got %d active streams after the end, want none", e.name, c.Active())
	}
}

func runAll(t *testing.T, exchanges []exchange) {
	for i := range exchanges {
		exchanges[i].run(t, 0)
		exchanges[i].run(t, 1)
	}
}

func TestResponses(t *testing.T) {
	const end, padded = h2.FlagEndStream, h2.FlagPadded
	resetA := "RST_STREAM 1 PROTOCOL_ERROR; PING 1"
	trailers := headers(1, end, "x-sum", "1")
	informational := headers(1, 0, ":status", "103", "link", "x")
	cat := slices.Concat[[]byte]
	runAll(t, []exchange{
		// Good ones.
		{"8.1", "a status", answer(1, "200"), "a answered 200", "", ""},
		{"8.1", "both, the other way round", cat(answer(3, "200"), answer(1, "410")), "b answered 200; a answered 410", "", ""},
		{"8.1", "a body", cat(begin(1, "400"), data(1, end, "why")), `a answered 400 "why"`, "", ""},
		{"8.1", "a body in parts", cat(begin(1, "400"), data(1, 0, "w"), begin(3, "400"), data(3, end, "not"), data(1, 0, "hy"), data(1, end, "!")),
			`b answered 400 "not"; a answered 400 "why!"`, "", ""},
		{"8.1", "an empty body", cat(begin(1, "200"), data(1, end, "")), "a answered 200", "", ""},
		{"8.1", "trailers", cat(begin(1, "400"), data(1, 0, "why"), trailers), `a answered 400 "why"`, "", ""},
		{"8.1", "trailers without a body", cat(begin(1, "200"), trailers), "a answered 200", "", ""},
		{"8.1", "empty trailers", cat(begin(1, "200"), headers(1, end)), "a answered 200", "", ""},
		{"8.1", "a 1xx response", cat(informational, answer(1, "200")), "a answered 200", "", ""},
		{"8.1", "two 1xx responses", cat(informational, headers(1, 0, ":status", "100"), begin(1, "200"), data(1, end, "x")), `a answered 200 "x"`, "", ""},
		{"6.1", "padding", cat(begin(1, "400"), data(1, padded|end, "\x03why\x00\x00\x00")), `a answered 400 "why"`, "", ""},
		{"6.1", "DATA of padding", cat(begin(1, "400"), data(1, padded, "\x03\x00\x00\x00"), data(1, end, "why")), `a answered 400 "why"`, "", ""},
		{"6.2", "padding and priority", cat(h2.AppendHeader(nil, 9, h2.TypeHeaders, 0x2d, 1), []byte("\x02\x80\x00\x00\x14\x0a\x88\x00\x00")), "a answered 200", "", ""},
		{"6.10", "CONTINUATION", cat(frame(h2.TypeHeaders, end, 1, "\x88"), frame(h2.TypeContinuation, 0, 1, ""), frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, string(block("a", "b")))),
			"a answered 200", "", ""},
		{"4.2", "a frame of 16,384 bytes", cat(begin(1, "200"), data(1, end, strings.Repeat("x", 16384))), `a answered 200 "` + strings.Repeat("x", 20) + `"`, "", ""},
		{"8.1.1", "content-length", cat(headers(1, 0, ":status", "200", "content-length", "3"), data(1, 0, "wh"), data(1, padded|end, "\x01y\x00")), `a answered 200 "why"`, "", ""},
		{"8.1.1", "content-length 0", headers(1, end, ":status", "200", "content-length", "0"), "a answered 200", "", ""},
		{"8.1.1", "status 304 with a content-length", headers(1, end, ":status", "304", "content-length", "9"), "a answered 304", "", ""},
		{"7", "status 421", answer(1, "421"), "a answered 421", "", ""},
		{"8.3.2", "status 999", answer(1, "999"), "a answered 999", "", ""},

		// Malformed ones: never an answer, and the stream is reset.
		{"8.3.2", "no status", headers(1, end, "x", "y"), "a malformed", resetA, ""},
		{"8.3.2", "no status and no end", headers(1, 0, "x", "y"), "a malformed", resetA, ""},
		{"8.3.2", "an empty block", headers(1, end), "a malformed", resetA, ""},
		{"8.3.2", "a status of two digits", answer(1, "20"), "a malformed", resetA, ""},
		{"8.6", "status 101", headers(1, 0, ":status", "101"), "a malformed", resetA, ""},
		{"8.3", "a status twice", headers(1, end, ":status", "200", ":status", "200"), "a malformed", resetA, ""},
		{"8.3", "a status after another field", headers(1, end, "x", "y", ":status", "200"), "a malformed", resetA, ""},
		{"8.3.2", "a pseudo-header field of requests", headers(1, end, ":status", "200", ":path", "/"), "a malformed", resetA, ""},
		{"8.2.1", "a capital letter", headers(1, end, ":status", "200", "Apns-Id", "1"), "a malformed", resetA, ""},
		{"8.2.1", "LF in a value", headers(1, end, ":status", "200", "apns-id", "1\n2"), "a malformed", resetA, ""},
		{"8.2.2", "connection: close", headers(1, end, ":status", "200", "connection", "close"), "a malformed", resetA, ""},
		{"8.1", "a 1xx response with the end", headers(1, end, ":status", "103"), "a malformed", resetA, ""},
		{"8.1", "a malformed 1xx response", cat(headers(1, 0, ":status", "103", "A", ""), answer(1, "200")), "a malformed", resetA, ""},
		{"8.1", "a second response", cat(begin(1, "200"), answer(1, "200")), "a malformed", resetA, ""},
		{"8.1", "a 1xx response after the final one", cat(begin(1, "200"), informational), "a malformed", resetA, ""},
		{"8.1", "trailers without the end", cat(begin(1, "200"), headers(1, 0, "x", "y")), "a malformed", resetA, ""},
		{"8.2.1", "malformed trailers", cat(begin(1, "200"), headers(1, end, "X", "y")), "a malformed", resetA, ""},
		{"8.1", "DATA before the status", data(1, end, "x"), "a malformed", resetA, ""},
		{"8.1", "DATA after a 1xx response", cat(informational, data(1, end, "x")), "a malformed", resetA, ""},
		{"8.1.1", "a body too short", cat(headers(1, 0, ":status", "200", "content-length", "3"), data(1, end, "wh")), "a malformed", resetA, ""},
		{"8.1.1", "a body too long", cat(headers(1, 0, ":status", "200", "content-length", "3"), data(1, end, "why?")), "a malformed", resetA, ""},
		{"8.1.1", "a body too short, with trailers", cat(headers(1, 0, ":status", "200", "content-length", "3"), trailers), "a malformed", resetA, ""},
		{"8.1.1", "no body in spite of content-length", headers(1, end, ":status", "200", "content-length", "1"), "a malformed", resetA, ""},
		{"8.1.1", "two values of content-length", headers(1, end, ":status", "200", "content-length", "0", "content-length", "1"), "a malformed", resetA, ""},
		{"8.1.1", "more after a malformed response", cat(headers(1, 0, "x", "y"), data(1, 0, "z"), answer(1, "200"), answer(3, "200")), "a malformed; b answered 200", resetA, ""},
		{"8.1.1", "two malformed responses", cat(headers(1, end, "x", "y"), headers(3, end, "x", "y")), "a malformed; b malformed", resetA + "; RST_STREAM 3 PROTOCOL_ERROR", ""},

		// RST_STREAM.
		{"8.7", "REFUSED_STREAM", reset(1, h2.CodeRefusedStream), "a unprocessed", "", ""},
		{"8.7", "REFUSED_STREAM after a 1xx response", cat(informational, reset(1, h2.CodeRefusedStream)), "a unprocessed", "", ""},
		{"6.4", "CANCEL", reset(1, h2.CodeCancel), "a reset CANCEL", "", ""},
		{"6.4", "NO_ERROR without a response", reset(1, h2.CodeNo), "a reset NO_ERROR", "", ""},
		{"6.4", "NO_ERROR after a 1xx response", cat(informational, reset(1, h2.CodeNo)), "a reset NO_ERROR", "", ""},
		{"7", "an unknown code", reset(1, 99), "a reset error code 99", "", ""},
		{"8.1", "NO_ERROR after a whole response", cat(answer(1, "200"), reset(1, h2.CodeNo)), "a answered 200", "", ""},
		{"8.1", "INTERNAL_ERROR after a whole response", cat(answer(1, "200"), reset(1, h2.CodeInternal)), "a answered 200", "", ""},
		{"8.1", "NO_ERROR in the middle of a response", cat(begin(1, "400"), data(1, 0, "w"), reset(1, h2.CodeNo)), `a answered 400 "w" cut`, "", ""},
		{"8.1", "REFUSED_STREAM in the middle of a response", cat(begin(1, "200"), reset(1, h2.CodeRefusedStream)), "a answered 200 cut", "", ""},
		{"5.4.2", "RST_STREAM twice", cat(reset(1, h2.CodeCancel), reset(1, h2.CodeCancel)), "a reset CANCEL", "", ""},

		// Frames of a stream that has ended are dropped.
		{"5.1", "after the end of a stream", cat(answer(1, "200"), answer(1, "200"), data(1, 0, "x"), data(1, end, ""), windowUpdate(1, 1), reset(1, 0), headers(1, 0, "A", "b")), "a answered 200", "", ""},
		{"5.1", "after RST_STREAM", cat(reset(1, 8), answer(1, "200"), data(1, end, "x"), windowUpdate(1, 1)), "a reset CANCEL", "", ""},
		{"6.9", "WINDOW_UPDATE by 0 after the end of a stream", cat(answer(1, "200"), windowUpdate(1, 0)), "a answered 200", "", ""},
	})
}

func TestConnectionFrames(t *testing.T) {
	const end = h2.FlagEndStream
	cat := slices.Concat[[]byte]
	runAll(t, []exchange{
		// SETTINGS.
		{"6.5.3", "SETTINGS", settings(), "", "SETTINGS ACK", ""},
		{"6.5.3", "SETTINGS twice", cat(settings(), ping(7), settings()), "", "SETTINGS ACK; PING ACK 7; SETTINGS ACK", ""},
		{"6.5.3", "an acknowledgement too many", h2.AppendSettingsAck(nil), "", "", "PROTOCOL_ERROR"},
		{"6.5.2", "an unknown setting", setting(0x99, 5), "", "SETTINGS ACK", ""},
		{"6.5.2", "ENABLE_PUSH 0", setting(h2.SettingEnablePush, 0), "", "SETTINGS ACK", ""},
		{"6.5.2", "ENABLE_PUSH 1", setting(h2.SettingEnablePush, 1), "", "", "PROTOCOL_ERROR"},
		{"6.5.2", "ENABLE_PUSH 2", setting(h2.SettingEnablePush, 2), "", "", "PROTOCOL_ERROR"},
		{"6.5.2", "INITIAL_WINDOW_SIZE too large", setting(h2.SettingInitialWindowSize, 1<<31), "", "", "FLOW_CONTROL_ERROR"},
		{"6.5.2", "MAX_FRAME_SIZE too small", setting(h2.SettingMaxFrameSize, 1), "", "", "PROTOCOL_ERROR"},
		{"6.9.2", "INITIAL_WINDOW_SIZE that makes a window too large", cat(windowUpdate(1, 3), setting(h2.SettingInitialWindowSize, 1<<31-1)), "", "", "FLOW_CONTROL_ERROR"},
		{"6.9.2", "INITIAL_WINDOW_SIZE that makes a window as large as it may be", cat(windowUpdate(1, 2), setting(h2.SettingInitialWindowSize, 1<<31-1)), "", "SETTINGS ACK", ""},

		// PING.
		{"6.7", "PING", cat(ping(1), ping(1<<63)), "", "PING ACK 1; PING ACK 9223372036854775808", ""},
		{"6.7", "an answer to no PING", pong(1), "", "", ""},
		{"6.7", "PING of a wrong size", frame(h2.TypePing, 0, 0, "1234567"), "", "", "FRAME_SIZE_ERROR"},

		// Frames that are ignored.
		{"5.5", "unknown types", cat(frame(0x0a, 0xff, 0, "x"), frame(0xff, 0xff, 1, "x"), frame(0xff, 0xff, 99, "x")), "", "", ""},
		{"4.1", "flags that mean nothing", cat(frame(h2.TypeSettings, 0xfe, 0, ""), frame(h2.TypePing, 0xfe, 0, "\x00\x00\x00\x00\x00\x00\x00\x01"), frame(h2.TypeRSTStream, 0xff, 1, "\x00\x00\x00\x08")),
			"a reset CANCEL", "SETTINGS ACK; PING ACK 1", ""},
		{"4.1", "the reserved bit", frame(h2.TypeRSTStream, 0, 1<<31|1, "\x00\x00\x00\x08"), "a reset CANCEL", "", ""},
		{"5.1", "PRIORITY of any stream", cat(frame(h2.TypePriority, 0, 1, "\x00\x00\x00\x03\x00"), frame(h2.TypePriority, 0, 99, "\x00\x00\x00\x03\x00"), frame(h2.TypePriority, 0, 2, "\x00\x00\x00\x03\x00")), "", "", ""},
		{"6.3", "PRIORITY of a wrong size", frame(h2.TypePriority, 0, 1, "\x00\x00\x00\x03"), "a malformed", "RST_STREAM 1 FRAME_SIZE_ERROR; PING 1", ""},

		// Frames of streams that were never opened.
		{"5.1", "HEADERS of an idle stream", answer(5, "200"), "", "", "PROTOCOL_ERROR"},
		{"5.1", "HEADERS of an even stream", answer(2, "200"), "", "", "PROTOCOL_ERROR"},
		{"5.1", "HEADERS of the last stream that there can be", answer(1<<31-1, "200"), "", "", "PROTOCOL_ERROR"},
		{"5.1", "DATA of an idle stream", data(5, end, "x"), "", "", "PROTOCOL_ERROR"},
		{"5.1", "DATA of an even stream", data(2, end, "x"), "", "", "PROTOCOL_ERROR"},
		{"6.4", "RST_STREAM of an idle stream", reset(5, 8), "", "", "PROTOCOL_ERROR"},
		{"6.4", "RST_STREAM of an even stream", reset(2, 8), "", "", "PROTOCOL_ERROR"},
		{"6.9", "WINDOW_UPDATE of an idle stream", windowUpdate(5, 1), "", "", "PROTOCOL_ERROR"},
		{"6.9", "WINDOW_UPDATE of an even stream", windowUpdate(2, 1), "", "", "PROTOCOL_ERROR"},
		{"6.9", "WINDOW_UPDATE by 0 of an idle stream", windowUpdate(5, 0), "", "", "PROTOCOL_ERROR"},
		{"6.6", "PUSH_PROMISE", frame(h2.TypePushPromise, h2.FlagEndHeaders, 1, "\x00\x00\x00\x02\x82"), "", "", "PROTOCOL_ERROR"},
		{"6.6", "PUSH_PROMISE of a stream that has ended", cat(answer(1, "200"), frame(h2.TypePushPromise, h2.FlagEndHeaders, 1, "\x00\x00\x00\x02\x82")), "a answered 200", "", "PROTOCOL_ERROR"},

		// Windows.
		{"6.9", "WINDOW_UPDATE by 0 of a stream", windowUpdate(1, 0), "a malformed", "RST_STREAM 1 PROTOCOL_ERROR; PING 1", ""},
		{"6.9", "WINDOW_UPDATE by 0 of the connection", windowUpdate(0, 0), "", "", "PROTOCOL_ERROR"},
		{"6.9.1", "a stream's window as large as it may be", windowUpdate(1, 1<<31-1-65533), "", "", ""},
		{"6.9.1", "a stream's window too large", windowUpdate(1, 1<<31-65533), "a malformed", "RST_STREAM 1 FLOW_CONTROL_ERROR; PING 1", ""},
		{"6.9.1", "the connection's window as large as it may be", windowUpdate(0, 1<<31-1-65531), "", "", ""},
		{"6.9.1", "the connection's window too large", windowUpdate(0, 1<<31-65531), "", "", "FLOW_CONTROL_ERROR"},

		// HPACK.
		{"4.3", "index 0", frame(h2.TypeHeaders, end|h2.FlagEndHeaders, 1, "\x80"), "", "", "COMPRESSION_ERROR"},
		{"4.3", "an index beyond the tables", frame(h2.TypeHeaders, end|h2.FlagEndHeaders, 1, "\x88\xbe"), "", "", "COMPRESSION_ERROR"},
		{"4.3", "a block that is cut off", frame(h2.TypeHeaders, end|h2.FlagEndHeaders, 1, "\x88\x00\x05ab"), "", "", "COMPRESSION_ERROR"},
		{"4.3", "a table larger than allowed", frame(h2.TypeHeaders, end|h2.FlagEndHeaders, 1, "\x3f\xe2\x1f\x88"), "", "", "COMPRESSION_ERROR"},
		{"4.3", "a table as large as allowed", frame(h2.TypeHeaders, end|h2.FlagEndHeaders, 1, "\x3f\xe1\x1f\x88"), "a answered 200", "", ""},
		{"4.3", "a bad block of a stream that has ended", cat(answer(1, "200"), frame(h2.TypeHeaders, h2.FlagEndHeaders, 1, "\x80")), "a answered 200", "", "COMPRESSION_ERROR"},

		// What came before an error counts, and what comes after it does not.
		{"5.4.1", "an answer before and after an error", cat(answer(1, "200"), ping(3), windowUpdate(0, 0), answer(3, "200")), "a answered 200", "PING ACK 3", "PROTOCOL_ERROR"},
	})
}

// What a client sends for a request (section 8.3.1).
func TestRequests(t *testing.T) {
	c := newClient(t)
	bearer := hpack.AppendLiteral(nil, "authorization", "bearer abc.def")
	fields := []h2.Field{{"apns-topic", "com.example", hpack.Index}, {"apns-id", "1", hpack.IndexName}, {"x-other", "y", hpack.Literal}}
	var blocks [][]byte
	for i := range 3 {
		r := &h2.Request{Method: "POST", Authority: "push.example:2197", Dir: "/", Name: fmt.Sprint(i), Fields: fields, Literals: bearer, Body: []byte("{}"), Tag: i}
		if _, err := c.Open(r); err != nil {
			t.Fatal(err)
		}
		c.flush()
		blocks = append(blocks, newRawReader(c.script.written).all()[0].payload)
		if got, want := c.sent(), fmt.Sprintf("HEADERS %d; DATA %[1]d 2 END_STREAM", 1+2*i); got != want {
			t.Errorf("request %d: the client sent %q, want %q", i, got, want)
		}
		want := fmt.Sprintf(":method: POST\n:scheme: https\n:authority: push.example:2197\n:path: /%d\nauthorization: bearer abc.def\napns-topic: com.example\napns-id: 1\nx-other: y\n", i)
		if got := c.headers[uint32(1+2*i)]; got != want {
			t.Errorf("request %d: got fields\n%swant\n%s", i, got, want)
		}
	}
	for i, b := range blocks {
		// RFC 7541, sections 6.2.2 and 7.1: the token stays out of the table, and Huffman
		// code saves space.
		if !bytes.Contains(b, bearer) || !bytes.HasPrefix(bearer, []byte{0x0f, 23 - 15}) {
			t.Errorf("block %d is %x, want the literal %x in it, without indexing", i, b, bearer)
		}
	}
	if len(blocks[1]) >= len(blocks[0]) || len(blocks[2]) != len(blocks[1]) {
		t.Errorf("got blocks of %d, %d and %d bytes, want the table to be used from the second on", len(blocks[0]), len(blocks[1]), len(blocks[2]))
	}
	// A request without a body ends with its HEADERS.
	c.openBody("empty", "")
	if got := c.flushed(); got != "HEADERS 7 END_STREAM" {
		t.Errorf("a request without a body: the client sent %q", got)
	}
	// Nothing of a request is kept but its tag.
	r := request("kept", strings.Repeat("x", 70_000))
	if _, err := c.Open(r); err != nil {
		t.Fatal(err)
	}
	clear(r.Body)
	c.flush()
	c.receive(windowUpdate(0, 100_000), windowUpdate(9, 100_000))
	c.flush()
	if bytes.Count(c.script.written, []byte("x")) != 70_000 {
		t.Errorf("a body that was changed after Open was sent, or was not sent whole")
	}
}

// A header larger than a frame is continued (section 4.3), and DATA is cut into
// frames that the server takes (section 4.2).
func TestLargeRequests(t *testing.T) {
	for _, size := range []uint32{0, 1 << 14, 1 << 20} {
		c := newClient(t)
		if size > 0 {
			c.receive(setting(h2.SettingMaxFrameSize, size))
			c.flush()
			c.sent()
		}
		long := strings.Repeat("long ", 8000) + "."
		r := request("a", strings.Repeat("x", 40_000))
		r.Fields = []h2.Field{{"x-long", long, hpack.Literal}}
		if _, err := c.Open(r); err != nil {
			t.Fatal(err)
		}
		want := "HEADERS 1; CONTINUATION 1; CONTINUATION 1; DATA 1 16384; DATA 1 16384; DATA 1 7232 END_STREAM"
		if got := c.flushed(); got != want {
			t.Errorf("MAX_FRAME_SIZE %d: the client sent\n%s, want\n%s", size, got, want)
		}
		if got := c.headers[1]; !strings.HasSuffix(got, "x-long: "+long+"\n") {
			t.Errorf("MAX_FRAME_SIZE %d: got a header of %d bytes that does not end with the long field", size, len(got))
		}
	}
}

// SETTINGS_MAX_HEADER_LIST_SIZE of the server is obeyed (section 6.5.2).
func TestHeaderListSize(t *testing.T) {
	const nameless = 4*32 + len(":method"+"POST"+":scheme"+"https"+":authority"+"push"+":path"+"/a")
	r := request("a", "{}")
	r.Fields = []h2.Field{{"x", "y", hpack.Index}}
	r.Literals, r.LiteralSize = hpack.AppendLiteral(nil, "authorization", "z"), len("authorization"+"z")+32
	size := uint32(nameless + 34 + r.LiteralSize)

	c := newClient(t, h2.SettingValue{h2.SettingMaxHeaderListSize, size - 1})
	stream, err := c.Open(r)
	e, ok := errors.AsType[*h2.HeaderSizeError](err)
	if !ok || *e != (h2.HeaderSizeError{int64(size), int64(size) - 1}) || stream != 0 {
		t.Errorf("a limit of %d: got stream %d, error %v, want a HeaderSizeError with both sizes", size-1, stream, err)
	}
	want := fmt.Sprintf("the request's header has %d bytes, and the server takes at most %d (SETTINGS_MAX_HEADER_LIST_SIZE)", size, size-1)
	if err != nil && err.Error() != want {
		t.Errorf("got text %q\nwant     %q", err, want)
	}
	if c.Pending() || c.Active() != 0 || c.Room() != h2.DefaultStreams {
		t.Errorf("after the error: got pending %t, %d active, room %d, want as before", c.Pending(), c.Active(), c.Room())
	}
	c.receive(setting(h2.SettingMaxHeaderListSize, size))
	if stream, err := c.Open(r); stream != 1 || err != nil {
		t.Errorf("a limit of %d: got stream %d, %v, want 1", size, stream, err)
	}
	c.flush()
	c.sent()
	got := 0
	for line := range strings.Lines(c.headers[1]) {
		got += len(line) - len(": \n") + 32
	}
	if got != int(size) {
		t.Errorf("the header that was sent has %d bytes, want the %d that were counted", got, size)
	}
	c.receive(setting(h2.SettingMaxHeaderListSize, 0))
	if _, err := c.Open(r); err == nil {
		t.Error("a limit of 0: got no error, want one")
	}
}

// SETTINGS_HEADER_TABLE_SIZE is obeyed from the next block on, which announces it
// (RFC 7541, section 4.2).
func TestHeaderTableSize(t *testing.T) {
	size := func(n uint32) []byte { return setting(h2.SettingHeaderTableSize, n) }
	for _, test := range []struct {
		name   string
		server []byte
		update string // what the next block begins with
		hits   bool   // the table has kept its fields
	}{
		{"the default", nil, "", true},
		{"0", size(0), "20", false},
		{"lowered", size(100), "3f45", false},
		{"lowered, and the fields fit", size(2000), "3fb10f", true},
		{"raised", size(8192), "", true}, // the client uses 4,096 of it
		{"the largest there is", size(1<<32 - 1), "", true},
		{"lowered and raised", slices.Concat(size(0), size(4096)), "203fe11f", false},
		{"lowered, raised and lowered in one frame", settings(h2.SettingValue{1, 100}, h2.SettingValue{1, 4096}, h2.SettingValue{1, 200}), "3f453fa901", false},
	} {
		c := newClient(t)
		c.sends.decoder = hpack.NewDecoder(8192, 1<<20)
		r := request("a", "{}")
		r.Fields = []h2.Field{{"apns-topic", "com.example", hpack.Index}, {"apns-push-type", "alert", hpack.Index}}
		open := func() []byte {
			t.Helper()
			if _, err := c.Open(r); err != nil {
				t.Fatal(err)
			}
			c.flush()
			frames := newRawReader(c.script.written).all()
			c.sent() // which decodes it
			return frames[len(frames)-2].payload
		}
		first := open()
		second := open()
		c.receive(test.server)
		third := open()
		fourth := open()
		update := unhex(t, test.update)
		if !bytes.HasPrefix(third, update) {
			t.Errorf("%s: got block %x, want %x at its beginning", test.name, third, update)
		}
		if bytes.HasPrefix(fourth, []byte{0x20}) || bytes.HasPrefix(fourth, []byte{0x3f}) {
			t.Errorf("%s: got block %x, want no second size update", test.name, fourth)
		}
		if hits := len(third)-len(update) == len(second); hits != test.hits {
			t.Errorf("%s: got blocks of %d, %d, then %d bytes, want the table kept: %t", test.name, len(first), len(second), len(third), test.hits)
		}
		for stream, got := range c.headers {
			want := ":method: POST\n:scheme: https\n:authority: push\n:path: /a\napns-topic: com.example\napns-push-type: alert\n"
			if got != want {
				t.Errorf("%s, stream %d: got fields\n%swant\n%s", test.name, stream, got, want)
			}
		}
	}
}

// Every block is decoded, whatever becomes of its stream, since it may change the
// table (section 4.3).
func TestBlocksOfClosedStreams(t *testing.T) {
	// A literal with incremental indexing: each enters the table.
	insert := func(name, value string) string {
		return fmt.Sprintf("\x40%c%s%c%s", len(name), name, len(value), value)
	}
	c := newClient(t)
	c.open("cancelled", "answered", "reset", "unprocessed", "last")
	c.flush()
	c.cancel(1)
	block := func(stream uint32, fragment string) []byte {
		return frame(h2.TypeHeaders, h2.FlagEndHeaders|h2.FlagEndStream, stream, fragment)
	}
	c.receive(answer(3, "200"), reset(5, 8))
	got := c.receive(
		block(1, "\x88"+insert("x-a", "1")),
		block(3, "\x88"+insert("x-b", "2")),
		block(5, "\x88"+insert("x-c", "3")),
		block(1, insert("Bad", "4")),
		goAway(9),
		block(9, "\x88\xc1\xc0\xbf"), // x-a, x-b, x-c
	)
	if want := "last answered 200"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	c = newClient(t)
	c.open("a", "b")
	c.flush()
	c.receive(goAway(1), block(3, "\x88"+insert("x-a", "1")))
	c.script.reads = [][]byte{block(1, "\x88\xbe")}
	outcomes, err := c.Read()
	if err != nil || len(outcomes) != 1 || string(outcomes[0].Response.Get("x-a")) != "1" {
		t.Errorf("a block above a GOAWAY: got %v, %v, want its field in a later response", outcomes, err)
	}
}

// Response.Get finds a field, the first of its name.
func TestResponseFields(t *testing.T) {
	c := newClient(t)
	c.open("a")
	c.flush()
	c.script.reads = [][]byte{slices.Concat(
		headers(1, 0, ":status", "103", "apns-id", "early"),
		headers(1, 0, ":status", "400", "apns-id", "1", "apns-unique-id", "2", "apns-id", "3", "empty", ""),
		headers(1, h2.FlagEndStream, "trailer", "4"))}
	outcomes, err := c.Read()
	if err != nil || len(outcomes) != 1 {
		t.Fatalf("got %d outcomes, %v, want one", len(outcomes), err)
	}
	for name, want := range map[string]string{"apns-id": "1", "apns-unique-id": "2", "empty": "", ":status": "", "trailer": "", "Apns-Id": "", "": ""} {
		if got := outcomes[0].Response.Get(name); string(got) != want || (got == nil) != (want == "" && name != "empty") {
			t.Errorf("Get(%q): got %q, want %q", name, got, want)
		}
	}
}

// A response is used again after the next Read, and has nothing of the one before.
func TestResponsesAreReused(t *testing.T) {
	c := newClient(t)
	var first *h2.Response
	for i := range uint32(4) {
		stream := c.open("a")
		c.flush()
		c.script.reads = [][]byte{answer(stream, "200")}
		if i == 0 {
			c.script.reads = [][]byte{slices.Concat(headers(stream, 0, ":status", "400", "x", "y", "content-length", "3"), data(stream, h2.FlagEndStream, "why"))}
		}
		outcomes, err := c.Read()
		if err != nil || len(outcomes) != 1 {
			t.Fatalf("got %d outcomes, %v, want one", len(outcomes), err)
		}
		r := outcomes[0].Response
		switch {
		case i == 0:
			first = r
		case r != first:
			t.Errorf("response %d: got another one, want the first one again", i)
		case r.Status != 200 || len(r.Body) > 0 || !r.Whole || r.Get("x") != nil:
			t.Errorf("response %d: got %+v, want nothing of the first one", i, r)
		}
	}
}

// The server's limit of streams is obeyed at once, before the acknowledgement is
// written (sections 5.1.2 and 6.5.3).
func TestStreamLimit(t *testing.T) {
	c := newClient(t, h2.SettingValue{h2.SettingMaxConcurrentStreams, 3})
	limit := func(n uint32) []byte { return setting(h2.SettingMaxConcurrentStreams, n) }
	check := func(step string, room, limit, active int) {
		t.Helper()
		if c.Room() != room || c.Limit() != limit || c.Active() != active {
			t.Errorf("%s: got room %d, limit %d, %d active, want %d, %d, %d", step, c.Room(), c.Limit(), c.Active(), room, limit, active)
		}
		if stream, err := c.Open(request("x", "")); room == 0 && (stream != 0 || err != nil) {
			t.Errorf("%s: Open without room: got stream %d, %v, want 0", step, stream, err)
		}
	}
	c.open("a", "b", "c")
	check("at the limit", 0, 3, 3)
	c.flush()
	c.receive(limit(1))
	check("lowered", 0, 1, 3)
	c.receive(answer(1, "200"), answer(3, "200"))
	check("at the lower limit", 0, 1, 1)
	c.receive(answer(5, "200"))
	if c.Room() != 1 {
		t.Errorf("below the lower limit: got room %d, want 1", c.Room())
	}
	c.receive(limit(0))
	check("0", 0, 0, 0)
	c.receive(limit(1), limit(0), limit(2))
	if c.Room() != 2 {
		t.Errorf("raised again: got room %d, want 2", c.Room())
	}
	c.open("d")
	if got, want := c.flushed(), "HEADERS 1; DATA 1 2 END_STREAM; HEADERS 3; DATA 3 2 END_STREAM; HEADERS 5; DATA 5 2 END_STREAM; "+
		"SETTINGS ACK; SETTINGS ACK; SETTINGS ACK; SETTINGS ACK; SETTINGS ACK; HEADERS 7; DATA 7 2 END_STREAM"; got != want {
		t.Errorf("the client sent\n%s, want\n%s", got, want)
	}
	c.receive(limit(1<<32 - 1))
	if c.Limit() != h2.MaxStreams || c.Room() != h2.MaxStreams-1 {
		t.Errorf("no limit: got %d, room %d, want %d, %d", c.Limit(), c.Room(), h2.MaxStreams, h2.MaxStreams-1)
	}

	// This end's own limit.
	c.SetLimit(5)
	if c.Limit() != 5 || c.Room() != 4 {
		t.Errorf("SetLimit(5): got limit %d, room %d, want 5, 4", c.Limit(), c.Room())
	}
	c.SetLimit(0)
	check("SetLimit(0)", 0, 0, 1)
	c.SetLimit(-1)
	if c.Room() != 0 {
		t.Errorf("SetLimit(-1): got room %d, want 0", c.Room())
	}
	c.SetLimit(1 << 40)
	if c.Limit() != h2.MaxStreams {
		t.Errorf("SetLimit without a limit: got %d, want %d", c.Limit(), h2.MaxStreams)
	}
}

// Streams have odd numbers that rise (section 5.1.1), and when they are used up the
// connection takes no more.
func TestStreamNumbers(t *testing.T) {
	c := newClient(t)
	for i, want := range []uint32{1, 3, 5, 7} {
		if got := c.open(fmt.Sprint(i)); got != want {
			t.Errorf("request %d: got stream %d, want %d", i, got, want)
		}
	}
	c = newClient(t)
	c.SkipTo(h2.LastStream - 3)
	for i, want := range []uint32{h2.LastStream - 2, h2.LastStream} {
		if c.GoAway() != nil || c.Room() != 2-i {
			t.Errorf("before stream %d: got %+v, room %d, want no GOAWAY, %d", want, c.GoAway(), c.Room(), 2-i)
		}
		if got := c.open("a"); got != want {
			t.Errorf("got stream %d, want %d", got, want)
		}
	}
	if c.Room() != 0 {
		t.Errorf("after the last number: got room %d, want 0", c.Room())
	}
	if g := c.GoAway(); g == nil || g.Last != h2.MaxStream || g.Debug == "" {
		t.Errorf("after the last number: got %+v, want a GOAWAY of all streams", g)
	}
	c.flush()
	if got, want := c.receive(answer(h2.LastStream, "200"), answer(h2.LastStream-2, "200")), "a answered 200; a answered 200"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The server's word is the better one.
	c.receive(goAway(5))
	if g := c.GoAway(); g == nil || g.Last != 5 {
		t.Errorf("after a GOAWAY: got %+v, want the server's", g)
	}
}

// A frame of a stream whose HEADERS were not written is one of an idle stream
// (section 5.1): the server cannot have seen it.
func TestUnwrittenStreams(t *testing.T) {
	for name, b := range map[string][]byte{
		"HEADERS":            answer(1, "200"),
		"DATA":               data(1, h2.FlagEndStream, ""),
		"RST_STREAM":         reset(1, h2.CodeRefusedStream),
		"WINDOW_UPDATE":      windowUpdate(1, 1),
		"WINDOW_UPDATE by 0": windowUpdate(1, 0),
	} {
		c := newClient(t)
		c.open("a")
		if got, err := c.read(0, b); codeOf(err) != "PROTOCOL_ERROR" || got != "" {
			t.Errorf("%s: got outcomes %q, error %v, want a PROTOCOL_ERROR", name, got, err)
		}
		if got := c.end(io.EOF); got != "a unprocessed" {
			t.Errorf("%s: got outcomes %q at the end, want a unprocessed", name, got)
		}
	}
	c := newClient(t)
	c.open("a")
	if got := c.receive(frame(h2.TypePriority, 0, 1, "\x00\x00\x00\x00\x00")); got != "" {
		t.Errorf("PRIORITY: got outcomes %q, want none", got)
	}
}

// After a GOAWAY nothing is opened (section 6.8), and the last one counts.
func TestGoAway(t *testing.T) {
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	for _, last := range []uint32{h2.MaxStream, 9, 3, 0} {
		c.receive(h2.AppendGoAway(nil, last, h2.CodeNo, []byte(fmt.Sprint("last ", last))))
		if g, want := c.GoAway(), (h2.GoAway{Last: last, Debug: fmt.Sprint("last ", last)}); g == nil || *g != want {
			t.Errorf("GOAWAY %d: got %+v, want %+v", last, g, want)
		}
		if stream, err := c.Open(request("c", "")); stream != 0 || err != nil || c.Room() != 0 {
			t.Errorf("GOAWAY %d: got stream %d, %v, room %d, want none", last, stream, err, c.Room())
		}
		c.receive(setting(h2.SettingMaxConcurrentStreams, 1000), windowUpdate(0, 1000))
	}
	if c.Active() != 0 {
		t.Errorf("after GOAWAY 0: got %d active, want none", c.Active())
	}
}

// After Close nothing is opened, and what was opened can still be answered.
func TestClose(t *testing.T) {
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	c.open("c")
	c.Close(h2.CodeNo)
	c.Close(h2.CodeInternal)
	if stream, err := c.Open(request("x", "")); stream != 0 || err != nil || c.Room() != 0 {
		t.Errorf("Open after Close: got stream %d, %v, room %d, want none", stream, err, c.Room())
	}
	c.sent()
	if got, want := c.flushed(), "HEADERS 5; DATA 5 2 END_STREAM; GOAWAY 0 NO_ERROR"; got != want {
		t.Errorf("the client sent %q, want %q", got, want)
	}
	if got := c.receive(answer(1, "200"), answer(5, "200")); got != "a answered 200; c answered 200" {
		t.Errorf("got %q", got)
	}
	if got := c.end(io.EOF); got != "b lost" {
		t.Errorf("at the end: got %q, want b lost", got)
	}
}

// A PING is sent when it is asked for, one at a time.
func TestPing(t *testing.T) {
	c := newClient(t)
	if c.Pinging() {
		t.Error("Pinging: got true, want false")
	}
	c.Ping()
	c.Ping()
	if got := c.flushed(); got != "PING 1" || !c.Pinging() {
		t.Errorf("the client sent %q, pinging %t, want PING 1", got, c.Pinging())
	}
	c.receive(pong(0), pong(2), ping(1))
	if got := c.flushed(); got != "PING ACK 1" || !c.Pinging() {
		t.Errorf("after other PINGs: the client sent %q, pinging %t, want an answer, and to wait on", got, c.Pinging())
	}
	c.receive(pong(1))
	if c.Pinging() {
		t.Error("after the answer: got pinging true, want false")
	}
	c.Ping()
	if got := c.flushed(); got != "PING 2" {
		t.Errorf("the client sent %q, want PING 2", got)
	}
}
