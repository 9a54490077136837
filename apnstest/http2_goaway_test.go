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

// A goAwayTest sends five messages, on the streams 1 to 9, and checks the GOAWAYs.
type goAwayTest struct {
	errs      map[string]error // what the handler returns, by the number of the stream
	last      []uint32         // the last streams of the GOAWAYs
	responses []uint32         // the streams with a response, in order
	records   int
}

func goAwayTests() map[string]goAwayTest {
	delayed := apnstest.Fault{Err: apns.StatusNoError, Delay: time.Minute}
	silence := apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence, Delay: time.Hour}
	unprocessed := apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
	delayedUnprocessed := unprocessed
	delayedUnprocessed.Delay = time.Second
	graceful := apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonShutdown}
	return map[string]goAwayTest{
		"unprocessed":                {map[string]error{"3": unprocessed}, []uint32{1}, []uint32{1}, 2},
		"unprocessed, first":         {map[string]error{"1": unprocessed}, []uint32{0}, nil, 1},
		"unprocessed, a delayed one": {map[string]error{"1": delayed, "3": unprocessed}, []uint32{1}, []uint32{1}, 2},
		"unprocessed, a silent one":  {map[string]error{"1": silence, "5": unprocessed}, []uint32{3}, []uint32{3}, 3},
		"graceful":                   {map[string]error{"3": graceful}, []uint32{3}, []uint32{1, 3}, 2},
		"graceful, a delayed one":    {map[string]error{"1": delayed, "3": graceful}, []uint32{3}, []uint32{3, 1}, 2},
		"graceful, then unprocessed": {map[string]error{"1": delayedUnprocessed, "3": graceful, "5": delayed}, []uint32{3, 0}, []uint32{3}, 2},
		"shutdown":                   {map[string]error{"1": delayed, "3": apns.StatusShutdown}, []uint32{3}, []uint32{3, 1}, 2},
	}
}

// The last stream of a GOAWAY tells the client which messages in flight were not processed.
func TestGoAwayFrames(t *testing.T) {
	for name, test := range goAwayTests() {
		synctest.Test(t, func(t *testing.T) { testGoAway(t, name, test) })
	}
}

func testGoAway(t *testing.T, name string, test goAwayTest) {
	s := start(t, true, func(m *apns.Message) error { return test.errs[m.CollapseID] }, nil)
	c := dialRaw(t, s, true)
	c.SetDeadline(time.Time{})
	c.begin()
	var fs []frame
	for id := uint32(1); id < 10; id += 2 {
		fs = append(fs, pushFrames(id, "{}", "apns-collapse-id", fmt.Sprint(id))...)
	}
	c.write(frames(fs...))
	var last, responses []uint32
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
				t.Errorf("%s: the GOAWAY has %s, want the reason", name, got)
			}
		case headers:
			responses = append(responses, f.id)
		}
	}
	if !slices.Equal(last, test.last) || !slices.Equal(responses, test.responses) {
		t.Errorf("%s: got GOAWAYs %d and responses to %d, want %d and %d", name, last, responses, test.last, test.responses)
	}
	if n := len(s.Records()); n != test.records {
		t.Errorf("%s: got %d records, want %d", name, n, test.records)
	}
	began := time.Now()
	c.Close()
	s.Close()
	if d := time.Since(began); d > 0 {
		t.Errorf("%s: Close took %v, want 0s", name, d)
	}
}

// A GOAWAY that is sent during a call of the handler includes the message of that call.
func TestGoAwayDuringHandler(t *testing.T) {
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

// Frames of streams after the last stream of a GOAWAY are ignored, but their header blocks
// count for the header table.
func TestFramesAfterGoAway(t *testing.T) {
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "silence" {
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
		}
		return apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError}
	}, nil)
	c := dialRaw(t, s, true)
	c.begin()
	c.write(appendData(appendHeaders(nil, 1, 0, with("apns-collapse-id", "silence")...), 1, h2.FlagEndStream, "{}"))
	c.write(appendPush(nil, 3))
	c.until(goAway)
	c.untilStream(3)
	b := appendPush(nil, 5)
	b = appendHeaders(b, 7, 0, "X", "y")
	b = appendHeaders(b, 7, h2.FlagEndStream, "x", "y")
	b = h2.AppendRSTStream(b, 7, h2.CodeCancel)
	c.write(b)
	c.wantNoFrame("after the GOAWAY")
	c.write(appendData(nil, 9, 0, ""))
	c.wantGoAway("DATA of stream 9, which is idle", h2.CodeProtocol, 3)
	if n := len(s.Records()); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

// Over HTTP/2 the reason of an error from OnConnect is sent in a GOAWAY.
func TestOnConnectHTTP2(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		want  string // "": no GOAWAY
		delay time.Duration
	}{
		"reason":      {apns.ReasonBadCertificate, `{"reason":"BadCertificate"}`, 0},
		"shutdown":    {apns.StatusShutdown, `{"reason":"Shutdown"}`, 0},
		"other error": {errors.New("boom"), `{"reason":"InternalServerError"}`, 0},
		"delayed":     {apnstest.Fault{Err: apns.ReasonIdleTimeout, Delay: time.Hour}, `{"reason":"IdleTimeout"}`, time.Hour},
		"GOAWAY":      {apnstest.Fault{End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}, `{"reason":"Shutdown"}`, 0},
		"zero fault":  {apnstest.Fault{}, "", 0},
		"no error":    {apnstest.Fault{Err: apns.StatusNoError}, "", 0},
		"FIN":         {apnstest.Fault{Err: apns.ReasonShutdown, End: apnstest.EndFIN}, `{"reason":"Shutdown"}`, 0},
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
