package apns_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// While messages come slowly there is one barrier in ConfirmInterval, so that none
// has to wait for longer; PushAll's end asks for one at once.
func TestClientBarriersOfPushAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int64
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnConnect = func(int, tlsState) error { conns.Add(1); return nil }
		})
		c := newClient(t, s)
		for i := range uint32(3) {
			start := time.Now()
			wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1+i*10, 10+i*10))), balance{Accepted: 10})
			wantTook(t, start, 0, 10*time.Millisecond)
		}
		conns.Store(0)
		handed := make([]time.Time, 200)
		start := time.Now()
		for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for i := range handed {
				time.Sleep(50 * time.Millisecond)
				handed[i] = time.Now()
				if !yield(numberedMessage(uint32(1000 + i))) {
					return
				}
			}
		}) {
			if r.Err != nil {
				t.Errorf("message %d: %v", r.Message.ID, r.Err)
			}
			wantTook(t, handed[r.Message.ID-1000], 0, 1100*time.Millisecond)
		}
		wantTook(t, start, 10*time.Second, 10*time.Second+10*time.Millisecond)
		if n := conns.Load(); n < 8 || n > 12 {
			t.Errorf("got %d connections in 10 seconds, want one a second", n)
		}
	})
}

// A loop that is broken off, also by a panic, leaves nothing running.
func TestPushAllBrokenOff(t *testing.T) {
	for name, barrier := range map[string]error{"an answer": nil, "no answer": apns.StatusNoError} {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, panics %v", name, panics), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, onNumber(5, apns.StatusInvalidToken), func(s *apnstest.Server) { s.Barrier = barrier })
					c := newClient(t, s)
					running := false
					func() {
						defer func() {
							if r := recover(); panics != (r == "boom") {
								t.Errorf("got the panic %v, panics %v", r, panics)
							}
						}()
						for range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
							running = true
							defer func() { running = false }()
							for m := range messagesFrom(1, 1e9) {
								if !yield(m) {
									return
								}
							}
							t.Error("msgs was asked for all messages")
						}) {
							if panics {
								panic("boom")
							}
							break
						}
					}()
					if running {
						t.Error("msgs has not returned")
					}
					wantIdle(t)
					if n := c.Stats().InFlight; n != 0 {
						t.Errorf("%d messages are in flight, want none", n)
					}
					wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(2e9, 2e9+9))), map[bool]balance{
						true: {Accepted: 10}, false: {InDoubt: 10}}[barrier == nil])
				})
			})
		}
	}
}

// When the context ends every message that was taken from msgs has a result.
func TestPushAllContext(t *testing.T) {
	for name, set := range map[string]func(*apnstest.Server){
		"no answer": func(s *apnstest.Server) { s.Barrier = apns.StatusNoError },
		"does not read": func(s *apnstest.Server) {
			s.BufferSize = 1000
			s.Handler = func(m *apns.Message) error {
				if m.ID == 100 { // on each connection
					return apnstest.Fault{End: apnstest.EndSilence}
				}
				return nil
			}
		},
		"does not listen": nil,
	} {
		for _, endless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, endless %v", name, endless), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, nil, func(s *apnstest.Server) {
						if set != nil {
							set(s)
						}
					})
					if set == nil {
						s.RefuseConnections(true)
					}
					c := newClient(t, s, func(c *apns.Client) { c.MaxInFlight = 1000 })
					last := uint32(500)
					if endless {
						last = 1e9
					}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					pulled := 0
					start := time.Now()
					got := collect(t, c.PushAll(ctx, func(yield func(*apns.Message) bool) {
						for m := range messagesFrom(1, last) {
							if pulled++; !yield(m) {
								return
							}
						}
					}))
					wantTook(t, start, 10*time.Second, 10*time.Second+10*time.Millisecond)
					if len(got) != pulled || pulled == 0 {
						t.Errorf("got %d results of %d messages", len(got), pulled)
					}
					for _, err := range got {
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("got %v, want one that matches %v", err, context.DeadlineExceeded)
							break
						}
					}
					sum := got.check(t, s)
					if sum.Accepted+sum.Rejected > 0 || set == nil && sum.InDoubt > 0 || name == "no answer" && !endless && sum.NotSent > 0 {
						t.Errorf("got %+v", sum)
					}
					wantIdle(t)
					wantStats(t, c, sum)
				})
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := inMemory(t, nil)
		for r := range newClient(t, s).PushAll(ctx, messagesFrom(1, 10)) {
			wantErr(t, r.Err, apns.ErrNotSent, context.Canceled)
		}
	})
}

