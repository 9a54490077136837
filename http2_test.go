package apns_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

func dialHTTP2(t *testing.T, config *apns.Config) *apns.Conn {
	t.Helper()
	return dial(t, apns.Production, config)
}

func TestHTTP2Accepted(t *testing.T) {
	for _, memory := range []bool{true, false} {
		for _, token := range []bool{true, false} {
			run := func(t *testing.T) {
				s := apnstest.NewUnstartedServer(nil)
				s.InMemory = memory
				s.Start()
				t.Cleanup(s.Close)
				config := s.Config()
				if token {
					config = s.TokenConfig()
				}
				c := dialHTTP2(t, config)
				if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
					t.Fatalf("negotiated %q, want h2", p)
				}
				for id := range uint32(5) {
					if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
						t.Error(err)
					}
				}
				if err := c.CheckForError(); err != nil {
					t.Errorf("CheckForError: %v, want nil", err)
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				wantErr(t, c.CheckForError(), net.ErrClosed)
				wantErr(t, c.WritePushMsg(t.Context(), message(6)), apns.ErrNotSent, net.ErrClosed)
				if n := len(s.Messages(apnstest.Accepted)); n != 5 {
					t.Errorf("server accepted %d messages, want 5", n)
				}
			}
			if memory {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		}
	}
}

// What the fields of a Message are on the wire: "Sending notification requests to
// APNs", table "Header fields for a POST request".
func TestHTTP2Headers(t *testing.T) {
	var got http.Header
	web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		got[":method"], got[":path"] = []string{r.Method}, []string{r.URL.Path}
		body, _ := io.ReadAll(r.Body)
		got["body"] = []string{string(body)}
	})
	config := trusting(web)
	config.BundleID = "com.example.default"
	c := dial(t, web.Listener.Addr().String(), config)
	base := http.Header{":method": {"POST"}, ":path": {"/3/device/" + token}, "body": {string(payload)}, "Content-Length": {fmt.Sprint(len(payload))}}
	with := func(pairs ...string) http.Header {
		h := base.Clone()
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	const id = "123e4567-e89b-12d3-a456-4266554400a0"
	for name, test := range map[string]struct {
		m    apns.Message
		want http.Header
	}{
		"nothing set": {apns.Message{}, with("Apns-Topic", "com.example.default", "Apns-Push-Type", "alert")},
		"all set": {apns.Message{Topic: "com.example.app.voip", PushType: apns.PushTypeVoIP, Priority: apns.PriorityImmediate, Expiry: expiry, CollapseID: "c o", APNsID: id},
			with("Apns-Topic", "com.example.app.voip", "Apns-Push-Type", "voip", "Apns-Priority", "10", "Apns-Expiration", "1700000000", "Apns-Collapse-Id", "c o", "Apns-Id", id)},
		"now or never": {apns.Message{Topic: "t", Expiry: time.Unix(0, 0), Priority: apns.PriorityLowest}, with("Apns-Topic", "t", "Apns-Push-Type", "alert", "Apns-Expiration", "0", "Apns-Priority", "1")},
		"long ago":     {apns.Message{Topic: "t", Expiry: time.Unix(-5, 0)}, with("Apns-Topic", "t", "Apns-Push-Type", "alert", "Apns-Expiration", "0")},
		"background":   {apns.Message{Topic: "t", PushType: apns.PushTypeBackground}, with("Apns-Topic", "t", "Apns-Push-Type", "background", "Apns-Priority", "5")},
		"its own type": {apns.Message{Topic: "t", PushType: "new"}, with("Apns-Topic", "t", "Apns-Push-Type", "new")},
	} {
		for range 2 { // nothing is left over from the one before
			test.m.Token, test.m.Payload = token, payload
			if err := c.WritePushMsg(t.Context(), &test.m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s:\ngot  %v\nwant %v", name, got, test.want)
			}
		}
	}
}

// http2Server starts a web server that speaks HTTP/2 and has nothing of Apple's.
func http2Server(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	web := httptest.NewUnstartedServer(handler)
	web.EnableHTTP2 = true
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	return web
}

func trusting(web *httptest.Server) *apns.Config {
	config := &apns.Config{TLS: &tls.Config{RootCAs: x509.NewCertPool()}}
	config.TLS.RootCAs.AddCert(web.Certificate())
	return config
}

// A message that breaks a rule is not sent, and its error matches what Apple
// would have said.
func TestHTTP2LocalChecks(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	config := s.TokenConfig()
	config.BundleID = ""
	c := dialHTTP2(t, config)
	for name, test := range map[string]struct {
		m      apns.Message
		reason apns.Reason
		text   string
	}{
		"no token":      {apns.Message{Payload: payload, Topic: "t"}, apns.ReasonMissingDeviceToken, "token is empty"},
		"bad token":     {apns.Message{Token: "../0", Payload: payload, Topic: "t"}, apns.ReasonBadDeviceToken, "token has '.' at index 0"},
		"long token":    {apns.Message{Token: strings.Repeat("ab", 2049), Payload: payload, Topic: "t"}, apns.ReasonBadDeviceToken, "token has 4098 characters, expected at most 4096 hexadecimal digits"},
		"no payload":    {apns.Message{Token: token, Topic: "t"}, apns.ReasonPayloadEmpty, "payload is empty, expected 1 to 4096 bytes of JSON"},
		"long payload":  {apns.Message{Token: token, Payload: make([]byte, 4097), Topic: "t"}, apns.ReasonPayloadTooLarge, "payload has 4097 bytes, expected at most 4096"},
		"long VoIP":     {apns.Message{Token: token, Payload: make([]byte, 5121), Topic: "t", PushType: apns.PushTypeVoIP}, apns.ReasonPayloadTooLarge, "payload has 5121 bytes, expected at most 5120"},
		"no topic":      {apns.Message{Token: token, Payload: payload}, apns.ReasonMissingTopic, "topic is empty, and so is Config.BundleID, expected one of them: a key, unlike a certificate, is not for one app"},
		"bad topic":     {apns.Message{Token: token, Payload: payload, Topic: "a\r\nb"}, apns.ReasonBadTopic, `topic is "a\r\nb", expected printable ASCII`},
		"bad push type": {apns.Message{Token: token, Payload: payload, Topic: "t", PushType: "ü"}, apns.ReasonInvalidPushType, "push type is"},
		"priority":      {apns.Message{Token: token, Payload: payload, Topic: "t", Priority: 3}, apns.ReasonBadPriority, "priority is 3, expected 10, 5 or 1, or 0 to leave it out"},
		"collapse ID":   {apns.Message{Token: token, Payload: payload, Topic: "t", CollapseID: strings.Repeat("x", 65)}, apns.ReasonBadCollapseID, "collapse ID has 65 bytes, expected at most 64"},
		"collapse text": {apns.Message{Token: token, Payload: payload, Topic: "t", CollapseID: "\x00"}, apns.ReasonBadCollapseID, "collapse ID is"},
		"APNs ID":       {apns.Message{Token: token, Payload: payload, Topic: "t", APNsID: "123e4567e89b12d3a4564266554400a0"}, apns.ReasonBadMessageID, "APNs ID is"},
	} {
		err := c.WritePushMsg(t.Context(), &test.m)
		wantErr(t, err, test.reason)
		if !strings.HasPrefix(fmt.Sprint(err), "apns: "+test.text) {
			t.Errorf("%s:\ngot  %v\nwant apns: %s", name, err, test.text)
		}
	}
	if r := s.Records(); len(r) != 0 {
		t.Errorf("server recorded %v, want nothing", r)
	}
}

