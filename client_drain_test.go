package apns_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Shutdown ends the loop over messages that would never end. Each message that was taken has
// its outcome, and with a server that answers none is in doubt.
func TestShutdownEndsLoops(t *testing.T) {
	endless := func(yield func(*apns.Message) bool) {
		for id := uint32(1); yield(numberedMessage(id)); id++ {
		}
	}
	for _, source := range []string{"PushAll", "PushChan", "PushChan, nothing to receive"} {
		for _, addr := range []string{apns.Production, "gateway.push.apple.com:2195"} {
			for _, silent := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, silent %v", source, addr, silent), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := inMemory(t, nil, func(s *apnstest.Server) { s.Latency = time.Second })
						if silent {
							s = inMemory(t, always(apnstest.Fault{End: apnstest.EndSilence}), func(s *apnstest.Server) { s.StreamLimit = 50 })
						}
						c := newClient(t, s, func(c *apns.Client) { c.Addr, c.MaxInFlight, c.Timeout = addr, 100, time.Hour })
						messages, taken := make(chan *apns.Message), 0
						var results iter.Seq[apns.Result]
						switch source {
						case "PushAll":
							results = c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
								for m := range endless {
									taken++
									if !yield(m) {
										return
									}
								}
							})
						case "PushChan":
							go func() {
								for m := range endless {
									select {
									case messages <- m:
										taken++
									case <-t.Context().Done():
										return
									}
								}
							}()
							fallthrough
						default:
							results = c.PushChan(t.Context(), messages)
						}
						time.AfterFunc(10*time.Second+time.Second/2, func() {
							ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
							defer cancel()
							err := c.Shutdown(ctx)
							if hung := silent && source != "PushChan, nothing to receive"; hung != errors.Is(err, context.DeadlineExceeded) {
								t.Errorf("Shutdown: %v", err)
							}
							c.Close()
						})
						start, got := time.Now(), make(outcomes)
						for r := range results {
							if _, again := got[r.Message.ID]; again {
								t.Errorf("message %d has two results", r.Message.ID)
							}
							got[r.Message.ID] = r.Err
						}
						wantTook(t, start, 10*time.Second, 16*time.Second)
						synctest.Wait()
						if len(got) != taken {
							t.Errorf("%d messages were taken and have %d results, want one for each", taken, len(got))
						}
						sum := got.check(t, s)
						if !silent && (sum.InDoubt > 0 || sum.Accepted == 0 && taken > 0) {
							t.Errorf("got %+v, want no message in doubt, and some accepted", sum)
						}
						if silent && taken > 0 && (sum.InDoubt == 0 || sum.InDoubt > 100 || sum.NotSent == 0) {
							t.Errorf("got %+v, want those in flight in doubt, and those that waited not sent", sum)
						}
					})
				})
			}
		}
	}
}

// On a Client that is closed PushAll takes one message, to say why, and PushChan none.
func TestPushAllAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, inMemory(t, nil))
		c.Close()
		got := collect(t, c.PushAll(t.Context(), messagesFrom(1, 10)))
		if err, ok := got[1]; len(got) != 1 || !ok || !errors.Is(err, apns.ErrNotSent) {
			t.Errorf("PushAll: got %v, want message 1 alone, not sent", got)
		}
		messages := make(chan *apns.Message, 1)
		messages <- numberedMessage(1)
		if got := collect(t, c.PushChan(t.Context(), messages)); len(got) != 0 || len(messages) != 1 {
			t.Errorf("PushChan: got %v, want no results, and the message left in the channel", got)
		}
	})
}

// The Value comes back in the Result, and is not sent.
func TestMessageValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := http2Client(t, s.Config())
		sent := message(1)
		sent.Value = t
		messages := make(chan *apns.Message, 1)
		messages <- sent
		close(messages)
		for r := range c.PushChan(t.Context(), messages) {
			if r.Err != nil || r.Message.Value != t {
				t.Errorf("got the value %v and %v, want that of the message and nil", r.Message.Value, r.Err)
			}
		}
		if records := s.Records(); len(records) != 1 || records[0].Message.Value != nil {
			t.Errorf("the server has %v, want one message without a value", records)
		}
	})
}
