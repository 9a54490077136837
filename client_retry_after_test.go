package apns_test

import (
	"context"
	"fmt"
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

func unavailableFor(d time.Duration) error {
	return &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: d}
}

// A Retry-After on a 5xx holds back all messages of a Client with one connection: the
// server gets none before it has passed, or a minute if it is longer. Then all are
// accepted.
func TestRetryAfterPausesClient(t *testing.T) {
	for _, status := range []error{
		&apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable},
		&apns.PushError{HTTPStatus: 503, Reason: "Service Unavailable"},
		&apns.PushError{HTTPStatus: 500, Reason: apns.ReasonInternalServerError},
	} {
		for _, after := range []time.Duration{time.Second, 20 * time.Second, time.Minute, time.Hour} {
			for _, n := range []int{1, 3, 100, 500} {
				t.Run(fmt.Sprintf("%v, %v, %d messages", status, after, n), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testRetryAfterPausesClient(t, status, after, n) })
				})
			}
		}
	}
}

func testRetryAfterPausesClient(t *testing.T, status error, after time.Duration, n int) {
	answer := *status.(*apns.PushError)
	answer.RetryAfter = after
	start := time.Now()
	wait := min(after, time.Minute)
	server := inMemory(t, func(*apns.Message) error {
		if time.Since(start) < wait {
			return &answer
		}
		return nil
	})
	c := newNetwork(server).client(t, func(c *apns.Client) { c.Timeout = 10 * time.Minute })
	var wg sync.WaitGroup
	wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, n)) })
	synctest.Wait()
	first := len(server.Records())
	wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 200)) })
	time.Sleep(wait - time.Millisecond)
	if got := len(server.Records()) - first; got > 0 {
		t.Errorf("the server got %d messages during the pause, want none", got)
	}
	if s := c.Stats(); s.InFlight != 0 || s.Waiting != uint64(n+200) {
		t.Errorf("Stats are %+v, want %d waiting and none in flight", s, n+200)
	}
	wg.Wait()
	wantTook(t, start, wait, wait+2*time.Second)
}

// It pauses that connection alone: others go on.
func TestRetryAfterPausesConnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var isBad atomic.Bool
		slow := func(*apns.Message) error {
			if isBad.Load() {
				return unavailableFor(30 * time.Second)
			}
			return answerAfter(time.Second)
		}
		limit := func(s *apnstest.Server) { s.StreamLimit = 10 }
		first := inMemory(t, slow, limit)
		second := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, limit)
		network := newNetwork(first, second)
		c := network.client(t, func(c *apns.Client) { c.MaxConns = 2 })
		wantAccepted(t, allAtOnce(t.Context(), c, 100))
		if got := network.dialed(); got != 2 {
			t.Fatalf("%d dials, want 2, for the sake of this test", got)
		}
		isBad.Store(true)
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 1)) }) // on the first one
		synctest.Wait()
		firstHad, secondHad := len(first.Records()), len(second.Records())
		isBad.Store(false)
		start := time.Now()
		wantAccepted(t, allAtOnce(t.Context(), c, 50))
		wantTook(t, start, 5*time.Second, 6*time.Second)
		if got := len(first.Records()) - firstHad; got != 0 {
			t.Errorf("the paused connection got %d messages, want none", got)
		}
		if got := len(second.Records()) - secondHad; got != 50 {
			t.Errorf("the other connection got %d messages, want 50", got)
		}
		wg.Wait() // 30 s and a second
		wantAccepted(t, allAtOnce(t.Context(), c, 5))
		if got := len(first.Records()) - firstHad; got == 0 {
			t.Error("after the pause the connection got no message, want some")
		}
		if got := network.dialed(); got != 2 {
			t.Errorf("%d dials, want 2", got)
		}
	})
}