// Every reason of "Handling notification responses from APNs" comes through, and
// any other.
// Every byte at every place of a token: what is no hexadecimal digit is ErrInvalid, and the
// error names the place.
func TestHTTP2TokenDigits(t *testing.T) {
	s := inMemory(t, nil)
	c := dialHTTP2(t, s.Config())
	for at := range 22 { // eight digits are looked at together, and the last six one by one
		for b := range 256 {
			token := []byte("0123456789abcdefABCDEF")
			token[at] = byte(b)
			m := message(1)
			m.Token = string(token)
			err := c.WritePushMsg(t.Context(), m)
			if _, hexErr := hex.DecodeString(m.Token); hexErr == nil {
				if err != nil {
					t.Fatalf("%#x at index %d: got %v, want no error", b, at, err)
				}
			} else if place := fmt.Sprintf("at index %d,", at); !errors.Is(err, apns.ErrInvalid) || !strings.Contains(err.Error(), place) {
				t.Fatalf("%#x at index %d: got %v, want ErrInvalid that says %q", b, at, err, place)
			}
		}
	}
}

func TestHTTP2Rejections(t *testing.T) {
	deadAt := time.UnixMilli(1700000000123).UTC()
	for _, want := range []apns.PushError{
		{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken},
		{HTTPStatus: 403, Reason: apns.ReasonForbidden},
		{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt},
		{HTTPStatus: 410, Reason: apns.ReasonExpiredToken, DeadAt: deadAt},
		{HTTPStatus: 413, Reason: apns.ReasonPayloadTooLarge},
		{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 7 * time.Second},
		{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests},
		{HTTPStatus: 500, Reason: apns.ReasonInternalServerError},
		{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Hour},
		{HTTPStatus: 503, Reason: "Service Unavailable"},
		{HTTPStatus: 418, Reason: "NeverHeardOf"},
		{HTTPStatus: 400},
	} {
		synctest.Test(t, func(t *testing.T) {
			const id = "123e4567-e89b-12d3-a456-4266554400a0"
			s := inMemory(t, rejecting(0, &want))
			c := dialHTTP2(t, s.Config())
			m := message(7)
			m.APNsID = id
			err := c.WritePushMsg(t.Context(), m)
			e, ok := err.(*apns.PushError)
			if !ok {
				t.Fatalf("got %v, want a *PushError", err)
			}
			want.ID, want.APNsID = 7, id
			if *e != want {
				t.Errorf("got  %+v\nwant %+v", *e, want)
			}
			if want.Reason == "Service Unavailable" && !errors.Is(err, apns.ReasonServiceUnavailable) {
				t.Errorf("%v does not match the other spelling", err)
			}
			if !e.Rejected() || want.Reason != "" && !errors.Is(err, want.Reason) || errors.Is(err, apns.StatusNoError) {
				t.Errorf("%v: want it rejected, to match its reason and no status", err)
			}
			if err := c.CheckForError(); err != nil {
				t.Errorf("CheckForError: %v; the connection is as good as before", err)
			}
		})
	}
	if got, want := (&apns.PushError{ID: 7, HTTPStatus: 410, Reason: "Unregistered", DeadAt: deadAt}).Error(), "apns: message 7 rejected: Unregistered (HTTP status 410, dead since 2023-11-14T22:13:20Z)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A Status matches the Reason that says the same, and never the other way round.
func TestStatusMatchesReason(t *testing.T) {
	for status, want := range map[apns.Status]apns.Reason{
		0: "", 1: apns.ReasonInternalServerError, 2: apns.ReasonMissingDeviceToken, 3: apns.ReasonMissingTopic, 4: apns.ReasonPayloadEmpty,
		5: apns.ReasonBadDeviceToken, 6: apns.ReasonBadTopic, 7: apns.ReasonPayloadTooLarge, 8: apns.ReasonBadDeviceToken,
		10: apns.ReasonShutdown, 42: apns.ReasonInternalServerError, 128: "", 255: apns.ReasonInternalServerError,
	} {
		e := &apns.PushError{Status: status}
		for _, reason := range []apns.Reason{"", apns.ReasonInternalServerError, apns.ReasonMissingDeviceToken, apns.ReasonMissingTopic, apns.ReasonPayloadEmpty,
			apns.ReasonBadDeviceToken, apns.ReasonBadTopic, apns.ReasonPayloadTooLarge, apns.ReasonShutdown, apns.ReasonUnregistered} {
			if got := errors.Is(e, reason); got != (reason == want && want != "") {
				t.Errorf("status %d is %q: %v", status, reason, got)
			}
			if errors.Is(&apns.PushError{HTTPStatus: 400, Reason: reason}, status) {
				t.Errorf("%q is status %d", reason, status)
			}
		}
	}
}

// What each answer means. The reasons, and their HTTP status, are those of "Handling
// notification responses from APNs". What has no reason did not come from APNs: a
// proxy may answer so after it has passed the message on.
func TestHTTP2Answers(t *testing.T) {
	var rejected = errors.New("a *PushError")
	reason := func(r apns.Reason) string { return fmt.Sprintf(`{"reason":%q}`, r) }
	for _, test := range []struct {
		status  int
		body    string
		matches []error // that the error of the push matches; none: accepted
		text    string  // that it has
		ends    bool    // the connection takes no more messages
	}{
		{200, "", nil, "", false},
		{200, "OK", nil, "", false},

		{403, reason(apns.ReasonBadCertificate), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadCertificate}, "the server refuses this sender: BadCertificate (HTTP status 403)", false},
		{403, reason(apns.ReasonBadCertificateEnvironment), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadCertificateEnvironment}, "", false},
		{403, reason(apns.ReasonInvalidProviderToken), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonInvalidProviderToken}, "", false},
		{403, reason(apns.ReasonMissingProviderToken), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonMissingProviderToken}, "MissingProviderToken (HTTP status 403): Config has neither a Key nor a certificate", false},
		{403, reason(apns.ReasonBadEnvironmentKeyIDInToken), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadEnvironmentKeyIDInToken}, "", false},
		{403, reason("BadEnvironmentKeyInToken"), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadEnvironmentKeyIDInToken}, "", false},
		{403, reason(apns.ReasonExpiredProviderToken), []error{apns.ErrNotSent, apns.ErrRefused, apns.ReasonExpiredProviderToken}, "", false}, // there is no key that could sign another

		{403, reason(apns.ReasonUnrelatedKeyIDInToken), []error{apns.ErrNotSent, apns.ReasonUnrelatedKeyIDInToken}, "takes no more messages on this connection: UnrelatedKeyIdInToken", true},
		{400, reason(apns.ReasonIdleTimeout), []error{apns.ErrNotSent, apns.ReasonIdleTimeout}, "", true},
		{503, reason(apns.ReasonShutdown), []error{apns.ErrNotSent, apns.ReasonShutdown}, "", true},
		{429, reason(apns.ReasonTooManyProviderTokenUpdates), []error{apns.ErrNotSent, apns.ReasonTooManyProviderTokenUpdates}, "", false},

		{429, reason(apns.ReasonTooManyRequests), []error{rejected, apns.ReasonTooManyRequests}, "", false},
		{500, reason(apns.ReasonInternalServerError), []error{rejected, apns.ReasonInternalServerError}, "", false},
		{503, reason(apns.ReasonServiceUnavailable), []error{rejected, apns.ReasonServiceUnavailable}, "", false},
		{503, reason("Service Unavailable"), []error{rejected, apns.ReasonServiceUnavailable}, "", false},
		{403, reason(apns.ReasonForbidden), []error{rejected, apns.ReasonForbidden}, "", false},
		{403, reason(apns.ReasonTopicMismatch), []error{rejected, apns.ReasonTopicMismatch}, "", false},
		{400, reason(apns.ReasonBadDeviceToken), []error{rejected, apns.ReasonBadDeviceToken}, "", false},
		{410, reason(apns.ReasonUnregistered), []error{rejected, apns.ReasonUnregistered}, "", false},
		{418, reason("NeverHeardOf"), []error{rejected, apns.Reason("NeverHeardOf")}, "", false},
		{502, reason("NeverHeardOf"), []error{rejected, apns.Reason("NeverHeardOf")}, "", false},

		{500, "", []error{apns.ErrInDoubt}, "HTTP status 500 without a reason from APNs", false},
		{502, "<html>Bad gateway</html>", []error{apns.ErrInDoubt}, `HTTP status 502 without a reason from APNs, and the body begins with "<html>Bad gateway</html>"`, false},
		{503, "no healthy upstream", []error{apns.ErrInDoubt}, `"no healthy upstream"`, false},
		{504, strings.Repeat("x", 1<<20), []error{apns.ErrInDoubt}, `begins with "` + strings.Repeat("x", 100) + `"`, false},
		{504, `{"reason":7}`, []error{apns.ErrInDoubt}, "HTTP status 504", false},
		{504, `{"reason":""}`, []error{apns.ErrInDoubt}, "HTTP status 504", false},
		{504, `[]`, []error{apns.ErrInDoubt}, "HTTP status 504", false},
		{504, `{"reason":"Shut`, []error{apns.ErrInDoubt}, "HTTP status 504", false},
		{408, "Request Timeout", []error{apns.ErrInDoubt}, "HTTP status 408", false},
		{204, "", []error{apns.ErrInDoubt}, "HTTP status 204", false},
		{299, "", []error{apns.ErrInDoubt}, "HTTP status 299", false},
		{301, "", []error{apns.ErrInDoubt}, "HTTP status 301", false},
		{599, "", []error{apns.ErrInDoubt}, "HTTP status 599", false},

		{400, "", []error{rejected}, "rejected: no reason given (HTTP status 400)", false},
		{404, "<html>Not found</html>", []error{rejected}, "no reason given (HTTP status 404)", false},
		{410, "", []error{rejected}, "no reason given (HTTP status 410)", false},
		{421, "", []error{rejected}, "no reason given (HTTP status 421)", false},
		{429, "Too many", []error{rejected}, "no reason given (HTTP status 429)", false},
	} {
		name := fmt.Sprintf("%d %.30s", test.status, test.body)
		web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(test.status)
			io.WriteString(w, test.body)
		})
		c := dial(t, web.Listener.Addr().String(), trusting(web))
		err := c.WritePushMsg(t.Context(), message(7))
		e, isRejected := err.(*apns.PushError)
		switch {
		case len(test.matches) == 0:
			if err != nil {
				t.Errorf("%s: got %v, want nil", name, err)
			}
		case test.matches[0] == rejected:
			if !isRejected || e.HTTPStatus != test.status || e.ID != 7 || !e.DeadAt.IsZero() || e.RetryAfter != 7*time.Second {
				t.Errorf("%s: got %#v, want a *PushError with that status", name, err)
			} else if len(test.matches) > 1 && !errors.Is(err, test.matches[1]) {
				t.Errorf("%s: got %v, want one that matches %v", name, err, test.matches[1])
			}
		default:
			wantErr(t, err, test.matches...)
			if errors.Is(err, apns.ErrRefused) != slices.Contains(test.matches, apns.ErrRefused) {
				t.Errorf("%s: %v: matches ErrRefused: %v, want %v", name, err, errors.Is(err, apns.ErrRefused), slices.Contains(test.matches, apns.ErrRefused))
			}
		}
		if !strings.Contains(fmt.Sprint(err), test.text) {
			t.Errorf("%s: got %v, want a text with %s", name, err, test.text)
		}
		if ended := c.CheckForError(); (ended != nil) != test.ends {
			t.Errorf("%s: CheckForError: %v, want that the connection has ended: %v", name, ended, test.ends)
		}
	}
}

