package apns_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The connection is cut at each byte of what the client writes: of its message
// and of its barrier. The server takes whole messages only. An outcome that the client
// reports, "accepted" or "not sent", must agree with what the server has taken.
func TestConnectionCutWhileWriting(t *testing.T) {
	outcomes := make(map[string]int)
	for _, priority := range []apns.Priority{0, apns.PriorityImmediate} {
		for n := range 260 {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil)
				config := s.Config()
				var cut *limitedConn
				config.DialContext = limited(config.DialContext, -1, -1, &cut)
				c := dial(t, "gateway.push.apple.com:2195", config)
				cut.limit(-1, n)
				m := message(1)
				m.Priority = priority
				writeErr := c.WritePushMsg(t.Context(), m)
				shutdownErr := c.Shutdown(t.Context())
				synctest.Wait()
				records := s.Records()
				switch {
				case writeErr != nil:
					wantErr(t, writeErr, apns.ErrNotSent)
					wantErr(t, shutdownErr, apns.ErrNotSent)
					if len(records) != 0 {
						t.Errorf("cut at %d: not sent, and the server recorded %v", n, records)
					}
					outcomes["not sent"]++
				case shutdownErr != nil:
					wantErr(t, shutdownErr, apns.ErrInDoubt)
					if len(records) != 1 {
						t.Errorf("cut at %d: the server recorded %v, want the message that was written", n, records)
					}
					outcomes["in doubt"]++
				default:
					if len(records) != 1 || records[0].Outcome != apnstest.Accepted {
						t.Errorf("cut at %d: accepted, and the server recorded %v", n, records)
					}
					outcomes["accepted"]++
				}
			})
		}
	}
	if len(outcomes) != 3 {
		t.Errorf("got the outcomes %v, want all three of them", outcomes)
	}
}

// The same for what the client reads: of the handshake and of the answer to the
// barrier.
func TestConnectionCutWhileReading(t *testing.T) {
	accepted, failed := 0, 0
	for n := 0; n < 3000 && accepted < 3; n++ {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil)
			config := s.Config()
			var cut *limitedConn
			config.DialContext = limited(config.DialContext, n, -1, &cut)
			c, err := apns.Dial(t.Context(), "gateway.push.apple.com:2195", config)
			if err != nil {
				failed++
				return
			}
			defer c.Close()
			writeErr := c.WritePushMsg(t.Context(), message(1))
			err = c.Shutdown(t.Context())
			synctest.Wait()
			switch {
			case writeErr != nil:
				wantErr(t, writeErr, apns.ErrNotSent)
				wantErr(t, err, apns.ErrNotSent)
			case err != nil:
				wantErr(t, err, apns.ErrInDoubt)
			default:
				accepted++
			}
			if err == nil && len(s.Messages(apnstest.Accepted)) != 1 {
				t.Errorf("cut at %d: accepted, and the server recorded %v", n, s.Records())
			}
		})
	}
	if accepted == 0 || failed == 0 {
		t.Errorf("accepted %d, failed to dial %d; want some of both", accepted, failed)
	}
}

// A client that is cut off in the middle of a message has not sent it.
func TestServerTakesNoHalfMessage(t *testing.T) {
	for _, record := range [][]byte{simple, extended, framed} {
		for n := range record {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil)
				config := s.Config()
				raw, err := config.DialContext(t.Context(), "tcp", "localhost:2195")
				if err != nil {
					t.Fatal(err)
				}
				config.TLS.ServerName = "localhost"
				c := tls.Client(raw, config.TLS)
				defer c.Close()
				if _, err := c.Write(record[:n]); err != nil {
					t.Fatal(err)
				}
				c.CloseWrite()
				if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
					t.Errorf("cut at %d: server said % x, %v; want nothing", n, b, err)
				}
				if r := s.Records(); len(r) != 0 {
					t.Errorf("cut at %d: server recorded %v", n, r)
				}
			})
		}
	}
}

