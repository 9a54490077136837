package apns_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"example.com/apns"
)

// token is a device token of the usual 32 bytes.
const token = "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c"

var tokenBytes, _ = hex.DecodeString(token)

// The golden messages, field by field, after the figures and tables of the
// chapters "Binary Provider API" and "Legacy Notification Format" in Apple's
// Local and Remote Notification Programming Guide.
var (
	payload = []byte(`{"aps":{"alert":"Hi"}}`) // 22 bytes

	// Figure B-1.
	simple = slices.Concat(
		[]byte{0},       // command
		[]byte{0, 32},   // token length
		tokenBytes,      // token
		[]byte{0, 22},   // payload length
		[]byte(payload), // payload
	)
	// Figure B-2.
	extended = slices.Concat(
		[]byte{1},                      // command
		[]byte{0xde, 0xad, 0xbe, 0xef}, // identifier
		[]byte{0x65, 0x53, 0xf1, 0x00}, // expiry
		[]byte{0, 32},                  // token length
		tokenBytes,                     // token
		[]byte{0, 22},                  // payload length
		payload,                        // payload
	)
	// Tables.
	framed = slices.Concat(
		[]byte{2},                    // command
		[]byte{0, 0, 0, 56 + 22},     // frame length
		[]byte{1, 0, 32}, tokenBytes, // item 1: token
		[]byte{2, 0, 22}, payload, // item 2: payload
		[]byte{3, 0, 4, 0xde, 0xad, 0xbe, 0xef}, // item 3: identifier
		[]byte{4, 0, 4, 0x65, 0x53, 0xf1, 0x00}, // item 4: expiry
		[]byte{5, 0, 1, 5},                      // item 5: priority
	)
	expiry = time.Unix(0x6553f100, 0).UTC() // 2023-11-14T22:13:20Z
)

func TestGoldenMessages(t *testing.T) {
	tests := []struct {
		name  string
		wire  []byte
		m     apns.Message
		build bool // the encoder gives the same bytes
	}{
		{"simple", simple, apns.Message{Token: token, Payload: payload}, false},
		{"extended", extended, apns.Message{ID: 0xdeadbeef, Token: token, Payload: payload, Expiry: expiry}, true},
		{"framed", framed, apns.Message{ID: 0xdeadbeef, Token: token, Payload: payload, Expiry: expiry, Priority: apns.PriorityPowerSaving}, true},
		{"framed, no expiry", slices.Concat(
			[]byte{2, 0, 0, 0, 20},
			[]byte{1, 0, 1, 0xab},
			[]byte{2, 0, 2}, []byte("{}"),
			[]byte{3, 0, 4, 0, 0, 0, 7},
			[]byte{5, 0, 1, 10},
		), apns.Message{ID: 7, Token: "ab", Payload: []byte("{}"), Priority: apns.PriorityImmediate}, true},
		// Table A-2 states no order.
		{"framed, other order", slices.Concat(
			[]byte{2, 0, 0, 0, 27},
			[]byte{5, 0, 1, 10},
			[]byte{4, 0, 4, 0, 0, 0, 0},
			[]byte{3, 0, 4, 0, 0, 0, 7},
			[]byte{2, 0, 2}, []byte("{}"),
			[]byte{1, 0, 1, 0xab},
		), apns.Message{ID: 7, Token: "ab", Payload: []byte("{}"), Expiry: time.Unix(0, 0).UTC(), Priority: apns.PriorityImmediate}, false},
		// Items 3 to 5 are optional; a server has to read a message without
		// items 1 and 2 to reject it.
		{"framed, nothing", []byte{2, 0, 0, 0, 0}, apns.Message{}, false},
		{"framed, any priority", []byte{2, 0, 0, 0, 4, 5, 0, 1, 99}, apns.Message{Priority: 99}, false},
		{"extended, nothing", make1(13), apns.Message{Payload: []byte{}, Expiry: time.Unix(0, 0).UTC()}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.build {
				got, err := apns.BuildMsg(&test.m)
				if err != nil || !bytes.Equal(got, test.wire) {
					t.Errorf("BuildMsg:\ngot  % x, %v\nwant % x", got, err, test.wire)
				}
			}
			// What follows the message is none of its business.
			m, n, err := apns.ParseMsg(append(bytes.Clone(test.wire), 1, 2, 3))
			if err != nil || n != len(test.wire) || !equal(m, &test.m) {
				t.Errorf("ParseMsg:\ngot  %+v, %d, %v\nwant %+v, %d", m, n, err, &test.m, len(test.wire))
			}
			m, err = apns.ReadMsg(bufio.NewReader(iotest.OneByteReader(bytes.NewReader(test.wire))))
			if err != nil || !equal(m, &test.m) {
				t.Errorf("ReadMsg:\ngot  %+v, %v\nwant %+v", m, err, &test.m)
			}
		})
	}
}

