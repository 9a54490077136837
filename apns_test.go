package apns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// TestMain fails if a goroutine of the package, or of its server, is left.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		var stacks []byte
		for range 100 { // those that have been told to end need a moment
			stacks = make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			if !bytes.Contains(stacks, []byte("\nexample.com/apns.(")) && !bytes.Contains(stacks, []byte("created by example.com/apns")) {
				os.Exit(0)
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Printf("goroutines are left:\n%s\n", stacks)
		code = 1
	}
	os.Exit(code)
}

// A message's number is in its ID; the rest is the same for all.
func message(id uint32) *apns.Message {
	return &apns.Message{ID: id, Token: token, Payload: payload}
}

// inMemory starts a server in memory. Inside a synctest bubble its time is the
// bubble's.
func inMemory(t *testing.T, handler func(*apns.Message) error, settings ...func(*apnstest.Server)) *apnstest.Server {
	t.Helper()
	s := apnstest.NewUnstartedServer(handler)
	s.InMemory = true
	for _, set := range settings {
		set(s)
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func dial(t *testing.T, addr string, config *apns.Config) *apns.Conn {
	t.Helper()
	c, err := apns.Dial(t.Context(), addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialPush(t *testing.T, s *apnstest.Server) *apns.Conn {
	t.Helper()
	return dial(t, "gateway.push.apple.com:2195", s.Config())
}

// rejecting returns a handler that gives the error for the message with the ID.
func rejecting(id uint32, err error) func(*apns.Message) error {
	return func(m *apns.Message) error {
		if m.ID == id {
			return err
		}
		return nil
	}
}

// wantPushError checks that err is what the server said about the message.
func wantPushError(t *testing.T, err error, id uint32, status apns.Status) {
	t.Helper()
	e, ok := err.(*apns.PushError)
	if !ok || *e != (apns.PushError{ID: id, Status: status}) {
		t.Errorf("got %v, want a *PushError with ID %d and status %d", err, id, status)
	}
}

// wantErr checks that err matches every one of the errors, and no outcome that is
// not among them.
func wantErr(t *testing.T, err error, matches ...error) {
	t.Helper()
	for _, want := range matches {
		if !errors.Is(err, want) {
			t.Errorf("got %v, want one that matches %v", err, want)
		}
	}
	for _, outcome := range []error{apns.ErrNotSent, apns.ErrInDoubt} {
		expected := false
		for _, want := range matches {
			expected = expected || want == outcome
		}
		if !expected && errors.Is(err, outcome) {
			t.Errorf("got %v, which matches %v as well", err, outcome)
		}
	}
	if e, ok := errors.AsType[*apns.PushError](err); ok {
		t.Errorf("got %v, which is a *PushError about message %d", err, e.ID)
	}
}

func TestAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		for id := range uint32(3) {
			if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
				t.Fatal(err)
			}
			if err := c.CheckForError(); err != nil {
				t.Errorf("CheckForError: %v, want nil while nothing is known", err)
			}
		}
		for range 2 {
			if err := c.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v, want nil", err)
			}
		}
		wantErr(t, c.CheckForError(), net.ErrClosed)
		wantErr(t, c.WritePushMsg(t.Context(), message(4)), apns.ErrNotSent, net.ErrClosed)
		records := s.Records()
		if len(records) != 3 {
			t.Fatalf("server recorded %d messages, want 3", len(records))
		}
		for i, r := range records {
			if r.Outcome != apnstest.Accepted || r.Message.ID != uint32(i) || r.Message.Token != token || !bytes.Equal(r.Message.Payload, payload) {
				t.Errorf("record %d: %v of %+v", i, r.Outcome, r.Message)
			}
		}
	})
}

