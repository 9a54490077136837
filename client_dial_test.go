package apns_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
				wantOutcome(t, s, got, balance{NotSent: 10})
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
				wantStats(t, c, balance{NotSent: 12})
			})
		})
	}
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
		wantOutcome(t, s, collect(t, c.PushAll(t.Context(), messagesFrom(11, 20))), balance{Accepted: 10})
		wantTook(t, start, time.Hour/2, time.Hour/2+longest)
		if most := 16 + int(2*(time.Hour/2)/longest); dials > most {
			t.Errorf("%d dials in half an hour, want at most %d, two in each %v", dials, most, longest)
		}
		wantStats(t, c, balance{Accepted: 10, NotSent: 1})
	})
}

// A connection that is there when nobody wants it any more is closed: an idle Client
// has no goroutine at work.
func TestClientCancelledWhileDialing(t *testing.T) {
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

// If the server refuses the sender, nobody waits for more of the same: PushAll of
// ten thousand ends at once, after a few requests, and after the back-off one
// good answer is enough. The reasons are those of "Handling notification responses
// from APNs".
func TestClientHTTP2Refused(t *testing.T) {
	for name, test := range map[string]struct {
		key       bool
		wrongTeam bool
		reason    apns.Reason
		onConnect bool
		said      int // the most that the server may see
	}{
		"provider token": {true, false, apns.ReasonInvalidProviderToken, false, 10},
		"wrong team":     {true, true, apns.ReasonInvalidProviderToken, false, 10},
		"environment":    {false, false, apns.ReasonBadCertificateEnvironment, false, 1000},
		"certificate":    {false, false, apns.ReasonBadCertificate, false, 1000},
		"at connect":     {false, false, apns.ReasonBadCertificateEnvironment, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var healed atomic.Bool
				server := inMemory(t, func(*apns.Message) error {
					if healed.Load() || test.onConnect || test.wrongTeam {
						return nil
					}
					return test.reason
				}, func(s *apnstest.Server) {
					s.OnConnect = func(int, tls.ConnectionState) error {
						if test.onConnect && !healed.Load() {
							return test.reason
						}
						return nil
					}
				})
				config := server.Config()
				if test.key {
					config = server.TokenConfig()
				}
				if test.wrongTeam {
					var err error
					config.Key, err = apns.ParseAuthKey(server.Certificates().AuthKey, apnstest.KeyID, "APNSTESTT2")
					if err != nil {
						t.Fatal(err)
					}
				}
				c := http2Client(t, config)
				const total = 10000
				taken, notSent := 0, 0
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(total) {
						taken++
						if !yield(m) {
							return
						}
					}
				}
				start := time.Now()
				for r := range c.PushAll(t.Context(), msgs) {
					notSent++
					wantErr(t, r.Err, apns.ErrNotSent, apns.ErrRefused, test.reason)
					if t.Failed() {
						return
					}
				}
				wantTook(t, start, 0, 2*time.Second)
				if taken != total || notSent != total {
					t.Errorf("of %d messages %d were taken, and %d were not sent; want all", total, taken, notSent)
				}
				heard := len(server.Records())
				if heard > test.said || heard == 0 && !test.onConnect {
					t.Errorf("the server saw %d messages, want 1 to %d", heard, test.said)
				}
				if s := c.Stats(); s.NotSent != uint64(notSent) || len(s.Rejected) != 0 || s.InFlight != 0 {
					t.Errorf("Stats are %+v, want %d not sent", s, notSent)
				}
				t.Logf("the server saw %d", heard)
				if test.wrongTeam {
					return
				}
				healed.Store(true)
				time.Sleep(2 * time.Minute)
				wantAccepted(t, allAtOnce(t.Context(), c, 100))
			})
		})
	}
}

