package apnstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const accepted, rejected, discarded = apnstest.Accepted, apnstest.Rejected, apnstest.Discarded

// A gatewayOutcome is what the gateway does when a handler returns an error.
type gatewayOutcome struct {
	err     error
	packet  []byte // nil: the connection stays open
	outcome apnstest.Outcome
}

var gatewayOutcomes = map[string]gatewayOutcome{
	"nil":                  {nil, nil, accepted},
	"no error":             {apns.StatusNoError, nil, accepted},
	"status":               {apns.StatusInvalidToken, []byte{8, 8, 0, 0, 0, 2}, rejected},
	"wrapped":              {fmt.Errorf("because: %w", apns.StatusMissingTopic), []byte{8, 3, 0, 0, 0, 2}, rejected},
	"unknown status":       {apns.Status(99), []byte{8, 99, 0, 0, 0, 2}, rejected},
	"255":                  {apns.StatusUnknown, []byte{8, 255, 0, 0, 0, 2}, rejected},
	"shutdown":             {apns.StatusShutdown, []byte{8, 10, 0, 0, 0, 2}, accepted},
	"shutdown, earlier ID": {&apns.PushError{ID: 1, Status: apns.StatusShutdown}, []byte{8, 10, 0, 0, 0, 1}, discarded},
	"zero ID":              {&apns.PushError{Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 0}, rejected},
	"wrong ID":             {&apns.PushError{ID: 77, Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 77}, rejected},
	"status 0":             {&apns.PushError{ID: 2}, []byte{8, 0, 0, 0, 0, 2}, rejected},
	"any other error":      {errors.New("boom"), []byte{8, 1, 0, 0, 0, 2}, rejected},
	"no packet":            {apnstest.Fault{}, []byte{}, discarded},
	"accepted, and FIN":    {apnstest.Fault{Err: apns.StatusNoError}, []byte{}, accepted},
	"fault":                {apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, rejected},
	"pointer to a fault":   {&apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, rejected},
	"typed nil":            {(*apns.PushError)(nil), nil, accepted},
	"negative cut":         {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: -5, Split: -1}, []byte{8, 8, 0, 0, 0, 2}, rejected},
	"reason":               {apns.ReasonPayloadTooLarge, []byte{8, 7, 0, 0, 0, 2}, rejected},
	"wrapped fault":        {fmt.Errorf("because: %w", apnstest.Fault{Err: errors.New("boom")}), []byte{8, 1, 0, 0, 0, 2}, rejected},
	"cut":                  {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 4}, []byte{8, 8}, rejected},
	"all cut":              {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 1 << 30}, []byte{}, rejected},
	"FIN":                  {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndFIN}, []byte{8, 8, 0, 0, 0, 2}, rejected},
	"one segment":          {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndOneSegment}, []byte{8, 8, 0, 0, 0, 2}, rejected},
}

// The error that a handler returns decides what the gateway sends and records.
func TestGatewayOutcomes(t *testing.T) {
	for name, test := range gatewayOutcomes {
		onBothNetworks(t, name, func(t *testing.T, memory bool) { testGatewayOutcome(t, memory, name, test) })
	}
}

func testGatewayOutcome(t *testing.T, memory bool, name string, test gatewayOutcome) {
	s := start(t, memory, func(m *apns.Message) error {
		if m.ID == 2 {
			return test.err
		}
		return nil
	}, nil)
	c := open(t, s, "2195")
	if _, err := c.Write(build(t, message(1), message(2), message(3))); err != nil {
		t.Fatal(err)
	}
	if test.packet == nil {
		c.CloseWrite()
	}
	if got, err := io.ReadAll(c); !bytes.Equal(got, test.packet) || err != nil {
		t.Errorf("%s: got the packet % x, %v; want % x", name, got, err, test.packet)
	}
	c.Close()
	if err := s.Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	last := discarded
	if test.packet == nil {
		last = accepted
	}
	var got []apnstest.Outcome
	for i, r := range s.Records() {
		got = append(got, r.Outcome)
		if r.Conn != 1 || r.Message.ID != uint32(i+1) || r.Err != nil && r.Message.ID != 2 {
			t.Errorf("%s: record %d is %+v of message %d", name, i, r, r.Message.ID)
		}
	}
	if want := []apnstest.Outcome{accepted, test.outcome, last}; !slices.Equal(got, want) {
		t.Errorf("%s: got the outcomes %v, want %v", name, got, want)
	}
	for _, outcome := range got {
		if n := len(s.Messages(outcome)); n == 0 {
			t.Errorf("%s: no messages %v", name, outcome)
		}
	}
}