// "If you send a notification that is accepted by APNs, nothing is returned. If
// you send a notification that is malformed or otherwise unintelligible, APNs
// returns an error-response packet and closes the connection." ("Binary Provider
// API")
func TestRejected(t *testing.T) {
	for _, status := range []apns.Status{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 42, 128, 255} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, rejecting(2, apnstest.Fault{Err: status, Delay: time.Second}))
			c := dialPush(t, s)
			for id := range uint32(3) {
				if err := c.WritePushMsg(t.Context(), message(id+1)); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.CheckForError(); err != nil {
				t.Errorf("CheckForError: %v, want nil while nothing is known", err)
			}
			time.Sleep(2 * time.Second)
			// What it is stays, whatever is done.
			wantPushError(t, c.CheckForError(), 2, status)
			wantErr(t, c.WritePushMsg(t.Context(), message(4)), apns.ErrNotSent)
			wantPushError(t, c.Shutdown(t.Context()), 2, status)
			c.Close()
			wantPushError(t, c.CheckForError(), 2, status)
			wantPushError(t, c.Shutdown(t.Context()), 2, status)
			wantErr(t, c.WritePushMsg(t.Context(), message(5)), apns.ErrNotSent)

			// "…the last notification that was successfully sent" (status 10)
			want := []apnstest.Outcome{apnstest.Accepted, apnstest.Rejected, apnstest.Discarded}
			if status == 10 {
				want[1] = apnstest.Accepted
			}
			synctest.Wait()
			records := s.Records()
			if len(records) != len(want) {
				t.Fatalf("status %d: server recorded %d messages, want %d", status, len(records), len(want))
			}
			for i, r := range records {
				if r.Outcome != want[i] || r.Message.ID != uint32(i+1) {
					t.Errorf("status %d, message %d: %v, want %v", status, r.Message.ID, r.Outcome, want[i])
				}
			}
		})
	}
}

// A rejection that arrives before, while and after the barrier is on its way,
// in every shape that a stream can give it.
func TestRejectedDuringShutdown(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		for _, split := range []int{0, 1, 4} {
			for end := apnstest.EndCloseNotify; end <= apnstest.EndSilence; end++ {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, rejecting(2, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: delay, Split: split, End: end}))
					c := dialPush(t, s)
					for id := range uint32(3) {
						if err := c.WritePushMsg(t.Context(), message(id+1)); err != nil {
							wantErr(t, err, apns.ErrNotSent) // the rejection was faster
						}
					}
					wantPushError(t, c.Shutdown(t.Context()), 2, apns.StatusInvalidToken)
					wantPushError(t, c.CheckForError(), 2, apns.StatusInvalidToken)
				})
			}
		}
	}
}

// Our own Close counts, if it comes first.
func TestClosedBeforeRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(1, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: time.Second}))
		c := dialPush(t, s)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		time.Sleep(2 * time.Second)
		for range 2 {
			wantErr(t, c.CheckForError(), net.ErrClosed, apns.ErrInDoubt)
			wantErr(t, c.Shutdown(t.Context()), net.ErrClosed, apns.ErrInDoubt)
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrNotSent, net.ErrClosed)
	})
}

// A gateway that wrongly finds the token missing, in a message with the ID that
// every message has by default, is not taken for one that answers the barrier.
func TestRejectedWithDefaultID(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, rejecting(0, apnstest.Fault{Err: apns.StatusMissingToken, Delay: delay}))
			c := dialPush(t, s)
			if err := c.WritePushMsg(t.Context(), message(0)); err != nil {
				t.Fatal(err)
			}
			wantPushError(t, c.Shutdown(t.Context()), 0, apns.StatusMissingToken)
		})
	}
}

// What a server can say that attributes nothing, or to a message never sent.
func TestRejectedWithAnotherID(t *testing.T) {
	for _, id := range []uint32{0, 3, 1000, math.MaxUint32} {
		for _, status := range []apns.Status{2, 8, 10} {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, rejecting(2, &apns.PushError{ID: id, Status: status}))
				c := dialPush(t, s)
				for id := range uint32(2) {
					if err := c.WritePushMsg(t.Context(), message(id+1)); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				wantPushError(t, c.CheckForError(), id, status)
				wantPushError(t, c.Shutdown(t.Context()), id, status)
			})
		}
	}
}

