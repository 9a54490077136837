package apns_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Here the server of package apnstest stands in for Apple's. To push to Apple's, use a key
// from LoadAuthKey, and this Config:
//
//	&apns.Config{Key: key, BundleID: "com.example.app"}
func Example() {
	server := apnstest.NewServer(nil)
	defer server.Close()

	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()
	_, err := client.Push(context.Background(), &apns.Message{
		Token:   "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c",
		Payload: apns.AlertPayload("Hello"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted")
	// Output: accepted
}

// A Conn is a single connection, without reconnecting or resending.
func ExampleDial() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	ctx := context.Background()

	conn, err := apns.Dial(ctx, apns.Production, server.TokenConfig())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	err = conn.WritePushMsg(ctx, &apns.Message{
		Token:   "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c",
		Payload: apns.AlertPayload("Hello"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted")
	// Output: accepted
}

// Many goroutines share one connection. Each message has its own answer. A message waits
// while the server's stream limit is reached. Each message has a deadline, because a server
// may never answer it.
func ExampleConn_WritePushMsg() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	server.Register(apnstest.BundleID, "c0ffee", "decade", "0badcafe")
	server.Unregister("0badcafe", time.Unix(1700000000, 0))
	ctx := context.Background()

	conn, err := apns.Dial(ctx, apns.Production, server.TokenConfig())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	payload := apns.AlertPayload("Hello") // one for all
	tokens := make(chan string)
	var workers sync.WaitGroup
	for range 100 {
		workers.Go(func() {
			for token := range tokens {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				err := conn.WritePushMsg(ctx, &apns.Message{Token: token, Payload: payload})
				cancel()
				pushErr, rejected := errors.AsType[*apns.PushError](err)
				switch {
				case err == nil:
					fmt.Println(token, "accepted")
				case errors.Is(err, apns.ReasonUnregistered):
					fmt.Println(token, "dead since", pushErr.DeadAt) // ExampleConn_Feedback_database shows what to do
				case rejected:
					fmt.Println(token, "rejected:", pushErr.Reason)
				case errors.Is(err, apns.ErrNotSent):
					fmt.Println(token, "not sent")
				default:
					fmt.Println(token, err)
				}
			}
		})
	}
	for _, token := range []string{"c0ffee", "0badcafe", "facade", "decade"} {
		tokens <- token
	}
	close(tokens)
	workers.Wait()
	if err := conn.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// c0ffee accepted
	// 0badcafe dead since 2023-11-14 22:13:20 +0000 UTC
	// facade rejected: BadDeviceToken
	// decade accepted
}

// A binary gateway sends nothing about a message that it accepts. Shutdown confirms that it
// accepted all messages.
func ExampleConn_Shutdown() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	ctx := context.Background()

	conn, err := apns.Dial(ctx, "gateway.example.com:2195", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	err = conn.WritePushMsg(ctx, &apns.Message{
		ID:      1,
		Token:   "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c",
		Payload: apns.AlertPayload("Hello"),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted")
	// Output: accepted
}

// This sends messages to a binary gateway in the order of their IDs, until all are written or
// CheckForError returns an error. A rejection ends the connection. Another connection then
// starts with the message after the rejected one.
func ExampleConn_CheckForError() {
	server := apnstest.NewServer(func(m *apns.Message) error {
		if strings.HasPrefix(m.Token, "dead") {
			return apns.StatusInvalidToken
		}
		return nil
	})
	defer server.Close()
	ctx := context.Background()

	tokens := []string{"c0ffee", "deadbeef", "0badcafe", "decade"}
	payload := apns.AlertPayload("Hello")

	// send sends the messages with the IDs from first on, over one connection. It returns
	// the error with which the connection ended. IDs start at 1, because a gateway says 0
	// if it cannot tell which message it means.
	send := func(first int) error {
		conn, err := apns.Dial(ctx, "gateway.example.com:2195", server.Config())
		if err != nil {
			return err
		}
		defer conn.Close()
		for id := first; id <= len(tokens) && conn.CheckForError() == nil; id++ {
			m := &apns.Message{ID: uint32(id), Token: tokens[id-1], Payload: payload}
			err := conn.WritePushMsg(ctx, m)
			switch {
			case ctx.Err() != nil:
				return err
			case err != nil && !errors.Is(err, apns.ErrNotSent):
				fmt.Println(id, err) // a local check failed; the next messages can be sent
			}
		}
		return conn.Shutdown(ctx) // the error of CheckForError, or nil if all were accepted
	}

	for first := 1; first <= len(tokens); {
		err := send(first)
		pushErr, ok := errors.AsType[*apns.PushError](err)
		switch {
		case err == nil:
			fmt.Println("accepted: all others")
			return
		case !ok || pushErr.ID < uint32(first) || pushErr.ID > uint32(len(tokens)):
			log.Fatal(err) // it is not known which message is next
		case pushErr.Rejected():
			fmt.Println(err)
		}
		first = int(pushErr.ID) + 1
	}
	// Output:
	// apns: message 2 rejected: invalid token (status 8)
	// accepted: all others
}

func ExampleConn_Feedback() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	server.AddFeedback(apns.Feedback{Token: "c0ffee", DeadAt: time.Unix(1700000000, 0)})
	ctx := context.Background()

	conn, err := apns.Dial(ctx, "feedback.example.com:2196", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for f, err := range conn.Feedback(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f.Token, f.DeadAt)
	}
	// Output: c0ffee 2023-11-14 22:13:20 +0000 UTC
}

// A Store is the part of the application's database that is about push notifications. It is
// a table
//
//	CREATE TABLE devices (
//		token      TEXT PRIMARY KEY, -- hexadecimal, lower case
//		registered TIMESTAMP NOT NULL -- when the app last sent the token
//	)
//
// and each method is one statement.
type Store interface {
	// Tokens: SELECT token FROM devices
	Tokens(ctx context.Context) ([]string, error)
	// Remove: DELETE FROM devices WHERE token = ? AND registered <= ?
	//
	// The condition has the time of death, because a token that the app registered after
	// that time is valid.
	Remove(ctx context.Context, token string, deadAt time.Time) error
}

// This removes the tokens of dead devices from a database: by the answers to pushes, or by
// the list of the binary feedback service. Reading that list empties it, so each record is
// removed before the next one is read.
func ExampleConn_Feedback_database() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	now := time.Now()
	server.Register(apnstest.BundleID, "c0ffee", "decade", "facade")
	server.Unregister("c0ffee", now.Add(-time.Hour))
	server.Unregister("decade", now.Add(-time.Hour))
	ctx := context.Background()

	push := func(store Store) error {
		conn, err := apns.Dial(ctx, apns.Production, server.TokenConfig())
		if err != nil {
			return err
		}
		defer conn.Close()
		tokens, err := store.Tokens(ctx)
		if err != nil {
			return err
		}
		payload := apns.AlertPayload("Hello")
		for _, token := range tokens {
			err := conn.WritePushMsg(ctx, &apns.Message{Token: token, Payload: payload})
			pushErr, _ := errors.AsType[*apns.PushError](err)
			switch {
			case errors.Is(err, apns.ReasonUnregistered), errors.Is(err, apns.ReasonExpiredToken):
				err = store.Remove(ctx, token, pushErr.DeadAt)
			case pushErr != nil:
				log.Print(err) // and continue
				err = nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	prune := func(store Store) error {
		conn, err := apns.Dial(ctx, "feedback.example.com:2196", server.Config())
		if err != nil {
			return err
		}
		defer conn.Close()
		for f, err := range conn.Feedback(ctx) {
			if err != nil {
				return err
			}
			if err := store.Remove(ctx, f.Token, f.DeadAt); err != nil {
				return err
			}
		}
		return nil
	}

	for _, clean := range []func(Store) error{push, prune} {
		store := memoryStore{
			"c0ffee": now.AddDate(-1, 0, 0),
			"decade": now.Add(-time.Minute), // registered after it was dead
			"facade": now.AddDate(-1, 0, 0),
		}
		if err := clean(store); err != nil {
			log.Fatal(err)
		}
		tokens, _ := store.Tokens(ctx)
		fmt.Println(tokens)
	}
	// Output:
	// [decade facade]
	// [decade facade]
}

// A memoryStore maps a token to the time of its registration.
type memoryStore map[string]time.Time

func (s memoryStore) Tokens(context.Context) ([]string, error) {
	var tokens []string
	for token := range s {
		tokens = append(tokens, token)
	}
	slices.Sort(tokens)
	return tokens, nil
}

func (s memoryStore) Remove(_ context.Context, token string, deadAt time.Time) error {
	if registered, ok := s[token]; ok && !registered.After(deadAt) {
		delete(s, token)
	}
	return nil
}

func ExampleBuildMsg() {
	b, err := apns.BuildMsg(&apns.Message{
		ID:      7,
		Token:   "c0ffee",
		Payload: apns.AlertPayload("Hello"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(hex.Dump(b))
	// Output:
	// 00000000  01 00 00 00 07 00 00 00  00 00 03 c0 ff ee 00 19  |................|
	// 00000010  7b 22 61 70 73 22 3a 7b  22 61 6c 65 72 74 22 3a  |{"aps":{"alert":|
	// 00000020  22 48 65 6c 6c 6f 22 7d  7d                       |"Hello"}}|
}

// The error of an invalid message matches the status with which a server would have rejected
// it.
func ExampleBuildMsg_bad() {
	_, err := apns.BuildMsg(&apns.Message{Token: "c0ffee\n", Payload: apns.AlertPayload("Hello")})
	fmt.Println(err)
	fmt.Println(errors.Is(err, apns.StatusInvalidToken))
	// Output:
	// apns: token has '\n' at index 6, expected only hexadecimal digits
	// true
}

func ExampleReadMsg() {
	var archive []byte
	for id, text := range []string{"Hello", "Good-bye"} {
		archive, _ = apns.AppendMsg(archive, &apns.Message{
			ID:       uint32(id),
			Token:    "c0ffee",
			Payload:  apns.AlertPayload(text),
			Priority: apns.PriorityPowerSaving,
		})
	}
	r := bufio.NewReader(strings.NewReader(string(archive)))
	for {
		m, err := apns.ReadMsg(r)
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%d to %s: %s\n", m.ID, m.Token, m.Payload)
	}
	// Output:
	// 0 to c0ffee: {"aps":{"alert":"Hello"}}
	// 1 to c0ffee: {"aps":{"alert":"Good-bye"}}
	// EOF
}

func ExamplePushError() {
	server := apnstest.NewServer(func(*apns.Message) error { return apns.StatusInvalidToken })
	defer server.Close()
	ctx := context.Background()
	conn, err := apns.Dial(ctx, "gateway.example.com:2195", server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	m := &apns.Message{ID: 7, Token: "c0ffee", Payload: apns.AlertPayload("Hello")}
	if err := conn.WritePushMsg(ctx, m); err != nil {
		log.Fatal(err)
	}

	err = conn.Shutdown(ctx)
	pushErr, ok := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil:
		fmt.Println("all accepted")
	case ok && pushErr.Rejected():
		fmt.Println(pushErr.ID, "rejected:", pushErr.Status)
	case ok:
		fmt.Println(pushErr.ID, "is the last one accepted")
	case errors.Is(err, apns.ErrInDoubt):
		fmt.Fprintln(os.Stderr, "in doubt:", err)
	default:
		fmt.Fprintln(os.Stderr, "not sent:", err)
	}
	// Output: 7 rejected: invalid token
}
