package apnstest

import (
	"errors"
	"time"

	"example.com/apns"
)

// An action is what the server does about a message or a connection because of the
// error that a handler returned.
type action struct {
	outcome Outcome         // of the message
	reply   *apns.PushError // what is sent; nil: no error
	ends    bool            // the connection ends; over HTTP/2 see fault.End
	fault   Fault           // how it ends
}

// actionFor returns the action for an error about the message with the ID.
func actionFor(err error, id uint32) action {
	if e, ok := err.(*apns.PushError); err == nil || ok && e == nil { // nil, or a nil *PushError in an error
		return action{outcome: Accepted}
	}
	if p, ok := errors.AsType[*Fault](err); ok && p != nil {
		err = *p
	}
	if f, ok := errors.AsType[Fault](err); ok {
		a := action{outcome: Discarded}
		if f.Err != nil {
			a = actionFor(f.Err, id)
		}
		a.ends, a.fault = true, f
		return a
	}
	reply := &apns.PushError{ID: id, Status: apns.StatusProcessingError}
	if e, ok := errors.AsType[*apns.PushError](err); ok {
		*reply = *e
		if reply.Reason != "" && reply.Status == 0 {
			reply.Status = toStatus(reply.Reason)
		}
	} else if status, ok := errors.AsType[apns.Status](err); ok {
		if status == apns.StatusNoError {
			return action{outcome: Accepted}
		}
		reply.Status = status
	} else if reason, ok := errors.AsType[apns.Reason](err); ok {
		reply.Status, reply.Reason, reply.HTTPStatus = toStatus(reason), reason, httpStatus(reason)
	}
	if reply.HTTPStatus == 410 && reply.DeadAt.IsZero() {
		// A response with status 410 has a timestamp. In whole milliseconds it is not before
		// a registration that came before it.
		reply.DeadAt = time.UnixMilli(time.Now().Add(time.Millisecond - 1).UnixMilli())
	}
	a := action{outcome: Rejected, reply: reply, ends: true}
	switch {
	case reply.Rejected():
	case reply.ID == id: // StatusShutdown: the server accepted this message, and no more
		a.outcome = Accepted
	default: // StatusShutdown with the ID of an earlier message, the last that was accepted
		a.outcome = Discarded
	}
	return a
}

// overHTTP2 returns the action as it is over HTTP/2.
func (a action) overHTTP2() action {
	switch {
	case a.fault.End == EndRefusedStream || a.fault.End == EndGoAwayUnprocessed:
		a.outcome = Discarded // the client is told so, whatever Err is
	case a.outcome == Discarded && a.reply != nil:
		a.outcome = Rejected // StatusShutdown with the ID of another message: HTTP/2 has no IDs
	}
	return a
}

// errorPacket returns the error packet of the binary protocol, or nil if none is sent.
func (a action) errorPacket() []byte {
	if a.reply == nil {
		return nil
	}
	return apns.AppendError(nil, a.reply)
}

// toReason returns the Reason with which HTTP/2 reports an error. See apns.Status.Is.
func toReason(err error) apns.Reason {
	if e, ok := errors.AsType[*apns.PushError](err); ok && (e.HTTPStatus != 0 || e.Reason != "") {
		return e.Reason
	}
	if r, ok := errors.AsType[apns.Reason](err); ok {
		return r
	}
	for _, r := range []apns.Reason{
		apns.ReasonMissingDeviceToken, apns.ReasonMissingTopic, apns.ReasonPayloadEmpty, apns.ReasonBadDeviceToken,
		apns.ReasonBadTopic, apns.ReasonPayloadTooLarge, apns.ReasonShutdown,
	} {
		if errors.Is(err, r) {
			return r
		}
	}
	return apns.ReasonInternalServerError
}

// toStatus returns the Status with which the binary protocol reports what a Reason
// means, or StatusProcessingError if it has none.
func toStatus(r apns.Reason) apns.Status {
	switch r {
	case apns.ReasonBadDeviceToken, apns.ReasonDeviceTokenNotForTopic, apns.ReasonUnregistered, apns.ReasonExpiredToken:
		return apns.StatusInvalidToken
	case apns.ReasonMissingDeviceToken:
		return apns.StatusMissingToken
	case apns.ReasonMissingTopic:
		return apns.StatusMissingTopic
	case apns.ReasonBadTopic, apns.ReasonTopicDisallowed:
		return apns.StatusInvalidTopicSize
	case apns.ReasonPayloadEmpty:
		return apns.StatusMissingPayload
	case apns.ReasonPayloadTooLarge:
		return apns.StatusInvalidPayloadSize
	}
	return apns.StatusProcessingError
}

// httpStatus returns the HTTP status of a reason, as listed in "Handling notification
// responses from APNs", or 400 for any other reason.
func httpStatus(r apns.Reason) int {
	switch r {
	case apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonExpiredProviderToken,
		apns.ReasonForbidden, apns.ReasonInvalidProviderToken, apns.ReasonMissingProviderToken,
		apns.ReasonUnrelatedKeyIDInToken, apns.ReasonBadEnvironmentKeyIDInToken, apns.ReasonTopicMismatch:
		return 403
	case apns.ReasonBadPath:
		return 404
	case apns.ReasonMethodNotAllowed:
		return 405
	case apns.ReasonExpiredToken, apns.ReasonUnregistered:
		return 410
	case apns.ReasonPayloadTooLarge:
		return 413
	case apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyRequests:
		return 429
	case apns.ReasonInternalServerError:
		return 500
	case apns.ReasonServiceUnavailable, apns.ReasonShutdown:
		return 503
	}
	return 400
}