// Messages may come one at a time, each when the one before is back, and then
// many at once.
func TestPushAllOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := newClient(t, s)
		back := make(chan bool, 1)
		got := make(outcomes)
		for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for id := uint32(1); id <= 10000; id++ {
				if !yield(numberedMessage(id)) {
					return
				}
				if id <= 1200 {
					<-back
				}
			}
		}) {
			got.add(t, r)
			if numberOf(r.Message) <= 1200 {
				back <- true
			}
		}
		wantOutcome(t, s, got, balance{Accepted: 10000})
	})
}

// What is not sent soon is not taken from msgs, where its time would run.
func TestClientSlowGatewayAndManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, func(*apns.Message) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		wantOutcome(t, s, collect(t, newClient(t, s).PushAll(t.Context(), messagesFrom(1, 20000))), balance{Accepted: 20000})
	})
}

// What msgs does: it panics, it ends its goroutine, it blocks, it has nothing, it
// is ranged over twice. A message that is on its way has room within MaxInFlight.
func TestPushAllMsgs(t *testing.T) {
	bubble := func(name string, f func(t *testing.T, s *apnstest.Server, c *apns.Client)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil)
				f(t, s, newClient(t, s))
				wantIdle(t)
			})
		})
	}
	for _, n := range []uint32{0, 10, 1000} {
		bubble(fmt.Sprintf("panics after %d", n), func(t *testing.T, s *apnstest.Server, c *apns.Client) {
			boom := errors.New("boom")
			defer func() {
				if r := recover(); r != boom {
					t.Errorf("got the panic %v, want %v", r, boom)
				}
			}()
			for range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range messagesFrom(1, n) {
					if !yield(m) {
						return
					}
				}
				panic(boom)
			}) {
			}
			t.Error("PushAll has returned")
		})
	}
	bubble("ends its goroutine", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		var caller sync.WaitGroup
		returned := false
		caller.Go(func() {
			for range c.PushAll(t.Context(), func(func(*apns.Message) bool) { runtime.Goexit() }) {
			}
			returned = true
		})
		caller.Wait()
		if returned {
			t.Error("PushAll has returned, want it to end its goroutine as well")
		}
	})
	bubble("blocks", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		results := make(chan struct{}, 10)
		got := make(outcomes)
		for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for i := range uint32(3) {
				for m := range messagesFrom(1+10*i, 10+10*i) {
					if !yield(m) {
						return
					}
				}
				for range 10 {
					<-results // a result that is held up is a deadlock
				}
			}
		}) {
			got.add(t, r)
			results <- struct{}{}
		}
		wantOutcome(t, s, got, balance{Accepted: 30})
	})
	bubble("is empty", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 0))), balance{})
		if n := c.Stats().Connected; n != 0 {
			t.Errorf("got %d connections, want none for no message", n)
		}
	})
	bubble("is ranged over twice", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		results := c.PushAll(t.Context(), messagesFrom(1, 10))
		if first, second := collect(t, results), collect(t, results); len(first) != 10 || len(second) != 10 {
			t.Errorf("got %v and then %v", first, second)
		}
		if n := len(s.Messages(apnstest.Accepted)); n != 20 {
			t.Errorf("the server took %d messages, want 20", n)
		}
	})
	for _, window := range []int{1, 2, 16, 1000} {
		bubble(fmt.Sprintf("window of %d", window), func(t *testing.T, s *apnstest.Server, c *apns.Client) {
			c.MaxInFlight = window
			n := uint32(min(2000, 20*window))
			var pulled, yielded, most atomic.Int64
			got := make(outcomes)
			for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range messagesFrom(1, n) {
					most.Store(max(most.Load(), pulled.Add(1)-yielded.Load()))
					if !yield(m) {
						return
					}
				}
			}) {
				yielded.Add(1)
				got.add(t, r)
			}
			wantOutcome(t, s, got, balance{Accepted: int(n)})
			if n := most.Load(); n > int64(window+min(window, 1024)) || n < int64(min(window, 16)) {
				t.Errorf("at most %d messages had no result, want at most %d in flight and as many that wait", n, window)
			}
		})
	}
	bubble("two at once", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		var callers sync.WaitGroup
		all := make([]outcomes, 2)
		for i := range uint32(2) {
			callers.Go(func() { all[i] = collect(t, c.PushAll(t.Context(), messagesFrom(1+i*1000, 1000+i*1000))) })
		}
		callers.Wait()
		for i, got := range all {
			wantOutcome(t, s, got, balance{Accepted: 1000})
			for id := range got {
				if int(id-1)/1000 != i {
					t.Fatalf("message %d came out of the wrong PushAll", id)
				}
			}
		}
	})
	bubble("a message is used again", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		c.MaxInFlight = 4
		free := make(chan *apns.Message, 4)
		for range cap(free) {
			free <- new(apns.Message)
		}
		seen := make(map[string]bool)
		for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for i := range uint32(200) {
				m := <-free
				*m = *numberedMessage(i)
				if !yield(m) {
					return
				}
			}
		}) {
			if r.Err != nil || seen[r.Message.Token] {
				t.Errorf("message %s: %v, seen before: %v", r.Message.Token, r.Err, seen[r.Message.Token])
			}
			seen[r.Message.Token] = true
			free <- r.Message
		}
		if n := len(s.Messages(apnstest.Accepted)); n != 200 || len(seen) != 200 {
			t.Errorf("the server took %d messages and %d came back, want 200", n, len(seen))
		}
	})
}

