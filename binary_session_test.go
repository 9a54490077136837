package apns_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Twenty thousand messages over real TLS to a gateway that ends its streams in
// every way. Where it says which message it rejects, each message has the outcome
// that the gateway's records have, and none is lost, doubled or in doubt. Where it
// says nothing, no more than MaxInFlight is in doubt, since after each such end the
// barrier comes sooner.
//
// The source is "Binary Provider API" in Apple's Local and Remote Notification
// Programming Guide: the gateway names one message, closes the connection, and
// discards what was sent after it.
func TestClientOnLoopback(t *testing.T) {
	n := 20_000
	if raceEnabled {
		n /= 4
	}
	every := int64(n / 10)
	bad := func(m *apns.Message) bool { return numberOf(m)%100 == 70 } // also among the last 50
	silently := func(end apnstest.End) apnstest.Fault {
		return apnstest.Fault{Err: apns.StatusNoError, End: end}
	}
	type test struct {
		bad     apnstest.Fault // how a bad one is rejected
		nth     error          // what some good ones draw
		silent  bool           // that is an end without a packet
		refused bool           // nobody listens at first
		hasty   bool           // Shutdown is called while results are to come
		slow    bool
	}
	run := func(t *testing.T, test test) {
		if test.slow && testing.Short() {
			t.Skip("slow")
		}
		test.bad.Err = apns.StatusInvalidToken
		var good, silences atomic.Int64
		s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
			switch {
			case bad(m):
				return test.bad
			case test.nth != nil && good.Add(1)%every == 0:
				silences.Add(1)
				return test.nth
			}
			return nil
		})
		s.MaxRecords = 1 << 20 // most are of messages that the gateway discards
		s.Start()
		defer s.Close()
		c := newClient(t, s)
		if test.silent {
			c.MaxInFlight = 4096
		}
		if test.refused {
			s.RefuseConnections(true)
			defer time.AfterFunc(2*time.Second, func() { s.RefuseConnections(false) }).Stop()
		}
		var shutdown sync.WaitGroup
		shutDown := func() {
			if err := c.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		}
		got := collect(t, c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for m := range messagesFrom(1, uint32(n)) {
				if !yield(m) {
					t.Errorf("message %d was the last to be asked for, want %d", m.ID, n)
					return
				}
			}
			if test.hasty {
				shutdown.Go(shutDown)
			}
		}))
		shutdown.Wait()
		shutDown()
		sum := got.check(t, s)
		if len(got) != n {
			t.Errorf("got results of %d messages, want %d", len(got), n)
		}
		if want := (balance{Accepted: n - n/100, Rejected: n / 100}); !test.silent && sum != want {
			t.Errorf("got %+v, want %+v", sum, want)
		}
		if test.silent && (sum.InDoubt > c.MaxInFlight || sum.InDoubt == 0) {
			t.Errorf("%d are in doubt after %d silent ends, want some, and no more than the window of %d", sum.InDoubt, silences.Load(), c.MaxInFlight)
		}
		if sum.NotSent > 0 {
			t.Errorf("%d were not sent, want all to be", sum.NotSent)
		}
		wantStats(t, c, sum)
		t.Logf("%+v, %d connections, %d resent", sum, c.Stats().Connected, c.Stats().Resent)
	}
	// By itself: its port is free meanwhile, and must not be another's.
	t.Run("refused at first", func(t *testing.T) { run(t, test{refused: true, slow: true}) })
	t.Run("listening", func(t *testing.T) {
		for name, test := range map[string]test{
			"close_notify and FIN":     {bad: apnstest.Fault{End: apnstest.EndCloseNotify}},
			"together with the packet": {bad: apnstest.Fault{End: apnstest.EndOneSegment}},
			"FIN alone":                {bad: apnstest.Fault{End: apnstest.EndFIN}},
			"close":                    {bad: apnstest.Fault{End: apnstest.EndFINThenRST}},
			"reset":                    {bad: apnstest.Fault{End: apnstest.EndRST}},
			"packet in pieces":         {bad: apnstest.Fault{Split: 1}},
			"packet 50 ms late":        {bad: apnstest.Fault{Delay: 50 * time.Millisecond}, slow: true},
			"FIN without a packet":     {nth: silently(apnstest.EndFIN), silent: true},
			"close without a packet":   {nth: silently(apnstest.EndFINThenRST), silent: true},
			"reset without a packet":   {nth: silently(apnstest.EndRST), silent: true},
			"status 10":                {nth: apns.StatusShutdown},
			"Shutdown after the last":  {hasty: true},
			"Shutdown and a reset":     {bad: apnstest.Fault{End: apnstest.EndRST}, hasty: true},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, test)
			})
		}
	})
}

