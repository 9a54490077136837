package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

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

func ExampleServer() {
	// The device "dead" has lost the app.
	server := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == "dead" {
			return apns.StatusInvalidToken
		}
		return nil
	})
	defer server.Close()

	// The code under test dials the address that it always does.
	ctx := context.Background()
	conn, err := apns.Dial(ctx, "gateway.push.apple.com:2195", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	for i, token := range []string{"c0ffee", "dead", "decade"} {
		m := &apns.Message{ID: uint32(i + 1), Token: token, Payload: apns.AlertPayload("Hello")}
		if err := conn.WritePushMsg(ctx, m); err != nil {
			break // the rejection was faster
		}
	}
	fmt.Println(conn.Shutdown(ctx))

	for _, r := range server.Records()[:2] {
		fmt.Println(r.Message.Token, r.Outcome)
	}
	// Output:
	// apns: message 2 rejected: invalid token (status 8)
	// c0ffee accepted
	// dead rejected
}

// The server hands a connection that breaks a handler's error to the client.
func ExampleFault() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		return apnstest.Fault{End: apnstest.EndRST}
	})
	defer server.Close()
	ctx := context.Background()
	conn, err := apns.Dial(ctx, "gateway.push.apple.com:2195", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WritePushMsg(ctx, &apns.Message{ID: 1, Token: "c0ffee", Payload: apns.AlertPayload("Hello")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(conn.Shutdown(ctx), apns.ErrInDoubt))
	// Output: true
}

// start starts a server: in memory inside a bubble, on loopback outside.
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

// open connects as a program would that has nothing of the package.
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

// build returns the messages one after the other on the wire.
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

// What a handler returns, and what comes of it on the wire and in the records.
func TestVerdicts(t *testing.T) {
	const accepted, refused, discarded = apnstest.Accepted, apnstest.Rejected, apnstest.Discarded
	for name, test := range map[string]struct {
		err     error
		said    []byte // nil: the connection goes on
		outcome apnstest.Outcome
	}{
		"nil":               {nil, nil, accepted},
		"no error":          {apns.StatusNoError, nil, accepted},
		"status":            {apns.StatusInvalidToken, []byte{8, 8, 0, 0, 0, 2}, refused},
		"wrapped":           {fmt.Errorf("because: %w", apns.StatusMissingTopic), []byte{8, 3, 0, 0, 0, 2}, refused},
		"unknown status":    {apns.Status(99), []byte{8, 99, 0, 0, 0, 2}, refused},
		"255":               {apns.StatusUnknown, []byte{8, 255, 0, 0, 0, 2}, refused},
		"shutdown":          {apns.StatusShutdown, []byte{8, 10, 0, 0, 0, 2}, accepted},
		"shutdown earlier":  {&apns.PushError{ID: 1, Status: apns.StatusShutdown}, []byte{8, 10, 0, 0, 0, 1}, discarded},
		"zero ID":           {&apns.PushError{Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 0}, refused},
		"wrong ID":          {&apns.PushError{ID: 77, Status: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 77}, refused},
		"status 0 for real": {&apns.PushError{ID: 2}, []byte{8, 0, 0, 0, 0, 2}, refused},
		"any other":         {errors.New("boom"), []byte{8, 1, 0, 0, 0, 2}, refused},
		"silent end":        {apnstest.Fault{}, []byte{}, discarded},
		"accepted and end":  {apnstest.Fault{Err: apns.StatusNoError}, []byte{}, accepted},
		"fault":             {apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"pointer":           {&apnstest.Fault{Err: apns.StatusInvalidToken}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"typed nil":         {(*apns.PushError)(nil), nil, accepted},
		"cut of less":       {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: -5, Split: -1}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"reason":            {apns.ReasonPayloadTooLarge, []byte{8, 7, 0, 0, 0, 2}, refused},
		"pointless fault":   {fmt.Errorf("because: %w", apnstest.Fault{Err: errors.New("boom")}), []byte{8, 1, 0, 0, 0, 2}, refused},
		"cut":               {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 4}, []byte{8, 8}, refused},
		"cut away":          {apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 1 << 30}, []byte{}, refused},
		"bare":              {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndFIN}, []byte{8, 8, 0, 0, 0, 2}, refused},
		"together":          {apnstest.Fault{Err: apns.StatusInvalidToken, End: apnstest.EndOneSegment}, []byte{8, 8, 0, 0, 0, 2}, refused},
	} {
		for _, memory := range []bool{true, false} {
			run := func(t *testing.T) {
				s := start(t, memory, func(m *apns.Message) error {
					if m.ID == 2 {
						return test.err
					}
					return nil
				}, nil)
				c := open(t, s, "2195")
				if _, err := c.Write(build(t, message(1), message(2), message(3))); err != nil {
					t.Fatal(err)
				}
				if test.said == nil {
					c.CloseWrite()
				}
				if got, err := io.ReadAll(c); !bytes.Equal(got, test.said) || err != nil {
					t.Errorf("%s: server said % x, %v; want % x", name, got, err, test.said)
				}
				c.Close()
				if err := s.Wait(t.Context(), 3); err != nil {
					t.Fatal(err)
				}
				last := discarded
				if test.said == nil {
					last = accepted
				}
				var got []apnstest.Outcome
				for i, r := range s.Records() {
					got = append(got, r.Outcome)
					if r.Conn != 1 || r.Message.ID != uint32(i+1) || r.Err != nil && r.Message.ID != 2 {
						t.Errorf("%s: record %d is %+v of message %d", name, i, r, r.Message.ID)
					}
				}
				if want := []apnstest.Outcome{accepted, test.outcome, last}; !slices.Equal(got, want) {
					t.Errorf("%s: got the outcomes %v, want %v", name, got, want)
				}
				for _, outcome := range got {
					if n := len(s.Messages(outcome)); n == 0 {
						t.Errorf("%s: no messages %v", name, outcome)
					}
				}
			}
			if memory {
				synctest.Test(t, run)
			} else {
				t.Run(name, run)
			}
		}
	}
}

