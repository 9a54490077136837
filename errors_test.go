package apns_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"example.com/apns"
)

// Table A-4, "Codes in error-response packet", in the chapter "Binary Provider
// API".
func TestStatusTable(t *testing.T) {
	want := map[apns.Status]string{
		0: "no error", 1: "processing error", 2: "missing device token", 3: "missing topic",
		4: "missing payload", 5: "invalid token size", 6: "invalid topic size",
		7: "invalid payload size", 8: "invalid token", 10: "shutdown",
		128: "protocol error", 255: "unknown error",
	}
	for i := range 256 {
		s := apns.Status(i)
		text, known := want[s]
		if !known {
			text = fmt.Sprintf("status %d", i)
		}
		if s.Error() != text {
			t.Errorf("status %d: got %q, want %q", i, s.Error(), text)
		}
		// The number is kept, whether it is in the table or not.
		b := apns.AppendError(nil, &apns.PushError{ID: 7, Status: s})
		e, err := apns.ParseError(b)
		if err != nil || e.Status != s || !errors.Is(e, s) || errors.Is(e, s+1) {
			t.Errorf("status %d: got %v, %v", i, e, err)
		}
		// "the last notification that was successfully sent": status 10 alone.
		if e.Rejected() != (s != 10) {
			t.Errorf("status %d: Rejected is %v", i, e.Rejected())
		}
	}
}

// Figure A-2, "Format of error-response packet".
func TestErrorPacket(t *testing.T) {
	packet := []byte{
		8,                      // command
		8,                      // status: invalid token
		0xde, 0xad, 0xbe, 0xef, // identifier
	}
	want := apns.PushError{ID: 0xdeadbeef, Status: apns.StatusInvalidToken}
	if got := apns.AppendError(nil, &want); !bytes.Equal(got, packet) {
		t.Errorf("AppendError: got % x, want % x", got, packet)
	}
	got, err := apns.ParseError(append(packet, 1))
	if err != nil || *got != want {
		t.Errorf("ParseError: got %v, %v; want %v", got, err, want)
	}
	for n := range packet {
		if got, err := apns.ParseError(packet[:n]); got != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("ParseError of %d bytes: got %v, %v; want io.ErrUnexpectedEOF", n, got, err)
		}
	}
	if got, err := apns.ParseError([]byte("HTTP/1.1 400")); got != nil || !errors.Is(err, apns.StatusProtocolError) {
		t.Errorf("got %v, %v; want a protocol error", got, err)
	}
}

func TestPushErrorText(t *testing.T) {
	for want, e := range map[string]*apns.PushError{
		"apns: message 7 rejected: invalid token (status 8)":                           {ID: 7, Status: 8},
		"apns: message 7 rejected: status 42":                                          {ID: 7, Status: 42},
		"apns: server shut down after message 7, the last one it accepted (status 10)": {ID: 7, Status: 10},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Which rejections may pass with time: "Handling notification responses from APNs",
// and Table A-4 of "Binary Provider API".
func TestRetryable(t *testing.T) {
	for e, want := range map[apns.PushError]bool{
		{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests}:     true,
		{HTTPStatus: 500, Reason: apns.ReasonInternalServerError}: true,
		{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable}:  true,
		{HTTPStatus: 503, Reason: "Service Unavailable"}:          true,
		{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken}:      false,
		{HTTPStatus: 403, Reason: apns.ReasonForbidden}:           false,
		{HTTPStatus: 410, Reason: apns.ReasonUnregistered}:        false,
		{HTTPStatus: 413, Reason: apns.ReasonPayloadTooLarge}:     false,
		{HTTPStatus: 500, Reason: "NeverHeardOf"}:                 false,
		{HTTPStatus: 429}:                    false,
		{Status: apns.StatusProcessingError}: true,
		{Status: apns.StatusInvalidToken}:    false,
		{Status: apns.StatusUnknown}:         false,
		{Status: 42}:                         false,
	} {
		if got := e.Retryable(); got != want {
			t.Errorf("%v: Retryable is %v, want %v", &e, got, want)
		}
	}
}