// The configuration is not blamed for a missing provider token if it has a certificate.
func TestHTTP2MissingProviderToken(t *testing.T) {
	web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		io.WriteString(w, `{"reason":"MissingProviderToken"}`)
	})
	config := trusting(web)
	config.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	err := dial(t, web.Listener.Addr().String(), config).WritePushMsg(t.Context(), message(7))
	wantErr(t, err, apns.ErrNotSent, apns.ErrRefused, apns.ReasonMissingProviderToken)
	if !strings.HasSuffix(err.Error(), "MissingProviderToken (HTTP status 403)") {
		t.Errorf("got %v, want no word about Config", err)
	}
}

// Only a 410 says since when a token is dead, in milliseconds. Others have been seen
// to write seconds, or a number with a fraction.
func TestHTTP2DeadAt(t *testing.T) {
	at := time.UnixMilli(1700000000123).UTC()
	for _, test := range []struct {
		status    int
		timestamp string
		want      time.Time
	}{
		{410, "1700000000123", at},
		{410, "1700000000123.9", at},
		{410, "1.700000000123e12", at},
		{410, "1700000000", at.Truncate(time.Second)},
		{410, "1700000000.123", at},
		{410, "0", time.Time{}},
		{410, "-5", time.Time{}},
		{410, "1e300", time.Time{}},
		{410, "null", time.Time{}},
		{410, `"1700000000123"`, time.Time{}},
		{410, `1700000000123,"reason":""`, time.Time{}},
		{400, "1700000000123", time.Time{}},
		{403, "1700000000123", time.Time{}},
	} {
		web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprintf(w, `{"reason":"NeverHeardOf","timestamp":%s}`, test.timestamp)
		})
		c := dial(t, web.Listener.Addr().String(), trusting(web))
		err := c.WritePushMsg(t.Context(), message(7))
		want := apns.PushError{ID: 7, HTTPStatus: test.status, Reason: "NeverHeardOf", DeadAt: test.want}
		if strings.Contains(test.timestamp, "reason") {
			want.Reason = ""
		}
		if e, ok := err.(*apns.PushError); !ok || *e != want {
			t.Errorf("status %d, timestamp %s:\ngot  %#v\nwant %#v", test.status, test.timestamp, err, want)
		}
	}
}

// The header of a request is larger than the server takes: that is known at once,
// and no attempt is made. (SETTINGS_MAX_HEADER_LIST_SIZE, RFC 9113, section 6.5.2)
func TestHTTP2HeaderLimit(t *testing.T) {
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	web.EnableHTTP2 = true
	web.Config.MaxHeaderBytes = 100
	web.StartTLS()
	defer web.Close()
	addr := web.Listener.Addr().String()
	c := dial(t, addr, trusting(web))
	for range 2 {
		m := message(7)
		m.CollapseID = strings.Repeat("x", 64)
		m.Topic = strings.Repeat("com.example.", 1000)
		err := c.WritePushMsg(t.Context(), m)
		wantErr(t, err, apns.ErrNotSent)
		if want := "the request's header has 12508 bytes, and the server takes at most 420"; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want a text with %s", err, want)
		}
	}
	client := &apns.Client{Addr: addr, Config: trusting(web)}
	defer client.Close()
	start := time.Now()
	m := message(7)
	m.Topic = strings.Repeat("com.example.", 1000)
	_, err := client.Push(t.Context(), m)
	wantErr(t, err, apns.ErrNotSent)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the push took %v, want it to fail at once", d)
	}
	if s := client.Stats(); s.Resent != 0 {
		t.Errorf("the message was sent %d times more, want none", s.Resent)
	}
	if _, err := client.Push(t.Context(), message(8)); err != nil {
		t.Errorf("a message with a smaller header: %v", err)
	}
}

