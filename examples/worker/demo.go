package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const demoMessages = 1000

// Of the demo's messages, those with these numbers are not accepted.
func isDead(n int) bool        { return n%100 == 50 }
func isBad(n int) bool         { return n%1000 == 333 || n%1000 == 666 || n%1000 == 999 }
func isUndecodable(n int) bool { return n%1000 == 777 }

// demoMessage returns the message with a number.
func demoMessage(n int) []byte {
	if isUndecodable(n) {
		return []byte(`{"token": 7}`)
	}
	// The topic is in the message, as it would be with several apps.
	b, err := json.Marshal(&apns.Message{Token: demoToken(n), Topic: apnstest.BundleID, Payload: apns.AlertPayload("Hello")})
	if err != nil {
		panic(err) // none of it is from outside
	}
	return b
}

func demoToken(n int) string { return fmt.Sprintf("%064x", n+1) }

// demoAnswer is what the push server says of a message.
func demoAnswer(n int) error {
	switch {
	case isDead(n):
		return &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: time.Now().Add(-time.Hour)}
	case isBad(n):
		return apns.ReasonBadDeviceToken
	}
	return nil
}

// tokenNumber is the reverse of demoToken.
func tokenNumber(m *apns.Message) (n int) {
	fmt.Sscanf(m.Token, "%x", &n)
	return n - 1
}

// demo runs a queue, a push server and a worker in this process. It publishes messages and
// waits until none is left in the queue.
func demo(ctx context.Context, out io.Writer, s *settings) error {
	dir, err := os.MkdirTemp("", "worker")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := startServer("", 0, dir)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	pushServer := apnstest.NewServer(func(m *apns.Message) error { return demoAnswer(tokenNumber(m)) })
	defer pushServer.Close()
	nc, err := nats.Connect("", nats.InProcessServer(server))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	q, err := openQueue(ctx, nc, js, s.queueSettings)
	if err != nil {
		return err
	}
	p := &publisher{js: js}
	for n := range demoMessages {
		if err := p.publish(demoMessage(n), fmt.Sprint("demo-", n)); err != nil {
			return err
		}
	}
	if err := p.wait(); err != nil {
		return err
	}
	fmt.Fprintf(out, "published %d messages\n", p.stored)

	m := new(metrics)
	client := &apns.Client{Addr: pushServer.HTTP2Addr, Config: pushServer.TokenConfig(), Timeout: s.ackWait / 2, OnAttempt: m.attempts.observe}
	w, err := newWorker(q, client, m, inDoubtPolicy(s.inDoubt), s.room, s.grace)
	if err != nil {
		return err
	}
	store := make(demoStore)
	for n := range demoMessages {
		store[demoToken(n)] = time.Now().AddDate(-1, 0, 0)
	}
	store[demoToken(50)] = time.Now() // the app registered this one after it was dead
	if err := runDemo(ctx, w, store); err != nil {
		return err
	}
	fmt.Fprintln(out, "accepted:", pushServer.Count(apnstest.Accepted))
	fmt.Fprintln(out, "dead:", w.metrics.resolved[apns.ActionForget].Load())
	fmt.Fprintln(out, "rejected:", w.metrics.rejected.Load())
	fmt.Fprintf(out, "tokens left: %d (one of the dead was registered again)\n", len(store))
	return nil
}

// runDemo runs a worker and a consumer of dead tokens until the queue and the list of dead
// tokens are empty.
func runDemo(ctx context.Context, w *worker, store tokenStore) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs [2]error
	var running sync.WaitGroup
	running.Go(func() { errs[0] = w.run(ctx) })
	running.Go(func() { errs[1] = forgetTokens(ctx, w.queue.js, store) })
	err := waitUntilEmpty(ctx, w.queue.js)
	cancel()
	running.Wait()
	for _, e := range append(errs[:], err) {
		if e != nil {
			return e
		}
	}
	return nil
}

// waitUntilEmpty waits until the queue has no messages, and every dead token was consumed.
func waitUntilEmpty(ctx context.Context, js jetstream.JetStream) error {
	for {
		stream, err := js.Stream(ctx, pushStream)
		if err != nil {
			return err
		}
		tokens, err := js.Consumer(ctx, eventStream, "tokens")
		if err == nil && stream.CachedInfo().State.Msgs == 0 {
			if i := tokens.CachedInfo(); i.NumPending == 0 && i.NumAckPending == 0 {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A demoStore has the time of each token's registration.
type demoStore map[string]time.Time

func (s demoStore) Remove(_ context.Context, token string, deadAt time.Time) error {
	if registered, ok := s[token]; ok && !registered.After(deadAt) {
		delete(s, token)
	}
	return nil
}
