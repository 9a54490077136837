package apnstest_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A handler that counts must guard its counter: a client may have several connections.
func ExampleServer_handler() {
	var mu sync.Mutex // protects perTopic
	perTopic := make(map[string]int)
	server := apnstest.NewServer(func(m *apns.Message) error {
		mu.Lock()
		defer mu.Unlock()
		perTopic[m.Topic]++
		return nil
	})
	defer server.Close()

	client := &apns.Client{Addr: "api.push.apple.com:443", Config: server.TokenConfig()}
	defer client.Close()
	var pushes sync.WaitGroup
	for range 10 {
		pushes.Go(func() {
			client.Push(context.Background(), &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello")})
		})
	}
	pushes.Wait()

	mu.Lock()
	defer mu.Unlock()
	fmt.Println(perTopic)
	// Output: map[com.example.app:10]
}

// A server that is used for several tests begins anew with each.
func ExampleServer_ClearRecords() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Addr: "api.push.apple.com:443", Config: server.TokenConfig()}
	defer client.Close()
	for _, text := range []string{"one", "two"} {
		client.Push(context.Background(), &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload(text)})
		for _, r := range server.Records() {
			fmt.Printf("%d: %s\n", r.Number, r.Message.Payload)
		}
		server.ClearRecords()
	}
	// Output:
	// 1: {"aps":{"alert":"one"}}
	// 1: {"aps":{"alert":"two"}}
}

// The server keeps the latest records, and counts all.
func TestMaxRecords(t *testing.T) {
	for _, test := range []struct {
		max, messages int
		first, last   int // the numbers of the records; 0: none
	}{
		{0, 5, 1, 5},
		{3, 0, 0, 0},
		{3, 2, 1, 2},
		{3, 3, 1, 3},
		{3, 4, 2, 4},
		{3, 9, 7, 9},
		{1, 5, 5, 5},
		{-1, 5, 0, 0},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.max, test.messages), func(t *testing.T) {
			s := start(t, false, func(m *apns.Message) error {
				if m.Token == "bad0" {
					return apns.ReasonBadDeviceToken
				}
				return nil
			}, func(s *apnstest.Server) { s.MaxRecords = test.max })
			c := connect(t, s, true)
			for round := range 2 {
				rejected := pushAlternating(t, c, test.messages)
				if err := s.Wait(t.Context(), test.messages); err != nil {
					t.Errorf("Wait: %v", err)
				}
				rs := s.Records()
				if want := max(0, test.last-test.first+1); test.last > 0 && len(rs) != want || test.last == 0 && len(rs) > 0 {
					t.Fatalf("round %d: got %d records, want those from %d to %d", round, len(rs), test.first, test.last)
				}
				for i, r := range rs {
					if want := test.first + i; r.Number != want || r.Outcome == apnstest.Accepted && r.Message.Token != fmt.Sprintf("%04x", want) {
						t.Errorf("round %d: got the record %d of token %s, want %d", round, r.Number, r.Message.Token, want)
					}
				}
				accepted, want := s.Messages(apnstest.Accepted), 0
				for i := max(1, test.first); i <= test.last; i++ {
					want += i % 2
				}
				if len(accepted) != want {
					t.Errorf("round %d: got %d accepted messages, want %d", round, len(accepted), want)
				}
				if a, r := s.Count(apnstest.Accepted), s.Count(apnstest.Rejected); a != test.messages-rejected || r != rejected || s.Count(apnstest.Discarded) != 0 {
					t.Errorf("round %d: counted %d accepted, %d rejected; want %d and %d", round, a, r, test.messages-rejected, rejected)
				}
				s.ClearRecords()
				if n := len(s.Records()) + s.Count(apnstest.Accepted); n != 0 {
					t.Errorf("round %d: got %d records and counts after ClearRecords, want none", round, n)
				}
			}
		})
	}
	if s := start(t, false, nil, nil); s.Count(-1) != 0 || s.Count(99) != 0 {
		t.Error("an unknown outcome was counted")
	}
}

// pushAlternating pushes n messages, each second of them to the token "bad0", and returns
// how many those are. The token of any other is its number.
func pushAlternating(t *testing.T, c http.RoundTripper, n int) (bad int) {
	for i := 1; i <= n; i++ {
		token := fmt.Sprintf("%04x", i)
		if i%2 == 0 {
			token = "bad0"
			bad++
		}
		request{path: "/3/device/" + token}.send(t.Context(), c)
	}
	return bad
}

// Wait waits for messages after ClearRecords, not before.
func TestWaitAfterClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		c := connect(t, s, true)
		request{}.send(t.Context(), c)
		s.ClearRecords()
		waiting := make(chan error, 1)
		go func() { waiting <- s.Wait(t.Context(), 1) }()
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Errorf("Wait returned %v before the message", err)
		default:
		}
		request{}.send(t.Context(), c)
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		if r := s.Records()[0]; r.Number != 1 || !r.Time.Equal(time.Now()) {
			t.Errorf("got record %d at %v, want 1 at %v", r.Number, r.Time, time.Now())
		}
	})
}
