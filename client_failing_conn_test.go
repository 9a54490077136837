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
	"example.com/apns/internal/h2"
)

// A connection to a server that fails with each message, while another server would
// accept them, is replaced after a few failures. All messages are accepted, once each,
// and soon. For few messages it is enough that one of them has failed twice.
func TestFailingConnIsReplaced(t *testing.T) {
	for _, answer := range []error{
		apns.ReasonInternalServerError, apns.ReasonServiceUnavailable, apns.ReasonIdleTimeout,
		&apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Second},
	} {
		for _, n := range []int{1, 2, 3, 4, 5, 6, 100, 1000} {
			for _, all := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, %d messages, PushAll %v", answer, n, all), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testFailingConnIsReplaced(t, answer, n, all) })
				})
			}
		}
	}
}

func testFailingConnIsReplaced(t *testing.T, answer error, n int, all bool) {
	bad, good := inMemory(t, always(answer)), inMemory(t, nil)
	network := newNetwork(bad, good)
	c := network.client(t)
	start := time.Now()
	if all {
		for r := range c.PushAll(t.Context(), devices(n)) {
			if r.Err != nil {
				t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
			}
		}
	} else {
		wantAccepted(t, allAtOnce(t.Context(), c, n))
	}
	// A message that fails twice has waited for up to three seconds by then. After a
	// Retry-After the replacement is dialed while the messages are resent, and may come too
	// late for them.
	longest, most := 4*time.Second, 3*n
	if e, ok := answer.(*apns.PushError); ok && e.RetryAfter > 0 {
		longest, most = 2*longest, 2*most
	}
	wantTook(t, start, 0, longest)
	if got := network.dialed(); got != 2 {
		t.Errorf("%d dials, want 2", got)
	}
	if got := len(bad.Records()); got > most {
		t.Errorf("the failing server got %d messages, want at most %d", got, most)
	}
	times := acceptedTimes(bad, good)
	for i := range n {
		if got := times[device(i).Token]; got != 1 {
			t.Errorf("message %d was accepted %d times, want once", i, got)
		}
	}
	synctest.Wait()
	if network.conn(0).closed().IsZero() {
		t.Error("the connection that failed is still open, want it closed")
	}
}

// A proxy answers for a server that it does not reach: that says nothing about the message,
// which is in doubt. After five such answers the connection is replaced as well.
func TestProxyFailsIsReplaced(t *testing.T) {
	for _, status := range []int{500, 502, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			bad, good := inMemory(t, always(&apns.PushError{HTTPStatus: status})), inMemory(t, nil)
			network := newNetwork(bad, good)
			c := network.client(t)
			for i := range 5 {
				_, err := c.Push(t.Context(), device(i))
				wantClass(t, err, "in doubt")
				time.Sleep(time.Second)
			}
			for i := 5; i < 10; i++ {
				// The sixth has the other one dialed.
				if _, err := c.Push(t.Context(), device(i)); err != nil && i > 5 {
					t.Errorf("message %d after five answers with %d: got %v, want nil", i, status, err)
				}
				time.Sleep(time.Second)
			}
			if got := network.dialed(); got != 2 {
				t.Errorf("%d dials after answers with %d, want 2", got, status)
			}
		})
	}
}

// One message after the other, each with a single attempt: the fifth failure in a row has
// the connection replaced, and not an earlier one.
func TestFailingConnAfterFive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := inMemory(t, always(apns.ReasonInternalServerError)), inMemory(t, nil)
		network := newNetwork(bad, good)
		c := network.client(t, func(c *apns.Client) { c.Attempts = 1 })
		for i := range 5 {
			if got := network.dialed(); got > 1 {
				t.Errorf("after %d failures: another connection was dialed", i)
			}
			_, err := c.Push(t.Context(), device(i))
			wantClass(t, err, "rejected", apns.ReasonInternalServerError)
			time.Sleep(time.Second)
		}
		for i := 5; i < 10; i++ {
			if _, err := c.Push(t.Context(), device(i)); err != nil && i > 5 {
				t.Errorf("message %d: got %v, want nil", i, err)
			}
			time.Sleep(time.Second)
		}
		if got := network.dialed(); got != 2 {
			t.Errorf("%d dials, want 2", got)
		}
	})
}