// GODEBUG=http2client=0 disables net/http's HTTP/2 client, not ours.
func TestHTTP2WithNetHTTPDisabled(t *testing.T) {
	t.Setenv("GODEBUG", "http2client=0")
	s := apnstest.NewServer(nil)
	defer s.Close()
	if err := dialHTTP2(t, s.Config()).WritePushMsg(t.Context(), message(1)); err != nil {
		t.Error(err)
	}
}

// An address that can never be dialed is an error at once, also of a Client, which
// dials again in other cases.
func TestBadAddresses(t *testing.T) {
	for _, addr := range []string{
		"https://api.push.apple.com", "https://api.push.apple.com:443", "api.push.apple.com", "api.push.apple.com:443/", "api.push.apple.com:",
		"api.push.apple.com:70000", "api.push.apple.com:0", "api.push.apple.com:-1", "api.push.apple.com: 443", "api.push.apple.com :443",
		" api.push.apple.com:443", "api.push.apple.com:443 ", "api push:443", "user@host:443", "host/path:443", "host\n:443", ":443", "", "::1:443",
	} {
		_, err := apns.Dial(t.Context(), addr, nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("apns: address %q, expected host:port", addr)) {
			t.Errorf("Dial(%q): got %v, want what is expected", addr, err)
		}
		if addr == "" {
			continue // that of a Client is then Production
		}
		c := &apns.Client{Addr: addr}
		start := time.Now()
		_, err = c.Push(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("Push to %q took %v, want it to fail at once", addr, d)
		}
		c.Close()
	}
	for _, addr := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1", "localhost.:1"} {
		if _, err := apns.Dial(t.Context(), addr, nil); err == nil || strings.Contains(err.Error(), "expected host:port") {
			t.Errorf("Dial(%q): got %v, want that nobody is there", addr, err)
		}
	}
}

// The server's stream limit changes while a thousand goroutines push: nobody
// hangs, nobody fails, nobody opens another connection. The server ends a
// connection that exceeds its limit.
func TestHTTP2StreamLimits(t *testing.T) {
	for _, token := range []bool{false, true} {
		t.Run(fmt.Sprint("token ", token), func(t *testing.T) {
			var s *apnstest.Server
			var n atomic.Int32
			var changes sync.WaitGroup
			defer changes.Wait()
			limits := []int{2, 100, 1, 100, 2, 1}
			s = apnstest.NewUnstartedServer(func(m *apns.Message) error {
				switch i := n.Add(1); {
				case i%700 == 0:
					limit := limits[int(i/700)%len(limits)]
					changes.Go(func() { s.SetStreamLimit(limit) })
				case i%3 == 0:
					return apnstest.Fault{Err: apns.StatusNoError, Delay: 100 * time.Microsecond}
				}
				return nil
			})
			s.StreamLimit = 1
			s.Start()
			defer s.Close()
			config := s.Config()
			if token {
				config = s.TokenConfig()
			}
			var dials atomic.Int32
			next := config.DialContext
			config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials.Add(1)
				return next(ctx, network, addr)
			}
			c := dialHTTP2(t, config)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			for g := range uint32(1000) {
				wg.Go(func() {
					for i := range uint32(5) {
						if err := c.WritePushMsg(ctx, message(g*5+i)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			if n := len(s.Messages(apnstest.Accepted)); n != 5000 || dials.Load() != 1 {
				t.Errorf("server accepted %d messages on %d connections, want 5000 on 1", n, dials.Load())
			}
		})
	}
}

// With provider tokens there is one stream until a message was accepted, whatever
// the server allows. ("Establishing a connection to Apple Push Notification
// service (APNs)")
func TestHTTP2FirstMessageGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		s := inMemory(t, func(*apns.Message) error {
			if first {
				first = false
				return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Hour}
			}
			return nil
		})
		c := dialHTTP2(t, s.TokenConfig())
		var wg sync.WaitGroup
		for id := range uint32(10) {
			wg.Go(func() {
				if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		if n := len(s.Records()); n != 1 {
			t.Errorf("server has %d messages while the first has no answer, want 1", n)
		}
		// A context ends the waiting, and nothing was sent.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, c.WritePushMsg(ctx, message(99)), apns.ErrNotSent, context.DeadlineExceeded)
		wg.Wait()
		if n := len(s.Messages(apnstest.Accepted)); n != 10 {
			t.Errorf("server accepted %d messages, want 10", n)
		}
	})
}

// How each way to end a stream or the connection shows.
func TestHTTP2Ends(t *testing.T) {
	for name, test := range map[string]struct {
		fault   apnstest.Fault
		outcome error
		ended   error // what CheckForError matches; nil: the connection lives
	}{
		"reset":              {apnstest.Fault{End: apnstest.EndRST}, apns.ErrInDoubt, nil},
		"reset, but taken":   {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}, apns.ErrInDoubt, nil},
		"refused":            {apnstest.Fault{End: apnstest.EndRefusedStream}, apns.ErrNotSent, nil},
		"hard GOAWAY":        {apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}, apns.ErrNotSent, apns.ReasonShutdown},
		"hard, of no reason": {apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}, apns.ErrNotSent, errAny},
		"GOAWAY":             {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonIdleTimeout}, nil, apns.ReasonIdleTimeout},
		"GOAWAY, late":       {apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Delay: time.Minute, Reason: apns.ReasonServiceUnavailable}, nil, apns.ReasonServiceUnavailable},
		"shutdown":           {apnstest.Fault{Err: apns.StatusShutdown}, nil, apns.ReasonShutdown},
		"closed":             {apnstest.Fault{End: apnstest.EndFINThenRST}, apns.ErrInDoubt, errAny},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(m *apns.Message) error {
				if m.CollapseID == "fault" {
					return test.fault
				}
				return nil
			})
			c := dialHTTP2(t, s.Config())
			if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			m := message(2)
			m.CollapseID = "fault"
			err := c.WritePushMsg(t.Context(), m)
			t.Logf("%s: %v", name, err)
			if test.outcome == nil && err != nil {
				t.Errorf("%s: got %v, want nil", name, err)
			} else if test.outcome != nil {
				wantErr(t, err, test.outcome)
			}
			synctest.Wait()
			ended := c.CheckForError()
			switch test.ended {
			case nil:
				if ended != nil {
					t.Errorf("%s: CheckForError: %v, want nil", name, ended)
				}
				if err := c.WritePushMsg(t.Context(), message(3)); err != nil {
					t.Errorf("%s: the next message: %v", name, err)
				}
			default:
				t.Logf("%s: CheckForError: %v", name, ended)
				if ended == nil || test.ended != errAny && !errors.Is(ended, test.ended) {
					t.Errorf("%s: CheckForError: got %v, want %v", name, ended, test.ended)
				}
				err := c.WritePushMsg(t.Context(), message(3))
				if test.ended != errAny {
					wantErr(t, err, apns.ErrNotSent, test.ended)
				} else {
					wantErr(t, err, apns.ErrNotSent)
				}
			}
		})
	}
}

var errAny = errors.New("any error")

// A GOAWAY whose reason is about some message says nothing about any other.
func TestHTTP2GoAwayAboutAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(0, apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonBadDeviceToken}))
		c := dialHTTP2(t, s.Config())
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantErr(t, c.CheckForError(), apns.ReasonBadDeviceToken)
		err := c.WritePushMsg(t.Context(), message(2))
		wantErr(t, err, apns.ErrNotSent)
		if errors.Is(err, apns.ReasonBadDeviceToken) || !strings.Contains(err.Error(), "BadDeviceToken") {
			t.Errorf("got %v, want the reason in the text alone", err)
		}
	})
}

