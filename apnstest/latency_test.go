package apnstest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Each answer comes after the latency, and the others are not held up.
func TestLatency(t *testing.T) {
	const latency, messages = time.Second, 100
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			switch {
			case strings.HasPrefix(m.Token, "bad0"):
				return apns.ReasonBadDeviceToken
			case strings.HasPrefix(m.Token, "5100"):
				return apnstest.Fault{Err: apns.StatusNoError, Delay: 2 * latency}
			}
			return nil
		}, func(s *apnstest.Server) { s.Latency = latency })
		c := connect(t, s, true)
		began := time.Now()
		var pushes sync.WaitGroup
		push := func(token, want string, after time.Duration) {
			pushes.Go(func() {
				resp := request{path: "/3/device/" + token}.send(t.Context(), c)
				if d := time.Since(began); resp.String() != want || d != after {
					t.Errorf("token %s: got %v after %v, want %s after %v", token, resp, d, want, after)
				}
			})
		}
		for i := range messages {
			push(fmt.Sprintf("%04x", i), "200", latency)
		}
		push("bad0", "400 BadDeviceToken", latency)
		push("5100", "200", 3*latency)
		synctest.Wait()
		if n := len(s.Records()); n != messages+2 || time.Since(began) != 0 {
			t.Errorf("%d messages were recorded after %v, want all at once", n, time.Since(began))
		}
		if n := runtime.NumGoroutine(); n > 4*messages { // net/http needs some for each request
			t.Errorf("there are %d goroutines for %d messages", n, messages)
		}
		time.Sleep(latency / 2)
		push("0001", "200", latency*3/2)
		pushes.Wait()
	})
}

// With a latency, messages in flight end with the server.
func TestLatencyClose(t *testing.T) {
	for _, memory := range []bool{true, false} {
		s := start(t, memory, nil, func(s *apnstest.Server) { s.Latency = time.Hour })
		c := connect(t, s, true)
		var pushes sync.WaitGroup
		for range 10 {
			pushes.Go(func() {
				if resp := (request{}).send(t.Context(), c); resp.err == nil {
					t.Errorf("got %v, want an error", resp)
				}
			})
		}
		if err := s.Wait(t.Context(), 10); err != nil {
			t.Error(err)
		}
		s.Close()
		pushes.Wait()
	}
}

// A client may cancel a message that the server will answer later.
func TestLatencyCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, func(s *apnstest.Server) { s.Latency = time.Second })
		c := connect(t, s, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if resp := (request{}).send(ctx, c); resp.err == nil {
			t.Errorf("got %v, want the deadline", resp)
		}
		began := time.Now()
		if resp := (request{}).send(t.Context(), c); resp.String() != "200" || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want 200 after 1s", resp, time.Since(began))
		}
	})
}

// A GOAWAY that excludes a message is sent after the answers to those before it.
func TestLatencyGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			if m.Token == "0003" {
				return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}
			}
			return nil
		}, func(s *apnstest.Server) { s.Latency = time.Second })
		c := connect(t, s, true)
		var pushes sync.WaitGroup
		for i := 1; i <= 3; i++ {
			pushes.Go(func() {
				resp := request{path: fmt.Sprintf("/3/device/%04d", i)}.send(t.Context(), c)
				if ok := resp.String() == "200"; ok != (i < 3) {
					t.Errorf("message %d: got %v", i, resp)
				}
			})
			synctest.Wait()
		}
		pushes.Wait()
	})
}

// With a provider token the stream limit rises when the first message is answered.
func TestLatencyFirstToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, func(s *apnstest.Server) { s.Latency = time.Second })
		client := &apns.Client{Addr: "api.push.apple.com:443", Config: s.TokenConfig(), MaxConns: 1}
		defer client.Close()
		began := time.Now()
		var pushes sync.WaitGroup
		for range 20 {
			pushes.Go(func() {
				if _, err := client.Push(t.Context(), &apns.Message{Token: token, Payload: []byte(alertPayload)}); err != nil {
					t.Error(err)
				}
			})
		}
		pushes.Wait()
		if d := time.Since(began); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("20 messages took %v, want two answers after each other", d)
		}
	})
}

// On the binary protocol a rejection comes late, and what follows the message is discarded.
func TestLatencyBinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			if m.ID == 2 {
				return apns.StatusInvalidToken
			}
			return nil
		}, func(s *apnstest.Server) { s.Latency = time.Second })
		c := open(t, s, "2195")
		began := time.Now()
		if _, err := c.Write(build(t, message(1), message(2), message(3))); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context(), 3); err != nil || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want the records at once", err, time.Since(began))
		}
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if want := []byte{8, 8, 0, 0, 0, 2}; !bytes.Equal(got, want) || err != nil || time.Since(began) != time.Second {
			t.Errorf("got % x, %v after %v; want % x after 1s", got, err, time.Since(began), want)
		}
		if n := s.Count(apnstest.Discarded); n != 1 {
			t.Errorf("%d messages were discarded, want 1", n)
		}
	})
}