// An answer about a message shows that the connection works, be it a rejection: four
// failures and a rejection, again and again, do not have it replaced.
func TestRejectionConfirmsConn(t *testing.T) {
	for _, confirms := range []error{apns.ReasonBadDeviceToken, apns.ReasonUnregistered, apns.ReasonTooManyRequests, &apns.PushError{HTTPStatus: 404}, nil} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			server := inMemory(t, func(*apns.Message) error {
				if n.Add(1)%5 == 0 {
					return confirms
				}
				return apns.ReasonInternalServerError
			})
			network := newNetwork(server)
			c := network.client(t, func(c *apns.Client) { c.Attempts = 1 })
			for range c.PushAll(t.Context(), devices(1000)) {
			}
			for i := range 100 {
				c.Push(t.Context(), device(i))
			}
			if got := network.dialed(); got != 1 {
				t.Errorf("%v after 4 failures: %d dials, want 1", confirms, got)
			}
		})
	}
}

// The connection serves until its replacement is connected: what the server accepts
// meanwhile is accepted, and that the connection works again ends its replacement.
func TestFailingConnServesUntilReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healed atomic.Bool
		server := inMemory(t, func(*apns.Message) error {
			if healed.Load() {
				return nil
			}
			return apns.ReasonInternalServerError
		})
		network := newNetwork(server)
		network.takes = 20 * time.Second
		c := network.client(t)
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 10)) })
		time.Sleep(23 * time.Second)
		if got := network.dialed(); got != 2 {
			t.Fatalf("%d dials, want 2: the second one is on its way", got)
		}
		healed.Store(true)
		for i := range 10 {
			start := time.Now()
			if _, err := c.Push(t.Context(), device(100+i)); err != nil {
				t.Errorf("while the replacement is dialed: got %v, want nil", err)
			}
			wantTook(t, start, 0, 0)
		}
		if got := c.Stats().Connected; got != 1 {
			t.Errorf("%d connections, want 1: the test is about the time before the second", got)
		}
		wg.Wait()
		times := acceptedTimes(server)
		for i := range 10 {
			if times[device(i).Token] != 1 || times[device(100+i).Token] != 1 {
				t.Errorf("messages %d and %d were accepted %d and %d times, want once", i, 100+i, times[device(i).Token], times[device(100+i).Token])
			}
		}
	})
}

// Where each connection fails, others are dialed less and less often: only an answer about
// a message resets the back-off, and not that a connection was opened.
func TestReplacementsBackOff(t *testing.T) {
	for name, answer := range map[string]error{
		"500": apns.ReasonInternalServerError, "IdleTimeout": apns.ReasonIdleTimeout, "Shutdown": apns.ReasonShutdown,
	} {
		for _, gap := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second} {
			t.Run(fmt.Sprintf("%s, a message each %v", name, gap), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testReplacementsBackOff(t, answer, gap) })
			})
		}
	}
}

func testReplacementsBackOff(t *testing.T, answer error, gap time.Duration) {
	const minutes = 5
	var healthy atomic.Bool
	server := inMemory(t, func(*apns.Message) error {
		if healthy.Load() {
			return nil
		}
		return answer
	})
	network := newNetwork(server)
	c := network.client(t, func(c *apns.Client) { c.Attempts = 3 })
	var wg sync.WaitGroup
	for end := time.Now().Add(minutes * time.Minute); time.Now().Before(end); time.Sleep(gap) {
		wg.Go(func() { c.Push(t.Context(), device(1)) })
	}
	wg.Wait()
	// 0.1 s, 0.2 s and so on take seven dials to come to 10 s, of which jitter takes half.
	if got, most := network.dialed(), 8+minutes*12; got > most || got < 4 {
		t.Errorf("%d dials in %d minutes, want 4 to %d", got, minutes, most)
	}
	healthy.Store(true)
	time.Sleep(20 * time.Second)
	wantAccepted(t, allAtOnce(t.Context(), c, 20))
	before := network.dialed()
	healthy.Store(false)
	c.Push(t.Context(), device(1))
	if got := network.dialed() - before; got > 2 {
		t.Errorf("%d dials after the back-off was reset and a message failed, want at most 2", got)
	}
}

