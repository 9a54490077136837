package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
)

// errNotAll means that not all notifications were accepted. The summary has said so.
var errNotAll = errors.New("not all was accepted")

// runMany pushes the message to all tokens of -tokens. A line's own payload takes the place
// of the message's.
func runMany(out *bufio.Writer, m *apns.Message) error {
	if *payload != "" {
		var err error
		if m.Payload, err = readPayload(*payload); err != nil {
			return err
		}
	}
	if server.Local {
		test := apnstest.NewServer(nil)
		defer test.Close()
		addr, config := localAddr(test)
		err := pushMany(out, addr, config, m)
		printFindings(out, test)
		return err
	}
	config, err := server.Config()
	if err != nil {
		return err
	}
	return pushMany(out, server.Address(), config, m)
}

func pushMany(out *bufio.Writer, addr string, config *apns.Config, m *apns.Message) error {
	list, err := bulk.Open(*tokens)
	if err != nil {
		return err
	}
	list.Duplicates, list.NeedPayload = *duplicates, m.Payload == nil
	if *acceptedFile != "" && *acceptedFile == *retryFile {
		return cli.UsageError("-accepted-file and -retry-file are the same, expected two files")
	}
	accepted, err := createLineFile("-accepted-file", *acceptedFile, os.O_APPEND, list)
	if err != nil {
		return err
	}
	retry, err := createLineFile("-retry-file", *retryFile, 0, list)
	if err != nil {
		return err
	}
	progress := bulk.NewProgress(os.Stderr, list)
	if *verbose {
		config.Logger = slog.New(slog.NewTextHandler(progress, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	reading, sending, stop, done := bulk.Interruptible(func() { progress.Println("interrupted") })
	defer done()
	s := &summary{out: out, list: list, accepted: accepted, retry: retry, progress: progress, common: m.Payload, explained: make(map[string]bool)}
	list.Invalid = s.addInvalid

	// TLS negotiates the protocol, which limits the tokens.
	var isBinary atomic.Bool
	config.TLS.VerifyConnection = func(s tls.ConnectionState) error {
		isBinary.Store(s.NegotiatedProtocol == "")
		return nil
	}
	// A Client tries to connect until the Timeout of a message ends. One attempt before
	// that shows at once if there can be no connection.
	client := &apns.Client{Addr: addr, Config: config}
	defer client.Close()
	if err := connect(reading, client); err != nil {
		s.explain(err)
		stop()
	}
	list.IsBinary = isBinary.Load()
	for r := range client.PushAll(sending, messages(reading, list, m)) {
		if s.add(r) {
			stop()
		}
	}
	progress.Stop()

	// The lines that were not read are to be sent another time. A terminal has no more of
	// them.
	if retry != nil && !list.Ended() && !list.IsTerminal() {
		fmt.Fprintf(os.Stderr, "the rest of %s goes to %s\n", list.Name, *retryFile)
		s.NotSent += retry.addRest(list)
	}
	return s.print()
}

func connect(ctx context.Context, client *apns.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return client.Connect(ctx)
}

// messages yields the message for each line. Its ID is the number of the line.
func messages(ctx context.Context, list *bulk.Tokens, template *apns.Message) iter.Seq[*apns.Message] {
	common := *template
	addType(&common)
	return func(yield func(*apns.Message) bool) {
		for line := range list.All(ctx) {
			m := common // the payload is shared
			m.ID, m.Token = uint32(line.Number), line.Token
			if line.Payload != nil {
				m.Payload, m.PushType = line.Payload, template.PushType
				addType(&m)
			}
			if !yield(&m) {
				return
			}
		}
	}
}

// own returns the payload of a message if its line had one, and nil otherwise.
func own(m *apns.Message, common []byte) []byte {
	if bytes.Equal(m.Payload, common) {
		return nil
	}
	return m.Payload
}
