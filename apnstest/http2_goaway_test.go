package apnstest_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// GOAWAYs, and what they say of the messages that are on their way.
func TestGoAwayFrames(t *testing.T) {
	late := apnstest.Fault{Err: apns.StatusNoError, Delay: time.Minute}
	stall := apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence, Delay: time.Hour}
	now := apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
	graceful := apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonShutdown}
	lateNow := now
	lateNow.Delay = time.Second
	for name, test := range map[string]struct {
		errs     map[string]error // by the collapse ID, which is the stream's number
		last     []uint32         // of the GOAWAYs
		answered []uint32
		records  int
	}{
		"now":                {map[string]error{"3": now}, []uint32{1}, []uint32{1}, 2},
		"now, first":         {map[string]error{"1": now}, []uint32{0}, nil, 1},
		"now, a late one":    {map[string]error{"1": late, "3": now}, []uint32{1}, []uint32{1}, 2},
		"now, a stalled one": {map[string]error{"1": stall, "5": now}, []uint32{3}, []uint32{3}, 3},
		"graceful":           {map[string]error{"3": graceful}, []uint32{3}, []uint32{1, 3}, 2},
		"graceful, late":     {map[string]error{"1": late, "3": graceful}, []uint32{3}, []uint32{3, 1}, 2},
		"graceful, then now": {map[string]error{"1": lateNow, "3": graceful, "5": late}, []uint32{3, 0}, []uint32{3}, 2},
		"shutdown":           {map[string]error{"1": late, "3": apns.StatusShutdown}, []uint32{3}, []uint32{3, 1}, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(m *apns.Message) error { return test.errs[m.CollapseID] }, nil)
			c := dialRaw(t, s, true)
			c.SetDeadline(time.Time{})
			c.begin()
			var fs []frame
			for id := uint32(1); id < 10; id += 2 {
				fs = append(fs, pushFrames(id, "{}", "apns-collapse-id", fmt.Sprint(id))...)
			}
			c.write(frames(fs...))
			var last, answered []uint32
			for {
				f, err := c.next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					break
				}
				switch f.kind {
				case goAway:
					last = append(last, binary.BigEndian.Uint32(f.payload))
					if got := string(f.payload[8:]); got != `{"reason":"Shutdown"}` {
						t.Errorf("%s: the GOAWAY says %s, want the reason", name, got)
					}
				case headers:
					answered = append(answered, f.id)
				}
			}
			if !slices.Equal(last, test.last) || !slices.Equal(answered, test.answered) {
				t.Errorf("%s: got GOAWAYs %d and answers to %d, want %d and %d", name, last, answered, test.last, test.answered)
			}
			if n := len(s.Records()); n != test.records {
				t.Errorf("%s: got %d records, want %d", name, n, test.records)
			}
			began := time.Now()
			c.Close()
			s.Close()
			if d := time.Since(began); d > 0 {
				t.Errorf("%s: Close took %v, want nothing", name, d)
			}
		})
	}
}

// A GOAWAY that comes while a message is decided about does not deny it.
func TestGoAwayWhileDeciding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			if m.CollapseID == "1" {
				return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Delay: time.Second}
			}
			time.Sleep(time.Minute)
			return nil
		}, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(frames(append(pushFrames(1, "{}", "apns-collapse-id", "1"), pushFrames(3, "{}")...)...))
		if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 3 {
			t.Errorf("got %+v, want a last stream of 3", f)
		}
		time.Sleep(time.Hour)
		if n := len(s.Messages(apnstest.Accepted)); n != 1 {
			t.Errorf("%d messages were accepted, want 1", n)
		}
	})
}

// What comes on streams that a GOAWAY has denied is dropped, and yet counts for
// the header table.
func TestFramesAfterGoAway(t *testing.T) {
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "stall" {
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
		}
		return apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError}
	}, nil)
	c := dialRaw(t, s, true)
	c.begin()
	c.write(appendData(appendHeaders(nil, 1, 0, with("apns-collapse-id", "stall")...), 1, h2.FlagEndStream, "{}"))
	c.write(appendPush(nil, 3))
	c.until(goAway)
	c.of(3)
	b := appendPush(nil, 5)
	b = appendHeaders(b, 7, 0, "X", "y")
	b = appendHeaders(b, 7, h2.FlagEndStream, "x", "y")
	b = h2.AppendRSTStream(b, 7, h2.CodeCancel)
	c.write(b)
	c.quiet("after the GOAWAY")
	c.write(appendData(nil, 9, 0, ""))
	c.wantGoAway("DATA of stream 9, which is idle", h2.CodeProtocol, 3)
	if n := len(s.Records()); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

// OnConnect over HTTP/2: the reason is in a GOAWAY.
func TestOnConnectHTTP2(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		want  string // "": no GOAWAY
		delay time.Duration
	}{
		"reason":      {apns.ReasonBadCertificate, `{"reason":"BadCertificate"}`, 0},
		"shutdown":    {apns.StatusShutdown, `{"reason":"Shutdown"}`, 0},
		"other":       {errors.New("boom"), `{"reason":"InternalServerError"}`, 0},
		"late":        {apnstest.Fault{Err: apns.ReasonIdleTimeout, Delay: time.Hour}, `{"reason":"IdleTimeout"}`, time.Hour},
		"goaway":      {apnstest.Fault{End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}, `{"reason":"Shutdown"}`, 0},
		"nothing":     {apnstest.Fault{}, "", 0},
		"no error":    {apnstest.Fault{Err: apns.StatusNoError}, "", 0},
		"bare ending": {apnstest.Fault{Err: apns.ReasonShutdown, End: apnstest.EndFIN}, `{"reason":"Shutdown"}`, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, func(s *apnstest.Server) {
				s.OnConnect = func(port int, _ tls.ConnectionState) error {
					if port != apns.ProviderPort {
						t.Errorf("got the port %d", port)
					}
					return test.err
				}
			})
			c := dialRaw(t, s, true)
			c.SetDeadline(time.Time{})
			began := time.Now()
			c.write(append([]byte(preface), frames(pushFrames(1, "{}")...)...))
			got := ""
			for {
				f, err := c.next()
				if err != nil {
					if err != io.EOF {
						t.Errorf("%s: %v", name, err)
					}
					break
				}
				if f.kind == goAway {
					got = string(f.payload[8:])
				}
			}
			if d := time.Since(began); got != test.want || d != test.delay || len(s.Records()) != 0 {
				t.Errorf("%s: got %q after %v, %d records; want %q after %v, none", name, got, d, len(s.Records()), test.want, test.delay)
			}
		})
	}
}