// While nothing waits, a connection that has failed is not replaced: the dialer has no
// reason to go on.
func TestFailingConnIdleIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server *apnstest.Server
		server = inMemory(t, func(*apns.Message) error {
			server.RefuseConnections(true)
			return apns.ReasonInternalServerError
		})
		network := newNetwork(server)
		c := network.client(t, func(c *apns.Client) { c.Attempts = 1 })
		for _, err := range allAtOnce(t.Context(), c, 20) {
			wantClass(t, err, "rejected", apns.ReasonInternalServerError)
		}
		time.Sleep(time.Minute)
		before := network.dialed()
		time.Sleep(time.Hour / 2)
		if got := network.dialed() - before; got > 0 {
			t.Errorf("%d dials in half an hour without a message, want none", got)
		}
	})
}

// A connection that is open and of no use, although the server acknowledges PINGs or says
// something else now and then, is replaced when a few messages have timed out: later ones
// are accepted over another.
func TestUselessConnIsReplaced(t *testing.T) {
	large := make([]byte, 0, 4000)
	large = append(large, apns.AlertPayload(string(make([]byte, 500)))...)
	streams := func(n uint32) []h2.SettingValue {
		return []h2.SettingValue{{Setting: h2.SettingMaxConcurrentStreams, Value: n}}
	}
	for name, peer := range map[string]func() *framePeer{
		"no answers": func() *framePeer {
			return &framePeer{handle: func(f *h2.Frame) []byte {
				if f.Type == h2.TypePing {
					return answerFrame(f)
				}
				return nil
			}}
		},
		"no answers, two streams": func() *framePeer {
			return &framePeer{settings: streams(2), handle: func(f *h2.Frame) []byte {
				if f.Type == h2.TypePing {
					return answerFrame(f)
				}
				return nil
			}}
		},
		"no window": func() *framePeer { return &framePeer{handle: answerFrame} },
		"no window for a stream": func() *framePeer {
			return &framePeer{settings: []h2.SettingValue{{Setting: h2.SettingInitialWindowSize, Value: 0}}, handle: answerFrame}
		},
		"no streams": func() *framePeer { return &framePeer{settings: streams(0), handle: answerFrame} },
		"cancelled streams stay": func() *framePeer {
			// Each message draws a PING of the server's, which shows that it lives.
			return &framePeer{settings: streams(10), handle: func(f *h2.Frame) []byte {
				if f.Type == h2.TypeRSTStream {
					return h2.AppendPing(nil, 0, [8]byte{})
				}
				return nil
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := inMemory(t, nil)
				network := &network{protocol: "h2"}
				network.add(t, peer())
				network.servers = append(network.servers, good.Config().DialContext)
				c := network.client(t, func(c *apns.Client) { c.Timeout = 8 * time.Second })
				const n = 120
				errs := make([]error, n)
				var wg sync.WaitGroup
				for i := range n {
					wg.Go(func() {
						m := device(i)
						m.Payload = large
						_, errs[i] = c.Push(t.Context(), m)
					})
					time.Sleep(time.Second / 2)
				}
				wg.Wait()
				times := acceptedTimes(good)
				last := 0
				for i, err := range errs {
					if err == nil {
						continue
					}
					last = i
					if times[device(i).Token] > 0 {
						t.Errorf("message %d: got %v, and a server accepted it", i, err)
					}
					if len(classes(err)) != 1 {
						t.Errorf("message %d: got %v, whose outcomes are %q, want one", i, err, classes(err))
					}
				}
				if last == 0 || last > n*3/4 {
					t.Errorf("message %d of %d is the last one that was not accepted; want one, and many after it that were", last, n)
				}
				for token, n := range times {
					if n != 1 {
						t.Errorf("message %s was accepted %d times, want once", token, n)
					}
				}
				if got := network.dialed(); got != 2 {
					t.Errorf("%d dials, want 2", got)
				}
			})
		})
	}
}

