package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// TestMain fails if goroutines of the package are left at the end.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		var stacks []byte
		for range 100 {
			stacks = make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			if !bytes.Contains(stacks, []byte("created by example.com/apns")) {
				os.Exit(0)
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Printf("goroutines are left:\n%s\n", stacks)
		code = 1
	}
	os.Exit(code)
}

const token = "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c"

func message(id uint32) *apns.Message {
	return &apns.Message{ID: id, Token: token, Payload: []byte("{}")}
}

// onBothNetworks runs a test in memory, inside a synctest bubble, and on loopback.
func onBothNetworks(t *testing.T, name string, test func(t *testing.T, memory bool)) {
	synctest.Test(t, func(t *testing.T) { test(t, true) })
	t.Run(name, func(t *testing.T) { test(t, false) })
}

// start starts a server, in memory or on loopback. Inside a synctest bubble it must be in
// memory.
func start(t *testing.T, memory bool, handler func(*apns.Message) error, set func(*apnstest.Server)) *apnstest.Server {
	t.Helper()
	s := apnstest.NewUnstartedServer(handler)
	s.InMemory = memory
	if set != nil {
		set(s)
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// open connects to a service of the binary protocol with crypto/tls alone.
func open(t *testing.T, s *apnstest.Server, port string) *tls.Conn {
	t.Helper()
	config := s.Config()
	raw, err := config.DialContext(t.Context(), "tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		t.Fatal(err)
	}
	config.TLS.ServerName = "localhost"
	c := tls.Client(raw, config.TLS)
	t.Cleanup(func() { c.Close() })
	return c
}

// build returns the encoded messages, one after the other.
func build(t *testing.T, ms ...*apns.Message) []byte {
	t.Helper()
	var b []byte
	for _, m := range ms {
		var err error
		if b, err = apns.AppendMsg(b, m); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestOnConnect(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) {
		s.OnConnect = func(port int, state tls.ConnectionState) error {
			if cn := state.PeerCertificates[0].Subject.CommonName; cn != "Apple Push Services: "+apnstest.BundleID {
				t.Errorf("the client's certificate is for %q", cn)
			}
			if port == apns.PushPort {
				return apnstest.Fault{Err: &apns.PushError{ID: 9, Status: apns.StatusShutdown}}
			}
			return apns.StatusNoError
		}
	})
	if got, err := io.ReadAll(open(t, s, "2195")); err != nil || !bytes.Equal(got, []byte{8, 10, 0, 0, 0, 9}) {
		t.Errorf("push: got % x, %v; want the packet", got, err)
	}
	s.AddFeedback(apns.Feedback{Token: "ab", DeadAt: time.Unix(1, 0)})
	if got, err := io.ReadAll(open(t, s, "2196")); err != nil || len(got) != 7 {
		t.Errorf("feedback: got % x, %v; want the record", got, err)
	}
}

// Configs are independent of each other, and a program needs only the PEM to connect.
func TestConfig(t *testing.T) {
	s := start(t, false, nil, nil)
	a, b := s.Config(), s.Config()
	a.TLS.Certificates[0] = tls.Certificate{}
	a.TLS.RootCAs.AddCert(&x509.Certificate{Raw: []byte{1}})
	if len(b.TLS.Certificates[0].Certificate) == 0 || b.TLS.RootCAs.Equal(a.TLS.RootCAs) || a.TLS == b.TLS {
		t.Error("a change of one Config shows in the other")
	}
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ClientCert, certs.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certs.CA) {
		t.Fatal("the CA is not PEM")
	}
	if _, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey); err != nil {
		t.Error(err)
	}
	config := &apns.Config{TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	_, port, _ := net.SplitHostPort(s.PushAddr)
	for _, addr := range []string{s.PushAddr, net.JoinHostPort("localhost", port)} {
		c, err := apns.Dial(t.Context(), addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// The server listens on the port that is set, and panics if the port is in use.
func TestGivenPort(t *testing.T) {
	first := start(t, false, nil, nil)
	addr := first.PushAddr
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "apnstest: cannot listen") {
			t.Errorf("recovered %v, want that it cannot listen", r)
		}
		first.Close()
		s := start(t, false, nil, func(s *apnstest.Server) { s.PushAddr = addr })
		if s.PushAddr != addr {
			t.Errorf("listens on %s, want %s", s.PushAddr, addr)
		}
	}()
	s := apnstest.NewUnstartedServer(nil)
	s.PushAddr = addr
	defer s.Close()
	s.Start()
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Wait(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "closed") {
				t.Errorf("got %v, want that the server was closed", err)
			}
		})
		synctest.Wait()
		s.Close()
		s.Close()
		wg.Wait()
	})
}

// Methods that need a started server panic before Start. A server can be started once.
func TestMethodsBeforeStart(t *testing.T) {
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "apnstest: ") {
				t.Errorf("%s: recovered %q, want a panic with a reason", name, r)
			}
		}()
		f()
	}
	s := apnstest.NewUnstartedServer(nil)
	panics("Config", func() { s.Config() })
	panics("Certificates", func() { s.Certificates() })
	panics("RefuseConnections", func() { s.RefuseConnections(true) })
	s.Start()
	panics("Start twice", s.Start)
	s.Close()
	panics("Start after Close", s.Start)
	s.Close()
}

// Clients may connect during calls of RefuseConnections.
func TestRefuseConnectionsConcurrently(t *testing.T) {
	for _, memory := range []bool{true, false} {
		s := start(t, memory, nil, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20 {
					if c, err := apns.Dial(t.Context(), "gateway.push.apple.com:2195", s.Config()); err == nil {
						c.Close()
					}
				}
			})
		}
		for range 20 {
			s.RefuseConnections(true)
			s.RefuseConnections(false)
		}
		wg.Wait()
	}
}
