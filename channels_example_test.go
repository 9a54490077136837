package apns_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// This creates a channel, sends an update of a Live Activity to all devices that are
// subscribed to it, and deletes the channel.
func ExampleChannels() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	ctx := context.Background()
	config := server.TokenConfig() // with the app's BundleID

	channels := &apns.Channels{Config: config} // in the sandbox: Addr: apns.ChannelsSandbox
	defer channels.Close()
	id, err := channels.Create(ctx, apns.StoreMostRecent)
	if err != nil {
		log.Fatal(err)
	}

	update := apns.Payload{LiveActivity: &apns.LiveActivity{
		Event:        "update",
		Timestamp:    time.Now(),
		ContentState: map[string]int{"home": 2, "away": 1},
	}}
	payload, err := update.Encode()
	if err != nil {
		log.Fatal(err)
	}
	client := &apns.Client{Config: config}
	defer client.Close()
	_, err = client.Push(ctx, &apns.Message{
		Channel: id,
		Payload: payload,
		Expiry:  time.Now().Add(time.Hour), // until then it is stored
	})
	fmt.Println("broadcast:", err)

	fmt.Println("deleted:", channels.Delete(ctx, id))
	_, err = channels.Read(ctx, id)
	fmt.Println("not registered:", errors.Is(err, apns.ReasonChannelNotRegistered))
	// Output:
	// broadcast: <nil>
	// deleted: <nil>
	// not registered: true
}
