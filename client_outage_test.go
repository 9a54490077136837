package apns_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// An outage of two minutes: dials become fewer, but there is one in each ten seconds, so
// that messages are accepted within ten seconds after the end. That holds for those that
// were handed over during the outage, and for those of a Client that was connected before.
func TestOutage(t *testing.T) {
	for _, connected := range []bool{false, true} {
		for _, maxBackoff := range []time.Duration{0, time.Second, 30 * time.Second} {
			t.Run(fmt.Sprintf("connected before %v, MaxDialBackoff %v", connected, maxBackoff), func(t *testing.T) {
				onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
					testOutage(t, protocol, all, connected, maxBackoff)
				})
			})
		}
	}
}

func testOutage(t *testing.T, protocol string, all, connected bool, maxBackoff time.Duration) {
	const outage = 2 * time.Minute
	server := inMemory(t, func(m *apns.Message) error {
		if m.Token == device(0).Token {
			return apnstest.Fault{Err: apns.StatusShutdown, End: apnstest.EndGoAway} // accepted, and the last one
		}
		return nil
	})
	network := newNetwork(server)
	network.protocol = protocol
	c := network.client(t, func(c *apns.Client) { c.MaxDialBackoff, c.Timeout = maxBackoff, 10*time.Minute })
	if maxBackoff == 0 {
		maxBackoff = 10 * time.Second
	}
	if connected {
		wantClass(t, pushOne(t.Context(), c, device(0), all), "accepted")
	}
	server.RefuseConnections(true)
	time.AfterFunc(outage, func() { server.RefuseConnections(false) })
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			wantClass(t, pushOne(t.Context(), c, device(1+i), all), "accepted")
			wantTook(t, start, outage, outage+maxBackoff+2*time.Second) // a barrier's time
		})
	}
	wg.Wait()
	if got, most := network.dialed(), 10+int(2*outage/maxBackoff); got < 5 || got > most {
		t.Errorf("%d dials in two minutes, want 5 to %d", got, most)
	}
	if s := c.Stats(); s.NotSent+s.InDoubt != 0 {
		t.Errorf("Stats are %+v, want all accepted", s)
	}
}

// A message whose deadline ends before the next dial fails at once, and says why there is
// no connection.
func TestOutageFailsAtOnce(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) { c.Timeout = 2 * time.Second })
		var wg sync.WaitGroup
		wg.Go(func() { // keeps the Client dialing
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			_, err := c.Push(ctx, device(0))
			wantClass(t, err, "accepted")
		})
		time.Sleep(time.Minute)
		atOnce, later := 0, 0
		for i := range 200 {
			start := time.Now()
			err := pushOne(t.Context(), c, device(1+i), all)
			wantClass(t, err, "not sent", context.DeadlineExceeded)
			if !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("got %v, want one that says connection refused as well", err)
			}
			if time.Since(start) == 0 {
				atOnce++
			} else {
				later++
			}
			time.Sleep(time.Second / 2)
		}
		if atOnce < later {
			t.Errorf("%d messages failed at once, and %d later; want more at once, since the back-off is 5 to 10 s and they have 2 s", atOnce, later)
		}
		server.RefuseConnections(false)
		wg.Wait()
	})
}

// PushAll has no message fail at once whose Timeout is longer than the back-off.
func TestOutageWithDeadlineOfPushAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		c := newNetwork(server).client(t)
		time.AfterFunc(30*time.Second, func() { server.RefuseConnections(false) })
		for r := range c.PushAll(t.Context(), devices(3000)) {
			if r.Err != nil {
				t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
			}
		}
	})
}

// While a connection is open or being dialed, no message fails because the next dial is due
// later: it may be sent over that one.
func TestNextDialDoesNotMatterWhileConnected(t *testing.T) {
	t.Run("dialing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, nil)
			server.RefuseConnections(true)
			network := newNetwork(server)
			network.takes = 3 * time.Second
			c := network.client(t)
			var wg sync.WaitGroup
			wg.Go(func() { c.Push(t.Context(), device(0)) })
			// The back-off is 5 to 10 s by now. Messages come during the last dial.
			time.Sleep(time.Minute / 2)
			for n := network.dialed(); network.dialed() == n; {
				time.Sleep(10 * time.Millisecond)
			}
			server.RefuseConnections(false)
			ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
			defer cancel()
			_, err := c.Push(ctx, device(1))
			wantClass(t, err, "accepted")
			wg.Wait()
		})
	})
	t.Run("connected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// The one connection has failed, and its replacement cannot be dialed.
			answers := inTurn(apns.ReasonInternalServerError, apns.ReasonInternalServerError, apns.ReasonInternalServerError, apns.ReasonInternalServerError, apns.ReasonInternalServerError, apns.ReasonInternalServerError)
			server := inMemory(t, answers)
			network := newNetwork(server)
			c := network.client(t, func(c *apns.Client) { c.Attempts = 1 })
			for i := range 6 {
				_, err := c.Push(t.Context(), device(i))
				wantClass(t, err, "rejected")
				server.RefuseConnections(true)
			}
			for i := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				_, err := c.Push(ctx, device(10+i))
				cancel()
				wantClass(t, err, "accepted")
				time.Sleep(time.Second)
			}
		})
	})
}
