package apns_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// MaxInFlight holds over all connections and callers: however many push at a time, the
// server has no more messages without an answer, and all are accepted.
func TestMaxInFlight(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 100} {
		for _, streams := range []int{1, 5, 1000} {
			t.Run(fmt.Sprintf("MaxInFlight %d, %d streams", limit, streams), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testMaxInFlight(t, limit, streams) })
			})
		}
	}
}

func testMaxInFlight(t *testing.T, limit, streams int) {
	server := roundTrip{takes: 50 * time.Millisecond}
	network := newNetwork(inMemory(t, server.handle, func(s *apnstest.Server) { s.StreamLimit = streams }))
	c := network.client(t, func(c *apns.Client) { c.MaxInFlight, c.Timeout = limit, time.Hour })
	const each = 150
	stop := make(chan struct{})
	var callers, watching sync.WaitGroup
	for range 2 {
		callers.Go(func() {
			for r := range c.PushAll(t.Context(), devices(each)) {
				wantClass(t, r.Err, "accepted")
			}
		})
	}
	callers.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, each)) })
	watching.Go(func() {
		for {
			if s := c.Stats(); s.InFlight > uint64(limit) {
				t.Errorf("Stats are %+v, want at most %d in flight", s, limit)
			}
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
		}
	})
	callers.Wait()
	close(stop)
	watching.Wait()
	if got := server.most.Load(); got > int64(limit) || got == 0 {
		t.Errorf("the server had up to %d messages without an answer, want at most %d", got, limit)
	}
	if got := c.Stats().Accepted; got != 3*each {
		t.Errorf("%d messages were accepted, want %d", got, 3*each)
	}
	if limit <= streams && network.dialed() != 1 {
		t.Errorf("%d dials, want 1: the limit of the Client keeps the messages waiting", network.dialed())
	}
}

// On the binary protocol a message is in flight until a barrier has confirmed it. Here the
// answers to barriers take their time.
func TestMaxInFlightBinary(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 100} {
		t.Run(fmt.Sprintf("MaxInFlight %d", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var most atomic.Uint64
				var c *apns.Client
				answer := onNumber(40, apns.StatusInvalidToken)
				server := inMemory(t, func(m *apns.Message) error {
					most.Store(max(most.Load(), c.Stats().InFlight))
					return answer(m)
				}, func(s *apnstest.Server) {
					s.Barrier = apnstest.Fault{Err: apns.StatusMissingToken, Delay: 100 * time.Millisecond}
				})
				network := newNetwork(server)
				network.protocol = ""
				c = network.client(t, func(c *apns.Client) { c.MaxInFlight, c.Timeout = limit, time.Hour })
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for r := range c.PushAll(t.Context(), devices(100)) {
							if (r.Err == nil) == (r.Message.ID == 40) {
								t.Errorf("message %d: got %v", r.Message.ID, r.Err)
							}
						}
					})
				}
				for i := range 20 {
					wg.Go(func() {
						_, err := c.Push(t.Context(), device(100+i))
						wantClass(t, err, "accepted")
					})
				}
				wg.Wait()
				if got := most.Load(); got > uint64(limit) || got == 0 {
					t.Errorf("up to %d messages were in flight, want at most %d", got, limit)
				}
				if got := c.Stats().Accepted; got != 218 {
					t.Errorf("%d messages were accepted, want 218", got)
				}
			})
		})
	}
}

// PushAll takes from msgs at most MaxInFlight messages that have no result, and as many
// again, or 1,024 if that is less.
func TestPushAllTakesNoMore(t *testing.T) {
	for _, limit := range []int{1, 10, 1000, 1024, 3000} {
		for _, protocol := range []string{"h2", ""} {
			for name, answer := range map[string]error{"no answers": apnstest.Fault{}, "answers": nil} {
				t.Run(fmt.Sprintf("MaxInFlight %d, protocol %q, %s", limit, protocol, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testPushAllTakesNoMore(t, limit, protocol, answer) })
				})
			}
		}
	}
}

func testPushAllTakesNoMore(t *testing.T, limit int, protocol string, answer error) {
	n := 3*limit + 5000
	server := inMemory(t, always(answer), func(s *apnstest.Server) {
		if answer != nil {
			s.Barrier, s.Handler = apns.StatusNoError, nil // a gateway that never confirms
			if protocol == "h2" {
				s.Handler = always(answer)
			}
		}
	})
	network := newNetwork(server)
	network.protocol = protocol
	c := network.client(t, func(c *apns.Client) { c.MaxInFlight = limit })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open, most atomic.Int64
	defer time.AfterFunc(10*time.Second, cancel).Stop() // where nothing is answered
	for range c.PushAll(ctx, func(yield func(*apns.Message) bool) {
		for m := range devices(n) {
			most.Store(max(most.Load(), open.Add(1)))
			if !yield(m) {
				return
			}
		}
	}) {
		open.Add(-1)
	}
	bound := int64(limit + min(limit, 1024))
	if got := most.Load(); got > bound {
		t.Errorf("%d messages were without a result, want at most %d", got, bound)
	}
	if got := most.Load(); answer != nil && got < int64(min(limit, 1024)) {
		t.Errorf("%d messages were taken from msgs while nothing was answered, want %d or more", got, min(limit, 1024))
	}
}

// Messages that back off count among those that PushAll has taken and not sent.
func TestPushAllTakesNoMoreDuringBackOffs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, always(&apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 50 * time.Second}))
		c := newNetwork(server).client(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		taken := 0
		for range c.PushAll(ctx, func(yield func(*apns.Message) bool) {
			for m := range devices(20000) {
				if taken++; !yield(m) {
					return
				}
			}
		}) {
		}
		if most := 1024 + 200; taken > most || taken < 1024 {
			t.Errorf("PushAll took %d messages, want 1,024 that wait and at most 200 in flight", taken)
		}
	})
}
