package apns_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// poolClient returns a Client that is closed at the end of the test.
func poolClient(t *testing.T, config *apns.Config, settings ...func(*apns.Client)) *apns.Client {
	t.Helper()
	c := &apns.Client{Config: config}
	for _, set := range settings {
		set(c)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func policy(atLeastOnce bool) apns.InDoubtPolicy {
	if atLeastOnce {
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

// wires counts the connections that a Config opens. Each takes a while to open.
type wires struct {
	pause        time.Duration
	mu           sync.Mutex // protects following
	dialed, open int
	dialing      int
	together     int // the most that were dialed at a time
}

func (w *wires) count(config *apns.Config) *apns.Config {
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

func (w *wires) add(n *int, d int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n += d
	w.together = max(w.together, w.dialing)
}

func (w *wires) want(t *testing.T, dialed, open int) {
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

// wantFigures checks the figures of a Client that has nothing outstanding.
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

// What "Handling notification responses from APNs" says may be tried again later
// is: after the server's Retry-After or after one second, two, four and so on,
// less up to half; as often as Attempts says; and not if there would be no time
// left, when the rejection is known at once.
func TestPoolTriesAgain(t *testing.T) {
	tooMany := &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests}
	internal := &apns.PushError{HTTPStatus: 500, Reason: apns.ReasonInternalServerError}
	unavailable := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable}
	wait7 := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: 7 * time.Second}
	wait60 := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Minute}
	wait7too := &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 7 * time.Second}
	always := func(err error) []error { return slices.Repeat([]error{err}, 100) }
	const s = time.Second
	for name, test := range map[string]struct {
		answers     []error
		attempts    int
		timeout     time.Duration
		want        error // the *PushError, or nil
		tries       int
		least, most time.Duration
	}{
		"429":                  {[]error{tooMany}, 0, 0, nil, 2, s / 2, s},
		"500":                  {[]error{internal}, 0, 0, nil, 2, s / 2, s},
		"503":                  {[]error{unavailable}, 0, 0, nil, 2, s / 2, s},
		"503, other spelling":  {[]error{&apns.PushError{HTTPStatus: 503, Reason: "Service Unavailable"}}, 0, 0, nil, 2, s / 2, s},
		"500 and 503, twice":   {[]error{tooMany, internal, unavailable}, 0, 0, nil, 4, 7 * s / 2, 7 * s},
		"Retry-After":          {[]error{wait7}, 0, 0, nil, 2, 7 * s, 7 * s},
		"Retry-After of a 429": {[]error{wait7too}, 0, 0, nil, 2, 7 * s, 7 * s},
		"not at once, twice":   {[]error{wait7, internal}, 0, 0, nil, 3, 8 * s, 9 * s},
		"ten times":            {always(internal), 0, time.Hour, internal, 10, 243 * s / 2, 243 * s}, // 1+2+4+8+16+32+60+60+60
		"three times":          {always(tooMany), 3, 0, tooMany, 3, 3 * s / 2, 3 * s},
		"the third is good":    {[]error{tooMany, tooMany}, 3, 0, nil, 3, 3 * s / 2, 3 * s},
		"once":                 {always(unavailable), 1, 0, unavailable, 1, 0, 0},
		"no time":              {always(wait7), 0, 5 * s, wait7, 1, 0, 0},
		"no time for a third":  {always(wait7), 0, 10 * s, wait7, 2, 7 * s, 7 * s},
		"a minute by default":  {always(wait60), 0, 0, wait60, 1, 0, 0},
	} {
		for _, byContext := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, context %v", name, byContext), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(test.answers...))
					c := poolClient(t, server.Config(), func(c *apns.Client) { c.Attempts = test.attempts })
					ctx := t.Context()
					switch {
					case byContext && test.timeout > 0:
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, test.timeout)
						defer cancel()
					default:
						c.Timeout = test.timeout
					}
					start := time.Now()
					_, err := c.Push(ctx, message(7))
					wantTook(t, start, test.least, test.most)
					stats := apns.Stats{Accepted: 1, Resent: uint64(test.tries - 1), Connected: 1}
					if strings.Contains(name, "twice") || strings.Contains(name, "ten times") {
						stats.Connected = 2 // it may be the connection: another is tried, once
					}
					if test.want == nil && err != nil {
						t.Errorf("got %v, want nil", err)
					} else if test.want != nil {
						want := *test.want.(*apns.PushError)
						want.ID = 7
						wantAnswer(t, err, want)
						stats.Accepted = 0
						stats.Rejected = map[string]uint64{string(want.Reason): 1}
					}
					if n := len(server.Records()); n != test.tries {
						t.Errorf("the server saw the message %d times, want %d", n, test.tries)
					}
					wantFigures(t, c, stats)
				})
			})
		}
	}
}

// "503 Shutdown: The APNs server is shutting down", "400 IdleTimeout: The idle
// timeout expired" and "403 UnrelatedKeyIdInToken" ("Handling notification responses
// from APNs") are about the connection: the message goes over another one, and so do
// all that come after it.
func TestPoolAnswerMeansAnotherConnection(t *testing.T) {
	for _, reason := range []apns.Reason{apns.ReasonShutdown, apns.ReasonIdleTimeout, apns.ReasonUnrelatedKeyIDInToken} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(nil, reason))
			var wires wires
			c := poolClient(t, wires.count(server.Config()))
			for i := range 3 {
				if _, err := c.Push(t.Context(), device(i)); err != nil {
					t.Errorf("%s: message %d: got %v, want nil", reason, i, err)
				}
			}
			var conns []int
			for _, r := range server.Records() {
				conns = append(conns, r.Conn)
			}
			if want := []int{1, 1, 2, 2}; !slices.Equal(conns, want) {
				t.Errorf("%s: the messages came on the connections %v, want %v", reason, conns, want)
			}
			wires.want(t, 2, 1)
			wantFigures(t, c, apns.Stats{Accepted: 3, Resent: 1, Connected: 2})
		})
	}
}

// A connection that was cut off while idle costs no message: the next one goes over
// another.
func TestPoolCutOffWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.Config()
		next := config.DialContext
		var holes []*blackHole
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			holes = append(holes, new(blackHole))
			return holes[len(holes)-1].dialer(next)(ctx, network, addr)
		}
		c := poolClient(t, config)
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		holes[0].open.Store(true)
		time.Sleep(5 * time.Minute)
		if _, err := c.Push(t.Context(), message(2)); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if s := c.Stats(); s.Accepted != 2 || s.Connected != 2 || len(server.Records()) != 2 {
			t.Errorf("Stats are %+v, and the server has %d messages; want 2 accepted on 2 connections", s, len(server.Records()))
		}
	})
}

