package apns_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

// "Feedback service tuple format" in the chapter "Binary Provider API".
var feedbackRecord = slices.Concat(
	[]byte{0x65, 0x53, 0xf1, 0x00}, // timestamp
	[]byte{0, 32},                  // token length
	tokenBytes,                     // token
)

func TestFeedbackRecord(t *testing.T) {
	// The zeros in the token stay, the hexadecimal is in lower case.
	want := apns.Feedback{Token: token, DeadAt: expiry}
	got, n, err := apns.ParseFeedback(append(bytes.Clone(feedbackRecord), 1))
	if err != nil || n != 38 || got != want {
		t.Errorf("ParseFeedback: got %+v, %d, %v; want %+v, 38", got, n, err, want)
	}
	if got.DeadAt.Location() != time.UTC {
		t.Errorf("DeadAt is in %v, want UTC", got.DeadAt.Location())
	}
	b, err := apns.AppendFeedback(nil, apns.Feedback{Token: strings.ToUpper(token), DeadAt: expiry.In(time.FixedZone("", 3600))})
	if err != nil || !bytes.Equal(b, feedbackRecord) {
		t.Errorf("AppendFeedback:\ngot  % x, %v\nwant % x", b, err, feedbackRecord)
	}
	for n := range feedbackRecord {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if f, at, err := apns.ParseFeedback(feedbackRecord[:n]); !errors.Is(err, want) || at != n {
			t.Errorf("ParseFeedback of %d bytes: got %v, %d, %v; want %v", n, f, at, err, want)
		}
	}
	// A peer that is no feedback service shows in the text.
	const web = "HTTP/1.1 400 Bad Request"
	const said = `apns: feedback record that begins "HTTP/1" is cut short after 24 bytes, expected at least 12087`
	if f, at, err := apns.ParseFeedback([]byte(web)); !errors.Is(err, io.ErrUnexpectedEOF) || at != len(web) || err.Error() != said {
		t.Errorf("ParseFeedback of %q: got %v, %d, %v; want %s", web, f, at, err, said)
	}
	for name, f := range map[string]apns.Feedback{
		"odd token": {Token: "abc", DeadAt: expiry},
		"bad token": {Token: "xy", DeadAt: expiry},
		"long":      {Token: strings.Repeat("ab", 65536), DeadAt: expiry},
		"long, odd": {Token: strings.Repeat("a", 2*65535+1), DeadAt: expiry},
		"odd, 203":  {Token: strings.Repeat("a", 203), DeadAt: expiry},
		"no time":   {Token: token},
		"future":    {Token: token, DeadAt: time.Unix(1<<32, 0)},
	} {
		if b, err := apns.AppendFeedback([]byte("x"), f); err == nil || string(b) != "x" {
			t.Errorf("%s: got % x, %v; want an error", name, b, err)
		}
	}
}

