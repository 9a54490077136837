package page

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A Rule says what the server answers to messages. Its JSON form is that of the control API.
type Rule struct {
	// ID names the rule. Rules.Add sets it.
	ID int `json:"id"`

	// Token and Topic select the messages with that device token or topic. Empty means all.
	Token string `json:"token,omitempty"`
	Topic string `json:"topic,omitempty"`

	// Times is for how many messages the rule holds. Zero means until it is removed.
	Times int `json:"times,omitempty"`

	// Reason and Status are the reason and the HTTP status of a rejection. Without a Status
	// it is the one that belongs to the reason, which must be one that package apns knows.
	// Without a Reason the rejection has no body. The Status can be any that ends an exchange,
	// but not 200, which accepts a message, and that is a rule without these fields. BinaryStatus is the status of the binary
	// protocol. Without one it is the one that belongs to the reason. If all three are empty
	// the server accepts the message.
	Reason       apns.Reason `json:"reason,omitempty"`
	Status       int         `json:"status,omitempty"`
	BinaryStatus apns.Status `json:"binary_status,omitempty"`

	// RetryAfter is the Retry-After field of a rejection in seconds. Zero means none.
	RetryAfter int `json:"retry_after,omitempty"`

	// DeadAt is the time in a rejection with status 410 and a reason. Zero means the time of
	// the answer.
	DeadAt time.Time `json:"dead_at,omitzero"`

	// DelayMS is how long the server waits before it answers, in milliseconds. On the binary
	// protocol only a rejection is an answer.
	DelayMS int `json:"delay_ms,omitempty"`

	// Then is what happens to the connection or the stream: one of the names in ends. Empty
	// means that the server answers, and nothing else.
	Then string `json:"then,omitempty"`

	// GoAwayReason is the reason in the GOAWAY that some values of Then send.
	GoAwayReason apns.Reason `json:"goaway_reason,omitempty"`
}

// ends are the values of Rule.Then, in the order in which the page shows them.
var ends = []struct {
	name    string
	end     apnstest.End
	answers bool // the message is accepted or rejected as well
}{
	{"silence", apnstest.EndSilence, false},
	{"cut", apnstest.EndFINThenRST, false},
	{"reset", apnstest.EndRST, false},
	{"refuse-stream", apnstest.EndRefusedStream, false},
	{"goaway", apnstest.EndGoAway, true},
	{"goaway-unprocessed", apnstest.EndGoAwayUnprocessed, false},
}

// endOf returns what a value of Rule.Then means. Without a value the server answers, and that
// is all.
func endOf(then string) (end apnstest.End, answers, known bool) {
	if then == "" {
		return apnstest.EndCloseNotify, true, true
	}
	for _, e := range ends {
		if e.name == then {
			return e.end, e.answers, true
		}
	}
	return 0, false, false
}

var reasonFormat = regexp.MustCompile(`^[A-Za-z]{0,64}$`)

// check returns an error if a field is out of its range, or if it would do nothing.
func (r *Rule) check() error {
	r.Token = strings.ToLower(r.Token)
	if r.Token != "" {
		if err := checkToken(r.Token, maxToken); err != nil {
			return err
		}
	}
	switch {
	case len(r.Topic) > maxTopic:
		return fmt.Errorf("topic has %d bytes, expected at most %d", len(r.Topic), maxTopic)
	case r.Times < 0:
		return fmt.Errorf("times is %d, expected 0 or more", r.Times)
	case !reasonFormat.MatchString(string(r.GoAwayReason)):
		return fmt.Errorf("goaway_reason is %.70q, expected up to 64 letters", string(r.GoAwayReason))
	case r.Status == 200:
		return errors.New("status is 200, which accepts, expected no status for that, or 201 to 599")
	case r.Status != 0 && (r.Status < 201 || r.Status > 599):
		return fmt.Errorf("status is %d, expected 201 to 599", r.Status)
	case r.RetryAfter < 0 || r.RetryAfter > 86400:
		return fmt.Errorf("retry_after is %d, expected 0 to 86400 seconds", r.RetryAfter)
	case r.DelayMS < 0 || r.DelayMS > 600_000:
		return fmt.Errorf("delay_ms is %d, expected 0 to 600000", r.DelayMS)
	}
	if !r.DeadAt.IsZero() {
		if err := checkTime(r.DeadAt); err != nil {
			return err
		}
	}
	if err := r.checkReason(); err != nil {
		return err
	}
	return r.checkTogether()
}

