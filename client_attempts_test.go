package apns_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// attempts collects what OnAttempt is told, by the topic, which tells messages apart.
type attempts struct {
	mu  sync.Mutex // protects following
	all map[string][]apns.Attempt
}

func (a *attempts) note(_ context.Context, t apns.Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = make(map[string][]apns.Attempt)
	}
	a.all[t.Topic] = append(a.all[t.Topic], t)
}

func (a *attempts) of(topic string) []apns.Attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all[topic])
}

// topical returns a message with a topic of its own. Over HTTP/2 the server takes no other
// than that of its certificate.
func topical(n int) *apns.Message {
	m := device(n)
	m.Topic = fmt.Sprintf("%s.%d", apnstest.BundleID, n)
	m.PushType, m.Priority = apns.PushTypeAlert, apns.PriorityPowerSaving
	return m
}

// Each attempt is reported once, before Push returns, with its connection, number, time
// and result.
func TestOnAttempt(t *testing.T) {
	type want struct {
		conn    uint64
		latency time.Duration
		err     error
	}
	const s = time.Second
	tooMany, internal := apns.ReasonTooManyRequests, apns.ReasonInternalServerError
	for name, test := range map[string]struct {
		answers []error
		want    []want
	}{
		"accepted":       {[]error{answerAfter(s)}, []want{{1, s, nil}}},
		"rejected":       {[]error{apnstest.Fault{Err: apns.ReasonBadDeviceToken, Delay: 2 * s}}, []want{{1, 2 * s, apns.ReasonBadDeviceToken}}},
		"429":            {[]error{apnstest.Fault{Err: tooMany, Delay: s}, answerAfter(3 * s)}, []want{{1, s, tooMany}, {1, 3 * s, nil}}},
		"500":            {[]error{internal, internal, answerAfter(s)}, []want{{1, 0, internal}, {1, 0, internal}, {2, s, nil}}},
		"Shutdown":       {[]error{apns.ReasonShutdown, answerAfter(s)}, []want{{1, 0, apns.ReasonShutdown}, {2, s, nil}}},
		"REFUSED_STREAM": {[]error{apnstest.Fault{End: apnstest.EndRefusedStream, Delay: s}, nil}, []want{{1, s, apns.ErrNotSent}, {1, 0, nil}}},
		"GOAWAY":         {[]error{apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Delay: s, Reason: apns.ReasonShutdown}, nil}, []want{{1, s, apns.ReasonShutdown}, {2, 0, nil}}},
		"in doubt":       {[]error{apnstest.Fault{End: apnstest.EndRST, Delay: s}, answerAfter(s)}, []want{{1, s, apns.ErrInDoubt}, {1, s, nil}}},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, PushAll %v", name, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var a attempts
					network := newNetwork(inMemory(t, inTurn(test.answers...)))
					c := network.client(t, func(c *apns.Client) { c.OnAttempt, c.InDoubt = a.note, apns.InDoubtResend })
					m := topical(1)
					m.Topic = apnstest.BundleID
					start := time.Now()
					if err := pushOne(t.Context(), c, m, all); err != nil && name != "rejected" {
						t.Errorf("got %v, want nil", err)
					}
					got := a.of(m.Topic)
					if len(got) != len(test.want) {
						t.Fatalf("%d attempts were reported, want %d: %+v", len(got), len(test.want), got)
					}
					next := start
					for i, want := range test.want {
						g := got[i]
						if g.Protocol != "h2" || g.Conn != want.conn || g.Number != i+1 || g.Latency != want.latency ||
							g.PushType != m.PushType || g.Priority != m.Priority || g.Sent.Before(next) {
							t.Errorf("attempt %d: got %+v, want connection %d, number %d, latency %v, after %v", i, g, want.conn, i+1, want.latency, next)
						}
						if (g.Err == nil) != (want.err == nil) || !errors.Is(g.Err, want.err) {
							t.Errorf("attempt %d: got the error %v, want %v", i, g.Err, want.err)
						}
						next = g.Sent.Add(g.Latency)
					}
					if next.After(time.Now()) {
						t.Errorf("the last attempt ended at %v, in the future", next)
					}
				})
			})
		}
	}
}

