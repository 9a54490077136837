// Command push sends a notification to one device or to many, and prints the outcome. Run
// push -h for its usage.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/examples/internal/explain"
)

func main() {
	out := bufio.NewWriter(os.Stdout) // keeps a write error until Flush
	err := run(out)
	flushErr := out.Flush()
	if _, ok := errors.AsType[cli.UsageError](err); ok {
		cli.Exit(err)
	}
	switch {
	case err == nil && flushErr == nil:
		return
	case err == nil:
		fmt.Fprintln(os.Stderr, "accepted, but:", flushErr)
	case errors.Is(err, errNotAll):
		if flushErr != nil {
			fmt.Fprintln(os.Stderr, "error:", flushErr)
		}
	default:
		fmt.Fprintln(os.Stderr, describe(err))
		if text := explain.Error(err); text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
	}
	os.Exit(1)
}

// run returns nil if everything was accepted.
func run(out *bufio.Writer) error {
	m, err := parse()
	if err != nil {
		return err
	}
	if *tokens != "" {
		return runMany(out, m)
	}
	receipt, err := runOne(out, m)
	switch {
	case *asJSON:
		writeReport(out, newReport(m, receipt, err))
	case err == nil:
		fmt.Fprintln(out, "accepted")
	}
	return err
}

func runOne(out *bufio.Writer, m *apns.Message) (apns.Receipt, error) {
	if m.Payload == nil {
		var err error
		if m.Payload, err = readPayload(*payload); err != nil {
			return apns.Receipt{}, err
		}
	}
	addType(m)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if server.Local {
		return pushLocal(ctx, out, m)
	}
	config, err := server.Config()
	if err != nil {
		return apns.Receipt{}, err
	}
	return push(ctx, server.Address(), config, m)
}

// push pushes the message once. The protocol is the one that the server negotiates.
func push(ctx context.Context, addr string, config *apns.Config, m *apns.Message) (apns.Receipt, error) {
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return apns.Receipt{}, err
	}
	defer conn.Close()
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		// A Client returns the receipt, and a Conn does not. On the binary protocol a
		// Client has numeric ids of its own.
		conn.Close()
		client := &apns.Client{Addr: addr, Config: config, Attempts: 1}
		defer client.Close()
		return client.Push(ctx, m)
	}
	// On the binary protocol there is no answer to an accepted message: Shutdown confirms
	// that it was accepted.
	if err := conn.WritePushMsg(ctx, m); err != nil {
		return apns.Receipt{}, err
	}
	err = conn.Shutdown(ctx)
	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && !pushErr.Rejected() && pushErr.ID == m.ID {
		err = nil // the server shuts down, and this is the last message that it accepted
	}
	return apns.Receipt{}, err
}

// describe returns the outcome and what else an error says.
func describe(err error) string {
	outcome, text := bulk.Outcome(err), bulk.Plain(err)
	if i := strings.Index(text, outcome+": "); outcome == "rejected" && i >= 0 {
		return text[i:] // without the ID
	}
	if !strings.HasPrefix(text, outcome+": ") {
		text = outcome + ": " + text
	}
	return text
}
