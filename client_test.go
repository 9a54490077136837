package apns_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

// These are the tests of a Client on the binary wire. On it the identifiers are
// the Client's own, so that it is by its token that the server knows a message.

// messagesFrom returns the messages with the IDs from first to last, whose tokens have
// the same number.
func messagesFrom(first, last uint32) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		for id := first; id <= last; id++ {
			if !yield(numberedMessage(id)) {
				return
			}
		}
	}
}

func numberedMessage(id uint32) *apns.Message {
	return &apns.Message{ID: id, Token: fmt.Sprintf("%064x", id), Payload: payload}
}

func numberOf(m *apns.Message) uint32 {
	n, _ := strconv.ParseUint(m.Token[len(m.Token)-8:], 16, 32)
	return uint32(n)
}

// onNumber answers the message with the number with err, and accepts all others.
func onNumber(number uint32, err error) func(*apns.Message) error {
	return func(m *apns.Message) error {
		if numberOf(m) == number {
			return err
		}
		return nil
	}
}

// newClient returns a Client of the server's binary gateway.
func newClient(t *testing.T, s *apnstest.Server, settings ...func(*apns.Client)) *apns.Client {
	t.Helper()
	c := &apns.Client{Addr: "gateway.push.apple.com:2195", Config: s.Config()}
	for _, set := range settings {
		set(c)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fates are what became of messages, by their IDs.
type fates map[uint32]error

// collect takes the results of a PushAll, one for each message.
func collect(t *testing.T, results iter.Seq[apns.Result]) fates {
	t.Helper()
	got := make(fates)
	for r := range results {
		got.add(t, r)
	}
	return got
}

func (f fates) add(t *testing.T, r apns.Result) {
	t.Helper()
	if before, ok := f[r.Message.ID]; ok {
		t.Errorf("message %d: a second result, %v after %v", r.Message.ID, r.Err, before)
	}
	f[r.Message.ID] = r.Err
}

// An outcome is how many messages have each fate.
type outcome struct{ Accepted, Rejected, NotSent, InDoubt int }

// check compares the fates with the server's records, which know of all messages
// that were sent, and counts them.
func (f fates) check(t *testing.T, s *apnstest.Server) (got outcome) {
	t.Helper()
	taken, refused := make(map[uint32]int), make(map[uint32]int)
	for _, r := range s.Records() {
		switch r.Outcome {
		case apnstest.Accepted:
			taken[numberOf(r.Message)]++
		case apnstest.Rejected:
			refused[numberOf(r.Message)]++
		}
	}
	wrong := 0
	for id, err := range f {
		said, rejected := errors.AsType[*apns.PushError](err)
		inDoubt, notSent := errors.Is(err, apns.ErrInDoubt), errors.Is(err, apns.ErrNotSent)
		ok := false
		switch {
		case err == nil:
			got.Accepted++
			ok = taken[id] == 1
		case rejected:
			got.Rejected++
			ok = said.ID == id && said.Rejected() && refused[id] > 0 && taken[id] == 0 && !inDoubt && !notSent
		case inDoubt:
			got.InDoubt++
			ok = taken[id] <= 1 && !notSent
		case notSent:
			got.NotSent++
			ok = taken[id] == 0
		}
		if !ok {
			if wrong++; wrong <= 5 {
				t.Errorf("message %d: got %v; the server took it %d times and refused it %d times", id, err, taken[id], refused[id])
			}
		}
	}
	if wrong > 5 {
		t.Errorf("and %d more that are wrong", wrong-5)
	}
	return got
}

// wantOutcome checks, inside a bubble, the fates against the server's records, and
// that so many have each.
func wantOutcome(t *testing.T, s *apnstest.Server, f fates, want outcome) {
	t.Helper()
	synctest.Wait() // for the server to be done
	if got := f.check(t, s); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// wantStats checks that the figures of a Client with nothing in flight are those.
func wantStats(t *testing.T, c *apns.Client, want outcome) {
	t.Helper()
	s := c.Stats()
	got := outcome{Accepted: int(s.Accepted), NotSent: int(s.NotSent), InDoubt: int(s.InDoubt)}
	for _, n := range s.Rejected {
		got.Rejected += int(n)
	}
	if got != want || s.InFlight != 0 {
		t.Errorf("Stats: got %+v, want %+v and nothing in flight", s, want)
	}
}

// wantIdle checks, inside a bubble, that the package has no goroutine at work.
func wantIdle(t *testing.T) {
	t.Helper()
	time.Sleep(time.Minute) // a gateway that is about to answer has a part of Timeout for that
	for _, stack := range goroutines() {
		if strings.Contains(stack, "\nexample.com/apns.(") {
			t.Errorf("still running:\n%s", stack)
		}
	}
}

// goroutines returns the stacks of the bubble's goroutines in which there is
// something of the package's, or of its HTTP/2 connections.
func goroutines() []string {
	synctest.Wait()
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	all := strings.Split(string(stacks), "\n\n")
	_, bubble, _ := strings.Cut(all[0], "synctest bubble ")
	bubble, _, _ = strings.Cut(bubble, "]")
	var found []string
	for _, stack := range all[1:] {
		header, _, _ := strings.Cut(stack, "\n")
		if strings.Contains(header, "synctest bubble "+bubble+"]") && (strings.Contains(stack, "example.com/apns.") || strings.Contains(stack, "net/http.")) {
			found = append(found, stack)
		}
	}
	return found
}

// wantTook checks that something took at least and at most so long.
func wantTook(t *testing.T, start time.Time, least, most time.Duration) {
	t.Helper()
	if d := time.Since(start); d < least || d > most {
		t.Errorf("took %v, want %v to %v", d, least, most)
	}
}

// Twenty thousand messages over real TLS to a gateway that ends its streams in
// every way. Where it says which message it rejects, each message has the fate
// that the gateway's records have, and none is lost, doubled or in doubt. Where it
// says nothing, no more than a Window is in doubt, since after each such end the
// proof is asked for sooner.
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
		s := apnstest.NewServer(func(m *apns.Message) error {
			switch {
			case bad(m):
				return test.bad
			case test.nth != nil && good.Add(1)%every == 0:
				silences.Add(1)
				return test.nth
			}
			return nil
		})
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
		if want := (outcome{Accepted: n - n/100, Rejected: n / 100}); !test.silent && sum != want {
			t.Errorf("got %+v, want %+v", sum, want)
		}
		if test.silent && (sum.InDoubt > c.MaxInFlight || sum.InDoubt == 0) {
			t.Errorf("%d are in doubt after %d silent ends, want some, and no more than the window of %d", sum.InDoubt, silences.Load(), c.MaxInFlight)
		}
		if sum.NotSent > 0 {
			t.Errorf("%d were not sent, want all to be", sum.NotSent)
		}
		wantStats(t, c, sum)
		t.Logf("%+v, %d connections, %d sent again", sum, c.Stats().Connected, c.Stats().Resent)
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
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, n))), outcome{Accepted: n})
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
			t.Errorf("%d messages were sent again, want none", resent)
		}
	})
}

