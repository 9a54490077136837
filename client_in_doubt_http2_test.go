package apns_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A gateway that closes without a word after every k messages gets all of them, if
// they may arrive twice and it takes more than one; otherwise each is sent as
// often as Attempts has it, and no more.
func TestClientInDoubtResend(t *testing.T) {
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
				t.Logf("%v after %d of %d: %d connections, %d resent", end, k, n, stats.Connected, stats.Resent)
			})
		}
	}
}

// A message that was written, and of which nothing is known, is in doubt, unless
// InDoubtResend says that it may arrive twice.
func TestClientHTTP2InDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		fault    apnstest.Fault
		matches  error // beside ErrInDoubt
		resend   bool
		accepted int // times that the server took it
		took     time.Duration
	}{
		"reset":                        {apnstest.Fault{End: apnstest.EndRST}, nil, false, 0, 0},
		"reset, but taken":             {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, nil, false, 1, 0},
		"closed":                       {apnstest.Fault{End: apnstest.EndFINThenRST}, nil, false, 0, 0},
		"closed, but taken":            {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFIN}, nil, false, 1, 0},
		"GOAWAY, and no answer":        {apnstest.Fault{End: apnstest.EndGoAway}, context.DeadlineExceeded, false, 0, time.Minute},
		"no answer":                    {apnstest.Fault{End: apnstest.EndSilence}, context.DeadlineExceeded, false, 0, time.Minute},
		"no answer in time":            {answerAfter(2 * time.Minute), context.DeadlineExceeded, false, 1, time.Minute},
		"at least once: reset":         {apnstest.Fault{End: apnstest.EndRST}, nil, true, 1, 0},
		"at least once: twice":         {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, nil, true, 2, 0},
		"at least once: closed":        {apnstest.Fault{End: apnstest.EndFINThenRST}, nil, true, 1, 0},
		"at least once: closed, taken": {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFINThenRST}, nil, true, 2, 0},
		"at least once: no time":       {apnstest.Fault{End: apnstest.EndSilence}, context.DeadlineExceeded, true, 0, time.Minute},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, PushAll %v", name, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(nil, test.fault))
					c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt = policy(test.resend) })
					push := func(n int) (err error) {
						if !all {
							_, err = c.Push(t.Context(), device(n))
							return err
						}
						for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{device(n)})) {
							err = r.Err
						}
						return err
					}
					if err := push(0); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					err := push(1)
					wantTook(t, start, test.took, test.took*5/4+time.Millisecond)
					resent := test.resend && test.took == 0
					switch {
					case resent:
						if err != nil {
							t.Errorf("got %v, want nil", err)
						}
					case test.matches != nil:
						wantErr(t, err, apns.ErrInDoubt, test.matches)
						if want := "apns: in doubt: no answer from the server: context deadline exceeded"; fmt.Sprint(err) != want {
							t.Errorf("got %v, want %s", err, want)
						}
					default:
						wantErr(t, err, apns.ErrInDoubt)
					}
					if err := push(2); err != nil {
						t.Errorf("the next message: got %v, want nil", err)
					}
					n := 0
					for _, m := range server.Messages(apnstest.Accepted) {
						if m.Token == device(1).Token {
							n++
						}
					}
					if n != test.accepted {
						t.Errorf("the server accepted the message %d times, want %d", n, test.accepted)
					}
					want := apns.Stats{Accepted: 2, InDoubt: 1, Connected: c.Stats().Connected}
					if resent {
						want.Accepted, want.InDoubt, want.Resent = 3, 0, 1
					}
					wantFigures(t, c, want)
				})
			})
		}
	}
}

// A message that was in doubt stays so if it then cannot be resent, whatever
// the reason.
func TestClientHTTP2InDoubtAndThenNotSent(t *testing.T) {
	t.Run("out of time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var server *apnstest.Server
			server = inMemory(t, func(*apns.Message) error {
				server.RefuseConnections(true)
				return apnstest.Fault{End: apnstest.EndFINThenRST}
			})
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt = apns.InDoubtResend })
			start := time.Now()
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, start, 50*time.Second, 75*time.Second) // less the last back-off
			wantFigures(t, c, apns.Stats{InDoubt: 1, Connected: 1})
		})
	})
	t.Run("refused after that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(apnstest.Fault{End: apnstest.EndRST}, apnstest.Fault{End: apnstest.EndRefusedStream}))
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 2 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			wantFigures(t, c, apns.Stats{InDoubt: 1, Resent: 1, Connected: 1})
		})
	})
	t.Run("throttled after that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			throttled := apns.ReasonTooManyRequests
			server := inMemory(t, inTurn(apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, throttled, throttled))
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			if n := len(server.Messages(apnstest.Accepted)); n != 1 {
				t.Errorf("the server took %d messages, want the 1 that it was silent about", n)
			}
		})
	})
	t.Run("out of attempts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndRST} })
			c := http2Client(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			if n := len(server.Records()); n != 3 {
				t.Errorf("the server saw the message %d times, want 3", n)
			}
		})
	})
}