// "429 TooManyProviderTokenUpdates" ("Handling notification responses from APNs") is
// about the sender, who keeps its token and tries later. Out of attempts, the message
// was not sent.
func TestPoolTooManyTokenUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(slices.Repeat([]error{apns.ReasonTooManyProviderTokenUpdates}, 5)...))
		c := poolClient(t, server.TokenConfig(), func(c *apns.Client) { c.Attempts = 3 })
		start := time.Now()
		_, err := c.Push(t.Context(), message(7))
		wantErr(t, err, apns.ErrNotSent, apns.ReasonTooManyProviderTokenUpdates)
		wantTook(t, start, 3*time.Second/2, 3*time.Second)
		if _, err := c.Push(t.Context(), message(8)); err != nil {
			t.Errorf("later: got %v, want nil", err)
		}
		wantFigures(t, c, apns.Stats{Accepted: 1, NotSent: 1, Resent: 4, Connected: 1})
	})
}

// What else a server says of a message is the caller's, at once and after one
// attempt: the reasons of "Handling notification responses from APNs", and any
// other.
func TestPoolRejections(t *testing.T) {
	deadAt := time.UnixMilli(1700000000123).UTC()
	for counted, want := range map[string]apns.PushError{
		"BadDeviceToken":         {HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken},
		"DeviceTokenNotForTopic": {HTTPStatus: 400, Reason: apns.ReasonDeviceTokenNotForTopic},
		"TopicDisallowed":        {HTTPStatus: 400, Reason: apns.ReasonTopicDisallowed},
		"Forbidden":              {HTTPStatus: 403, Reason: apns.ReasonForbidden},
		"BadPath":                {HTTPStatus: 404, Reason: apns.ReasonBadPath},
		"MethodNotAllowed":       {HTTPStatus: 405, Reason: apns.ReasonMethodNotAllowed},
		"Unregistered":           {HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt},
		"ExpiredToken":           {HTTPStatus: 410, Reason: apns.ReasonExpiredToken, DeadAt: deadAt},
		"PayloadTooLarge":        {HTTPStatus: 413, Reason: apns.ReasonPayloadTooLarge},
		"HTTP status 400":        {HTTPStatus: 400},
		"HTTP status 429":        {HTTPStatus: 429},
		"other":                  {HTTPStatus: 418, Reason: "NeverHeardOf"},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(&want))
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt = apns.InDoubtResend })
			want.ID, want.APNsID = 7, "123e4567-e89b-12d3-a456-4266554400a0"
			m := message(7)
			m.APNsID = want.APNsID
			start := time.Now()
			r, err := c.Push(t.Context(), m)
			wantTook(t, start, 0, 0)
			wantAnswer(t, err, want)
			if r != (apns.Receipt{}) {
				t.Errorf("%s: got the receipt %v of a message that was rejected", counted, r)
			}
			if n := len(server.Records()); n != 1 {
				t.Errorf("%s: the server saw the message %d times, want 1", counted, n)
			}
			if _, err := c.Push(t.Context(), message(8)); err != nil {
				t.Errorf("%s: the next message: got %v, want nil", counted, err)
			}
			wantFigures(t, c, apns.Stats{Accepted: 1, Rejected: map[string]uint64{counted: 1}, Connected: 1})
		})
	}
}

// A message that breaks a rule is not sent, and matches what the server would have said.
func TestPoolLocalChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := poolClient(t, server.Config())
		for _, test := range []struct {
			m    *apns.Message
			want apns.Reason
		}{
			{nil, apns.ReasonMissingDeviceToken},
			{&apns.Message{Payload: payload}, apns.ReasonMissingDeviceToken},
			{&apns.Message{Token: "xyz", Payload: payload}, apns.ReasonBadDeviceToken},
			{&apns.Message{Token: token, Payload: make([]byte, 5000)}, apns.ReasonPayloadTooLarge},
		} {
			_, err := c.Push(t.Context(), test.m)
			wantErr(t, err, test.want)
			for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{test.m})) {
				if wantErr(t, r.Err, test.want); r.Message != test.m {
					t.Errorf("got back %p, want %p", r.Message, test.m)
				}
			}
		}
		if n := len(server.Records()); n != 0 {
			t.Errorf("the server saw %d messages, want 0", n)
		}
		s := c.Stats()
		if s.Invalid != 8 || len(s.Rejected) != 0 || s.Accepted+s.NotSent+s.InDoubt+s.InFlight+s.Waiting+s.Resent != 0 {
			t.Errorf("Stats are %+v, want 8 invalid and nothing else", s)
		}
	})
}

// What the server says it has not processed is sent again by itself, and is
// accepted once. A connection that was of use before is replaced at once.
func TestPoolNotProcessed(t *testing.T) {
	refuse := apnstest.Fault{End: apnstest.EndRefusedStream}
	for name, test := range map[string]struct {
		faults []error
		resent uint64
		conns  []int // that the message came on
		most   time.Duration
	}{
		"REFUSED_STREAM":        {[]error{refuse}, 1, []int{1, 1}, 0},
		"REFUSED_STREAM, often": {[]error{refuse, refuse, refuse, refuse}, 4, []int{1, 1, 1, 1, 1}, 2 * time.Second},
		"GOAWAY":                {[]error{apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}}, 0, []int{1}, 0},
		"GOAWAY, not looked at": {[]error{apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}}, 1, []int{1, 2}, 0},
		"GOAWAY of no reason":   {[]error{apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}}, 1, []int{1, 2}, 0},
		"both":                  {[]error{refuse, apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}}, 2, []int{1, 1, 2}, time.Second},
	} {
		for _, atLeastOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at least once %v", name, atLeastOnce), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(append([]error{nil}, test.faults...)...))
					c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt = policy(atLeastOnce) })
					start := time.Now()
					for i := range 3 {
						if _, err := c.Push(t.Context(), device(i)); err != nil {
							t.Errorf("message %d: got %v, want nil", i, err)
						}
					}
					wantTook(t, start, 0, test.most)
					var conns []int
					accepted := 0
					for _, r := range server.Records() {
						if r.Message.Token == device(1).Token {
							conns = append(conns, r.Conn)
							if r.Outcome == apnstest.Accepted {
								accepted++
							}
						}
					}
					if !slices.Equal(conns, test.conns) || accepted != 1 {
						t.Errorf("the message came on the connections %v, and was accepted %d times, want %v and 1", conns, accepted, test.conns)
					}
					if s := c.Stats(); s.Resent != test.resent || s.Accepted != 3 {
						t.Errorf("Stats are %+v, want 3 accepted and %d sent again", s, test.resent)
					}
				})
			})
		}
	}
	// Attempts has an end.
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return refuse })
		c := poolClient(t, server.Config(), func(c *apns.Client) { c.Attempts = 4 })
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent)
		if n := len(server.Records()); n != 4 {
			t.Errorf("the server saw the message %d times, want 4", n)
		}
		wantFigures(t, c, apns.Stats{NotSent: 1, Resent: 3, Connected: 1})
	})
}

