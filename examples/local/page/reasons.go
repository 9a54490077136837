package page

import (
	"fmt"
	"slices"
	"strings"

	"example.com/apns"
)

// reasons are the reasons that package apns knows, in alphabetical order.
var reasons = []apns.Reason{
	apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonBadChannelID, apns.ReasonBadCollapseID,
	apns.ReasonBadDeviceToken, apns.ReasonBadEnvironmentKeyIDInToken, apns.ReasonBadExpirationDate, apns.ReasonBadMessageID,
	apns.ReasonBadPath, apns.ReasonBadPriority, apns.ReasonBadRequestParams, apns.ReasonBadRequestPayload, apns.ReasonBadTopic,
	apns.ReasonCannotCreateChannelConfig, apns.ReasonChannelNotRegistered, apns.ReasonDeviceTokenNotForTopic,
	apns.ReasonDuplicateHeaders, apns.ReasonExpiredProviderToken, apns.ReasonExpiredToken, apns.ReasonFeatureNotEnabled,
	apns.ReasonForbidden, apns.ReasonIdleTimeout, apns.ReasonInternalServerError, apns.ReasonInvalidProviderToken,
	apns.ReasonInvalidPushType, apns.ReasonMethodNotAllowed, apns.ReasonMissingChannelID, apns.ReasonMissingDeviceToken,
	apns.ReasonMissingProviderToken, apns.ReasonMissingPushType, apns.ReasonMissingTopic, apns.ReasonPayloadEmpty,
	apns.ReasonPayloadTooLarge, apns.ReasonServiceUnavailable, apns.ReasonShutdown, apns.ReasonTooManyProviderTokenUpdates,
	apns.ReasonTooManyRequests, apns.ReasonTopicDisallowed, apns.ReasonTopicMismatch, apns.ReasonUnregistered,
	apns.ReasonUnrelatedKeyIDInToken,
}

// checkReason returns an error if a rule cannot have the reason: it is probably misspelled if
// package apns does not know it. With an HTTP status it may be a new one of Apple's.
func (r *Rule) checkReason() error {
	switch {
	case !reasonFormat.MatchString(string(r.Reason)):
		return fmt.Errorf("reason is %.70q, expected up to 64 letters", string(r.Reason))
	case r.Reason != "" && r.Status == 0 && !slices.Contains(reasons, r.Reason):
		return fmt.Errorf("reason is %q, expected one of the reasons in GET /api/status, or a status with it", string(r.Reason))
	}
	return nil
}

// rememberLocked keeps a reason that package apns does not know, for checkOutcome. The caller
// holds mu.
func (rs *Rules) rememberLocked(r apns.Reason) {
	if r == "" || slices.Contains(reasons, r) || slices.Contains(rs.newReasons, r) {
		return
	}
	if len(rs.newReasons) == maxRules {
		rs.newReasons = rs.newReasons[1:]
	}
	rs.newReasons = append(rs.newReasons, r)
}

// checkOutcome returns an error if no message can have the outcome that a filter asks for.
func (rs *Rules) checkOutcome(outcome string) error {
	is := func(s string) bool { return strings.EqualFold(s, strings.TrimSpace(outcome)) }
	isReason := func(r apns.Reason) bool { return is(string(r)) }
	if slices.ContainsFunc([]string{"", "accepted", "rejected", "discarded", withoutReason}, is) || slices.ContainsFunc(reasons, isReason) {
		return nil
	}
	for status := range 256 {
		if is(apns.Status(status).Error()) { // of the binary protocol
			return nil
		}
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if slices.ContainsFunc(rs.newReasons, isReason) {
		return nil
	}
	return fmt.Errorf("outcome is %.70q, expected accepted, rejected, discarded, or a reason: one of those in GET /api/status, or that of a rule", outcome)
}