// The answer to the barrier proves what came before it, whichever IDs the
// messages had, and whatever the gateway finds wrong with it.
func TestShutdownConfirms(t *testing.T) {
	ids := map[string][]uint32{
		"from 1":         {1, 2, 3},
		"all 0":          {0, 0, 0},
		"the largest":    {math.MaxUint32, math.MaxUint32},
		"both ends":      {math.MaxUint32, 0, math.MaxUint32},
		"almost the end": {1, math.MaxUint32 - 1, 2},
		"no 1":           {math.MaxUint32, 2},
	}
	answers := map[string]error{
		"missing token":         apns.StatusMissingToken,
		"invalid token size":    apns.StatusInvalidTokenSize,
		"missing payload":       apns.StatusMissingPayload,
		"unknown":               apns.StatusUnknown,
		"shutdown":              apns.StatusShutdown,
		"without its ID":        &apns.PushError{Status: apns.StatusMissingToken},
		"late":                  apnstest.Fault{Err: apns.StatusMissingToken, Delay: time.Minute},
		"in pieces":             apnstest.Fault{Err: apns.StatusMissingToken, Split: 1},
		"with the FIN":          apnstest.Fault{Err: apns.StatusMissingToken, End: apnstest.EndOneSegment},
		"with a reset":          apnstest.Fault{Err: apns.StatusMissingToken, End: apnstest.EndRST},
		"and never ends stream": apnstest.Fault{Err: apns.StatusMissingToken, End: apnstest.EndSilence},
	}
	for idsName, ids := range ids {
		for name, answer := range answers {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = answer })
				c := dialPush(t, s)
				for _, id := range ids {
					if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
						t.Fatal(err)
					}
				}
				err := c.Shutdown(t.Context())
				if idsName == "both ends" || name == "without its ID" && slices.Min(ids) == 0 {
					// What names no message but 0 proves nothing if a message had
					// that ID, as when no other is left for the barrier.
					if e, ok := err.(*apns.PushError); !ok || e.ID != 0 {
						t.Errorf("IDs %s, barrier answered with %s: got %v, want a *PushError with ID 0", idsName, name, err)
					}
					return
				}
				if err != nil {
					t.Errorf("IDs %s, barrier answered with %s: got %v, want nil", idsName, name, err)
				}
				if n := len(s.Messages(apnstest.Accepted)); n != len(ids) {
					t.Errorf("server accepted %d messages, want %d", n, len(ids))
				}
			})
		}
	}
	// What says nothing about all messages is not taken for it.
	for name, answer := range map[string]error{
		"invalid token of nothing": &apns.PushError{ID: 0, Status: apns.StatusInvalidToken},
		"last one accepted":        &apns.PushError{ID: 2, Status: apns.StatusShutdown},
		"another message":          &apns.PushError{ID: 1, Status: apns.StatusMissingToken},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = answer })
			c := dialPush(t, s)
			for id := range uint32(3) {
				if err := c.WritePushMsg(t.Context(), message(id+1)); err != nil {
					t.Fatal(err)
				}
			}
			want := answer.(*apns.PushError)
			t.Log(name)
			wantPushError(t, c.Shutdown(t.Context()), want.ID, want.Status)
		})
	}
}

func TestShutdownOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		wantErr(t, c.CheckForError(), net.ErrClosed)
	})
}

// A gateway that gives no answer leaves everything in doubt.
func TestShutdownInDoubt(t *testing.T) {
	for name, answer := range map[string]error{
		"silence":         apns.StatusNoError,
		"close":           apnstest.Fault{},
		"FIN":             apnstest.Fault{End: apnstest.EndFIN},
		"reset":           apnstest.Fault{End: apnstest.EndRST},
		"stalled":         apnstest.Fault{End: apnstest.EndSilence},
		"half the answer": apnstest.Fault{Err: apns.StatusMissingToken, Cut: 3},
		"far too late":    apnstest.Fault{Err: apns.StatusMissingToken, Delay: time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = answer })
			c := dialPush(t, s)
			if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			err := c.Shutdown(ctx)
			t.Logf("%s: %v", name, err)
			if ctx.Err() != nil {
				wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
			} else {
				wantErr(t, err, apns.ErrInDoubt)
			}
			if d := time.Since(start); d > time.Minute {
				t.Errorf("%s: took %v, want no more than its context's minute", name, d)
			}
			wantErr(t, c.CheckForError(), apns.ErrInDoubt)
			wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrNotSent)
		})
	}
}