// A message that was written, and of which nothing is known, is in doubt, unless
// AtLeastOnce says that it may arrive twice.
func TestPoolInDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		fault       apnstest.Fault
		matches     error // beside ErrInDoubt
		atLeastOnce bool
		accepted    int // times that the server took it
		took        time.Duration
	}{
		"reset":                        {apnstest.Fault{End: apnstest.EndRST}, nil, false, 0, 0},
		"reset, but taken":             {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, nil, false, 1, 0},
		"closed":                       {apnstest.Fault{End: apnstest.EndFINThenRST}, nil, false, 0, 0},
		"closed, but taken":            {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFIN}, nil, false, 1, 0},
		"GOAWAY, and no answer":        {apnstest.Fault{End: apnstest.EndGoAway}, context.DeadlineExceeded, false, 0, time.Minute},
		"no answer":                    {apnstest.Fault{End: apnstest.EndSilence}, context.DeadlineExceeded, false, 0, time.Minute},
		"no answer in time":            {answerAfter(2 * time.Minute), context.DeadlineExceeded, false, 1, time.Minute},
		"at least once: reset":         {apnstest.Fault{End: apnstest.EndRST}, nil, true, 1, 0},
		"at least once: twice":         {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, nil, true, 2, 0},
		"at least once: closed":        {apnstest.Fault{End: apnstest.EndFINThenRST}, nil, true, 1, 0},
		"at least once: closed, taken": {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFINThenRST}, nil, true, 2, 0},
		"at least once: no time":       {apnstest.Fault{End: apnstest.EndSilence}, context.DeadlineExceeded, true, 0, time.Minute},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, PushAll %v", name, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, inTurn(nil, test.fault))
					c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt = policy(test.atLeastOnce) })
					push := func(n int) (err error) {
						if !all {
							_, err = c.Push(t.Context(), device(n))
							return err
						}
						for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{device(n)})) {
							err = r.Err
						}
						return err
					}
					if err := push(0); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					err := push(1)
					wantTook(t, start, test.took, test.took*5/4+time.Millisecond)
					resent := test.atLeastOnce && test.took == 0
					switch {
					case resent:
						if err != nil {
							t.Errorf("got %v, want nil", err)
						}
					case test.matches != nil:
						wantErr(t, err, apns.ErrInDoubt, test.matches)
					default:
						wantErr(t, err, apns.ErrInDoubt)
					}
					if err := push(2); err != nil {
						t.Errorf("the next message: got %v, want nil", err)
					}
					n := 0
					for _, m := range server.Messages(apnstest.Accepted) {
						if m.Token == device(1).Token {
							n++
						}
					}
					if n != test.accepted {
						t.Errorf("the server accepted the message %d times, want %d", n, test.accepted)
					}
					want := apns.Stats{Accepted: 2, InDoubt: 1, Connected: c.Stats().Connected}
					if resent {
						want.Accepted, want.InDoubt, want.Resent = 3, 0, 1
					}
					wantFigures(t, c, want)
				})
			})
		}
	}
}

// A message that was in doubt stays so if it then cannot be sent again, whatever
// the reason.
func TestPoolInDoubtAndThenNotSent(t *testing.T) {
	t.Run("out of time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var server *apnstest.Server
			server = inMemory(t, func(*apns.Message) error {
				server.RefuseConnections(true)
				return apnstest.Fault{End: apnstest.EndFINThenRST}
			})
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt = apns.InDoubtResend })
			start := time.Now()
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, start, 50*time.Second, 75*time.Second) // less the last back-off
			wantFigures(t, c, apns.Stats{InDoubt: 1, Connected: 1})
		})
	})
	t.Run("refused after that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(apnstest.Fault{End: apnstest.EndRST}, apnstest.Fault{End: apnstest.EndRefusedStream}))
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 2 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			wantFigures(t, c, apns.Stats{InDoubt: 1, Resent: 1, Connected: 1})
		})
	})
	t.Run("throttled after that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			throttled := apns.ReasonTooManyRequests
			server := inMemory(t, inTurn(apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, throttled, throttled))
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			if n := len(server.Messages(apnstest.Accepted)); n != 1 {
				t.Errorf("the server took %d messages, want the 1 that it was silent about", n)
			}
		})
	})
	t.Run("out of attempts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndRST} })
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 })
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			if n := len(server.Records()); n != 3 {
				t.Errorf("the server saw the message %d times, want 3", n)
			}
		})
	})
}

// "403 ExpiredProviderToken: The provider token is stale and a new token should be
// generated." ("Handling notification responses from APNs") The message is tried
// once more, with a new token; if that has expired as well, the clock is wrong,
// and the server refuses the sender.
func TestPoolExpiredProviderToken(t *testing.T) {
	for _, times := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			expired := 0
			server := inMemory(t, func(*apns.Message) error {
				if expired > 0 {
					expired--
					return apns.ReasonExpiredProviderToken
				}
				return nil
			})
			c := poolClient(t, server.TokenConfig())
			for range 5 { // a connection may change its token after 20 minutes
				if _, err := c.Push(t.Context(), message(1)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
			}
			expired = times
			start := time.Now()
			_, err := c.Push(t.Context(), message(7))
			wantTook(t, start, 0, 0)
			if n := len(server.Records()); n != 7 {
				t.Errorf("the server saw %d messages, want 7, the last one of which twice", n)
			}
			if times == 1 {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				wantFigures(t, c, apns.Stats{Accepted: 6, Resent: 1, Connected: 1})
				return
			}
			wantErr(t, err, apns.ErrNotSent, apns.ErrRefused, apns.ReasonExpiredProviderToken)
			wantFigures(t, c, apns.Stats{Accepted: 5, Resent: 1, NotSent: 1, Connected: 1})
			time.Sleep(time.Second)
			if _, err := c.Push(t.Context(), message(8)); err != nil {
				t.Errorf("after the clock was set: got %v, want nil", err)
			}
		})
	}
}

