package page_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/local/page"
)

const token = "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c"

// A fixture is a page with its server, and a client of both protocols.
type fixture struct {
	*testing.T
	server    *apnstest.Server
	web       *httptest.Server
	transport http.RoundTripper // nil: the default
}

func newFixture(t *testing.T, keep int) *fixture {
	rules := new(page.Rules)
	s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
		err, _ := rules.Answer(m)
		return err
	})
	s.MaxRecords, s.KeepRaw, s.StreamLimit = keep, true, 1000
	s.Start()
	p := &page.Page{Server: s, Rules: rules, Files: page.Files{CA: "ca.pem", Cert: "cert.pem", Key: "key.pem", AuthKey: "key.p8", Authorization: "authorization.txt"}}
	f := &fixture{T: t, server: s, web: httptest.NewServer(p.Handler())}
	t.Cleanup(s.Close)
	t.Cleanup(f.web.Close)
	return f
}

// call calls the API. It decodes the answer into v unless that is nil, and returns the status
// and the text of the answer.
func (f *fixture) call(method, path, body string, v any) (int, string) {
	f.Helper()
	r, err := http.NewRequestWithContext(f.Context(), method, f.web.URL+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: f.transport}).Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			f.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return resp.StatusCode, string(b)
}

// must calls the API, which must answer with a status of 2xx.
func (f *fixture) must(method, path, body string, v any) {
	f.Helper()
	if status, text := f.call(method, path, body, v); status/100 != 2 {
		f.Fatalf("%s %s %s: status %d, %s", method, path, body, status, text)
	}
}