// Two goroutines shut down, others write meanwhile: both get the answer, and
// each message was either accepted or not sent.
func TestShutdownWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		var mu sync.Mutex
		sent := make(map[uint32]bool)
		var wg sync.WaitGroup
		for g := range uint32(10) {
			wg.Go(func() {
				for i := range uint32(100) {
					id := g<<16 | i
					err := c.WritePushMsg(t.Context(), message(id))
					if err != nil {
						wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
						return
					}
					mu.Lock()
					sent[id] = true
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(30 * time.Millisecond)
		for range 2 {
			wg.Go(func() {
				if err := c.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
			})
		}
		wg.Wait()
		accepted := s.Messages(apnstest.Accepted)
		if len(accepted) != len(sent) || len(accepted) < 100 {
			t.Errorf("server accepted %d messages, %d were sent", len(accepted), len(sent))
		}
		for _, m := range accepted {
			if !sent[m.ID] {
				t.Errorf("message %x was accepted and reported as not sent", m.ID)
			}
		}
	})
}

// A connection that ends without a word.
func TestEndsInDoubt(t *testing.T) {
	for name, fault := range map[string]apnstest.Fault{
		"clean":          {},
		"FIN":            {End: apnstest.EndFIN},
		"closed":         {End: apnstest.EndFINThenRST},
		"reset":          {End: apnstest.EndRST},
		"half a packet":  {Err: apns.StatusInvalidToken, Cut: 3},
		"half, reset":    {Err: apns.StatusInvalidToken, Cut: 3, End: apnstest.EndRST},
		"half in pieces": {Err: apns.StatusInvalidToken, Cut: 2, Split: 1},
		"accepted":       {Err: apns.StatusNoError},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, rejecting(3, fault))
			c := dialPush(t, s)
			for id := range uint32(3) {
				if err := c.WritePushMsg(t.Context(), message(id+1)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			err := c.CheckForError()
			t.Logf("%s: %v", name, err)
			wantErr(t, err, apns.ErrInDoubt)
			wantErr(t, c.WritePushMsg(t.Context(), message(4)), apns.ErrNotSent)
			wantErr(t, c.Shutdown(t.Context()), apns.ErrInDoubt)
			wantErr(t, c.CheckForError(), apns.ErrInDoubt)
		})
	}
}

// Each error packet is cut at each byte, from either end of the stream.
func TestErrorPacketCutShort(t *testing.T) {
	for cut := range 7 {
		for split := range 7 {
			for _, end := range []apnstest.End{apnstest.EndCloseNotify, apnstest.EndOneSegment, apnstest.EndFIN, apnstest.EndRST} {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, rejecting(1, apnstest.Fault{Err: apns.StatusInvalidToken, Cut: cut, Split: split, End: end}))
					c := dialPush(t, s)
					if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
					if cut == 0 {
						wantPushError(t, c.CheckForError(), 1, apns.StatusInvalidToken)
					} else {
						wantErr(t, c.CheckForError(), apns.ErrInDoubt)
					}
				})
			}
		}
	}
}

// A server that lets go of each connection: nothing was written, so nothing is
// in doubt.
func TestEndsBeforeTheFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{Delay: time.Second} }
		})
		c := dialPush(t, s)
		if err := c.CheckForError(); err != nil {
			t.Errorf("CheckForError: %v, want nil: it does not wait", err)
		}
		time.Sleep(2 * time.Second)
		wantErr(t, c.CheckForError(), apns.ErrNotSent)
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent)
		wantErr(t, c.Shutdown(t.Context()), apns.ErrNotSent)
	})
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnConnect = func(int, tlsState) error { return apns.StatusShutdown }
		})
		c := dialPush(t, s)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			wantErr(t, err, apns.ErrNotSent) // the server was faster
		}
		wantPushError(t, c.Shutdown(t.Context()), 0, apns.StatusShutdown)
	})
}

// A message that breaks a rule does no harm to the connection.
func TestBadMessageIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		bad := message(1)
		bad.Token = "xyz0"
		wantErr(t, c.WritePushMsg(t.Context(), bad), apns.StatusInvalidToken)
		if err := c.WritePushMsg(t.Context(), message(2)); err != nil {
			t.Fatal(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := s.Records(); len(r) != 1 || r[0].Message.ID != 2 {
			t.Errorf("server recorded %v, want message 2", r)
		}
	})
}

