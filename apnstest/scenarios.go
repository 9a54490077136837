package apnstest

import (
	"crypto/tls"
	"slices"
	"time"

	"example.com/apns"
)

// A Scenario is a conformance test of a client: a library, or a program that passes messages
// on to Apple. It is a server that behaves in some way, messages to push to it, and what a
// correct client reports about them.
//
//	for _, scenario := range apnstest.Scenarios() {
//		t.Run(scenario.Name, func(t *testing.T) {
//			server := scenario.NewServer()
//			server.Start()
//			defer server.Close()
//			client := newClient(server.HTTP2Addr, server.Certificates()) // the client under test
//			defer client.Close()
//			if err := scenario.Run(t.Context(), server, client.push); err != nil {
//				t.Error(err)
//			}
//		})
//	}
type Scenario struct {
	// Name identifies the scenario, for example "goaway".
	Name string

	// Server says what the server does.
	Server string

	// Client says what a correct client does, and Source where that is stated: a page of
	// Apple's documentation or an RFC.
	Client, Source string

	// Binary says that the scenario is for the binary protocol as well. All are for HTTP/2.
	Binary bool

	handle    func(arrival) error // nil accepts every message
	configure func(*Server)       // nil changes nothing
	steps     []scenarioStep
	minRetry  time.Duration // how long a client must wait before it resends
	maxConns  int           // how many connections a client may open; 0: any number
}

// A scenarioStep pushes messages concurrently.
type scenarioStep struct {
	messages []expectation
	after    func(*Server) // called when all have an outcome; may be nil
}

// An arrival is a message that arrives at the server of a scenario.
type arrival struct {
	number  int // of the message, counted from 1
	attempt int // how often it has arrived, counted from 1
	total   int // how many messages have arrived, counted from 1
}

// An expectation says what a client may report about a message.
type expectation struct {
	outcomes reported
	reason   apns.Reason // of a rejection; empty: none is expected
	deadAt   time.Time   // of a rejection
}

// A reported is a set of outcomes that a client reports.
type reported uint8

const (
	reportedAccepted reported = 1 << iota
	reportedRejected
	reportedNotSent
	reportedInDoubt
)

var (
	accepted = expectation{outcomes: reportedAccepted}
	resent   = expectation{outcomes: reportedAccepted | reportedNotSent}
	inDoubt  = expectation{outcomes: reportedInDoubt}
)

func rejected(reason apns.Reason) expectation {
	return expectation{outcomes: reportedRejected, reason: reason}
}

// retried is about a message that is rejected once, and accepted if it is resent.
func retried(reason apns.Reason) expectation {
	return expectation{outcomes: reportedAccepted | reportedRejected | reportedNotSent, reason: reason}
}

// repeat returns n times the expectation.
func repeat(e expectation, n int) []expectation {
	list := make([]expectation, n)
	for i := range list {
		list[i] = e
	}
	return list
}

func step(messages ...expectation) scenarioStep { return scenarioStep{messages: messages} }

// Sources of the scenarios that are not pages of Apple's.
const (
	sourceHTTP2 = "RFC 9113, sections 6.8 and 8.7"
	sourceLimit = "RFC 9113, section 5.1.2"
)

// Scenarios returns the scenarios. Each has a server of its own, so that they may run in
// parallel.
func Scenarios() []Scenario {
	return slices.Concat(answerScenarios(), retryScenarios(), connectionScenarios(), doubtScenarios(), limitScenarios())
}

// scenarioDeadAt is when the devices of the scenarios died, each a second after the other.
var scenarioDeadAt = time.Date(2026, 5, 4, 3, 2, 1, 234e6, time.UTC)

func unregistered(number int) (apns.PushError, expectation) {
	deadAt := scenarioDeadAt.Add(time.Duration(number) * time.Second)
	e := rejected(apns.ReasonUnregistered)
	e.deadAt = deadAt
	return apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt}, e
}