// While all connections are paused the Client is, and goes on when the first pause ends.
func TestRetryAfterPausesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := [2]atomic.Int64{}
		serve := func(i int) *apnstest.Server {
			return inMemory(t, func(*apns.Message) error {
				if after := answers[i].Load(); after > 0 {
					return unavailableFor(time.Duration(after) * time.Second)
				}
				return answerAfter(time.Second)
			}, func(s *apnstest.Server) { s.StreamLimit = 10 })
		}
		servers := []*apnstest.Server{serve(0), serve(1)}
		network := newNetwork(servers...)
		c := network.client(t, func(c *apns.Client) { c.MaxConns, c.Timeout = 2, 5*time.Minute })
		wantAccepted(t, allAtOnce(t.Context(), c, 100))
		answers[0].Store(40)
		answers[1].Store(20)
		var wg sync.WaitGroup
		for i := range 2 { // one message for each connection
			wg.Go(func() { c.Push(t.Context(), device(i)) })
			synctest.Wait()
		}
		answers[0].Store(0)
		answers[1].Store(0)
		had := []int{len(servers[0].Records()), len(servers[1].Records())}
		start := time.Now()
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 5)) })
		time.Sleep(20*time.Second - time.Millisecond)
		if a, b := len(servers[0].Records()), len(servers[1].Records()); a != had[0] || b != had[1] {
			t.Errorf("the servers got %d and %d messages while all were paused, want none", a-had[0], b-had[1])
		}
		time.Sleep(2 * time.Second)
		if a, b := len(servers[0].Records()), len(servers[1].Records()); a != had[0] || b < had[1]+5 {
			t.Errorf("the servers got %d and %d messages when one pause had ended, want none and 5 or more", a-had[0], b-had[1])
		}
		wg.Wait()
		wantTook(t, start, 40*time.Second, 42*time.Second)
		if got := network.dialed(); got != 2 {
			t.Errorf("%d dials, want 2", got)
		}
	})
}

// The longest of several pauses counts, whatever the order of the answers.
func TestRetryAfterLongest(t *testing.T) {
	for _, waits := range [][]time.Duration{{30 * time.Second, 5 * time.Second}, {5 * time.Second, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			// Both messages are in flight before the first is answered.
			server := inMemory(t, inTurn(
				apnstest.Fault{Err: unavailableFor(waits[0]), Delay: time.Second},
				apnstest.Fault{Err: unavailableFor(waits[1]), Delay: time.Second},
			))
			c := newNetwork(server).client(t)
			var wg sync.WaitGroup
			wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 2)) })
			time.Sleep(time.Second)
			synctest.Wait()
			start := time.Now()
			_, err := c.Push(t.Context(), device(2))
			wantClass(t, err, "accepted")
			wantTook(t, start, 30*time.Second, 31*time.Second)
			wg.Wait()
		})
	}
}

// An acceptance ends the pause: the server takes messages again.
func TestAcceptanceEndsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(answerAfter(5*time.Second), unavailableFor(50*time.Second)))
		c := newNetwork(server).client(t)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 2)) })
		synctest.Wait()
		wantAccepted(t, allAtOnce(t.Context(), c, 10))
		wantTook(t, start, 5*time.Second, 5*time.Second)
		wg.Wait()
		wantTook(t, start, 50*time.Second, 51*time.Second) // the message that it was said of
	})
}

// A rejection is about its message, and does not end the pause.
func TestRejectionEndsNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := apnstest.Fault{Err: apns.ReasonBadDeviceToken, Delay: 5 * time.Second}
		server := inMemory(t, inTurn(late, unavailableFor(30*time.Second)))
		c := newNetwork(server).client(t)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { allAtOnce(t.Context(), c, 2) })
		synctest.Wait()
		wantAccepted(t, allAtOnce(t.Context(), c, 10))
		wantTook(t, start, 30*time.Second, 31*time.Second)
		wg.Wait()
	})
}

// A message whose time ends before the pause does fails at once: it was not sent, and the
// error has the server's reason; or it has the last answer that the message got.
func TestRetryAfterTooLate(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(unavailableFor(40*time.Second)))
			c := newNetwork(server).client(t, func(c *apns.Client) { c.Timeout = 30 * time.Second })
			push := func(n int) error { return pushOne(t.Context(), c, device(n), all) }
			start := time.Now()
			err := push(1)
			wantClass(t, err, "rejected", apns.ReasonServiceUnavailable)
			for i := range 10 {
				err := push(2 + i)
				wantClass(t, err, "not sent", apns.ReasonServiceUnavailable)
				if strings.Count(err.Error(), "apns: ") != 1 {
					t.Errorf("got %q, want the prefix once", err)
				}
			}
			wantTook(t, start, 0, 0)
			if got := len(server.Records()); got != 1 {
				t.Errorf("the server got %d messages, want 1", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_, err = c.Push(ctx, device(100))
			wantClass(t, err, "accepted")
			wantTook(t, start, 40*time.Second, 41*time.Second)
		})
	}
}