// What ended a connection stays what it is.
func TestHTTP2EndingStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, rejecting(0, apnstest.Fault{End: apnstest.EndFINThenRST}))
		c := dialHTTP2(t, s.Config())
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrInDoubt)
		synctest.Wait()
		before := c.CheckForError()
		c.Shutdown(t.Context())
		c.Close()
		if after := c.CheckForError(); before == nil || after == nil || before.Error() != after.Error() {
			t.Errorf("CheckForError: %v, and after Shutdown %v", before, after)
		}
	})
}

// A graceful GOAWAY lets what is on its way come to its end.
func TestHTTP2Drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, func(m *apns.Message) error {
			f := apnstest.Fault{Err: apns.StatusNoError, Delay: time.Minute}
			if m.CollapseID == "fault" {
				f.End, f.Delay, f.Reason = apnstest.EndGoAway, time.Second, apns.ReasonShutdown
			}
			return f
		})
		c := dialHTTP2(t, s.Config())
		var wg sync.WaitGroup
		for id := range uint32(50) {
			wg.Go(func() {
				m := message(id)
				if id == 25 {
					m.CollapseID = "fault"
				}
				if err := c.WritePushMsg(t.Context(), m); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(2 * time.Second)
		wantErr(t, c.CheckForError(), apns.ReasonShutdown)
		start := time.Now()
		wantErr(t, c.WritePushMsg(t.Context(), message(99)), apns.ErrNotSent, apns.ReasonShutdown)
		if d := time.Since(start); d != 0 {
			t.Errorf("a new message was refused after %v, want at once", d)
		}
		wg.Wait()
	})
}

// Shutdown waits for the answers, and turns away what comes meanwhile.
func TestHTTP2Shutdown(t *testing.T) {
	for _, patience := range []time.Duration{time.Hour, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(m *apns.Message) error {
				return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Minute}
			}, func(s *apnstest.Server) { s.StreamLimit = 5 })
			c := dialHTTP2(t, s.Config())
			var wg sync.WaitGroup
			var accepted, notSent, inDoubt atomic.Int32
			for id := range uint32(10) {
				wg.Go(func() {
					err := c.WritePushMsg(t.Context(), message(id))
					switch {
					case err == nil:
						accepted.Add(1)
					case errors.Is(err, apns.ErrNotSent):
						notSent.Add(1)
					case errors.Is(err, apns.ErrInDoubt):
						inDoubt.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := c.Shutdown(ctx)
			wg.Wait()
			got := [3]int32{accepted.Load(), notSent.Load(), inDoubt.Load()}
			if patience == time.Hour {
				if want := [3]int32{5, 5, 0}; err != nil || got != want {
					t.Errorf("Shutdown: %v; accepted, not sent, in doubt: %v, want %v", err, got, want)
				}
			} else {
				wantErr(t, err, context.DeadlineExceeded)
				if want := [3]int32{0, 5, 5}; got != want {
					t.Errorf("accepted, not sent, in doubt: %v, want %v", got, want)
				}
			}
		})
	}
}

// A connection that goes away while nothing happens does not hang the next push; nor
// does one that dies without a word. While messages are in flight, that shows after
// 20 seconds.
func TestHTTP2DeathIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		c := dialHTTP2(t, s.Config())
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		synctest.Wait()
		if err := c.CheckForError(); err == nil {
			t.Error("CheckForError: nil, want that the server closed the connection")
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrNotSent)
	})
	synctest.Test(t, func(t *testing.T) {
		c := dialBlackHole(t)
		time.Sleep(time.Hour / 2)
		// A PING finds out, and the message is not sent before its answer.
		start := time.Now()
		wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrNotSent)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("it took %v to find out, want 10s", d)
		}
		start = time.Now()
		err := c.WritePushMsg(t.Context(), message(3))
		t.Log(err)
		wantErr(t, err, apns.ErrNotSent)
		if d := time.Since(start); d != 0 {
			t.Errorf("the next push took %v, want none", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := dialBlackHole(t)
		start := time.Now()
		wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrInDoubt)
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("it took %v to find out, want 20s", d)
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(3)), apns.ErrNotSent)
	})
}

// dialBlackHole returns a connection that has worked, and whose other end is cut off.
func dialBlackHole(t *testing.T) *apns.Conn {
	t.Helper()
	config := inMemory(t, nil).Config()
	hole := new(blackHole)
	config.DialContext = hole.dialer(config.DialContext)
	c := dialHTTP2(t, config)
	if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
		t.Fatal(err)
	}
	hole.open.Store(true)
	return c
}

// While nothing is sent there are no PINGs, and a connection that was idle for hours
// is used again, after a PING. ("Sending notification requests to APNs")
func TestHTTP2Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		config := s.Config()
		var written writeCounter
		config.DialContext = written.dialer(config.DialContext)
		c := dialHTTP2(t, config)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := written.n.Load()
		time.Sleep(5 * time.Hour)
		if n := written.n.Load() - before; n != 0 {
			t.Errorf("%d writes while nothing was to be sent, want none", n)
		}
		start := time.Now()
		if err := c.WritePushMsg(t.Context(), message(2)); err != nil {
			t.Error(err)
		}
		if n := written.n.Load() - before; n != 2 { // the PING, and the message
			t.Errorf("%d writes for a message after hours, want 2", n)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the push took %v, want none", d)
		}
	})
}

// A stream that is never answered costs its own deadline and nothing else.
func TestHTTP2NeverAnswered(t *testing.T) {
	for _, limit := range []int{2, 100} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(m *apns.Message) error {
				if m.CollapseID == "fault" {
					return apnstest.Fault{}
				}
				return nil
			}, func(s *apnstest.Server) { s.StreamLimit = limit })
			c := dialHTTP2(t, s.Config())
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					m := message(1)
					m.CollapseID = "fault"
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					wantErr(t, c.WritePushMsg(ctx, m), context.DeadlineExceeded, apns.ErrInDoubt)
				})
				time.Sleep(time.Second)
				for id := range uint32(20) {
					if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Hour / 2)
			}
			wg.Wait()
		})
	}
}

func TestHTTP2HasNoFeedback(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	c := dialHTTP2(t, s.Config())
	_, err := c.ReadFeedbackMsg(t.Context())
	wantErr(t, err, errors.ErrUnsupported)
	for _, err := range c.Feedback(t.Context()) {
		wantErr(t, err, errors.ErrUnsupported)
	}
	if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
		t.Errorf("%v; the mistake did harm", err)
	}
}

// A token key needs HTTP/2; what strips it from the negotiation does not make
// every push "succeed". Nothing offered forces the binary protocol.
func TestNegotiation(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	_, err := apns.Dial(t.Context(), s.PushAddr, s.TokenConfig())
	if err == nil || !strings.Contains(err.Error(), "certificate required") && !strings.Contains(err.Error(), "did not negotiate HTTP/2 (ALPN h2)") {
		t.Errorf("got %v, want that HTTP/2 was not negotiated", err)
	}
	config := s.Config()
	config.TLS.NextProtos = []string{}
	if p := dial(t, s.PushAddr, config).ConnectionState().NegotiatedProtocol; p != "" {
		t.Errorf("negotiated %q, want nothing", p)
	}
}

// Over HTTP/2 Dial itself tells what the server thinks of the certificate.
func TestHTTP2CertificateRefused(t *testing.T) {
	s := apnstest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	s.Start()
	defer s.Close()
	config := s.Config()
	config.TLS.Certificates = nil
	_, err := apns.Dial(t.Context(), apns.Production, config)
	const want = "apns: HTTP/2 with api.push.apple.com:443: the server wants a client certificate, and Config.TLS has none: remote error: tls: certificate required"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	wantErr(t, err, apns.ErrRefused)
}