// webServer starts a web server that speaks HTTP/1.1.
func webServer(t *testing.T) *httptest.Server {
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	web.StartTLS()
	t.Cleanup(web.Close)
	return web
}

func TestDialErrors(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	web := webServer(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	other := apnstest.NewServer(nil)
	defer other.Close()
	late := s.Config()
	late.TLS.Time = func() time.Time { return time.Now().AddDate(10, 0, 0) }
	tls12 := apnstest.NewUnstartedServer(nil)
	tls12.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	tls12.Start()
	defer tls12.Close()
	noCert := tls12.Config()
	noCert.TLS.Certificates = nil
	wrongCert := tls12.Config()
	wrongCert.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &other.Config().TLS.Certificates[0], nil
	}
	h1 := s.Config()
	h1.TLS.RootCAs = x509.NewCertPool()
	h1.TLS.RootCAs.AddCert(web.Certificate())
	h1.TLS.NextProtos = []string{"http/1.1"}
	h1.DialContext = nil
	none := *h1
	none.TLS = h1.TLS.Clone()
	none.TLS.NextProtos = []string{"gopher"}
	keyAndCert, keyAndCallback := s.Config(), s.TokenConfig()
	keyAndCert.Key = keyAndCallback.Key
	keyAndCallback.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return new(tls.Certificate), nil
	}
	boom := errors.New("boom")

	for name, test := range map[string]struct {
		addr   string
		config *apns.Config
		want   string
	}{
		"no port":                    {"gateway.push.apple.com", nil, `apns: address "gateway.push.apple.com", expected host:port: address gateway.push.apple.com: missing port in address`},
		"no address":                 {"", nil, `apns: address "", expected host:port: missing port in address`},
		"unknown service":            {"gateway.push.apple.com:80", s.Config(), "apns: connecting to gateway.push.apple.com:80: apnstest: no service on the port of gateway.push.apple.com:80, there are: "},
		"its own dialer":             {"x:1", &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, boom }}, "apns: connecting to x:1: boom"},
		"unknown CA":                 {s.PushAddr, &apns.Config{}, "certificate signed by unknown authority"},
		"another CA":                 {s.PushAddr, &apns.Config{TLS: other.Config().TLS}, "certificate signed by unknown authority"},
		"expired":                    {s.PushAddr, late, "certificate has expired"},
		"no TLS":                     {plain.Listener.Addr().String(), nil, `the peer does not speak TLS, its first bytes are "HTTP/"`},
		"HTTP/1.1":                   {web.Listener.Addr().String(), h1, `negotiated the protocol "http/1.1", expected h2, or none for a gateway of the binary protocol`},
		"another protocol":           {web.Listener.Addr().String(), &none, "the server wants another protocol: remote error: tls: no application protocol"},
		"key and certificate":        {s.HTTP2Addr, keyAndCert, "apns: Config has both a Key and a certificate in TLS, expected one of them"},
		"topic as bundle ID":         {s.HTTP2Addr, &apns.Config{BundleID: "com.example.app.voip"}, "apns: Config.BundleID ends in .voip, expected the bundle ID alone: the suffix comes from the push type"},
		"topic of a control":         {s.HTTP2Addr, &apns.Config{BundleID: "com.example.app.push-type.controls"}, "apns: Config.BundleID ends in .push-type.controls, expected"},
		"key and callback":           {s.HTTP2Addr, keyAndCallback, "apns: Config has both a Key and a certificate in TLS, expected one of them"},
		"TLS 1.2, no certificate":    {tls12.PushAddr, noCert, "the server broke off the handshake, perhaps for want of a client certificate, and Config.TLS has none: remote error: tls: handshake failure"},
		"TLS 1.2, wrong certificate": {tls12.PushAddr, wrongCert, "the server refused the client certificate: remote error: tls: "},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := apns.Dial(t.Context(), test.addr, test.config)
			if c != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v, %v\nwant %s", c, err, test.want)
			}
			if !strings.HasPrefix(fmt.Sprint(err), "apns: ") || strings.Count(fmt.Sprint(err), "apns: ") != 1 {
				t.Errorf("%v: want the prefix apns: once", err)
			}
		})
	}
}

