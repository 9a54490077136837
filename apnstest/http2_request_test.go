package apnstest_test

import (
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// A requestEnd appends the body and the trailers of a request to its header.
type requestEnd func(b []byte, id uint32) []byte

func wholeBody(b []byte, id uint32) []byte { return appendData(b, id, h2.FlagEndStream, "{}") }

func noBody(b []byte, id uint32) []byte { return b }

// tooLongBody has 3 bytes, and does not end the request.
func tooLongBody(b []byte, id uint32) []byte { return appendData(b, id, 0, "{ }") }

func bodyParts(parts ...string) requestEnd {
	return func(b []byte, id uint32) []byte {
		for _, p := range parts {
			b = appendData(b, id, 0, p)
		}
		return appendData(b, id, h2.FlagEndStream, "")
	}
}

func withTrailers(flags h2.Flags, fields ...string) requestEnd {
	return func(b []byte, id uint32) []byte {
		return appendHeaders(appendData(b, id, 0, "{}"), id, flags, fields...)
	}
}

var malformedRequests = []struct {
	name   string // with the section of RFC 9113
	header []string
	end    requestEnd
}{
	{"8.1 HEADERS in the middle", good, withTrailers(0, "x", "y")},
	{"8.1 empty HEADERS in the middle", good, withTrailers(0)},
	{"8.1 pseudo-header field in the trailers", good, withTrailers(h2.FlagEndStream, ":path", "/")},
	{"8.1 connection in the trailers", good, withTrailers(h2.FlagEndStream, "connection", "close")},
	{"8.1 upper case in the trailers", good, withTrailers(h2.FlagEndStream, "X", "y")},
	{"8.1.1 content-length too small", with("content-length", "1"), wholeBody},
	{"8.1.1 content-length too large", with("content-length", "3"), wholeBody},
	{"8.1.1 content-length of 0", with("content-length", "0"), wholeBody},
	{"8.1.1 content-length, body in parts", with("content-length", "4"), bodyParts("{", "", "}", "   ")},
	{"8.1.1 content-length before the end", with("content-length", "2"), tooLongBody},
	{"8.1.1 content-length and trailers", with("content-length", "3"), withTrailers(h2.FlagEndStream, "x", "y")},
	{"8.1.1 content-length that is no number", with("content-length", "+2"), wholeBody},
	{"8.1.1 content-length that is empty", with("content-length", ""), wholeBody},
	{"8.1.1 content-length twice", with("content-length", "2", "content-length", "3"), wholeBody},
	{"8.2 upper case", with("X-Other", "1"), wholeBody},
	{"8.2.1 empty name", with("", "1"), wholeBody},
	{"8.2.1 space in a name", with("x other", "1"), wholeBody},
	{"8.2.1 colon in a name", with("x:other", "1"), wholeBody},
	{"8.2.1 control character in a name", with("x\x01", "1"), wholeBody},
	{"8.2.1 DEL in a name", with("x\x7f", "1"), wholeBody},
	{"8.2.1 name that is not ASCII", with("x\xff", "1"), wholeBody},
	{"8.2.1 NUL in a value", with("x", "a\x00b"), wholeBody},
	{"8.2.1 LF in a value", with("x", "a\nb"), wholeBody},
	{"8.2.1 CR in a value", with("x", "a\rb"), wholeBody},
	{"8.2.1 CR LF in a value", with("apns-topic", apnstest.BundleID+"\r\nx: y"), wholeBody},
	{"8.2.1 blank before a value", with("x", " a"), wholeBody},
	{"8.2.1 blank after a value", with("apns-topic", apnstest.BundleID+" "), wholeBody},
	{"8.2.1 tab after a value", with("x", "a\t"), wholeBody},
	{"8.2.1 LF in the path", change(":path", "/3/device/\n"), wholeBody},
	{"8.2.2 connection", with("connection", "close"), wholeBody},
	{"8.2.2 proxy-connection", with("proxy-connection", "close"), wholeBody},
	{"8.2.2 keep-alive", with("keep-alive", "timeout=1"), wholeBody},
	{"8.2.2 transfer-encoding", with("transfer-encoding", "chunked"), wholeBody},
	{"8.2.2 upgrade", with("upgrade", "h2c"), wholeBody},
	{"8.2.2 te", with("te", "gzip"), wholeBody},
	{"8.2.2 te, trailers and more", with("te", "trailers, deflate"), wholeBody},
	{"8.3 pseudo-header field after another", append([]string{"x", "y"}, good...), wholeBody},
	{"8.3 unknown pseudo-header field", with(":other", "1"), wholeBody},
	{"8.3 pseudo-header field of a response", append([]string{":status", "200"}, good...), wholeBody},
	{"8.3 no header", nil, wholeBody},
	{"8.3.1 no method", change(":method", "-"), wholeBody},
	{"8.3.1 no scheme", change(":scheme", "-"), wholeBody},
	{"8.3.1 no path", change(":path", "-"), wholeBody},
	{"8.3.1 empty path", change(":path", ""), wholeBody},
	{"8.3.1 method twice", append([]string{":method", "POST"}, good...), wholeBody},
	{"8.3.1 scheme twice", append([]string{":scheme", "https"}, good...), wholeBody},
	{"8.3.1 path twice", append([]string{":path", "/3/device/" + token}, good...), wholeBody},
	{"8.3.1 authority twice", append([]string{":authority", "localhost"}, good...), wholeBody},
	{"8.3.1 only a scheme, and no end", []string{":scheme", "https"}, noBody},
}

// A request that RFC 9113 calls malformed is reset before the handler is called. The
// connection stays open.
func TestMalformedRequests(t *testing.T) {
	for _, test := range malformedRequests {
		t.Run(test.name, func(t *testing.T) {
			called := 0
			s := start(t, false, func(*apns.Message) error { called++; return nil }, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.write(test.end(appendHeaders(nil, 1, 0, test.header...), 1))
			c.wantReset("at first", 1, h2.CodeProtocol)
			c.wantNoFrame("after the RST_STREAM")
			if n := len(s.Records()); n != 0 || called != 0 {
				t.Errorf("got %d records, and the handler was called %d times; want neither", n, called)
			}
			c.wantAccepted("at last", 3)
		})
	}
}

// A malformed request without a body is reset as well.
func TestMalformedWithoutBody(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	for i, header := range [][]string{with("content-length", "2"), with("X", "y"), {":scheme", "https"}} {
		id := uint32(2*i + 1)
		c.write(appendHeaders(nil, id, h2.FlagEndStream, header...))
		c.wantReset(strings.Join(header, " "), id, h2.CodeProtocol)
	}
	if n := len(s.Records()); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
	c.wantAccepted("at last", 99)
}

// A request that only looks malformed is accepted.
func TestNotMalformed(t *testing.T) {
	padded := func(id uint32) []byte {
		b := appendHeaders(nil, id, 0, with("content-length", "2")...)
		return appendData(b, id, h2.FlagEndStream|h2.FlagPadded, "\x03{}\x00\x00\x00")
	}
	for name, push := range map[string]func(id uint32) []byte{
		"content-length": func(id uint32) []byte {
			return appendData(appendHeaders(nil, id, 0, with("content-length", "2")...), id, h2.FlagEndStream, "{}")
		},
		"content-length without the padding": padded,
		"te: trailers": func(id uint32) []byte {
			return appendData(appendHeaders(nil, id, 0, with("te", "trailers")...), id, h2.FlagEndStream, "{}")
		},
		"no authority": func(id uint32) []byte {
			return appendData(appendHeaders(nil, id, 0, change(":authority", "-")...), id, h2.FlagEndStream, "{}")
		},
		"a blank within a value, and one that is empty": func(id uint32) []byte {
			return appendData(appendHeaders(nil, id, 0, with("x", "a \t\xff b", "y", "")...), id, h2.FlagEndStream, "{}")
		},
		"several cookies": func(id uint32) []byte {
			return appendData(appendHeaders(nil, id, 0, with("cookie", "a", "cookie", "b")...), id, h2.FlagEndStream, "{}")
		},
	} {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(push(1))
		if f := c.untilStream(1); f.kind != headers || f.status() != "200" {
			t.Errorf("%s: got %+v, want status 200", name, f)
		}
	}
}