// A server that negotiates HTTP/2 and then says nothing.
func TestHTTP2SilentServer(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	config := s.Config()
	config.DialContext = nil
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if c, err := apns.Dial(ctx, l.Addr().String(), config); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v; want the deadline", c, err)
	}
}

// The logger hears what happens, and no secret.
func TestLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, func(m *apns.Message) error {
			if m.CollapseID == "fault" {
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
			}
			return nil
		})
		config := s.TokenConfig()
		var out bytes.Buffer
		config.Logger = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c := dialHTTP2(t, config)
		for range 2 {
			if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		m := message(2)
		m.CollapseID = "fault"
		if err := c.WritePushMsg(t.Context(), m); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		c.Close()
		s.Close()
		var messages []string
		for line := range bytes.Lines(out.Bytes()) {
			var record struct{ Msg, Reason, Protocol string }
			if err := json.Unmarshal(line, &record); err != nil {
				t.Fatal(err)
			}
			messages = append(messages, strings.TrimSpace(record.Msg+" "+record.Protocol+record.Reason))
		}
		want := []string{"apns: connected h2", "apns: new provider token", "apns: new provider token", "apns: GOAWAY Shutdown"}
		if !slices.Equal(messages, want) {
			t.Errorf("got %q, want %q", messages, want)
		}
		for _, secret := range []string{"eyJ", "bearer", token, "alert"} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%q is in the log:\n%s", secret, out.String())
			}
		}
	})
}

// 20,000 messages, 500 on their way at a time, while the server ends connections
// with GOAWAYs of both kinds, resets streams, rejects and leaves unanswered: each
// message has one outcome, and the server's record agrees with every single one.
func TestHTTP2Faults(t *testing.T) {
	testHTTP2Faults(t, func(*apnstest.Server, int) {})
}

// The same while the server changes how many streams it allows, and how large their
// windows are: none for a moment, too.
func TestHTTP2FaultsAndLimits(t *testing.T) {
	testHTTP2Faults(t, func(s *apnstest.Server, i int) {
		limits := []int{1000, 3, 0, 100, 1, 500}
		windows := []int{1 << 20, 0, 10, 100_000, 20}
		s.SetStreamLimit(limits[i%len(limits)])
		s.SetInitialWindow(windows[i%len(windows)])
	})
}

// testHTTP2Faults calls change every few milliseconds.
func testHTTP2Faults(t *testing.T, change func(s *apnstest.Server, i int)) {
	const messages, inFlight = 20_000, 500
	var n atomic.Int32
	s := apnstest.NewServer(func(m *apns.Message) error {
		switch i := n.Add(1); {
		case i%4000 == 0:
			return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}
		case i%4000 == 2000:
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonIdleTimeout}
		case i%2000 == 500:
			return apnstest.Fault{End: apnstest.EndRST}
		case i%2000 == 1500:
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST}
		case i%2000 == 700:
			return apnstest.Fault{End: apnstest.EndRefusedStream}
		case i%1000 == 100:
			return apnstest.Fault{} // never answered
		case i%100 == 50:
			return apns.ReasonBadDeviceToken
		case i%10 == 1:
			return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Millisecond}
		}
		return nil
	})
	defer s.Close()
	config := s.TokenConfig()

	// current returns the connection to use, in place of the one that has ended.
	var mu sync.Mutex
	var conn *apns.Conn
	var ending sync.WaitGroup
	current := func() *apns.Conn {
		mu.Lock()
		defer mu.Unlock()
		if conn != nil && conn.CheckForError() != nil {
			old := conn
			ending.Go(func() { old.Shutdown(context.Background()) })
			conn = nil
		}
		if conn == nil {
			var err error
			if conn, err = apns.Dial(context.Background(), apns.Production, config); err != nil {
				panic(err)
			}
		}
		return conn
	}

	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-time.After(3 * time.Millisecond):
				change(s, i)
			case <-stop:
				return
			}
		}
	})
	outcomes := make([]error, messages)
	var next atomic.Int32
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= messages {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				m := message(uint32(i))
				m.Token = fmt.Sprintf("%064x", i)
				outcomes[i] = current().WritePushMsg(ctx, m)
				cancel()
			}
		})
	}
	wg.Wait()
	close(stop)
	changing.Wait()
	ending.Wait()
	conn.Close()

	type taken struct {
		outcome apnstest.Outcome
		err     error
	}
	record := make(map[string]taken)
	for _, r := range s.Records() {
		if _, twice := record[r.Message.Token]; twice {
			t.Errorf("message %s reached the server twice", r.Message.Token)
		}
		record[r.Message.Token] = taken{r.Outcome, r.Err}
	}
	count := make(map[string]int)
	for i, err := range outcomes {
		r, reached := record[fmt.Sprintf("%064x", i)]
		_, rejected := err.(*apns.PushError)
		switch {
		case err == nil:
			count["accepted"]++
			if !reached || r.outcome != apnstest.Accepted {
				t.Errorf("message %d: accepted, and the server has it %v: %v", i, reached, r)
			}
		case rejected:
			count["rejected"]++
			if r.outcome != apnstest.Rejected {
				t.Errorf("message %d: %v, and the server has it %v", i, err, r)
			}
		case errors.Is(err, apns.ErrNotSent) && !errors.Is(err, apns.ErrInDoubt):
			count["not sent"]++
			if reached && r.outcome != apnstest.Discarded {
				t.Errorf("message %d: %v, and the server has it %v", i, err, r)
			}
		case errors.Is(err, apns.ErrInDoubt):
			count["in doubt"]++
			f, _ := r.err.(apnstest.Fault)
			never := f == (apnstest.Fault{}) // its deadline says so
			if f.End != apnstest.EndRST && !never || never != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("message %d: %v, and the server has it %v", i, err, r)
			}
		default:
			t.Errorf("message %d has no outcome: %v", i, err)
		}
	}
	t.Log(count)
	if count["accepted"] < messages/2 || count["rejected"] < 100 || count["not sent"] < 5 || count["in doubt"] < 10 {
		t.Errorf("got %v, want many of each", count)
	}
}

// A day of pushes on three connections that share a key, many at a time, to a
// server that checks what "Establishing a token-based connection to APNs" says of
// provider tokens: none over an hour old, none changed within 20 minutes. A
// change in the middle of many pushes is one change.
func TestHTTP2DayOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		config := s.TokenConfig()
		conns := make([]*apns.Conn, 3)
		start := time.Now()
		for time.Since(start) < 24*time.Hour {
			var wg sync.WaitGroup
			for i := range conns {
				if conns[i] == nil && time.Since(start) >= time.Duration(i)*7*time.Minute {
					conns[i] = dialHTTP2(t, config)
				}
				if conns[i] == nil {
					continue
				}
				for range 20 {
					wg.Go(func() {
						if err := conns[i].WritePushMsg(t.Context(), message(1)); err != nil {
							t.Errorf("after %v, connection %d: %v", time.Since(start), i, err)
						}
					})
				}
			}
			wg.Wait()
			time.Sleep(5 * time.Minute)
		}
		if n := len(s.Messages(apnstest.Accepted)); n < 24*12*20*3-200 {
			t.Errorf("server accepted %d messages, want them all", n)
		}
	})
}

