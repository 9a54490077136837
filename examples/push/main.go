// Command push sends a notification to one device or to many, and prints the outcome.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/advice"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
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
		if text := advice.For(err); text != "" {
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
	err = runOne(out, m)
	switch {
	case *asJSON:
		writeReport(out, newReport(m, apns.Receipt{}, err))
	case err == nil:
		fmt.Fprintln(out, "accepted")
	}
	return err
}

func runOne(out io.Writer, m *apns.Message) error {
	if m.Payload == nil {
		var err error
		if m.Payload, err = readPayload(*payload); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if server.Local {
		return pushLocal(ctx, out, m)
	}
	config, err := server.Config()
	if err != nil {
		return err
	}
	return push(ctx, server.Address(), config, m)
}

func push(ctx context.Context, addr string, config *apns.Config, m *apns.Message) error {
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Over HTTP/2 this returns the server's answer. On the binary protocol there is no
	// answer to an accepted message: Shutdown confirms that it was accepted.
	if err := conn.WritePushMsg(ctx, m); err != nil {
		return err
	}
	err = conn.Shutdown(ctx)
	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && !pushErr.Rejected() && pushErr.ID == m.ID {
		return nil // the server shuts down, and this is the last message that it accepted
	}
	return err
}

func pushLocal(ctx context.Context, out io.Writer, m *apns.Message) error {
	test := apnstest.NewServer(nil)
	defer test.Close()
	addr, config := localAddr(test)
	err := push(ctx, addr, config, m)
	for _, r := range test.Records() {
		if *asJSON {
			break // which has only the outcome
		}
		m := r.Message
		expiry := ""
		switch {
		case m.Expiry.IsZero():
		case m.Expiry.Unix() == 0:
			expiry = ", expiry now or never"
		default:
			expiry = ", expiry " + m.Expiry.Format(time.RFC3339)
		}
		fmt.Fprintf(out, "server received: token %s, topic %q, push type %q, collapse ID %q, priority %d%s, payload %s\n",
			m.Token, m.Topic, m.PushType, m.CollapseID, m.Priority, expiry, m.Payload)
	}
	return err
}

// localAddr returns the test server's address and configuration for -protocol.
func localAddr(test *apnstest.Server) (string, *apns.Config) {
	if *protocol == "binary" {
		return test.PushAddr, test.Config()
	}
	config := test.TokenConfig()
	config.BundleID = cmp.Or(server.BundleID, config.BundleID)
	return test.HTTP2Addr, config
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
