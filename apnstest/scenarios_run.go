package apnstest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/apns"
)

// NewServer returns a server for the scenario that is not started. Its HTTP2Addr, InMemory
// and TLS may be set, and no other field. It is for one call of Run.
func (s Scenario) NewServer() *Server {
	var mu sync.Mutex // protects following
	attempts := make(map[int]int)
	total := 0
	server := NewUnstartedServer(func(m *apns.Message) error {
		if s.handle == nil {
			return nil
		}
		number := scenarioNumber(m)
		mu.Lock()
		attempts[number]++
		total++
		a := arrival{number, attempts[number], total}
		mu.Unlock()
		return s.handle(a)
	})
	if s.configure != nil {
		s.configure(server)
	}
	return server
}

// Run pushes the messages of the scenario with the client under test, and compares what it
// reports with what the scenario expects, and with what the server did. The error says what
// is wrong about each message. The server must be started and come from NewServer.
//
// The function push pushes a message and reports its outcome. It is called concurrently.
//
//   - Nil means that the server accepted the message.
//   - An error that matches *apns.PushError means that the server rejected it. It has the
//     Reason, the HTTPStatus and, with status 410, DeadAt. On the binary protocol it has
//     the Status.
//   - An error that matches apns.ErrNotSent means that the server has not processed it.
//   - Any other error means that the client does not know: the message is in doubt.
//
// The methods of apns.Client report outcomes in this way. The messages have tokens, payloads
// and topics that the server accepts, and the push type alert. push is to pass them on as
// they are.
//
// Run returns when all calls of push have returned. Those get ctx, which should have a
// deadline. A scenario takes a client a few seconds at most.
func (s Scenario) Run(ctx context.Context, server *Server, push func(context.Context, *apns.Message) error) error {
	var problems []string
	number := 0
	for _, step := range s.steps {
		reports := make([]error, len(step.messages))
		var pushes sync.WaitGroup
		for i := range step.messages {
			m := scenarioMessage(number + i + 1)
			pushes.Go(func() { reports[i] = push(ctx, m) })
		}
		pushes.Wait()
		if step.after != nil {
			step.after(server)
		}
		records := recordsByNumber(server)
		for i, e := range step.messages {
			number++
			for _, problem := range e.problems(reports[i], records[number]) {
				problems = append(problems, fmt.Sprintf("message %d: %s", number, problem))
			}
		}
	}
	return s.verdict(append(problems, s.problems(server)...))
}

// verdict returns an error with the problems, or nil if there are none.
func (s Scenario) verdict(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	const most = 10
	if more := len(problems) - most; more > 0 {
		problems = append(problems[:most], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("apnstest: scenario %s: the server %s. A correct client %s (%s). This one:\n\t%s",
		s.Name, s.Server, s.Client, s.Source, strings.Join(problems, "\n\t"))
}

// scenarioMessage returns the message with a number.
func scenarioMessage(number int) *apns.Message {
	return &apns.Message{
		ID:       uint32(number),
		Token:    fmt.Sprintf("%08x", number) + strings.Repeat("0c0ffee0", 7),
		Topic:    BundleID,
		PushType: apns.PushTypeAlert,
		Payload:  apns.AlertPayload("message " + strconv.Itoa(number)),
	}
}

// scenarioNumber returns the number of a message, or 0 if it is of no scenario.
func scenarioNumber(m *apns.Message) int {
	n, _ := strconv.ParseUint(m.Token[:min(len(m.Token), 8)], 16, 31)
	return int(n)
}

func recordsByNumber(s *Server) map[int][]Record {
	records := make(map[int][]Record)
	for _, r := range s.Records() {
		n := scenarioNumber(r.Message)
		records[n] = append(records[n], r)
	}
	return records
}

// problems returns what is wrong about a client as a whole.
func (s Scenario) problems(server *Server) []string {
	var problems []string
	for number, records := range recordsByNumber(server) {
		for i, r := range records[1:] {
			if wait := r.Time.Sub(records[i].Time); wait < s.minRetry {
				problems = append(problems, fmt.Sprintf("message %d: resent after %v, expected %v or more", number, wait.Round(time.Millisecond), s.minRetry))
			}
		}
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if s.maxConns > 0 && server.accepted > s.maxConns {
		problems = append(problems, fmt.Sprintf("it opened %d connections, expected at most %d", server.accepted, s.maxConns))
	}
	return problems
}

// problems returns what is wrong about the report of a message that has the records.
func (e expectation) problems(report error, records []Record) []string {
	var problems []string
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	accepted, rejected := 0, 0
	for _, r := range records {
		switch r.Outcome {
		case Accepted:
			accepted++
		case Rejected:
			rejected++
		}
	}
	if accepted > 1 {
		say("the server accepted it %d times, expected once", accepted)
	}
	outcome, rejection := classify(report)
	switch {
	case outcome&e.outcomes == 0:
		say("reported as %v (%v), expected %v", outcome, report, e.outcomes)
	case outcome == reportedAccepted && accepted == 0:
		say("reported as accepted, and the server did not accept it")
	case outcome == reportedNotSent && accepted > 0:
		say("reported as not sent (%v), and the server accepted it", report)
	case outcome == reportedRejected && (accepted > 0 || rejected == 0):
		say("reported as rejected (%v), and the server accepted it or never rejected it", report)
	}
	if outcome != reportedRejected || e.reason == "" {
		return problems
	}
	if !errors.Is(rejection, e.reason) {
		say("reported with the reason %v, expected %s", rejection, e.reason)
	}
	if want := httpStatus(e.reason); rejection.HTTPStatus != want && rejection.HTTPStatus != 0 {
		say("reported with the HTTP status %d, expected %d", rejection.HTTPStatus, want)
	}
	if got := rejection.DeadAt.Truncate(time.Second); !e.deadAt.IsZero() && !got.Equal(e.deadAt.Truncate(time.Second)) {
		say("reported as dead since %v, expected %v", rejection.DeadAt, e.deadAt)
	}
	return problems
}

// classify returns the outcome that a client reports.
func classify(report error) (reported, *apns.PushError) {
	rejection, ok := errors.AsType[*apns.PushError](report)
	switch {
	case report == nil || ok && !rejection.Rejected(): // StatusShutdown
		return reportedAccepted, nil
	case ok:
		return reportedRejected, rejection
	case errors.Is(report, apns.ErrNotSent):
		return reportedNotSent, nil
	}
	return reportedInDoubt, nil
}

// String returns, for example, "accepted or not sent".
func (r reported) String() string {
	var names []string
	for i, name := range [...]string{"accepted", "rejected", "not sent", "in doubt"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}