// What the gateway sees at once does not reach the handler. The statuses are
// those of Table A-4 in "Binary Provider API".
func TestRejectedAtSight(t *testing.T) {
	items := func(items ...[]byte) []byte {
		b := slices.Concat(items...)
		return append([]byte{2, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	id := []byte{3, 0, 4, 0, 0, 0, 7}
	tok := []byte{1, 0, 1, 0xab}
	pay := []byte{2, 0, 2, '{', '}'}
	for name, test := range map[string]struct {
		wire []byte
		said []byte
	}{
		"no token":           {items(id, pay), []byte{8, 2, 0, 0, 0, 7}},
		"empty token":        {items(id, pay, []byte{1, 0, 0}), []byte{8, 2, 0, 0, 0, 7}},
		"long token":         {items(id, pay, []byte{1, 0, 101}, make([]byte, 101)), []byte{8, 5, 0, 0, 0, 7}},
		"no payload":         {items(id, tok), []byte{8, 4, 0, 0, 0, 7}},
		"long payload":       {items(id, tok, []byte{2, 0x08, 0x01}, make([]byte, 2049)), []byte{8, 7, 0, 0, 0, 7}},
		"no identifier":      {items([]byte{1, 0, 0}, pay), []byte{8, 2, 0, 0, 0, 0}},
		"unknown item":       {items(id, []byte{9, 0, 0}), []byte{8, 128, 0, 0, 0, 0}},
		"unknown command":    {[]byte("GET / HTTP/1.1\r\n\r\n"), []byte{8, 128, 0, 0, 0, 0}},
		"command 0, refused": {[]byte{0, 0, 0, 0, 2, '{', '}'}, nil}, // "drops the connection"
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				t.Errorf("the handler was asked about %+v", m)
				return nil
			}, nil)
			c := open(t, s, "2195")
			if _, err := c.Write(test.wire); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); !bytes.Equal(got, test.said) || err != nil {
				t.Errorf("server said % x, %v; want % x", got, err, test.said)
			}
		})
	}
}

