package apns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Each call has one outcome whatever ends it, and that is true: what was not sent has no
// effect, and what was done has one.
func TestChannelsFaults(t *testing.T) {
	once := func(fault apnstest.Fault) func(string, string) error {
		var n atomic.Int32
		return func(string, string) error {
			if n.Add(1) > 1 {
				return nil
			}
			return fault
		}
	}
	ends := []apnstest.End{apnstest.EndFIN, apnstest.EndFINThenRST, apnstest.EndRST, apnstest.EndSilence,
		apnstest.EndRefusedStream, apnstest.EndGoAway, apnstest.EndGoAwayUnprocessed}
	for _, op := range channelOps {
		for _, end := range ends {
			for _, taken := range []bool{false, true} {
				for _, used := range []bool{false, true} { // the connection
					what := fmt.Sprintf("%s, %v, taken %t, used %t", op.name, end, taken, used)
					synctest.Test(t, func(t *testing.T) {
						fault := apnstest.Fault{End: end}
						if taken {
							fault.Err = apns.StatusNoError
						}
						s := inMemory(t, nil)
						id := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
						c := newChannels(t, s.TokenConfig())
						if used {
							if _, err := c.List(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
						s.OnChannelCall = once(fault)
						want := "in doubt"
						switch {
						case end == apnstest.EndRefusedStream, end == apnstest.EndGoAwayUnprocessed: // sent once more
							want = "accepted"
						case end == apnstest.EndGoAway && taken:
							want = "accepted"
						}
						start := time.Now()
						wantChannelClass(t, what, op.call(t.Context(), c, id), want)
						if d := time.Since(start); d > time.Minute {
							t.Errorf("%s: took %v, want a minute at most", what, d)
						}
						wantEffect(t, what, s, op.name, id, taken || want == "accepted")
						// The next call works, on this connection or another.
						if _, err := c.List(t.Context()); err != nil {
							t.Errorf("%s: List after that: %v", what, err)
						}
					})
				}
			}
		}
	}
}

// wantEffect checks whether a call on an app with one channel has had its effect.
func wantEffect(t *testing.T, what string, s *apnstest.Server, op, id string, has bool) {
	t.Helper()
	ids := s.Channels(apnstest.BundleID)
	got := op == "create" && len(ids) == 2 || op == "delete" && len(ids) == 0
	if want := has && (op == "create" || op == "delete"); got != want {
		t.Errorf("%s: the server has the channels %q, and had %q before: effect %t, want %t", what, ids, id, got, want)
	}
}

// The first connection is cut while the client writes, or while it reads. The outcome is
// true, and what was not processed is sent once more, on another connection. A request is
// one TLS record, which the server has or has not: so a cut write leaves nothing in doubt.
func TestChannelsCut(t *testing.T) {
	for _, reading := range []bool{false, true} {
		for _, op := range []channelOp{channelOps[0], channelOps[3]} {
			seen := make(map[string]int)
			for n := 0; ; n += 37 {
				done := false
				synctest.Test(t, func(t *testing.T) {
					s := inMemory(t, nil)
					c := newChannels(t, s.Config())
					id := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
					next := c.Config.DialContext
					var cut *limitedConn
					c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := next(ctx, network, addr)
						if err == nil && cut == nil {
							cut = &limitedConn{Conn: conn, read: -1, write: n}
							if reading {
								cut.read, cut.write = n, -1
							}
							conn = cut
						}
						return conn, err
					}
					err := op.call(t.Context(), c, id)
					synctest.Wait()
					class := "accepted"
					if err != nil {
						class = strings.Join(classes(err), ", ")
					}
					seen[class]++
					what := fmt.Sprintf("%s, cut at %d, reading %t: %v", op.name, n, reading, err)
					effect := len(s.Channels(apnstest.BundleID)) - 1
					if op.name == "delete" {
						effect = -effect
					}
					switch {
					case class == "accepted" && effect == 1, class == "not sent" && effect == 0, class == "in doubt" && effect <= 1:
					default:
						t.Errorf("%s: it had its effect %d times", what, effect)
					}
					cut.mu.Lock()
					done = cut.read != 0 && cut.write != 0
					cut.mu.Unlock()
				})
				if done {
					break
				}
			}
			t.Logf("%s, reading %t: %v", op.name, reading, seen)
			if seen["accepted"] == 0 || seen["not sent"] == 0 || (seen["in doubt"] != 0) != reading {
				t.Errorf("%s, reading %t: got %v, want accepted, not sent, and in doubt if it reads", op.name, reading, seen)
			}
		}
	}
}

// A connection that ended while it was not used, or was cut off, costs no call.
func TestChannelsIdle(t *testing.T) {
	for name, test := range map[string]struct {
		idle   time.Duration
		breaks func(*blackHole)
		took   time.Duration // at most
		dials  int
	}{
		"in use":          {time.Second, func(*blackHole) {}, 0, 1},
		"idle":            {5 * time.Hour, func(*blackHole) {}, 0, 1},
		"closed":          {time.Hour, func(h *blackHole) { h.Conn.Close() }, 0, 2},
		"cut off, silent": {time.Hour, func(h *blackHole) { h.open.Store(true) }, 15 * time.Second, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil)
			config := s.Config()
			next, dials := config.DialContext, 0
			var first *blackHole
			config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := next(ctx, network, addr)
				if dials++; dials == 1 && err == nil {
					first = &blackHole{Conn: conn}
					conn = first
				}
				return conn, err
			}
			c := newChannels(t, config)
			id, err := c.Create(t.Context(), apns.StoreNone)
			if err != nil {
				t.Fatal(err)
			}
			test.breaks(first)
			time.Sleep(test.idle)
			start := time.Now()
			if err := c.Delete(t.Context(), id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(start); d > test.took || dials != test.dials {
				t.Errorf("%s: it took %v and %d dials, want %v at most and %d", name, d, dials, test.took, test.dials)
			}
		})
	}
}

