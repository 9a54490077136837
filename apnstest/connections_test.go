package apnstest_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
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