// What the gateway discards after a rejection is sent again in its order.
func TestClientKeepsOrderAfterRejection(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const n, bad = 1000, 400
			s := inMemory(t, onNumber(bad, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: delay}))
			c := newClient(t, s)
			got := collect(t, c.PushAll(t.Context(), messagesFrom(1, n)))
			wantOutcome(t, s, got, outcome{Accepted: n - 1, Rejected: 1})
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

// A single Push asks for its proof at once, if none was asked for within
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
		wantStats(t, c, outcome{Accepted: 2 + 100 + 10})
	})
}

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
			wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1+i*10, 10+i*10))), outcome{Accepted: 10})
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

// A gateway that never answers the barrier, or that does not read, leaves the
// messages in doubt when their time is over, and nobody hangs.
func TestClientTimeout(t *testing.T) {
	for name, set := range map[string]func(*apnstest.Server){
		"no answer": func(s *apnstest.Server) { s.Barrier = apns.StatusNoError },
		"no end":    func(s *apnstest.Server) { s.Barrier = apnstest.Fault{End: apnstest.EndSilence} },
		"does not read": func(s *apnstest.Server) {
			s.BufferSize = 1000
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = 40 * time.Second
				s := inMemory(t, nil, set)
				c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
				start := time.Now()
				_, err := c.Push(t.Context(), numberedMessage(1))
				wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
				wantTook(t, start, timeout, timeout+timeout/4)

				start = time.Now()
				got := collect(t, c.PushAll(t.Context(), messagesFrom(1001, 1500)))
				wantTook(t, start, timeout-timeout/4, timeout+timeout/4)
				sum := got.check(t, s)
				if len(got) != 500 || sum.InDoubt == 0 || sum.InDoubt+sum.NotSent != 500 || name != "does not read" && sum.NotSent > 0 {
					t.Errorf("got %+v, want 500 in doubt", sum)
				}
				start = time.Now()
				c.Close()
				wantTook(t, start, 0, time.Second)
				wantStats(t, c, outcome{InDoubt: 1 + sum.InDoubt, NotSent: sum.NotSent})
			})
		})
	}
}