// answerScenarios are about the answers to messages.
func answerScenarios() []Scenario {
	reasons := []apns.Reason{
		apns.ReasonBadCollapseID, apns.ReasonBadDeviceToken, apns.ReasonBadTopic, apns.ReasonDeviceTokenNotForTopic,
		apns.ReasonTopicDisallowed, apns.ReasonForbidden, apns.ReasonExpiredToken, apns.ReasonPayloadTooLarge, "NewReason",
	}
	var passed []expectation
	for _, reason := range reasons {
		passed = append(passed, rejected(reason), accepted)
	}
	_, dead := unregistered(1)
	return []Scenario{{
		Name:   "accepted",
		Server: "accepts every message",
		Client: "reports each message as accepted",
		Source: sourceRespond,
		Binary: true,
		steps:  []scenarioStep{step(accepted), step(repeat(accepted, 10)...)},
	}, {
		Name:   "rejected",
		Server: "rejects two of the messages",
		Client: "reports them as rejected with the server's reason, and the others as accepted",
		Source: sourceRespond,
		Binary: true,
		handle: func(a arrival) error {
			return map[int]apns.Status{2: apns.StatusInvalidToken, 4: apns.StatusInvalidPayloadSize}[a.number]
		},
		steps: []scenarioStep{step(accepted, rejected(apns.ReasonBadDeviceToken), accepted, rejected(apns.ReasonPayloadTooLarge), accepted)},
	}, {
		Name:   "reasons",
		Server: "rejects each second message with another reason; one reason is not in Apple's documentation",
		Client: "reports each with its own status and reason, the unknown one included",
		Source: sourceRespond,
		handle: func(a arrival) error {
			if a.number%2 == 1 {
				return reasons[a.number/2]
			}
			return nil
		},
		steps: []scenarioStep{step(passed...)},
	}, {
		Name:   "unregistered",
		Server: "responds that the device lost the app, and when",
		Client: "reports the time, which is in milliseconds since 1970, at least to the second",
		Source: sourceRespond,
		handle: func(a arrival) error { e, _ := unregistered(a.number); return &e },
		steps:  []scenarioStep{step(dead)},
	}, manyScenario()}
}

// retryScenarios are about rejections that may pass with time.
func retryScenarios() []Scenario {
	return []Scenario{{
		Name:     "too-many-requests",
		Server:   "rejects a message once with status 429 and a Retry-After of a second",
		Client:   "reports that, or resends the message after a second or more",
		Source:   sourceRespond + "; RFC 9110, section 10.2.3",
		handle:   rejectOnce(apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: time.Second}),
		minRetry: time.Second,
		steps:    []scenarioStep{step(accepted, retried(apns.ReasonTooManyRequests), accepted)},
	}, {
		Name:     "unavailable",
		Server:   "rejects a message once with status 503 and a Retry-After of a second",
		Client:   "reports that, or resends the message after a second or more",
		Source:   sourceRespond + "; RFC 9110, section 10.2.3",
		handle:   rejectOnce(apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Second}),
		minRetry: time.Second,
		steps:    []scenarioStep{step(accepted, retried(apns.ReasonServiceUnavailable), accepted)},
	}, {
		Name:   "server-error",
		Server: "rejects a message once with status 500",
		Client: "reports that, or resends the message",
		Source: sourceRespond,
		handle: rejectOnce(apns.PushError{HTTPStatus: 500, Reason: apns.ReasonInternalServerError}),
		steps:  []scenarioStep{step(accepted, retried(apns.ReasonInternalServerError), accepted)},
	}}
}

// rejectOnce rejects the message number 2 at its first attempt.
func rejectOnce(e apns.PushError) func(arrival) error {
	return func(a arrival) error {
		if a.number == 2 && a.attempt == 1 {
			return &e
		}
		return nil
	}
}

func manyScenario() Scenario {
	const messages = 1000
	var list []expectation
	for number := 1; number <= messages; number++ {
		switch number % 4 {
		case 0:
			list = append(list, rejected(apns.ReasonBadDeviceToken))
		case 1:
			_, e := unregistered(number)
			list = append(list, e)
		default:
			list = append(list, accepted)
		}
	}
	return Scenario{
		Name:   "many",
		Server: "gets 1,000 messages at once, and answers them in another order",
		Client: "reports the answer to each message as the outcome of that message",
		Source: "RFC 9113, section 5",
		handle: func(a arrival) error {
			f := Fault{Err: apns.StatusNoError, Delay: time.Duration(1+a.total*7%10) * time.Millisecond}
			switch a.number % 4 {
			case 0:
				f.Err = apns.ReasonBadDeviceToken
			case 1:
				e, _ := unregistered(a.number)
				f.Err = &e
			}
			return f
		},
		steps: []scenarioStep{step(list...)},
	}
}

