package apns_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A gateway that never answers the barrier, or that does not read, leaves the
// messages in doubt when their time is over, and nobody hangs.
func TestClientTimeout(t *testing.T) {
	for name, set := range map[string]func(*apnstest.Server){
		"no answer": func(s *apnstest.Server) { s.Barrier = apns.StatusNoError },
		"no end":    func(s *apnstest.Server) { s.Barrier = apnstest.Fault{End: apnstest.EndSilence} },
		"does not read": func(s *apnstest.Server) {
			s.BufferSize = 1000
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = 40 * time.Second
				s := inMemory(t, nil, set)
				c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
				start := time.Now()
				_, err := c.Push(t.Context(), numberedMessage(1))
				wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
				wantTook(t, start, timeout, timeout+timeout/4)

				start = time.Now()
				got := collect(t, c.PushAll(t.Context(), messagesFrom(1001, 1500)))
				wantTook(t, start, timeout-timeout/4, timeout+timeout/4)
				sum := got.check(t, s)
				if len(got) != 500 || sum.InDoubt == 0 || sum.InDoubt+sum.NotSent != 500 || name != "does not read" && sum.NotSent > 0 {
					t.Errorf("got %+v, want 500 in doubt", sum)
				}
				start = time.Now()
				c.Close()
				wantTook(t, start, 0, time.Second)
				wantStats(t, c, balance{InDoubt: 1 + sum.InDoubt, NotSent: sum.NotSent})
			})
		})
	}
}

// Timeout is each message's, also while there is no connection: those of a PushAll
// wait for it together, whether or not there was a connection before.
func TestClientTimeoutWhileDialing(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const timeout = 40 * time.Second
			s := inMemory(t, nil)
			c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
			if before {
				if _, err := c.Push(t.Context(), numberedMessage(100)); err != nil {
					t.Error(err)
				}
			}
			s.RefuseConnections(true)
			start := time.Now()
			got := collect(t, c.PushAll(t.Context(), messagesFrom(1, 10)))
			wantOutcome(t, s, got, balance{NotSent: 10})
			wantTook(t, start, timeout-timeout/4, timeout+timeout/4)
			for id, err := range got {
				wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
				if !strings.Contains(fmt.Sprint(err), "connection refused") {
					t.Errorf("connected before %v: message %d: got %v, want one that says connection refused as well", before, id, err)
				}
			}
		})
	}
}

// A message has its Timeout from when it was handed over, also if it waits for the
// first connection, and then for an answer.
func TestClientTimeoutAfterDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = apns.StatusNoError })
		dial := s.Config().DialContext
		c := newClient(t, s, func(c *apns.Client) {
			c.Timeout = timeout
			c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				time.Sleep(timeout / 2)
				return dial(ctx, network, addr)
			}
		})
		msgs := func(yield func(*apns.Message) bool) {
			for m := range messagesFrom(1, 10) {
				if time.Sleep(time.Second); !yield(m) {
					return
				}
			}
		}
		start, got := time.Now(), 0
		for r := range c.PushAll(t.Context(), msgs) {
			got++
			handed := start.Add(time.Duration(numberOf(r.Message)) * time.Second)
			wantErr(t, r.Err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, handed, timeout, timeout+timeout/4)
		}
		if got != 10 {
			t.Errorf("got %d results, want 10", got)
		}
	})
}

// Also if it comes while the gateway does not read.
func TestClientTimeoutWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.BufferSize = 1000
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
		})
		c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
		msgs := func(yield func(*apns.Message) bool) {
			for m := range messagesFrom(1, 50) { // more than there is room for
				m.Payload = apns.AlertPayload(strings.Repeat("x", 1500))
				if !yield(m) {
					return
				}
			}
			for m := range messagesFrom(51, 60) {
				if time.Sleep(3 * time.Second); !yield(m) {
					return
				}
			}
			time.Sleep(time.Hour)
		}
		start, got := time.Now(), 0
		for r := range c.PushAll(t.Context(), msgs) {
			got++
			handed := start.Add(time.Duration(max(0, int(numberOf(r.Message))-50)) * 3 * time.Second)
			if r.Err == nil {
				t.Errorf("message %d: accepted", r.Message.ID)
			}
			if numberOf(r.Message) > 50 {
				wantTook(t, handed, timeout-timeout/4, timeout+timeout/4)
			}
		}
		if got != 60 {
			t.Errorf("got %d results, want 60", got)
		}
	})
}