// With AssumeAcceptedAfter silence is acceptance, and a rejection that comes before it counts.
func TestClientSettle(t *testing.T) {
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
		wantOutcome(t, s, got, outcome{Accepted: 9, Rejected: 1})
		wantPushError(t, got[105], 105, apns.StatusInvalidToken)
		wantStats(t, c, outcome{Accepted: 10, Rejected: 1})
	})
}

// A gateway that closes without a word after every k messages gets all of them, if
// they may arrive twice and it takes more than one; otherwise each is sent as
// often as Attempts has it, and no more.
func TestClientAtLeastOnce(t *testing.T) {
	for _, end := range []apnstest.End{apnstest.EndFINThenRST, apnstest.EndFIN, apnstest.EndRST} {
		for k, n := range map[uint32]int{1: 5, 2: 50, 3: 100, 50: 1000, 2000: 5000} {
			synctest.Test(t, func(t *testing.T) {
				// On the wire the messages of a connection count from 1.
				s := inMemory(t, func(m *apns.Message) error {
					if m.ID == k {
						return apnstest.Fault{Err: apns.StatusNoError, End: end}
					}
					return nil
				})
				c := newClient(t, s, func(c *apns.Client) { c.InDoubt, c.Timeout = apns.InDoubtResend, 24*time.Hour })
				got := collect(t, c.PushAll(t.Context(), messagesFrom(1, uint32(n))))
				if len(got) != n {
					t.Errorf("%v after %d: got %d results, want %d", end, k, len(got), n)
				}
				taken := make(map[uint32]int)
				for _, m := range s.Messages(apnstest.Accepted) {
					taken[numberOf(m)]++
				}
				most := 0
				for id, err := range got {
					most = max(most, taken[id])
					switch {
					case k == 1:
						wantErr(t, err, apns.ErrInDoubt)
					case err != nil:
						t.Errorf("%v after %d: message %d: %v", end, k, id, err)
					case taken[id] == 0:
						t.Errorf("%v after %d: message %d was not taken", end, k, id)
					}
				}
				if most < 2 || most > 10 {
					t.Errorf("%v after %d: a message was taken %d times, want more than once, and at most the 10 of Attempts", end, k, most)
				}
				stats := c.Stats()
				t.Logf("%v after %d of %d: %d connections, %d sent again", end, k, n, stats.Connected, stats.Resent)
			})
		}
	}
}

// The gateway's answer names the last message that it looked at. A name that the
// Client did not give tells it nothing. The source is Table A-4 in "Binary Provider
// API", with its note on status 10: the identifier is that of the last message that
// was sent with success.
func TestClientIdentifiers(t *testing.T) {
	named := func(id uint32, status apns.Status) error { return &apns.PushError{ID: id, Status: status} }
	for name, test := range map[string]struct {
		err  error // about message 5 of 10
		want outcome
	}{
		"ID 0":                     {named(0, apns.StatusProcessingError), outcome{InDoubt: 10}},
		"ID 0 and a missing token": {named(0, apns.StatusMissingToken), outcome{InDoubt: 10}},
		"never sent":               {named(1<<31, apns.StatusInvalidToken), outcome{InDoubt: 10}},
		"one too far":              {named(12, apns.StatusInvalidToken), outcome{InDoubt: 10}},
		"shutdown, never sent":     {named(1<<31, apns.StatusShutdown), outcome{InDoubt: 10}},
		"shutdown":                 {apns.StatusShutdown, outcome{Accepted: 10}},
		"status 42":                {apns.Status(42), outcome{Accepted: 9, Rejected: 1}},
		"status 255":               {apns.StatusUnknown, outcome{Accepted: 9, Rejected: 1}},
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
				wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 10))), outcome{Accepted: 10})
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
		wantStats(t, c, outcome{Accepted: 2, Rejected: 1})
		if n := c.Stats().Invalid; n != 4 {
			t.Errorf("Stats().Invalid is %d, want 4", n)
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
					wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(2e9, 2e9+9))), map[bool]outcome{
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
		got := make(fates)
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
		wantOutcome(t, s, got, outcome{Accepted: 10000})
	})
}