// The server gets the messages in the order in which they were handed over: on
// each connection, and each connection has what follows that of the one before.
func TestClientKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, window = 1000, 64
		s := inMemory(t, nil)
		c := newClient(t, s, func(c *apns.Client) { c.MaxInFlight = window })
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, n))), balance{Accepted: n})
		records := s.Records()
		slices.SortStableFunc(records, func(a, b apnstest.Record) int { return a.Conn - b.Conn })
		on := make(map[int]int)
		for i, r := range records {
			if numberOf(r.Message) != uint32(i+1) {
				t.Fatalf("on connection %d the server got message %d, want %d", r.Conn, numberOf(r.Message), i+1)
			}
			if on[r.Conn]++; on[r.Conn] > window*3/4 {
				t.Fatalf("connection %d has %d messages, want at most three quarters of %d", r.Conn, on[r.Conn], window)
			}
		}
		if resent := c.Stats().Resent; resent != 0 {
			t.Errorf("%d messages were resent, want none", resent)
		}
	})
}

// What the gateway discards after a rejection is resent in its order.
func TestClientKeepsOrderAfterRejection(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const n, bad = 1000, 400
			s := inMemory(t, onNumber(bad, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: delay}))
			c := newClient(t, s)
			got := collect(t, c.PushAll(t.Context(), messagesFrom(1, n)))
			wantOutcome(t, s, got, balance{Accepted: n - 1, Rejected: 1})
			wantPushError(t, got[bad], bad, apns.StatusInvalidToken)
			next := uint32(1)
			for _, m := range s.Messages(apnstest.Accepted) {
				if next == bad {
					next++
				}
				if numberOf(m) != next {
					t.Fatalf("delay %v: the server took message %d, want %d", delay, numberOf(m), next)
				}
				next++
			}
			if conns := c.Stats().Connected; conns != 2 {
				t.Errorf("delay %v: got %d connections, want 2", delay, conns)
			}
		})
	}
}

// A single Push has its barrier at once, if there was none within
// ConfirmInterval; otherwise when that has passed since, which many share.
func TestClientSharesBarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const confirmInterval = 3 * time.Second
		s := inMemory(t, nil)
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval = confirmInterval })
		push := func(id uint32) {
			if _, err := c.Push(t.Context(), numberedMessage(id)); err != nil {
				t.Errorf("message %d: %v", id, err)
			}
		}
		for id := range uint32(2) {
			start := time.Now()
			push(1 + id)
			wantTook(t, start, 0, confirmInterval/100)
			time.Sleep(confirmInterval)
		}
		start := time.Now()
		var callers sync.WaitGroup
		for id := range uint32(100) {
			callers.Go(func() { push(10 + id) })
		}
		callers.Wait()
		wantTook(t, start, 0, confirmInterval+confirmInterval/100)
		if conns := c.Stats().Connected; conns > 2+2 {
			t.Errorf("got %d connections for all, want 2, and at most 2 more for the 100", conns)
		}
		start = time.Now()
		for id := range uint32(10) { // the first follows the 100
			push(1000 + id)
		}
		wantTook(t, start, 9*confirmInterval, 10*confirmInterval+confirmInterval/10)
		wantStats(t, c, balance{Accepted: 2 + 100 + 10})
	})
}

// With AssumeAcceptedAfter silence is acceptance, and a rejection that comes before it counts.
func TestClientAssumesAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const settle = 5 * time.Second
		s := inMemory(t, onNumber(105, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: settle - time.Second}), func(s *apnstest.Server) {
			s.Barrier = apns.StatusNoError
		})
		c := newClient(t, s, func(c *apns.Client) { c.AssumeAcceptedAfter = settle })
		start := time.Now()
		if _, err := c.Push(t.Context(), numberedMessage(1)); err != nil {
			t.Error(err)
		}
		wantTook(t, start, settle, settle+10*time.Millisecond)
		start = time.Now()
		got := collect(t, c.PushAll(t.Context(), messagesFrom(101, 110)))
		wantTook(t, start, 2*settle-time.Second, 2*settle)
		wantOutcome(t, s, got, balance{Accepted: 9, Rejected: 1})
		wantPushError(t, got[105], 105, apns.StatusInvalidToken)
		wantStats(t, c, balance{Accepted: 10, Rejected: 1})
	})
}