// So do those that wait already, those that were sent before, and those that back off.
func TestRetryAfterTooLateForWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 2
		answers := map[string]error{
			device(0).Token: apnstest.Fault{Err: unavailableFor(40 * time.Second), Delay: 3 * time.Second},
			device(1).Token: apns.ReasonTooManyRequests, // it is resent after a second, and waits again
		}
		var seen sync.Map
		server := inMemory(t, func(m *apns.Message) error {
			if _, before := seen.LoadOrStore(m.Token, true); before {
				return answerAfter(time.Hour)
			}
			if answer, ok := answers[m.Token]; ok {
				return answer
			}
			return answerAfter(time.Hour)
		}, func(s *apnstest.Server) { s.StreamLimit = limit })
		c := newNetwork(server).client(t, func(c *apns.Client) { c.MaxConns, c.Timeout = 1, 30*time.Second })
		var wg sync.WaitGroup
		push := func(n int, want string, reason error) {
			wg.Go(func() {
				start := time.Now()
				_, err := c.Push(t.Context(), device(n))
				wantClass(t, err, want, reason)
				wantTook(t, start, 3*time.Second, 3*time.Second)
			})
			synctest.Wait()
		}
		push(0, "rejected", apns.ReasonServiceUnavailable)
		push(1, "rejected", apns.ReasonTooManyRequests)
		wg.Go(func() { // has the other stream, for good
			_, err := c.Push(t.Context(), device(2))
			wantClass(t, err, "in doubt", context.DeadlineExceeded)
		})
		synctest.Wait()
		push(3, "not sent", apns.ReasonServiceUnavailable)
		wg.Wait()
	})
}

// A 429 with Retry-After holds back its message alone, for at most a minute.
func TestRetryAfterOfOneMessage(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			server := inMemory(t, func(m *apns.Message) error {
				if m.Token == device(0).Token && time.Since(start) < min(after, time.Minute) {
					return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
				}
				return nil
			})
			network := newNetwork(server)
			c := network.client(t, func(c *apns.Client) { c.Timeout = time.Hour })
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := c.Push(t.Context(), device(0))
				wantClass(t, err, "accepted")
				wantTook(t, start, min(after, time.Minute), min(after, time.Minute)+time.Second)
			})
			synctest.Wait()
			wantAccepted(t, allAtOnce(t.Context(), c, 300)[1:])
			for i := range 10 {
				if _, err := c.Push(t.Context(), device(1+i)); err != nil {
					t.Error(err)
				}
			}
			if after > 0 {
				var conns []int
				for _, r := range server.Records() {
					conns = append(conns, r.Conn)
				}
				if slices.Max(conns) != 1 {
					t.Errorf("the messages came on the connections %v, want one", conns)
				}
			}
			wg.Wait()
		})
	}
}

// PushError.RetryAfter is what the server says, and has no cap.
func TestRetryAfterIsNotCapped(t *testing.T) {
	for _, answer := range []apns.PushError{
		{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: 5 * time.Hour},
		{HTTPStatus: 500, Reason: apns.ReasonInternalServerError, RetryAfter: 61 * time.Second},
		{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 24 * time.Hour},
		{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken, RetryAfter: time.Hour},
	} {
		for _, all := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := newNetwork(inMemory(t, always(&answer))).client(t, func(c *apns.Client) { c.Attempts = 1 })
				want := answer
				want.ID = 7
				wantAnswer(t, pushOne(t.Context(), c, message(7), all), want)
			})
		}
	}
}

// pushOne sends a message with Push, or with PushAll.
func pushOne(ctx context.Context, c *apns.Client, m *apns.Message, all bool) (err error) {
	if !all {
		_, err = c.Push(ctx, m)
		return err
	}
	for r := range c.PushAll(ctx, slices.Values([]*apns.Message{m})) {
		err = r.Err
	}
	return err
}
