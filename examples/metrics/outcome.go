package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"example.com/apns"
)

// protocol returns the name of the protocol that an attempt was made over.
func protocol(a apns.Attempt) string {
	if a.HTTP2 {
		return "http2"
	}
	return "binary"
}

// outcome returns what an attempt came to: accepted, rejected, not_sent or in_doubt.
func outcome(err error) string {
	switch {
	case err == nil:
		return "accepted"
	case errors.Is(err, apns.ErrInDoubt):
		return "in_doubt"
	case errors.Is(err, apns.ErrNotSent):
		return "not_sent"
	}
	return "rejected"
}

// reason returns why an attempt was not accepted. The number of different values is
// bounded, whatever a server says. Where a Status of the binary protocol means the same as
// a Reason, it is the Reason, as in Stats.Rejected.
func reason(err error) string {
	var said error
	if r, ok := errors.AsType[apns.Reason](err); ok {
		said = r
	} else if s, ok := errors.AsType[apns.Status](err); ok {
		said = s
	}
	for _, r := range reasons {
		if errors.Is(said, r) {
			return string(r)
		}
	}
	pushErr, ok := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil:
		return ""
	case ok && pushErr.HTTPStatus != 0 && pushErr.Reason == "":
		return fmt.Sprintf("HTTP status %d", pushErr.HTTPStatus)
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return "other"
}

// reasons has the reasons that get a label of their own. A server may send others.
var reasons = []apns.Reason{
	apns.ReasonBadCollapseID, apns.ReasonBadDeviceToken, apns.ReasonBadExpirationDate, apns.ReasonBadMessageID,
	apns.ReasonBadPriority, apns.ReasonBadTopic, apns.ReasonDeviceTokenNotForTopic, apns.ReasonDuplicateHeaders,
	apns.ReasonIdleTimeout, apns.ReasonInvalidPushType, apns.ReasonMissingDeviceToken, apns.ReasonMissingTopic,
	apns.ReasonPayloadEmpty, apns.ReasonTopicDisallowed, apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment,
	apns.ReasonExpiredProviderToken, apns.ReasonForbidden, apns.ReasonInvalidProviderToken,
	apns.ReasonMissingProviderToken, apns.ReasonUnrelatedKeyIDInToken, apns.ReasonBadEnvironmentKeyIDInToken,
	apns.ReasonBadPath, apns.ReasonMethodNotAllowed, apns.ReasonExpiredToken, apns.ReasonUnregistered,
	apns.ReasonPayloadTooLarge, apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyRequests,
	apns.ReasonInternalServerError, apns.ReasonServiceUnavailable, apns.ReasonShutdown,
}