// The gateway's answer names the last message that it looked at. A name that the
// Client did not give tells it nothing. The source is Table A-4 in "Binary Provider
// API", with its note on status 10: the identifier is that of the last message that
// was sent with success.
func TestClientIdentifiers(t *testing.T) {
	named := func(id uint32, status apns.Status) error { return &apns.PushError{ID: id, Status: status} }
	for name, test := range map[string]struct {
		err  error // about message 5 of 10
		want balance
	}{
		"ID 0":                     {named(0, apns.StatusProcessingError), balance{InDoubt: 10}},
		"ID 0 and a missing token": {named(0, apns.StatusMissingToken), balance{InDoubt: 10}},
		"never sent":               {named(1<<31, apns.StatusInvalidToken), balance{InDoubt: 10}},
		"one too far":              {named(12, apns.StatusInvalidToken), balance{InDoubt: 10}},
		"shutdown, never sent":     {named(1<<31, apns.StatusShutdown), balance{InDoubt: 10}},
		"shutdown":                 {apns.StatusShutdown, balance{Accepted: 10}},
		"status 42":                {apns.Status(42), balance{Accepted: 9, Rejected: 1}},
		"status 255":               {apns.StatusUnknown, balance{Accepted: 9, Rejected: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Late enough for all to be written before.
				s := inMemory(t, onNumber(5, apnstest.Fault{Err: test.err, Delay: time.Second}))
				c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval = time.Hour })
				got := collect(t, c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
					for m := range messagesFrom(1, 10) {
						if !yield(m) {
							return
						}
					}
					time.Sleep(2 * time.Second) // so that there is no barrier yet
				}))
				wantOutcome(t, s, got, test.want)
				if status, ok := test.err.(apns.Status); ok && test.want.Rejected > 0 {
					wantPushError(t, got[5], 5, status)
				}
				wantStats(t, c, test.want)
			})
		})
	}
	for _, status := range []apns.Status{apns.StatusMissingToken, apns.StatusMissingPayload} {
		t.Run(fmt.Sprintf("barrier without ID, status %d", status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = named(0, status) })
				c := newClient(t, s)
				wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 10))), balance{Accepted: 10})
			})
		})
	}
}

// A message with an ID of its own, which may be that of others, has it in the
// error, whatever the identifier on the wire is; and one that breaks a rule is not
// sent and disturbs no other.
func TestClientMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, onNumber(3, apns.StatusInvalidToken))
		c := newClient(t, s)
		var msgs []*apns.Message
		for i := range uint32(6) {
			m := numberedMessage(i)
			m.ID = 7
			msgs = append(msgs, m)
		}
		msgs[1].Payload = nil
		msgs[4].Token = "no hexadecimal"
		msgs[5] = nil
		got := make(map[*apns.Message]error)
		for r := range c.PushAll(t.Context(), slices.Values(msgs)) {
			got[r.Message] = r.Err
		}
		if len(got) != len(msgs) {
			t.Errorf("got %d results, want %d", len(got), len(msgs))
		}
		wantErr(t, got[msgs[1]], apns.StatusMissingPayload)
		wantPushError(t, got[msgs[3]], 7, apns.StatusInvalidToken)
		wantErr(t, got[msgs[4]], apns.StatusInvalidToken)
		wantErr(t, got[nil], apns.StatusMissingToken)
		if want := "the message is nil"; !strings.Contains(fmt.Sprint(got[nil]), want) {
			t.Errorf("got %v, want %s", got[nil], want)
		}
		if got[msgs[0]] != nil || got[msgs[2]] != nil {
			t.Errorf("got %v and %v for good messages", got[msgs[0]], got[msgs[2]])
		}
		_, err := c.Push(t.Context(), nil)
		wantErr(t, err, apns.StatusMissingToken)
		wantStats(t, c, balance{Accepted: 2, Rejected: 1})
		if n := c.Stats().Invalid; n != 4 {
			t.Errorf("Stats().Invalid is %d, want 4", n)
		}
	})
}

// At the end of PushAll there is a barrier at once, also for what is resent
// after a rejection; and not for the next one who comes after it.
func TestClientBarrierAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const confirmInterval = time.Hour
		s := inMemory(t, onNumber(5, apns.StatusInvalidToken))
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval, c.Timeout = confirmInterval, 24*time.Hour })
		start := time.Now()
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 10))), balance{Accepted: 9, Rejected: 1})
		wantTook(t, start, 0, time.Second)

		back := make(chan bool, 1)
		for range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			yield(numberedMessage(11))
			<-back // everything is proved when msgs returns
		}) {
			back <- true
		}
		start = time.Now()
		if _, err := c.Push(t.Context(), numberedMessage(12)); err != nil {
			t.Error(err)
		}
		wantTook(t, start, confirmInterval-time.Second, confirmInterval)
	})
}

// A gateway that is slow to read gets barriers as often as another, so
// that each message has its outcome in time, and the next connection is there by then.
func TestClientSlowGateway(t *testing.T) {
	for _, test := range []struct {
		pause       time.Duration // for each message
		window, n   int
		most, total time.Duration // between two results, and for all
	}{
		{5 * time.Millisecond, 3000, 10000, 6 * time.Second, 50 * time.Second},
		{200 * time.Microsecond, 40000, 40000, 2 * time.Second, 9 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(*apns.Message) error {
				time.Sleep(test.pause)
				return nil
			}, func(s *apnstest.Server) { s.BufferSize = 4 << 10 })
			c := newClient(t, s, func(c *apns.Client) { c.MaxInFlight = test.window })
			dial := c.Config.DialContext
			c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				time.Sleep(400 * time.Millisecond)
				return dial(ctx, network, addr)
			}
			start := time.Now()
			last := start
			got := make(outcomes)
			for r := range c.PushAll(t.Context(), messagesFrom(1, uint32(test.n))) {
				got.add(t, r)
				wantTook(t, last, 0, test.most)
				last = time.Now()
			}
			wantTook(t, start, 0, test.total)
			wantOutcome(t, s, got, balance{Accepted: test.n})
		})
	}
}