// The error of Dial matches the one that its DialContext returned.
func TestDialErrorOfDialContext(t *testing.T) {
	boom := errors.New("boom")
	if _, err := apns.Dial(t.Context(), "x:1", &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, boom }}); !errors.Is(err, boom) {
		t.Errorf("%v does not match what the dialer returned", err)
	}
}

// With TLS 1.3 the server refuses the client's certificate when the client is
// through with the handshake: it shows at the first read.
func TestClientCertificateRefused(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	other := apnstest.NewServer(nil)
	defer other.Close()
	for name, test := range map[string]struct {
		set  func(*tls.Config)
		want string
	}{
		"missing":           {func(c *tls.Config) { c.Certificates = nil }, "the server wants a client certificate, and Config.TLS has none: remote error: tls: certificate required"},
		"another authority": {func(c *tls.Config) { c.Certificates = other.Config().TLS.Certificates }, "the server wants a client certificate, and none in Config.TLS is of an authority that it accepts: remote error: tls: certificate required"},
		"refused": {func(c *tls.Config) {
			c.Certificates = nil
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &other.Config().TLS.Certificates[0], nil
			}
		}, "the server refused the client certificate: remote error: tls: "},
	} {
		t.Run(name, func(t *testing.T) {
			config := s.Config()
			test.set(config.TLS)
			c := dial(t, s.PushAddr, config)
			writeErr := c.WritePushMsg(t.Context(), message(1))
			for _, err := range []error{c.Shutdown(t.Context()), c.CheckForError()} {
				// What could be said at any time leaves the message in doubt, if it
				// was written before that was heard.
				if name == "refused" && writeErr == nil {
					wantErr(t, err, apns.ErrInDoubt)
				} else {
					wantErr(t, err, apns.ErrNotSent)
				}
				if !strings.Contains(fmt.Sprint(err), test.want) {
					t.Errorf("got  %v\nwant %s", err, test.want)
				}
			}
			f := dial(t, s.FeedbackAddr, config)
			_, err := f.ReadFeedbackMsg(t.Context())
			if !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("ReadFeedbackMsg: got  %v\nwant %s", err, test.want)
			}
		})
	}
	if r := s.Records(); len(r) != 0 {
		t.Errorf("server recorded %v, want nothing", r)
	}
}

// A web server takes a message for a bad request and says so.
func TestPeerIsNoGateway(t *testing.T) {
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	config := &apns.Config{TLS: &tls.Config{RootCAs: x509.NewCertPool(), NextProtos: []string{}}}
	config.TLS.RootCAs.AddCert(web.Certificate())
	c := dial(t, web.Listener.Addr().String(), config)
	m := message(1)
	m.Payload = []byte("\r\n\r\n\r\n") // the end of the request
	if err := c.WritePushMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	err := c.Shutdown(t.Context())
	const want = `the peer is no gateway of the binary protocol: expected an error packet (command 8), got "HTTP/1.1 400 Bad Request`
	if !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	wantErr(t, err, apns.ErrInDoubt)
}

// Contexts end the dialing, the handshake with a server that is silent, and the
// reading.
func TestContextsEndDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const minute = time.Minute
		silent, _ := net.Pipe()
		go io.Copy(io.Discard, silent)
		t.Cleanup(func() { silent.Close() })
		for name, dial := range map[string]dialer{
			"dial": func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
			"handshake": func(ctx context.Context, _, _ string) (net.Conn, error) {
				client, server := net.Pipe()
				go io.Copy(io.Discard, server)
				return client, nil
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), minute)
			start := time.Now()
			c, err := apns.Dial(ctx, "localhost:2195", &apns.Config{DialContext: dial})
			if c != nil || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != minute {
				t.Errorf("%s: got %v, %v after %v; want context.DeadlineExceeded after %v", name, c, err, time.Since(start), minute)
			}
			cancel()
		}
	})
}

