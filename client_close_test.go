package apns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Close ends everything, whatever the Client is about, and says of each message
// what is true.
func TestClientClose(t *testing.T) {
	deaf := func(s *apnstest.Server) {
		s.BufferSize = 1000
		s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
	}
	for name, test := range map[string]struct {
		set  func(*apnstest.Server)
		dial dialer
		want error // of a Push
	}{
		"dialing": {dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, want: apns.ErrNotSent},
		"waiting to dial": {dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, syscall.ECONNREFUSED
		}, want: apns.ErrNotSent},
		"in the handshake": {dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go io.Copy(io.Discard, server)
			return client, nil
		}, want: apns.ErrNotSent},
		"waiting for the barrier": {set: func(s *apnstest.Server) { s.Barrier = apns.StatusNoError }, want: apns.ErrInDoubt},
		"writing":                 {set: deaf, want: apns.ErrInDoubt},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) {
					if test.set != nil {
						test.set(s)
					}
				})
				c := newClient(t, s)
				if test.dial != nil {
					c.Config.DialContext = test.dial
				}
				var callers sync.WaitGroup
				for id := range uint32(10) {
					callers.Go(func() {
						_, err := c.Push(t.Context(), numberedMessage(1+id))
						if want := test.want; name == "writing" && errors.Is(err, apns.ErrNotSent) {
							wantErr(t, err, apns.ErrNotSent, net.ErrClosed) // there was no room for it
						} else {
							wantErr(t, err, want, net.ErrClosed)
						}
					})
				}
				var got outcomes
				callers.Go(func() { got = collect(t, c.PushAll(t.Context(), messagesFrom(1001, 1200))) })
				time.Sleep(5 * time.Second)
				start := time.Now()
				for range 2 {
					callers.Go(func() {
						if err := c.Close(); err != nil {
							t.Errorf("Close: %v", err)
						}
					})
				}
				callers.Wait()
				wantTook(t, start, 0, time.Second)
				if err := c.Close(); err != nil {
					t.Errorf("Close again: %v", err)
				}
				sum := got.check(t, s)
				if len(got) != 200 || sum.NotSent+sum.InDoubt != 200 {
					t.Errorf("got %+v of %d messages, want 200, not sent or in doubt", sum, len(got))
				}
				for _, err := range got {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("got %v, want one that matches %v", err, net.ErrClosed)
						break
					}
				}
				if stats := c.Stats(); stats.NotSent+stats.InDoubt != 210 || stats.InFlight != 0 {
					t.Errorf("Stats: got %+v, want 210 not sent or in doubt", stats)
				}
				wantIdle(t)

				_, err := c.Push(t.Context(), numberedMessage(1))
				wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
				for id, err := range collect(t, c.PushAll(t.Context(), messagesFrom(1, 10))) {
					if wantErr(t, err, apns.ErrNotSent, net.ErrClosed); t.Failed() {
						t.Fatalf("message %d", id)
					}
				}
			})
		})
	}
	t.Run("unused", func(t *testing.T) {
		for range 2 {
			var c, d apns.Client
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := d.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
			wantStats(t, &c, balance{NotSent: 1})
		}
	})
}

// Close and Push at the same time: each message has an outcome, and it is true.
func TestClientCloseWhilePushing(t *testing.T) {
	for pause := range 30 {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(*apns.Message) error {
				time.Sleep(time.Millisecond)
				return nil
			})
			c := newClient(t, s)
			got := make(outcomes)
			var mu sync.Mutex
			var callers sync.WaitGroup
			for id := range uint32(20) {
				callers.Go(func() {
					time.Sleep(time.Duration(id) * time.Millisecond)
					m := numberedMessage(id)
					_, err := c.Push(t.Context(), m)
					mu.Lock()
					defer mu.Unlock()
					got.add(t, apns.Result{Message: m, Err: err})
				})
			}
			time.Sleep(time.Duration(pause) * time.Millisecond)
			if pause%2 == 0 {
				c.Close()
			} else if err := c.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			callers.Wait()
			sum := got.check(t, s)
			if len(got) != 20 || pause%2 == 1 && sum.InDoubt > 0 {
				t.Errorf("after %d ms: got %d results, %+v", pause, len(got), sum)
			}
			wantStats(t, c, sum)
		})
	}
}

// Shutdown refuses new messages and waits for those that there are; when its
// context ends it gives up, and Close ends them.
func TestClientShutdown(t *testing.T) {
	for _, answered := range []bool{true, false} {
		t.Run(fmt.Sprintf("answered %v", answered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) {
					s.Barrier = apnstest.Fault{Err: apns.StatusMissingToken, Delay: 5 * time.Second}
					if !answered {
						s.Barrier = apns.StatusNoError
					}
				})
				c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval = time.Hour })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				got := make(outcomes)
				var mu sync.Mutex
				var callers sync.WaitGroup
				for id := range uint32(10) { // only the first has its barrier at once
					callers.Go(func() {
						time.Sleep(time.Duration(id) * time.Millisecond)
						_, err := c.Push(t.Context(), numberedMessage(id))
						mu.Lock()
						defer mu.Unlock()
						got[id] = err
					})
				}
				time.Sleep(time.Second)
				start := time.Now()
				callers.Go(func() {
					time.Sleep(time.Second)
					_, err := c.Push(t.Context(), numberedMessage(100))
					wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
				})
				err := c.Shutdown(ctx)
				if answered {
					if err != nil {
						t.Errorf("Shutdown: %v", err)
					}
					wantTook(t, start, 4*time.Second, 5*time.Second+10*time.Millisecond)
					callers.Wait()
					wantOutcome(t, s, got, balance{Accepted: 10})
					wantStats(t, c, balance{Accepted: 10, NotSent: 1})
				} else {
					wantErr(t, err, context.DeadlineExceeded)
					wantTook(t, start, 9*time.Second, 9*time.Second)
					if n := c.Stats().InFlight; n != 10 {
						t.Errorf("%d messages are in flight, want 10", n)
					}
					c.Close()
					callers.Wait()
					wantOutcome(t, s, got, balance{InDoubt: 10})
					wantStats(t, c, balance{InDoubt: 10, NotSent: 1})
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown again: %v", err)
				}
				wantIdle(t)
			})
		})
	}
}

