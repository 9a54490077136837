package apns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A job is a message of a queue that stands for any real one.
type job struct {
	name string
	body apns.Message
}

func (j *job) ack()                    { fmt.Println(j.name, "ack") }
func (j *job) nak(after time.Duration) { fmt.Println(j.name, "nak, deliver after", after) }
func (j *job) park(why error)          { fmt.Println(j.name, "park:", why) }

// A consumer of a queue acknowledges each message as the outcome says. The Value leads from
// the Result back to the queue's message.
func ExampleAdvise() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == "0b05e5" {
			return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second}
		}
		return nil
	})
	defer server.Close()
	server.Register(apnstest.BundleID, "c0ffee", "decade", "0b05e5")
	server.Unregister("decade", time.Unix(1700000000, 0))
	client := &apns.Client{Config: server.TokenConfig(), Attempts: 1}
	defer client.Close()

	messages := make(chan *apns.Message, 10)
	for name, token := range map[string]string{
		"good": "c0ffee", "dead": "decade", "busy": "0b05e5", "unknown": "facade", "wrong": "token",
	} {
		j := &job{name: name, body: apns.Message{Token: token, Payload: apns.AlertPayload("Hello")}}
		j.body.Value = j
		messages <- &j.body
	}
	close(messages)

	for r := range client.PushChan(context.Background(), messages) {
		j := r.Message.Value.(*job)
		switch advice := apns.Advise(r.Err); advice.Action {
		case apns.ActionDone:
			j.ack()
		case apns.ActionForget:
			fmt.Println(j.name, "remove the token, unless it was registered after", advice.DeadAt)
			j.ack()
		case apns.ActionDrop:
			j.park(r.Err)
		case apns.ActionResend:
			j.nak(max(advice.After, time.Second))
		case apns.ActionFix:
			j.nak(time.Minute) // and tell somebody
		case apns.ActionDecide:
			j.nak(0) // here a message that arrives twice is better than one that does not
		}
	}
	// Unordered output:
	// good ack
	// dead remove the token, unless it was registered after 2023-11-14 22:13:20 +0000 UTC
	// dead ack
	// busy nak, deliver after 30s
	// unknown park: apns: message rejected: BadDeviceToken (HTTP status 400)
	// wrong park: apns: token has 't' at index 0, expected only hexadecimal digits
}

// A message whose Expiry passes while it waits is not sent. Here the server is out of reach
// until it is too late.
func ExampleClient_Push_expired() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	server.RefuseConnections(true)
	time.AfterFunc(600*time.Millisecond, func() { server.RefuseConnections(false) })
	_, err := client.Push(context.Background(), &apns.Message{
		Token:   "c0ffee",
		Payload: apns.AlertPayload("The train is here"),
		Expiry:  time.Now().Add(500 * time.Millisecond),
	})
	fmt.Println(errors.Is(err, apns.ErrExpired), apns.Advise(err).Action)
	fmt.Println(err)
	fmt.Println("accepted:", server.Count(apnstest.Accepted))
	// Output:
	// true drop
	// apns: expired: the message's Expiry passed while it waited to be sent
	// accepted: 0
}

// A message in doubt is resent if it has a CollapseID: should the first have arrived, the
// second replaces it. The outcome of a message without one is in doubt.
func ExampleInDoubtPolicy() {
	var mu sync.Mutex
	arrived := make(map[string]int) // by token
	server := apnstest.NewServer(func(m *apns.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if arrived[m.Token]++; arrived[m.Token] == 1 {
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST} // accepted, but the answer is lost
		}
		return nil
	})
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig(), InDoubt: apns.InDoubtResendCollapsible}
	defer client.Close()

	for _, m := range []*apns.Message{
		{Token: "c0ffee", Payload: apns.AlertPayload("2:1"), CollapseID: "score"},
		{Token: "decade", Payload: apns.AlertPayload("A goal!")},
	} {
		_, err := client.Push(context.Background(), m)
		fmt.Println(m.Token, "in doubt:", errors.Is(err, apns.ErrInDoubt))
	}
	mu.Lock()
	defer mu.Unlock()
	fmt.Println("arrived:", arrived)
	// Output:
	// c0ffee in doubt: false
	// decade in doubt: true
	// arrived: map[c0ffee:2 decade:1]
}

// A service sends what comes on a channel.
func ExampleClient_PushChan() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	messages := make(chan *apns.Message)
	go func() {
		defer close(messages)
		for i := range 1000 {
			messages <- &apns.Message{Token: fmt.Sprintf("%08x", i), Payload: apns.AlertPayload("Hello")}
		}
	}()
	accepted := 0
	for r := range client.PushChan(context.Background(), messages) {
		if r.Err == nil {
			accepted++
		}
	}
	fmt.Println(accepted, "accepted")
	// Output: 1000 accepted
}

// A service sends what comes on a channel until SIGTERM. Kubernetes sends SIGKILL 30 seconds
// after it (terminationGracePeriodSeconds), so Shutdown has 20. The context of PushChan has
// nothing to do with SIGTERM: if it ended, what is in flight would be in doubt.
func ExampleClient_Shutdown() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig()}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	messages := make(chan *apns.Message, 10) // never closed: a queue has no end
	for i := range cap(messages) {
		messages <- &apns.Message{Token: fmt.Sprintf("%08x", i), Payload: apns.AlertPayload("Hello")}
	}
	var accepted, others int
	var sending sync.WaitGroup
	sending.Go(func() {
		for r := range client.PushChan(context.Background(), messages) {
			if r.Err == nil {
				accepted++
			} else {
				others++ // not sent: give it back to the queue. In doubt: see Advise
			}
			if accepted == cap(messages) {
				cancel() // in place of SIGTERM
			}
		}
	})

	<-stop.Done()
	bound, cancelBound := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancelBound()
	if err := client.Shutdown(bound); err != nil { // takes no more, and waits for the outcomes
		fmt.Println(err)
		client.Close() // what is in flight is in doubt, the rest is not sent
	}
	sending.Wait() // the loop ends, though the channel is open
	fmt.Println(accepted, "accepted,", others, "others")
	// Output: 10 accepted, 0 others
}
