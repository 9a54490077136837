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

// The policies for messages in doubt, on both protocols: a message is reported, or resent
// if it has a CollapseID and was sent over HTTP/2, or resent always. Here the server
// accepted the first attempt and did not say so, or did not look at it.
func TestInDoubtPolicies(t *testing.T) {
	for _, policy := range []apns.InDoubtPolicy{apns.InDoubtReport, apns.InDoubtResendCollapsible, apns.InDoubtResend} {
		for _, collapseID := range []string{"", "score"} {
			for _, taken := range []bool{false, true} {
				t.Run(fmt.Sprintf("policy %d, CollapseID %q, taken %v", policy, collapseID, taken), func(t *testing.T) {
					onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
						testInDoubtPolicy(t, protocol, all, policy, collapseID, taken)
					})
				})
			}
		}
	}
}

func testInDoubtPolicy(t *testing.T, protocol string, all bool, policy apns.InDoubtPolicy, collapseID string, taken bool) {
	lost := apnstest.Fault{End: apnstest.EndFINThenRST}
	if taken {
		lost.Err = apns.StatusNoError
	}
	server := inMemory(t, inTurn(lost))
	network := newNetwork(server)
	network.protocol = protocol
	c := network.client(t, func(c *apns.Client) { c.InDoubt = policy })
	m := device(1)
	m.CollapseID = collapseID
	resend := policy == apns.InDoubtResend || policy == apns.InDoubtResendCollapsible && collapseID != "" && protocol == "h2"
	want := "in doubt"
	if resend {
		want = "accepted"
	}
	wantClass(t, pushOne(t.Context(), c, m, all), want)
	synctest.Wait()
	accepted := 0
	for range server.Messages(apnstest.Accepted) {
		accepted++
	}
	times := 0
	if taken {
		times++
	}
	if resend {
		times++
	}
	if accepted != times {
		t.Errorf("the server accepted the message %d times, want %d", accepted, times)
	}
	resent := uint64(0)
	if resend {
		resent = 1
	}
	if s := c.Stats(); s.Resent != resent || s.Accepted != resent || s.InDoubt != 1-resent {
		t.Errorf("Stats are %+v, want %d resent and accepted", s, resent)
	}
	if err := pushOne(t.Context(), c, device(2), all); err != nil {
		t.Errorf("the next message: got %v, want nil", err)
	}
}

// Resending has an end: after Attempts the message is in doubt.
func TestInDoubtAttempts(t *testing.T) {
	for _, policy := range []apns.InDoubtPolicy{apns.InDoubtResendCollapsible, apns.InDoubtResend} {
		onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
			server := inMemory(t, always(apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFINThenRST}))
			network := newNetwork(server)
			network.protocol = protocol
			c := network.client(t, func(c *apns.Client) { c.InDoubt, c.Attempts = policy, 4 })
			m := device(1)
			m.CollapseID = "score"
			wantClass(t, pushOne(t.Context(), c, m, all), "in doubt")
			want := 4
			if policy == apns.InDoubtResendCollapsible && protocol == "" {
				want = 1
			}
			synctest.Wait()
			if got := len(server.Records()); got != want {
				t.Errorf("the server got the message %d times, want %d", got, want)
			}
		})
	}
}

// A message that is late, or whose call was cancelled, is not resent: nobody waits for it.
func TestInDoubtLateIsNotResent(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		server := inMemory(t, always(apnstest.Fault{End: apnstest.EndSilence}))
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) { c.InDoubt, c.Timeout = apns.InDoubtResend, 10*time.Second })
		start := time.Now()
		wantClass(t, pushOne(t.Context(), c, device(1), all), "in doubt")
		wantTook(t, start, 10*time.Second, 13*time.Second)
		synctest.Wait()
		if got := len(server.Records()); got != 1 {
			t.Errorf("the server got the message %d times, want once", got)
		}
	})
}

// With a CollapseID for each second message, each second one is in doubt when the connection
// of a hundred ends, and the rest is accepted.
func TestInDoubtCollapsibleOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count atomic.Int64
		server := inMemory(t, func(*apns.Message) error {
			switch n := count.Add(1); {
			case n < 50:
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
			case n == 50:
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFIN}
			}
			return nil
		})
		c := newNetwork(server).client(t, func(c *apns.Client) { c.InDoubt = apns.InDoubtResendCollapsible })
		msgs := func(yield func(*apns.Message) bool) {
			for m := range devices(100) {
				if m.ID%2 == 0 {
					m.CollapseID = fmt.Sprint(m.ID)
				}
				if !yield(m) {
					return
				}
			}
		}
		inDoubt := 0
		for r := range c.PushAll(t.Context(), msgs) {
			switch {
			case r.Message.CollapseID != "":
				wantClass(t, r.Err, "accepted")
			case r.Err != nil:
				inDoubt++
				wantClass(t, r.Err, "in doubt")
			}
		}
		if inDoubt < 25 || inDoubt > 50 {
			t.Errorf("%d messages are in doubt, want 25 to 50", inDoubt)
		}
	})
}
