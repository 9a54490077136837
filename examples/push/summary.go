package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"example.com/apns"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/explain"
)

// A summary counts the outcomes, explains the errors and keeps the lines to try again.
type summary struct {
	bulk.Tally
	out             *bufio.Writer
	list            *bulk.Tokens
	accepted, retry *lineFile
	progress        *bulk.Progress
	common          []byte          // the payload of lines without one
	explained       map[string]bool // by error, without its digits
}

// add adds a result. It returns true if it makes no sense to go on, because all messages
// have the same error, or because the outcomes cannot be written.
func (s *summary) add(r apns.Result) (stop bool) {
	m, rejection := r.Message, s.Add(r.Err)
	s.progress.Add(r.Err == nil)
	var err error
	switch {
	case r.Err == nil:
		err = s.accepted.add(m.Token, own(m, s.common))
	case mayPass(r.Err):
		err = s.retry.add(m.Token, own(m, s.common))
	}
	if *asJSON {
		report := newReport(m, r.Receipt, r.Err)
		report.Line = m.ID
		s.write(report)
	}
	if r.Err != nil && *verbose {
		s.progress.Println(fmt.Sprintf("%s:%d: %s %s", s.list.Name, m.ID, m.Token, describe(r.Err)))
	}
	switch {
	case rejection != nil:
		s.advise(rejection)
	case r.Err != nil && !*verbose:
		s.explain(r.Err)
	}
	// Without a payload of its own, only the token is different from other messages, and
	// that was checked before.
	outcome := bulk.Outcome(r.Err)
	return err != nil || (outcome == "invalid" || outcome == "expired") && own(m, s.common) == nil
}

// write writes a report. Any goroutine may call it.
func (s *summary) write(r report) {
	s.progress.Aside(func() { writeReport(s.out, r) })
}

// maxInvalid is how many invalid lines are printed without -v.
const maxInvalid = 20

// addInvalid prints a line that cannot be sent. It is called while messages are sent.
func (s *summary) addInvalid(line int, err error) {
	if *asJSON {
		s.write(report{Line: uint32(line), Outcome: "invalid", Error: err.Error()})
		return
	}
	switch n := s.list.InvalidLines(); {
	case *verbose || n <= maxInvalid:
		s.progress.Println(fmt.Sprintf("%s:%d: %v", s.list.Name, line, err))
	case n == maxInvalid+1:
		s.progress.Println("more invalid lines are only counted; -v prints them")
	}
}

// advise prints once for each reason what it means and what to do.
func (s *summary) advise(e *apns.PushError) {
	reason := bulk.Reason(e)
	if text := explain.Error(e); text != "" && !s.explained[reason] {
		s.explained[reason] = true
		s.progress.Println(reason+":", text)
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
	if s.explained[kind] || errors.Is(err, context.Canceled) {
		return
	}
	s.explained[kind] = true
	s.progress.Println("error:", bulk.Plain(err))
	if text := explain.Error(err); text != "" {
		s.progress.Println(text)
	}
}

// print closes the files and prints the summary. It returns errNotAll unless all
// notifications were accepted.
func (s *summary) print() error {
	whole := true
	for _, err := range []error{s.list.Err(), s.accepted.close(), s.retry.close()} {
		if err != nil {
			whole = false
			fmt.Fprintln(os.Stderr, "error:", err)
		}
	}
	var out io.Writer = s.out
	if *asJSON {
		out = os.Stderr
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
	if n := s.list.Skipped(); n > 0 {
		fmt.Fprintf(out, "skipped, the same as a line before: %d\n", n)
	}
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