// checkTogether returns an error if a field would do nothing, since another is not as it must
// be.
func (r *Rule) checkTogether() error {
	_, answers, known := endOf(r.Then)
	switch {
	case !known:
		return fmt.Errorf("then is %.70q, expected silence, cut, reset, refuse-stream, goaway or goaway-unprocessed", r.Then)
	case !answers && (r.Reason != "" || r.Status != 0):
		return fmt.Errorf("then is %s, which sends no answer, and there is a reason or status; expected only one of them", r.Then)
	case r.Reason != "" && (r.Status == 204 || r.Status == 205 || r.Status == 304):
		return fmt.Errorf("status is %d, with which an answer has no body, and there is a reason; expected only one of them", r.Status)
	case r.GoAwayReason != "" && !strings.HasPrefix(r.Then, "goaway"):
		return fmt.Errorf("goaway_reason is set and then is %q, expected goaway or goaway-unprocessed", r.Then)
	case r.RetryAfter > 0 && r.Reason == "" && r.Status == 0:
		return errors.New("retry_after is set without a reason or status, expected one with it")
	case !r.DeadAt.IsZero() && r.Reason == "":
		return errors.New("dead_at is set without a reason, expected one with it: an answer without a reason has no body")
	case !r.DeadAt.IsZero() && r.Status != 410 && !r.isDead():
		return errors.New("dead_at is set without reason Unregistered or ExpiredToken or status 410, expected one with it")
	}
	return nil
}

// isDead reports whether the reason says that the device is dead.
func (r *Rule) isDead() bool {
	return r.Reason == apns.ReasonUnregistered || r.Reason == apns.ReasonExpiredToken
}

func (r *Rule) rejects() bool { return r.Reason != "" || r.Status != 0 || r.BinaryStatus != 0 }

// answer returns what a handler of apnstest returns for the rule.
func (r *Rule) answer(binary bool) error {
	var err error
	switch {
	case r.Reason == "" && r.Status == 0 && r.BinaryStatus != 0:
		err = r.BinaryStatus
	case r.rejects():
		e := &apns.PushError{Status: r.BinaryStatus, HTTPStatus: r.Status, Reason: r.Reason, DeadAt: r.DeadAt, RetryAfter: time.Duration(r.RetryAfter) * time.Second}
		if r.isDead() && e.HTTPStatus == 0 {
			e.HTTPStatus = 410
		}
		if e.Status == 0 && e.Reason == "" {
			e.Status = apns.StatusProcessingError
		}
		err = e
	case r.Then == "" && (binary || r.DelayMS == 0):
		return nil // the binary protocol has no answer that could be late
	}
	if r.DelayMS == 0 && r.Then == "" {
		return err
	}
	f := apnstest.Fault{Err: err, Delay: time.Duration(r.DelayMS) * time.Millisecond, Reason: r.GoAwayReason}
	var answers bool
	f.End, answers, _ = endOf(r.Then)
	if answers && err == nil {
		f.Err = apns.StatusNoError // accepted
	}
	return f
}

// IsBinary reports whether a message that was passed to a handler came on the binary protocol.
// Such a message has no topic, and over HTTP/2 every message but a broadcast has one.
func IsBinary(m *apns.Message) bool { return m.Topic == "" && m.Channel == "" }

// Rules are the rules in force. The methods may be called concurrently.
type Rules struct {
	mu         sync.Mutex // protects following
	rules      []Rule     // the newest first
	lastID     int
	newReasons []apns.Reason // of rules now and before, without those that package apns knows
}

// maxRules is how many rules there can be. Each message is compared with all of them.
const maxRules = 1000

// Add adds a rule, which holds before those that were added earlier. It returns the rule with
// its ID, or an error if a field is out of its range.
func (rs *Rules) Add(r Rule) (Rule, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.rules) >= maxRules {
		return r, fmt.Errorf("there are %d rules, expected fewer: remove some", maxRules)
	}
	rs.rememberLocked(r.Reason)
	rs.lastID++
	r.ID = rs.lastID
	rs.rules = slices.Insert(rs.rules, 0, r)
	return r, nil
}

// Remove removes the rule with the ID, and reports whether there was one.
func (rs *Rules) Remove(id int) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n := len(rs.rules)
	rs.rules = slices.DeleteFunc(rs.rules, func(r Rule) bool { return r.ID == id })
	return len(rs.rules) < n
}

// Clear removes all rules.
func (rs *Rules) Clear() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.rules = nil
}

// All returns the rules, the newest first.
func (rs *Rules) All() []Rule {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return append([]Rule{}, rs.rules...)
}

// Answer returns what a handler of apnstest returns for a message, and whether a rule says
// it. It counts the message against the Times of the rule.
func (rs *Rules) Answer(m *apns.Message) (answer error, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for i := range rs.rules {
		r := &rs.rules[i]
		if r.Token != "" && r.Token != m.Token || r.Topic != "" && r.Topic != m.Topic {
			continue
		}
		answer = r.answer(IsBinary(m))
		if r.Times == 1 {
			rs.rules = slices.Delete(rs.rules, i, i+1)
		} else if r.Times > 1 {
			r.Times--
		}
		return answer, true
	}
	return nil, false
}
