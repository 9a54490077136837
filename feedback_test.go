package apns_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
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
	for _, wire := range []string{"HTTP/1.1 400 Bad Request", "\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x65"} {
		if f, at, err := apns.ParseFeedback([]byte(wire)); !errors.Is(err, apns.StatusProtocolError) || at != 4 {
			t.Errorf("ParseFeedback of %q: got %v, %d, %v; want a protocol error at 4", wire, f, at, err)
		}
	}
	for name, f := range map[string]apns.Feedback{
		"no token":  {DeadAt: expiry},
		"odd token": {Token: "abc", DeadAt: expiry},
		"bad token": {Token: "xy", DeadAt: expiry},
		"long":      {Token: strings.Repeat("ab", 101), DeadAt: expiry},
		"no time":   {Token: token},
		"future":    {Token: token, DeadAt: time.Unix(1<<32, 0)},
	} {
		if b, err := apns.AppendFeedback([]byte("x"), f); err == nil || string(b) != "x" {
			t.Errorf("%s: got % x, %v; want an error", name, b, err)
		}
	}
}