// An error packet is one TLS record, unless it is to be split.
func TestSplit(t *testing.T) {
	for split, want := range map[int][]int{0: {6}, 1: {1, 1, 1, 1, 1, 1}, 4: {4, 2}, 9: {6}} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(*apns.Message) error {
				return apnstest.Fault{Err: apns.StatusInvalidToken, Split: split, Delay: time.Hour}
			}, nil)
			c := open(t, s, "2195")
			began := time.Now()
			if _, err := c.Write(build(t, message(1))); err != nil {
				t.Fatal(err)
			}
			var got []int
			for buf := make([]byte, 100); ; {
				n, err := c.Read(buf)
				if n > 0 {
					got = append(got, n)
				}
				if err != nil {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("split %d: read pieces of %v bytes, want %v", split, got, want)
			}
			if d := time.Since(began); d != time.Hour {
				t.Errorf("the packet took %v, want 1h", d)
			}
		})
	}
}

// How a connection ends, as TCP shows it.
func TestEnds(t *testing.T) {
	for _, memory := range []bool{true, false} {
		for name, test := range map[string]struct {
			end  apnstest.End
			want error // what a client that goes on writing gets; nil: none
		}{
			"clean":  {apnstest.EndCloseNotify, nil},
			"bare":   {apnstest.EndFIN, nil},
			"closed": {apnstest.EndFINThenRST, syscall.EPIPE},
			"reset":  {apnstest.EndRST, syscall.EPIPE},
		} {
			run := func(t *testing.T) {
				s := start(t, memory, func(m *apns.Message) error {
					return apnstest.Fault{End: test.end}
				}, nil)
				c := open(t, s, "2195")
				var err error
				for i := range 100 {
					if _, err = c.Write(build(t, message(uint32(i)))); err != nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
				if test.want == nil && err != nil || test.want != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("in memory %v, %s: writing gave %v, want %v", memory, name, err, test.want)
				}
				if test.want == nil {
					if err := s.Wait(t.Context(), 100); err != nil {
						t.Error(err)
					}
				}
			}
			if memory {
				synctest.Test(t, run)
			} else {
				t.Run(name, run)
			}
		}
	}
}

// A write returns before it is read as long as there is room, and not after.
func TestBufferSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndSilence} }, func(s *apnstest.Server) {
			s.BufferSize = 10_000
		})
		c := open(t, s, "2195")
		if _, err := c.Write(build(t, message(1))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		n := 0
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 1000))
			n++
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < 9 || n > 10 {
			t.Errorf("write %d of 1000 bytes failed with %v; want the deadline at about 10", n, err)
		}
	})
}

func TestFeedbackIsHandedOutOnce(t *testing.T) {
	s := start(t, false, nil, nil)
	f := apns.Feedback{Token: token, DeadAt: time.Unix(1700000000, 0).UTC()}
	s.AddFeedback(f, f)
	want, _ := apns.AppendFeedback(nil, f)
	want, _ = apns.AppendFeedback(want, f)
	for range 2 {
		got, err := io.ReadAll(open(t, s, "2196"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got % x, %v; want % x", got, err, want)
		}
		want = []byte{}
	}
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "odd") && !strings.Contains(fmt.Sprint(r), "even") {
			t.Errorf("AddFeedback of a bad token: recovered %v, want why", r)
		}
	}()
	s.AddFeedback(apns.Feedback{Token: "abc"})
}

func TestOnConnect(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) {
		s.OnConnect = func(port int, state tls.ConnectionState) error {
			if cn := state.PeerCertificates[0].Subject.CommonName; cn != "Apple Push Services: "+apnstest.Topic {
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

// Each Config is its own, and programs with nothing but the PEM get in.
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
		t.Fatal("the CA is no PEM")
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

// A port that is given is taken; one that is in use is not.
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

// Refuse, Config and the rest say so when they come too early; a server is
// started once.
func TestTooEarlyAndTooLate(t *testing.T) {
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "apnstest: ") {
				t.Errorf("%s: recovered %q, want a panic that says why", name, r)
			}
		}()
		f()
	}
	s := apnstest.NewUnstartedServer(nil)
	panics("Config", func() { s.Config() })
	panics("Certificates", func() { s.Certificates() })
	panics("Refuse", func() { s.RefuseConnections(true) })
	s.Start()
	panics("Start twice", s.Start)
	s.Close()
	panics("Start after Close", s.Start)
	s.Close()
}

// Connections are made while others are being refused.
func TestRefuseConcurrently(t *testing.T) {
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