// A server that stops reading: contexts end the waiting, the one in the middle
// of a message ends the connection, and no half message is taken.
func TestStalledServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(1, apnstest.Fault{End: apnstest.EndSilence}))
		c := dialPush(t, s)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() { // waits for its turn, in vain
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			wantErr(t, c.WritePushMsg(ctx, message(99999)), apns.ErrNotSent, context.DeadlineExceeded)
			if d := time.Since(start); d != 11*time.Second {
				t.Errorf("waiting ended after %v, want 11s", d)
			}
			if err := c.CheckForError(); err != nil {
				t.Errorf("CheckForError: %v, want nil: the connection lives", err)
			}
		})
		var err error
		n := uint32(1)
		for err == nil {
			n++
			err = c.WritePushMsg(ctx, message(n))
		}
		wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
		if d := time.Since(start); d != time.Minute {
			t.Errorf("writing ended after %v, want 1m", d)
		}
		wg.Wait()
		wantErr(t, c.CheckForError(), apns.ErrInDoubt)
		if want := fmt.Sprintf("messages written: %d, the last with ID %d,", n-1, n-1); !strings.Contains(c.CheckForError().Error(), want) {
			t.Errorf("got %v, want %s", c.CheckForError(), want)
		}
		if errors.Is(c.CheckForError(), context.DeadlineExceeded) {
			t.Errorf("%v matches a context that was another call's", c.CheckForError())
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(n)), apns.ErrNotSent)
		wantErr(t, c.Shutdown(t.Context()), apns.ErrInDoubt)
	})
}

// A context that ends between two messages harms neither.
func TestContextEndsBetweenWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		for id := range uint32(20) {
			ctx, cancel := context.WithCancel(t.Context())
			if err := c.WritePushMsg(ctx, message(id)); err != nil {
				t.Fatal(err)
			}
			cancel()
			wantErr(t, c.WritePushMsg(ctx, message(1000)), apns.ErrNotSent, context.Canceled)
			if id%2 == 0 {
				synctest.Wait()
			}
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(s.Messages(apnstest.Accepted)); n != 20 {
			t.Errorf("server accepted %d messages, want 20", n)
		}
	})
}

// Close ends whatever is under way.
func TestCloseInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(1, apnstest.Fault{End: apnstest.EndSilence}))
		c := dialPush(t, s)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				var err error
				for err == nil {
					err = c.WritePushMsg(t.Context(), message(1))
				}
				wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
			})
		}
		time.Sleep(time.Second)
		wg.Go(func() { wantErr(t, c.Shutdown(t.Context()), apns.ErrInDoubt, net.ErrClosed) })
		time.Sleep(time.Second)
		start := time.Now()
		for range 2 {
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v, want none", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		s.AddFeedback(apns.Feedback{Token: token, DeadAt: expiry})
		s.OnConnect = nil
		c := dial(t, "feedback.push.apple.com:2196", s.Config())
		if _, err := c.ReadFeedbackMsg(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
		_, err := c.ReadFeedbackMsg(t.Context())
		wantErr(t, err, net.ErrClosed)
	})
}

func TestManyWriters(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	c := dialPush(t, s)
	const writers, each = 50, 100
	var wg sync.WaitGroup
	for g := range uint32(writers) {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for i := range uint32(each) {
				if err := c.WritePushMsg(ctx, message(g*each+i)); err != nil {
					t.Error(err)
					return
				}
				c.CheckForError()
			}
		})
	}
	wg.Wait()
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint32]bool)
	for _, m := range s.Messages(apnstest.Accepted) {
		seen[m.ID] = true
	}
	if len(seen) != writers*each {
		t.Errorf("server accepted %d different messages, want %d", len(seen), writers*each)
	}
}

func TestVerbsThatDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialPush(t, s)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		_, err := c.ReadFeedbackMsg(t.Context())
		const sends = "apns: this connection sends messages: dial the feedback service for another that reads from it"
		if err == nil || err.Error() != sends {
			t.Errorf("ReadFeedbackMsg: got  %v\nwant %s", err, sends)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v; the mistake did harm", err)
		}

		s.AddFeedback(apns.Feedback{Token: token, DeadAt: expiry})
		c = dial(t, "feedback.push.apple.com:2196", s.Config())
		if _, err := c.ReadFeedbackMsg(t.Context()); err != nil {
			t.Fatal(err)
		}
		const reads = "apns: this connection reads the feedback service: dial the gateway for another that sends messages"
		for name, err := range map[string]error{"CheckForError": c.CheckForError(), "Shutdown": c.Shutdown(t.Context())} {
			if err == nil || err.Error() != reads {
				t.Errorf("%s: got  %v\nwant %s", name, err, reads)
			}
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent)
	})
}