// What is not sent soon is not taken from msgs, where its time would run.
func TestClientSlowGatewayAndManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, func(*apns.Message) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		wantOutcome(t, s, collect(t, newClient(t, s).PushAll(t.Context(), messagesFrom(1, 20000))), outcome{Accepted: 20000})
	})
}

// At the end of PushAll there is a barrier at once, also for what is sent again
// after a rejection; and not for the next one who comes after it.
func TestClientBarrierAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const confirmInterval = time.Hour
		s := inMemory(t, onNumber(5, apns.StatusInvalidToken))
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval, c.Timeout = confirmInterval, 24*time.Hour })
		start := time.Now()
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 10))), outcome{Accepted: 9, Rejected: 1})
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

// A gateway that is slow to read has the proof asked for as often as another, so
// that each message has its fate in time, and the next connection is there by then.
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
			got := make(fates)
			for r := range c.PushAll(t.Context(), messagesFrom(1, uint32(test.n))) {
				got.add(t, r)
				wantTook(t, last, 0, test.most)
				last = time.Now()
			}
			wantTook(t, start, 0, test.total)
			wantOutcome(t, s, got, outcome{Accepted: test.n})
		})
	}
}

// What msgs does: it panics, it ends its goroutine, it blocks, it has nothing, it
// is ranged over twice. A message that is on its way has room in the Window.
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
		got := make(fates)
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
		wantOutcome(t, s, got, outcome{Accepted: 30})
	})
	bubble("is empty", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(1, 0))), outcome{})
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
			got := make(fates)
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
			wantOutcome(t, s, got, outcome{Accepted: int(n)})
			if n := most.Load(); n > int64(window+min(window, 1024)) || n < int64(min(window, 16)) {
				t.Errorf("at most %d messages had no result, want at most %d in flight and as many that wait", n, window)
			}
		})
	}
	bubble("two at once", func(t *testing.T, s *apnstest.Server, c *apns.Client) {
		var callers sync.WaitGroup
		all := make([]fates, 2)
		for i := range uint32(2) {
			callers.Go(func() { all[i] = collect(t, c.PushAll(t.Context(), messagesFrom(1+i*1000, 1000+i*1000))) })
		}
		callers.Wait()
		for i, got := range all {
			wantOutcome(t, s, got, outcome{Accepted: 1000})
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
				var got fates
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
			wantStats(t, &c, outcome{NotSent: 1})
		}
	})
}

// Close and Push at the same time: each message has a fate, and it is true.
func TestClientCloseWhilePushing(t *testing.T) {
	for pause := range 30 {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(*apns.Message) error {
				time.Sleep(time.Millisecond)
				return nil
			})
			c := newClient(t, s)
			got := make(fates)
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
				got := make(fates)
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
					wantOutcome(t, s, got, outcome{Accepted: 10})
					wantStats(t, c, outcome{Accepted: 10, NotSent: 1})
				} else {
					wantErr(t, err, context.DeadlineExceeded)
					wantTook(t, start, 9*time.Second, 9*time.Second)
					if n := c.Stats().InFlight; n != 10 {
						t.Errorf("%d messages are in flight, want 10", n)
					}
					c.Close()
					callers.Wait()
					wantOutcome(t, s, got, outcome{InDoubt: 10})
					wantStats(t, c, outcome{InDoubt: 10, NotSent: 1})
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown again: %v", err)
				}
				wantIdle(t)
			})
		})
	}
}

// Shutdown has the proof asked for at once also where there is no connection yet.
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
			if sum := got.check(t, s); sum != (outcome{Accepted: int(n), NotSent: 1}) {
				t.Errorf("%d messages before Shutdown and 1 after it: got %+v, want just the last one not sent", n, sum)
			}
		})
	}
}

