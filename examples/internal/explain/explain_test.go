package explain

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"example.com/apns"
)

func TestError(t *testing.T) {
	invalid := fmt.Errorf("%w: %w", apns.ErrInvalid, apns.ReasonBadTopic)
	for want, errs := range map[string][]error{
		"": {nil, errors.New("x"), invalid, apns.ErrNotSent, &apns.PushError{HTTPStatus: 400}},
		"See docs/reasons.md.": {apns.ReasonShutdown, apns.StatusShutdown, apns.StatusProtocolError, &apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadPriority},
			&apns.PushError{HTTPStatus: 400, Reason: "NeverHeardOf"}, fmt.Errorf("%w: %w", apns.ErrNotSent, apns.ReasonIdleTimeout)},
		"The server does not know the token.": {apns.ReasonBadDeviceToken, apns.StatusInvalidToken, apns.StatusInvalidTokenSize,
			&apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken}, &apns.PushError{Status: apns.StatusInvalidToken}},
		"The topic does not fit the push type.":             {fmt.Errorf("x: %w", &apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadTopic})},
		"The token is another app's.":                       {apns.ReasonDeviceTokenNotForTopic},
		"The credentials are not for this topic.":           {apns.ReasonTopicDisallowed},
		"The key is for the other environment.":             {apns.ReasonBadEnvironmentKeyIDInToken, apns.Reason("BadEnvironmentKeyInToken")},
		"The server demands a certificate of an authority ": {apns.ErrRefused},
		"The server is not available.":                      {apns.ReasonServiceUnavailable, apns.Reason("Service Unavailable")},
		"This machine does not trust the server's":          {fmt.Errorf("x: %w", x509.UnknownAuthorityError{})},
		"Another server answers at this address":            {x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}},
		"The server's certificate is not valid at the time": {x509.CertificateInvalidError{Reason: x509.Expired}},
		"The name of the server cannot be looked up.":       {&net.OpError{Op: "dial", Err: &net.DNSError{}}},
		"The server cannot be reached.":                     {&net.OpError{Op: "dial", Err: errors.New("refused")}},
	} {
		for _, err := range errs {
			if got := Error(err); !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%v: got %q, want %q", err, got, want)
			}
		}
	}
	for _, a := range reasons {
		if got := Error(a.reason); got != a.text || !strings.HasSuffix(got, ".") {
			t.Errorf("%v: got %q, want %q and sentences", a.reason, got, a.text)
		}
	}
}