// race writes messages until the connection has ended, while the server rejects
// one of them, and returns what CheckForError says. It pauses at random, up to
// the given time.
func race(t *testing.T, c *apns.Conn, pause time.Duration) error {
	for id := uint32(1); id < 1_000_000; id++ {
		if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
			wantErr(t, err, apns.ErrNotSent)
			break
		}
		if pause > 0 {
			time.Sleep(rand.N(pause))
		}
	}
	return c.CheckForError()
}

// ends are the ways of ending the stream after an error packet.
var ends = map[string]apnstest.Fault{
	"clean":        {End: apnstest.EndCloseNotify},
	"together":     {End: apnstest.EndOneSegment},
	"bare":         {End: apnstest.EndFIN},
	"closed":       {End: apnstest.EndFINThenRST},
	"reset":        {End: apnstest.EndRST},
	"one by one":   {End: apnstest.EndFINThenRST, Split: 1},
	"stalled":      {End: apnstest.EndSilence},
	"late, closed": {End: apnstest.EndFINThenRST, Delay: 3 * time.Millisecond},
}

const races = 200 // for each way

// The error packet and the caller's writes race; the packet always gets through.
func TestRaceOnLoopback(t *testing.T) {
	for name, fault := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault.Err = apns.StatusInvalidToken
			s := apnstest.NewServer(func(m *apns.Message) error {
				if m.ID == 7 {
					return fault
				}
				return nil
			})
			defer s.Close()
			for i := range races {
				c := dialPush(t, s)
				pause := time.Duration(i%2) * 100 * time.Microsecond
				wantPushError(t, race(t, c, pause), 7, apns.StatusInvalidToken)
				c.Close()
			}
		})
	}
}

// The same where a reset throws away what was not read yet. With nobody reading
// until a write has failed, as a client without a listening goroutine would have
// it, the packet is lost: so the test can fail.
func TestRaceWithDiscardingReset(t *testing.T) {
	for name, fault := range ends {
		fault.Err = apns.StatusInvalidToken
		t.Run(name, func(t *testing.T) {
			for range races {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, rejecting(7, fault))
					c := dialPush(t, s)
					wantPushError(t, race(t, c, 3*time.Millisecond), 7, apns.StatusInvalidToken)
				})
			}
		})
		if fault.End != apnstest.EndFINThenRST && fault.End != apnstest.EndRST {
			continue // no write fails
		}
		t.Run(name+", not listening", func(t *testing.T) {
			lost := 0
			for range races {
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, rejecting(7, fault))
					config := s.Config()
					gate := new(deafConn)
					config.DialContext = gate.dialer(config.DialContext)
					c := dial(t, "gateway.push.apple.com:2195", config)
					gate.deafen()
					err := race(t, c, 3*time.Millisecond)
					if _, ok := err.(*apns.PushError); !ok {
						wantErr(t, err, apns.ErrInDoubt)
						lost++
					}
				})
			}
			if lost == 0 {
				t.Errorf("no packet was lost in %d races: the test proves nothing", races)
			}
			t.Logf("%d packets lost in %d races", lost, races)
		})
	}
}

// The logger of a binary connection hears why it ended.
func TestLoggerOfBinaryWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(1, apns.StatusInvalidToken))
		config := s.Config()
		var out bytes.Buffer
		config.Logger = slog.New(slog.NewTextHandler(&out, nil))
		c := dial(t, "gateway.push.apple.com:2195", config)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		wantPushError(t, c.Shutdown(t.Context()), 1, apns.StatusInvalidToken)
		synctest.Wait()
		for _, want := range []string{"apns: connected", "apns: connection ended", "message 1 rejected: invalid token"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), token) {
			t.Errorf("the token is in\n%s", out.String())
		}
	})
}
