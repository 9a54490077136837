package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The HTTP/2 provider API as a client sees it that is not of this package:
// net/http, and where that is too polite, frames written by hand.

// A request is a push; what it leaves out is that of a good one.
type request struct {
	method string
	path   string
	header map[string]string // over that of a good one; "-" leaves it out
	body   []byte            // nil: {}
}

// An answer is what came back.
type answer struct {
	status    int
	reason    apns.Reason
	timestamp int64
	header    http.Header
	err       error
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.status, a.reason))
}

// connect makes one connection of net/http, with the client certificate or
// without.
func connect(t *testing.T, s *apnstest.Server, cert bool) *http.ClientConn {
	t.Helper()
	config := s.Config()
	if !cert {
		config.TLS.Certificates = nil
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config.TLS, DialContext: config.DialContext}
	c, err := transport.NewClientConn(t.Context(), "https", "api.push.apple.com:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		transport.CloseIdleConnections()
	})
	return c
}

func (r request) send(ctx context.Context, c http.RoundTripper) answer {
	body := r.body
	if body == nil {
		body = []byte("{}")
	}
	method, path := r.method, r.path
	if method == "" {
		method = "POST"
	}
	if path == "" {
		path = "/3/device/" + token
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://api.push.apple.com"+path, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return answer{err: err}
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("apns-topic", apnstest.Topic)
	for name, value := range r.header {
		req.Header.Set(name, value)
		if value == "-" {
			req.Header.Del(name)
		}
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, err: err}
	if len(b) > 0 && err == nil {
		var said struct {
			Reason    apns.Reason
			Timestamp int64
		}
		a.err = json.Unmarshal(b, &said)
		a.reason, a.timestamp = said.Reason, said.Timestamp
	}
	return a
}

func bytesOfJSON(n int) []byte {
	return []byte(`"` + strings.Repeat("x", n-2) + `"`)
}

// What a request may look like: "Sending notification requests to APNs"; and
// what is said of it: "Handling notification responses from APNs".
func TestProviderChecks(t *testing.T) {
	const id = "123e4567-e89b-12d3-a456-4266554400a0"
	h := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	pushType := func(pushType, topic string, more ...string) request {
		return request{header: h(append([]string{"apns-push-type", pushType, "apns-topic", topic}, more...)...)}
	}
	const app = apnstest.Topic
	for _, test := range []struct {
		name  string
		creds string // "cert", "token" or both
		req   request
		want  string
	}{
		{"good", "cert token", request{}, "200"},
		{"upper case token", "cert token", request{path: "/3/device/" + strings.ToUpper(token)}, "200"},
		{"unknown header", "cert token", request{header: h("x-other", "1")}, "200"},

		{"GET", "cert token", request{method: "GET"}, "405 MethodNotAllowed"},
		{"PUT", "cert token", request{method: "PUT"}, "405 MethodNotAllowed"},
		{"path", "cert token", request{path: "/4/device/" + token}, "404 BadPath"},
		{"root", "cert token", request{path: "/"}, "404 BadPath"},
		{"longer path", "cert token", request{path: "/3/device/" + token + "/x"}, "404 BadPath"},
		{"no token", "cert token", request{path: "/3/device/"}, "400 MissingDeviceToken"},
		{"bad hex", "cert token", request{path: "/3/device/xyz0"}, "400 BadDeviceToken"},
		{"query", "cert token", request{path: "/3/device/" + token + "?a=b"}, "400 BadDeviceToken"},
		{"odd", "cert token", request{path: "/3/device/abc"}, "400 BadDeviceToken"},
		{"token of 100 bytes", "cert token", request{path: "/3/device/" + strings.Repeat("ab", 100)}, "200"},
		{"token of 101 bytes", "cert token", request{path: "/3/device/" + strings.Repeat("ab", 101)}, "400 BadDeviceToken"},

		{"no provider token", "cert", request{header: h("authorization", "-")}, "200"},
		{"no provider token", "token", request{header: h("authorization", "-")}, "403 MissingProviderToken"},
		{"bad provider token", "cert", request{header: h("authorization", "bearer nonsense")}, "200"}, // ignored
		{"bad provider token", "token", request{header: h("authorization", "bearer nonsense")}, "403 InvalidProviderToken"},
		{"other scheme", "token", request{header: h("authorization", "basic YTpi")}, "403 InvalidProviderToken"},

		{"no topic", "cert", request{header: h("apns-topic", "-")}, "200"}, // the certificate has just one
		{"no topic", "token", request{header: h("apns-topic", "-")}, "400 MissingTopic"},
		{"other topic", "cert", request{header: h("apns-topic", "com.example.other")}, "400 TopicDisallowed"},
		{"other topic", "token", request{header: h("apns-topic", "com.example.other")}, "200"},
		{"alert", "cert token", pushType("alert", app), "200"},
		{"background", "cert token", pushType("background", app, "apns-priority", "5"), "200"},
		{"background 10", "cert token", pushType("background", app, "apns-priority", "10"), "400 BadPriority"},
		{"background 1", "cert token", pushType("background", app, "apns-priority", "1"), "400 BadPriority"},
		{"background, which is 10", "cert token", pushType("background", app), "400 BadPriority"},
		{"location", "token", pushType("location", app+".location-query"), "200"},
		{"location", "cert", pushType("location", app+".location-query"), "403 Forbidden"}, // token ONLY
		{"location, bare", "token", pushType("location", app), "400 BadTopic"},
		{"voip", "cert token", pushType("voip", app+".voip"), "200"},
		{"voip, bare", "cert token", pushType("voip", app), "400 BadTopic"},
		{"voip, no topic", "cert", pushType("voip", "-"), "400 BadTopic"},
		{"voip, suffix alone", "token", pushType("voip", ".voip"), "400 BadTopic"},
		{"voip of another", "cert", pushType("voip", "com.example.other.voip"), "400 TopicDisallowed"},
		{"complication", "cert token", pushType("complication", app+".complication"), "200"},
		{"fileprovider", "cert token", pushType("fileprovider", app+".pushkit.fileprovider"), "200"},
		{"fileprovider, bare", "token", pushType("fileprovider", app), "400 BadTopic"},
		{"mdm", "token", pushType("mdm", "com.apple.mgmt.External.1"), "200"},
		{"mdm, app", "cert token", pushType("mdm", app), "400 BadTopic"},
		{"liveactivity", "token", pushType("liveactivity", app+".push-type.liveactivity"), "200"},
		{"liveactivity, bare", "token", pushType("liveactivity", app), "400 BadTopic"},
		{"pushtotalk", "token", pushType("pushtotalk", app+".voip-ptt"), "200"},
		{"pushtotalk, voip", "token", pushType("pushtotalk", app+".voip"), "400 BadTopic"},
		{"widgets", "token", pushType("widgets", app+".push-type.widgets"), "200"},
		{"controls", "token", pushType("controls", app+".push-type.controls"), "200"},
		{"unknown type", "cert token", pushType("telepathy", app), "400 InvalidPushType"},

		{"priority 10", "cert token", request{header: h("apns-priority", "10")}, "200"},
		{"priority 5", "cert token", request{header: h("apns-priority", "5")}, "200"},
		{"priority 1", "cert token", request{header: h("apns-priority", "1")}, "200"},
		{"priority 7", "cert token", request{header: h("apns-priority", "7")}, "400 BadPriority"},
		{"priority 266", "cert token", request{header: h("apns-priority", "266")}, "400 BadPriority"},
		{"priority high", "cert token", request{header: h("apns-priority", "high")}, "400 BadPriority"},
		{"expiration 0", "cert token", request{header: h("apns-expiration", "0")}, "200"},
		{"expiration", "cert token", request{header: h("apns-expiration", "1700000000")}, "200"},
		{"expiration before 1970", "cert token", request{header: h("apns-expiration", "-1")}, "400 BadExpirationDate"},
		{"expiration in words", "cert token", request{header: h("apns-expiration", "soon")}, "400 BadExpirationDate"},
		{"expiration too late", "cert token", request{header: h("apns-expiration", "99999999999999999999")}, "400 BadExpirationDate"},
		{"collapse ID of 64 bytes", "cert token", request{header: h("apns-collapse-id", strings.Repeat("c", 64))}, "200"},
		{"collapse ID of 65 bytes", "cert token", request{header: h("apns-collapse-id", strings.Repeat("c", 65))}, "400 BadCollapseId"},
		{"apns-id", "cert token", request{header: h("apns-id", id)}, "200"},
		{"apns-id of another form", "cert token", request{header: h("apns-id", strings.ReplaceAll(id, "-", ""))}, "400 BadMessageId"},
		{"apns-id with a stray hyphen", "cert token", request{header: h("apns-id", id[:35]+"-")}, "400 BadMessageId"},
		{"apns-id not of hex", "cert token", request{header: h("apns-id", "z"+id[1:])}, "400 BadMessageId"},

		{"4096 bytes", "cert token", request{body: bytesOfJSON(4096)}, "200"},
		{"4097 bytes", "cert token", request{body: bytesOfJSON(4097)}, "413 PayloadTooLarge"},
		{"70000 bytes", "cert token", request{body: bytesOfJSON(70_000)}, "413 PayloadTooLarge"},
		{"3 MiB, over all windows", "cert token", request{body: bytesOfJSON(3 << 20)}, "413 PayloadTooLarge"},
		{"voip of 5120 bytes", "cert token", request{header: pushType("voip", app+".voip").header, body: bytesOfJSON(5120)}, "200"},
		{"voip of 5121 bytes", "cert token", request{header: pushType("voip", app+".voip").header, body: bytesOfJSON(5121)}, "413 PayloadTooLarge"},
		{"empty", "cert token", request{body: []byte{}}, "400 PayloadEmpty"},
		{"no JSON", "cert token", request{body: []byte(`{"aps":`)}, "400 BadRequestPayload"},
	} {
		for _, creds := range strings.Fields(test.creds) {
			t.Run(creds+" "+test.name, func(t *testing.T) {
				asked := false
				s := start(t, false, func(m *apns.Message) error {
					asked = true
					return nil
				}, nil)
				req := test.req
				if creds == "token" {
					header := map[string]string{"authorization": jwt{}.sign(t, s)}
					maps.Copy(header, req.header)
					req.header = header
				}
				a := req.send(t.Context(), connect(t, s, creds == "cert"))
				if got := a.String(); got != test.want {
					t.Fatalf("got %s, want %s", got, test.want)
				}
				if good := a.status == 200; asked != good {
					t.Errorf("the handler was asked: %v, want %v", asked, good)
				}
				// What the answer has besides.
				given := req.header["apns-id"]
				if got := a.header.Get("apns-id"); test.want != "400 BadMessageId" && given != "" && got != given || !isUUID(got) {
					t.Errorf("got the apns-id %q, want that of the request (%q) or another", got, given)
				}
				if got := a.header.Get("apns-unique-id"); isUUID(got) != (a.status == 200) {
					t.Errorf("got the apns-unique-id %q with status %d", got, a.status)
				}
				if a.timestamp != 0 || a.header.Get("retry-after") != "" {
					t.Errorf("got a timestamp or Retry-After: %+v", a)
				}
				// And what is recorded.
				rs := s.Records()
				if len(rs) != 1 {
					t.Fatalf("got %d records, want 1", len(rs))
				}
				r := rs[0]
				if a.status == 200 {
					if r.Outcome != apnstest.Accepted || r.Err != nil {
						t.Errorf("got the record %v, %v, want accepted", r.Outcome, r.Err)
					}
				} else if r.Outcome != apnstest.Rejected || !errors.Is(r.Err, a.reason) {
					t.Errorf("got the record %v, %v, want refused, %v", r.Outcome, r.Err, a.reason)
				}
				if got := r.Message.Token; got != strings.ToLower(got) || a.reason == apns.ReasonBadPath && strings.Contains(req.path, "4/device") && got != "" {
					t.Errorf("got the token %q in the record", got)
				}
			})
		}
	}
}

// isUUID reports whether s has the canonical form, in either case.
func isUUID(s string) bool {
	b := []byte(strings.ToLower(s))
	for i, c := range b {
		if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen != (c == '-') || !hyphen && !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return len(b) == 36
}

// The message arrives as it was sent.
func TestProviderMessage(t *testing.T) {
	s := start(t, false, nil, nil)
	c := connect(t, s, true)
	if a := (request{path: "/3/device/ABCD", body: []byte(`{"a":"ü"}`), header: map[string]string{
		"apns-topic": apnstest.Topic + ".voip", "apns-push-type": "voip", "apns-priority": "10", "apns-expiration": "1700000000",
		"apns-collapse-id": "c", "apns-id": "123e4567-e89b-12d3-a456-4266554400a0",
	}}).send(t.Context(), c); a.String() != "200" {
		t.Fatal(a)
	}
	if a := (request{header: map[string]string{"apns-topic": "-", "apns-expiration": "0"}}).send(t.Context(), c); a.String() != "200" {
		t.Fatal(a)
	}
	got := s.Messages(apnstest.Accepted)
	want := []string{
		fmt.Sprintf("%+v", apns.Message{Token: "abcd", Payload: []byte(`{"a":"ü"}`), Expiry: time.Unix(1700000000, 0).UTC(), Priority: 10,
			Topic: apnstest.Topic + ".voip", PushType: apns.PushTypeVoIP, CollapseID: "c", APNsID: "123e4567-e89b-12d3-a456-4266554400a0"}),
		fmt.Sprintf("%+v", apns.Message{Token: token, Payload: []byte(`{}`), Expiry: time.Unix(0, 0).UTC(), Topic: apnstest.Topic}),
	}
	for i := range want {
		if got := fmt.Sprintf("%+v", *got[i]); got != want[i] {
			t.Errorf("message %d: got %s, want %s", i, got, want[i])
		}
	}
}

// "Handling notification responses from APNs": DuplicateHeaders.
func TestDuplicateHeaders(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	id := uint32(1)
	for _, name := range []string{"authorization", "apns-topic", "apns-push-type", "apns-id", "apns-expiration", "apns-priority", "apns-collapse-id", "x-other"} {
		c.write(frames(pushFrames(id, "{}", name, "1", name, "1")...))
		if got := c.until(headers).status(); got != "400" {
			t.Errorf("%s twice: got the status %s, want 400", name, got)
		}
		if got := string(c.until(data).payload); got != `{"reason":"DuplicateHeaders"}` {
			t.Errorf("%s twice: got %s, want DuplicateHeaders", name, got)
		}
		id += 2
	}
	if n := len(s.Messages(apnstest.Rejected)); n != 8 {
		t.Errorf("%d messages were refused, want 8", n)
	}
}

// A client that is a plain http.Client and knows the server by its PEM.
func TestProviderPEM(t *testing.T) {
	s := start(t, false, nil, nil)
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ClientCert, certs.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certs.CA)
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	defer transport.CloseIdleConnections()
	for range 3 {
		resp, err := (&http.Client{Transport: transport}).Post("https://"+s.HTTP2Addr+"/3/device/"+token, "", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Errorf("got %s %s, want 200 over HTTP/2", resp.Proto, resp.Status)
		}
	}
	for _, r := range s.Records() {
		if r.Conn != 1 {
			t.Errorf("got a record of connection %d, want all of 1", r.Conn)
		}
	}
	// HTTP/1.1 is not spoken.
	transport2 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	defer transport2.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: transport2}).Post("https://"+s.HTTP2Addr+"/3/device/"+token, "", strings.NewReader("{}")); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP/1.1 got %s, want an error", resp.Status)
	}
}