// A record has any length of the token that its two bytes can say. What parses can
// be appended again, and Check tells which tokens a device can have.
func TestFeedbackTokenLengths(t *testing.T) {
	for _, test := range []struct {
		length [2]byte
		size   int
		status apns.Status
		reason apns.Reason
		text   string
	}{
		{[2]byte{0, 0}, 0, apns.StatusMissingToken, apns.ReasonMissingDeviceToken, "apns: token is empty, expected 1 to 100 bytes in hexadecimal"},
		{[2]byte{0, 1}, 1, 0, "", ""},
		{[2]byte{0, 32}, 32, 0, "", ""},
		{[2]byte{0, 100}, 100, 0, "", ""},
		{[2]byte{0, 101}, 101, apns.StatusInvalidTokenSize, apns.ReasonBadDeviceToken, "apns: token has 202 characters, expected at most 200 hexadecimal digits"},
		{[2]byte{1, 0}, 256, apns.StatusInvalidTokenSize, apns.ReasonBadDeviceToken, "apns: token has 512 characters, expected at most 200 hexadecimal digits"},
		{[2]byte{0xff, 0xff}, 65535, apns.StatusInvalidTokenSize, apns.ReasonBadDeviceToken, "apns: token has 131070 characters, expected at most 200 hexadecimal digits"},
	} {
		wire := slices.Concat([]byte{0x65, 0x53, 0xf1, 0x00}, test.length[:], bytes.Repeat([]byte{0x0a}, test.size))
		want := apns.Feedback{Token: strings.Repeat("0a", test.size), DeadAt: expiry}
		f, n, err := apns.ParseFeedback(append(bytes.Clone(wire), 1))
		if f != want || n != len(wire) || err != nil {
			t.Errorf("%d bytes: ParseFeedback: got %.300v, %d, %v; want the record of %d bytes", test.size, f, n, err, len(wire))
		}
		if b, err := apns.AppendFeedback([]byte("x"), f); err != nil || string(b) != "x"+string(wire) {
			t.Errorf("%d bytes: AppendFeedback: got %.300q, %v; want x and the record", test.size, b, err)
		}
		err = f.Check()
		if test.text == "" {
			if err != nil {
				t.Errorf("%d bytes: Check: got %v, want nil", test.size, err)
			}
			continue
		}
		if err == nil || err.Error() != test.text || !errors.Is(err, test.status) || !errors.Is(err, test.reason) {
			t.Errorf("%d bytes: Check: got %v, want %s, which matches %v and %v", test.size, err, test.text, test.status, test.reason)
		}
	}
}

// Check says of a token that did not come from a server what BuildMsg says.
func TestFeedbackCheck(t *testing.T) {
	for _, token := range []string{"", "a", "ab", "AB", "abc", "xy", "abcdefgh", "0é", strings.Repeat("ab", 100), strings.Repeat("a", 201), strings.Repeat("x", 200)} {
		err := apns.Feedback{Token: token}.Check()
		_, want := apns.BuildMsg(&apns.Message{Token: token, Payload: []byte("{}")})
		if fmt.Sprint(err) != fmt.Sprint(want) || want != nil && !errors.Is(err, errors.Unwrap(want)) {
			t.Errorf("%q: got %v, want %v", token, err, want)
		}
	}
}

// oddFeedback returns a list with tokens of all kinds of lengths, one that is
// valid at its end, and the offsets at which its records begin and the last one
// ends.
func oddFeedback(t *testing.T) (list []apns.Feedback, wire []byte, at []int) {
	t.Helper()
	for i, size := range []int{0, 1, 32, 100, 101, 65535, 32} {
		f := apns.Feedback{Token: strings.Repeat(fmt.Sprintf("%02x", i+7), size), DeadAt: expiry.Add(time.Duration(i) * time.Second)}
		list = append(list, f)
		at = append(at, len(wire))
		var err error
		if wire, err = apns.AppendFeedback(wire, f); err != nil {
			t.Fatal(err)
		}
	}
	return list, wire, append(at, len(wire))
}

// readFeedback reads a list to its end and returns how many records of it came
// and the error after them.
func readFeedback(t *testing.T, c *apns.Conn, want []apns.Feedback) (int, error) {
	t.Helper()
	for n := 0; ; n++ {
		f, err := c.ReadFeedbackMsg(t.Context())
		if err != nil {
			return n, err
		}
		if n >= len(want) || f != want[n] {
			t.Fatalf("record %d: got a token of %d bytes, %v; want that of the list", n, len(f.Token)/2, f.DeadAt)
		}
	}
}

// A record with a token that no device can have does not keep the next one from
// being read.
func TestFeedbackOfAnyTokenLength(t *testing.T) {
	list, _, _ := oddFeedback(t)
	for _, fault := range []apnstest.Fault{{}, {Split: 1}, {Split: 7}, {Split: 5000}, {End: apnstest.EndOneSegment}, {End: apnstest.EndFIN}} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil, func(s *apnstest.Server) {
				s.OnConnect = func(int, tlsState) error { return fault }
			})
			s.AddFeedback(list...)
			c := dialFeedback(t, s)
			if n, err := readFeedback(t, c, list); n != len(list) || err != io.EOF {
				t.Errorf("%v: got %d records and %v, want %d and io.EOF", fault, n, err, len(list))
			}
			if f, err := c.ReadFeedbackMsg(t.Context()); err != io.EOF {
				t.Errorf("%v: got %v, %v after the end; want io.EOF", fault, f, err)
			}

			s.AddFeedback(list...)
			n := 0
			for f, err := range dialFeedback(t, s).Feedback(t.Context()) {
				if err != nil || f != list[n] {
					t.Fatalf("%v: record %d: got a token of %d bytes, %v", fault, n, len(f.Token)/2, err)
				}
				n++
			}
			if n != len(list) {
				t.Errorf("%v: Feedback has %d records, want %d", fault, n, len(list))
			}
		})
	}
}