// 20,000 messages on loopback, while the server sends GOAWAYs of both kinds,
// refuses streams, changes its stream limit and rejects one in a hundred: each
// message has one outcome, which the server's record confirms; none is in doubt, and
// none is taken twice.
func TestPushAllHTTP2Faults(t *testing.T) {
	for _, key := range []bool{false, true} {
		t.Run(fmt.Sprintf("key %v", key), func(t *testing.T) {
			total := 20000
			if testing.Short() {
				total = 2000
			}
			var server *apnstest.Server
			var n atomic.Int64
			var changes sync.WaitGroup
			defer changes.Wait()
			bad := func(m *apns.Message) bool { return strings.HasSuffix(m.Token, "77") }
			limits := []int{50, 1000, 1, 100, 7}
			server = apnstest.NewUnstartedServer(func(m *apns.Message) error {
				i := n.Add(1)
				switch {
				case i%2003 == 0:
					return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
				case i%1999 == 0:
					return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
				case i%211 == 0:
					return apnstest.Fault{End: apnstest.EndRefusedStream}
				case i%1500 == 0:
					changes.Go(func() { server.SetStreamLimit(limits[int(i/1500)%len(limits)]) })
				}
				switch {
				case bad(m):
					return apns.ReasonBadDeviceToken
				case i%97 == 0:
					return answerAfter(time.Millisecond)
				}
				return nil
			})
			server.StreamLimit = 100
			server.Start()
			defer server.Close()
			config := server.Config()
			if key {
				config = server.TokenConfig()
			}
			c := http2Client(t, config)
			outcomes := make([]error, total)
			results := make([]int, total)
			ids := make(map[string]bool)
			for r := range c.PushAll(t.Context(), devices(total)) {
				results[r.Message.ID]++
				outcomes[r.Message.ID] = r.Err
				if r.Err == nil {
					ids[r.Receipt.APNsID] = true
				}
			}
			accepted := make(map[string]int)
			for _, m := range server.Messages(apnstest.Accepted) {
				accepted[m.Token]++
			}
			good := 0
			for i, err := range outcomes {
				m := device(i)
				wantAccepted := 1
				switch e, rejected := err.(*apns.PushError); {
				case err == nil:
					good++
				case rejected && e.Reason == apns.ReasonBadDeviceToken && e.ID == m.ID && bad(m):
					wantAccepted = 0
				default:
					t.Errorf("message %d: got %v, want nil or that it is bad", i, err)
				}
				if results[i] != 1 || accepted[m.Token] != wantAccepted {
					t.Errorf("message %d has %d results, the last %v, and was accepted %d times, want 1 and %d", i, results[i], err, accepted[m.Token], wantAccepted)
				}
			}
			if len(ids) != good || ids[""] {
				t.Errorf("%d accepted messages have %d names, want one for each", good, len(ids))
			}
			s := c.Stats()
			if s.InDoubt+s.NotSent+s.InFlight != 0 || s.Accepted != uint64(good) || s.Rejected["BadDeviceToken"] != uint64(total-good) || s.Resent == 0 {
				t.Errorf("Stats are %+v, want %d accepted, some resent and none in doubt", s, good)
			}
			t.Logf("%+v", s)
		})
	}
}

