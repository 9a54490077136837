package apnstest_test

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// With provider tokens a connection may have one stream until the first message is accepted.
// The source is "Sending notification requests to APNs".
func TestStreamLimitOfTokens(t *testing.T) {
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "bad" {
			return apns.ReasonBadTopic
		}
		return nil
	}, func(s *apnstest.Server) { s.StreamLimit = 7 })
	c := dialRaw(t, s, false)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	if got := c.until(settings).maxStreams(); got != 1 {
		t.Errorf("with provider tokens: got a limit of %d, want 1", got)
	}
	c.write(frames(frame{settings, endStream, 0, nil}))
	s.SetStreamLimit(9) // announced after the first message is accepted
	bearer := jwt{}.sign(t, s)
	for i, more := range [][]string{
		{"authorization", jwt{der: true}.sign(t, s), "apns-topic", "t"},
		{"authorization", bearer, "apns-topic", "t", "apns-collapse-id", "bad"},
	} {
		c.write(frames(pushFrames(uint32(2*i+1), "{}", more...)...))
		if f, err := c.next(); err != nil || f.kind == settings && f.flags == 0 {
			t.Errorf("before an accepted one: got %+v, %v", f, err)
		}
		c.until(data)
	}
	c.write(frames(pushFrames(5, "{}", "authorization", bearer, "apns-topic", "t")...))
	if got := c.until(settings).maxStreams(); got != 9 {
		t.Errorf("after an accepted one: got a limit of %d, want 9", got)
	}
	if got := c.until(headers).status(); got != "200" {
		t.Errorf("got the status %s, want 200", got)
	}
	// A client may use a higher limit before it acknowledges it.
	c.write(frames(frame{headers, endHeaders, 7, pushBlock()}, frame{headers, endHeaders, 9, pushBlock()}))
	c.wantPingAck()

	c = dialRaw(t, s, false)
	c.begin()
	c.write(frames(frame{headers, endHeaders, 1, pushBlock()}, frame{headers, endHeaders, 3, pushBlock()}))
	f := c.until(goAway)
	if last, code := binary.BigEndian.Uint32(f.payload), binary.BigEndian.Uint32(f.payload[4:]); last != 0 || code != 11 || string(f.payload[8:]) != "Maximum active streams violated" {
		t.Errorf("two streams: got a GOAWAY with code %d, last stream %d, %s", code, last, f.payload[8:])
	}

	// With a certificate the full limit is announced at once.
	c = dialRaw(t, s, true)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	if got := c.until(settings).maxStreams(); got != 9 {
		t.Errorf("with a certificate: got a limit of %d, want 9", got)
	}
}

// A lower limit holds from the client's acknowledgement on, and for new streams only.
func TestSetStreamLimit(t *testing.T) {
	s := start(t, false, func(*apns.Message) error { return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence} }, nil)
	c := dialRaw(t, s, true)
	c.begin()
	for id := uint32(1); id < 10; id += 2 {
		c.write(frames(pushFrames(id, "{}")...))
	}
	s.SetStreamLimit(2)
	if got := c.until(settings).maxStreams(); got != 2 {
		t.Errorf("got a limit of %d, want 2", got)
	}
	c.write(frames(pushFrames(11, "{}")...)) // the limit is not acknowledged
	c.wantPingAck()
	c.write(frames(frame{settings, endStream, 0, nil}))
	c.wantPingAck()
	for id := uint32(1); id < 10; id += 2 {
		c.write(frames(frame{rst, 0, id, u32(8)}))
	}
	c.write(frames(pushFrames(13, "{}")...))
	c.wantPingAck()
	s.SetStreamLimit(3)
	if got := c.until(settings).maxStreams(); got != 3 {
		t.Errorf("got a limit of %d, want 3", got)
	}
	c.write(frames(append([]frame{{settings, endStream, 0, nil}}, pushFrames(15, "{}")...)...))
	c.wantPingAck()
	c.write(frames(pushFrames(17, "{}")...))
	if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 15 || binary.BigEndian.Uint32(f.payload[4:]) != 11 {
		t.Errorf("got the GOAWAY %+v, want ENHANCE_YOUR_CALM and stream 15", f)
	}
	if n := len(s.Messages(apnstest.Accepted)); n != 8 {
		t.Errorf("%d messages were accepted, want 8", n)
	}
}

// The stream limit can be 0.
func TestStreamLimitZero(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	c.wantAccepted("at first", 1)
	s.SetStreamLimit(0)
	if got := c.until(settings).maxStreams(); got != 0 {
		t.Errorf("got a limit of %d, want 0", got)
	}
	c.wantAccepted("before the acknowledgement", 3)
	c.write(h2.AppendSettingsAck(nil))
	s.SetStreamLimit(0) // no change
	c.wantNoFrame("the same limit")
	s.SetStreamLimit(2)
	if got := c.until(settings).maxStreams(); got != 2 {
		t.Errorf("got a limit of %d, want 2", got)
	}
	c.write(h2.AppendSettingsAck(nil))
	c.wantAccepted("with another limit", 5)
	s.SetStreamLimit(0)
	c.until(settings)
	c.write(h2.AppendSettingsAck(nil))
	c.write(appendHeaders(nil, 7, 0, good...))
	if f := c.until(goAway); h2.Code(f.payload[7]) != h2.CodeEnhanceYourCalm {
		t.Errorf("got the GOAWAY %+v, want ENHANCE_YOUR_CALM", f)
	}

	// With provider tokens a limit of 0 holds as well. A higher one is announced as 1.
	s.SetStreamLimit(0)
	c = dialRaw(t, s, false)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	if got := c.until(settings).maxStreams(); got != 0 {
		t.Errorf("with provider tokens: got a limit of %d, want 0", got)
	}
	s.SetStreamLimit(5)
	if got := c.until(settings).maxStreams(); got != 1 {
		t.Errorf("with provider tokens, later: got a limit of %d, want 1", got)
	}
}

// The limit can change while a client that obeys it sends. (That of net/http does not: it may
// begin one more stream after it has acknowledged a lower limit.)
func TestStreamLimitUnderLoad(t *testing.T) {
	s := start(t, false, nil, nil)
	conn, err := apns.Dial(t.Context(), s.HTTP2Addr, s.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				m := &apns.Message{Token: "c0ffee", Topic: apnstest.BundleID, Payload: apns.AlertPayload("Hello")}
				if err := conn.WritePushMsg(ctx, m); err != nil {
					t.Errorf("got %v, want accepted", err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			if n := len(s.Messages(apnstest.Accepted)); n != 1000 {
				t.Errorf("%d messages were accepted, want 1000", n)
			}
			return
		case <-time.After(time.Millisecond):
			s.SetStreamLimit([]int{1, 2, 100}[i%3])
		}
	}
}

// A client that begins more requests than the limit, and completes none, is disconnected.
func TestStreamLimitExceeded(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	var b []byte
	for i := range uint32(1001) {
		b = frame{headers, endHeaders, 2*i + 1, pushBlock()}.append(b)
	}
	c.write(b)
	if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 0 || binary.BigEndian.Uint32(f.payload[4:]) != 11 {
		t.Errorf("got the GOAWAY %+v, want ENHANCE_YOUR_CALM and that nothing was processed", f)
	}
	if n := len(s.Records()); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}