// A server that knows the devices: "Handling notification responses from APNs",
// and of the old services the chapter "Binary Provider API".
func TestRegister(t *testing.T) {
	const live, other, dead, unknown = "aa01", "aa02", "aa03", "aa04"
	deadAt := time.Date(2026, 5, 4, 3, 2, 1, 234e6, time.UTC)
	s := start(t, false, nil, nil)
	c := connect(t, s, true)
	check := func(when string, want map[string]string) {
		t.Helper()
		for token, want := range want {
			a := request{path: "/3/device/" + strings.ToUpper(token)}.send(t.Context(), c)
			if a.String() != want {
				t.Errorf("%s: token %s: got %v, want %s", when, token, a, want)
			}
			var ms int64
			if a.status == 410 {
				ms = deadAt.UnixMilli()
			}
			if a.timestamp != ms {
				t.Errorf("%s: token %s: got the timestamp %d, want %d", when, token, a.timestamp, ms)
			}
		}
	}
	check("at first", map[string]string{live: "200", unknown: "200"})
	s.Unregister(strings.ToUpper(dead), deadAt)
	check("with a dead one", map[string]string{live: "200", dead: "410 Unregistered", unknown: "200"})
	s.Register(apnstest.Topic, strings.ToUpper(live))
	s.Register("com.example.other", other)
	check("registered", map[string]string{live: "200", other: "400 DeviceTokenNotForTopic", dead: "410 Unregistered", unknown: "400 BadDeviceToken"})
	if n := len(s.Messages(apnstest.Rejected)); n != 4 {
		t.Errorf("%d messages were refused, want 4", n)
	}
	// The gateway knew nothing of dead devices: that is the feedback service's.
	for token, want := range map[string][]byte{dead: {}, unknown: {8, 8, 0, 0, 0, 7}} {
		p := open(t, s, "2195")
		if _, err := p.Write(build(t, &apns.Message{ID: 7, Token: token, Payload: []byte("{}")})); err != nil {
			t.Fatal(err)
		}
		p.CloseWrite()
		if got, err := io.ReadAll(p); !bytes.Equal(got, want) || err != nil {
			t.Errorf("binary: token %s: got % x, %v; want % x", token, got, err, want)
		}
	}
	want, _ := apns.AppendFeedback(nil, apns.Feedback{Token: dead, DeadAt: deadAt})
	if got, err := io.ReadAll(open(t, s, "2196")); !bytes.Equal(got, want) || err != nil {
		t.Errorf("feedback: got % x, %v; want % x", got, err, want)
	}
	s.Register(apnstest.Topic, dead)
	s.Register(apnstest.Topic, other)
	check("again", map[string]string{live: "200", other: "200", dead: "200", unknown: "400 BadDeviceToken"})
}