// There is one connection while its streams suffice, and another only while all
// are taken, up to MaxConns. They are dialed one after the other, each when the one
// before has accepted a message.
func TestPoolGrows(t *testing.T) {
	for _, test := range []struct{ pushers, streams, maxConns, conns int }{
		{1, 10, 0, 1},
		{10, 10, 0, 1},
		{11, 10, 0, 2},
		{20, 10, 0, 2},
		{21, 10, 0, 3},
		{40, 10, 0, 4},
		{41, 10, 0, 4},
		{100, 10, 0, 4},
		{100, 10, 1, 1},
		{100, 10, 2, 2},
		{100, 10, 100, 10},
		{3, 1, 0, 3}, // a server that never allowed more
	} {
		for _, key := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v, key %v", test, key), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) },
						func(s *apnstest.Server) { s.StreamLimit = test.streams })
					config := server.Config()
					if key {
						config = server.TokenConfig()
					}
					wires := wires{pause: time.Millisecond}
					c := poolClient(t, wires.count(config), func(c *apns.Client) { c.MaxConns = test.maxConns })
					const each = 20
					start := time.Now()
					var wg sync.WaitGroup
					for i := range test.pushers {
						wg.Go(func() {
							for range each {
								if _, err := c.Push(t.Context(), device(i)); err != nil {
									t.Errorf("message %d: got %v, want nil", i, err)
								}
							}
						})
					}
					wg.Wait()
					wires.want(t, test.conns, test.conns)
					if wires.together != 1 {
						t.Errorf("%d connections were dialed at the same time, want 1", wires.together)
					}
					wantFigures(t, c, apns.Stats{Accepted: uint64(each * test.pushers), Connected: uint64(test.conns)})
					// A second for each message, and a few for each new connection.
					full := time.Duration(each*test.pushers) * time.Second / time.Duration(min(test.pushers, test.conns*test.streams))
					wantTook(t, start, full, full+time.Duration(3*test.conns)*time.Second)
				})
			})
		}
	}
}

// PushAll makes use of all streams of all connections, be it for many messages or a
// few: also of those that it gets when all messages were handed over.
func TestPoolPushAllUsesAllStreams(t *testing.T) {
	for _, test := range []struct {
		messages, streams, maxConns int
		key                         bool
		conns                       int
		most                        time.Duration // with one second for each message
	}{
		{5000, 10, 0, false, 4, 140 * time.Second}, // 125 in steady state
		{5000, 10, 0, true, 4, 140 * time.Second},
		{5000, 100, 1, false, 1, 52 * time.Second},
		{5000, 100, 1, true, 1, 52 * time.Second},
		{200, 10, 0, false, 4, 10 * time.Second},
		{200, 10, 2, false, 2, 13 * time.Second},
		{100, 1000, 0, true, 1, 2*time.Second + 1 /*ns*/},
		{100, 1000, 0, false, 1, time.Second + 1 /*ns*/},
		{20000, 1000, 1, false, 1, 26 * time.Second}, // 20 in steady state
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) },
					func(s *apnstest.Server) { s.StreamLimit = test.streams })
				config := server.Config()
				if test.key {
					config = server.TokenConfig()
				}
				var wires wires
				c := poolClient(t, wires.count(config), func(c *apns.Client) { c.MaxConns, c.Timeout = test.maxConns, time.Hour })
				start := time.Now()
				n := 0
				for r := range c.PushAll(t.Context(), devices(test.messages)) {
					if n++; r.Err != nil {
						t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
					}
				}
				wantTook(t, start, 0, test.most)
				if n != test.messages {
					t.Errorf("got %d results, want %d", n, test.messages)
				}
				wires.want(t, test.conns, test.conns)
			})
		})
	}
}

// With provider tokens there is one stream until a message was accepted
// ("Establishing a connection to Apple Push Notification service (APNs)"). That is
// no reason to open more connections: a thousand messages at the start dial once.
func TestPoolStartsWithOneConnection(t *testing.T) {
	for _, key := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, inTurn(answerAfter(10*time.Second)))
			config := server.Config()
			if key {
				config = server.TokenConfig()
			}
			var wires wires
			c := poolClient(t, wires.count(config))
			var wg sync.WaitGroup
			wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 1000)) })
			time.Sleep(9 * time.Second)
			wires.want(t, 1, 1)
			if n := len(server.Records()); key && n != 1 {
				t.Errorf("the server has %d messages while the first has no answer, want 1", n)
			}
			wg.Wait()
			wires.want(t, 1, 1)
			wantFigures(t, c, apns.Stats{Accepted: 1000, Connected: 1})
		})
	}
}

// A connection that was not used for an hour is closed, and then nothing is left
// running. One that is used every 50 minutes is kept.
func TestPoolIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(nil, answerAfter(time.Second), answerAfter(time.Second), answerAfter(time.Second)), func(s *apnstest.Server) { s.StreamLimit = 1 })
		var wires wires
		c := poolClient(t, wires.count(server.Config()))
		for range 2 { // the second time after nothing was left
			if _, err := c.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Minute)
		}
		wires.want(t, 1, 1)
		wantAccepted(t, allAtOnce(t.Context(), c, 5)) // of which some need another connection
		wires.want(t, 2, 2)
		for range 3 { // the other is not needed
			time.Sleep(50 * time.Minute)
			if _, err := c.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
		}
		wires.want(t, 2, 1)
		time.Sleep(70 * time.Minute)
		wires.want(t, 2, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Errorf("after that: got %v, want nil", err)
		}
		wires.want(t, 3, 1)
	})
}

// A server that takes the stream limit back to one, as Apple's does after a bad
// provider token, does not get more connections instead.
func TestPoolThrottled(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full before %v", full), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
				var wires wires
				c := poolClient(t, wires.count(server.Config()))
				n := 1
				if full {
					n = 20 // at the start these are ten and ten, since the first are not accepted yet
				}
				wantAccepted(t, allAtOnce(t.Context(), c, n))
				synctest.Wait()
				before := int(c.Stats().Connected)
				server.SetStreamLimit(1)
				synctest.Wait()
				start := time.Now()
				wantAccepted(t, allAtOnce(t.Context(), c, 5))
				if d := time.Since(start); before == 1 && d < 5*time.Second {
					t.Errorf("5 messages took %v, want 5s: one after the other", d)
				}
				wires.want(t, before, before)

				server.SetStreamLimit(2) // it means it
				synctest.Wait()
				wantAccepted(t, allAtOnce(t.Context(), c, 40))
				wires.want(t, 4, 4)
			})
		})
	}
}

// Three Clients share a key for 26 hours. One is busy, one now and then, and one so
// seldom that it always dials anew; there are bursts that need more connections,
// and GOAWAYs. The server checks what "Establishing a token-based connection to
// APNs" says of provider tokens: none over an hour old, none changed within 20
// minutes. There is no failure at all.
func TestPoolKeySharedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		server := inMemory(t, func(*apns.Message) error {
			switch n.Add(1) % 1009 {
			case 0:
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
			case 500:
				return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
			case 700:
				return apnstest.Fault{End: apnstest.EndRefusedStream}
			}
			return answerAfter(100 * time.Millisecond)
		}, func(s *apnstest.Server) { s.StreamLimit = 10 })
		key := server.TokenConfig().Key
		end := time.Now().Add(26 * time.Hour)
		var wg sync.WaitGroup
		var pushed atomic.Uint64
		var clients []*apns.Client
		for i, every := range []time.Duration{23 * time.Second, 97 * time.Second, 2 * time.Hour} {
			config := server.TokenConfig()
			config.Key = key
			c := poolClient(t, config)
			clients = append(clients, c)
			wg.Go(func() {
				for time.Now().Before(end) {
					if _, err := c.Push(t.Context(), message(1)); err != nil {
						t.Errorf("client %d: got %v, want nil", i, err)
					}
					pushed.Add(1)
					time.Sleep(every)
				}
			})
			wg.Go(func() {
				for burst := time.Duration(i) * 7 * time.Minute; time.Now().Before(end); burst = time.Duration(1+i) * 41 * time.Minute {
					time.Sleep(burst)
					wantAccepted(t, allAtOnce(t.Context(), c, 60))
					pushed.Add(60)
				}
			})
		}
		wg.Wait()
		var all apns.Stats
		for i, c := range clients {
			s := c.Stats()
			if s.Connected < 10 {
				t.Errorf("client %d made %d connections, want many, for the sake of this test", i, s.Connected)
			}
			all.Accepted += s.Accepted
			all.Connected += s.Connected
		}
		if all.Accepted != pushed.Load() {
			t.Errorf("%d were accepted, want %d", all.Accepted, pushed.Load())
		}
		for _, r := range server.Records() {
			if r.Outcome == apnstest.Rejected {
				t.Errorf("the server refused a message: %v", r.Err)
			}
		}
		t.Logf("%d messages on %d connections", all.Accepted, all.Connected)
	})
}

