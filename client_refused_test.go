package apns_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A sender that the server refuses: each message of a PushAll ends at once with ErrNotSent,
// ErrRefused and the reason, and so does each that comes before the next attempt. None has
// a *PushError, since it is not about the message.
func TestRefusedSender(t *testing.T) {
	for _, reason := range []apns.Reason{
		apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonInvalidProviderToken,
		apns.ReasonMissingProviderToken, apns.ReasonBadEnvironmentKeyIDInToken, "BadEnvironmentKeyInToken",
	} {
		for _, n := range []int{1, 100, 3000} {
			t.Run(fmt.Sprintf("%s, %d messages", reason, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var healed atomic.Bool
					server := inMemory(t, func(*apns.Message) error {
						if healed.Load() {
							return nil
						}
						return reason
					})
					c := newNetwork(server).client(t)
					start, got := time.Now(), 0
					for r := range c.PushAll(t.Context(), devices(n)) {
						got++
						wantClass(t, r.Err, "not sent", apns.ErrRefused, reason)
					}
					wantTook(t, start, 0, 2*time.Second)
					if got != n {
						t.Errorf("got %d results, want %d", got, n)
					}
					if heard := len(server.Records()); heard > 300 {
						t.Errorf("the server got %d messages, want a few hundred at most", heard)
					}
					if s := c.Stats(); s.NotSent != uint64(n) || len(s.Rejected) != 0 || s.InDoubt != 0 {
						t.Errorf("Stats are %+v, want %d not sent", s, n)
					}
					healed.Store(true)
					time.Sleep(2 * time.Minute)
					wantAccepted(t, allAtOnce(t.Context(), c, 10))
				})
			})
		}
	}
}

// If the connection ends after the server has refused the sender, the answer stands: until
// the next attempt is due, each message gets it at once, and there are no more attempts
// than with a connection that stays open.
func TestRefusedAndClosed(t *testing.T) {
	for _, before := range []int{0, 10} { // messages that were accepted on the connection
		attempts := make(map[bool]int)
		for _, closes := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(m *apns.Message) error {
					if m.Token < device(100).Token {
						return nil
					}
					return apns.ReasonInvalidProviderToken
				})
				network := newNetwork(server)
				c := network.client(t)
				for i := range before {
					wantClass(t, pushOne(t.Context(), c, device(i), false), "accepted")
				}
				for i := range 100 {
					start := time.Now()
					wantClass(t, pushOne(t.Context(), c, device(100+i), false), "not sent", apns.ErrRefused, apns.ReasonInvalidProviderToken)
					wantTook(t, start, 0, 0)
					if closes {
						network.conn(network.dialed() - 1).Conn.Close()
					}
					time.Sleep(time.Second)
				}
				attempts[closes] = len(server.Messages(apnstest.Rejected))
			})
		}
		if attempts[true] > attempts[false]+1 || attempts[true] < attempts[false]-1 {
			t.Errorf("%d messages before: %d attempts where the connection is closed, and %d where it stays open, want as many", before, attempts[true], attempts[false])
		}
	}
}

// One that is refused after it has sent for a while, too: the messages in flight have their
// answers, and the rest wait for nothing.
func TestRefusedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		server := inMemory(t, func(*apns.Message) error {
			if n.Add(1) > 500 {
				return apns.ReasonInvalidProviderToken
			}
			return nil
		})
		c := newNetwork(server).client(t)
		accepted, refused := 0, 0
		for r := range c.PushAll(t.Context(), devices(5000)) {
			if r.Err == nil {
				accepted++
				continue
			}
			refused++
			wantClass(t, r.Err, "not sent", apns.ErrRefused, apns.ReasonInvalidProviderToken)
		}
		if accepted != 500 || refused != 4500 {
			t.Errorf("%d were accepted and %d refused, want 500 and 4500", accepted, refused)
		}
	})
}

// A message whose attempts run out has the server's last answer: a *PushError that is
// Retryable.
func TestAttemptsRunOut(t *testing.T) {
	for _, answer := range []apns.PushError{
		{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests},
		{HTTPStatus: 500, Reason: apns.ReasonInternalServerError},
		{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable},
		{HTTPStatus: 503, Reason: "Service Unavailable"},
		{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Second},
	} {
		for _, attempts := range []int{1, 2, 5} {
			for _, all := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, %d attempts, PushAll %v", &answer, attempts, all), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						server := inMemory(t, always(&answer))
						c := newNetwork(server).client(t, func(c *apns.Client) { c.Attempts = attempts })
						err := pushOne(t.Context(), c, message(7), all)
						want := answer
						want.ID = 7
						wantAnswer(t, err, want)
						wantClass(t, err, "rejected", answer.Reason)
						if e, ok := err.(*apns.PushError); !ok || !e.Retryable() {
							t.Errorf("got %v, want it Retryable", err)
						}
						if got := len(server.Messages(apnstest.Rejected)); got != attempts {
							t.Errorf("the server rejected it %d times, want %d", got, attempts)
						}
					})
				})
			}
		}
	}
}
