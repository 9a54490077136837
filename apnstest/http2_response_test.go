package apnstest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A responseOutcome is what the server does over HTTP/2 when a handler returns an error.
type responseOutcome struct {
	err     error
	want    string // the response, or parts of the error separated by |
	outcome apnstest.Outcome
	last    bool // the connection takes no more messages
}

var someTime = time.Unix(1700000000, 0)

var responseOutcomes = map[string]responseOutcome{
	"nil":                      {nil, "200", accepted, false},
	"no error":                 {apns.StatusNoError, "200", accepted, false},
	"reason":                   {apns.ReasonTooManyRequests, "429 TooManyRequests", rejected, false},
	"wrapped":                  {fmt.Errorf("because: %w", apns.ReasonServiceUnavailable), "503 ServiceUnavailable", rejected, false},
	"unknown reason":           {apns.Reason("MoonPhase"), "400 MoonPhase", rejected, false},
	"shutdown, the reason":     {apns.ReasonShutdown, "503 Shutdown", rejected, false},
	"shutdown":                 {apns.StatusShutdown, "200", accepted, true},
	"shutdown, another ID":     {&apns.PushError{ID: 3, Status: apns.StatusShutdown}, "503 Shutdown", rejected, false},
	"any other error":          {errors.New("boom"), "500 InternalServerError", rejected, false},
	"unknown status":           {apns.Status(99), "500 InternalServerError", rejected, false},
	"status 8":                 {apns.StatusInvalidToken, "400 BadDeviceToken", rejected, false},
	"push error":               {&apns.PushError{HTTPStatus: 418, Reason: "Teapot"}, "418 Teapot", rejected, false},
	"push error, no reason":    {&apns.PushError{HTTPStatus: 502}, "502", rejected, false},
	"push error, reason":       {&apns.PushError{Reason: apns.ReasonTooManyRequests}, "429 TooManyRequests", rejected, false},
	"push error, 410":          {&apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: someTime}, "410 Unregistered", rejected, false},
	"push error, status":       {&apns.PushError{ID: 9, Status: apns.StatusMissingTopic}, "400 MissingTopic", rejected, false},
	"fault":                    {apnstest.Fault{Err: apns.ReasonTooManyRequests}, "429 TooManyRequests", rejected, false},
	"fault, accepted":          {apnstest.Fault{Err: apns.StatusNoError}, "200", accepted, false},
	"one segment":              {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndOneSegment}, "400 BadDeviceToken", rejected, false},
	"no response":              {apnstest.Fault{}, "deadline", discarded, false},
	"silence":                  {apnstest.Fault{End: apnstest.EndSilence}, "deadline", discarded, false},
	"silence, accepted":        {apnstest.Fault{End: apnstest.EndSilence, Err: apns.StatusNoError}, "deadline", accepted, false},
	"RST":                      {apnstest.Fault{End: apnstest.EndRST}, "; CANCEL", discarded, false},
	"RST, accepted":            {apnstest.Fault{End: apnstest.EndRST, Err: apns.StatusNoError}, "; CANCEL", accepted, false},
	"REFUSED_STREAM":           {apnstest.Fault{End: apnstest.EndRefusedStream}, "REFUSED_STREAM", discarded, false},
	"REFUSED_STREAM, accepted": {apnstest.Fault{End: apnstest.EndRefusedStream, Err: apns.StatusNoError}, "REFUSED_STREAM", discarded, false},
	"FIN, then RST":            {apnstest.Fault{End: apnstest.EndFINThenRST}, "EOF|reset", discarded, true},
	"FIN":                      {apnstest.Fault{End: apnstest.EndFIN}, "EOF|reset", discarded, true},
	"GOAWAY":                   {apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonIdleTimeout}, "200", accepted, true},
	"GOAWAY, rejected":         {apnstest.Fault{End: apnstest.EndGoAway, Err: apns.ReasonBadTopic}, "400 BadTopic", rejected, true},
	"unprocessed":              {apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}, "received Server's graceful shutdown GOAWAY", discarded, true},
	"unprocessed, delayed":     {apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown, Delay: time.Second}, "received Server's graceful shutdown GOAWAY", discarded, true},
	"unprocessed, no reason":   {apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Err: apns.StatusNoError}, "received Server's graceful shutdown GOAWAY", discarded, true},
	"delayed":                  {apnstest.Fault{Err: apns.ReasonBadTopic, Delay: 5 * time.Second}, "400 BadTopic", rejected, false},
	"GOAWAY, delayed":          {apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Delay: 5 * time.Second}, "200", accepted, true},
	"FIN, then RST, delayed":   {apnstest.Fault{End: apnstest.EndFINThenRST, Delay: 5 * time.Second}, "EOF|reset", discarded, true},
	"RST, delayed":             {apnstest.Fault{End: apnstest.EndRST, Delay: 5 * time.Second}, "; CANCEL", discarded, false},
	"delayed too long":         {apnstest.Fault{Err: apns.ReasonBadTopic, Delay: time.Hour}, "deadline", rejected, false},
}

