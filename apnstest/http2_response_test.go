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

// What a handler returns, and what comes of it over HTTP/2 and in the records.
func TestProviderVerdicts(t *testing.T) {
	const accepted, refused, discarded = apnstest.Accepted, apnstest.Rejected, apnstest.Discarded
	type fault = apnstest.Fault
	deadAt := time.Unix(1700000000, 0)
	for name, test := range map[string]struct {
		err     error
		want    string // of the answer, or a part of the error
		outcome apnstest.Outcome
		last    bool // the connection takes no more
	}{
		"nil":                   {nil, "200", accepted, false},
		"no error":              {apns.StatusNoError, "200", accepted, false},
		"reason":                {apns.ReasonTooManyRequests, "429 TooManyRequests", refused, false},
		"wrapped":               {fmt.Errorf("because: %w", apns.ReasonServiceUnavailable), "503 ServiceUnavailable", refused, false},
		"unknown reason":        {apns.Reason("MoonPhase"), "400 MoonPhase", refused, false},
		"shutdown, the reason":  {apns.ReasonShutdown, "503 Shutdown", refused, false},
		"shutdown":              {apns.StatusShutdown, "200", accepted, true},
		"shutdown, another ID":  {&apns.PushError{ID: 3, Status: apns.StatusShutdown}, "503 Shutdown", refused, false},
		"any other":             {errors.New("boom"), "500 InternalServerError", refused, false},
		"unknown status":        {apns.Status(99), "500 InternalServerError", refused, false},
		"status 8":              {apns.StatusInvalidToken, "400 BadDeviceToken", refused, false},
		"push error":            {&apns.PushError{HTTPStatus: 418, Reason: "Teapot"}, "418 Teapot", refused, false},
		"push error, bare":      {&apns.PushError{HTTPStatus: 502}, "502", refused, false},
		"push error of reason":  {&apns.PushError{Reason: apns.ReasonTooManyRequests}, "429 TooManyRequests", refused, false},
		"push error, 410":       {&apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt}, "410 Unregistered", refused, false},
		"push error of status":  {&apns.PushError{ID: 9, Status: apns.StatusMissingTopic}, "400 MissingTopic", refused, false},
		"fault":                 {fault{Err: apns.ReasonTooManyRequests}, "429 TooManyRequests", refused, false},
		"fault, accepted":       {fault{Err: apns.StatusNoError}, "200", accepted, false},
		"together":              {fault{Err: apns.StatusInvalidToken, End: apnstest.EndOneSegment}, "400 BadDeviceToken", refused, false},
		"no answer":             {fault{}, "deadline", discarded, false},
		"stall":                 {fault{End: apnstest.EndSilence}, "deadline", discarded, false},
		"stall, accepted":       {fault{End: apnstest.EndSilence, Err: apns.StatusNoError}, "deadline", accepted, false},
		"reset":                 {fault{End: apnstest.EndRST}, "; CANCEL", discarded, false},
		"reset, accepted":       {fault{End: apnstest.EndRST, Err: apns.StatusNoError}, "; CANCEL", accepted, false},
		"refuse":                {fault{End: apnstest.EndRefusedStream}, "REFUSED_STREAM", discarded, false},
		"refuse, accepted":      {fault{End: apnstest.EndRefusedStream, Err: apns.StatusNoError}, "REFUSED_STREAM", discarded, false},
		"close":                 {fault{End: apnstest.EndFINThenRST}, "EOF|reset", discarded, true},
		"bare":                  {fault{End: apnstest.EndFIN}, "EOF|reset", discarded, true},
		"goaway":                {fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonIdleTimeout}, "200", accepted, true},
		"goaway, refused":       {fault{End: apnstest.EndGoAway, Err: apns.ReasonBadTopic}, "400 BadTopic", refused, true},
		"goaway now":            {fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"goaway now, late":      {fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown, Delay: time.Second}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"goaway now, no reason": {fault{End: apnstest.EndGoAwayUnprocessed, Err: apns.StatusNoError}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"late":                  {fault{Err: apns.ReasonBadTopic, Delay: 5 * time.Second}, "400 BadTopic", refused, false},
		"late goaway":           {fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Delay: 5 * time.Second}, "200", accepted, true},
		"late close":            {fault{End: apnstest.EndFINThenRST, Delay: 5 * time.Second}, "EOF|reset", discarded, true},
		"late reset":            {fault{End: apnstest.EndRST, Delay: 5 * time.Second}, "; CANCEL", discarded, false},
		"too late":              {fault{Err: apns.ReasonBadTopic, Delay: time.Hour}, "deadline", refused, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(m *apns.Message) error {
				if m.CollapseID == "2" {
					return test.err
				}
				return nil
			}, nil)
			c := connect(t, s, true)
			send := func(id string) answer {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				a := request{header: map[string]string{"apns-collapse-id": id}}.send(ctx, c)
				synctest.Wait()
				return a
			}
			if a := send("1"); a.String() != "200" {
				t.Fatalf("%s: the message before: got %v, want 200", name, a)
			}
			began := time.Now()
			a := send("2")
			ok := a.String() == test.want
			if a.err != nil {
				ok = slices.ContainsFunc(strings.Split(test.want, "|"), func(s string) bool { return strings.Contains(a.err.Error(), s) })
			}
			if !ok {
				t.Errorf("%s: got %v, want %s", name, a, test.want)
			}
			f, _ := errors.AsType[apnstest.Fault](test.err)
			if d := time.Since(began); a.err == nil && d != f.Delay {
				t.Errorf("%s: the answer took %v, want %v", name, d, f.Delay)
			}
			if want := deadAt.UnixMilli(); a.status == 410 && a.timestamp != want {
				t.Errorf("%s: got the timestamp %d, want %d", name, a.timestamp, want)
			}
			outcomes := []apnstest.Outcome{accepted, test.outcome, accepted}
			if test.last {
				outcomes = outcomes[:2]
			}
			if a := send("3"); (a.err != nil) != test.last || a.err == nil && a.status != 200 {
				t.Errorf("%s: the message after: got %v, want an error: %v", name, a, test.last)
			}
			var got []apnstest.Outcome
			for _, r := range s.Records() {
				got = append(got, r.Outcome)
			}
			if !slices.Equal(got, outcomes) {
				t.Errorf("%s: got the outcomes %v, want %v", name, got, outcomes)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Minute: "60", 1500 * time.Millisecond: "2"} {
		s := start(t, false, func(*apns.Message) error {
			return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
		}, nil)
		a := request{}.send(t.Context(), connect(t, s, true))
		if got := a.header.Get("retry-after"); got != want || a.String() != "429 TooManyRequests" {
			t.Errorf("%v: got %v, Retry-After %q; want 429, %q", after, a, got, want)
		}
	}
}

// An answer does not wait for the rest of what the client says.
func TestAnswerAmidAFrame(t *testing.T) {
	next := frames(pushFrames(3, "{}")...)
	for n := range next {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(append(frames(pushFrames(1, "{}")...), next[:n]...))
		if f := c.until(headers); f.id != 1 {
			t.Errorf("after %d bytes of the next: got an answer to %d, want 1", n, f.id)
		}
		c.write(next[n:])
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got an answer to %d, want 3", f.id)
		}
		c.NetConn().Close()
		s.Close()
	}
}

// A client that gives up on a late answer has its stream back.
func TestResetOfALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Second}
		}, func(s *apnstest.Server) { s.StreamLimit = 1 })
		c := dialRaw(t, s, true)
		c.begin()
		c.write(frames(slices.Concat(pushFrames(1, "{}"), []frame{{rst, 0, 1, u32(8)}}, pushFrames(3, "{}"))...))
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got an answer to %d, want 3", f.id)
		}
		c.write(frames(frame{rst, 0, 3, u32(8)})) // of one that is over
		c.alive()
		if n := len(s.Messages(apnstest.Accepted)); n != 2 {
			t.Errorf("%d messages were accepted, want 2", n)
		}
	})
}