// PushAll takes no more messages than MaxInFlight, and as many that wait, before it has
// yielded some.
func TestPushAllHTTP2Window(t *testing.T) {
	for _, window := range []int{1, 2, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(m *apns.Message) error { return answerAfter(time.Duration(m.Token[7]%16) * 100 * time.Millisecond) })
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.MaxInFlight = window })
			var unresolved, most atomic.Int64
			msgs := func(yield func(*apns.Message) bool) {
				for m := range devices(3000 * window / (window + 10)) {
					most.Store(max(most.Load(), unresolved.Add(1)))
					if !yield(m) {
						return
					}
				}
			}
			n := 0
			for r := range c.PushAll(t.Context(), msgs) {
				if r.Err != nil {
					t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
				}
				if n++; n%100 == 0 {
					time.Sleep(time.Second) // results pile up, and count
				}
				unresolved.Add(-1)
			}
			if most.Load() > int64(2*window) || most.Load() == 0 {
				t.Errorf("%d messages had no result, want at most %d in flight and as many that wait", most.Load(), window)
			}
			t.Logf("window %d: %d messages, at most %d without a result", window, n, most.Load())
		})
	}
}

// However PushAll ends, nothing that it started is left running, and the Client is
// as good as before.
func TestPushAllHTTP2Cancelled(t *testing.T) {
	for name, test := range map[string]struct {
		window int
		end    func(cancel context.CancelFunc) (again bool) // after ten results
	}{
		"broken off":                 {0, func(context.CancelFunc) bool { return false }},
		"broken off, at the window":  {50, func(context.CancelFunc) bool { return false }},
		"context ends":               {0, func(cancel context.CancelFunc) bool { cancel(); return true }},
		"context ends at the window": {50, func(cancel context.CancelFunc) bool { cancel(); return true }},
		"both":                       {0, func(cancel context.CancelFunc) bool { cancel(); return false }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				server := inMemory(t, func(*apns.Message) error {
					if n.Add(1) > 11 {
						return answerAfter(time.Hour)
					}
					return nil
				}, func(s *apnstest.Server) { s.StreamLimit = 20 })
				c := http2Client(t, server.Config(), func(c *apns.Client) { c.MaxInFlight = test.window })
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var taken atomic.Int64
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(1000) {
						if taken.Add(1); !yield(m) {
							return
						}
					}
				}
				results, inDoubt, notSent := 0, 0, 0
				start := time.Now()
				for r := range c.PushAll(ctx, msgs) {
					results++
					switch {
					case r.Err == nil && results <= 10:
						if results == 10 {
							synctest.Wait() // until others are on their way
							if !test.end(cancel) {
								break
							}
						}
						continue
					case errors.Is(r.Err, apns.ErrInDoubt):
						inDoubt++
						wantErr(t, r.Err, apns.ErrInDoubt, context.Canceled)
						continue
					default:
						notSent++
						wantErr(t, r.Err, apns.ErrNotSent, context.Canceled)
						continue
					}
					break
				}
				wantTook(t, start, 0, 0)
				// The connections that it opened are the Client's.
				for _, stack := range goroutines() {
					if strings.Contains(stack, "pushAll") {
						t.Errorf("this is left running:\n%s", stack)
					}
				}
				s := c.Stats()
				if s.InFlight != 0 || s.InDoubt == 0 || s.Accepted+s.InDoubt+s.NotSent != uint64(taken.Load())+1 {
					t.Errorf("Stats are %+v, want an outcome for each of the %d messages that were taken, and some in doubt", s, taken.Load())
				}
				if strings.HasPrefix(name, "context") && (int64(results) != taken.Load() || s.InDoubt != uint64(inDoubt) || s.NotSent != uint64(notSent)) {
					t.Errorf("got %d results, %d in doubt, %d not sent, want %d, %d, %d", results, inDoubt, notSent, taken.Load(), s.InDoubt, s.NotSent)
				}
				n.Store(0)
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Errorf("after that: got %v, want nil", err)
				}
			})
		})
	}
}