// The error that a handler returns decides what the server sends and records.
func TestResponseOutcomes(t *testing.T) {
	for name, test := range responseOutcomes {
		synctest.Test(t, func(t *testing.T) { testResponseOutcome(t, name, test) })
	}
}

func testResponseOutcome(t *testing.T, name string, test responseOutcome) {
	s := start(t, true, func(m *apns.Message) error {
		if m.CollapseID == "2" {
			return test.err
		}
		return nil
	}, nil)
	c := connect(t, s, true)
	send := func(id string) response {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp := request{header: fields("apns-collapse-id", id)}.send(ctx, c)
		synctest.Wait()
		return resp
	}
	if resp := send("1"); resp.String() != "200" {
		t.Fatalf("%s: the message before: got %v, want 200", name, resp)
	}
	began := time.Now()
	resp := send("2")
	ok := resp.String() == test.want
	if resp.err != nil {
		ok = slices.ContainsFunc(strings.Split(test.want, "|"), func(s string) bool { return strings.Contains(resp.err.Error(), s) })
	}
	if !ok {
		t.Errorf("%s: got %v, want %s", name, resp, test.want)
	}
	f, _ := errors.AsType[apnstest.Fault](test.err)
	if d := time.Since(began); resp.err == nil && d != f.Delay {
		t.Errorf("%s: the response took %v, want %v", name, d, f.Delay)
	}
	if want := someTime.UnixMilli(); resp.status == 410 && resp.timestamp != want {
		t.Errorf("%s: got the timestamp %d, want %d", name, resp.timestamp, want)
	}
	outcomes := []apnstest.Outcome{accepted, test.outcome, accepted}
	if test.last {
		outcomes = outcomes[:2]
	}
	if resp := send("3"); (resp.err != nil) != test.last || resp.err == nil && resp.status != 200 {
		t.Errorf("%s: the message after: got %v, want an error: %v", name, resp, test.last)
	}
	var got []apnstest.Outcome
	for _, r := range s.Records() {
		got = append(got, r.Outcome)
	}
	if !slices.Equal(got, outcomes) {
		t.Errorf("%s: got the outcomes %v, want %v", name, got, outcomes)
	}
}

// Retry-After has whole seconds, rounded up.
func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Minute: "60", 1500 * time.Millisecond: "2"} {
		s := start(t, false, func(*apns.Message) error {
			return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
		}, nil)
		resp := request{}.send(t.Context(), connect(t, s, true))
		if got := resp.header.Get("retry-after"); got != want || resp.String() != "429 TooManyRequests" {
			t.Errorf("%v: got %v, Retry-After %q; want 429, %q", after, resp, got, want)
		}
	}
}

// A response does not wait for the end of the frame that the client is sending.
func TestResponseBeforeEndOfFrame(t *testing.T) {
	next := frames(pushFrames(3, "{}")...)
	for n := range next {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(append(frames(pushFrames(1, "{}")...), next[:n]...))
		if f := c.until(headers); f.id != 1 {
			t.Errorf("after %d bytes of the next request: got a response to %d, want 1", n, f.id)
		}
		c.write(next[n:])
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got a response to %d, want 3", f.id)
		}
		c.NetConn().Close()
		s.Close()
	}
}

// A stream that the client resets before a delayed response no longer counts for the
// stream limit.
func TestResetBeforeDelayedResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Second}
		}, func(s *apnstest.Server) { s.StreamLimit = 1 })
		c := dialRaw(t, s, true)
		c.begin()
		c.write(frames(slices.Concat(pushFrames(1, "{}"), []frame{{rst, 0, 1, u32(8)}}, pushFrames(3, "{}"))...))
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got a response to %d, want 3", f.id)
		}
		c.write(frames(frame{rst, 0, 3, u32(8)})) // a stream that has ended
		c.wantPingAck()
		if n := len(s.Messages(apnstest.Accepted)); n != 2 {
			t.Errorf("%d messages were accepted, want 2", n)
		}
	})
}

// The response to a HEAD request has no body (RFC 9110, section 9.3.2).
func TestResponseToHead(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin(frame{headers, endHeaders | endStream, 1, encode(change(":method", "HEAD")...)})
	if f := c.untilStream(1); f.kind != headers || f.flags&endStream == 0 || f.status() != "405" {
		t.Errorf("got %+v, want a response with status 405, and the end of the stream", f)
	}
	c.wantNoFrame("after the response")
}
