package apnstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// What a handler returns, and what comes of it on the wire and in the records.
func TestVerdicts(t *testing.T) {
	const accepted, refused, discarded = apnstest.Accepted, apnstest.Rejected, apnstest.Discarded
	for name, test := range map[string]struct {
		err     error
		said    []byte // nil: the connection goes on
		outcome apnstest.Outcome
	}{
		"nil":               {nil, nil, accepted},
		"no error":          {apns.StatusNoError, nil, accepted},
		"status":            {apns.StatusInvalidToken, []byte{8, 8, 0, 0, 0, 2}, refused},
		"wrapped":           {fmt.Errorf("because: %w", apns.StatusMissingTopic), []byte{8, 3, 0, 0, 0, 2}, refused},
		"unknown status":    {apns.Status(99), []byte{8, 99, 0, 0, 0, 2}, refused},
		"255":               {apns.StatusUnknown, []byte{8, 255, 0, 0, 0, 2}, refused},
		"shutdown":          {apns.StatusShutdown, []byte{8, 10, 0, 0, 0, 2}, accepted},
		"shutdown earlier":  {&apns.PushError{ID: 1, Status: apns.StatusShutdown}, []byte{8, 10, 0, 0, 0, 1}, discarded},
		"zero ID":           {&apns.PushError{Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 0}, refused},
		"wrong ID":          {&apns.PushError{ID: 77, Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 77}, refused},
		"status 0 for real": {&apns.PushError{ID: 2}, []byte{8, 0, 0, 0, 0, 2}, refused},
		"any other":         {errors.New("boom"), []byte{8, 1, 0, 0, 0, 2}, refused},
		"silent end":        {apnstest.Fault{}, []byte{}, discarded},
		"accepted and end":  {apnstest.Fault{Err: apns.StatusNoError}, []byte{}, accepted},
		"fault":             {apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"pointer":           {&apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"typed nil":         {(*apns.PushError)(nil), nil, accepted},
		"cut of less":       {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: -5, Split: -1}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"reason":            {apns.ReasonPayloadTooLarge, []byte{8, 7, 0, 0, 0, 2}, refused},
		"pointless fault":   {fmt.Errorf("because: %w", apnstest.Fault{Err: errors.New("boom")}), []byte{8, 1, 0, 0, 0, 2}, refused},
		"cut":               {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 4}, []byte{8, 8}, refused},
		"cut away":          {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 1 << 30}, []byte{}, refused},
		"bare":              {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndFIN}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"together":          {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndOneSegment}, []byte{8, 8, 0, 0, 0, 2}, refused},
	} {
		for _, memory := range []bool{true, false} {
			run := func(t *testing.T) {
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
				if test.said == nil {
					c.CloseWrite()
				}
				if got, err := io.ReadAll(c); !bytes.Equal(got, test.said) || err != nil {
					t.Errorf("%s: server said % x, %v; want % x", name, got, err, test.said)
				}
				c.Close()
				if err := s.Wait(t.Context(), 3); err != nil {
					t.Fatal(err)
				}
				last := discarded
				if test.said == nil {
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
			if memory {
				synctest.Test(t, run)
			} else {
				t.Run(name, run)
			}
		}
	}
}

// What the gateway sees at once does not reach the handler. The statuses are
// those of Table A-4 in "Binary Provider API".
func TestRejectedAtSight(t *testing.T) {
	items := func(items ...[]byte) []byte {
		b := slices.Concat(items...)
		return append([]byte{2, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	id := []byte{3, 0, 4, 0, 0, 0, 7}
	tok := []byte{1, 0, 1, 0xab}
	pay := []byte{2, 0, 2, '{', '}'}
	for name, test := range map[string]struct {
		wire []byte
		said []byte
	}{
		"no token":           {items(id, pay), []byte{8, 2, 0, 0, 0, 7}},
		"empty token":        {items(id, pay, []byte{1, 0, 0}), []byte{8, 2, 0, 0, 0, 7}},
		"long token":         {items(id, pay, []byte{1, 0, 101}, make([]byte, 101)), []byte{8, 5, 0, 0, 0, 7}},
		"no payload":         {items(id, tok), []byte{8, 4, 0, 0, 0, 7}},
		"long payload":       {items(id, tok, []byte{2, 0x08, 0x01}, make([]byte, 2049)), []byte{8, 7, 0, 0, 0, 7}},
		"no identifier":      {items([]byte{1, 0, 0}, pay), []byte{8, 2, 0, 0, 0, 0}},
		"unknown item":       {items(id, []byte{9, 0, 0}), []byte{8, 128, 0, 0, 0, 0}},
		"unknown command":    {[]byte("GET / HTTP/1.1\r\n\r\n"), []byte{8, 128, 0, 0, 0, 0}},
		"command 0, refused": {[]byte{0, 0, 0, 0, 2, '{', '}'}, nil}, // "drops the connection"
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				t.Errorf("the handler was asked about %+v", m)
				return nil
			}, nil)
			c := open(t, s, "2195")
			if _, err := c.Write(test.wire); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); !bytes.Equal(got, test.said) || err != nil {
				t.Errorf("server said % x, %v; want % x", got, err, test.said)
			}
		})
	}
}

// A handler's Reason on the binary wire, as a bridge would say it.
func TestReasonOnTheBinaryWire(t *testing.T) {
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
		apns.ReasonShutdown:                                 1, // of this message; StatusShutdown is another matter
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
			t.Errorf("%v: got the records %v, want one refused", err, rs)
		}
	}
}

func TestFeedbackIsHandedOutOnce(t *testing.T) {
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
			t.Errorf("AddFeedback of a bad token: recovered %v, want why", r)
		}
	}()
	s.AddFeedback(apns.Feedback{Token: "abc"})
}
