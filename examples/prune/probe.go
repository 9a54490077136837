package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/bulk"
)

// probeLocal probes the built-in test server with the tokens of the file. If its name is
// empty, it probes with a few tokens, some of which are dead.
func probeLocal(file string) error {
	server := apnstest.NewServer(nil)
	defer server.Close()
	for _, token := range localDead {
		server.Unregister(token, time.Now().Add(-time.Hour))
	}
	all := slices.Concat(localDead, []string{"c0ffee00" + localRest, "feedc0de" + localRest})
	list := bulk.NewTokens("the list", strings.NewReader(strings.Join(all, "\n")))
	if file != "" {
		var err error
		if list, err = bulk.Open(file); err != nil {
			return err
		}
	}
	return probe(server.HTTP2Addr, server.TokenConfig(), list)
}

// probeFile probes the tokens of a file.
func probeFile(file string) error {
	config, err := load()
	if err != nil {
		return err
	}
	list, err := bulk.Open(file)
	if err != nil {
		return err
	}
	return probe(*addr, config, list)
}

// probe sends a background push to each token of the list, and prints the dead ones.
func probe(addr string, config *apns.Config, list *bulk.Tokens) error {
	progress := bulk.NewProgress(os.Stderr, list)
	defer progress.Stop()
	list.Invalid = func(err error) { progress.Println(err) }
	reading, sending, _, done := bulk.Interruptible(func() { progress.Println("interrupted") })
	defer done()
	if err := speaksHTTP2(reading, addr, config); err != nil {
		return err
	}

	client := &apns.Client{Addr: addr, Config: config}
	defer client.Close()
	var tally bulk.Tally // without the dead devices
	var first, printErr error
	dead := 0
	for r := range client.PushAll(sending, probes(reading, list)) {
		pushErr, said := errors.AsType[*apns.PushError](r.Err)
		if said && isDead(pushErr) {
			dead++
			progress.Add(true)
			progress.Aside(func() {
				if _, err := fmt.Printf("%s dead_at: %d\n", r.Message.Token, pushErr.DeadAt.Unix()); err != nil {
					printErr = err
				}
			})
			if printErr != nil {
				break
			}
			continue
		}
		progress.Add(r.Err == nil)
		if rejection := tally.Add(r.Err); r.Err != nil && rejection == nil && first == nil {
			first = r.Err
		}
	}
	progress.Stop()
	if printErr != nil {
		return printErr
	}
	if _, err := fmt.Printf("%d dead devices.\n", dead); err != nil {
		return err
	}
	return partial(list, &tally, first)
}

// speaksHTTP2 returns an error unless the server speaks HTTP/2. That a binary gateway accepts
// a message says nothing about the device.
func speaksHTTP2(ctx context.Context, addr string, config *apns.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		return fmt.Errorf("%s speaks the binary protocol, where the answer to a push does not say whether its device is dead; expected HTTP/2. The dead are on the list of its feedback service: see prune -h", addr)
	}
	return nil
}

// probes yields a push for each token: the one that costs a device least.
func probes(ctx context.Context, list *bulk.Tokens) iter.Seq[*apns.Message] {
	payload := []byte(`{"aps":{"content-available":1}}`)
	return func(yield func(*apns.Message) bool) {
		for line, token := range list.All(ctx) {
			m := &apns.Message{
				ID:       uint32(line),
				Token:    token,
				Payload:  payload,
				PushType: apns.PushTypeBackground,
				Expiry:   time.Unix(0, 0), // a device that is off need not get it later
			}
			if !yield(m) {
				return
			}
		}
	}
}

// isDead reports whether the server says that the device is dead, and since when.
func isDead(e *apns.PushError) bool {
	return (e.Reason == apns.ReasonUnregistered || e.Reason == apns.ReasonExpiredToken) && !e.DeadAt.IsZero()
}

// partial returns an error that says for how many tokens it is not known whether they are
// dead, and why. It returns nil if there are none. The argument first is the first error that
// was not a rejection, if any.
func partial(list *bulk.Tokens, t *bulk.Tally, first error) error {
	var why []string
	count := func(name string, n int) {
		if n > 0 {
			why = append(why, fmt.Sprintf("%s: %d", name, n))
		}
	}
	for reason, n := range t.Reasons() {
		count(reason, n)
	}
	count("in doubt", t.InDoubt)
	count("not sent", t.NotSent)
	count("invalid", list.InvalidLines())
	var errs []error
	if n := t.Rejected + t.InDoubt + t.NotSent + list.InvalidLines(); n > 0 {
		errs = append(errs, fmt.Errorf("of %d tokens it is not known whether they are dead: %s", n, strings.Join(why, ", ")))
	}
	if first != nil {
		errs = append(errs, fmt.Errorf("the first of those errors: %w", first))
	}
	if list.Err() != nil {
		errs = append(errs, list.Err())
	}
	if !list.Ended() {
		errs = append(errs, fmt.Errorf("the rest of %s was not asked about", list.Name))
	}
	return errors.Join(errs...)
}
