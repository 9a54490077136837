package apns_test

import (
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Each reason of Apple's page "Handling notification responses from APNs", with its status:
// what it means for a message, and whether the server of apnstest gives it the status.
func TestReasons(t *testing.T) {
	const rejected, retryable, refused, resent = "rejected", "retryable", "refused", "resent"
	for _, test := range []struct {
		status int
		word   string
		reason apns.Reason
		want   string
	}{
		{400, "BadCollapseId", apns.ReasonBadCollapseID, rejected},
		{400, "BadDeviceToken", apns.ReasonBadDeviceToken, rejected},
		{400, "BadExpirationDate", apns.ReasonBadExpirationDate, rejected},
		{400, "BadMessageId", apns.ReasonBadMessageID, rejected},
		{400, "BadPriority", apns.ReasonBadPriority, rejected},
		{400, "BadTopic", apns.ReasonBadTopic, rejected},
		{400, "DeviceTokenNotForTopic", apns.ReasonDeviceTokenNotForTopic, rejected},
		{400, "DuplicateHeaders", apns.ReasonDuplicateHeaders, rejected},
		{400, "IdleTimeout", apns.ReasonIdleTimeout, resent},
		{400, "InvalidPushType", apns.ReasonInvalidPushType, rejected},
		{400, "MissingDeviceToken", apns.ReasonMissingDeviceToken, rejected},
		{400, "MissingTopic", apns.ReasonMissingTopic, rejected},
		{400, "PayloadEmpty", apns.ReasonPayloadEmpty, rejected},
		{400, "TopicDisallowed", apns.ReasonTopicDisallowed, rejected},
		{403, "BadCertificate", apns.ReasonBadCertificate, refused},
		{403, "BadCertificateEnvironment", apns.ReasonBadCertificateEnvironment, refused},
		{403, "ExpiredProviderToken", apns.ReasonExpiredProviderToken, resent}, // with a new token
		{403, "Forbidden", apns.ReasonForbidden, rejected},
		{403, "InvalidProviderToken", apns.ReasonInvalidProviderToken, refused},
		{403, "MissingProviderToken", apns.ReasonMissingProviderToken, refused},
		{403, "UnrelatedKeyIdInToken", apns.ReasonUnrelatedKeyIDInToken, resent},
		{403, "BadEnvironmentKeyIdInToken", apns.ReasonBadEnvironmentKeyIDInToken, refused},
		{404, "BadPath", apns.ReasonBadPath, rejected},
		{405, "MethodNotAllowed", apns.ReasonMethodNotAllowed, rejected},
		{410, "ExpiredToken", apns.ReasonExpiredToken, rejected},
		{410, "Unregistered", apns.ReasonUnregistered, rejected},
		{413, "PayloadTooLarge", apns.ReasonPayloadTooLarge, rejected},
		{429, "TooManyProviderTokenUpdates", apns.ReasonTooManyProviderTokenUpdates, resent},
		{429, "TooManyRequests", apns.ReasonTooManyRequests, retryable},
		{500, "InternalServerError", apns.ReasonInternalServerError, retryable},
		{503, "ServiceUnavailable", apns.ReasonServiceUnavailable, retryable},
		{503, "Shutdown", apns.ReasonShutdown, resent},
	} {
		t.Run(test.word, func(t *testing.T) {
			if string(test.reason) != test.word {
				t.Errorf("the constant is %q, want %q", test.reason, test.word)
			}
			server := inMemory(t, func(*apns.Message) error { return test.reason })
			c := http2Client(t, server.TokenConfig(), func(c *apns.Client) { c.Attempts = 1 })
			_, err := c.Push(t.Context(), device(1))
			e, isRejected := err.(*apns.PushError)
			switch {
			case test.want == refused:
				wantClass(t, err, "not sent", apns.ErrRefused, test.reason)
			case test.want == resent:
				wantClass(t, err, "not sent", test.reason)
			case !isRejected:
				t.Fatalf("got %v, want a *PushError", err)
			default:
				wantClass(t, err, "rejected", test.reason)
				if e.HTTPStatus != test.status || e.Retryable() != (test.want == retryable) {
					t.Errorf("got status %d, retryable %t, want %d, %t", e.HTTPStatus, e.Retryable(), test.status, test.want == retryable)
				}
			}
			if n := len(server.Messages(apnstest.Rejected)); n != 1 {
				t.Errorf("the server was asked %d times, want once", n)
			}
		})
	}
}
