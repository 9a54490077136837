// Command h2specd-client is the client that h2specd tests. It connects to the URL, pushes one
// message, and waits until the connection has ended or a second has passed. h2specd checks
// the frames; it counts a client that runs for three seconds as a failure. The command prints
// whether the connection ended, and the outcome of the message, which does not matter.
//
//	h2specd-client <ca.pem> https://127.0.0.1:30000/
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"time"

	"example.com/apns"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: h2specd-client <ca.pem> <url>")
		os.Exit(2)
	}
	// A client that hangs must not outlive the test.
	time.AfterFunc(2500*time.Millisecond, func() {
		fmt.Println("client: hangs")
		os.Exit(1)
	})
	ended, err := run(os.Args[1], os.Args[2])
	if ended {
		fmt.Println("client: ended:", err)
	} else {
		fmt.Println("client: stayed:", err)
	}
}

// run reports whether the connection ended before a second had passed, and returns the
// outcome of the message.
func run(caFile, to string) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	u, err := url.Parse(to)
	if err != nil {
		return false, err
	}
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return false, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conn, err := apns.Dial(ctx, u.Host, &apns.Config{TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer conn.Close()
	err = conn.WritePushMsg(ctx, &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello"), Topic: "com.example.app"})
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if conn.CheckForError() != nil {
			return true, err
		}
	}
	return false, err
}