// On the binary protocol the latency of an accepted message ends with the barrier. What a
// gateway discards was no attempt.
func TestOnAttemptBinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attempts
		server := inMemory(t, onNumber(2, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: time.Second / 2}))
		network := newNetwork(server)
		network.protocol = ""
		c := network.client(t, func(c *apns.Client) { c.OnAttempt = a.note })
		msgs := []*apns.Message{topical(1), topical(2), topical(3)}
		for range c.PushAll(t.Context(), slices.Values(msgs)) {
		}
		for i, want := range []struct {
			conn uint64
			err  error
		}{{1, nil}, {1, apns.StatusInvalidToken}, {2, nil}} {
			got := a.of(msgs[i].Topic)
			if len(got) != 1 {
				t.Errorf("message %d: %d attempts were reported, want 1: %+v", i, len(got), got)
				continue
			}
			if g := got[0]; g.Protocol != "binary" || g.Conn != want.conn || g.Number != 1 || (g.Err == nil) != (want.err == nil) || !errors.Is(g.Err, want.err) {
				t.Errorf("message %d: got %+v, want connection %d and %v", i, g, want.conn, want.err)
			}
		}
		if got := a.of(msgs[1].Topic)[0].Latency; got != time.Second/2 {
			t.Errorf("the latency of the rejection is %v, want 500ms", got)
		}
	})
}

// Nothing is reported of a message that was not sent: it broke a rule, waited in vain, had
// expired, or the server has refused the sender before.
func TestOnAttemptNothingSent(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		var a attempts
		n := 0
		server := inMemory(t, nil)
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) {
			c.Timeout = 5 * time.Second
			c.OnAttempt = func(ctx context.Context, t apns.Attempt) { n++; a.note(ctx, t) }
		})
		wantClass(t, pushOne(t.Context(), c, &apns.Message{Token: "xyz", Payload: payload}, all), "invalid")
		server.RefuseConnections(true)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.Push(ctx, device(2))
		time.Sleep(2 * time.Hour) // the connection that the first one was for is closed
		wantClass(t, pushOne(t.Context(), c, device(3), all), "not sent")
		wantClass(t, pushOne(t.Context(), c, nil, all), "invalid")
		c.Close()
		wantClass(t, pushOne(t.Context(), c, device(4), all), "not sent")
		if n != 0 {
			t.Errorf("%d attempts were reported, want none: %+v", n, a.all)
		}
	})
}

// A refused sender costs one attempt for each request, and none for the messages that are
// not sent for it.
func TestOnAttemptRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attempts
		server := inMemory(t, always(apns.ReasonBadCertificate))
		c := newNetwork(server).client(t, func(c *apns.Client) { c.OnAttempt = a.note })
		for range c.PushAll(t.Context(), devices(2000)) {
		}
		got := a.of("")
		if len(got) != len(server.Records()) || len(got) == 0 {
			t.Errorf("%d attempts were reported, want %d, as many as the server got", len(got), len(server.Records()))
		}
		for _, g := range got {
			if !errors.Is(g.Err, apns.ErrRefused) {
				t.Fatalf("got %+v, want one that matches ErrRefused", g)
			}
		}
	})
}

