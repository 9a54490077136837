package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// pushLocal pushes the message to a test server, and prints what the server received.
func pushLocal(ctx context.Context, out *bufio.Writer, m *apns.Message) (apns.Receipt, error) {
	test := apnstest.NewServer(nil)
	defer test.Close()
	addr, config := localAddr(test)
	receipt, err := push(ctx, addr, config, m)
	if !*asJSON {
		for _, r := range test.Records() {
			printReceived(out, r.Message)
		}
	}
	printFindings(out, test)
	return receipt, err
}

// printReceived prints a message, with - for what is empty.
func printReceived(out *bufio.Writer, m *apns.Message) {
	priority, expiry := "-", "-"
	if m.Priority != 0 {
		priority = strconv.Itoa(int(m.Priority))
	}
	switch {
	case m.Expiry.IsZero():
	case m.Expiry.Unix() == 0:
		expiry = "now or never"
	default:
		expiry = m.Expiry.Format(time.RFC3339)
	}
	fmt.Fprintf(out, "server received: token %s, topic %s, type %s, collapse ID %s, priority %s, expiry %s, payload %s\n",
		m.Token, cmp.Or(m.Topic, "-"), cmp.Or(m.PushType, "-"), cmp.Or(m.CollapseID, "-"), priority, expiry, bytes.TrimSpace(m.Payload))
}

// printFindings prints to standard error, once each, the rules of Apple's that the messages
// break. First it flushes out, so that the order is right on a terminal.
func printFindings(out *bufio.Writer, test *apnstest.Server) {
	out.Flush()
	printed := make(map[apnstest.Finding]bool)
	for _, r := range test.Records() {
		for _, f := range r.Findings {
			if !printed[f] {
				printed[f] = true
				fmt.Fprintln(os.Stderr, "warning:", f)
			}
		}
	}
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
