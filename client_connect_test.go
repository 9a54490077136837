package apns_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const binaryGateway = "gateway.push.apple.com:2195"

// Connect opens the connection that messages then use, over either protocol.
func TestConnect(t *testing.T) {
	for _, addr := range []string{apns.Production, binaryGateway} {
		t.Run(addr, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil)
				c := http2Client(t, server.Config(), func(c *apns.Client) { c.Addr = addr })
				for range 2 { // the second finds it open
					if err := c.Connect(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				before := c.Stats().Connected
				if before == 0 {
					t.Error("there is no connection")
				}
				if n := len(server.Records()); n != 0 {
					t.Errorf("the server has %d messages, want none", n)
				}
				if _, err := c.Push(t.Context(), device(1)); err != nil {
					t.Error(err)
				}
				if after := c.Stats().Connected; after != before {
					t.Errorf("the message needed %d more connections, want none", after-before)
				}
			})
		})
	}
}

// What is wrong with the server or the sender shows at once, in one attempt. It is the
// error that messages would have, and Connect may be called again.
func TestConnectFails(t *testing.T) {
	for name, test := range map[string]struct {
		addr    string
		config  func(*apnstest.Server, *apns.Config)
		matches error // or nil
		text    string
	}{
		"nobody listens": {apns.Production, func(s *apnstest.Server, _ *apns.Config) { s.RefuseConnections(true) }, syscall.ECONNREFUSED, "refused"},
		"not trusted": {apns.Production, func(_ *apnstest.Server, c *apns.Config) {
			c.TLS.RootCAs = x509.NewCertPool()
		}, nil, "certificate signed by unknown authority"},
		"no certificate, HTTP/2": {apns.Production, func(_ *apnstest.Server, c *apns.Config) { c.TLS.Certificates = nil }, apns.ErrRefused, "certificate"},
		"no certificate, binary": {binaryGateway, func(_ *apnstest.Server, c *apns.Config) { c.TLS.Certificates = nil }, apns.ErrRefused, "certificate"},
		"no certificate, TLS 1.2": {binaryGateway, func(_ *apnstest.Server, c *apns.Config) {
			c.TLS.Certificates, c.TLS.MaxVersion = nil, tls.VersionTLS12
		}, nil, "certificate"},
		"a key and a certificate": {apns.Production, func(s *apnstest.Server, c *apns.Config) { c.Key = s.TokenConfig().Key }, nil, "apns: Config has both a Key and a certificate in TLS, expected one of them"},
		"a topic as bundle ID":    {apns.Production, func(s *apnstest.Server, c *apns.Config) { c.BundleID = "com.example.app.voip" }, nil, "apns: Config.BundleID ends in .voip, expected the bundle ID alone: the suffix comes from the push type"},
		"no port":                 {"api.example.com", nil, nil, "expected host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil, func(s *apnstest.Server) {
					s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
				})
				config := server.Config()
				if test.config != nil {
					test.config(server, config)
				}
				c := http2Client(t, config, func(c *apns.Client) { c.Addr = test.addr })
				for range 2 {
					start := time.Now()
					err := c.Connect(t.Context())
					if err == nil || !strings.Contains(err.Error(), test.text) || test.matches != nil && !errors.Is(err, test.matches) {
						t.Errorf("got %v, want %q in it, and one that matches %v", err, test.text, test.matches)
					}
					wantTook(t, start, 0, time.Second)
				}
			})
		})
	}
}

// Connect ends with its context, and with the Client.
func TestConnectEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.Config()
		config.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c := http2Client(t, config)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, c.Connect(ctx), context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { c.Close() })
		wantErr(t, c.Connect(t.Context()), net.ErrClosed)
		wantErr(t, c.Connect(t.Context()), net.ErrClosed)
	})
}

// PushChan sends what comes from a channel, and does not wait for it when the loop ends.
func TestPushChan(t *testing.T) {
	for _, addr := range []string{apns.Production, binaryGateway} {
		for _, end := range []string{"closed", "break", "context"} {
			t.Run(addr+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, nil)
					c := http2Client(t, server.Config(), func(c *apns.Client) { c.Addr = addr })
					messages := make(chan *apns.Message)
					var given atomic.Int64
					var giving sync.WaitGroup
					defer giving.Wait()
					giving.Go(func() {
						for i := range 10 {
							messages <- device(i)
							given.Add(1)
							time.Sleep(2 * time.Second)
						}
						if end == "closed" {
							close(messages)
						}
					})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					results := 0
					for r := range c.PushChan(ctx, messages) {
						if r.Err != nil {
							t.Errorf("message %d: %v", r.Message.ID, r.Err)
						}
						if results++; results == 10 && end == "break" {
							break
						}
						if results == 10 && end == "context" {
							cancel()
						}
					}
					if results != 10 || given.Load() != 10 {
						t.Errorf("got %d results of %d messages, want 10", results, given.Load())
					}
					for _, stack := range goroutines() {
						if strings.Contains(stack, "pushAll") || strings.Contains(stack, "PushChan") {
							t.Errorf("this is left running:\n%s", stack)
						}
					}
				})
			})
		}
	}
}

// Connect does not wait for ever, whatever happens to the connection and the credentials
// meanwhile.
func TestConnectWhileRefused(t *testing.T) {
	for at := 1000; at < 3000; at += 100 {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(m *apns.Message) error {
				switch m.Token {
				case device(1).Token:
					return apnstest.Fault{Err: apns.ReasonInvalidProviderToken, Delay: 3 * time.Second}
				case device(2).Token:
					return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway}
				}
				return nil
			})
			n := newNetwork(server)
			c := n.client(t)
			if _, err := c.Push(t.Context(), device(9)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() { _, err := c.Push(t.Context(), device(1)); _ = err })
			time.Sleep(10 * time.Millisecond)
			wg.Go(func() { _, err := c.Push(t.Context(), device(2)); _ = err })
			server.RefuseConnections(true)
			time.Sleep(10 * time.Millisecond)
			wg.Go(func() { c.Push(t.Context(), device(3)) })
			time.Sleep(time.Duration(at) * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			err := c.Connect(ctx)
			if took := time.Since(start); took > time.Minute {
				t.Errorf("Connect at %d ms took %v: %v", at, took, err)
			}
			wg.Wait()
		})
	}
}
