package apns_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// What "Handling notification responses from APNs" says may be tried again later
// is: after the server's Retry-After or after one second, two, four and so on,
// less up to half; as often as Attempts says; and not if there would be no time
// left, when the rejection is known at once.
func TestClientHTTP2TriesAgain(t *testing.T) {
	tooMany := &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests}
	internal := &apns.PushError{HTTPStatus: 500, Reason: apns.ReasonInternalServerError}
	unavailable := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable}
	wait7 := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: 7 * time.Second}
	wait60 := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Minute}
	wait7too := &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 7 * time.Second}
	always := func(err error) []error { return slices.Repeat([]error{err}, 100) }
	const s = time.Second
	for name, test := range map[string]struct {
		answers     []error
		attempts    int
		timeout     time.Duration
		want        error // the *PushError, or nil
		tries       int
		least, most time.Duration
	}{
		"429":                  {[]error{tooMany}, 0, 0, nil, 2, s / 2, s},
		"500":                  {[]error{internal}, 0, 0, nil, 2, s / 2, s},
		"503":                  {[]error{unavailable}, 0, 0, nil, 2, s / 2, s},
		"503, other spelling":  {[]error{&apns.PushError{HTTPStatus: 503, Reason: "Service Unavailable"}}, 0, 0, nil, 2, s / 2, s},
		"500 and 503, twice":   {[]error{tooMany, internal, unavailable}, 0, 0, nil, 4, 7 * s / 2, 7 * s},
		"Retry-After":          {[]error{wait7}, 0, 0, nil, 2, 7 * s, 7 * s},
		"Retry-After of a 429": {[]error{wait7too}, 0, 0, nil, 2, 7 * s, 7 * s},
		"not at once, twice":   {[]error{wait7, internal}, 0, 0, nil, 3, 8 * s, 9 * s},
		"ten times":            {always(internal), 0, time.Hour, internal, 10, 243 * s / 2, 243 * s}, // 1+2+4+8+16+32+60+60+60
		"three times":          {always(tooMany), 3, 0, tooMany, 3, 3 * s / 2, 3 * s},
		"the third is good":    {[]error{tooMany, tooMany}, 3, 0, nil, 3, 3 * s / 2, 3 * s},
		"once":                 {always(unavailable), 1, 0, unavailable, 1, 0, 0},
		"no time":              {always(wait7), 0, 5 * s, wait7, 1, 0, 0},
		"no time for a third":  {always(wait7), 0, 10 * s, wait7, 2, 7 * s, 7 * s},
		"a minute by default":  {always(wait60), 0, 0, wait60, 1, 0, 0},
	} {
		for _, byContext := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, context %v", name, byContext), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(test.answers...))
					c := http2Client(t, server.Config(), func(c *apns.Client) { c.Attempts = test.attempts })
					ctx := t.Context()
					switch {
					case byContext && test.timeout > 0:
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, test.timeout)
						defer cancel()
					default:
						c.Timeout = test.timeout
					}
					start := time.Now()
					_, err := c.Push(ctx, message(7))
					wantTook(t, start, test.least, test.most)
					stats := apns.Stats{Accepted: 1, Resent: uint64(test.tries - 1), Connected: 1}
					if strings.Contains(name, "twice") || strings.Contains(name, "ten times") {
						stats.Connected = 2 // it may be the connection: another is tried, once
					}
					if test.want == nil && err != nil {
						t.Errorf("got %v, want nil", err)
					} else if test.want != nil {
						want := *test.want.(*apns.PushError)
						want.ID = 7
						wantAnswer(t, err, want)
						stats.Accepted = 0
						stats.Rejected = map[string]uint64{string(want.Reason): 1}
					}
					if n := len(server.Records()); n != test.tries {
						t.Errorf("the server saw the message %d times, want %d", n, test.tries)
					}
					wantFigures(t, c, stats)
				})
			})
		}
	}
}

