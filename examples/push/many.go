package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/bulk"
)

// errNotAll means that not all notifications were accepted. The summary has said so.
var errNotAll = errors.New("not all was accepted")

// runMany pushes the message to all tokens of -tokens.
func runMany(out io.Writer, m *apns.Message) error {
	if *local {
		server := apnstest.NewServer(nil)
		defer server.Close()
		addr, config := localAddr(server)
		return pushMany(out, addr, config, m)
	}
	config, err := load()
	if err != nil {
		return err
	}
	return pushMany(out, *addr, config, m)
}

func pushMany(out io.Writer, addr string, config *apns.Config, m *apns.Message) error {
	list, err := bulk.Open(*tokens)
	if err != nil {
		return err
	}
	retry, err := createRetry(*retryFile, list)
	if err != nil {
		return err
	}
	progress := bulk.NewProgress(os.Stderr, list)
	s := &summary{list: list, retry: retry, progress: progress, explained: make(map[string]bool)}
	list.Invalid = func(err error) { progress.Println(err) }
	if *verbose {
		config.Logger = slog.New(slog.NewTextHandler(progress, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	reading, sending, stop, done := bulk.Interruptible(func() { progress.Println("interrupted") })
	defer done()

	// A Client tries to connect until the Timeout of a message ends. One attempt before
	// that shows at once if there can be no connection.
	if err := reach(reading, addr, config); err != nil {
		s.explain(err)
		stop()
	}
	client := &apns.Client{Addr: addr, Config: config}
	defer client.Close()
	for r := range client.PushAll(sending, messages(reading, list, m)) {
		s.add(r)
		if concernsAll(r.Err) {
			stop() // all messages have the same error
		}
	}
	progress.Stop()

	// The tokens that were not read are to be sent to another time. A terminal has no
	// more of them.
	if retry != nil && !list.Ended() && !list.IsTerminal() {
		fmt.Fprintf(os.Stderr, "the rest of %s goes to %s\n", list.Name, *retryFile)
		s.NotSent += retry.addRest(list)
	}
	return s.print(out)
}

// reach returns an error if it cannot connect.
func reach(ctx context.Context, addr string, config *apns.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	return conn.Close()
}

// messages yields the message for each token. Its ID is the number of the line.
func messages(ctx context.Context, list *bulk.Tokens, template *apns.Message) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		for line, token := range list.All(ctx) {
			m := *template // the payload is shared
			m.ID, m.Token = uint32(line), token
			if !yield(&m) {
				return
			}
		}
	}
}

// concernsAll reports whether an error is about what all messages have in common: a local
// check failed, for something else than the token, which was checked before; or the Expiry
// passed.
func concernsAll(err error) bool {
	_, said := errors.AsType[*apns.PushError](err)
	return err != nil && !said && !errors.Is(err, apns.ErrNotSent) && !errors.Is(err, apns.ErrInDoubt)
}

// mayPass reports whether a later attempt may succeed: the server was at fault, there were
// too many requests, or the credentials were wrong.
func mayPass(e *apns.PushError) bool {
	if e.HTTPStatus == 0 {
		return errors.Is(e, apns.ReasonInternalServerError) // status 1, 255 and unknown ones
	}
	return e.HTTPStatus >= 500 || e.HTTPStatus == http.StatusTooManyRequests || e.HTTPStatus == http.StatusForbidden
}

// A summary counts the outcomes, explains the errors and keeps the tokens to try again.
type summary struct {
	bulk.Tally
	list      *bulk.Tokens
	retry     *retryWriter
	progress  *bulk.Progress
	explained map[string]bool // by error, without its digits
}

func (s *summary) add(r apns.Result) {
	s.progress.Add(r.Err == nil)
	rejection := s.Add(r.Err)
	if r.Err == nil {
		return
	}
	if rejection == nil || mayPass(rejection) {
		s.retry.add(r.Message.Token)
	}
	switch {
	case *verbose:
		text := strings.TrimPrefix(bulk.Plain(r.Err), fmt.Sprintf("message %d ", r.Message.ID))
		s.progress.Println(fmt.Sprintf("%s:%d: %s %s", s.list.Name, r.Message.ID, r.Message.Token, text))
	case rejection == nil:
		s.explain(r.Err)
	}
}

// explain prints an error once: errors that differ only in their numbers count as the same.
// It does not print the error of Ctrl-C.
func (s *summary) explain(err error) {
	kind := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
	if !s.explained[kind] && !errors.Is(err, context.Canceled) {
		s.explained[kind] = true
		s.progress.Println("error:", bulk.Plain(err))
	}
}

// print closes the retry file and prints the summary. It returns errNotAll unless all
// notifications were accepted.
func (s *summary) print(out io.Writer) error {
	whole := true
	for _, err := range []error{s.list.Err(), s.retry.close()} {
		if err != nil {
			whole = false
			fmt.Fprintln(os.Stderr, "error:", err)
		}
	}
	count := func(name string, n int) {
		if n > 0 {
			whole = false
			fmt.Fprintf(out, "%s: %d\n", name, n)
		}
	}
	fmt.Fprintln(out, "accepted:", s.Accepted)
	count("rejected", s.Rejected)
	for reason, n := range s.Reasons() {
		count("  "+reason, n)
	}
	count("in doubt", s.InDoubt)
	count("not sent", s.NotSent)
	count("invalid", s.list.InvalidLines())
	if !s.list.Ended() {
		whole = false
		fmt.Fprintln(out, "not read: the rest of", s.list.Name)
	}
	if s.retry != nil && s.retry.n > 0 {
		fmt.Fprintf(out, "to try again: %d, in %s\n", s.retry.n, *retryFile)
	}
	if !whole {
		return errNotAll
	}
	return nil
}