// A message that fails the gateway's own checks does not reach the handler. The statuses
// are those of Table A-4 in "Binary Provider API".
func TestGatewayChecks(t *testing.T) {
	items := func(items ...[]byte) []byte {
		b := slices.Concat(items...)
		return append([]byte{2, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	id := []byte{3, 0, 4, 0, 0, 0, 7}
	tok := []byte{1, 0, 1, 0xab}
	pay := []byte{2, 0, 2, '{', '}'}
	for name, test := range map[string]struct {
		message []byte
		packet  []byte
	}{
		"no token":        {items(id, pay), []byte{8, 2, 0, 0, 0, 7}},
		"empty token":     {items(id, pay, []byte{1, 0, 0}), []byte{8, 2, 0, 0, 0, 7}},
		"long token":      {items(id, pay, []byte{1, 0, 101}, make([]byte, 101)), []byte{8, 5, 0, 0, 0, 7}},
		"no payload":      {items(id, tok), []byte{8, 4, 0, 0, 0, 7}},
		"long payload":    {items(id, tok, []byte{2, 0x08, 0x01}, make([]byte, 2049)), []byte{8, 7, 0, 0, 0, 7}},
		"no identifier":   {items([]byte{1, 0, 0}, pay), []byte{8, 2, 0, 0, 0, 0}},
		"unknown item":    {items(id, []byte{9, 0, 0}), []byte{8, 128, 0, 0, 0, 0}},
		"unknown command": {[]byte("GET / HTTP/1.1\r\n\r\n"), []byte{8, 128, 0, 0, 0, 0}},
		"command 0":       {[]byte{0, 0, 0, 0, 2, '{', '}'}, nil}, // "drops the connection"
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				t.Errorf("the handler was called for %+v", m)
				return nil
			}, nil)
			c := open(t, s, "2195")
			if _, err := c.Write(test.message); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); !bytes.Equal(got, test.packet) || err != nil {
				t.Errorf("got the packet % x, %v; want % x", got, err, test.packet)
			}
		})
	}
}

// On the binary protocol a handler's Reason becomes the Status that corresponds to it.
func TestReasonToStatus(t *testing.T) {
	for err, status := range map[error]byte{
		apns.ReasonBadDeviceToken:                           8,
		apns.ReasonDeviceTokenNotForTopic:                   8,
		apns.ReasonUnregistered:                             8,
		apns.ReasonExpiredToken:                             8,
		apns.ReasonMissingDeviceToken:                       2,
		apns.ReasonMissingTopic:                             3,
		apns.ReasonBadTopic:                                 6,
		apns.ReasonTopicDisallowed:                          6,
		apns.ReasonPayloadEmpty:                             4,
		apns.ReasonPayloadTooLarge:                          7,
		apns.ReasonBadPriority:                              1,
		apns.ReasonShutdown:                                 1, // it rejects this message, unlike StatusShutdown
		apns.Reason("MoonPhase"):                            1,
		&apns.PushError{ID: 2, Reason: apns.ReasonBadTopic}: 6,
		apnstest.Fault{Err: apns.ReasonPayloadEmpty}:        4,
	} {
		s := start(t, false, func(*apns.Message) error { return err }, nil)
		c := open(t, s, "2195")
		if _, err := c.Write(build(t, message(2))); err != nil {
			t.Fatal(err)
		}
		if got, e := io.ReadAll(c); !bytes.Equal(got, []byte{8, status, 0, 0, 0, 2}) || e != nil {
			t.Errorf("%v: got % x, %v; want status %d", err, got, e, status)
		}
		if rs := s.Records(); len(rs) != 1 || rs[0].Outcome != apnstest.Rejected {
			t.Errorf("%v: got the records %v, want one rejected", err, rs)
		}
	}
}

// The feedback service sends each record to one client.
func TestFeedbackIsSentOnce(t *testing.T) {
	s := start(t, false, nil, nil)
	f := apns.Feedback{Token: token, DeadAt: time.Unix(1700000000, 0).UTC()}
	s.AddFeedback(f, f)
	want, _ := apns.AppendFeedback(nil, f)
	want, _ = apns.AppendFeedback(want, f)
	for range 2 {
		got, err := io.ReadAll(open(t, s, "2196"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got % x, %v; want % x", got, err, want)
		}
		want = []byte{}
	}
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "odd") && !strings.Contains(fmt.Sprint(r), "even") {
			t.Errorf("AddFeedback of a bad token: recovered %v, want the reason", r)
		}
	}()
	s.AddFeedback(apns.Feedback{Token: "abc"})
}