// A server that refuses the sender, or that is not the one it should be, ends all
// messages at once, whatever time they have. The source is "Binary Provider API" for
// the certificate that the gateway wants.
func TestClientRefused(t *testing.T) {
	noCert := func(_ *testing.T, c *tls.Config) { c.Certificates = nil }
	for name, test := range map[string]struct {
		version uint16
		set     func(*testing.T, *tls.Config)
		want    string
	}{
		"TLS 1.2, no certificate": {tls.VersionTLS12, noCert, "perhaps for want of a client certificate, and Config.TLS has none"},
		"TLS 1.3, no certificate": {tls.VersionTLS13, noCert, "the server wants a client certificate, and Config.TLS has none"},
		"TLS 1.3, another authority": {tls.VersionTLS13, func(t *testing.T, c *tls.Config) {
			c.Certificates = inMemory(t, nil).Config().TLS.Certificates
		}, "the server wants a client certificate, and none in Config.TLS is of an authority that it accepts"},
		"unknown server": {tls.VersionTLS13, func(_ *testing.T, c *tls.Config) { c.RootCAs = x509.NewCertPool() }, "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) { s.TLS = &tls.Config{MaxVersion: test.version} })
				c := newClient(t, s, func(c *apns.Client) { c.Timeout = time.Hour })
				test.set(t, c.Config.TLS)
				start := time.Now()
				got := collect(t, c.PushAll(t.Context(), messagesFrom(1, 10)))
				wantOutcome(t, s, got, outcome{NotSent: 10})
				for range 2 {
					_, err := c.Push(t.Context(), numberedMessage(100))
					wantErr(t, err, apns.ErrNotSent)
					got[100] = err
				}
				wantTook(t, start, 0, 2*time.Second)
				for _, err := range got {
					if !strings.Contains(fmt.Sprint(err), test.want) {
						t.Errorf("got  %v\nwant %s", err, test.want)
						break
					}
					if strings.Count(fmt.Sprint(err), "apns: ") != 1 {
						t.Errorf("got %v, want the prefix apns: once", err)
						break
					}
				}
				wantIdle(t)
				wantStats(t, c, outcome{NotSent: 12})
			})
		})
	}
}

// The log tells what ended a connection and why there is none. It does not name a
// message by an ID that only the Client knows.
func TestClientLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := inMemory(t, onNumber(1005, apns.StatusInvalidToken))
		c := newClient(t, s, func(c *apns.Client) {
			c.Config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		collect(t, c.PushAll(t.Context(), messagesFrom(1001, 1010)))
		s.RefuseConnections(true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := c.Push(ctx, numberedMessage(1)); err == nil {
			t.Error("Push to a server that refuses: got nil, want an error")
		}
		c.Close()
		for _, want := range []string{
			`level=INFO msg="apns: connected" addr=gateway.push.apple.com:2195 protocol=""`,
			`level=WARN msg="apns: connection ended" error="apns: the gateway said: invalid token"`,
			`level=WARN msg="apns: cannot connect" error="apns: connecting to gateway.push.apple.com:2195: `,
			`connection refused" "again in"=`,
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("got\n%s\nwant a line with\n%s", &log, want)
			}
		}
		if strings.Contains(log.String(), "message 5") {
			t.Errorf("got\n%s\nwant no ID", &log)
		}
	})
}

// A push that is given up after it was written is in doubt.
func TestClientPushGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval = 10 * time.Second })
		if _, err := c.Push(t.Context(), numberedMessage(1)); err != nil { // with a barrier
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := c.Push(ctx, numberedMessage(2))
		wantErr(t, err, apns.ErrInDoubt, context.Canceled)
		wantTook(t, start, time.Second, time.Second)
		wantStats(t, c, outcome{Accepted: 1, InDoubt: 1})
	})
}

// While nobody listens the Client dials again, less and less often, down to once in
// MaxDialBackoff. A message whose context ends before the next attempt is not sent, at
// once, and the error says both. What waits is sent when somebody listens.
func TestClientDialsAgain(t *testing.T) {
	for _, longest := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprintf("MaxDialBackoff %v", longest), func(t *testing.T) { testClientDialsAgain(t, longest) })
	}
}

func testClientDialsAgain(t *testing.T, longest time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		s.RefuseConnections(true)
		c := newClient(t, s, func(c *apns.Client) { c.Timeout, c.MaxDialBackoff = time.Hour, longest })
		if longest == 0 {
			longest = 10 * time.Second
		}
		dials := 0
		next := c.Config.DialContext
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return next(ctx, network, addr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := c.Push(ctx, numberedMessage(1))
		wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
		if !strings.Contains(fmt.Sprint(err), "connection refused") {
			t.Errorf("got %v, want one that says connection refused as well", err)
		}
		wantTook(t, start, max(20*time.Second, time.Minute-longest), time.Minute)
		if dials < 8 || dials > 16 {
			t.Errorf("%d dials in a minute, want about 10", dials)
		}
		time.AfterFunc(time.Hour/2, func() { s.RefuseConnections(false) })
		start = time.Now()
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(11, 20))), outcome{Accepted: 10})
		wantTook(t, start, time.Hour/2, time.Hour/2+longest)
		if most := 16 + int(2*(time.Hour/2)/longest); dials > most {
			t.Errorf("%d dials in half an hour, want at most %d, two in each %v", dials, most, longest)
		}
		wantStats(t, c, outcome{Accepted: 10, NotSent: 1})
	})
}