// If the server refuses the sender, nobody waits for more of the same: PushAll of
// ten thousand ends at once, after a few requests, and after the back-off one
// good answer is enough. The reasons are those of "Handling notification responses
// from APNs".
func TestPoolRefused(t *testing.T) {
	for name, test := range map[string]struct {
		key       bool
		wrongTeam bool
		reason    apns.Reason
		onConnect bool
		said      int // the most that the server may see
	}{
		"provider token": {true, false, apns.ReasonInvalidProviderToken, false, 10},
		"wrong team":     {true, true, apns.ReasonInvalidProviderToken, false, 10},
		"environment":    {false, false, apns.ReasonBadCertificateEnvironment, false, 1000},
		"certificate":    {false, false, apns.ReasonBadCertificate, false, 1000},
		"at connect":     {false, false, apns.ReasonBadCertificateEnvironment, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var healed atomic.Bool
				server := inMemory(t, func(*apns.Message) error {
					if healed.Load() || test.onConnect || test.wrongTeam {
						return nil
					}
					return test.reason
				}, func(s *apnstest.Server) {
					s.OnConnect = func(int, tls.ConnectionState) error {
						if test.onConnect && !healed.Load() {
							return test.reason
						}
						return nil
					}
				})
				config := server.Config()
				if test.key {
					config = server.TokenConfig()
				}
				if test.wrongTeam {
					var err error
					config.Key, err = apns.ParseAuthKey(server.Certificates().AuthKey, apnstest.KeyID, "APNSTESTT2")
					if err != nil {
						t.Fatal(err)
					}
				}
				c := poolClient(t, config)
				const total = 10000
				taken, notSent := 0, 0
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(total) {
						taken++
						if !yield(m) {
							return
						}
					}
				}
				start := time.Now()
				for r := range c.PushAll(t.Context(), msgs) {
					notSent++
					wantErr(t, r.Err, apns.ErrNotSent, apns.ErrRefused, test.reason)
					if t.Failed() {
						return
					}
				}
				wantTook(t, start, 0, 2*time.Second)
				if taken != total || notSent != total {
					t.Errorf("of %d messages %d were taken, and %d were not sent; want all", total, taken, notSent)
				}
				heard := len(server.Records())
				if heard > test.said || heard == 0 && !test.onConnect {
					t.Errorf("the server saw %d messages, want 1 to %d", heard, test.said)
				}
				if s := c.Stats(); s.NotSent != uint64(notSent) || len(s.Rejected) != 0 || s.InFlight != 0 {
					t.Errorf("Stats are %+v, want %d not sent", s, notSent)
				}
				t.Logf("the server saw %d", heard)
				if test.wrongTeam {
					return
				}
				healed.Store(true)
				time.Sleep(2 * time.Minute)
				wantAccepted(t, allAtOnce(t.Context(), c, 100))
			})
		})
	}
}

// A key that cannot sign is not tried twice.
func TestPoolKeyInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.TokenConfig()
		config.Key = new(apns.AuthKey)
		c := poolClient(t, config)
		start, n := time.Now(), 0
		for r := range c.PushAll(t.Context(), devices(100)) {
			n++
			wantErr(t, r.Err, apns.ErrNotSent)
			if !strings.Contains(fmt.Sprint(r.Err), "LoadAuthKey") {
				t.Errorf("got %v, want an error about the key", r.Err)
			}
		}
		wantTook(t, start, 0, 0)
		if s := c.Stats(); n != 100 || s.NotSent != 100 || s.Resent != 0 {
			t.Errorf("got %d results, %+v; want 100 that were not sent, and not again", n, s)
		}
	})
}

// Before the back-off is over, a message hears of the refusal without a request;
// each attempt after it is one request, if it is refused again.
func TestPoolRefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return apns.ReasonBadCertificateEnvironment })
		c := poolClient(t, server.Config())
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) {
			_, err := c.Push(t.Context(), message(1))
			wantErr(t, err, apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadCertificateEnvironment)
			if t.Failed() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		// 0.1 s, 0.2 s up to a minute, less up to half: about ten up to the first
		// minute, and one or two in each after that.
		if n := len(server.Records()); n < 10 || n > 40 {
			t.Errorf("the server saw %d messages in ten minutes, want 10 to 40", n)
		}
	})
}

// What no further attempt to connect would heal ends everything at once.
func TestPoolCannotConnect(t *testing.T) {
	for name, test := range map[string]struct {
		addr   string
		config func(s *apnstest.Server) *apns.Config
		text   string
	}{
		"certificate not trusted": {apns.Production, func(s *apnstest.Server) *apns.Config {
			config := s.TokenConfig()
			config.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			return config
		}, "certificate signed by unknown authority"},
		"a key, but no ALPN": {"gateway.example.com:2195", (*apnstest.Server).TokenConfig, "did not negotiate HTTP/2 (ALPN h2)"},
		"no port":            {"api.example.com", (*apnstest.Server).TokenConfig, "expected host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil)
				var wires wires
				c := poolClient(t, wires.count(test.config(server)), func(c *apns.Client) { c.Addr = test.addr })
				start := time.Now()
				_, err := c.Push(t.Context(), message(1))
				check := func(err error) {
					t.Helper()
					if wantErr(t, err, apns.ErrNotSent); !strings.Contains(fmt.Sprint(err), test.text) || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v, want %q in it", err, test.text)
					}
				}
				check(err)
				n := 0
				for r := range c.PushAll(t.Context(), devices(1000)) {
					n++
					check(r.Err)
					if t.Failed() {
						t.FailNow()
					}
				}
				wantTook(t, start, 0, 0)
				if n != 1000 || wires.dialed > 1 {
					t.Errorf("got %d results after %d attempts to connect, want 1000 and 1", n, wires.dialed)
				}
				wantFigures(t, c, apns.Stats{NotSent: 1001})
			})
		})
	}
}