// faultAt returns the fault for the message that arrives as the nth.
func faultAt(n int, f Fault) func(arrival) error {
	return func(a arrival) error {
		if a.total == n {
			return f
		}
		return nil
	}
}

// connectionScenarios are about what the server has not processed.
func connectionScenarios() []Scenario {
	return []Scenario{{
		Name:   "goaway",
		Server: "sends a GOAWAY whose last stream is before those of some messages, and closes the connection",
		Client: "resends those messages on another connection, or reports them as not sent; each is accepted at most once",
		Source: sourceHTTP2,
		handle: faultAt(5, Fault{End: EndGoAwayUnprocessed}),
		steps:  []scenarioStep{step(accepted), {messages: repeat(resent, 20)}},
	}, {
		Name:   "shutdown",
		Server: "accepts a message as its last, and says that it shuts down",
		Client: "resends later messages on another connection, or reports them as not sent; each is accepted at most once",
		Source: sourceHTTP2 + "; " + sourceBinary,
		Binary: true,
		handle: faultAt(5, Fault{Err: apns.StatusShutdown}),
		steps:  []scenarioStep{step(accepted), {messages: repeat(resent, 20)}},
	}, {
		Name:   "goaway-idle",
		Server: "sends a GOAWAY with the reason IdleTimeout between two messages, and closes the connection",
		Client: "sends the second message on another connection, or reports it as not sent",
		Source: sourceHTTP2,
		steps: []scenarioStep{
			{messages: []expectation{accepted}, after: func(s *Server) { s.GoAway(apns.ReasonIdleTimeout) }},
			step(resent),
		},
	}, {
		Name:   "refused-stream",
		Server: "resets the stream of a message with REFUSED_STREAM: it was not processed",
		Client: "resends the message, or reports it as not sent",
		Source: sourceHTTP2,
		handle: faultAt(3, Fault{End: EndRefusedStream}),
		steps:  []scenarioStep{step(accepted), {messages: repeat(resent, 10)}},
	}}
}

// doubtScenarios leave a client without an answer. It cannot tell them apart.
func doubtScenarios() []Scenario {
	steps := []scenarioStep{step(accepted), step(inDoubt), step(resent)}
	const client = "reports the message as in doubt, neither as accepted nor as rejected or not sent, and does not resend it by itself"
	return []Scenario{{
		Name:   "cut",
		Server: "closes the connection when it has read a message, and does not process it",
		Client: client,
		Source: sourceHTTP2,
		Binary: true,
		handle: faultAt(2, Fault{End: EndFIN}),
		steps:  steps,
	}, {
		Name:   "cut-accepted",
		Server: "accepts a message, and closes the connection before it answers",
		Client: client,
		Source: sourceHTTP2,
		Binary: true,
		handle: faultAt(2, Fault{Err: apns.StatusNoError, End: EndFIN}),
		steps:  steps,
	}, {
		Name:   "reset",
		Server: "accepts a message, and resets its stream with CANCEL",
		Client: client,
		Source: sourceHTTP2,
		handle: faultAt(2, Fault{Err: apns.StatusNoError, End: EndRST}),
		steps:  steps,
	}}
}

// limitScenarios are about the limit of messages in flight.
func limitScenarios() []Scenario {
	const messages = 50
	return []Scenario{{
		Name:      "one-stream",
		Server:    "allows one message in flight",
		Client:    "sends the messages one after the other, without a connection for each",
		Source:    sourceLimit + "; " + sourceSend,
		configure: func(s *Server) { s.StreamLimit = 1 },
		maxConns:  messages / 2,
		steps:     []scenarioStep{step(accepted), step(repeat(accepted, messages)...)},
	}, {
		Name:   "no-stream",
		Server: "allows no message in flight at first, and 10 after a tenth of a second",
		Client: "waits",
		Source: sourceLimit,
		configure: func(s *Server) {
			s.StreamLimit = -1
			s.OnConnect = func(int, tls.ConnectionState) error {
				s.running.Go(func() {
					select {
					case <-time.After(time.Second / 10):
						s.SetStreamLimit(10)
					case <-s.closing:
					}
				})
				return nil
			}
		},
		maxConns: messages / 2,
		steps:    []scenarioStep{step(repeat(accepted, messages)...)},
	}}
}
