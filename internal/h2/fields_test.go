package h2_test

import (
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// good sections, to which the tests add.
var (
	goodRequest  = []string{":method", "POST", ":scheme", "https", ":path", "/3/device/ff", ":authority", "api.push.apple.com"}
	goodResponse = []string{":status", "200"}
)

func with(fields []string, more ...string) []string { return append(slices.Clone(fields), more...) }

func validate(s h2.Section, namesAndValues []string) *h2.Validator {
	var v h2.Validator
	v.Reset(s)
	for nv := range slices.Chunk(namesAndValues, 2) {
		v.Add([]byte(nv[0]), []byte(nv[1]))
	}
	return &v
}

func TestValidator(t *testing.T) {
	const request, response, trailer = h2.RequestHeader, h2.ResponseHeader, h2.Trailer
	for _, test := range []struct {
		rfc    string // section of RFC 9113
		name   string
		in     h2.Section
		fields []string
		want   string // what is wrong; "": nothing
	}{
		{"8.3.1", "a request", request, goodRequest, ""},
		{"8.3.1", "a request with fields", request, with(goodRequest, "apns-topic", "com.example", "apns-id", ""), ""},
		{"8.3.2", "a response", response, goodResponse, ""},
		{"8.3.2", "a response with fields", response, with(goodResponse, "apns-id", "1", "date", "today"), ""},
		{"8.1", "trailers", trailer, []string{"x-sum", "1"}, ""},
		{"8.1", "no trailers", trailer, nil, ""},

		// Names.
		{"8.2.1", "an empty name", response, with(goodResponse, "", "x"), `field name ""`},
		{"8.2", "a capital letter", response, with(goodResponse, "Date", "x"), `field name "Date"`},
		{"8.2", "a capital letter in trailers", trailer, []string{"Date", "x"}, `field name "Date"`},
		{"8.2.1", "a blank in a name", response, with(goodResponse, "a b", "x"), `field name "a b"`},
		{"8.2.1", "a colon in a name", response, with(goodResponse, "a:b", "x"), `field name "a:b"`},
		{"8.2.1", "a control character in a name", response, with(goodResponse, "a\x00", "x"), `field name "a\x00"`},
		{"8.2.1", "DEL in a name", response, with(goodResponse, "a\x7f", "x"), `field name "a\x7f"`},
		{"8.2.1", "a byte above ASCII in a name", response, with(goodResponse, "\xe9", "x"), `field name "\xe9"`},
		{"8.2.1", "a delimiter in a name", response, with(goodResponse, `a"`, "x"), `field name "a\""`},
		{"8.2.1", "all that a name may have", response, with(goodResponse, "!#$%&'*+-.^_`|~09az", "x"), ""},

		// Values.
		{"8.2.1", "NUL in a value", response, with(goodResponse, "a", "x\x00y"), `a has the value "x\x00y"`},
		{"8.2.1", "CR in a value", response, with(goodResponse, "a", "x\ry"), `a has the value "x\ry"`},
		{"8.2.1", "LF in a value", response, with(goodResponse, "a", "x\n"), `a has the value "x\n"`},
		{"8.2.1", "a space before a value", response, with(goodResponse, "a", " x"), `a has the value " x"`},
		{"8.2.1", "a space after a value", response, with(goodResponse, "a", "x "), `a has the value "x "`},
		{"8.2.1", "a tab before a value", response, with(goodResponse, "a", "\tx"), `a has the value "\tx"`},
		{"8.2.1", "a tab after a value", response, with(goodResponse, "a", "x\t"), `a has the value "x\t"`},
		{"8.2.1", "a value of a space", response, with(goodResponse, "a", " "), `a has the value " "`},
		{"8.2.1", "blanks in a value", response, with(goodResponse, "a", "x \t y"), ""},
		{"8.2.1", "an empty value", response, with(goodResponse, "a", ""), ""},
		{"8.2.1", "bytes above ASCII in a value", response, with(goodResponse, "a", "\x80\xff"), ""},
		{"8.2.1", "other control characters in a value", response, with(goodResponse, "a", "\x01\x7f"), ""},
		{"8.2.1", "CR in a pseudo-header field", request, []string{":method", "POST\r"}, `:method has the value "POST\r"`},

		// Fields of HTTP/1.
		{"8.2.2", "connection", response, with(goodResponse, "connection", "close"), "connection, which is a field of HTTP/1"},
		{"8.2.2", "proxy-connection", response, with(goodResponse, "proxy-connection", "close"), "proxy-connection, which is a field of HTTP/1"},
		{"8.2.2", "keep-alive", response, with(goodResponse, "keep-alive", "timeout=5"), "keep-alive, which is a field of HTTP/1"},
		{"8.2.2", "transfer-encoding", response, with(goodResponse, "transfer-encoding", "chunked"), "transfer-encoding, which is a field of HTTP/1"},
		{"8.2.2", "upgrade", request, with(goodRequest, "upgrade", "h2c"), "upgrade, which is a field of HTTP/1"},
		{"8.2.2", "connection in trailers", trailer, []string{"connection", "close"}, "connection, which is a field of HTTP/1"},
		{"8.2.2", "te: trailers", request, with(goodRequest, "te", "trailers"), ""},
		{"8.2.2", "another te", request, with(goodRequest, "te", "gzip"), `te is "gzip", expected trailers`},

		// Pseudo-header fields.
		{"8.3", "an unknown one", response, with(goodResponse, ":x", "y"), `unexpected pseudo-header field ":x"`},
		{"8.3", "a colon alone", response, with(goodResponse, ":", "y"), `unexpected pseudo-header field ":"`},
		{"8.3", "one with a capital letter", response, []string{":Status", "200"}, `unexpected pseudo-header field ":Status"`},
		{"8.3", "one of a request in a response", response, with(goodResponse, ":path", "/"), `unexpected pseudo-header field ":path"`},
		{"8.3", "one of a response in a request", request, with(goodRequest, ":status", "200"), `unexpected pseudo-header field ":status"`},
		{"8.1", "one in trailers", trailer, []string{":status", "200"}, `unexpected pseudo-header field ":status"`},
		{"8.3", "after a regular field", response, []string{"a", "b", ":status", "200"}, ":status after a regular field"},
		{"8.3", "twice", response, with(goodResponse, ":status", "200"), ":status twice"},
		{"8.3.1", ":path twice", request, with(goodRequest, ":path", "/"), ":path twice"},
		{"8.3.1", ":authority twice", request, with(goodRequest, ":authority", ""), ":authority twice"},
		{"8.3.1", "no :method", request, goodRequest[2:], "no :method"},
		{"8.3.1", "no :scheme", request, with(goodRequest[:2], goodRequest[4:]...), "no :scheme"},
		{"8.3.1", "no :path", request, with(goodRequest[:4], goodRequest[6:]...), "no :path"},
		{"8.3.1", "no :authority", request, goodRequest[:6], ""},
		{"8.3.1", "an empty :path", request, with(goodRequest[:4], ":path", ""), ":path is empty"},
		{"8.3.1", "an empty :method", request, []string{":method", ""}, ":method is empty"},
		{"8.3.1", "an empty :scheme", request, []string{":scheme", ""}, ":scheme is empty"},
		{"8.3.1", "an empty :authority", request, with(goodRequest[:6], ":authority", ""), ""},
		{"8.3.1", "an empty request", request, nil, "no :method"},
		{"8.3.2", "no :status", response, []string{"a", "b"}, "no :status"},
		{"8.3.2", "an empty response", response, nil, "no :status"},

		// The status.
		{"8.3.2", "an empty status", response, []string{":status", ""}, ":status is empty"},
		{"8.3.2", "a status of 2 digits", response, []string{":status", "20"}, `:status is "20", expected three digits, and not 101`},
		{"8.3.2", "a status of 4 digits", response, []string{":status", "2000"}, `:status is "2000", expected three digits, and not 101`},
		{"8.3.2", "a status with a letter", response, []string{":status", "20x"}, `:status is "20x", expected three digits, and not 101`},
		{"8.3.2", "a status with a sign", response, []string{":status", "+20"}, `:status is "+20", expected three digits, and not 101`},
		{"8.3.2", "a status with a reason", response, []string{":status", "200 OK"}, `:status is "200 OK", expected three digits, and not 101`},
		{"8.3.2", "a status below 100", response, []string{":status", "099"}, `:status is "099", expected three digits, and not 101`},
		{"8.6", "status 101", response, []string{":status", "101"}, `:status is "101", expected three digits, and not 101`},
		{"8.3.2", "status 100", response, []string{":status", "100"}, ""},
		{"8.3.2", "status 999", response, []string{":status", "999"}, ""},

		// content-length.
		{"8.1.1", "content-length", response, with(goodResponse, "content-length", "5"), ""},
		{"8.1.1", "content-length twice", response, with(goodResponse, "content-length", "5", "content-length", "5"), ""},
		{"8.1.1", "content-length twice, not the same", response, with(goodResponse, "content-length", "5", "content-length", "6"), `content-length is "6"`},
		{"8.1.1", "an empty content-length", response, with(goodResponse, "content-length", ""), `content-length is ""`},
		{"8.1.1", "a content-length with a sign", response, with(goodResponse, "content-length", "+5"), `content-length is "+5"`},
		{"8.1.1", "a negative content-length", response, with(goodResponse, "content-length", "-5"), `content-length is "-5"`},
		{"8.1.1", "a list of content-length", response, with(goodResponse, "content-length", "5, 5"), `content-length is "5, 5"`},
		{"8.1.1", "a content-length with _", response, with(goodResponse, "content-length", "1_0"), `content-length is "1_0"`},
		{"8.1.1", "the largest content-length", response, with(goodResponse, "content-length", "9223372036854775807"), ""},
		{"8.1.1", "a content-length too large", response, with(goodResponse, "content-length", "9223372036854775808"), `content-length is "9223372036854775808"`},

		// The first fault is told, and not at length.
		{"8.1.1", "two faults", response, []string{":status", "abc", "A", "b"}, `:status is "abc", expected three digits, and not 101`},
		{"8.1.1", "a long name", response, with(goodResponse, strings.Repeat("A", 1000), ""), `field name "` + strings.Repeat("A", 40) + `"`},
		{"8.1.1", "a long value", response, with(goodResponse, "te", strings.Repeat("x", 1000)), `te is "` + strings.Repeat("x", 40) + `", expected trailers`},
	} {
		if got := validate(test.in, test.fields).Malformed(); got != test.want {
			t.Errorf("%s (section %s): got %q, want %q", test.name, test.rfc, got, test.want)
		}
	}
}

func TestValidatorStatusAndLength(t *testing.T) {
	for _, test := range []struct {
		fields []string
		status int
		length int64
	}{
		{[]string{":status", "200"}, 200, -1},
		{[]string{":status", "100", "content-length", "0"}, 100, 0},
		{[]string{":status", "410", "content-length", "9223372036854775807"}, 410, 1<<63 - 1},
	} {
		v := validate(h2.ResponseHeader, test.fields)
		if v.Status() != test.status || v.ContentLength() != test.length {
			t.Errorf("%q: got status %d, content-length %d, want %d, %d", test.fields, v.Status(), v.ContentLength(), test.status, test.length)
		}
	}
	v := validate(h2.ResponseHeader, []string{":status", "200", "content-length", "5", "A", ""})
	v.Reset(h2.Trailer)
	if v.Malformed() != "" || v.Status() != 0 || v.ContentLength() != -1 {
		t.Errorf("after Reset: got %q, status %d, content-length %d, want nothing of the section before", v.Malformed(), v.Status(), v.ContentLength())
	}
}

// What a Validator lets pass in a response a server may send: no byte that could be
// taken for the end of a field, by whoever prints it.
func TestValidatorBytes(t *testing.T) {
	for c := range 256 {
		name := validate(h2.ResponseHeader, with(goodResponse, "x"+string([]byte{byte(c)}), "")).Malformed() == ""
		isToken := c > ' ' && c < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(c)) && (c < 'A' || c > 'Z')
		if name != isToken {
			t.Errorf("byte %#x in a name: got %t, want %t", c, name, isToken)
		}
		value := validate(h2.ResponseHeader, with(goodResponse, "x", "a"+string([]byte{byte(c)})+"b")).Malformed() == ""
		if want := c != 0 && c != '\r' && c != '\n'; value != want {
			t.Errorf("byte %#x in a value: got %t, want %t", c, value, want)
		}
	}
}

func TestValidatorAllocations(t *testing.T) {
	var v h2.Validator
	status, code, name, value := []byte(":status"), []byte("200"), []byte("content-length"), []byte("12")
	got := testing.AllocsPerRun(100, func() {
		v.Reset(h2.ResponseHeader)
		v.Add(status, code)
		v.Add(name, value)
		if v.Malformed() != "" {
			t.Error(v.Malformed())
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