// A server that is down for a while costs the messages nothing but time; if it is
// longer than they have, they were not sent, and the error says why.
func TestPoolServerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		server.RefuseConnections(true)
		c := poolClient(t, server.Config())
		start := time.Now()
		for r := range c.PushAll(t.Context(), devices(10)) {
			wantErr(t, r.Err, apns.ErrNotSent, context.DeadlineExceeded)
			if !strings.Contains(r.Err.Error(), "while there was no connection (connecting to") {
				t.Errorf("got %v, want it to say why there was no connection", r.Err)
			}
		}
		wantTook(t, start, 50*time.Second, 75*time.Second) // when the next attempt would be too late
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 10)) })
		time.Sleep(time.Second)
		server.RefuseConnections(false)
		wg.Wait()
		wantFigures(t, c, apns.Stats{NotSent: 10, Accepted: 10, Connected: 1})
	})
}

// 20,000 messages on loopback, while the server sends GOAWAYs of both kinds,
// refuses streams, changes its stream limit and rejects one in a hundred: each
// message has one fate, which the server's record confirms; none is in doubt, and
// none is taken twice.
func TestPoolPushAllFaults(t *testing.T) {
	for _, key := range []bool{false, true} {
		t.Run(fmt.Sprintf("key %v", key), func(t *testing.T) {
			total := 20000
			if testing.Short() {
				total = 2000
			}
			var server *apnstest.Server
			var n atomic.Int64
			var changes sync.WaitGroup
			defer changes.Wait()
			bad := func(m *apns.Message) bool { return strings.HasSuffix(m.Token, "77") }
			limits := []int{50, 1000, 1, 100, 7}
			server = apnstest.NewUnstartedServer(func(m *apns.Message) error {
				i := n.Add(1)
				switch {
				case i%2003 == 0:
					return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
				case i%1999 == 0:
					return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
				case i%211 == 0:
					return apnstest.Fault{End: apnstest.EndRefusedStream}
				case i%1500 == 0:
					changes.Go(func() { server.SetStreamLimit(limits[int(i/1500)%len(limits)]) })
				}
				switch {
				case bad(m):
					return apns.ReasonBadDeviceToken
				case i%97 == 0:
					return answerAfter(time.Millisecond)
				}
				return nil
			})
			server.StreamLimit = 100
			server.Start()
			defer server.Close()
			config := server.Config()
			if key {
				config = server.TokenConfig()
			}
			c := poolClient(t, config)
			fates := make([]error, total)
			results := make([]int, total)
			ids := make(map[string]bool)
			for r := range c.PushAll(t.Context(), devices(total)) {
				results[r.Message.ID]++
				fates[r.Message.ID] = r.Err
				if r.Err == nil {
					ids[r.Receipt.APNsID] = true
				}
			}
			accepted := make(map[string]int)
			for _, m := range server.Messages(apnstest.Accepted) {
				accepted[m.Token]++
			}
			good := 0
			for i, err := range fates {
				m := device(i)
				wantAccepted := 1
				switch e, rejected := err.(*apns.PushError); {
				case err == nil:
					good++
				case rejected && e.Reason == apns.ReasonBadDeviceToken && e.ID == m.ID && bad(m):
					wantAccepted = 0
				default:
					t.Errorf("message %d: got %v, want nil or that it is bad", i, err)
				}
				if results[i] != 1 || accepted[m.Token] != wantAccepted {
					t.Errorf("message %d has %d results, the last %v, and was accepted %d times, want 1 and %d", i, results[i], err, accepted[m.Token], wantAccepted)
				}
			}
			if len(ids) != good || ids[""] {
				t.Errorf("%d accepted messages have %d names, want one for each", good, len(ids))
			}
			s := c.Stats()
			if s.InDoubt+s.NotSent+s.InFlight != 0 || s.Accepted != uint64(good) || s.Rejected["BadDeviceToken"] != uint64(total-good) || s.Resent == 0 {
				t.Errorf("Stats are %+v, want %d accepted, some sent again and none in doubt", s, good)
			}
			t.Logf("%+v", s)
		})
	}
}

// A Result has the message itself and, over HTTP/2, the server's name for it: the
// message's own ("Sending notification requests to APNs", apns-id), or one that
// the server makes up.
func TestPoolReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := poolClient(t, server.Config())
		named, unnamed := device(1), device(2)
		named.APNsID = "123e4567-e89b-12d3-a456-4266554400a0"
		check := func(m *apns.Message, r apns.Receipt, err error) {
			t.Helper()
			if err != nil || r.UniqueID == "" || (m == named) != (r.APNsID == named.APNsID) || len(r.APNsID) != 36 {
				t.Errorf("message %d: got %+v and %v, want a receipt with the name of the message", m.ID, r, err)
			}
		}
		for _, m := range []*apns.Message{named, unnamed} {
			r, err := c.Push(t.Context(), m)
			check(m, r, err)
		}
		seen := make(map[*apns.Message]bool)
		for r := range c.PushAll(t.Context(), slices.Values([]*apns.Message{named, unnamed})) {
			check(r.Message, r.Receipt, r.Err)
			seen[r.Message] = true
		}
		if !seen[named] || !seen[unnamed] || len(seen) != 2 {
			t.Errorf("got the messages %v back, want the same pointers", seen)
		}
	})
}

// PushAll takes no more messages than MaxInFlight, and as many that wait, before it has
// yielded some.
func TestPoolPushAllWindow(t *testing.T) {
	for _, window := range []int{1, 2, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(m *apns.Message) error { return answerAfter(time.Duration(m.Token[7]%16) * 100 * time.Millisecond) })
			c := poolClient(t, server.Config(), func(c *apns.Client) { c.MaxInFlight = window })
			var outstanding, most atomic.Int64
			msgs := func(yield func(*apns.Message) bool) {
				for m := range devices(3000 * window / (window + 10)) {
					most.Store(max(most.Load(), outstanding.Add(1)))
					if !yield(m) {
						return
					}
				}
			}
			n := 0
			for r := range c.PushAll(t.Context(), msgs) {
				if r.Err != nil {
					t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
				}
				if n++; n%100 == 0 {
					time.Sleep(time.Second) // results pile up, and count
				}
				outstanding.Add(-1)
			}
			if most.Load() > int64(2*window) || most.Load() == 0 {
				t.Errorf("%d messages had no result, want at most %d in flight and as many that wait", most.Load(), window)
			}
			t.Logf("window %d: %d messages, at most %d outstanding", window, n, most.Load())
		})
	}
}

