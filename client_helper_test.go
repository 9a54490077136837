package apns_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// On the binary protocol the identifiers are the Client's own, so a test finds a message in
// the server's records by its token, which has the number of the message.

// messagesFrom returns the messages with the IDs from first to last, whose tokens have
// the same number.
func messagesFrom(first, last uint32) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		for id := first; id <= last; id++ {
			if !yield(numberedMessage(id)) {
				return
			}
		}
	}
}

func numberedMessage(id uint32) *apns.Message {
	return &apns.Message{ID: id, Token: fmt.Sprintf("%064x", id), Payload: payload}
}

func numberOf(m *apns.Message) uint32 {
	n, _ := strconv.ParseUint(m.Token[len(m.Token)-8:], 16, 32)
	return uint32(n)
}

// onNumber answers the message with the number with err, and accepts all others.
func onNumber(number uint32, err error) func(*apns.Message) error {
	return func(m *apns.Message) error {
		if numberOf(m) == number {
			return err
		}
		return nil
	}
}

// newClient returns a Client of the server's binary gateway.
func newClient(t *testing.T, s *apnstest.Server, settings ...func(*apns.Client)) *apns.Client {
	t.Helper()
	c := &apns.Client{Addr: "gateway.push.apple.com:2195", Config: s.Config()}
	for _, set := range settings {
		set(c)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// outcomes are what became of messages, by their IDs.
type outcomes map[uint32]error

// collect takes the results of a PushAll, one for each message.
func collect(t *testing.T, results iter.Seq[apns.Result]) outcomes {
	t.Helper()
	got := make(outcomes)
	for r := range results {
		got.add(t, r)
	}
	return got
}

func (f outcomes) add(t *testing.T, r apns.Result) {
	t.Helper()
	if before, ok := f[r.Message.ID]; ok {
		t.Errorf("message %d: a second result, %v after %v", r.Message.ID, r.Err, before)
	}
	f[r.Message.ID] = r.Err
}

// A balance is how many messages have each outcome.
type balance struct{ Accepted, Rejected, NotSent, InDoubt int }

// check compares the outcomes with the server's records, which know of all messages
// that were sent, and counts them.
func (f outcomes) check(t *testing.T, s *apnstest.Server) (got balance) {
	t.Helper()
	taken, refused := make(map[uint32]int), make(map[uint32]int)
	for _, r := range s.Records() {
		switch r.Outcome {
		case apnstest.Accepted:
			taken[numberOf(r.Message)]++
		case apnstest.Rejected:
			refused[numberOf(r.Message)]++
		}
	}
	wrong := 0
	for id, err := range f {
		said, rejected := errors.AsType[*apns.PushError](err)
		inDoubt, notSent := errors.Is(err, apns.ErrInDoubt), errors.Is(err, apns.ErrNotSent)
		ok := false
		switch {
		case err == nil:
			got.Accepted++
			ok = taken[id] == 1
		case rejected:
			got.Rejected++
			ok = said.ID == id && said.Rejected() && refused[id] > 0 && taken[id] == 0 && !inDoubt && !notSent
		case inDoubt:
			got.InDoubt++
			ok = taken[id] <= 1 && !notSent
		case notSent:
			got.NotSent++
			ok = taken[id] == 0
		}
		if !ok {
			if wrong++; wrong <= 5 {
				t.Errorf("message %d: got %v; the server took it %d times and refused it %d times", id, err, taken[id], refused[id])
			}
		}
	}
	if wrong > 5 {
		t.Errorf("and %d more that are wrong", wrong-5)
	}
	return got
}

// wantOutcome checks, inside a bubble, the outcomes against the server's records, and
// that so many have each.
func wantOutcome(t *testing.T, s *apnstest.Server, f outcomes, want balance) {
	t.Helper()
	synctest.Wait() // for the server to be done
	if got := f.check(t, s); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// wantStats checks that the figures of a Client with nothing in flight are those.
func wantStats(t *testing.T, c *apns.Client, want balance) {
	t.Helper()
	s := c.Stats()
	got := balance{Accepted: int(s.Accepted), NotSent: int(s.NotSent), InDoubt: int(s.InDoubt)}
	for _, n := range s.Rejected {
		got.Rejected += int(n)
	}
	if got != want || s.InFlight != 0 {
		t.Errorf("Stats: got %+v, want %+v and nothing in flight", s, want)
	}
}

// wantIdle checks, inside a bubble, that the package has no goroutine at work.
func wantIdle(t *testing.T) {
	t.Helper()
	time.Sleep(time.Minute) // a gateway that is about to answer has a part of Timeout for that
	for _, stack := range goroutines() {
		if strings.Contains(stack, "\nexample.com/apns.(") {
			t.Errorf("still running:\n%s", stack)
		}
	}
}

// goroutines returns the stacks of the bubble's goroutines in which there is
// something of the package's, or of its HTTP/2 connections.
func goroutines() []string {
	synctest.Wait()
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	all := strings.Split(string(stacks), "\n\n")
	_, bubble, _ := strings.Cut(all[0], "synctest bubble ")
	bubble, _, _ = strings.Cut(bubble, "]")
	var found []string
	for _, stack := range all[1:] {
		header, _, _ := strings.Cut(stack, "\n")
		if strings.Contains(header, "synctest bubble "+bubble+"]") && (strings.Contains(stack, "example.com/apns.") || strings.Contains(stack, "net/http.")) {
			found = append(found, stack)
		}
	}
	return found
}

// wantTook checks that something took at least and at most so long.
func wantTook(t *testing.T, start time.Time, least, most time.Duration) {
	t.Helper()
	if d := time.Since(start); d < least || d > most {
		t.Errorf("took %v, want %v to %v", d, least, most)
	}
}

// http2Client returns a Client that is closed at the end of the test.
func http2Client(t *testing.T, config *apns.Config, settings ...func(*apns.Client)) *apns.Client {
	t.Helper()
	c := &apns.Client{Config: config}
	for _, set := range settings {
		set(c)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func policy(resend bool) apns.InDoubtPolicy {
	if resend {
		return apns.InDoubtResend
	}
	return apns.InDoubtReport
}

// device returns a message whose number is in its ID and in its token, since
// HTTP/2 has no room for an ID.
func device(n int) *apns.Message {
	return &apns.Message{ID: uint32(n), Token: fmt.Sprintf("%08x", n), Payload: payload}
}

func devices(n int) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		for i := range n {
			if !yield(device(i)) {
				return
			}
		}
	}
}

// inTurn returns a handler that gives one answer after the other, and accepts
// everything once they are used up.
func inTurn(answers ...error) func(*apns.Message) error {
	var mu sync.Mutex
	return func(*apns.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			return nil
		}
		answer := answers[0]
		answers = answers[1:]
		return answer
	}
}

// answerAfter accepts a message after a while.
func answerAfter(d time.Duration) apnstest.Fault {
	return apnstest.Fault{Err: apns.StatusNoError, Delay: d}
}

// connCount counts the connections that a Config opens. Each takes a while to open.
type connCount struct {
	pause        time.Duration
	mu           sync.Mutex // protects following
	dialed, open int
	dialing      int
	together     int // the most that were dialed at a time
}

func (w *connCount) count(config *apns.Config) *apns.Config {
	next := config.DialContext
	config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.add(&w.dialed, 1)
		w.add(&w.dialing, 1)
		time.Sleep(w.pause)
		w.add(&w.dialing, -1)
		c, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w.add(&w.open, 1)
		return &countedConn{Conn: c, closed: func() { w.add(&w.open, -1) }}, nil
	}
	return config
}

func (w *connCount) add(n *int, d int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n += d
	w.together = max(w.together, w.dialing)
}

func (w *connCount) want(t *testing.T, dialed, open int) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dialed != dialed || w.open != open {
		t.Errorf("%d connections were dialed, %d are open, want %d and %d", w.dialed, w.open, dialed, open)
	}
}

type countedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *countedConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// allAtOnce pushes messages at the same time, and returns the errors by number.
func allAtOnce(ctx context.Context, c *apns.Client, n int) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = c.Push(ctx, device(i)) })
	}
	wg.Wait()
	return errs
}

func wantAccepted(t *testing.T, errs []error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Errorf("message %d: got %v, want nil", i, err)
		}
	}
}

// wantAnswer checks that err is a *PushError that says exactly that, apart from the
// name that the server gave the message.
func wantAnswer(t *testing.T, err error, want apns.PushError) {
	t.Helper()
	e, ok := err.(*apns.PushError)
	if !ok {
		t.Errorf("got %v, want a *PushError: %v", err, &want)
		return
	}
	if want.APNsID == "" {
		want.APNsID = e.APNsID
	}
	if *e != want || e.APNsID == "" {
		t.Errorf("got  %+v\nwant %+v", *e, want)
	}
}

// wantFigures checks the figures of a Client that has nothing in flight.
func wantFigures(t *testing.T, c *apns.Client, want apns.Stats) {
	t.Helper()
	got := c.Stats()
	if !maps.Equal(got.Rejected, want.Rejected) {
		t.Errorf("Stats().Rejected is %v, want %v", got.Rejected, want.Rejected)
	}
	got.Rejected, want.Rejected = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Stats are\ngot  %+v\nwant %+v", got, want)
	}
}
