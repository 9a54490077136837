package apns_test

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log"
	"slices"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// This sends one message. The receipt has the server's ID for it.
func ExampleClient_Push() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	ctx := context.Background()

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	receipt, err := client.Push(ctx, &apns.Message{
		Token:   "c0ffee",
		Payload: apns.AlertPayload("Hello"),
		APNsID:  "123e4567-e89b-12d3-a456-4266554400a0", // if empty, the server generates one
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted:", receipt.APNsID)
	// Output: accepted: 123e4567-e89b-12d3-a456-4266554400a0
}

// This sends the same payload to many devices. The results come in the order in which the
// answers arrive.
func ExampleClient_PushAll() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	server.Register(apnstest.BundleID, "c0ffee", "decade", "0badcafe")
	server.Unregister("0badcafe", time.Unix(1700000000, 0))
	ctx := context.Background()

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	tokens := []string{"c0ffee", "0badcafe", "facade", "decade"}
	payload := apns.AlertPayload("Hello") // one for all
	msgs := func(yield func(*apns.Message) bool) {
		for _, token := range tokens {
			if !yield(&apns.Message{Token: token, Payload: payload}) {
				return
			}
		}
	}
	for r := range client.PushAll(ctx, msgs) {
		pushErr, rejected := r.Err.(*apns.PushError)
		switch {
		case r.Err == nil:
			fmt.Println(r.Message.Token, "accepted")
		case errors.Is(r.Err, apns.ReasonUnregistered), errors.Is(r.Err, apns.ReasonExpiredToken):
			fmt.Println(r.Message.Token, "dead since", pushErr.DeadAt)
		case rejected:
			fmt.Println(r.Message.Token, "rejected:", pushErr.Reason)
		case errors.Is(r.Err, apns.ErrNotSent):
			fmt.Println(r.Message.Token, "not sent")
		default:
			fmt.Println(r.Message.Token, r.Err) // in doubt, invalid or expired
		}
	}
	// Unordered output:
	// c0ffee accepted
	// 0badcafe dead since 2023-11-14 22:13:20 +0000 UTC
	// facade rejected: BadDeviceToken
	// decade accepted
}

// This sends messages to a gateway of the binary protocol, with the same call. The gateway
// sends nothing about the messages that it accepts: the Client confirms them with a barrier.
// A rejection ends the connection: the Client resends the messages that the gateway
// discarded.
func ExampleClient_PushAll_binary() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == "facade" {
			return apns.StatusInvalidToken
		}
		return nil
	})
	defer server.Close()
	ctx := context.Background()

	client := &apns.Client{Addr: "gateway.example.com:2195", Config: server.Config()}
	defer client.Close()

	payload := apns.AlertPayload("Hello")
	msgs := []*apns.Message{
		{ID: 1, Token: "c0ffee", Payload: payload},
		{ID: 2, Token: "facade", Payload: payload},
		{ID: 3, Token: "decade", Payload: payload},
	}
	for r := range client.PushAll(ctx, slices.Values(msgs)) {
		if r.Err != nil {
			fmt.Println(r.Err)
			continue
		}
		fmt.Println(r.Message.Token, "accepted")
	}
	// Unordered output:
	// c0ffee accepted
	// apns: message 2 rejected: invalid token (status 8)
	// decade accepted
}

// This removes the tokens of devices from which the app was removed. A BadDeviceToken does not
// mean that: it is also the answer to a sandbox token in production.
func ExampleClient_PushAll_deadTokens() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	now := time.Now()
	server.Register(apnstest.BundleID, "c0ffee", "decade", "facade")
	server.Unregister("c0ffee", now.Add(-time.Hour))
	server.Unregister("decade", now.Add(-time.Hour))
	ctx := context.Background()

	store := memoryStore{
		"c0ffee": now.AddDate(-1, 0, 0),
		"decade": now.Add(-time.Minute), // registered after it was dead
		"facade": now.AddDate(-1, 0, 0),
		"5eed":   now.AddDate(-1, 0, 0), // a BadDeviceToken
	}
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	tokens, err := store.Tokens(ctx)
	if err != nil {
		log.Fatal(err)
	}
	payload := apns.AlertPayload("Hello")
	msgs := func(yield func(*apns.Message) bool) {
		for _, token := range tokens {
			if !yield(&apns.Message{Token: token, Payload: payload}) {
				return
			}
		}
	}
	for r := range client.PushAll(ctx, msgs) {
		if errors.Is(r.Err, apns.ReasonUnregistered) || errors.Is(r.Err, apns.ReasonExpiredToken) {
			pushErr, _ := errors.AsType[*apns.PushError](r.Err)
			if err := store.Remove(ctx, r.Message.Token, pushErr.DeadAt); err != nil {
				log.Fatal(err)
			}
		}
	}
	tokens, _ = store.Tokens(ctx)
	fmt.Println(tokens)
	// Output: [5eed decade facade]
}

// This publishes the statistics of a Client under /debug/vars.
func ExampleClient_Stats() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	server.Register(apnstest.BundleID, "c0ffee")
	ctx := context.Background()

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()
	if expvar.Get("apns") == nil { // a name can be published once
		expvar.Publish("apns", expvar.Func(func() any { return client.Stats() }))
	}

	payload := apns.AlertPayload("Hello")
	for _, token := range []string{"c0ffee", "facade", "c0ffee"} {
		if _, err := client.Push(ctx, &apns.Message{Token: token, Payload: payload}); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(expvar.Get("apns").String()[:49], "...")

	stats := client.Stats()
	fmt.Println(stats.Accepted, "accepted,", stats.Rejected["BadDeviceToken"], "bad tokens")
	// Output:
	// apns: message rejected: BadDeviceToken (HTTP status 400)
	// {"Accepted":2,"Rejected":{"BadDeviceToken":1},"In ...
	// 2 accepted, 1 bad tokens
}