// Before the back-off is over, a message hears of the refusal without a request;
// each attempt after it is one request, if it is refused again.
func TestClientHTTP2RefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return apns.ReasonBadCertificateEnvironment })
		c := http2Client(t, server.Config())
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) {
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadCertificateEnvironment)
			if t.Failed() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		// 0.1 s, 0.2 s up to a minute, less up to half: about ten up to the first
		// minute, and one or two in each after that.
		if n := len(server.Records()); n < 10 || n > 40 {
			t.Errorf("the server saw %d messages in ten minutes, want 10 to 40", n)
		}
	})
}

// What no further attempt to connect would heal ends everything at once.
func TestClientHTTP2CannotConnect(t *testing.T) {
	for name, test := range map[string]struct {
		addr   string
		config func(s *apnstest.Server) *apns.Config
		text   string
	}{
		"certificate not trusted": {apns.Production, func(s *apnstest.Server) *apns.Config {
			config := s.TokenConfig()
			config.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			return config
		}, "certificate signed by unknown authority"},
		"a key, but no ALPN": {"gateway.example.com:2195", (*apnstest.Server).TokenConfig, "did not negotiate HTTP/2 (ALPN h2)"},
		"no port":            {"api.example.com", (*apnstest.Server).TokenConfig, "expected host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil)
				var dials connCount
				c := http2Client(t, dials.count(test.config(server)), func(c *apns.Client) { c.Addr = test.addr })
				start := time.Now()
				_, err := c.Push(t.Context(), message(1))
				check := func(err error) {
					t.Helper()
					if wantErr(t, err, apns.ErrNotSent); !strings.Contains(fmt.Sprint(err), test.text) || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v, want %q in it", err, test.text)
					}
				}
				check(err)
				n := 0
				for r := range c.PushAll(t.Context(), devices(1000)) {
					n++
					check(r.Err)
					if t.Failed() {
						t.FailNow()
					}
				}
				wantTook(t, start, 0, 0)
				if n != 1000 || dials.dialed > 1 {
					t.Errorf("got %d results after %d attempts to connect, want 1000 and 1", n, dials.dialed)
				}
				wantFigures(t, c, apns.Stats{NotSent: 1001})
			})
		})
	}
}

// A server that is down for a while costs the messages nothing but time; if it is
// longer than they have, they were not sent, and the error says why.
func TestClientHTTP2ServerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		c := http2Client(t, server.Config())
		start := time.Now()
		for r := range c.PushAll(t.Context(), devices(10)) {
			wantErr(t, r.Err, apns.ErrNotSent, context.DeadlineExceeded)
			if !strings.Contains(r.Err.Error(), "not sent: no connection (connecting to") {
				t.Errorf("got %v, want it to say why there was no connection", r.Err)
			}
			if !strings.HasSuffix(r.Err.Error(), "), and the next attempt comes too late: context deadline exceeded") {
				t.Errorf("got %v, want it to say why the message ended before its time", r.Err)
			}
		}
		wantTook(t, start, 50*time.Second, 75*time.Second) // when the next attempt would be too late
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 10)) })
		time.Sleep(time.Second)
		server.RefuseConnections(false)
		wg.Wait()
		wantFigures(t, c, apns.Stats{NotSent: 10, Accepted: 10, Connected: 1})
	})
}

// A second connection that cannot be opened, for good, does no harm to the first one.
func TestSecondConnFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, always(answerAfter(100*time.Millisecond)), func(s *apnstest.Server) { s.StreamLimit = 10 })
		n := newNetwork(server)
		var dials atomic.Int64
		c := http2Client(t, &apns.Config{BundleID: apnstest.BundleID, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return n.dial(ctx, network, addr)
			}
			a, b := net.Pipe()
			go func() {
				b.Read(make([]byte, 4096))
				b.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				b.Close()
			}()
			return a, nil
		}}, func(c *apns.Client) { c.Addr = apns.Production })
		failed := 0
		var one error
		for _, err := range allAtOnce(t.Context(), c, 500) {
			if err != nil {
				failed++
				one = err
			}
		}
		if failed > 0 {
			t.Errorf("%d of 500 failed although the first connection accepts all: %v", failed, one)
		}
		for i := range 20 {
			if _, err := c.Push(t.Context(), device(1000+i)); err != nil {
				t.Errorf("push %d: %v", i, err)
				break
			}
		}
	})
}