// However PushAll ends, nothing that it started is left running, and the Client is
// as good as before.
func TestPoolPushAllGivenUp(t *testing.T) {
	for name, test := range map[string]struct {
		window int
		end    func(cancel context.CancelFunc) (again bool) // after ten results
	}{
		"broken off":                 {0, func(context.CancelFunc) bool { return false }},
		"broken off, at the window":  {50, func(context.CancelFunc) bool { return false }},
		"context ends":               {0, func(cancel context.CancelFunc) bool { cancel(); return true }},
		"context ends at the window": {50, func(cancel context.CancelFunc) bool { cancel(); return true }},
		"both":                       {0, func(cancel context.CancelFunc) bool { cancel(); return false }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				server := inMemory(t, func(*apns.Message) error {
					if n.Add(1) > 11 {
						return answerAfter(time.Hour)
					}
					return nil
				}, func(s *apnstest.Server) { s.StreamLimit = 20 })
				c := poolClient(t, server.Config(), func(c *apns.Client) { c.MaxInFlight = test.window })
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var taken atomic.Int64
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(1000) {
						if taken.Add(1); !yield(m) {
							return
						}
					}
				}
				results, inDoubt, notSent := 0, 0, 0
				start := time.Now()
				for r := range c.PushAll(ctx, msgs) {
					results++
					switch {
					case r.Err == nil && results <= 10:
						if results == 10 {
							synctest.Wait() // until others are on their way
							if !test.end(cancel) {
								break
							}
						}
						continue
					case errors.Is(r.Err, apns.ErrInDoubt):
						inDoubt++
						wantErr(t, r.Err, apns.ErrInDoubt, context.Canceled)
						continue
					default:
						notSent++
						wantErr(t, r.Err, apns.ErrNotSent, context.Canceled)
						continue
					}
					break
				}
				wantTook(t, start, 0, 0)
				// The connections that it opened are the Client's.
				for _, stack := range goroutines() {
					if strings.Contains(stack, "batch") || strings.Contains(stack, "deliver") {
						t.Errorf("this is left running:\n%s", stack)
					}
				}
				s := c.Stats()
				if s.InFlight != 0 || s.InDoubt == 0 || s.Accepted+s.InDoubt+s.NotSent != uint64(taken.Load())+1 {
					t.Errorf("Stats are %+v, want a fate for each of the %d messages that were taken, and some in doubt", s, taken.Load())
				}
				if strings.HasPrefix(name, "context") && (int64(results) != taken.Load() || s.InDoubt != uint64(inDoubt) || s.NotSent != uint64(notSent)) {
					t.Errorf("got %d results, %d in doubt, %d not sent, want %d, %d, %d", results, inDoubt, notSent, taken.Load(), s.InDoubt, s.NotSent)
				}
				n.Store(0)
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Errorf("after that: got %v, want nil", err)
				}
			})
		})
	}
}

// A message has its Timeout from when it was handed over, also while others have
// all the streams.
func TestPoolPushAllTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 40 * time.Second
		server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Hour) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
		c := poolClient(t, server.Config(), func(c *apns.Client) { c.MaxConns, c.Timeout = 1, timeout })
		start, inDoubt, notSent := time.Now(), 0, 0
		for r := range c.PushAll(t.Context(), devices(200)) {
			wantTook(t, start, timeout, timeout+timeout/4)
			if errors.Is(r.Err, apns.ErrInDoubt) {
				inDoubt++
				wantErr(t, r.Err, apns.ErrInDoubt, context.DeadlineExceeded)
			} else {
				notSent++
				wantErr(t, r.Err, apns.ErrNotSent, context.DeadlineExceeded)
			}
		}
		// The time of the first one may end a moment before that of those that wait.
		if inDoubt < 10 || inDoubt > 20 || inDoubt+notSent != 200 {
			t.Errorf("got %d in doubt, %d not sent, want about the 10 that had a stream, and the rest of 200", inDoubt, notSent)
		}
	})
}

// What is not sent soon is not taken from msgs, where its time would run.
func TestPoolPushAllSlowServer(t *testing.T) {
	for _, warm := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
			c := poolClient(t, server.Config())
			if warm {
				if _, err := c.Push(t.Context(), device(0)); err != nil {
					t.Error(err)
				}
			}
			var taken atomic.Int64
			n := 0
			for r := range c.PushAll(t.Context(), func(yield func(*apns.Message) bool) {
				for m := range devices(5000) {
					if taken.Add(1); !yield(m) {
						return
					}
				}
			}) {
				if r.Err != nil {
					t.Fatalf("after %d: %v", n, r.Err)
				}
				if n++; n == 100 && taken.Load() > 100+4*10+1024 {
					t.Errorf("when 100 were accepted %d had been taken from msgs, want no more than are soon sent", taken.Load())
				}
			}
			if n != 5000 {
				t.Errorf("got %d results, want 5000", n)
			}
		})
	}
}

// What the sequence of messages does is PushAll's to pass on.
func TestPoolPushAllPanic(t *testing.T) {
	for _, after := range []int{0, 5} {
		for _, goexit := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, nil)
				c := poolClient(t, server.Config())
				msgs := func(yield func(*apns.Message) bool) {
					for m := range devices(after) {
						yield(m)
					}
					if goexit {
						runtime.Goexit()
					}
					panic("out of messages")
				}
				var reason any
				returned := false
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { reason = recover() }()
					for range c.PushAll(t.Context(), msgs) {
					}
					returned = true
				})
				wg.Wait()
				if returned || !goexit && reason != "out of messages" || goexit && reason != nil {
					t.Errorf("after %d messages: PushAll returned: %v, and panicked with %v; want the panic of msgs, or none if it ended its goroutine", after, returned, reason)
				}
				if _, err := c.Push(t.Context(), message(1)); err != nil {
					t.Errorf("after that: got %v, want nil", err)
				}
			})
		}
	}
	// The body of the loop may panic as well.
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		c := poolClient(t, server.Config())
		func() {
			defer func() {
				if reason := recover(); reason != "enough" {
					t.Errorf("recovered %v, want the panic of the loop", reason)
				}
			}()
			for range c.PushAll(t.Context(), devices(100)) {
				panic("enough")
			}
		}()
		for _, stack := range goroutines() {
			if strings.Contains(stack, "batch") {
				t.Errorf("this is left running:\n%s", stack)
			}
		}
	})
}

// Shutdown waits for the answers that are late, and turns away what comes
// meanwhile.
func TestPoolShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return answerAfter(30 * time.Second) })
		var wires wires
		c := poolClient(t, wires.count(server.Config()), func(c *apns.Client) { c.Timeout = 5 * time.Minute })
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 100)) })
		wg.Go(func() {
			for r := range c.PushAll(t.Context(), devices(100)) {
				if r.Err != nil {
					t.Errorf("message %d of PushAll: got %v, want nil", r.Message.ID, r.Err)
				}
			}
		})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "200 messages were without an outcome") {
			t.Errorf("Shutdown: got %v, want that it was cancelled while 200 messages were without an outcome", err)
		}
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		for range 2 {
			if err := c.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: got %v, want nil", err)
			}
		}
		wg.Wait()
		wires.want(t, wires.dialed, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		_, err = c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		wantFigures(t, c, apns.Stats{Accepted: 200, NotSent: 2, Connected: c.Stats().Connected})
	})
}

