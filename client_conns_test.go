package apns_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A connection that was cut off while idle costs no message: the next one goes over
// another.
func TestClientHTTP2CutOffWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.Config()
		next := config.DialContext
		var holes []*blackHole
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			holes = append(holes, new(blackHole))
			return holes[len(holes)-1].dialer(next)(ctx, network, addr)
		}
		c := http2Client(t, config)
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		holes[0].open.Store(true)
		time.Sleep(5 * time.Minute)
		if _, err := c.Push(t.Context(), message(2)); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if s := c.Stats(); s.Accepted != 2 || s.Connected != 2 || len(server.Records()) != 2 {
			t.Errorf("Stats are %+v, and the server has %d messages; want 2 accepted on 2 connections", s, len(server.Records()))
		}
	})
}

// There is one connection while its streams suffice, and another only while all
// are taken, up to MaxConns. They are dialed one after the other, each when the one
// before has accepted a message.
func TestClientHTTP2Grows(t *testing.T) {
	for _, test := range []struct{ pushers, streams, maxConns, conns int }{
		{1, 10, 0, 1},
		{10, 10, 0, 1},
		{11, 10, 0, 2},
		{20, 10, 0, 2},
		{21, 10, 0, 3},
		{40, 10, 0, 4},
		{41, 10, 0, 4},
		{100, 10, 0, 4},
		{100, 10, 1, 1},
		{100, 10, 2, 2},
		{100, 10, 100, 10},
		{3, 1, 0, 3}, // a server that never allowed more
	} {
		for _, key := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v, key %v", test, key), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) },
						func(s *apnstest.Server) { s.StreamLimit = test.streams })
					config := server.Config()
					if key {
						config = server.TokenConfig()
					}
					dials := connCount{pause: time.Millisecond}
					c := http2Client(t, dials.count(config), func(c *apns.Client) { c.MaxConns = test.maxConns })
					const each = 20
					start := time.Now()
					var wg sync.WaitGroup
					for i := range test.pushers {
						wg.Go(func() {
							for range each {
								if _, err := c.Push(t.Context(), device(i)); err != nil {
									t.Errorf("message %d: got %v, want nil", i, err)
								}
							}
						})
					}
					wg.Wait()
					dials.want(t, test.conns, test.conns)
					if dials.together != 1 {
						t.Errorf("%d connections were dialed at the same time, want 1", dials.together)
					}
					wantFigures(t, c, apns.Stats{Accepted: uint64(each * test.pushers), Connected: uint64(test.conns)})
					// A second for each message, and a few for each new connection.
					full := time.Duration(each*test.pushers) * time.Second / time.Duration(min(test.pushers, test.conns*test.streams))
					wantTook(t, start, full, full+time.Duration(3*test.conns)*time.Second)
				})
			})
		}
	}
}

// PushAll makes use of all streams of all connections, be it for many messages or a
// few: also of those that it gets when all messages were handed over.
func TestPushAllHTTP2UsesAllStreams(t *testing.T) {
	for _, test := range []struct {
		messages, streams, maxConns int
		key                         bool
		conns                       int
		most                        time.Duration // with one second for each message
	}{
		{5000, 10, 0, false, 4, 140 * time.Second}, // 125 in steady state
		{5000, 10, 0, true, 4, 140 * time.Second},
		{5000, 100, 1, false, 1, 52 * time.Second},
		{5000, 100, 1, true, 1, 52 * time.Second},
		{200, 10, 0, false, 4, 10 * time.Second},
		{200, 10, 2, false, 2, 13 * time.Second},
		{100, 1000, 0, true, 1, 2*time.Second + 1 /*ns*/},
		{100, 1000, 0, false, 1, time.Second + 1 /*ns*/},
		{20000, 1000, 1, false, 1, 26 * time.Second}, // 20 in steady state
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) },
					func(s *apnstest.Server) { s.StreamLimit = test.streams })
				config := server.Config()
				if test.key {
					config = server.TokenConfig()
				}
				var dials connCount
				c := http2Client(t, dials.count(config), func(c *apns.Client) { c.MaxConns, c.Timeout = test.maxConns, time.Hour })
				start := time.Now()
				n := 0
				for r := range c.PushAll(t.Context(), devices(test.messages)) {
					if n++; r.Err != nil {
						t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
					}
				}
				wantTook(t, start, 0, test.most)
				if n != test.messages {
					t.Errorf("got %d results, want %d", n, test.messages)
				}
				dials.want(t, test.conns, test.conns)
			})
		})
	}
}