// What a gateway did not look at before a rejection ends at once if the last dial has failed
// for good, as what is pushed then does.
func TestResentAfterDialFailedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := inMemory(t, nil) // its certificate is not trusted
		s := inMemory(t, onNumber(1, apnstest.Fault{Err: apns.StatusInvalidToken, Delay: 2 * time.Second}))
		c := newClient(t, s, func(c *apns.Client) { c.Timeout = time.Hour })
		next := c.Config.DialContext
		dials := 0
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials == 3 {
				return other.Config().DialContext(ctx, network, addr)
			}
			return next(ctx, network, addr)
		}
		c.Push(t.Context(), numberedMessage(100))
		start := time.Now()
		var pushes sync.WaitGroup
		for i := uint32(1); i <= 4; i++ {
			time.Sleep(time.Millisecond) // in order
			pushes.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i == 1 {
					time.AfterFunc(time.Second, cancel)
				}
				_, err := c.Push(ctx, numberedMessage(i))
				if i > 1 {
					wantClass(t, err, "not sent", apns.ErrNotSent)
					if d := time.Since(start); d > 3*time.Second {
						t.Errorf("message %d ended after %v, want at once after the rejection at 2s", i, d)
					}
				}
			})
		}
		pushes.Go(func() { // dials once more
			time.Sleep(1965 * time.Millisecond)
			c.Push(t.Context(), numberedMessage(6))
		})
		pushes.Wait()
		if dials < 3 {
			t.Errorf("%d dials, want the third that fails", dials)
		}
	})
}

// The first answer about a message ends the back-off of a dialer that waits already.
func TestAnswerEndsDialBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		works := false
		s := inMemory(t, func(m *apns.Message) error {
			switch {
			case m.Token == device(50).Token:
				return answerAfter(10 * time.Minute) // keeps the connection
			case m.Token == device(99).Token:
				return apnstest.Fault{End: apnstest.EndFINThenRST}
			case !works:
				return apns.ReasonInternalServerError
			}
			return nil
		})
		c := http2Client(t, s.Config(), func(c *apns.Client) { c.Attempts, c.Timeout, c.MaxDialBackoff = 1, time.Hour, time.Minute })
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		var pushes sync.WaitGroup
		pushes.Go(func() { c.Push(t.Context(), device(50)) })
		time.Sleep(time.Second)
		s.RefuseConnections(true)
		for i := range 130 { // the connection is to be replaced, and none can be dialed
			c.Push(t.Context(), device(100+i))
			time.Sleep(time.Second)
		}
		works = true
		if _, err := c.Push(t.Context(), device(1)); err != nil {
			t.Error(err)
		}
		s.RefuseConnections(false)
		c.Push(t.Context(), device(99)) // cuts the connection
		start := time.Now()
		if _, err := c.Push(t.Context(), device(2)); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("the push after the cut took %v, want no wait for the back-off of before", d)
		}
		pushes.Wait()
	})
}

// A key and a certificate are one too many. Each push fails at once, and nothing is dialed.
func TestClientKeyAndCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		both := server.TokenConfig()
		both.TLS = server.Config().TLS
		topic := server.Config()
		topic.BundleID = "com.example.app.voip"
		for want, config := range map[string]*apns.Config{
			"Config has both a Key and a certificate in TLS, expected one of them":                             both,
			"Config.BundleID ends in .voip, expected the bundle ID alone: the suffix comes from the push type": topic,
		} {
			config.DialContext = func(context.Context, string, string) (net.Conn, error) {
				t.Error("a connection was dialed")
				return nil, net.ErrClosed
			}
			c := http2Client(t, config)
			start := time.Now()
			for range 3 {
				_, err := c.Push(t.Context(), message(1))
				wantClass(t, err, "not sent")
				if want := "apns: not sent: " + want; fmt.Sprint(err) != want {
					t.Errorf("got %v, want %s", err, want)
				}
			}
			wantTook(t, start, 0, time.Millisecond)
		}
	})
}
