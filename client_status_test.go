package apns_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A scriptedGateway is one that a test writes: it answers each message that it reads. Those
// of package apnstest end the connection with each error packet, as Apple's did.
type scriptedGateway struct {
	// answer returns what is written when a message was read, and whether the connection
	// ends then. It is called for one message after the other.
	answer func(conn int, m *apns.Message) ([]byte, bool)

	mu    sync.Mutex // protects following
	conns int
	got   []apns.Message // without barriers
}

func packet(status apns.Status, id uint32) []byte {
	return apns.AppendError(nil, &apns.PushError{ID: id, Status: status})
}

// network returns the way to the gateway, for any number of connections.
func (g *scriptedGateway) network(t *testing.T) *network {
	return &network{servers: []dialer{func(ctx context.Context, network, addr string) (net.Conn, error) {
		return scriptedPeer(t, g.serve).DialContext(ctx, network, addr)
	}}}
}

func (g *scriptedGateway) serve(c net.Conn) {
	g.mu.Lock()
	g.conns++
	conn := g.conns
	g.mu.Unlock()
	out := make(chan []byte, 1<<16)
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(out)
	writing.Go(func() {
		for b := range out {
			c.Write(b)
		}
	})
	r := bufio.NewReader(c)
	for {
		m, err := apns.ReadMsg(r)
		if err != nil {
			return
		}
		g.mu.Lock()
		if m.Token != "" {
			g.got = append(g.got, *m)
		}
		b, ends := g.answer(conn, m)
		g.mu.Unlock()
		if b != nil {
			out <- b
		}
		if ends {
			time.AfterFunc(time.Millisecond, func() { c.Close() })
		}
	}
}

func (g *scriptedGateway) messages() []apns.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.got)
}

// A gateway that says of each message that it has accepted it (status 0) has it accepted
// at once, without a barrier, and the connection goes on.
func TestStatusZero(t *testing.T) {
	onStatusZero := func(t *testing.T, gap time.Duration, all bool) {
		g := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) { return packet(apns.StatusNoError, m.ID), m.Token == "" }}
		network := g.network(t)
		c := network.client(t, func(c *apns.Client) { c.ConfirmInterval = 5 * time.Second })
		const n = 50
		start := time.Now()
		if all {
			for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range devices(n) {
					if !yield(m) {
						return
					}
					time.Sleep(gap)
				}
			}) {
				wantClass(t, r.Err, "accepted")
			}
		} else {
			for i := range n {
				before := time.Now()
				_, err := c.Push(t.Context(), device(i))
				wantClass(t, err, "accepted")
				wantTook(t, before, 0, 0)
				time.Sleep(gap)
			}
		}
		wantTook(t, start, n*gap, n*gap+time.Second)
		if got := len(g.messages()); got != n {
			t.Errorf("the gateway got %d messages, want %d", got, n)
		}
		// The first connection may end with a barrier, before a status 0 has come.
		if got := network.dialed(); got > 2 {
			t.Errorf("%d dials for %d messages, want at most 2", got, n)
		}
	}
	for _, gap := range []time.Duration{0, 10 * time.Millisecond, time.Second, 8 * time.Second} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("each %v, PushAll %v", gap, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { onStatusZero(t, gap, all) })
			})
		}
	}
}

// One status 0 is for all messages up to its identifier; several may come in one packet.
func TestStatusZeroForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) {
			switch {
			case m.Token == "":
				return packet(apns.StatusMissingToken, m.ID), true
			case m.ID%10 == 0:
				return bytes.Join([][]byte{packet(apns.StatusNoError, m.ID-5), packet(apns.StatusNoError, m.ID), packet(apns.StatusNoError, m.ID-3)}, nil), false
			}
			return nil, false
		}}
		network := g.network(t)
		c := network.client(t, func(c *apns.Client) { c.ConfirmInterval, c.Timeout = time.Hour, 2*time.Hour })
		if _, err := c.Push(t.Context(), device(0)); err != nil { // with a barrier, at once
			t.Error(err)
		}
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 95)) })
		synctest.Wait()
		if s := c.Stats(); s.Accepted != 91 || s.InFlight != 5 {
			t.Errorf("Stats are %+v, want 91 accepted and 5 in flight", s)
		}
		if err := c.Shutdown(t.Context()); err != nil { // with a barrier for the rest
			t.Error(err)
		}
		wg.Wait()
		wantTook(t, start, 0, time.Second)
	})
}

// A status 0 that names what was not sent is ignored: 0, the next message, any other.
func TestStatusZeroOfUnknown(t *testing.T) {
	for name, id := range map[string]func(uint32) uint32{
		"0":                func(uint32) uint32 { return 0 },
		"far away":         func(uint32) uint32 { return 1 << 31 },
		"the last of all":  func(uint32) uint32 { return 1<<32 - 1 },
		"not written yet":  func(id uint32) uint32 { return id + 100 },
		"an earlier one's": func(id uint32) uint32 { return max(1, id) - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) {
					if m.Token == "" {
						return packet(apns.StatusMissingToken, m.ID), true
					}
					return packet(apns.StatusNoError, id(m.ID)), false
				}}
				c := g.network(t).client(t, func(c *apns.Client) { c.ConfirmInterval = 10 * time.Second })
				if _, err := c.Push(t.Context(), device(0)); err != nil { // with a barrier, at once
					t.Error(err)
				}
				start := time.Now()
				_, err := c.Push(t.Context(), device(1))
				wantClass(t, err, "accepted")
				wantTook(t, start, 9*time.Second, 10*time.Second) // when the barrier was answered
			})
		})
	}
}