// The clock of this machine is off: the server says that the token has expired,
// the next push has another, and after that it is left at that.
func TestHTTP2ExpiredProviderToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := true
		s := inMemory(t, func(*apns.Message) error {
			if refuse {
				return apns.ReasonExpiredProviderToken
			}
			return nil
		})
		c := dialHTTP2(t, s.TokenConfig())
		err := c.WritePushMsg(t.Context(), message(1))
		wantErr(t, err, apns.ErrNotSent, apns.ReasonExpiredProviderToken)
		if errors.Is(err, apns.ErrRefused) {
			t.Errorf("got %v, which matches ErrRefused, but the next message has another token", err)
		}
		time.Sleep(30 * time.Minute)
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent, apns.ErrRefused, apns.ReasonExpiredProviderToken)
		refuse = false
		time.Sleep(30 * time.Minute) // the server here knows nothing of its own verdict, and minds early changes
		if err := c.WritePushMsg(t.Context(), message(2)); err != nil {
			t.Error(err)
		}
	})
}

// The numbers of streams are used up after 2^30 messages, or some before: another
// connection takes over, and nothing is lost or sent twice. (RFC 9113, section 5.1.1)
func TestHTTP2StreamNumbersUsedUp(t *testing.T) {
	const last = 1<<31 - 1 - 1<<20 // the last number that is used
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		config := s.Config()
		first := uint32(last - 2*9)
		next := config.DialContext
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := next(plain.Context(ctx), network, addr)
			return &plain.Conn{Conn: c, Protocol: "h2", FirstStream: first}, err
		}
		c := dialHTTP2(t, config)
		for i := range uint32(10) {
			if err := c.WritePushMsg(t.Context(), message(i)); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(10)), apns.ErrNotSent)
		if err := c.CheckForError(); err == nil || !strings.Contains(err.Error(), "used up") {
			t.Errorf("CheckForError: got %v, want that the stream numbers are used up", err)
		}

		first = last - 2*999
		client := &apns.Client{Config: config, MaxConns: 1}
		defer client.Close()
		const messages = 4500
		for r := range client.PushAll(t.Context(), devices(messages)) {
			if r.Err != nil {
				t.Fatalf("message %s: %v", r.Message.Token, r.Err)
			}
		}
		seen := make(map[string]int)
		for _, r := range s.Records() {
			seen[r.Message.Token]++
		}
		if n := len(seen); n != messages+1 { // and the one of Conn
			t.Errorf("the server has %d messages, want %d", n, messages+1)
		}
		if stats := client.Stats(); stats.Accepted != messages || stats.Resent != 0 || stats.Connected != 5 {
			t.Errorf("Stats are %+v, want %d accepted, none resent, 5 connections", stats, messages)
		}
	})
}

// A server that does not read is noticed, also before it has taken a message; and
// Close does not wait for it.
func TestHTTP2ServerDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe() // on which a write waits for a read
		defer server.Close()
		config := &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &plain.Conn{Conn: client, Protocol: "h2"}, nil
		}}
		go server.Write([]byte(noSettings))
		c := dial(t, "localhost:443", config)
		start := time.Now()
		m := message(1)
		m.Topic = "t"
		err := c.WritePushMsg(t.Context(), m)
		wantErr(t, err, apns.ErrNotSent)
		if d := time.Since(start); d < 20*time.Second || d > 22*time.Second {
			t.Errorf("%v after %v, want it after 20s", err, d)
		}
		if err := c.CheckForError(); err == nil {
			t.Error("CheckForError: nil, want that the server does not answer")
		}
		start = time.Now()
		c.Close()
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %v, want a second at the most", d)
		}
	})
}

// A server that shuts down may send two GOAWAYs, of which the second has the reason,
// and lowers what it takes. ("A server that is attempting to gracefully shut down a
// connection SHOULD send an initial GOAWAY frame with the last stream identifier set to
// 2^31-1", RFC 9113, section 6.8)
func TestHTTP2TwoGoAways(t *testing.T) {
	const first = "\x7f\xff\xff\xff\x00\x00\x00\x00"
	const second = "\x00\x00\x00\x00\x00\x00\x00\x00" + `{"reason":"Shutdown"}`
	for _, then := range []string{frame(7, 0, 0, first) + frame(7, 0, 0, second), frame(7, 0, 0, second)} {
		shutdown := then == frame(7, 0, 0, second) // which Shutdown must not hide
		config := peer(t, func(c net.Conn) {
			io.WriteString(c, noSettings)
			buf := make([]byte, 4096)
			for n := 0; n < 100; { // the request
				k, err := c.Read(buf)
				if err != nil {
					return
				}
				if bytes.Contains(buf[:k], payload) {
					break
				}
			}
			time.Sleep(50 * time.Millisecond)
			io.WriteString(c, then)
			io.Copy(io.Discard, c)
		})
		c := dial(t, "localhost:443", config)
		if shutdown {
			time.AfterFunc(10*time.Millisecond, func() { c.Shutdown(context.Background()) })
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent, apns.ReasonShutdown)
		if !shutdown {
			wantErr(t, c.CheckForError(), apns.ReasonShutdown)
		}
	}
}

// peer starts a server that negotiates HTTP/2 and then writes what it is told to,
// whatever the client says.
func peer(t *testing.T, script func(net.Conn)) *apns.Config {
	t.Helper()
	return serve(t, []string{"h2"}, script)
}

func frame(kind, flags byte, stream byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, stream}) + payload
}

const noSettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// What breaks the rules of HTTP/2 ends in an error that comes at once, from Dial or
// from the push, and CheckForError knows of it.
func TestHTTP2BrokenPeers(t *testing.T) {
	goAwayText := "\x00\x00\x00\x01\x00\x00\x00\x00" + `{"reason":"Shutdown"}`
	for name, test := range map[string]struct {
		first   string // on connecting
		then    string // after the first request
		outcome error  // of that; nil: Dial fails
	}{
		"HTTP/1.1":                 {"HTTP/1.1 400 Bad Request\r\n\r\n", "", nil},
		"PING first":               {frame(6, 0, 0, "01234567"), "", nil},
		"GOAWAY first":             {frame(7, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00"+`{"reason":"BadCertificate"}`), "", nil},
		"end of stream":            {"", "", nil},
		"PUSH_PROMISE":             {noSettings, frame(5, 4, 1, "\x00\x00\x00\x02"), apns.ErrInDoubt},
		"stream that is not there": {noSettings, frame(1, 5, 99, "\x88"), apns.ErrInDoubt},
		"rules broken by us":       {noSettings, frame(3, 0, 1, "\x00\x00\x00\x01"), apns.ErrInDoubt},
		"GOAWAY, taken":            {noSettings, frame(7, 0, 0, goAwayText), apns.ErrInDoubt},
		"GOAWAY, not taken":        {noSettings, frame(7, 0, 0, "\x00\x00\x00\x00"+goAwayText[4:]), apns.ErrNotSent},
	} {
		t.Run(name, func(t *testing.T) {
			config := peer(t, func(c net.Conn) {
				io.WriteString(c, test.first)
				if test.outcome == nil {
					c.(*tls.Conn).CloseWrite()
					io.Copy(io.Discard, c)
					return
				}
				r := bufio.NewReader(c)
				r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
				for {
					head, err := r.Peek(9)
					if err != nil {
						return
					}
					kind, flags := head[3], head[4]
					size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
					r.Discard(9 + size)
					if kind == 0 && flags&1 != 0 { // the end of the request
						io.WriteString(c, test.then)
						time.Sleep(50 * time.Millisecond)
						c.(*tls.Conn).CloseWrite()
					}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, err := apns.Dial(ctx, "localhost:443", config)
			if test.outcome == nil {
				if err == nil || ctx.Err() != nil {
					t.Fatalf("Dial: got %v, want an error at once", err)
				}
				if name == "GOAWAY first" && !errors.Is(err, apns.ReasonBadCertificate) {
					t.Errorf("Dial: got %v, want the reason", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.WritePushMsg(ctx, message(1))
			wantErr(t, err, test.outcome)
			if ctx.Err() != nil {
				t.Fatal("the push waited for its deadline")
			}
			for c.CheckForError() == nil && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			if ctx.Err() != nil {
				t.Errorf("CheckForError: nil, want that the connection has ended")
			}
			wantErr(t, c.WritePushMsg(ctx, message(2)), apns.ErrNotSent)
		})
	}
}

// Answers that come before the request is complete, or never end: none holds a push
// beyond its context.
func TestHTTP2EarlyAnswers(t *testing.T) {
	bad := &apns.PushError{ID: 1, HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken}
	noReason := &apns.PushError{ID: 1, HTTPStatus: 400}
	const noWindow = "\x00\x00\x06\x04\x00\x00\x00\x00\x00" + "\x00\x04\x00\x00\x00\x00" // SETTINGS: a window of 0
	for name, test := range map[string]struct {
		first, then string
		want        error // that of the push
	}{
		"accepted, no window":               {noWindow, frame(1, 5, 1, "\x88"), nil},
		"accepted, no window, without end":  {noWindow, frame(1, 4, 1, "\x88"), nil},
		"rejected, no window":               {noWindow, frame(1, 4, 1, "\x8c") + frame(0, 1, 1, `{"reason":"BadDeviceToken"}`), bad},
		"rejected, without end":             {noSettings, frame(1, 4, 1, "\x8c"), noReason},
		"rejected, body in part, no window": {noWindow, frame(1, 4, 1, "\x8c") + frame(0, 0, 1, `{"reas`), noReason},
	} {
		t.Run(name, func(t *testing.T) {
			config := peer(t, func(c net.Conn) {
				io.WriteString(c, test.first)
				r := bufio.NewReader(c)
				r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
				for {
					head, err := r.Peek(9)
					if err != nil {
						return
					}
					kind, flags := head[3], head[4]
					r.Discard(9 + int(head[0])<<16 + int(head[1])<<8 + int(head[2]))
					switch kind {
					case 1: // HEADERS
						io.WriteString(c, test.then)
					case 4: // SETTINGS
						if flags&1 == 0 {
							io.WriteString(c, frame(4, 1, 0, ""))
						}
					}
				}
			})
			c := dial(t, "localhost:443", config)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := c.WritePushMsg(ctx, message(1))
			if !reflect.DeepEqual(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("the push took %v, want its context's 200ms", d)
			}
		})
	}
}

// A message whose payload the server's window held back, wholly or in part, was not
// sent. (RFC 9113, section 6.9)
func TestHTTP2NoWindow(t *testing.T) {
	for name, settings := range map[string]string{
		"none":     "\x00\x04\x00\x00\x00\x00", // SETTINGS_INITIAL_WINDOW_SIZE
		"one byte": "\x00\x04\x00\x00\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			config := peer(t, func(c net.Conn) {
				io.WriteString(c, frame(4, 0, 0, settings))
				io.Copy(io.Discard, c)
			})
			c := dial(t, "localhost:443", config)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err := c.WritePushMsg(ctx, message(1))
			wantErr(t, err, apns.ErrNotSent, context.DeadlineExceeded)
			t.Log(err)
			if err := c.CheckForError(); err != nil {
				t.Errorf("CheckForError: %v, want nil: the connection is as good as before", err)
			}
		})
	}
}

// Pushes that get no answer, one after the other, do not make the connection look
// dead to which the server still answers otherwise.
func TestHTTP2UnansweredButAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, func(m *apns.Message) error {
			if m.CollapseID == "fault" {
				return apnstest.Fault{}
			}
			return nil
		})
		c := dialHTTP2(t, s.Config())
		for range 5 {
			m := message(1)
			m.CollapseID = "fault"
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			wantErr(t, c.WritePushMsg(ctx, m), apns.ErrInDoubt, context.DeadlineExceeded)
			cancel()
			time.Sleep(time.Minute)
		}
		if err := c.WritePushMsg(t.Context(), message(2)); err != nil {
			t.Error(err)
		}
	})
}

// Reused memory does not mix messages: each arrives with its own token, payload and
// headers.
func TestHTTP2MessagesDoNotMix(t *testing.T) {
	var wrong atomic.Int32
	s := apnstest.NewServer(func(m *apns.Message) error {
		if string(m.Payload) != fmt.Sprintf(`{"token":%q}`, m.Token) || m.CollapseID != m.Token {
			wrong.Add(1)
		}
		if m.Token[0] == '0' {
			return apns.ReasonBadDeviceToken
		}
		return nil
	})
	defer s.Close()
	c := dialHTTP2(t, s.TokenConfig())
	var wg sync.WaitGroup
	for g := range 100 {
		wg.Go(func() {
			for i := range 200 {
				token := fmt.Sprintf("%08x", uint32(g*200+i)*2654435761)
				m := &apns.Message{Token: token, Payload: fmt.Appendf(nil, `{"token":%q}`, token), CollapseID: token}
				if err := c.WritePushMsg(t.Context(), m); err != nil && !errors.Is(err, apns.ReasonBadDeviceToken) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, all := wrong.Load(), len(s.Records()); n > 0 || all != 20_000 {
		t.Errorf("%d of %d messages arrived mixed up, want none of 20000", n, all)
	}
}

// A Conn has no policy: a 503 with a Retry-After holds back no other message.
func TestHTTP2RetryAfterDoesNotPauseConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Minute}
		c := dialHTTP2(t, inMemory(t, inTurn(wait)).Config())
		start := time.Now()
		if e, ok := c.WritePushMsg(t.Context(), message(1)).(*apns.PushError); !ok || e.RetryAfter != time.Minute {
			t.Errorf("got %v, want a *PushError with a RetryAfter of a minute", e)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.WritePushMsg(ctx, message(2)); err != nil {
			t.Errorf("the next message: got %v, want nil", err)
		}
		wantTook(t, start, 0, 0)
	})
}

// A message without a topic gets that of its push type.
// Source: "Sending notification requests to APNs".
func TestHTTP2TopicFromBundleID(t *testing.T) {
	s := inMemory(t, nil)
	c := dialHTTP2(t, s.TokenConfig())
	const bundleID = apnstest.BundleID
	for pushType, want := range map[apns.PushType]string{
		"":                        bundleID,
		apns.PushTypeAlert:        bundleID,
		apns.PushTypeBackground:   bundleID,
		apns.PushTypeLocation:     bundleID + ".location-query",
		apns.PushTypeVoIP:         bundleID + ".voip",
		apns.PushTypeComplication: bundleID + ".complication",
		apns.PushTypeFileProvider: bundleID + ".pushkit.fileprovider",
		apns.PushTypeLiveActivity: bundleID + ".push-type.liveactivity",
		apns.PushTypePushToTalk:   bundleID + ".voip-ptt",
		apns.PushTypeWidgets:      bundleID + ".push-type.widgets",
		apns.PushTypeControls:     bundleID + ".push-type.controls",
	} {
		for _, own := range []string{"", "com.example.own"} {
			m := message(1)
			m.PushType, m.Topic = pushType, own
			if own != "" {
				m.Topic, want = pushType.Topic(own), pushType.Topic(own)
			}
			if err := c.WritePushMsg(t.Context(), m); err != nil {
				t.Errorf("push type %q, topic %q: %v", pushType, own, err)
				continue
			}
			records := s.Records()
			if got := records[len(records)-1].Message.Topic; got != want {
				t.Errorf("push type %q, topic %q: the topic was %q, want %q", pushType, own, got, want)
			}
		}
	}
}