func TestRefusedConnections(t *testing.T) {
	for _, memory := range []bool{false, true} {
		s := apnstest.NewUnstartedServer(nil)
		s.InMemory = memory
		s.Start()
		defer s.Close()
		c := dialPush(t, s)
		s.RefuseConnections(true)
		if c, err := apns.Dial(t.Context(), "gateway.push.apple.com:2195", s.Config()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("in memory %v: got %v, %v; want %v", memory, c, err, syscall.ECONNREFUSED)
		}
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v; an open connection stays so", err)
		}
		s.RefuseConnections(false)
		if err := dialPush(t, s).Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A Config is read and not written to, and Dial fills in the name of the server.
func TestConfigIsNotModified(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	config := s.Config()
	c := dial(t, "gateway.example.com:2195", config)
	if config.TLS.ServerName != "" {
		t.Errorf("ServerName is %q, want it untouched", config.TLS.ServerName)
	}
	state := c.ConnectionState()
	if state.ServerName != "gateway.example.com" || !state.HandshakeComplete || state.NegotiatedProtocol != "" {
		t.Errorf("ConnectionState: got %+v", state)
	}
}

// To encode and to write a message allocates nothing.
func TestAllocations(t *testing.T) {
	m := message(1)
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := apns.AppendMsg(buf, m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("AppendMsg: %v allocations, want 0", n)
	}
	if raceEnabled {
		t.Skip("the race detector has crypto/tls allocate")
	}
	c := dial(t, "localhost:2195", sink(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "one context": ctx} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := c.WritePushMsg(ctx, m); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("WritePushMsg, %s: %v allocations, want 0", name, n)
		}
	}

	// Over HTTP/2 those of all goroutines count, crypto/tls's and the server's too. So
	// the floor is what they need; beyond it is the path, and a number.
	config := http2Sink(t)
	m.Topic = "com.example.app"
	bare := newBareHTTP2(t, config, m)
	defer bare.close()
	h := dial(t, "localhost:443", config)
	floor := testing.AllocsPerRun(1000, func() { bare.push(ctx, m) })
	if n := testing.AllocsPerRun(1000, func() {
		if err := h.WritePushMsg(ctx, m); err != nil {
			t.Fatal(err)
		}
	}); n > floor+2 || n > 8 {
		t.Errorf("WritePushMsg over HTTP/2: %v allocations, want at most %v", n, min(floor+2, 8))
	}
}

// A connection that knows no deadlines, as a tunnel may not, is closed where a
// deadline would have ended what it is doing.
func TestConnectionWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(1, apnstest.Fault{End: apnstest.EndSilence}), func(s *apnstest.Server) {
			s.OnConnect = func(port int, _ tlsState) error {
				if port == apns.FeedbackPort {
					return apnstest.Fault{End: apnstest.EndSilence}
				}
				return nil
			}
		})
		config := s.Config()
		next := config.DialContext
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := next(ctx, network, addr)
			return noDeadlines{c}, err
		}
		c := dial(t, "gateway.push.apple.com:2195", config)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		var err error
		for id := uint32(1); err == nil; id++ {
			err = c.WritePushMsg(ctx, message(id))
		}
		wantErr(t, err, apns.ErrNotSent)
		f := dial(t, "feedback.push.apple.com:2196", config)
		if _, err := f.ReadFeedbackMsg(ctx); err == nil {
			t.Error("ReadFeedbackMsg: nil, want an error")
		}
		if d := time.Since(start); d > 2*time.Minute {
			t.Errorf("took %v, want about the context's minute", d)
		}
	})
}

type noDeadlines struct{ net.Conn }

func (noDeadlines) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (noDeadlines) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (noDeadlines) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
