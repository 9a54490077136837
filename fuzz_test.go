package apns_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"example.com/apns"
)

// What decodes and is accepted by the encoder decodes again to an equal value,
// a zero Expiry having become 1970 in the extended format, which has no other
// way to say it. A stream says what a slice says.
func FuzzReadMsg(f *testing.F) {
	f.Add(simple)
	f.Add(extended)
	f.Add(framed)
	f.Add(slices.Concat(framed, extended, simple))
	f.Add(framed[:len(framed)-1])
	f.Add([]byte{2, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		streams := []*bufio.Reader{
			bufio.NewReader(bytes.NewReader(b)),
			bufio.NewReaderSize(bytes.NewReader(b), 16),
			bufio.NewReader(iotest.OneByteReader(bytes.NewReader(b))),
		}
		for {
			m, n, err := apns.ParseMsg(b)
			for i, r := range streams {
				sm, serr := apns.ReadMsg(r)
				if !equal(m, sm) || (err == nil) != (serr == nil) || err != nil && err.Error() != serr.Error() {
					t.Fatalf("stream %d:\ngot  %+v, %v\nwant %+v, %v", i, sm, serr, m, err)
				}
			}
			if n < 0 || n > len(b) {
				t.Fatalf("ParseMsg took %d bytes of %d", n, len(b))
			}
			if err != nil {
				checkDecodeError(t, b, n, err)
				return
			}
			checkRoundTrip(t, m)
			b = b[n:]
		}
	})
}

// The items of a frame are what a server is most likely to be fooled with.
func FuzzFrameItems(f *testing.F) {
	f.Add(framed[5:])
	f.Add([]byte{5, 0, 1, 10, 4, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 7, 2, 0, 2, '{', '}', 1, 0, 1, 0xab})
	f.Add([]byte{1, 0, 0, 1, 0, 0})
	f.Add([]byte{5, 0, 4, 0, 0, 0, 5})
	f.Fuzz(func(t *testing.T, items []byte) {
		n := len(items)
		b := append([]byte{2, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, items...)
		m, size, err := apns.ParseMsg(b)
		if err != nil {
			checkDecodeError(t, b, size, err)
			return
		}
		if size != len(b) {
			t.Fatalf("ParseMsg took %d bytes of a frame of %d", size, len(b))
		}
		// A walk of one's own: each item once, and all of them what they say.
		seen := make(map[byte]int)
		for rest := items; len(rest) > 0; {
			seen[rest[0]]++
			rest = rest[3+int(rest[1])<<8+int(rest[2]):]
		}
		for item, times := range seen {
			if times != 1 || item < 1 || item > 5 {
				t.Fatalf("item %d was accepted %d times", item, times)
			}
		}
		checkRoundTrip(t, m)
	})
}

func FuzzParseError(f *testing.F) {
	f.Add([]byte{8, 8, 0xde, 0xad, 0xbe, 0xef})
	f.Add([]byte{8, 10, 0, 0, 0})
	f.Add([]byte("HTTP/1.1 400"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := apns.ParseError(b)
		if err != nil {
			at := 0
			if errors.Is(err, io.ErrUnexpectedEOF) {
				at = len(b)
			}
			checkDecodeError(t, b, at, err)
			return
		}
		if got := apns.AppendError(nil, e); !bytes.Equal(got, b[:6]) {
			t.Fatalf("% x decodes to %v, which encodes to % x", b[:6], e, got)
		}
	})
}

// Any bytes are a record, or the beginning of one; and any record can be appended
// again. Check says of its token what BuildMsg says.
func FuzzParseFeedback(f *testing.F) {
	f.Add(feedbackRecord)
	f.Add(slices.Concat(feedbackRecord, feedbackRecord[:20]))
	f.Add([]byte("HTTP/1.1 400"))
	f.Add([]byte{0x65, 0x53, 0xf1, 0, 0, 0})
	f.Add(slices.Concat([]byte{0x65, 0x53, 0xf1, 0, 0, 100}, make([]byte, 100)))
	f.Add(slices.Concat([]byte{0x65, 0x53, 0xf1, 0, 0, 101}, make([]byte, 101)))
	f.Add(slices.Concat([]byte{0x65, 0x53, 0xf1, 0, 0xff, 0xff}, make([]byte, 65535)))
	f.Fuzz(func(t *testing.T, b []byte) {
		record, n, err := apns.ParseFeedback(b)
		if err != nil {
			checkDecodeError(t, b, n, err)
			if errors.Is(err, apns.StatusProtocolError) || len(b) >= 6 && len(b) >= 6+int(b[4])<<8+int(b[5]) {
				t.Fatalf("% x: got %v, want a record", b, err)
			}
			return
		}
		_, want := apns.BuildMsg(&apns.Message{Token: record.Token, Payload: []byte("{}")})
		if err := record.Check(); fmt.Sprint(err) != fmt.Sprint(want) {
			t.Fatalf("%.300v: Check says %v, BuildMsg %v", record, err, want)
		}
		if got, err := apns.AppendFeedback(nil, record); err != nil || !bytes.Equal(got, b[:n]) {
			t.Fatalf("% x decodes to %v, which encodes to % x, %v", b[:n], record, got, err)
		}
	})
}

// checkRoundTrip encodes and decodes m, if the encoder accepts it.
func checkRoundTrip(t *testing.T, m *apns.Message) {
	t.Helper()
	b, err := apns.BuildMsg(m)
	if err != nil {
		return
	}
	got, n, err := apns.ParseMsg(b)
	if err != nil || n != len(b) {
		t.Fatalf("%+v encodes to % x, which decodes to %d bytes, %v", m, b, n, err)
	}
	want := *m
	if want.Priority == 0 && want.Expiry.IsZero() {
		want.Expiry = time.Unix(0, 0).UTC()
	}
	if !equal(got, &want) {
		t.Fatalf("decoded again:\ngot  %+v\nwant %+v", got, &want)
	}
}

// checkDecodeError checks that an error says just one thing: that there is
// nothing, too little, or something wrong at an offset.
func checkDecodeError(t *testing.T, b []byte, n int, err error) {
	t.Helper()
	short, wrong := errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, apns.StatusProtocolError)
	switch {
	case err == io.EOF && len(b) == 0 && n == 0:
	case short && !wrong && n == len(b):
	case wrong && !short && n < len(b):
	default:
		t.Fatalf("% x: error at %d: %v", b, n, err)
	}
}