// "503 Shutdown: The APNs server is shutting down", "400 IdleTimeout: The idle
// timeout expired" and "403 UnrelatedKeyIdInToken" ("Handling notification responses
// from APNs") are about the connection: the message goes over another one, and so do
// all that come after it.
func TestClientHTTP2AnswerMeansAnotherConnection(t *testing.T) {
	for _, reason := range []apns.Reason{apns.ReasonShutdown, apns.ReasonIdleTimeout, apns.ReasonUnrelatedKeyIDInToken} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(nil, reason))
			var dials connCount
			c := http2Client(t, dials.count(server.Config()))
			for i := range 3 {
				if _, err := c.Push(t.Context(), device(i)); err != nil {
					t.Errorf("%s: message %d: got %v, want nil", reason, i, err)
				}
			}
			var conns []int
			for _, r := range server.Records() {
				conns = append(conns, r.Conn)
			}
			if want := []int{1, 1, 2, 2}; !slices.Equal(conns, want) {
				t.Errorf("%s: the messages came on the connections %v, want %v", reason, conns, want)
			}
			dials.want(t, 2, 1)
			wantFigures(t, c, apns.Stats{Accepted: 3, Resent: 1, Connected: 2})
		})
	}
}

// "429 TooManyProviderTokenUpdates" ("Handling notification responses from APNs") is
// about the sender, who keeps its token and tries later. Out of attempts, the message
// was not sent.
func TestClientHTTP2TooManyTokenUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(slices.Repeat([]error{apns.ReasonTooManyProviderTokenUpdates}, 5)...))
		c := http2Client(t, server.TokenConfig(), func(c *apns.Client) { c.Attempts = 3 })
		start := time.Now()
		_, err := c.Push(t.Context(), message(7))
		wantErr(t, err, apns.ErrNotSent, apns.ReasonTooManyProviderTokenUpdates)
		wantTook(t, start, 3*time.Second/2, 3*time.Second)
		if _, err := c.Push(t.Context(), message(8)); err != nil {
			t.Errorf("later: got %v, want nil", err)
		}
		wantFigures(t, c, apns.Stats{Accepted: 1, NotSent: 1, Resent: 4, Connected: 1})
	})
}

// What else a server says of a message is the caller's, at once and after one
// attempt: the reasons of "Handling notification responses from APNs", and any
// other.
func TestClientHTTP2Rejections(t *testing.T) {
	deadAt := time.UnixMilli(1700000000123).UTC()
	for counted, want := range map[string]apns.PushError{
		"BadDeviceToken":         {HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken},
		"DeviceTokenNotForTopic": {HTTPStatus: 400, Reason: apns.ReasonDeviceTokenNotForTopic},
		"TopicDisallowed":        {HTTPStatus: 400, Reason: apns.ReasonTopicDisallowed},
		"Forbidden":              {HTTPStatus: 403, Reason: apns.ReasonForbidden},
		"BadPath":                {HTTPStatus: 404, Reason: apns.ReasonBadPath},
		"MethodNotAllowed":       {HTTPStatus: 405, Reason: apns.ReasonMethodNotAllowed},
		"Unregistered":           {HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt},
		"ExpiredToken":           {HTTPStatus: 410, Reason: apns.ReasonExpiredToken, DeadAt: deadAt},
		"PayloadTooLarge":        {HTTPStatus: 413, Reason: apns.ReasonPayloadTooLarge},
		"HTTP status 400":        {HTTPStatus: 400},
		"HTTP status 429":        {HTTPStatus: 429},
		"other":                  {HTTPStatus: 418, Reason: "NeverHeardOf"},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(&want))
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt = apns.InDoubtResend })
			want.ID, want.APNsID = 7, "123e4567-e89b-12d3-a456-4266554400a0"
			m := message(7)
			m.APNsID = want.APNsID
			start := time.Now()
			r, err := c.Push(t.Context(), m)
			wantTook(t, start, 0, 0)
			wantAnswer(t, err, want)
			if r != (apns.Receipt{}) {
				t.Errorf("%s: got the receipt %v of a message that was rejected", counted, r)
			}
			if n := len(server.Records()); n != 1 {
				t.Errorf("%s: the server saw the message %d times, want 1", counted, n)
			}
			if _, err := c.Push(t.Context(), message(8)); err != nil {
				t.Errorf("%s: the next message: got %v, want nil", counted, err)
			}
			wantFigures(t, c, apns.Stats{Accepted: 1, Rejected: map[string]uint64{counted: 1}, Connected: 1})
		})
	}
}

