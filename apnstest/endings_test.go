package apnstest_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
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

// Close, whatever is going on.
func TestCloseAmidHTTP2(t *testing.T) {
	for _, memory := range []bool{true, false} {
		run := func(t *testing.T) {
			deaf := make(chan struct{})
			s := start(t, memory, func(m *apns.Message) error {
				switch m.CollapseID {
				case "late":
					return apnstest.Fault{Err: apns.ReasonBadTopic, Delay: time.Hour}
				case "stall":
					return apnstest.Fault{End: apnstest.EndSilence}
				case "end":
					close(deaf)
				}
				return apns.ReasonBadTopic
			}, func(s *apnstest.Server) { s.BufferSize = 4 << 10 })
			late := dialRaw(t, s, true)
			late.begin()
			late.write(frames(append(pushFrames(1, "{}", "apns-collapse-id", "late"), pushFrames(3, "{}", "apns-collapse-id", "stall")...)...))
			half := dialRaw(t, s, true)
			half.begin()
			half.write(frames(frame{headers, 0, 1, pushBlock()}))
			blocked := dialRaw(t, s, true)
			blocked.begin(setting(4, 0))
			blocked.write(frames(pushFrames(1, "{}", "apns-collapse-id", "end")...))
			<-deaf
			// One that writes and never reads.
			pinging := dialRaw(t, s, true)
			pinging.begin()
			var writing sync.WaitGroup
			writing.Go(func() {
				pings := bytes.Repeat(frames(frame{ping, 0, 0, make([]byte, 8)}), 100)
				for {
					if _, err := pinging.Write(pings); err != nil {
						return
					}
					time.Sleep(time.Microsecond) // or the bubble's time stands still
				}
			})
			if err := s.Wait(t.Context(), 3); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond)
			began := time.Now()
			s.Close()
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("Close took %v", d)
			}
			writing.Wait()
		}
		if memory {
			synctest.Test(t, run)
		} else {
			run(t)
		}
	}
}