// A connection that is there when nobody wants it any more is closed: an idle Client
// has no goroutine at work.
func TestClientGivenUpWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := newClient(t, s)
		next := c.Config.DialContext
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(5 * time.Second)
			return next(ctx, network, addr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := c.Push(ctx, numberedMessage(1))
		wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
		wantIdle(t)
		if _, err := c.Push(t.Context(), numberedMessage(2)); err != nil {
			t.Error(err)
		}
		wantIdle(t)
	})
}

// Timeout is each message's, also while there is no connection: those of a PushAll
// wait for it together, whether or not there was a connection before.
func TestClientTimeoutWhileDialing(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const timeout = 40 * time.Second
			s := inMemory(t, nil)
			c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
			if before {
				if _, err := c.Push(t.Context(), numberedMessage(100)); err != nil {
					t.Error(err)
				}
			}
			s.RefuseConnections(true)
			start := time.Now()
			got := collect(t, c.PushAll(t.Context(), messagesFrom(1, 10)))
			wantOutcome(t, s, got, outcome{NotSent: 10})
			wantTook(t, start, timeout-timeout/4, timeout+timeout/4)
			for id, err := range got {
				wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
				if !strings.Contains(fmt.Sprint(err), "connection refused") {
					t.Errorf("connected before %v: message %d: got %v, want one that says connection refused as well", before, id, err)
				}
			}
		})
	}
}

// A message has its Timeout from when it was handed over, also if it waits for the
// first connection, and then for an answer.
func TestClientTimeoutAfterDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = apns.StatusNoError })
		dial := s.Config().DialContext
		c := newClient(t, s, func(c *apns.Client) {
			c.Timeout = timeout
			c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				time.Sleep(timeout / 2)
				return dial(ctx, network, addr)
			}
		})
		msgs := func(yield func(*apns.Message) bool) {
			for m := range messagesFrom(1, 10) {
				if time.Sleep(time.Second); !yield(m) {
					return
				}
			}
		}
		start, got := time.Now(), 0
		for r := range c.PushAll(t.Context(), msgs) {
			got++
			handed := start.Add(time.Duration(numberOf(r.Message)) * time.Second)
			wantErr(t, r.Err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, handed, timeout, timeout+timeout/4)
		}
		if got != 10 {
			t.Errorf("got %d results, want 10", got)
		}
	})
}

// Also if it comes while the gateway does not read.
func TestClientTimeoutWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.BufferSize = 1000
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
		})
		c := newClient(t, s, func(c *apns.Client) { c.Timeout = timeout })
		msgs := func(yield func(*apns.Message) bool) {
			for m := range messagesFrom(1, 50) { // more than there is room for
				m.Payload = apns.AlertPayload(strings.Repeat("x", 1500))
				if !yield(m) {
					return
				}
			}
			for m := range messagesFrom(51, 60) {
				if time.Sleep(3 * time.Second); !yield(m) {
					return
				}
			}
			time.Sleep(time.Hour)
		}
		start, got := time.Now(), 0
		for r := range c.PushAll(t.Context(), msgs) {
			got++
			handed := start.Add(time.Duration(max(0, int(numberOf(r.Message))-50)) * 3 * time.Second)
			if r.Err == nil {
				t.Errorf("message %d: accepted", r.Message.ID)
			}
			if numberOf(r.Message) > 50 {
				wantTook(t, handed, timeout-timeout/4, timeout+timeout/4)
			}
		}
		if got != 60 {
			t.Errorf("got %d results, want 60", got)
		}
	})
}

// A countingConn is a limitedConn from the first record of application data on:
// with TLS 1.2, that is after the handshake.
type countingConn struct {
	*limitedConn
	after int // bytes
	began bool
}

func (c *countingConn) Write(p []byte) (int, error) {
	if !c.began && p[0] == 23 {
		c.began = true
		c.limit(-1, c.after)
	}
	return c.limitedConn.Write(p)
}