func (f *fixture) dial(addr string, config *apns.Config) *apns.Conn {
	f.Helper()
	conn, err := apns.Dial(f.Context(), addr, config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return conn
}

func (f *fixture) client() *apns.Conn { return f.dial(f.server.HTTP2Addr, f.server.TokenConfig()) }

func push(ctx context.Context, conn *apns.Conn, token, payload string) error {
	return conn.WritePushMsg(ctx, &apns.Message{ID: 1, Token: token, Payload: []byte(payload), PushType: apns.PushTypeAlert})
}

const hello = `{"aps":{"alert":{"title":"Hello","body":"World"}}}`

type batch struct {
	Messages                []struct{ Number int }
	Skipped, Total, Dropped int
}

// Another site, open in a browser on the same machine, can read nothing and change nothing.
func TestOtherSites(t *testing.T) {
	f := newFixture(t, 10)
	own := "http://" + f.web.Listener.Addr().String()
	for _, test := range []struct {
		name, method, path string
		header             map[string]string
		want               int
	}{
		{"a program", "GET", "/api/messages", nil, 200},
		{"the page", "GET", "/api/messages", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"the page changes", "DELETE", "/api/messages", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": own}, 204},
		{"the page sets", "POST", "/api/reset", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": own}, 204},
		{"typed address", "GET", "/", map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200},
		{"a link", "GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		{"localhost", "GET", "/", map[string]string{"Host": "localhost:8444"}, 200},
		{"IPv6", "GET", "/", map[string]string{"Host": "[::1]:8444"}, 200},
		{"DNS rebinding", "GET", "/", map[string]string{"Host": "evil.example:8444"}, 403},
		{"DNS rebinding of a subdomain", "GET", "/api/messages", map[string]string{"Host": "localhost.evil.example"}, 403},
		{"DNS rebinding, same origin", "DELETE", "/api/messages", map[string]string{"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403},
		{"a link to the API", "GET", "/api/messages", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403},
		{"script of another site", "GET", "/page.js", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		{"events", "GET", "/api/events", map[string]string{"Origin": "http://evil.example"}, 403},
		{"another port", "GET", "/api/messages", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"no Origin known", "POST", "/api/reset", map[string]string{"Origin": "null"}, 403},
		{"fetch", "DELETE", "/api/rules", map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
		{"fetch of an old browser", "DELETE", "/api/rules", map[string]string{"Origin": "http://evil.example"}, 403},
		{"preflight", "OPTIONS", "/api/rules", map[string]string{"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}, 403},
		{"form", "POST", "/api/reset", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
		{"form in plain text", "POST", "/api/rules", map[string]string{"Content-Type": "text/plain"}, 415},
		{"no type", "PUT", "/api/stream-limit", map[string]string{"Content-Type": ""}, 415},
		{"no type, no body", "POST", "/api/reset", map[string]string{"Content-Type": ""}, 415},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, f.web.URL+test.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for name, value := range test.header {
			r.Header.Set(name, value)
			if name == "Host" {
				r.Host = value
			}
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if says := fmt.Sprintf("Content-Type is %q, expected application/json", r.Header.Get("Content-Type")); resp.StatusCode == 415 {
			var answer struct{ Error string }
			if json.Unmarshal(text, &answer) != nil || answer.Error != says {
				t.Errorf("%s: got %s (%v), want %s", test.name, text, err, says)
			}
		}
		if resp.StatusCode != test.want {
			t.Errorf("%s: %s %s has status %d, want %d", test.name, test.method, test.path, resp.StatusCode, test.want)
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another origin is allowed", test.name)
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the Content-Security-Policy is %q", test.name, policy)
		}
	}
}

// The page and the API show no key and no provider token.
func TestNoSecrets(t *testing.T) {
	f := newFixture(t, 10)
	if err := push(t.Context(), f.client(), token, hello); err != nil {
		t.Fatal(err)
	}
	certs := f.server.Certificates()
	var secrets []string
	for _, key := range [][]byte{certs.AuthKey, certs.ClientKey, certs.ServerKey} {
		block, _ := pem.Decode(key)
		secrets = append(secrets, base64.StdEncoding.EncodeToString(block.Bytes)[:40])
	}
	secrets = append(secrets, "bearer ey", "PRIVATE KEY")
	for _, path := range []string{"/", "/api/status", "/api/messages", "/api/messages/1", "/api/messages.jsonl", "/api/connections"} {
		status, text := f.call("GET", path, "", nil)
		if status != 200 {
			t.Errorf("%s has status %d", path, status)
		}
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a secret", path)
			}
		}
	}
}

func TestRules(t *testing.T) {
	other := "ff" + token[2:]
	for _, test := range []struct {
		rule          string
		tokens        string // a for token, b for other
		http2, binary string // the outcomes
	}{
		{`{"reason":"Unregistered"}`, "a", "410 Unregistered", "invalid token"},
		{`{"reason":"Unregistered","dead_at":"2026-01-02T03:04:05Z"}`, "a", "410 Unregistered 2026-01-02T03:04:05Z", "invalid token"},
		{`{"token":"` + strings.ToUpper(token) + `","reason":"BadDeviceToken"}`, "ba", "ok, 400 BadDeviceToken", "ok, invalid token"},
		{`{"topic":"com.example.app","reason":"TopicDisallowed"}`, "a", "400 TopicDisallowed", "ok"},
		{`{"topic":"com.example.other","reason":"TopicDisallowed"}`, "a", "ok", "ok"},
		{`{"reason":"TooManyRequests","retry_after":7,"times":1}`, "aa", "429 TooManyRequests 7s, ok", ""},
		{`{"reason":"NewInAppleOS","status":422}`, "a", "422 NewInAppleOS", "processing error"},
		{`{"status":503,"reason":"ServiceUnavailable"}`, "a", "503 ServiceUnavailable", "processing error"},
		{`{"binary_status":4}`, "a", "400 PayloadEmpty", "missing payload"},
		{`{"binary_status":8}`, "a", "400 BadDeviceToken", "invalid token"},
		{`{"binary_status":10}`, "a", "ok", "shutdown"},
		{`{"binary_status":128}`, "a", "500 InternalServerError", "protocol error"},
		{`{"status":410}`, "a", "410 ", "processing error"},
		{`{"status":201}`, "a", "in doubt, 201", "processing error"},
		{`{"status":204}`, "a", "in doubt, 204", "processing error"},
		{`{"status":304,"retry_after":7}`, "a", "in doubt, 304", "processing error"},
		{`{"status":302,"reason":"NewInAppleOS"}`, "a", "302 NewInAppleOS", "processing error"},
		{`{"status":599}`, "a", "in doubt, 599", "processing error"},
		{`{"status":410,"reason":"NewInAppleOS","dead_at":"2026-01-02T03:04:05Z"}`, "a", "410 NewInAppleOS 2026-01-02T03:04:05Z", "processing error"},
		{`{"status":0,"token":"","topic":"","delay_ms":0,"retry_after":0,"dead_at":null,"reason":"","then":""}`, "a", "ok", "ok"},
		{`{"delay_ms":30}`, "a", "ok", "ok"},
		{`{"delay_ms":30,"reason":"BadDeviceToken"}`, "a", "400 BadDeviceToken", "invalid token"},
		{`{"then":"cut"}`, "a", "in doubt", "in doubt"},
		{`{"then":"reset"}`, "a", "in doubt", ""},
		{`{"then":"refuse-stream"}`, "a", "not sent", ""},
		{`{"then":"goaway","goaway_reason":"Shutdown"}`, "a", "ok", ""},
		{`{"then":"goaway","reason":"BadDeviceToken"}`, "a", "400 BadDeviceToken", ""},
		{`{"then":"goaway-unprocessed"}`, "a", "not sent", ""},
		{`{"then":"silence"}`, "a", "in doubt", ""},
		{`{"then":"cut","binary_status":4}`, "a", "", "missing payload"},
		{`{}`, "a", "ok", "ok"},
	} {
		f := newFixture(t, 10)
		for protocol, want := range map[string]string{"HTTP/2": test.http2, "binary": test.binary} {
			if want == "" {
				continue
			}
			f.must("POST", "/api/reset", "", nil)
			f.must("POST", "/api/rules", test.rule, nil)
			conn := f.client()
			if protocol == "binary" {
				conn = f.dial(f.server.PushAddr, f.server.Config())
			}
			var got []string
			for _, c := range test.tokens {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				if !strings.Contains(test.rule, "silence") {
					cancel()
					ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
				}
				err := push(ctx, conn, map[rune]string{'a': token, 'b': other}[c], hello)
				if protocol == "binary" && err == nil && c == rune(test.tokens[len(test.tokens)-1]) {
					err = conn.Shutdown(ctx) // says what became of the messages
				}
				cancel()
				got = append(got, outcome(err))
			}
			if got := strings.Join(got, ", "); got != want {
				t.Errorf("%s, %s: got %q, want %q", test.rule, protocol, got, want)
			}
		}
	}
}

// outcome describes the error of a push.
func outcome(err error) string {
	e, ok := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil:
		return "ok"
	case ok && e.HTTPStatus == 0:
		return e.Status.Error()
	case ok:
		s := fmt.Sprint(e.HTTPStatus, " ", e.Reason)
		if e.RetryAfter > 0 {
			s += " " + e.RetryAfter.String()
		}
		if e.DeadAt.Year() == 2026 && e.DeadAt.Before(time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)) {
			s += " " + e.DeadAt.UTC().Format(time.RFC3339)
		}
		return s
	case errors.Is(err, apns.ErrNotSent):
		return "not sent"
	}
	if _, status, ok := strings.Cut(err.Error(), "HTTP status "); ok {
		return "in doubt, " + status[:3]
	}
	return "in doubt"
}

// Of several rules the newest decides, until it is removed.
func TestRuleOrder(t *testing.T) {
	f := newFixture(t, 10)
	conn := f.client()
	var newest struct{ ID int }
	f.must("POST", "/api/rules", `{"reason":"BadDeviceToken"}`, nil)
	f.must("POST", "/api/rules", `{"token":"`+token+`"}`, &newest)
	if got := outcome(push(t.Context(), conn, token, hello)); got != "ok" {
		t.Errorf("got %s, want ok", got)
	}
	f.must("DELETE", fmt.Sprint("/api/rules/", newest.ID), "", nil)
	if got := outcome(push(t.Context(), conn, token, hello)); got != "400 BadDeviceToken" {
		t.Errorf("got %s, want BadDeviceToken", got)
	}
	f.must("DELETE", "/api/rules", "", nil)
	if got := outcome(push(t.Context(), conn, token, hello)); got != "ok" {
		t.Errorf("got %s, want ok", got)
	}
	if _, text := f.call("GET", "/api/rules", "", nil); text != "[]\n" {
		t.Errorf("got rules %s, want none", text)
	}
}

// What the API does not understand changes nothing, and the error says what is expected.
func TestInvalidRequests(t *testing.T) {
	f := newFixture(t, 10)
	for _, test := range []struct {
		request, body string
		want          int
		says          string
	}{
		{"POST /api/rules", `{"reasn":"Unregistered"}`, 400, "reasn"},
		{"POST /api/rules", `{"reason":"Un registered"}`, 400, "expected up to 64 letters"},
		{"POST /api/rules", `{"status":200}`, 400, "status is 200, which accepts, expected no status for that, or 201 to 599"},
		{"POST /api/rules", `{"status":200,"reason":"Shutdown"}`, 400, "status is 200, which accepts"},
		{"POST /api/rules", `{"status":103}`, 400, "status is 103, expected 201 to 599"},
		{"POST /api/rules", `{"status":-1}`, 400, "status is -1, expected 201 to 599"},
		{"POST /api/rules", `{"status":600}`, 400, "status is 600, expected 201 to 599"},
		{"POST /api/rules", `{"status":204,"reason":"Shutdown"}`, 400, "status is 204, with which an answer has no body, and there is a reason"},
		{"POST /api/rules", `{"status":205,"reason":"Shutdown"}`, 400, "status is 205, with which"},
		{"POST /api/rules", `{"status":304,"reason":"Shutdown"}`, 400, "status is 304, with which"},
		{"POST /api/rules", `{"then":"explode"}`, 400, "expected silence, cut, "},
		{"POST /api/rules", `{"delay_ms":-1}`, 400, "expected 0 to 600000"},
		{"POST /api/rules", `{"times":-1}`, 400, "times is -1, expected a number from 1"},
		{"POST /api/rules", `{"times":0}`, 400, "times is 0, expected a number from 1, or no times for all messages"},
		{"POST /api/rules", `{"times":null}`, 400, "times is null, expected a number from 1"},
		{"POST /api/rules", `{"times":"3"}`, 400, `times is "3", expected a number from 1`},
		{"POST /api/rules", `{"times":1.5}`, 400, "times is 1.5, expected a number from 1"},
		{"POST /api/rules", `{"reason":"Unregisterd"}`, 400, `reason is "Unregisterd", expected one of the reasons in GET /api/status, or a status with it`},
		{"POST /api/rules", `{"reason":"unregistered"}`, 400, `reason is "unregistered", expected one of the reasons`},
		{"POST /api/rules", `{"reason":"NewInAppleOS","binary_status":8}`, 400, "or a status with it"},
		{"POST /api/rules", `{"reason":"New In AppleOS","status":422}`, 400, "expected up to 64 letters"},
		{"POST /api/rules", `{"retry_after":5}`, 400, "without a reason"},
		{"POST /api/rules", `{"binary_status":256}`, 400, "invalid"},
		{"POST /api/rules", `null`, 400, "it is null, expected an object"},
		{"POST /api/rules", `[]`, 400, "it is an array, expected an object"},
		{"POST /api/rules", `{"id":7}`, 400, "id is 7, expected none"},
		{"POST /api/rules", `{"id":0}`, 400, "id is 0, expected none"},
		{"POST /api/rules", `{"token":"xy"}`, 400, "character 1 of token is invalid, expected a hexadecimal digit"},
		{"POST /api/rules", `{"token":"abc"}`, 400, "token has 3 digits, expected an even number"},
		{"POST /api/rules", `{"token":"` + strings.Repeat("a", 4098) + `"}`, 400, "token has 4098 characters, expected at most 4096"},
		{"POST /api/rules", `{"topic":"` + strings.Repeat("a", 1025) + `"}`, 400, "topic has 1025 bytes, expected at most 1024"},
		{"POST /api/rules", `{"goaway_reason":"Shutdown"}`, 400, "expected goaway or goaway-unprocessed"},
		{"POST /api/rules", `{"goaway_reason":"Shutdown","then":"cut"}`, 400, `then is "cut", expected goaway or goaway-unprocessed`},
		{"POST /api/rules", `{"reason":"Shutdown","then":"silence"}`, 400, "then is silence, which sends no answer"},
		{"POST /api/rules", `{"status":500,"then":"goaway-unprocessed"}`, 400, "then is goaway-unprocessed, which sends no answer"},
		{"POST /api/rules", `{"retry_after":5,"binary_status":4}`, 400, "without a reason"},
		{"POST /api/rules", `{"dead_at":"2026-01-02T03:04:05Z"}`, 400, "expected one with it"},
		{"POST /api/rules", `{"dead_at":"2026-01-02T03:04:05Z","reason":"BadDeviceToken"}`, 400, "expected one with it"},
		{"POST /api/rules", `{"dead_at":"1026-01-02T03:04:05Z","reason":"Unregistered"}`, 400, "dead_at is 1026-01-02T03:04:05Z, expected a time from 1970 to 2106"},
		{"POST /api/rules", `{"dead_at":"2026-01-02T03:04:05Z","status":410}`, 400, "dead_at is set without a reason, expected one with it"},
		{"POST /api/rules", `{"dead_at":"yesterday","reason":"Unregistered"}`, 400, `dead_at is "yesterday", expected a time of RFC 3339 such as "2026-01-01T00:00:00Z"`},
		{"POST /api/rules", `{"dead_at":1767225600,"reason":"Unregistered"}`, 400, "dead_at is 1767225600, expected a time of RFC 3339"},
		{"POST /api/rules", `{} {}`, 400, "follows"},
		{"POST /api/rules", `{"token":"` + strings.Repeat("a", 200_000) + `"}`, 400, "expected at most 131072 bytes"},
		{"POST /api/rules", ``, 400, "expected JSON"},
		{"POST /api/devices", `{"token":"xyz","dead_at":"2026-01-02T03:04:05Z"}`, 400, "hexadecimal"},
		{"POST /api/devices", `{"dead_at":"2026-01-02T03:04:05Z"}`, 400, "token is empty, expected hexadecimal"},
		{"POST /api/devices", `{"token":"` + strings.Repeat("a", 202) + `","dead_at":"2026-01-02T03:04:05Z"}`, 400, "expected at most 200 hexadecimal"},
		{"POST /api/devices", `{"token":"aa","topics":[]}`, 400, "0 topics, expected 1 to 100"},
		{"POST /api/devices", `{"token":"aa","topics":["a",""]}`, 400, "a topic has 0 bytes, expected 1 to 1024"},
		{"POST /api/devices", `{"token":"aa","topics":["` + strings.Repeat("a", 1025) + `"]}`, 400, "a topic has 1025 bytes, expected 1 to 1024"},
		{"POST /api/devices", `{"token":"aa","topics":["a"` + strings.Repeat(`,"a"`, 100) + `]}`, 400, "101 topics, expected 1 to 100"},
		{"DELETE /api/devices/zz", ``, 404, "unknown"},
		{"DELETE /api/devices/aa", ``, 404, "unknown"},
		{"DELETE /api/rules", `{"id":3}`, 400, `unknown field "id"`},
		{"POST /api/reset", `null`, 400, "it is null"},
		{"POST /api/devices", `{"token":"aa","dead_at":"3026-01-02T03:04:05Z"}`, 400, "2106"},
		{"POST /api/devices", `{"token":"aa"}`, 400, "the device has no topics and no dead_at, expected one of them"},
		{"POST /api/devices", `{"token":"aa","topics":["a"],"dead_at":"2026-01-02T03:04:05Z"}`, 400, "the device has topics and dead_at, expected one of them"},
		{"POST /api/devices", `{"token":"aa","dead_at":"2026-01-02"}`, 400, `dead_at is "2026-01-02", expected a time of RFC 3339`},
		{"POST /api/feedback", `{"token":"aa"}`, 400, "the record has no dead_at, expected token and dead_at"},
		{"POST /api/feedback", `{"token":"aa","topics":["a"],"dead_at":"2026-01-02T03:04:05Z"}`, 400, "the record has topics, expected only token and dead_at"},
		{"POST /api/feedback", `{"token":"aa","topics":["a"]}`, 400, "the record has topics"},
		{"POST /api/feedback", `{"token":"aa","dead_at":"2026-13-02T03:04:05Z"}`, 400, `dead_at is "2026-13-02T03:04:05Z", expected a time of RFC 3339`},
		{"PUT /api/stream-limit", `{"limit":0}`, 400, "expected 1 to"},
		{"POST /api/goaway", `{"reason":"Shut down"}`, 400, "expected up to 64 letters"},
		{"DELETE /api/rules/7", ``, 404, "unknown"},
		{"GET /api/messages/1", ``, 404, "unknown"},
		{"GET /api/messages/x", ``, 404, "unknown"},
		{"GET /api/messages?limit=-1", ``, 400, `limit is "-1", expected a number from 0 to 10000`},
		{"GET /api/messages?limit=", ``, 400, `limit is "", expected a number`},
		{"GET /api/messages?limit=1&limit=2", ``, 400, "limit is given 2 times, expected once"},
		{"GET /api/messages?findings=2", ``, 400, `findings is "2", expected 1`},
		{"GET /api/messages?protocol=http", ``, 400, `protocol is "http", expected http2 or binary`},
		{"GET /api/messages?outcome=Badd", ``, 400, `outcome is "Badd", expected accepted, rejected, discarded, or a reason`},
		{"GET /api/messages.jsonl?outcome=BadTopic2", ``, 400, `outcome is "BadTopic2", expected accepted`},
		{"GET /api/events?outcome=Unregisterd", ``, 400, `outcome is "Unregisterd", expected accepted`},
		{"GET /api/messages?tokn=aa", ``, 400, `"tokn", expected token, topic, `},
		{"GET /api/messages?token=%zz", ``, 400, "the query is invalid"},
		{"GET /api/messages?count=3", ``, 400, "count is given without wait"},
		{"GET /api/messages.jsonl?limit=3", ``, 400, `"limit", expected token, topic, `},
		{"GET /api/events?limit=3", ``, 400, `"limit", expected token, topic, `},
		{"GET /api/rules?token=aa", ``, 400, `"token", expected none`},
		{"GET /api/nothing", ``, 404, "docs/local.md"},
		{"PATCH /api/rules", `{}`, 404, "docs/local.md"},
	} {
		method, path, _ := strings.Cut(test.request, " ")
		var answer struct{ Error string }
		status, _ := f.call(method, path, test.body, &answer)
		if status != test.want || !strings.Contains(answer.Error, test.says) {
			t.Errorf("%s %.80s: got %d %q, want %d and %q", test.request, test.body, status, answer.Error, test.want, test.says)
		}
	}
	var left []any
	if f.must("GET", "/api/rules", "", &left); len(left) != 0 {
		t.Errorf("got rules %v, want none", left)
	}
}
