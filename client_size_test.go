package apns_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A roundTrip is a server that answers each message after a time, and counts those that
// have no answer yet.
type roundTrip struct {
	takes    time.Duration
	spread   time.Duration // by how much more than takes it can be
	seen     atomic.Int64
	inFlight atomic.Int64
	most     atomic.Int64
}

func (r *roundTrip) handle(*apns.Message) error {
	n := r.inFlight.Add(1)
	r.most.Store(max(r.most.Load(), n))
	takes := r.takes + time.Duration(r.seen.Add(1)*37%100)*r.spread/100
	time.AfterFunc(takes-1, func() { r.inFlight.Add(-1) }) // before the answer
	return answerAfter(takes)
}

// endless yields messages until the context ends.
func endless(ctx context.Context) func(yield func(*apns.Message) bool) {
	return func(yield func(*apns.Message) bool) {
		for i := 0; ctx.Err() == nil; i++ {
			if !yield(device(i)) {
				return
			}
		}
	}
}

// Within 20 round trips of 50 ms a connection has as many messages in flight as the server
// allows, and keeps it so.
func TestSizeGrowsWithRoundTrip(t *testing.T) {
	for _, streams := range []int{100, 150, 1000} {
		for _, key := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d streams, key %v", streams, key), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const trip = 50 * time.Millisecond
					server := roundTrip{takes: trip}
					s := inMemory(t, server.handle, func(s *apnstest.Server) { s.StreamLimit = streams })
					config := s.Config()
					if key {
						config = s.TokenConfig()
					}
					c := http2Client(t, config, func(c *apns.Client) { c.MaxConns = 1 })
					ctx, cancel := context.WithCancel(t.Context())
					var wg sync.WaitGroup
					wg.Go(func() {
						for r := range c.PushAll(ctx, endless(ctx)) {
							if r.Err != nil && ctx.Err() == nil {
								t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
							}
						}
					})
					time.Sleep(20 * trip)
					for range 1 + min(1, 200/streams) {
						before := c.Stats().Accepted
						time.Sleep(20 * trip)
						if got, want := c.Stats().Accepted-before, uint64(20*streams*9/10); got < want {
							t.Errorf("%d messages were accepted in 20 round trips, want at least %d", got, want)
						}
					}
					if got := server.most.Load(); got > int64(streams) {
						t.Errorf("%d messages were in flight, want at most %d", got, streams)
					}
					cancel()
					wg.Wait()
				})
			})
		}
	}
}

// Where more messages in flight do not bring more answers a second, there are few: a server
// that answers one message after the other, and one that answers all at once.
func TestSizeStaysSmall(t *testing.T) {
	for name, takes := range map[string]time.Duration{"at once": 0, "200 µs each": 200 * time.Microsecond, "1 ms each": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *apns.Client
				var most atomic.Uint64
				network := newNetwork(inMemory(t, func(*apns.Message) error {
					time.Sleep(takes)
					most.Store(max(most.Load(), c.Stats().InFlight))
					return nil
				}))
				c = network.client(t)
				n := 10_000
				if takes > 0 {
					n = int(12 * time.Second / takes) // so that another size is tried twice
				}
				start := time.Now()
				for r := range c.PushAll(t.Context(), devices(n)) {
					if r.Err != nil {
						t.Fatalf("message %d: got %v, want nil", r.Message.ID, r.Err)
					}
				}
				full := time.Duration(n) * takes
				wantTook(t, start, full, full*10/9+time.Millisecond)
				if got := most.Load(); got > 200 || got < 90 {
					t.Errorf("at most %d messages were in flight, want 100 to 200", got)
				}
				if got := network.dialed(); got != 1 {
					t.Errorf("%d dials, want 1", got)
				}
			})
		})
	}
}

// There is another connection only once the first one has as many messages in flight as
// the server allows, and others wait all the time.
func TestSizeAndSecondConn(t *testing.T) {
	const streams, trip = 300, 50 * time.Millisecond
	for _, test := range []struct {
		pushers int
		conns   int
	}{{50, 1}, {100, 1}, {200, 1}, {290, 1}, {400, 2}, {800, 3}, {2000, 4}} {
		t.Run(fmt.Sprintf("%d pushers", test.pushers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := roundTrip{takes: trip, spread: trip}
				network := newNetwork(inMemory(t, server.handle, func(s *apnstest.Server) { s.StreamLimit = streams }))
				atDial := int64(-1)
				c := network.client(t, func(c *apns.Client) {
					next := c.Config.DialContext
					c.Config.DialContext = func(ctx context.Context, n, addr string) (conn net.Conn, err error) {
						if network.dialed() == 1 {
							atDial = server.most.Load()
						}
						return next(ctx, n, addr)
					}
				})
				var wg sync.WaitGroup
				for i := range test.pushers {
					wg.Go(func() {
						for range 40 {
							if _, err := c.Push(t.Context(), device(i)); err != nil {
								t.Errorf("message %d: got %v, want nil", i, err)
							}
						}
					})
				}
				wg.Wait()
				// While the last one grows, messages wait for it, which may be worth one more.
				if got := network.dialed(); got < test.conns || got > test.conns && (test.conns == 1 || got > test.conns+1) {
					t.Errorf("%d dials, want %d, or one more if it is several", got, test.conns)
				}
				if test.conns > 1 && atDial < streams*9/10 {
					t.Errorf("another connection was dialed when at most %d messages had been in flight, want %d", atDial, streams)
				}
			})
		})
	}
}

// A server that allows fewer streams for a while gets as many messages, and more again
// when it allows them.
func TestSizeFollowsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const trip = 50 * time.Millisecond
		server := roundTrip{takes: trip}
		s := inMemory(t, server.handle, func(s *apnstest.Server) { s.StreamLimit = 400 })
		c := newNetwork(s).client(t, func(c *apns.Client) { c.MaxConns = 1 })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for r := range c.PushAll(ctx, endless(ctx)) {
				if r.Err != nil && ctx.Err() == nil {
					t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
				}
			}
		})
		rate := func() int {
			before := c.Stats().Accepted
			time.Sleep(20 * trip)
			return int(c.Stats().Accepted - before)
		}
		time.Sleep(20 * trip)
		for _, limit := range []int{50, 300, 10} {
			s.SetStreamLimit(limit)
			time.Sleep(12 * time.Second) // a size that was of no use is kept for 10 s
			if got, want := rate(), 20*limit; got < want*9/10 || got > want*11/10 {
				t.Errorf("with %d streams %d messages were accepted in 20 round trips, want about %d", limit, got, want)
			}
		}
		cancel()
		wg.Wait()
	})
}
