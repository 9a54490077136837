package apns_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// "403 ExpiredProviderToken: The provider token is stale and a new token should be
// generated." ("Handling notification responses from APNs") The message is tried
// once more, with a new token; if that has expired as well, the clock is wrong,
// and the server refuses the sender.
func TestClientHTTP2ExpiredProviderToken(t *testing.T) {
	for _, times := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			expired := 0
			server := inMemory(t, func(*apns.Message) error {
				if expired > 0 {
					expired--
					return apns.ReasonExpiredProviderToken
				}
				return nil
			})
			c := http2Client(t, server.TokenConfig())
			for range 5 { // a connection may change its token after 20 minutes
				if _, err := c.Push(t.Context(), message(1)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
			}
			expired = times
			start := time.Now()
			_, err := c.Push(t.Context(), message(7))
			wantTook(t, start, 0, 0)
			if n := len(server.Records()); n != 7 {
				t.Errorf("the server saw %d messages, want 7, the last one of which twice", n)
			}
			if times == 1 {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				wantFigures(t, c, apns.Stats{Accepted: 6, Resent: 1, Connected: 1})
				return
			}
			wantErr(t, err, apns.ErrNotSent, apns.ErrRefused, apns.ReasonExpiredProviderToken)
			wantFigures(t, c, apns.Stats{Accepted: 5, Resent: 1, NotSent: 1, Connected: 1})
			time.Sleep(time.Second)
			if _, err := c.Push(t.Context(), message(8)); err != nil {
				t.Errorf("after the clock was set: got %v, want nil", err)
			}
		})
	}
}

// Three Clients share a key for 26 hours. One is busy, one now and then, and one so
// seldom that it always dials anew; there are bursts that need more connections,
// and GOAWAYs. The server checks what "Establishing a token-based connection to
// APNs" says of provider tokens: none over an hour old, none changed within 20
// minutes. There is no failure at all.
func TestClientHTTP2KeySharedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		server := inMemory(t, func(*apns.Message) error {
			switch n.Add(1) % 1009 {
			case 0:
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
			case 500:
				return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
			case 700:
				return apnstest.Fault{End: apnstest.EndRefusedStream}
			}
			return answerAfter(100 * time.Millisecond)
		}, func(s *apnstest.Server) { s.StreamLimit = 10 })
		key := server.TokenConfig().Key
		end := time.Now().Add(26 * time.Hour)
		var wg sync.WaitGroup
		var pushed atomic.Uint64
		var clients []*apns.Client
		for i, every := range []time.Duration{23 * time.Second, 97 * time.Second, 2 * time.Hour} {
			config := server.TokenConfig()
			config.Key = key
			c := http2Client(t, config)
			clients = append(clients, c)
			wg.Go(func() {
				for time.Now().Before(end) {
					if _, err := c.Push(t.Context(), message(1)); err != nil {
						t.Errorf("client %d: got %v, want nil", i, err)
					}
					pushed.Add(1)
					time.Sleep(every)
				}
			})
			wg.Go(func() {
				for burst := time.Duration(i) * 7 * time.Minute; time.Now().Before(end); burst = time.Duration(1+i) * 41 * time.Minute {
					time.Sleep(burst)
					wantAccepted(t, allAtOnce(t.Context(), c, 60))
					pushed.Add(60)
				}
			})
		}
		wg.Wait()
		var all apns.Stats
		for i, c := range clients {
			s := c.Stats()
			if s.Connected < 10 {
				t.Errorf("client %d made %d connections, want many, for the sake of this test", i, s.Connected)
			}
			all.Accepted += s.Accepted
			all.Connected += s.Connected
		}
		if all.Accepted != pushed.Load() {
			t.Errorf("%d were accepted, want %d", all.Accepted, pushed.Load())
		}
		for _, r := range server.Records() {
			if r.Outcome == apnstest.Rejected {
				t.Errorf("the server refused a message: %v", r.Err)
			}
		}
		t.Logf("%d messages on %d connections", all.Accepted, all.Connected)
	})
}

// A key that cannot sign is not tried twice.
func TestClientHTTP2KeyInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.TokenConfig()
		config.Key = new(apns.AuthKey)
		c := http2Client(t, config)
		start, n := time.Now(), 0
		for r := range c.PushAll(t.Context(), devices(100)) {
			n++
			wantErr(t, r.Err, apns.ErrNotSent)
			if !strings.Contains(fmt.Sprint(r.Err), "LoadAuthKey") {
				t.Errorf("got %v, want an error about the key", r.Err)
			}
		}
		wantTook(t, start, 0, 0)
		if s := c.Stats(); n != 100 || s.NotSent != 100 || s.Resent != 0 {
			t.Errorf("got %d results, %+v; want 100 that were not sent, and not again", n, s)
		}
	})
}
