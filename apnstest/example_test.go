package apnstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The code under test has a Client as in production, but for its Config.
func ExampleServer() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == "facade" {
			return apns.ReasonBadDeviceToken
		}
		return nil
	})
	defer server.Close()
	server.Unregister("dead", time.Unix(1700000000, 0)) // the app was removed from this device

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()
	for _, token := range []string{"c0ffee", "facade", "dead"} {
		_, err := client.Push(context.Background(), &apns.Message{Token: token, Payload: apns.AlertPayload("Hello")})
		fmt.Println(err)
	}
	for _, r := range server.Records() {
		fmt.Println(r.Message.Token, r.Outcome)
	}
	// Output:
	// <nil>
	// apns: message rejected: BadDeviceToken (HTTP status 400)
	// apns: message rejected: Unregistered (HTTP status 410, dead since 2023-11-14T22:13:20Z)
	// c0ffee accepted
	// facade rejected
	// dead rejected
}

// The server closes the connection at a message. The client cannot know whether the message
// was accepted.
func ExampleFault() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		return apnstest.Fault{End: apnstest.EndFIN}
	})
	defer server.Close()

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()
	_, err := client.Push(context.Background(), &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello")})
	fmt.Println(errors.Is(err, apns.ErrInDoubt))
	// Output: true
}

// On the binary protocol the code under test dials its usual gateway.
func ExampleServer_binary() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == "dead" {
			return apns.StatusInvalidToken
		}
		return nil
	})
	defer server.Close()

	// The code under test dials its usual address.
	ctx := context.Background()
	conn, err := apns.Dial(ctx, "gateway.push.apple.com:2195", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	for i, token := range []string{"c0ffee", "dead", "decade"} {
		m := &apns.Message{ID: uint32(i + 1), Token: token, Payload: apns.AlertPayload("Hello")}
		if err := conn.WritePushMsg(ctx, m); err != nil {
			break // the rejection has arrived already
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