// The context ends when the status of the answer has come, and not its end: the attempt is one
// that was accepted, with the server's ID.
func TestOnAttemptCancelledAfterStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := hpack.AppendLiteral(status("200"), "apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b")
		config := scriptedPeer(t, say(h2.AppendHeaders(nil, 0, 1, block, h2.MinMaxFrameSize)))
		var attempts []apns.Attempt
		c := http2Client(t, config, func(c *apns.Client) {
			c.OnAttempt = func(_ context.Context, a apns.Attempt) { attempts = append(attempts, a) }
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		receipt, err := c.Push(ctx, message(1))
		if err != nil || receipt.APNsID == "" {
			t.Errorf("got %+v, %v, want an ID and nil", receipt, err)
		}
		if len(attempts) != 1 || attempts[0].APNsID != receipt.APNsID || !attempts[0].Final || attempts[0].Outcome() != "accepted" {
			t.Errorf("attempts %+v, want one that was accepted, with the ID %s", attempts, receipt.APNsID)
		}
	})
}

// Attempts are reported of many messages at a time: as many as the server got, and for each
// message one that was accepted.
func TestOnAttemptConcurrently(t *testing.T) {
	onBothProtocols(t, func(t *testing.T, protocol string, all bool) {
		var n, accepted atomic.Int64
		var handled atomic.Int64
		server := inMemory(t, func(*apns.Message) error {
			if handled.Add(1)%10 == 0 && protocol == "h2" {
				return apns.ReasonTooManyRequests
			}
			return nil
		})
		network := newNetwork(server)
		network.protocol = protocol
		c := network.client(t, func(c *apns.Client) {
			c.OnAttempt = func(ctx context.Context, a apns.Attempt) {
				n.Add(1)
				if a.Err == nil {
					accepted.Add(1)
				}
			}
		})
		const total = 1000
		if all {
			for r := range c.PushAll(t.Context(), devices(total)) {
				wantClass(t, r.Err, "accepted")
			}
		} else {
			wantAccepted(t, allAtOnce(t.Context(), c, total))
		}
		if got := len(server.Records()); n.Load() != int64(got) || accepted.Load() != total {
			t.Errorf("%d attempts were reported, %d of them accepted, want %d and %d", n.Load(), accepted.Load(), got, total)
		}
	})
}

// The hook may look at the Client's figures: no lock is held.
func TestOnAttemptStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *apns.Client
		c = newNetwork(inMemory(t, nil)).client(t, func(client *apns.Client) {
			client.OnAttempt = func(context.Context, apns.Attempt) {
				if s := c.Stats(); s.Accepted == 0 {
					t.Errorf("Stats are %+v in OnAttempt, want 1 accepted", s)
				}
			}
		})
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
	})
}

// A Client without the hook allocates nothing for it: as much as a Conn does for a push,
// and no more than with the hook.
func TestOnAttemptAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has crypto/tls allocate")
	}
	config := http2Sink(t)
	config.BundleID = "com.example.app"
	m := message(1)
	conn := dial(t, "localhost:443", config)
	floor := testing.AllocsPerRun(1000, func() { conn.WritePushMsg(t.Context(), m) })
	push := func(observe func(context.Context, apns.Attempt)) float64 {
		c := http2Client(t, config, func(c *apns.Client) { c.Addr, c.OnAttempt = "localhost:443", observe })
		return testing.AllocsPerRun(1000, func() {
			if _, err := c.Push(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		})
	}
	without, with := push(nil), push(func(context.Context, apns.Attempt) {})
	t.Logf("a Conn %v, without the hook %v, with it %v", floor, without, with)
	if without > floor+1 || without > with {
		t.Errorf("a push allocates %v times without the hook and %v with it, want at most those of a Conn, %v, and one more", without, with, floor)
	}
}