// A message has its Timeout from when it was handed over, also while others have
// all the streams.
func TestPushAllHTTP2Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Hour) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
		c := http2Client(t, server.Config(), func(c *apns.Client) { c.MaxConns, c.Timeout = 1, timeout })
		start, inDoubt, notSent := time.Now(), 0, 0
		for r := range c.PushAll(t.Context(), devices(200)) {
			wantTook(t, start, timeout, timeout+timeout/4)
			if errors.Is(r.Err, apns.ErrInDoubt) {
				inDoubt++
				wantErr(t, r.Err, apns.ErrInDoubt, context.DeadlineExceeded)
			} else {
				notSent++
				wantErr(t, r.Err, apns.ErrNotSent, context.DeadlineExceeded)
			}
		}
		// The time of the first one may end a moment before that of those that wait.
		if inDoubt < 10 || inDoubt > 20 || inDoubt+notSent != 200 {
			t.Errorf("got %d in doubt, %d not sent, want about the 10 that had a stream, and the rest of 200", inDoubt, notSent)
		}
	})
}

// What is not sent soon is not taken from msgs, where its time would run.
func TestPushAllHTTP2SlowServer(t *testing.T) {
	for _, warm := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
			c := http2Client(t, server.Config())
			if warm {
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Error(err)
				}
			}
			var taken atomic.Int64
			n := 0
			for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range devices(5000) {
					if taken.Add(1); !yield(m) {
						return
					}
				}
			}) {
				if r.Err != nil {
					t.Fatalf("after %d: %v", n, r.Err)
				}
				if n++; n == 100 && taken.Load() > 100+4*10+1024 {
					t.Errorf("when 100 were accepted %d had been taken from msgs, want no more than are soon sent", taken.Load())
				}
			}
			if n != 5000 {
				t.Errorf("got %d results, want 5000", n)
			}
		})
	}
}

// What the sequence of messages does is PushAll's to pass on.
func TestPushAllHTTP2Panic(t *testing.T) {
	for _, after := range []int{0, 5} {
		for _, goexit := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil)
				c := http2Client(t, server.Config())
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(after) {
						yield(m)
					}
					if goexit {
						runtime.Goexit()
					}
					panic("out of messages")
				}
				var reason any
				returned := false
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { reason = recover() }()
					for range c.PushAll(t.Context(), msgs) {
					}
					returned = true
				})
				wg.Wait()
				if returned || !goexit && reason != "out of messages" || goexit && reason != nil {
					t.Errorf("after %d messages: PushAll returned: %v, and panicked with %v; want the panic of msgs, or none if it ended its goroutine", after, returned, reason)
				}
				if _, err := c.Push(t.Context(), message(1)); err != nil {
					t.Errorf("after that: got %v, want nil", err)
				}
			})
		}
	}
	// The body of the loop may panic as well.
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := http2Client(t, server.Config())
		func() {
			defer func() {
				if reason := recover(); reason != "enough" {
					t.Errorf("recovered %v, want the panic of the loop", reason)
				}
			}()
			for range c.PushAll(t.Context(), devices(100)) {
				panic("enough")
			}
		}()
		for _, stack := range goroutines() {
			if strings.Contains(stack, "pushAll") {
				t.Errorf("this is left running:\n%s", stack)
			}
		}
	})
}

// A PushAll has one goroutine beside the caller's, and each connection has two, however
// many messages are in flight.
func TestPushAllGoroutines(t *testing.T) {
	for _, most := range []int{10, 3000} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(*apns.Message) error {
				return apnstest.Fault{Err: apns.StatusNoError, Delay: 50 * time.Millisecond}
			})
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.MaxInFlight = most })
			largest, conns := 0, 0
			for r := range c.PushAll(t.Context(), devices(20_000)) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				if s := c.Stats(); r.Message.ID%500 == 0 && int(s.InFlight) > largest {
					largest, conns = int(s.InFlight), int(s.Connected)
					stacks := goroutines()
					own := 0
					for _, stack := range stacks {
						if strings.Contains(stack, "\nexample.com/apns.(") {
							own++
						}
					}
					// The dialer may be opening another connection.
					if want := 1 + 2*conns + 3; own > want {
						t.Errorf("%d in flight on %d connections: %d goroutines, want at most %d:\n%s", largest, conns, own, want, strings.Join(stacks, "\n\n"))
					}
				}
			}
			if largest < most/2 {
				t.Errorf("at most %d messages were in flight, want about %d", largest, most)
			}
		})
	}
}