// Close waits for nothing: what was written is in doubt, what was not was not
// sent, what waits to be sent again keeps its rejection.
func TestPoolClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(m *apns.Message) error {
			if m.Token == token {
				return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second}
			}
			return answerAfter(30 * time.Second)
		}, func(s *apnstest.Server) { s.StreamLimit = 5 })
		var wires wires
		c := poolClient(t, wires.count(server.Config()), func(c *apns.Client) { c.MaxConns = 1 })
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Push(t.Context(), message(7))
			wantAnswer(t, err, apns.PushError{ID: 7, HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 30 * time.Second})
		})
		synctest.Wait()
		var errs []error
		wg.Go(func() { errs = allAtOnce(t.Context(), c, 20) })
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("Close: got %v, want nil", err)
			}
		}
		wg.Wait()
		wantTook(t, start, 0, time.Second)
		inDoubt := 0
		for _, err := range errs {
			if errors.Is(err, apns.ErrInDoubt) {
				inDoubt++
				wantErr(t, err, apns.ErrInDoubt, net.ErrClosed)
			} else {
				wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
			}
		}
		if inDoubt != 5 {
			t.Errorf("%d messages are in doubt, want the 5 that were written", inDoubt)
		}
		wires.want(t, 1, 0)
		if left := goroutines(); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		_, err := c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, net.ErrClosed)
		wantFigures(t, c, apns.Stats{InDoubt: 5, NotSent: 16, Rejected: map[string]uint64{"TooManyRequests": 1}, Connected: 1})
		if err := new(apns.Client).Close(); err != nil {
			t.Errorf("Close of one that was not used: got %v, want nil", err)
		}
		if err := new(apns.Client).Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown of one that was not used: got %v, want nil", err)
		}
	})
}

// The figures are right at each moment, and their sum is what was handed over.
func TestPoolStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]error{
			device(1).Token: apns.ReasonBadDeviceToken,
			device(2).Token: apns.ReasonBadDeviceToken,
			device(3).Token: apns.ReasonUnregistered,
			device(4).Token: &apns.PushError{HTTPStatus: 418},
			device(5).Token: apnstest.Fault{End: apnstest.EndSilence},
			device(6).Token: apnstest.Fault{End: apnstest.EndRST},
			device(7).Token: answerAfter(5 * time.Second),
		}
		server := inMemory(t, func(m *apns.Message) error { return answers[m.Token] })
		c := poolClient(t, server.Config())
		wantFigures(t, c, apns.Stats{})
		var wg sync.WaitGroup
		wg.Go(func() { allAtOnce(t.Context(), c, 10) })
		want := apns.Stats{Accepted: 3, Rejected: map[string]uint64{"BadDeviceToken": 2, "Unregistered": 1, "HTTP status 418": 1}, InDoubt: 1, InFlight: 2, Connected: 1}
		time.Sleep(time.Second)
		wantFigures(t, c, want)
		time.Sleep(5 * time.Second)
		want.Accepted, want.InFlight = 4, 1
		wantFigures(t, c, want)
		wg.Wait()
		want.InDoubt, want.InFlight = 2, 0
		wantFigures(t, c, want)
		c.Stats().Rejected["BadDeviceToken"] = 0 // a copy
		wantFigures(t, c, want)
	})
}

// A message that is never answered costs its own deadline, to the moment, and
// nothing else. One that waits for a stream when its context ends was not sent.
func TestPoolContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unanswered := true
		server := inMemory(t, func(*apns.Message) error {
			if unanswered {
				return apnstest.Fault{End: apnstest.EndSilence}
			}
			return nil
		}, func(s *apnstest.Server) { s.StreamLimit = 1 })
		c := poolClient(t, server.Config())
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := c.Push(ctx, message(1))
			wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
			wantTook(t, start, 10*time.Second, 10*time.Second)
		})
		synctest.Wait()
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.Push(ctx, message(2))
			wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
			wantTook(t, start, 5*time.Second, 5*time.Second)
		})
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			_, err := c.Push(ctx, message(3))
			wantErr(t, err, apns.ErrNotSent, context.Canceled)
			wantTook(t, start, 3*time.Second, 3*time.Second)
		})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Push(ended, message(4))
		wantErr(t, err, apns.ErrNotSent, context.Canceled)
		for r := range c.PushAll(ended, devices(10)) {
			t.Errorf("PushAll with a context that has ended yields %+v, want nothing", r)
		}
		if n := len(server.Records()); n != 1 {
			t.Errorf("the server saw %d messages, want 1", n)
		}
		wg.Wait()
		unanswered = false
		if _, err := c.Push(t.Context(), message(5)); err != nil {
			t.Errorf("after that: got %v, want nil", err)
		}
		wantFigures(t, c, apns.Stats{Accepted: 1, InDoubt: 1, NotSent: 3, Connected: 1})
	})
}

// A Client follows a server that speaks another protocol when it is dialed again, and
// back.
func TestPoolProtocolChanges(t *testing.T) {
	const binary = "gateway.push.apple.com:2195"
	// The last message on a connection: accepted, and then the connection ends.
	var last error = apnstest.Fault{Err: apns.StatusShutdown, End: apnstest.EndGoAway}
	for _, test := range []struct{ name, before, after string }{
		{"HTTP/2 to binary", apns.Production, binary},
		{"binary to HTTP/2", binary, apns.Production},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := inMemory(t, func(m *apns.Message) error {
					switch m.Token {
					case device(1).Token, device(20).Token:
						return last
					}
					return nil
				})
				config := server.Config()
				next := config.DialContext
				var changed atomic.Bool
				config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if changed.Load() {
						addr = test.after
					}
					return next(ctx, network, addr)
				}
				c := poolClient(t, config, func(c *apns.Client) {
					c.Addr = test.before
					c.ConfirmInterval = time.Millisecond
					c.InDoubt = apns.InDoubtResend
				})
				check := func(n int) {
					t.Helper()
					if r, err := c.Push(t.Context(), device(n)); err != nil || (r.APNsID != "") != (changed.Load() == (test.after == apns.Production)) {
						t.Errorf("message %d: got %+v, %v; want it accepted over the protocol that the server speaks", n, r, err)
					}
				}
				check(1)
				changed.Store(true)
				check(2)
				for r := range c.PushAll(t.Context(), devices(20)) {
					if r.Err != nil {
						t.Errorf("message %d: got %v, want nil", r.Message.ID, r.Err)
					}
				}
				if _, err := c.Push(t.Context(), device(20)); err != nil { // which ends the connection
					t.Error(err)
				}
				changed.Store(false)
				check(3)
			})
		})
	}
}
