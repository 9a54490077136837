package apns_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The log tells what ended a connection and why there is none. It does not name a
// message by an ID that only the Client knows.
func TestClientLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := inMemory(t, onNumber(1005, apns.StatusInvalidToken))
		c := newClient(t, s, func(c *apns.Client) {
			c.Config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		collect(t, c.PushAll(t.Context(), messagesFrom(1001, 1010)))
		s.RefuseConnections(true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := c.Push(ctx, numberedMessage(1)); err == nil {
			t.Error("Push to a server that refuses: got nil, want an error")
		}
		c.Close()
		for _, want := range []string{
			`level=INFO msg="apns: connected" addr=gateway.push.apple.com:2195 protocol=""`,
			`level=WARN msg="apns: connection ended" error="apns: the gateway said: invalid token"`,
			`level=WARN msg="apns: cannot connect" error="apns: connecting to gateway.push.apple.com:2195: `,
			`connection refused" "again in"=`,
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("got\n%s\nwant a line with\n%s", &log, want)
			}
		}
		if strings.Contains(log.String(), "message 5") {
			t.Errorf("got\n%s\nwant no ID", &log)
		}
	})
}

// A push that is abandoned after it was written is in doubt.
func TestClientPushCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := newClient(t, s, func(c *apns.Client) { c.ConfirmInterval = 10 * time.Second })
		if _, err := c.Push(t.Context(), numberedMessage(1)); err != nil { // with a barrier
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := c.Push(ctx, numberedMessage(2))
		wantErr(t, err, apns.ErrInDoubt, context.Canceled)
		wantTook(t, start, time.Second, time.Second)
		wantStats(t, c, balance{Accepted: 1, InDoubt: 1})
	})
}

// A Result has the message itself and, over HTTP/2, the server's name for it: the
// message's own ("Sending notification requests to APNs", apns-id), or one that
// the server makes up.
func TestClientHTTP2Receipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := http2Client(t, server.Config())
		named, unnamed := device(1), device(2)
		named.APNsID = "123e4567-e89b-12d3-a456-4266554400a0"
		check := func(m *apns.Message, r apns.Receipt, err error) {
			t.Helper()
			if err != nil || r.UniqueID == "" || (m == named) != (r.APNsID == named.APNsID) || len(r.APNsID) != 36 {
				t.Errorf("message %d: got %+v and %v, want a receipt with the name of the message", m.ID, r, err)
			}
		}
		for _, m := range []*apns.Message{named, unnamed} {
			r, err := c.Push(t.Context(), m)
			check(m, r, err)
		}
		seen := make(map[*apns.Message]bool)
		for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{named, unnamed})) {
			check(r.Message, r.Receipt, r.Err)
			seen[r.Message] = true
		}
		if !seen[named] || !seen[unnamed] || len(seen) != 2 {
			t.Errorf("got the messages %v back, want the same pointers", seen)
		}
	})
}

// A message that is never answered costs its own deadline, to the moment, and
// nothing else. One that waits for a stream when its context ends was not sent.
func TestClientHTTP2Contexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unanswered := true
		server := inMemory(t, func(*apns.Message) error {
			if unanswered {
				return apnstest.Fault{End: apnstest.EndSilence}
			}
			return nil
		}, func(s *apnstest.Server) { s.StreamLimit = 1 })
		c := http2Client(t, server.Config())
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := c.Push(ctx, message(1))
			wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, start, 10*time.Second, 10*time.Second)
		})
		synctest.Wait()
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.Push(ctx, message(2))
			wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
			wantTook(t, start, 5*time.Second, 5*time.Second)
		})
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			_, err := c.Push(ctx, message(3))
			wantErr(t, err, apns.ErrNotSent, context.Canceled)
			wantTook(t, start, 3*time.Second, 3*time.Second)
		})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Push(ended, message(4))
		wantErr(t, err, apns.ErrNotSent, context.Canceled)
		for r := range c.PushAll(ended, devices(10)) {
			t.Errorf("PushAll with a context that has ended yields %+v, want nothing", r)
		}
		if n := len(server.Records()); n != 1 {
			t.Errorf("the server saw %d messages, want 1", n)
		}
		wg.Wait()
		unanswered = false
		if _, err := c.Push(t.Context(), message(5)); err != nil {
			t.Errorf("after that: got %v, want nil", err)
		}
		wantFigures(t, c, apns.Stats{Accepted: 1, InDoubt: 1, NotSent: 3, Connected: 1})
	})
}