// After a status 0 a rejection may come: it names its message, and those after it are
// resent on another connection.
func TestStatusZeroAndThenRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGateway{answer: func(conn int, m *apns.Message) ([]byte, bool) {
			switch {
			case m.Token == device(5).Token:
				return packet(apns.StatusInvalidToken, m.ID), true
			case conn == 1 && m.ID > 6: // discarded
				return nil, false
			}
			return packet(apns.StatusNoError, m.ID), m.Token == ""
		}}
		network := g.network(t)
		c := network.client(t)
		for r := range c.PushAll(t.Context(), devices(20)) {
			if r.Message.ID == 5 {
				wantPushError(t, r.Err, 5, apns.StatusInvalidToken)
			} else {
				wantClass(t, r.Err, "accepted")
			}
		}
		if got := network.dialed(); got != 2 {
			t.Errorf("%d dials, want 2", got)
		}
	})
}

// A gateway that stops to say what it accepts is asked with barriers again, after
// ConfirmInterval.
func TestStatusZeroStops(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			g := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) {
				if n++; m.Token == "" {
					return packet(apns.StatusMissingToken, m.ID), true
				} else if n <= 10 {
					return packet(apns.StatusNoError, m.ID), false
				}
				return nil, false
			}}
			network := g.network(t)
			c := network.client(t)
			for i := range 30 {
				start := time.Now()
				wantClass(t, pushOne(t.Context(), c, device(i), all), "accepted")
				wantTook(t, start, 0, time.Second)
			}
			if got := len(g.messages()); got != 30 {
				t.Errorf("the gateway got %d messages, want 30", got)
			}
		})
	}
}

// A connection on which all was accepted is closed when nothing has come for a while.
func TestStatusZeroIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) { return packet(apns.StatusNoError, m.ID), m.Token == "" }}
		network := g.network(t)
		c := network.client(t)
		if _, err := c.Push(t.Context(), device(0)); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour)
		if network.conn(0).closed().IsZero() {
			t.Error("the connection is open after two hours without work, want it closed")
		}
		wantIdle(t)
		if _, err := c.Push(t.Context(), device(1)); err != nil {
			t.Error(err)
		}
	})
}

// Status 10 with the identifier 0 says that the gateway shuts down and accepted nothing.
// All messages are resent on another connection, in their order, and that counts as an
// attempt.
func TestShutdownOfNothingSent(t *testing.T) {
	for _, times := range []int{1, 3, 100} {
		for _, n := range []int{1, 20} {
			t.Run(fmt.Sprintf("%d times, %d messages", times, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, nil)
					network := newNetwork()
					network.protocol = ""
					dead := &scriptedGateway{answer: func(_ int, m *apns.Message) ([]byte, bool) { return packet(apns.StatusShutdown, 0), true }}
					for range times {
						network.servers = append(network.servers, dead.network(t).servers[0])
					}
					network.servers = append(network.servers, server.Config().DialContext)
					c := network.client(t, func(c *apns.Client) { c.Attempts, c.Timeout = 5, 10*time.Minute })
					want := "accepted"
					if times >= 5 {
						want = "not sent"
					}
					for r := range c.PushAll(t.Context(), devices(n)) {
						wantClass(t, r.Err, want)
						if want == "not sent" {
							wantErr(t, r.Err, apns.ErrNotSent, apns.StatusShutdown)
						}
					}
					sent := make(map[string]int)
					for _, m := range dead.messages() {
						sent[m.Token]++
					}
					for i := range n {
						if got := sent[device(i).Token]; got > min(times, 5) {
							t.Errorf("message %d was sent %d times, want at most %d", i, got, min(times, 5))
						}
					}
					if want == "accepted" {
						var order []uint32
						for _, m := range server.Messages(apnstest.Accepted) {
							order = append(order, numberOf(m))
						}
						if len(order) != n || !slices.IsSorted(order) {
							t.Errorf("the messages came as %v, want all %d in their order", order, n)
						}
					}
				})
			})
		}
	}
}

// The barrier's answer may have the identifier 0, with the status for want of a token or of
// a payload.
func TestBarrierUnnamed(t *testing.T) {
	for _, status := range []apns.Status{apns.StatusMissingToken, apns.StatusMissingPayload} {
		for _, all := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = &apns.PushError{Status: status} })
				network := newNetwork(server)
				network.protocol = ""
				c := network.client(t)
				for i := range 5 {
					wantClass(t, pushOne(t.Context(), c, device(i), all), "accepted")
				}
				if got := len(server.Records()); got != 5 {
					t.Errorf("status %d: the server got %d messages, want 5", status, got)
				}
			})
		}
	}
}
