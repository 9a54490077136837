package apns_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The error names the first character that is no digit, whatever the length of the token. It
// is the same wherever the token is checked, and has nothing of the token but that character.
func TestTokenErrors(t *testing.T) {
	digit := func(c string, index int) string {
		return fmt.Sprintf("token has %s at index %d, expected only hexadecimal digits", c, index)
	}
	tests := []struct {
		name, token string
		status      apns.Status
		want        string
	}{
		{"blank before", " " + token, apns.StatusInvalidToken, digit(`' '`, 0)},
		{"blank after", token + " ", apns.StatusInvalidToken, digit(`' '`, 64)},
		{"blanks within", token[:8] + " " + token[8:16] + " " + token[16:], apns.StatusInvalidToken, digit(`' '`, 8)},
		{"as NSData prints it", "<" + token[:8] + " " + token[8:] + ">", apns.StatusInvalidToken, digit(`'<'`, 0) + " (it looks like the description of an NSData: the app must send the bytes in hexadecimal)"},
		{"only the closing bracket", token + ">", apns.StatusInvalidToken, digit(`'>'`, 64)},
		{"line feed", token + "\n", apns.StatusInvalidToken, digit(`'\n'`, 64)},
		{"CR and line feed", token + "\r\n", apns.StatusInvalidToken, digit(`'\r'`, 64)},
		{"byte order mark", "\ufeff" + token, apns.StatusInvalidToken, digit(`'\ufeff'`, 0)},
		{"not UTF-8", token + "\xff", apns.StatusInvalidToken, digit(`'�'`, 64)},
		{"very long, blank after", strings.Repeat("ab", 5000) + " ", apns.StatusInvalidToken, digit(`' '`, 10000)},
		{"base64", "AMD/7gARIjNEVWZ3iJmqu8zd7v8BAgMEBQYHCAkKCww=", apns.StatusInvalidToken, digit(`'M'`, 1)},
		{"a blank alone", " ", apns.StatusInvalidToken, digit(`' '`, 0)},
		{"odd", token[1:], apns.StatusInvalidToken, "token has 63 characters, expected an even number of hexadecimal digits"},
	}
	s := inMemory(t, nil)
	conn := dialHTTP2(t, s.Config())
	for _, test := range tests {
		_, built := apns.BuildMsg(&apns.Message{Token: test.token, Payload: payload})
		_, appended := apns.AppendFeedback(nil, apns.Feedback{Token: test.token, DeadAt: expiry})
		for from, err := range map[string]error{
			"BuildMsg":       built,
			"AppendFeedback": appended,
			"Check":          apns.Feedback{Token: test.token}.Check(),
			"WritePushMsg":   conn.WritePushMsg(t.Context(), &apns.Message{Token: test.token, Payload: payload}),
		} {
			if err == nil || err.Error() != "apns: "+test.want || !errors.Is(err, test.status) || !errors.Is(err, apns.ErrInvalid) {
				t.Errorf("%s, %s:\ngot  %v\nwant apns: %s", test.name, from, err, test.want)
			}
		}
	}
	if r := s.Records(); len(r) != 0 {
		t.Errorf("server recorded %v, want nothing", r)
	}
}

// "Sending notification requests to APNs" states no size of a token. The limit of 100 bytes is
// that of Table A-2 in the chapter "Binary Provider API".
func TestLongTokens(t *testing.T) {
	var path string
	web := http2Server(t, func(_ http.ResponseWriter, r *http.Request) { path = r.URL.Path })
	c := dial(t, web.Listener.Addr().String(), trusting(web))
	for _, size := range []int{1, 100, 101, 160, 2048} {
		m := &apns.Message{Token: strings.Repeat("0a", size), Payload: payload}
		if err := c.WritePushMsg(t.Context(), m); err != nil || path != "/3/device/"+m.Token {
			t.Errorf("%d bytes: got %v, and a path of %d characters; want the token in the path", size, err, len(path))
		}
		_, err := apns.BuildMsg(m)
		if (err == nil) != (size <= 100) || err != nil && !errors.Is(err, apns.StatusInvalidTokenSize) {
			t.Errorf("%d bytes: BuildMsg: %v", size, err)
		}
	}
	m := &apns.Message{Token: strings.Repeat("0a", 2049), Payload: payload}
	wantClass(t, c.WritePushMsg(t.Context(), m), "invalid", apns.StatusInvalidTokenSize, apns.ReasonBadDeviceToken)
}

// A token that is within the limit, and not within the server's, is not resent.
func TestTokenOverHeaderLimit(t *testing.T) {
	s := inMemory(t, nil, func(s *apnstest.Server) { s.HTTP2.MaxHeaderListSize = 1000 })
	client := http2Client(t, s.Config())
	_, err := client.Push(t.Context(), &apns.Message{Token: strings.Repeat("0a", 500), Payload: payload})
	wantClass(t, err, "not sent")
	if !strings.Contains(fmt.Sprint(err), "1000") {
		t.Errorf("got %v, want an error with the server's limit of 1000", err)
	}
	if got := client.Stats(); got.Resent != 0 {
		t.Errorf("resent %d times, want 0", got.Resent)
	}
	_, err = client.Push(t.Context(), &apns.Message{Token: token, Payload: bytes.Clone(payload)})
	wantClass(t, err, "accepted")
}