// The same with a deadline for each call, in place of the Client's Timeout.
func TestUselessConnAndDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := inMemory(t, always(apnstest.Fault{End: apnstest.EndSilence})), inMemory(t, nil)
		network := newNetwork(bad, good)
		c := network.client(t)
		failed := 0
		for i := range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := c.Push(ctx, device(i))
			cancel()
			if err != nil {
				failed++
				wantClass(t, err, "in doubt", context.DeadlineExceeded)
			}
		}
		if failed < 5 || failed > 6 {
			t.Errorf("%d of 30 messages are in doubt, want 5, and the rest accepted over another connection", failed)
		}
	})
}

// Deadlines that are shorter than an answer takes say nothing about the connection, neither
// for a message in flight nor for those that had no room.
func TestShortDeadlinesBlameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, always(answerAfter(300*time.Millisecond)))
		c := http2Client(t, s.TokenConfig()) // one message until the key is accepted
		var pushes sync.WaitGroup
		pushes.Go(func() {
			if _, err := c.Push(t.Context(), device(0)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(50 * time.Millisecond)
		for i := range 6 {
			pushes.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				_, err := c.Push(ctx, device(1+i))
				wantClass(t, err, "not sent", context.DeadlineExceeded)
			})
		}
		pushes.Wait()
		synctest.Wait()
		if got := c.Stats().Connected; got != 1 {
			t.Errorf("%d connections were opened, want 1", got)
		}
	})
}

// What a connection gives back waits for the next one from then on: a deadline that follows
// soon says nothing about that one.
func TestShortWaitAfterResendBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := inMemory(t, func(m *apns.Message) error {
			switch {
			case m.Token == device(0).Token:
				return nil
			case time.Since(start) < time.Second:
				return apnstest.Fault{Delay: 2800 * time.Millisecond, End: apnstest.EndGoAwayUnprocessed}
			}
			return answerAfter(800 * time.Millisecond)
		})
		c := http2Client(t, s.TokenConfig()) // one message until the key is accepted
		if _, err := c.Push(t.Context(), device(0)); err != nil {
			t.Fatal(err)
		}
		var pushes sync.WaitGroup
		for i := range 6 {
			pushes.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				c.Push(ctx, device(1+i))
			})
		}
		pushes.Wait()
		time.Sleep(time.Second) // the back-off of another dial, which a message begins
		if _, err := c.Push(t.Context(), device(7)); err != nil {
			t.Error(err)
		}
		if got := c.Stats().Connected; got != 2 {
			t.Errorf("%d connections were opened, want 2", got)
		}
	})
}

// A connection that answers is kept, however many messages run out of time because there
// are more than it can take.
func TestBusyConnIsKept(t *testing.T) {
	for _, maxConns := range []int{1, 2} {
		for _, deadlines := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d connections, deadlines %v", maxConns, deadlines), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testBusyConnIsKept(t, maxConns, deadlines) })
			})
		}
	}
}

func testBusyConnIsKept(t *testing.T, maxConns int, deadlines bool) {
	const timeout = 20 * time.Second
	server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
	network := newNetwork(server)
	c := network.client(t, func(c *apns.Client) { c.MaxConns, c.Timeout = maxConns, timeout })
	var late atomic.Int64
	var wg sync.WaitGroup
	for i := range 4000 { // in 100 s, of which a connection takes 1000
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if deadlines {
				ctx, cancel = context.WithTimeout(t.Context(), timeout)
			}
			defer cancel()
			if _, err := c.Push(ctx, device(i)); err != nil {
				late.Add(1)
				if len(classes(err)) != 1 {
					t.Errorf("got %v, whose outcomes are %q, want one", err, classes(err))
				}
			}
		})
		time.Sleep(25 * time.Millisecond)
	}
	wg.Wait()
	if late.Load() == 0 {
		t.Error("no message ran out of time, want many for the sake of this test")
	}
	if got := network.dialed(); got != maxConns {
		t.Errorf("%d dials, want %d", got, maxConns)
	}
}
