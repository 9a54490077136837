// Package explain says what an error means. It is shared by the programs, and names their
// flags.
package explain

import (
	"crypto/x509"
	"errors"
	"net"
	"time"

	"example.com/apns"
)

// Error returns a sentence or two on what an error means and what to do about it. For a reason
// or a status that has none here, it names the page that lists them. It returns an empty string
// if the error says enough, as that of a local check does.
func Error(err error) string {
	if errors.Is(err, apns.ErrInvalid) {
		return ""
	}
	for _, a := range reasons {
		if errors.Is(err, a.reason) {
			return a.text
		}
	}
	if text := connectionError(err); text != "" {
		return text
	}
	_, isReason := errors.AsType[apns.Reason](err)
	if _, isStatus := errors.AsType[apns.Status](err); isReason || isStatus {
		return "See docs/reasons.md."
	}
	return ""
}

// reasons has the reasons in the order in which they are looked for. What each of them means
// is in "Handling notification responses from APNs". The Status with the same meaning matches
// too.
var reasons = []struct {
	reason apns.Reason
	text   string
}{
	// About the sender.
	{apns.ReasonBadCertificate, "The server does not take the certificate. It may be revoked, or not for push notifications: make an Apple Push Notification service SSL certificate."},
	{apns.ReasonBadCertificateEnvironment, "The certificate is for the other environment. Give -sandbox, or leave it out; or make a certificate for both."},
	{apns.ReasonInvalidProviderToken, "The key, its key ID and the team ID do not belong together, or the two IDs are swapped, or the key is revoked, or this machine's clock is wrong. Compare the IDs with Apple's pages Keys and Membership."},
	{apns.ReasonMissingProviderToken, "No credentials reached the server. Give -p8 or -cert. If a proxy ends TLS on the way, a certificate cannot pass it: use a key."},
	{apns.ReasonBadEnvironmentKeyIDInToken, "The key is for the other environment. Give -sandbox, or leave it out; or make a key for both."},
	{apns.ReasonExpiredProviderToken, "The server's clock and this machine's differ by more than an hour. Set this machine's clock."},
	{apns.ReasonUnrelatedKeyIDInToken, "Another key was used on the same connection. Use a Client for each key."},
	{apns.ReasonTooManyProviderTokenUpdates, "The provider token was changed more than once in 20 minutes. Share one AuthKey among all that sends, and wait."},
	{apns.ReasonForbidden, "The credentials do not allow this request. Look at what the key is restricted to, on Apple's page Keys."},

	// About a message.
	{apns.ReasonBadDeviceToken, "The server does not know the token. It is valid in one environment alone: tokens of apps that Xcode runs need -sandbox, all others must not have it. It may also be another app's, or damaged."},
	{apns.ReasonDeviceTokenNotForTopic, "The token is another app's. Give the bundle ID of the app that registered the token, in -bundle-id."},
	{apns.ReasonBadTopic, "The topic does not fit the push type. Give the app's bundle ID in -bundle-id, and leave out -topic: the topic is then made as the -type demands."},
	{apns.ReasonTopicDisallowed, "The credentials are not for this topic. Compare -bundle-id with the app's bundle ID, the team of the key with the app's, and the topics to which the key or certificate is restricted."},
	{apns.ReasonMissingTopic, "The credentials are for several apps. Say which one, in -bundle-id."},
	{apns.ReasonInvalidPushType, "The server does not know the -type."},
	{apns.ReasonPayloadTooLarge, "The payload is too large: 4,096 bytes are allowed, and 5,120 for the -type voip."},
	{apns.ReasonUnregistered, "The app was removed from the device. Delete the token, unless the app registered it again after that time."},
	{apns.ReasonExpiredToken, "The token has expired. Delete it, unless the app registered it again after that time."},
	{apns.ReasonTooManyRequests, "The device got too many notifications in a short time. Try again later."},
	{apns.ReasonInternalServerError, "The server failed. Apple asks to wait 15 minutes before another attempt."},
	{apns.ReasonServiceUnavailable, "The server is not available. Apple asks to wait 15 minutes before another attempt."},
}

// connectionError is Error for an error of a connection.
func connectionError(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "This machine does not trust the server's certificate. Install the system's CA certificates; or, if a proxy or a gateway has a certificate of its own, give its authority in -ca."
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "Another server answers at this address, or a proxy does."
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "The server's certificate is not valid at the time of this machine's clock, " + time.Now().UTC().Format(time.RFC3339) + ". Set the clock if it is wrong."
	}
	if errors.Is(err, apns.ErrRefused) {
		return "The server demands a certificate of an authority that it trusts. Apple's servers take a provider certificate or a key, a binary gateway takes only a certificate of its own authority."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "The name of the server cannot be looked up. Check its spelling and this machine's network."
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return "The server cannot be reached. A firewall may be in the way: Apple's servers listen on the ports 443 and 2197."
	}
	return ""
}
