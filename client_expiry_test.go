package apns_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// expiring returns a message that expires after a while.
func expiring(n int, after time.Duration) *apns.Message {
	m := device(n)
	m.Expiry = time.Now().Add(after)
	return m
}

// onBothProtocols runs a test in a bubble for both protocols, and for Push and PushAll.
func onBothProtocols(t *testing.T, test func(t *testing.T, protocol string, all bool)) {
	for _, protocol := range []string{"h2", ""} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("protocol %q, PushAll %v", protocol, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, protocol, all) })
			})
		}
	}
}

// A message whose Expiry passes while there is no connection is not sent when there is one
// again; others are.
func TestExpiresWhileDisconnected(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t)
		time.AfterFunc(20*time.Second, func() { server.RefuseConnections(false) })
		var wg sync.WaitGroup
		for i, after := range []time.Duration{-time.Hour, 10 * time.Second, 19 * time.Second, time.Minute, 0} {
			wg.Go(func() {
				m := expiring(i, after)
				want := "accepted"
				switch {
				case after == 0:
					m.Expiry = time.Time{}
				case after > 0 && after < 20*time.Second:
					want = "expired"
				}
				err := pushOne(t.Context(), c, m, all)
				wantClass(t, err, want)
				if want == "expired" && !errors.Is(err, apns.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		times := acceptedTimes(server)
		if len(times) != 3 || len(server.Records()) != 3 || times[device(1).Token]+times[device(2).Token] != 0 {
			t.Errorf("the server accepted %v, want the three messages that had not expired, or had before", times)
		}
		if s := c.Stats(); s.Expired != 2 || s.Accepted != 3 || s.NotSent != 0 {
			t.Errorf("Stats are %+v, want 2 expired and 3 accepted", s)
		}
	})
}

// A message whose Expiry passes during an outage has expired, also if its time ends, its
// context is cancelled or the Client is closed before there is a connection.
func TestExpiresBeforeItsTimeEnds(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) { c.Timeout = 30 * time.Second })
		soon, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i, after := range []time.Duration{10 * time.Second, time.Hour} {
			want := []string{"expired", "not sent"}[i]
			for j, ctx := range []context.Context{t.Context(), soon} {
				wg.Go(func() { wantClass(t, pushOne(ctx, c, expiring(10*i+j, after), all), want) })
			}
		}
		wg.Wait()
		wg.Go(func() { wantClass(t, pushOne(t.Context(), c, expiring(20, 5*time.Second), all), "expired") })
		wg.Go(func() { wantClass(t, pushOne(t.Context(), c, expiring(21, time.Minute), all), "not sent") })
		time.Sleep(10 * time.Second)
		c.Close()
		wg.Wait()
	})
}

// A message that has expired when it is handed over is sent as it is, with its Expiry: the
// server then tries to deliver it once.
func TestExpiredBefore(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, nil)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t)
		for i, ago := range []time.Duration{time.Second, time.Minute, 24 * time.Hour} {
			m := expiring(i, -ago)
			wantClass(t, pushOne(t.Context(), c, m, all), "accepted")
			synctest.Wait()
			if got := server.Records()[i].Message.Expiry; !got.Equal(m.Expiry.Truncate(time.Second)) {
				t.Errorf("the server got the Expiry %v, want %v", got, m.Expiry)
			}
		}
	})
}

// A message that waits for a stream, or for MaxInFlight, expires, too, and costs no attempt.
func TestExpiresWhileQueued(t *testing.T) {
	for _, all := range []bool{false, true} {
		testExpiresWhileQueued(t, all, 1, 0)
		testExpiresWhileQueued(t, all, 1000, 1)
	}
}

func testExpiresWhileQueued(t *testing.T, all bool, streams, maxInFlight int) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(answerAfter(10*time.Second)), func(s *apnstest.Server) { s.StreamLimit = streams })
		attempts := 0
		c := newNetwork(server).client(t, func(c *apns.Client) {
			c.MaxConns, c.MaxInFlight = 1, maxInFlight
			c.OnAttempt = func(context.Context, apns.Attempt) { attempts++ }
		})
		var wg sync.WaitGroup
		wg.Go(func() { wantClass(t, pushOne(t.Context(), c, device(0), all), "accepted") })
		synctest.Wait()
		wg.Go(func() { wantClass(t, pushOne(t.Context(), c, expiring(1, 5*time.Second), all), "expired") })
		synctest.Wait()
		wg.Go(func() { wantClass(t, pushOne(t.Context(), c, expiring(2, 15*time.Second), all), "accepted") })
		wg.Wait()
		if got := len(server.Records()); got != 2 || attempts != 2 {
			t.Errorf("the server got %d messages, and %d attempts were reported, want 2 and 2", got, attempts)
		}
	})
}

// A message that was sent, was not accepted and waits to be resent expires as well. That it
// was sent does not matter: the server said that it had not accepted it. If it had said
// nothing, the message is in doubt.
func TestExpiresWhileBackingOff(t *testing.T) {
	wait := &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 10 * time.Second}
	for name, test := range map[string]struct {
		answers []error
		want    string
		sent    int
	}{
		"429":             {[]error{wait}, "expired", 1},
		"503":             {[]error{unavailableFor(10 * time.Second)}, "expired", 1},
		"too many tokens": {[]error{apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyProviderTokenUpdates}, "expired", 3},
		"in doubt, 429":   {[]error{apnstest.Fault{End: apnstest.EndRST}, wait}, "in doubt", 2},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, PushAll %v", name, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(test.answers...))
					c := newNetwork(server).client(t, func(c *apns.Client) { c.InDoubt = apns.InDoubtResend })
					wantClass(t, pushOne(t.Context(), c, expiring(1, 3*time.Second), all), test.want)
					if got := len(server.Records()); got != test.sent {
						t.Errorf("the server got the message %d times, want %d", got, test.sent)
					}
				})
			})
		}
	}
}

// On the binary protocol a message that a gateway discards, since it came after one that it
// rejected, is not resent once it has expired.
func TestExpiresAfterRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, onNumber(0, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: 10 * time.Second}))
		network := newNetwork(server)
		network.protocol = ""
		c := network.client(t, func(c *apns.Client) { c.ConfirmInterval = time.Hour })
		results := make(map[uint32]error)
		for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
			for _, m := range []*apns.Message{device(0), expiring(1, 5*time.Second), expiring(2, time.Minute)} {
				if !yield(m) {
					return
				}
			}
		}) {
			results[r.Message.ID] = r.Err
		}
		wantClass(t, results[0], "rejected")
		wantClass(t, results[1], "expired")
		wantClass(t, results[2], "accepted")
		if got := acceptedTimes(server); got[device(1).Token] != 0 || got[device(2).Token] != 1 {
			t.Errorf("the server accepted %v, want message 2 alone", got)
		}
	})
}

// If neither its Expiry nor its time leaves it a connection, a message has one outcome.
func TestExpiryAndTimeout(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) { c.Timeout = 30 * time.Second })
		start := time.Now()
		err := pushOne(t.Context(), c, expiring(1, 10*time.Second), all)
		if got := classes(err); len(got) != 1 || got[0] != "expired" && got[0] != "not sent" {
			t.Errorf("got %v, whose outcomes are %q, want one of expired and not sent", err, got)
		}
		wantTook(t, start, 10*time.Second, 40*time.Second)
	})
}