// make1 returns an extended message of n bytes, all zero but the command.
func make1(n int) []byte {
	b := make([]byte, n)
	b[0] = 1
	return b
}

// equal compares messages as the wire does: a nil payload is an empty one.
func equal(a, b *apns.Message) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Payload, y.Payload = append([]byte{}, x.Payload...), append([]byte{}, y.Payload...)
	return reflect.DeepEqual(x, y)
}

// A priority of 0 cannot be told from a missing one, nor a framed message
// without an identifier from one with 0. What is decoded shares no memory.
func TestParsedMessageIsACopy(t *testing.T) {
	for _, wire := range [][]byte{simple, extended, framed} {
		b := bytes.Clone(wire)
		m, _, err := apns.ParseMsg(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if m.Token != token || !bytes.Equal(m.Payload, payload) {
			t.Errorf("command %d: got %+v, want the message unchanged", wire[0], m)
		}
	}
}

// "If this value is nonzero, APNs stores the notification and tries to deliver
// it at least once … zero: does not store". (Table A-2; older editions: zero or
// less than zero.)
func TestExpiryIsClamped(t *testing.T) {
	for _, test := range []struct {
		expiry time.Time
		want   uint32
	}{
		{time.Time{}, 0},
		{time.Unix(0, 0), 0},
		{time.Unix(-1, 0), 0},
		{time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), 0},
		{time.Unix(1, 999), 1},
		{time.Unix(1<<32-1, 0), 1<<32 - 1},
		{time.Unix(1<<32, 0), 1<<32 - 1},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1<<32 - 1},
	} {
		for _, priority := range []apns.Priority{0, apns.PriorityImmediate} {
			b, err := apns.BuildMsg(&apns.Message{Token: token, Payload: payload, Expiry: test.expiry, Priority: priority})
			if err != nil {
				t.Fatal(err)
			}
			m, _, err := apns.ParseMsg(b)
			if err != nil {
				t.Fatal(err)
			}
			want := time.Unix(int64(test.want), 0).UTC()
			if test.expiry.IsZero() && priority != 0 {
				want = time.Time{} // the item is left out
			}
			if m.Expiry != want {
				t.Errorf("expiry %v, priority %d: got %v, want %v", test.expiry, priority, m.Expiry, want)
			}
		}
	}
}