// With provider tokens there is one stream until a message was accepted
// ("Establishing a connection to Apple Push Notification service (APNs)"). That is
// no reason to open more connections: a thousand messages at the start dial once.
func TestClientHTTP2StartsWithOneConnection(t *testing.T) {
	for _, key := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(answerAfter(10*time.Second)))
			config := server.Config()
			if key {
				config = server.TokenConfig()
			}
			var dials connCount
			c := http2Client(t, dials.count(config))
			var wg sync.WaitGroup
			wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 1000)) })
			time.Sleep(9 * time.Second)
			dials.want(t, 1, 1)
			if n := len(server.Records()); key && n != 1 {
				t.Errorf("the server has %d messages while the first has no answer, want 1", n)
			}
			wg.Wait()
			dials.want(t, 1, 1)
			wantFigures(t, c, apns.Stats{Accepted: 1000, Connected: 1})
		})
	}
}

// A connection that was not used for an hour is closed, and then nothing is left
// running. One that is used every 50 minutes is kept.
func TestClientHTTP2Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(nil, answerAfter(time.Second), answerAfter(time.Second), answerAfter(time.Second)), func(s *apnstest.Server) { s.StreamLimit = 1 })
		var dials connCount
		c := http2Client(t, dials.count(server.Config()))
		for range 2 { // the second time after nothing was left
			if _, err := c.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Minute)
		}
		dials.want(t, 1, 1)
		wantAccepted(t, allAtOnce(t.Context(), c, 5)) // of which some need another connection
		dials.want(t, 2, 2)
		for range 3 { // the other is not needed
			time.Sleep(50 * time.Minute)
			if _, err := c.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
		}
		dials.want(t, 2, 1)
		time.Sleep(70 * time.Minute)
		dials.want(t, 2, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Errorf("after that: got %v, want nil", err)
		}
		dials.want(t, 3, 1)
	})
}

// A server that takes the stream limit back to one, as Apple's does after a bad
// provider token, does not get more connections instead.
func TestClientHTTP2Throttled(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full before %v", full), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
				var dials connCount
				c := http2Client(t, dials.count(server.Config()))
				n := 1
				if full {
					n = 20 // at the start these are ten and ten, since the first are not accepted yet
				}
				wantAccepted(t, allAtOnce(t.Context(), c, n))
				synctest.Wait()
				before := int(c.Stats().Connected)
				server.SetStreamLimit(1)
				synctest.Wait()
				start := time.Now()
				wantAccepted(t, allAtOnce(t.Context(), c, 5))
				if d := time.Since(start); before == 1 && d < 5*time.Second {
					t.Errorf("5 messages took %v, want 5s: one after the other", d)
				}
				dials.want(t, before, before)

				server.SetStreamLimit(2) // it means it
				synctest.Wait()
				wantAccepted(t, allAtOnce(t.Context(), c, 40))
				dials.want(t, 4, 4)
			})
		})
	}
}

// A Client follows a server that speaks another protocol when it is dialed again, and
// back.
func TestClientHTTP2ProtocolChanges(t *testing.T) {
	const binary = "gateway.push.apple.com:2195"
	// The last message on a connection: accepted, and then the connection ends.
	var last error = apnstest.Fault{Err: apns.StatusShutdown, End: apnstest.EndGoAway}
	for _, test := range []struct{ name, before, after string }{
		{"HTTP/2 to binary", apns.Production, binary},
		{"binary to HTTP/2", binary, apns.Production},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(m *apns.Message) error {
					switch m.Token {
					case device(1).Token, device(20).Token:
						return last
					}
					return nil
				})
				config := server.Config()
				next := config.DialContext
				var changed atomic.Bool
				config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if changed.Load() {
						addr = test.after
					}
					return next(ctx, network, addr)
				}
				c := http2Client(t, config, func(c *apns.Client) {
					c.Addr = test.before
					c.ConfirmInterval = time.Millisecond
					c.InDoubt = apns.InDoubtResend
				})
				check := func(n int) {
					t.Helper()
					if r, err := c.Push(t.Context(), device(n)); err != nil || (r.APNsID != "") != (changed.Load() == (test.after == apns.Production)) {
						t.Errorf("message %d: got %+v, %v; want it accepted over the protocol that the server speaks", n, r, err)
					}
				}
				check(1)
				changed.Store(true)
				check(2)
				for r := range c.PushAll(t.Context(), devices(20)) {
					if r.Err != nil {
						t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
					}
				}
				if _, err := c.Push(t.Context(), device(20)); err != nil { // which ends the connection
					t.Error(err)
				}
				changed.Store(false)
				check(3)
			})
		})
	}
}