// InFlight and Waiting are right at each moment: in flight, queued, backing off and while
// there is no connection.
func TestStatsAtMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := inTurn(answerAfter(10*time.Second), answerAfter(20*time.Second),
			&apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second})
		server := inMemory(t, answers, func(s *apnstest.Server) { s.StreamLimit = 2 })
		network := newNetwork(server)
		network.takes = 5 * time.Second
		c := network.client(t, func(c *apns.Client) { c.MaxConns = 1 })
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 3)) })
		for _, at := range []struct {
			seconds           int
			inFlight, waiting uint64
		}{
			{1, 0, 3},  // dialing
			{6, 2, 1},  // two streams, the third waits
			{16, 1, 1}, // the first was accepted, the third was rejected and backs off
			{26, 0, 1}, // only the third is left
			{44, 0, 1},
			{46, 0, 0},
		} {
			time.Sleep(time.Duration(at.seconds)*time.Second - time.Since(epoch(t, network)))
			if s := c.Stats(); s.InFlight != at.inFlight || s.Waiting != at.waiting {
				t.Errorf("after %ds: Stats are %+v, want %d in flight and %d waiting", at.seconds, s, at.inFlight, at.waiting)
			}
		}
		wg.Wait()
	})
}

// epoch returns the time of the first dial.
func epoch(t *testing.T, n *network) time.Time {
	t.Helper()
	synctest.Wait()
	return n.dialedAt(0)
}

// On the binary protocol a message is in flight until a barrier has confirmed it.
func TestStatsAtMomentsBinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil, func(s *apnstest.Server) {
			s.Barrier = apnstest.Fault{Err: apns.StatusMissingToken, Delay: 5 * time.Second}
		})
		network := newNetwork(server)
		network.protocol = ""
		network.takes = 5 * time.Second
		c := network.client(t)
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 50)) })
		time.Sleep(time.Second)
		if s := c.Stats(); s.InFlight != 0 || s.Waiting != 50 {
			t.Errorf("Stats are %+v while dialing, want 50 waiting", s)
		}
		time.Sleep(6 * time.Second)
		if s := c.Stats(); s.InFlight != 50 || s.Waiting != 0 {
			t.Errorf("Stats are %+v before the barrier is answered, want 50 in flight", s)
		}
		wg.Wait()
		if s := c.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Accepted != 50 {
			t.Errorf("Stats are %+v, want 50 accepted", s)
		}
	})
}

// A server that makes up reasons makes up no labels.
func TestStatsLabels(t *testing.T) {
	t.Run("reasons", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const made = 10_000
			var n atomic.Int64
			server := inMemory(t, func(*apns.Message) error { return apns.Reason(fmt.Sprintf("Reason%d", n.Add(1))) })
			c := newNetwork(server).client(t)
			for range c.PushAll(t.Context(), devices(made)) {
			}
			if got, want := c.Stats().Rejected, (map[string]uint64{"other": made}); !maps.Equal(got, want) {
				t.Errorf("got %d labels, want %v", len(got), want)
			}
		})
	})
	t.Run("HTTP statuses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			server := inMemory(t, func(*apns.Message) error { return &apns.PushError{HTTPStatus: 200 + int(n.Add(1)%800)} })
			c := newNetwork(server).client(t)
			for range c.PushAll(t.Context(), devices(3000)) {
			}
			if got := c.Stats().Rejected; len(got) > 100 {
				t.Errorf("got %d labels, want at most one for each 4xx", len(got))
			}
		})
	})
	t.Run("statuses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var status atomic.Int64
			server := inMemory(t, func(*apns.Message) error { return apns.Status(status.Add(1)) })
			network := newNetwork(server)
			network.protocol = ""
			c := network.client(t, func(c *apns.Client) { c.Timeout = time.Hour })
			for range c.PushAll(t.Context(), devices(255)) {
			}
			if got := c.Stats().Rejected; len(got) > 12 || got["other"] < 240 {
				t.Errorf("got %v, want one label for each status that is known, and other", got)
			}
		})
	})
	t.Run("other spellings", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newNetwork(inMemory(t, always(apns.Reason("Service Unavailable")))).client(t, func(c *apns.Client) { c.Attempts = 1 })
			c.Push(t.Context(), message(1))
			if got, want := c.Stats().Rejected, (map[string]uint64{"ServiceUnavailable": 1}); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	})
}