// After a call without an answer the next one has another connection.
func TestChannelsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := inMemory(t, nil).Config()
		hole := new(blackHole)
		config.DialContext = hole.dialer(config.DialContext)
		c := newChannels(t, config)
		id, err := c.Create(t.Context(), apns.StoreNone)
		if err != nil {
			t.Fatal(err)
		}
		hole.open.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantChannelClass(t, "cut off", c.Delete(ctx, id), "in doubt", context.DeadlineExceeded)
		hole.open.Store(false)
		start := time.Now()
		if err := c.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 2*time.Second { // a second for the close_notify that nobody reads
			t.Errorf("the next call took %v, want no wait for the connection that was cut off", d)
		}
	})
}

// An answer that is too large is in doubt, and the error names the limit.
func TestChannelsTooLargeAnswer(t *testing.T) {
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"channels":["%s"]}`, strings.Repeat("a", 5<<20))
	}))
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	config := &apns.Config{BundleID: apnstest.BundleID, TLS: web.Client().Transport.(*http.Transport).TLSClientConfig}
	c := newChannels(t, config)
	c.Addr = web.Listener.Addr().String()
	_, err := c.List(t.Context())
	wantChannelClass(t, "5 MiB", err, "in doubt", apns.ErrInDoubt)
	if want := "too large, expected at most 4194304 bytes"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// The calls are made one after the other; a context ends the wait.
func TestChannelsTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var together, most atomic.Int32
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnChannelCall = func(string, string) error {
				most.Store(max(most.Load(), together.Add(1)))
				defer together.Add(-1)
				time.Sleep(time.Second)
				return nil
			}
		})
		w := new(connCount)
		c := newChannels(t, w.count(s.TokenConfig()))
		var wg sync.WaitGroup
		var notSent atomic.Int32
		for i := range 10 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				if i >= 8 {
					time.Sleep(time.Second / 2) // while the first of the others is made
					ctx, cancel = context.WithTimeout(t.Context(), time.Second/4)
				}
				defer cancel()
				if _, err := c.Create(ctx, apns.StoreNone); err != nil {
					wantChannelClass(t, "Create", err, "not sent", context.DeadlineExceeded)
					notSent.Add(1)
				}
			})
		}
		wg.Wait()
		if n := len(s.Channels(apnstest.BundleID)); n != 8 || notSent.Load() != 2 || most.Load() != 1 {
			t.Errorf("%d channels were created, %d calls not sent, %d together, want 8, 2, 1", n, notSent.Load(), most.Load())
		}
		w.want(t, 1, 1)
		c.Close()
		w.want(t, 1, 0)
	})
}

// A call that the server does not answer has a minute, or the time of its context.
func TestChannelsDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		after   time.Duration // of the context; 0: none
		cancel  bool
		matches error
		took    time.Duration
	}{
		"none":      {0, false, context.DeadlineExceeded, time.Minute},
		"deadline":  {3 * time.Second, false, context.DeadlineExceeded, 3 * time.Second},
		"cancelled": {3 * time.Second, true, context.Canceled, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil, func(s *apnstest.Server) {
				s.OnChannelCall = func(string, string) error { return apnstest.Fault{End: apnstest.EndSilence} }
			})
			c := newChannels(t, s.Config())
			ctx, cancel := context.WithCancel(t.Context())
			if test.cancel {
				time.AfterFunc(test.after, cancel)
			} else if test.after > 0 {
				ctx, cancel = context.WithTimeout(ctx, test.after)
			}
			defer cancel()
			start := time.Now()
			_, err := c.Create(ctx, apns.StoreNone)
			wantChannelClass(t, name, err, "in doubt", test.matches)
			if d := time.Since(start); d != test.took {
				t.Errorf("%s: it took %v, want %v", name, d, test.took)
			}
		})
	}
}

// Close ends calls that are made, that wait, and that come later.
func TestChannelsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnChannelCall = func(string, string) error { return apnstest.Fault{End: apnstest.EndSilence} }
		})
		w := new(connCount)
		c := newChannels(t, w.count(s.Config()))
		create := func() <-chan error {
			outcome := make(chan error, 1)
			go func() {
				_, err := c.Create(t.Context(), apns.StoreNone)
				outcome <- err
			}()
			synctest.Wait()
			return outcome
		}
		made, waiting := create(), create()
		c.Close()
		wantChannelClass(t, "the call that was made", <-made, "in doubt", net.ErrClosed)
		wantChannelClass(t, "the call that waited", <-waiting, "not sent", net.ErrClosed)
		for range 2 {
			wantChannelClass(t, "a later call", c.Delete(t.Context(), "AAAA"), "not sent", net.ErrClosed)
			c.Close()
		}
		w.want(t, 1, 0)

		// While it dials.
		config := s.Config()
		config.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c = newChannels(t, config)
		dialing := create()
		c.Close()
		wantChannelClass(t, "the call that dialed", <-dialing, "not sent", net.ErrClosed)
		new(apns.Channels).Close()

		// While it dials, for longer than its context lasts.
		w = &connCount{pause: time.Second}
		c = newChannels(t, w.count(s.Config()))
		dialing = create()
		c.Close()
		w.want(t, 1, 0)
		if len(dialing) == 0 {
			t.Error("Close has returned before the call that dialed")
		}
		wantChannelClass(t, "the call that went on dialing", <-dialing, "not sent", net.ErrClosed)
	})
}

// After ExpiredProviderToken the call is sent once more, with another token.
func TestChannelsExpiredProviderToken(t *testing.T) {
	var bearers []string
	web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		bearers = append(bearers, r.Header.Get("authorization"))
		if len(bearers) == 1 {
			w.WriteHeader(403)
			json.NewEncoder(w).Encode(map[string]string{"reason": "ExpiredProviderToken"})
			return
		}
		w.WriteHeader(204)
	})
	s := apnstest.NewServer(nil)
	defer s.Close()
	config := trusting(web)
	config.Key = s.TokenConfig().Key
	c := newChannels(t, config)
	c.Addr = web.Listener.Addr().String()
	if err := c.Delete(t.Context(), "AAAA"); err != nil {
		t.Error(err)
	}
	if len(bearers) != 2 || bearers[0] == bearers[1] || !strings.HasPrefix(bearers[1], "bearer ") {
		t.Errorf("got %d requests, or the same token twice, want two with different tokens", len(bearers))
	}
}