// A feedbackConn is a connection without TLS to a service that sends the list.
type feedbackConn struct {
	net.Conn
	list *bytes.Reader
}

func (c feedbackConn) Read(p []byte) (int, error)    { return c.list.Read(p) }
func (feedbackConn) SetReadDeadline(time.Time) error { return nil }
func (feedbackConn) Close() error                    { return nil }

func dialList(t *testing.T, list []byte) *apns.Conn {
	t.Helper()
	c, err := apns.Dial(t.Context(), "localhost:2196", &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return &plain.Conn{Conn: feedbackConn{list: bytes.NewReader(list)}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The connection is cut at each byte of the list: the whole records come, and then
// an error if there is more.
func TestFeedbackOfAnyTokenLengthCutShort(t *testing.T) {
	list, wire, at := oddFeedback(t)
	check := func(c *apns.Conn, cut int) {
		t.Helper()
		whole, boundary := slices.BinarySearch(at, cut)
		wantErr := io.EOF
		if !boundary {
			whole--
			wantErr = io.ErrUnexpectedEOF
		}
		for range 2 { // the error stays
			n, err := readFeedback(t, c, list)
			if n != whole || !errors.Is(err, wantErr) || boundary && err != io.EOF {
				t.Fatalf("cut at %d: got %d records and %v, want %d and %v", cut, n, err, whole, wantErr)
			}
			whole = 0
		}
	}
	step := 1
	if raceEnabled { // the detector is slow, and only one goroutine runs here
		step = 11
	}
	for cut := 0; cut <= len(wire); cut += step {
		c := dialList(t, wire[:cut])
		check(c, cut)
		c.Close()
	}
	// With TLS there is more to each connection, and the bytes at the boundaries do.
	for _, end := range []apnstest.End{apnstest.EndCloseNotify, apnstest.EndOneSegment, apnstest.EndFIN} {
		for _, begin := range at {
			for cut := max(0, begin-3); cut <= min(begin+8, len(wire)); cut++ {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, nil, func(s *apnstest.Server) {
						s.OnConnect = func(int, tlsState) error { return apnstest.Fault{Cut: len(wire) - cut, End: end} }
					})
					s.AddFeedback(list...)
					check(dialFeedback(t, s), cut)
				})
			}
		}
	}
}

// A context that ends within a large record loses no byte of it.
func TestFeedbackContextInLargeRecord(t *testing.T) {
	list, wire, _ := oddFeedback(t)
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		s := inMemory(t, nil)
		certs := s.Certificates()
		pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // 1,000 bytes every second
			c := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}})
			defer c.Close()
			for part := range slices.Chunk(wire, 1000) {
				time.Sleep(time.Second)
				c.Write(part)
			}
		}()
		config := s.Config()
		config.DialContext = func(context.Context, string, string) (net.Conn, error) { return client, nil }
		c := dial(t, "localhost:2196", config)
		var got []apns.Feedback
		timeouts := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			f, err := c.ReadFeedbackMsg(ctx)
			cancel()
			if err == io.EOF {
				break
			}
			switch {
			case err == nil:
				got = append(got, f)
			case errors.Is(err, context.DeadlineExceeded):
				timeouts++
			default:
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, list) || timeouts < 20 {
			t.Errorf("got %d records after %d timeouts, want the %d of the list after many", len(got), timeouts, len(list))
		}
	})
}