func TestBuildMsgRefuses(t *testing.T) {
	tests := []struct {
		name   string
		m      apns.Message
		status apns.Status
		text   string
	}{
		{"no token", apns.Message{Payload: payload}, apns.StatusMissingToken, "token is empty, expected 1 to 100 bytes in hexadecimal"},
		{"odd token", apns.Message{Token: token[1:], Payload: payload}, apns.StatusInvalidToken, "token has 63 characters, expected an even number of hexadecimal digits"},
		{"long token", apns.Message{Token: strings.Repeat("ab", 101), Payload: payload}, apns.StatusInvalidTokenSize, "token has 202 characters, expected at most 200 hexadecimal digits"},
		{"space in token", apns.Message{Token: "00 0", Payload: payload}, apns.StatusInvalidToken, `token has ' ' at index 2, expected only hexadecimal digits`},
		{"last digit", apns.Message{Token: token[:63] + "g", Payload: payload}, apns.StatusInvalidToken, `token has 'g' at index 63, expected only hexadecimal digits`},
		{"first digit", apns.Message{Token: "<" + token[1:], Payload: payload}, apns.StatusInvalidToken, `token has '<' at index 0, expected only hexadecimal digits (it looks like the description of an NSData: the app must send the bytes in hexadecimal)`},
		{"description of iOS 13", apns.Message{Token: "{length = 32, bytes = 0xc0ffee}", Payload: payload}, apns.StatusInvalidToken, `token has '{' at index 0, expected only hexadecimal digits (it looks like the description of an NSData: the app must send the bytes in hexadecimal)`},
		{"bracket inside", apns.Message{Token: "00<0", Payload: payload}, apns.StatusInvalidToken, `token has '<' at index 2, expected only hexadecimal digits`},
		{"not ASCII", apns.Message{Token: "00ä0", Payload: payload}, apns.StatusInvalidToken, ""},
		{"wide", apns.Message{Token: "0٣c0", Payload: payload, Priority: 5}, apns.StatusInvalidToken, ""},
		{"not UTF-8", apns.Message{Token: "00\xff0", Payload: payload}, apns.StatusInvalidToken, ""},
		{"no payload", apns.Message{Token: token}, apns.StatusMissingPayload, "payload is empty, expected 1 to 2048 bytes of JSON"},
		{"long payload", apns.Message{Token: token, Payload: make([]byte, 2049)}, apns.StatusInvalidPayloadSize, "payload has 2049 bytes, expected at most 2048"},
		{"priority", apns.Message{Token: token, Payload: payload, Priority: 7}, apns.StatusProcessingError, "priority is 7, expected 10 or 5 on the binary protocol, or 0 to leave it out"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := apns.BuildMsg(&test.m)
			if got != nil || !errors.Is(err, test.status) {
				t.Fatalf("got % x, %v; want nil, %v", got, err, test.status)
			}
			if _, ok := errors.AsType[*apns.PushError](err); ok {
				t.Errorf("%v is a *PushError, which only a server can give", err)
			}
			if want := "apns: " + test.text; test.text != "" && err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			prefix := []byte("prefix")
			if b, err := apns.AppendMsg(prefix[:6:6], &test.m); err == nil || string(b) != "prefix" {
				t.Errorf("AppendMsg: got %q, %v; want the slice as it was, and an error", b, err)
			}
		})
	}
	for _, size := range []int{1, 31, 32, 33, 100} { // "up to 100 bytes" (Table A-2)
		m := &apns.Message{Token: strings.Repeat("0A", size), Payload: make([]byte, 2048)}
		b, err := apns.BuildMsg(m)
		if err != nil {
			t.Errorf("token of %d bytes: %v", size, err)
			continue
		}
		got, _, err := apns.ParseMsg(b)
		if want := strings.Repeat("0a", size); err != nil || got.Token != want {
			t.Errorf("token of %d bytes: got %q, %v; want %q", size, got.Token, err, want)
		}
	}
}

func TestParseMsgRefuses(t *testing.T) {
	id := []byte{3, 0, 4, 0, 0, 0, 7}
	frame := func(items ...[]byte) []byte {
		b := slices.Concat(items...)
		return append([]byte{2, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	tests := []struct {
		name string
		wire []byte
		at   int
		text string
	}{
		{"command", []byte("GET / HTTP/1.1"), 0, "at offset 0: message has command 71, expected 0, 1 or 2"},
		{"error packet", []byte{8, 8, 0, 0, 0, 1}, 0, "at offset 0: message has command 8, expected 0, 1 or 2"},
		{"frame too large", []byte{2, 0xff, 0xff, 0xff, 0xff}, 1, "at offset 1: frame has a length of 4294967295 bytes, expected at most 131094"},
		{"item 0", frame(id, []byte{0, 0, 0}), 12, "at offset 12: frame has item 0, expected 1 to 5"},
		{"item 6", frame([]byte{6, 0, 0}), 5, "at offset 5: frame has item 6, expected 1 to 5"},
		{"two identifiers", frame(id, id), 12, "at offset 12: frame has item 3 (identifier) twice"},
		{"two tokens", frame([]byte{1, 0, 0}, []byte{1, 0, 0}), 8, "at offset 8: frame has item 1 (token) twice"},
		{"short identifier", frame([]byte{3, 0, 3, 1, 2, 3}), 5, "at offset 5: item 3 (identifier) has a length of 3 bytes, expected 4"},
		{"long expiry", frame([]byte{4, 0, 5, 1, 2, 3, 4, 5}), 5, "at offset 5: item 4 (expiry) has a length of 5 bytes, expected 4"},
		{"priority of 4 bytes", frame([]byte{5, 0, 4, 0, 0, 0, 5}), 5, "at offset 5: item 5 (priority) has a length of 4 bytes, expected 1"},
		{"no priority", frame([]byte{5, 0, 0}), 5, "at offset 5: item 5 (priority) has a length of 0 bytes, expected 1"},
		{"item overruns frame", frame(id, []byte{1, 0, 3, 1, 2}), 12, "at offset 12: item 1 (token) has a length of 3 bytes, and the frame only 2 left"},
		{"head overruns frame", frame(id, []byte{1, 0}), 12, "at offset 12: frame ends 2 bytes into the head of an item, expected 3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, n, err := apns.ParseMsg(test.wire)
			if m != nil || n != test.at || !errors.Is(err, apns.StatusProtocolError) || err.Error() != "apns: "+test.text {
				t.Errorf("ParseMsg:\ngot  %v, %d, %v\nwant nil, %d, apns: %s", m, n, err, test.at, test.text)
			}
			m, readErr := apns.ReadMsg(bufio.NewReader(bytes.NewReader(test.wire)))
			if m != nil || readErr == nil || readErr.Error() != err.Error() {
				t.Errorf("ReadMsg: got %v, %v; want nil, %v", m, readErr, err)
			}
		})
	}
}

// Each message is cut at each byte, in a slice and in a stream that delivers
// the rest one by one.
func TestMessageCutShort(t *testing.T) {
	for _, wire := range [][]byte{simple, extended, framed} {
		for n := range wire {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			m, at, err := apns.ParseMsg(wire[:n])
			if m != nil || at != n || !errors.Is(err, want) {
				t.Errorf("ParseMsg, command %d cut at %d: got %v, %d, %v; want nil, %d, %v", wire[0], n, m, at, err, n, want)
			}
			for _, size := range []int{16, 4096} { // smaller and larger than the message
				m, readErr := apns.ReadMsg(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(wire[:n])), size))
				if m != nil || readErr == nil || readErr.Error() != err.Error() || !errors.Is(readErr, want) {
					t.Errorf("ReadMsg, command %d cut at %d: got %v, %v; want nil, %v", wire[0], n, m, readErr, err)
				}
			}
		}
	}
}

