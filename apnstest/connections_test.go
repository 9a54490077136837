package apnstest_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
)

// GoAway ends connections, whether they have messages in flight or not: those are answered,
// and the next message comes on another connection.
func TestGoAway(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, func(s *apnstest.Server) { s.Latency = latency })
			client := &apns.Client{Config: s.TokenConfig()}
			defer client.Close()
			hello := &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello"), Topic: apnstest.BundleID}
			if _, err := client.Push(t.Context(), hello); err != nil {
				t.Fatal(err)
			}
			var pushes sync.WaitGroup
			if latency > 0 {
				for range 3 {
					pushes.Go(func() {
						if _, err := client.Push(t.Context(), hello); err != nil {
							t.Errorf("in flight: got %v, want accepted", err)
						}
					})
				}
				synctest.Wait()
			}
			s.GoAway(apns.ReasonShutdown)
			s.GoAway("") // the first one holds
			synctest.Wait()
			if conns := s.Connections(); latency > 0 && (len(conns) != 1 || !conns[0].GoAwaySent || conns[0].InFlight != 3) || latency == 0 && len(conns) != 0 {
				t.Errorf("latency %v: got connections %+v", latency, conns)
			}
			pushes.Wait()
			if _, err := client.Push(t.Context(), hello); err != nil {
				t.Errorf("afterwards: got %v, want accepted", err)
			}
			records := s.Records()
			if last := records[len(records)-1]; last.Conn != 2 {
				t.Errorf("latency %v: the last message came on connection %d, want 2", latency, last.Conn)
			}
		})
	}
}

// CloseClientConnections closes the connections of both protocols. What was in flight has no
// answer, and the server takes others.
func TestCloseClientConnections(t *testing.T) {
	for _, memory := range []bool{true, false} {
		s := start(t, memory, func(m *apns.Message) error {
			if m.Token == "51" {
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndSilence}
			}
			return nil
		}, nil)
		client := &apns.Client{Config: s.TokenConfig()}
		defer client.Close()
		binary := open(t, s, fmt.Sprint(apns.PushPort))
		if err := binary.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := client.Push(t.Context(), &apns.Message{Token: "51", Payload: apns.AlertPayload("Hello"), Topic: apnstest.BundleID})
			ended <- err
		}()
		if err := s.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		s.CloseClientConnections()
		if err := <-ended; !errors.Is(err, apns.ErrInDoubt) {
			t.Errorf("in flight: got %v, want ErrInDoubt", err)
		}
		if n, err := binary.Read(make([]byte, 1)); err == nil {
			t.Errorf("binary: read %d bytes, want the end", n)
		}
		if _, err := client.Push(t.Context(), &apns.Message{Token: "aa", Payload: apns.AlertPayload("Hello"), Topic: apnstest.BundleID}); err != nil {
			t.Errorf("afterwards: got %v, want accepted", err)
		}
	}
}

// A client that sends and does not read keeps a call waiting for 5 s. Then its connection is
// closed, and the other clients are told.
func TestClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, func(s *apnstest.Server) { s.StreamLimit = 50 })
		stuck := dialRaw(t, s, true)
		stuck.SetDeadline(time.Time{})
		stuck.begin()
		stuck.SetWriteDeadline(time.Now().Add(time.Minute))
		pings := bytes.Repeat(frames(frame{ping, 0, 0, []byte("12345678")}), 1000)
		for {
			if _, err := stuck.Write(pings); err != nil { // the server does not read on
				break
			}
		}
		other := dialRaw(t, s, true)
		other.begin()

		for i, call := range []func(){
			func() { s.SetStreamLimit(7) },
			func() { s.SetInitialWindow(1000) },
			func() { s.GoAway(apns.ReasonShutdown) },
		} {
			began := time.Now()
			call()
			if took := time.Since(began); i == 0 && took != 5*time.Second || i > 0 && took != 0 {
				t.Errorf("call %d has taken %v, want 5s for the first and 0s for the others", i, took)
			}
			synctest.Wait()
			if conns := s.Connections(); i < 2 && (len(conns) != 1 || conns[0].Number != 2) {
				t.Errorf("after call %d the connections are %v, want the second alone", i, conns)
			}
		}
		got := make(map[h2.Setting]int)
		for {
			f, err := other.next()
			if err != nil || f.kind == goAway {
				break
			}
			if f.kind == settings {
				for _, s := range []h2.Setting{h2.SettingMaxConcurrentStreams, h2.SettingInitialWindowSize} {
					got[s] = max(got[s], f.value(s))
				}
			}
		}
		if got[h2.SettingMaxConcurrentStreams] != 7 || got[h2.SettingInitialWindowSize] != 1000 {
			t.Errorf("the other client got settings %v before the GOAWAY, want 7 and 1000", got)
		}
	})
}

// EndSilence ends with the connection: when the client closes it, or the server closes all.
func TestSilenceEnds(t *testing.T) {
	for _, memory := range []bool{true, false} {
		for name, end := range map[string]func(*apnstest.Server, *tls.Conn){
			"the client closes": func(_ *apnstest.Server, c *tls.Conn) { c.Close() },
			"the server closes": func(s *apnstest.Server, _ *tls.Conn) { s.CloseClientConnections() },
			"the server closes what it has not read": func(s *apnstest.Server, c *tls.Conn) {
				c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				for {
					if _, err := c.Write(make([]byte, 64<<10)); err != nil {
						break
					}
				}
				s.CloseClientConnections()
			},
			"in the delay": nil,
		} {
			s := start(t, memory, func(m *apns.Message) error {
				if m.ID == 2 {
					return apnstest.Fault{Err: apns.StatusInvalidToken, Delay: time.Hour}
				}
				return apnstest.Fault{End: apnstest.EndSilence}
			}, nil)
			c := open(t, s, fmt.Sprint(apns.PushPort))
			id := uint32(1)
			if end == nil {
				id, end = 2, func(s *apnstest.Server, _ *tls.Conn) { s.CloseClientConnections() }
			}
			if _, err := c.Write(build(t, message(id))); err != nil {
				t.Fatal(err)
			}
			if err := s.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			end(s, c)
			for began := time.Now(); len(s.Connections()) > 0; time.Sleep(time.Millisecond) {
				if time.Since(began) > 20*time.Second {
					t.Fatalf("%s: the connection is open", name)
				}
			}
		}
	}
}