// The first connection is cut at each byte of what the client writes: of three
// messages and the barrier. Those that the server can have had whole are in
// doubt; the others are sent again over the next connection, and accepted. Without
// TLS any number of messages can have gone through, with it all or none.
func TestClientConnectionCutWhileWriting(t *testing.T) {
	size := 13 // of the barrier
	for m := range messagesFrom(1, 3) {
		b, err := apns.BuildMsg(m)
		if err != nil {
			t.Fatal(err)
		}
		size += len(b)
	}
	for _, secure := range []bool{false, true} {
		all := make(map[outcome]int)
		most := size + 1
		if secure {
			most += 2 * 30 // for what a record has around it
		}
		for n := 0; n < most; n++ {
			if secure && raceEnabled {
				n += 5 // handshakes take their time
			}
			got, had, sum := cutAt(t, n, secure, messagesFrom(1, 3))
			all[sum]++
			proved := sum == outcome{Accepted: 3} && len(had) == 3
			for id, err := range got {
				switch {
				case proved && n >= size:
				case had[id]:
					wantErr(t, err, apns.ErrInDoubt)
				case err != nil:
					t.Errorf("cut at %d: message %d did not reach the server whole, and was not sent again: %v", n, id, err)
				}
			}
			if len(got) != 3 || sum.Accepted+sum.InDoubt != 3 {
				t.Errorf("cut at %d: got %+v", n, sum)
			}
		}
		want := 4 // 0, 1, 2 or 3 in doubt
		if secure {
			want = 2 // where all are in one record
		}
		if len(all) < want {
			t.Errorf("TLS %v: got %v, want %d different outcomes or more", secure, all, want)
		}
	}
}

// The first connection is cut among TLS records that are written together. The
// messages in those that the server can have had whole are in doubt, and the others
// are sent again, and accepted.
func TestClientConnectionCutAmongRecords(t *testing.T) {
	const messages, record = 40, 16<<10 + 29 // with what TLS 1.2 puts around it
	msgs := func(yield func(*apns.Message) bool) {
		for m := range messagesFrom(1, messages) {
			m.Payload = fmt.Appendf(nil, `{"aps":{"alert":"%2000d"}}`, m.ID)
			if !yield(m) {
				return
			}
		}
	}
	for records := range 5 {
		for _, more := range []int{-1, 0, 1, 5, record / 2} {
			n := max(0, records*record+more)
			got, had, sum := cutAt(t, n, true, msgs)
			for id, err := range got {
				if had[id] {
					wantErr(t, err, apns.ErrInDoubt)
				} else if err != nil {
					t.Errorf("cut at %d: message %d did not reach the server whole, and was not sent again: %v", n, id, err)
				}
			}
			// A record has seven or eight of them whole.
			whole := n / record
			if len(got) != messages || sum.Accepted+sum.InDoubt != messages || sum.InDoubt < whole*7 || sum.InDoubt > whole*8 {
				t.Errorf("cut at %d: got %+v, want 7 or 8 in doubt for each of %d records", n, sum, whole)
			}
		}
	}
}

// cutAt sends messages over a first connection that is cut after so many bytes that
// the client writes, and a second that is not. It returns their fates, and which the
// server had over the first one.
func cutAt(t *testing.T, n int, secure bool, msgs iter.Seq[*apns.Message]) (got fates, had map[uint32]bool, sum outcome) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) { s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12} })
		c := newClient(t, s)
		next, first := c.Config.DialContext, true
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !secure {
				ctx = plain.Context(ctx)
			}
			time.Sleep(time.Millisecond) // until all messages wait, so that they are written together
			conn, err := next(ctx, network, addr)
			if first && err == nil {
				first = false
				cut := &limitedConn{Conn: conn, read: -1, write: n}
				conn = cut
				if secure {
					cut.write = -1
					conn = &countingConn{limitedConn: cut, after: n}
				}
			}
			if err == nil && !secure {
				conn = &plain.Conn{Conn: conn}
			}
			return conn, err
		}
		got = collect(t, c.PushAll(t.Context(), msgs))
		synctest.Wait() // for the server to be done
		sum = got.check(t, s)
		had = make(map[uint32]bool)
		for _, r := range s.Records() {
			if r.Conn == 1 {
				had[numberOf(r.Message)] = true
			}
		}
	})
	return got, had, sum
}
