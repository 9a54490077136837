package apns

import (
	"errors"
	"time"
)

// An Action is what to do about a message whose outcome is known: see [Advise].
type Action int

const (
	// ActionDone: the message was accepted. Nothing is left to do.
	ActionDone Action = iota
	// ActionForget: the device token is dead. Remove it, unless the app registered it
	// after Advice.DeadAt, or after the push if that is zero.
	ActionForget
	// ActionDrop: the same message would fail each time, or it expired. The error says
	// why. Do not remove the device token: a BadDeviceToken is also the answer to a token
	// from the other environment.
	ActionDrop
	// ActionResend: the message did not arrive, and may be accepted later. Send it once
	// more, after Advice.After.
	ActionResend
	// ActionFix: the message did not arrive, and no other would. Correct the credentials
	// or the settings that the error names, then send it once more.
	ActionFix
	// ActionDecide: the message is in doubt, it may have arrived. Sent once more, it may
	// arrive twice; dropped, it may never arrive. Only the application knows which is worse.
	ActionDecide
)

var actionTexts = [...]string{"done", "forget", "drop", "resend", "fix", "decide"}

// String returns a word that is fit for a log or a metric's label, for example "resend".
func (a Action) String() string {
	if a < 0 || int(a) >= len(actionTexts) {
		return "unknown"
	}
	return actionTexts[a]
}

// Advice says what to do about a message whose outcome is known.
type Advice struct {
	Action Action
	// DeadAt is when the server found that the device was dead, with ActionForget. It is
	// zero if the server gave no time.
	DeadAt time.Time
	// After is how long the server asks the sender to wait, with ActionResend. It is zero
	// if the server does not say. Then wait longer before each attempt.
	After time.Duration
}

// Advise returns what to do about a message, given the error of Push, of WritePushMsg or of
// a Result:
//
//	error                                      Action
//	nil                                        ActionDone
//	*PushError, not Rejected                   ActionDone: it is the last message accepted
//	ReasonUnregistered or ReasonExpiredToken   ActionForget
//	any other *PushError with a DeadAt         ActionForget
//	*PushError, Retryable                      ActionResend
//	any other *PushError                       ActionDrop
//	ErrInvalid, ErrExpired                     ActionDrop
//	ErrRefused                                 ActionFix
//	ErrNotSent, a wrong setting                ActionFix: a server that is not trusted
//	any other ErrNotSent                       ActionResend
//	ErrInDoubt, any other error                ActionDecide
//
// An error that matches ErrInDoubt and ErrRefused is in doubt.
func Advise(err error) Advice {
	if err == nil {
		return Advice{Action: ActionDone}
	}
	if errors.Is(err, ErrInDoubt) { // before the others, which it may wrap
		return Advice{Action: ActionDecide}
	}
	if said, ok := errors.AsType[*PushError](err); ok {
		switch {
		case !said.Rejected():
			return Advice{Action: ActionDone}
		case said.Reason == ReasonUnregistered, said.Reason == ReasonExpiredToken, !said.DeadAt.IsZero():
			return Advice{Action: ActionForget, DeadAt: said.DeadAt}
		case said.Retryable():
			return Advice{Action: ActionResend, After: said.RetryAfter}
		}
		return Advice{Action: ActionDrop}
	}
	switch {
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrExpired):
		return Advice{Action: ActionDrop}
	case !errors.Is(err, ErrNotSent):
		return Advice{Action: ActionDecide}
	case isPermanent(err):
		return Advice{Action: ActionFix}
	}
	return Advice{Action: ActionResend}
}