// A message that breaks a rule is not sent, and matches what the server would have said.
func TestClientHTTP2LocalChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := http2Client(t, server.Config())
		for _, test := range []struct {
			m    *apns.Message
			want apns.Reason
		}{
			{nil, apns.ReasonMissingDeviceToken},
			{&apns.Message{Payload: payload}, apns.ReasonMissingDeviceToken},
			{&apns.Message{Token: "xyz", Payload: payload}, apns.ReasonBadDeviceToken},
			{&apns.Message{Token: token, Payload: make([]byte, 5000)}, apns.ReasonPayloadTooLarge},
		} {
			_, err := c.Push(t.Context(), test.m)
			wantErr(t, err, test.want)
			for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{test.m})) {
				if wantErr(t, r.Err, test.want); r.Message != test.m {
					t.Errorf("got back %p, want %p", r.Message, test.m)
				}
			}
		}
		if n := len(server.Records()); n != 0 {
			t.Errorf("the server saw %d messages, want 0", n)
		}
		s := c.Stats()
		if s.Invalid != 8 || len(s.Rejected) != 0 || s.Accepted+s.NotSent+s.InDoubt+s.InFlight+s.Waiting+s.Resent != 0 {
			t.Errorf("Stats are %+v, want 8 invalid and nothing else", s)
		}
	})
}

// What the server says it has not processed is resent by itself, and is
// accepted once. A connection that was of use before is replaced at once.
func TestClientHTTP2NotProcessed(t *testing.T) {
	refuse := apnstest.Fault{End: apnstest.EndRefusedStream}
	for name, test := range map[string]struct {
		faults []error
		resent uint64
		conns  []int // that the message came on
		most   time.Duration
	}{
		"REFUSED_STREAM":        {[]error{refuse}, 1, []int{1, 1}, 0},
		"REFUSED_STREAM, often": {[]error{refuse, refuse, refuse, refuse}, 4, []int{1, 1, 1, 1, 1}, 2 * time.Second},
		"GOAWAY":                {[]error{apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}}, 0, []int{1}, 0},
		"GOAWAY, not looked at": {[]error{apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}}, 1, []int{1, 2}, 0},
		"GOAWAY of no reason":   {[]error{apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}}, 1, []int{1, 2}, 0},
		"both":                  {[]error{refuse, apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}}, 2, []int{1, 1, 2}, time.Second},
	} {
		for _, atLeastOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at least once %v", name, atLeastOnce), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(append([]error{nil}, test.faults...)...))
					c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt = policy(atLeastOnce) })
					start := time.Now()
					for i := range 3 {
						if _, err := c.Push(t.Context(), device(i)); err != nil {
							t.Errorf("message %d: got %v, want nil", i, err)
						}
					}
					wantTook(t, start, 0, test.most)
					var conns []int
					accepted := 0
					for _, r := range server.Records() {
						if r.Message.Token == device(1).Token {
							conns = append(conns, r.Conn)
							if r.Outcome == apnstest.Accepted {
								accepted++
							}
						}
					}
					if !slices.Equal(conns, test.conns) || accepted != 1 {
						t.Errorf("the message came on the connections %v, and was accepted %d times, want %v and 1", conns, accepted, test.conns)
					}
					if s := c.Stats(); s.Resent != test.resent || s.Accepted != 3 {
						t.Errorf("Stats are %+v, want 3 accepted and %d resent", s, test.resent)
					}
				})
			})
		}
	}
	// Attempts has an end.
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return refuse })
		c := http2Client(t, server.Config(), func(c *apns.Client) { c.Attempts = 4 })
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent)
		if n := len(server.Records()); n != 4 {
			t.Errorf("the server saw the message %d times, want 4", n)
		}
		wantFigures(t, c, apns.Stats{NotSent: 1, Resent: 3, Connected: 1})
	})
}