// Shutdown has the barrier written at once also where there is no connection yet.
func TestClientShutdownWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval, c.Timeout = time.Hour, 24*time.Hour })
		dial := c.Config.DialContext
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(5 * time.Second)
			return dial(ctx, network, addr)
		}
		start := time.Now()
		var pushing sync.WaitGroup
		pushing.Go(func() {
			if _, err := c.Push(t.Context(), numberedMessage(1)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		pushing.Wait()
		wantTook(t, start, 5*time.Second, 6*time.Second)
	})
}

// What was handed over before Shutdown is sent, also when PushAll is not through
// with msgs.
func TestClientShutdownDuringPushAll(t *testing.T) {
	for _, n := range []uint32{1, 2, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil)
			c := newClient(t, s)
			var shutdown sync.WaitGroup
			got := collect(t, c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range messagesFrom(1, n) {
					if !yield(m) {
						return
					}
				}
				shutdown.Go(func() { c.Shutdown(t.Context()) })
				time.Sleep(time.Second)
				yield(numberedMessage(n + 1))
			}))
			shutdown.Wait()
			wantErr(t, got[n+1], apns.ErrNotSent, net.ErrClosed)
			if sum := got.check(t, s); sum != (balance{Accepted: int(n), NotSent: 1}) {
				t.Errorf("%d messages before Shutdown and 1 after it: got %+v, want just the last one not sent", n, sum)
			}
		})
	}
}

// Shutdown waits for the answers that are late, and turns away what comes
// meanwhile.
func TestClientHTTP2Shutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return answerAfter(30 * time.Second) })
		var dials connCount
		c := http2Client(t, dials.count(server.Config()), func(c *apns.Client) { c.Timeout = 5 * time.Minute })
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 100)) })
		wg.Go(func() {
			for r := range c.PushAll(t.Context(), devices(100)) {
				if r.Err != nil {
					t.Errorf("message %d of PushAll: got %v, want nil", r.Message.ID, r.Err)
				}
			}
		})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "200 messages were without an outcome") {
			t.Errorf("Shutdown: got %v, want that it was cancelled while 200 messages were without an outcome", err)
		}
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		for range 2 {
			if err := c.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: got %v, want nil", err)
			}
		}
		wg.Wait()
		dials.want(t, dials.dialed, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		_, err = c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		wantFigures(t, c, apns.Stats{Accepted: 200, NotSent: 2, Connected: c.Stats().Connected})
	})
}

// Close waits for nothing: what was written is in doubt, what was not was not
// sent, what waits to be resent keeps its rejection.
func TestClientHTTP2Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(m *apns.Message) error {
			if m.Token == token {
				return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second}
			}
			return answerAfter(30 * time.Second)
		}, func(s *apnstest.Server) { s.StreamLimit = 5 })
		var dials connCount
		c := http2Client(t, dials.count(server.Config()), func(c *apns.Client) { c.MaxConns = 1 })
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Push(t.Context(), message(7))
			wantAnswer(t, err, apns.PushError{ID: 7, HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second})
		})
		synctest.Wait()
		var errs []error
		wg.Go(func() { errs = allAtOnce(t.Context(), c, 20) })
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("Close: got %v, want nil", err)
			}
		}
		wg.Wait()
		wantTook(t, start, 0, time.Second)
		inDoubt := 0
		for _, err := range errs {
			if errors.Is(err, apns.ErrInDoubt) {
				inDoubt++
				wantErr(t, err, apns.ErrInDoubt, net.ErrClosed)
			} else {
				wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
			}
		}
		if inDoubt != 5 {
			t.Errorf("%d messages are in doubt, want the 5 that were written", inDoubt)
		}
		dials.want(t, 1, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		wantFigures(t, c, apns.Stats{InDoubt: 5, NotSent: 16, Rejected: map[string]uint64{"TooManyRequests": 1}, Connected: 1})
		if err := new(apns.Client).Close(); err != nil {
			t.Errorf("Close of one that was not used: got %v, want nil", err)
		}
		if err := new(apns.Client).Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown of one that was not used: got %v, want nil", err)
		}
	})
}

// Close waits for what a timer does: no outcome is reported after it has returned.
func TestClientCloseWaitsForTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndSilence} })
		reporting, release := make(chan struct{}), make(chan struct{})
		c := http2Client(t, server.Config(), func(c *apns.Client) {
			c.OnAttempt = func(context.Context, apns.Attempt) {
				close(reporting)
				<-release
			}
		})
		pushed, closed := make(chan error, 1), make(chan struct{})
		go func() {
			_, err := c.Push(t.Context(), device(1))
			pushed <- err
		}()
		<-reporting // a minute later
		go func() {
			c.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close has returned while an outcome is being reported, want it to wait")
		default:
		}
		close(release)
		<-closed
		wantErr(t, <-pushed, apns.ErrInDoubt, context.DeadlineExceeded)
	})
}
