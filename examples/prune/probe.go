package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/bulk"
)

// probe probes the tokens of -tokens. With -local and without -tokens it probes a few tokens,
// some of which are dead.
func probe(count io.Writer) error {
	if server.Local {
		test := apnstest.NewServer(nil)
		defer test.Close()
		for _, token := range localDead {
			test.Unregister(token, time.Now().Add(-time.Hour))
		}
		if *tokens == "" {
			all := slices.Concat(localDead, []string{"c0ffee00" + localRest, "feedc0de" + localRest})
			return probeList(test.HTTP2Addr, test.TokenConfig(), bulk.NewTokens("the list", strings.NewReader(strings.Join(all, "\n"))), count)
		}
		return probeFile(test.HTTP2Addr, test.TokenConfig(), count)
	}
	config, err := server.Config()
	if err != nil {
		return err
	}
	return probeFile(server.Address(), config, count)
}

func probeFile(addr string, config *apns.Config, count io.Writer) error {
	list, err := bulk.Open(*tokens)
	if err != nil {
		return err
	}
	return probeList(addr, config, list, count)
}

// probeList sends a background push to each token of the list. It prints the dead ones, and
// their number to count.
func probeList(addr string, config *apns.Config, list *bulk.Tokens, count io.Writer) error {
	progress := bulk.NewProgress(os.Stderr, list)
	defer progress.Stop()
	list.Invalid = func(line int, err error) { progress.Println(fmt.Sprintf("%s:%d: %v", list.Name, line, err)) }
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
		if advice := apns.Advise(r.Err); advice.Action == apns.ActionForget {
			deadAt := advice.DeadAt
			if deadAt.IsZero() {
				deadAt = time.Now()
			}
			dead++
			progress.Add(true)
			progress.Aside(func() {
				if _, err := fmt.Printf("%s dead_at: %d\n", r.Message.Token, deadAt.Unix()); err != nil {
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
	if _, err := fmt.Fprintf(count, "%d dead devices.\n", dead); err != nil {
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
		for line := range list.All(ctx) {
			m := &apns.Message{
				ID:       uint32(line.Number),
				Token:    line.Token,
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