// ReadMsg takes the bytes of one message and no more, and waits for none
// beyond; also where the message is larger than the buffer.
func TestReadMsgStream(t *testing.T) {
	stream := slices.Concat(simple, framed, extended, simple)
	want := []byte{0, 2, 1, 0}
	for _, size := range []int{16, 40, 100, 4096} {
		pr, pw := io.Pipe()
		go func() {
			pw.Write(stream) // and leaves the pipe open
		}()
		r := bufio.NewReaderSize(pr, size)
		for i := range want {
			m, err := apns.ReadMsg(r)
			if err != nil || m.Token != token || !bytes.Equal(m.Payload, payload) {
				t.Fatalf("buffer of %d, message %d: got %+v, %v", size, i, m, err)
			}
		}
		pw.Close()
		if m, err := apns.ReadMsg(r); err != io.EOF {
			t.Errorf("buffer of %d: got %v, %v; want io.EOF", size, m, err)
		}
	}
	boom := errors.New("boom")
	if _, err := apns.ReadMsg(bufio.NewReader(iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
	// The end of a stream that says itself that it is no good end.
	for _, r := range []io.Reader{iotest.ErrReader(io.ErrUnexpectedEOF), io.MultiReader(bytes.NewReader(simple), iotest.ErrReader(io.ErrUnexpectedEOF))} {
		br := bufio.NewReader(r)
		_, err := apns.ReadMsg(br)
		if err == nil {
			_, err = apns.ReadMsg(br)
		}
		if err == io.EOF || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
		}
	}
	huge := append([]byte{0, 0xff, 0xff}, make([]byte, 1<<16)...)
	if m, _, err := apns.ParseMsg(append(huge, 0)); err != nil || len(m.Token) != 2*65535 {
		t.Errorf("a token of 65535 bytes: got %v; a server must be able to read it", err)
	}
}

func TestAlertPayload(t *testing.T) {
	for text, want := range map[string]string{
		"Hello":            `{"aps":{"alert":"Hello"}}`,
		"":                 `{"aps":{"alert":""}}`,
		"\"\\\n\x01":       `{"aps":{"alert":"\"\\\n\u0001"}}`,
		"Grüße <&> 世界 🎉":   `{"aps":{"alert":"Grüße <&> 世界 🎉"}}`,
		"broken \xff byte": `{"aps":{"alert":"broken \ufffd byte"}}`,
	} {
		if got := string(apns.AlertPayload(text)); got != want {
			t.Errorf("AlertPayload(%q):\ngot  %s\nwant %s", text, got, want)
		}
	}
}
