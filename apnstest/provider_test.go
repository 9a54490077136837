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

// The tests of HTTP/2 use net/http as the client. Where they need frames that net/http does
// not send, they use rawConn.

// A request is a push. A zero field has the value of a good request.
type request struct {
	method string            // zero: POST
	path   string            // zero: that of token
	header map[string]string // changes to a good header; "-" removes a field
	body   []byte            // nil: {}
}

// A response is the response to a request.
type response struct {
	status    int
	reason    apns.Reason
	timestamp int64
	header    http.Header
	err       error
}

// String returns, for example, "400 BadTopic".
func (r response) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.status, r.reason))
}

// connect opens a connection of net/http, with or without the client certificate.
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

func (r request) send(ctx context.Context, c http.RoundTripper) response {
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
	httpReq, err := http.NewRequestWithContext(ctx, method, "https://api.push.apple.com"+path, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return response{err: err}
	}
	httpReq.ContentLength = int64(len(body))
	httpReq.Header.Set("apns-topic", apnstest.BundleID)
	for name, value := range r.header {
		httpReq.Header.Set(name, value)
		if value == "-" {
			httpReq.Header.Del(name)
		}
	}
	httpResp, err := c.RoundTrip(httpReq)
	if err != nil {
		return response{err: err}
	}
	defer httpResp.Body.Close()
	b, err := io.ReadAll(httpResp.Body)
	resp := response{status: httpResp.StatusCode, header: httpResp.Header, err: err}
	if len(b) > 0 && err == nil {
		var rejection struct {
			Reason    apns.Reason
			Timestamp int64
		}
		resp.err = json.Unmarshal(b, &rejection)
		resp.reason, resp.timestamp = rejection.Reason, rejection.Timestamp
	}
	return resp
}

// bytesOfJSON returns a JSON object of n bytes.
func bytesOfJSON(n int) []byte {
	return []byte("{" + strings.Repeat(" ", n-2) + "}")
}

// fields returns header fields from names and values in turn.
func fields(pairs ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// pushType returns a request with a push type, a topic and more header fields.
func pushType(pushType, topic string, more ...string) request {
	return request{header: fields(append([]string{"apns-push-type", pushType, "apns-topic", topic}, more...)...)}
}

const someUUID = "123e4567-e89b-12d3-a456-4266554400a0"

// A providerCheck is a request and the response to it.
type providerCheck struct {
	name  string
	creds string // "cert", "token" or both
	req   request
	want  string
}

// The sources are "Sending notification requests to APNs" for the requests, and "Handling
// notification responses from APNs" for the responses.
var providerChecks = []providerCheck{
	{"good", "cert token", request{}, "200"},
	{"upper case token", "cert token", request{path: "/3/device/" + strings.ToUpper(token)}, "200"},
	{"unknown header", "cert token", request{header: fields("x-other", "1")}, "200"},

	{"GET", "cert token", request{method: "GET"}, "405 MethodNotAllowed"},
	{"PUT", "cert token", request{method: "PUT"}, "405 MethodNotAllowed"},
	{"path", "cert token", request{path: "/4/device/" + token}, "404 BadPath"},
	{"root", "cert token", request{path: "/"}, "404 BadPath"},
	{"longer path", "cert token", request{path: "/3/device/" + token + "/x"}, "404 BadPath"},
	{"no token", "cert token", request{path: "/3/device/"}, "400 MissingDeviceToken"},
	{"bad hex", "cert token", request{path: "/3/device/xyz0"}, "400 BadDeviceToken"},
	{"query", "cert token", request{path: "/3/device/" + token + "?a=b"}, "400 BadDeviceToken"},
	{"odd", "cert token", request{path: "/3/device/abc"}, "400 BadDeviceToken"},
	{"token of 2,048 bytes", "cert token", request{path: "/3/device/" + strings.Repeat("ab", 2048)}, "200"},

	{"no provider token", "cert", request{header: fields("authorization", "-")}, "200"},
	{"no provider token", "token", request{header: fields("authorization", "-")}, "403 MissingProviderToken"},
	{"bad provider token", "cert", request{header: fields("authorization", "bearer nonsense")}, "200"}, // ignored
	{"bad provider token", "token", request{header: fields("authorization", "bearer nonsense")}, "403 InvalidProviderToken"},
	{"other scheme", "token", request{header: fields("authorization", "basic YTpi")}, "403 InvalidProviderToken"},

	{"no topic", "cert", request{header: fields("apns-topic", "-")}, "200"}, // the certificate has one topic
	{"no topic", "token", request{header: fields("apns-topic", "-")}, "400 MissingTopic"},
	{"other topic", "cert", request{header: fields("apns-topic", "com.example.other")}, "400 TopicDisallowed"},
	{"other topic", "token", request{header: fields("apns-topic", "com.example.other")}, "200"},
	{"alert", "cert token", pushType("alert", apnstest.BundleID), "200"},
	{"background", "cert token", pushType("background", apnstest.BundleID, "apns-priority", "5"), "200"},
	{"background 10", "cert token", pushType("background", apnstest.BundleID, "apns-priority", "10"), "400 BadPriority"},
	{"background 1", "cert token", pushType("background", apnstest.BundleID, "apns-priority", "1"), "400 BadPriority"},
	{"background, which is 10", "cert token", pushType("background", apnstest.BundleID), "400 BadPriority"},
	{"location", "token", pushType("location", apnstest.BundleID+".location-query"), "200"},
	{"location", "cert", pushType("location", apnstest.BundleID+".location-query"), "403 Forbidden"}, // token ONLY
	{"location, bare", "token", pushType("location", apnstest.BundleID), "400 BadTopic"},
	{"voip", "cert token", pushType("voip", apnstest.BundleID+".voip"), "200"},
	{"voip, bare", "cert token", pushType("voip", apnstest.BundleID), "400 BadTopic"},
	{"voip, no topic", "cert", pushType("voip", "-"), "400 BadTopic"},
	{"voip, suffix alone", "token", pushType("voip", ".voip"), "400 BadTopic"},
	{"voip of another", "cert", pushType("voip", "com.example.other.voip"), "400 TopicDisallowed"},
	{"complication", "cert token", pushType("complication", apnstest.BundleID+".complication"), "200"},
	{"fileprovider", "cert token", pushType("fileprovider", apnstest.BundleID+".pushkit.fileprovider"), "200"},
	{"fileprovider, bare", "token", pushType("fileprovider", apnstest.BundleID), "400 BadTopic"},
	{"mdm", "token", pushType("mdm", "com.apple.mgmt.External.1"), "200"},
	{"mdm, app", "cert token", pushType("mdm", apnstest.BundleID), "400 BadTopic"},
	{"liveactivity", "token", pushType("liveactivity", apnstest.BundleID+".push-type.liveactivity"), "200"},
	{"liveactivity, bare", "token", pushType("liveactivity", apnstest.BundleID), "400 BadTopic"},
	{"pushtotalk", "token", pushType("pushtotalk", apnstest.BundleID+".voip-ptt"), "200"},
	{"pushtotalk, voip", "token", pushType("pushtotalk", apnstest.BundleID+".voip"), "400 BadTopic"},
	{"widgets", "token", pushType("widgets", apnstest.BundleID+".push-type.widgets"), "200"},
	{"controls", "token", pushType("controls", apnstest.BundleID+".push-type.controls"), "200"},
	{"unknown type", "cert token", pushType("telepathy", apnstest.BundleID), "400 InvalidPushType"},

	{"priority 10", "cert token", request{header: fields("apns-priority", "10")}, "200"},
	{"priority 5", "cert token", request{header: fields("apns-priority", "5")}, "200"},
	{"priority 1", "cert token", request{header: fields("apns-priority", "1")}, "200"},
	{"priority 7", "cert token", request{header: fields("apns-priority", "7")}, "400 BadPriority"},
	{"priority 266", "cert token", request{header: fields("apns-priority", "266")}, "400 BadPriority"},
	{"priority high", "cert token", request{header: fields("apns-priority", "high")}, "400 BadPriority"},
	{"expiration 0", "cert token", request{header: fields("apns-expiration", "0")}, "200"},
	{"expiration", "cert token", request{header: fields("apns-expiration", "1700000000")}, "200"},
	{"expiration before 1970", "cert token", request{header: fields("apns-expiration", "-1")}, "400 BadExpirationDate"},
	{"expiration in words", "cert token", request{header: fields("apns-expiration", "soon")}, "400 BadExpirationDate"},
	{"expiration too late", "cert token", request{header: fields("apns-expiration", "99999999999999999999")}, "400 BadExpirationDate"},
	{"collapse ID of 64 bytes", "cert token", request{header: fields("apns-collapse-id", strings.Repeat("c", 64))}, "200"},
	{"collapse ID of 65 bytes", "cert token", request{header: fields("apns-collapse-id", strings.Repeat("c", 65))}, "400 BadCollapseId"},
	{"apns-id", "cert token", request{header: fields("apns-id", someUUID)}, "200"},
	{"apns-id of another form", "cert token", request{header: fields("apns-id", strings.ReplaceAll(someUUID, "-", ""))}, "400 BadMessageId"},
	{"apns-id with a stray hyphen", "cert token", request{header: fields("apns-id", someUUID[:35]+"-")}, "400 BadMessageId"},
	{"apns-id not of hex", "cert token", request{header: fields("apns-id", "z"+someUUID[1:])}, "400 BadMessageId"},

	{"4096 bytes", "cert token", request{body: bytesOfJSON(4096)}, "200"},
	{"4097 bytes", "cert token", request{body: bytesOfJSON(4097)}, "413 PayloadTooLarge"},
	{"70000 bytes", "cert token", request{body: bytesOfJSON(70_000)}, "413 PayloadTooLarge"},
	{"3 MiB, over all windows", "cert token", request{body: bytesOfJSON(3 << 20)}, "413 PayloadTooLarge"},
	{"voip of 5120 bytes", "cert token", request{header: pushType("voip", apnstest.BundleID+".voip").header, body: bytesOfJSON(5120)}, "200"},
	{"voip of 5121 bytes", "cert token", request{header: pushType("voip", apnstest.BundleID+".voip").header, body: bytesOfJSON(5121)}, "413 PayloadTooLarge"},
	{"empty", "cert token", request{body: []byte{}}, "400 PayloadEmpty"},
	{"no JSON", "cert token", request{body: []byte(`{"aps":`)}, "400 BadRequestPayload"},
	{"an array", "cert token", request{body: []byte(`[]`)}, "400 BadRequestPayload"},
	{"a string", "cert token", request{body: []byte(`"aps"`)}, "400 BadRequestPayload"},
}

func TestProviderChecks(t *testing.T) {
	for _, test := range providerChecks {
		for _, creds := range strings.Fields(test.creds) {
			t.Run(creds+" "+test.name, func(t *testing.T) { testProviderCheck(t, creds, test) })
		}
	}
}

func testProviderCheck(t *testing.T, creds string, test providerCheck) {
	called := false
	s := start(t, false, func(m *apns.Message) error {
		called = true
		return nil
	}, nil)
	req := test.req
	if creds == "token" {
		header := map[string]string{"authorization": jwt{}.sign(t, s)}
		maps.Copy(header, req.header)
		req.header = header
	}
	resp := req.send(t.Context(), connect(t, s, creds == "cert"))
	if got := resp.String(); got != test.want {
		t.Fatalf("got %s, want %s", got, test.want)
	}
	if good := resp.status == 200; called != good {
		t.Errorf("the handler was called: %v, want %v", called, good)
	}

	// The other header fields of the response.
	id := req.header["apns-id"]
	if got := resp.header.Get("apns-id"); test.want != "400 BadMessageId" && id != "" && got != id || !isUUID(got) {
		t.Errorf("got the apns-id %q, want that of the request (%q) or another", got, id)
	}
	if got := resp.header.Get("apns-unique-id"); isUUID(got) != (resp.status == 200) {
		t.Errorf("got the apns-unique-id %q with status %d", got, resp.status)
	}
	if resp.timestamp != 0 || resp.header.Get("retry-after") != "" {
		t.Errorf("got a timestamp or Retry-After: %+v", resp)
	}

	// The record.
	rs := s.Records()
	if len(rs) != 1 {
		t.Fatalf("got %d records, want 1", len(rs))
	}
	r := rs[0]
	if resp.status == 200 {
		if r.Outcome != apnstest.Accepted || r.Err != nil {
			t.Errorf("got the record %v, %v, want accepted", r.Outcome, r.Err)
		}
	} else if r.Outcome != apnstest.Rejected || !errors.Is(r.Err, resp.reason) {
		t.Errorf("got the record %v, %v, want rejected, %v", r.Outcome, r.Err, resp.reason)
	}
	if got := r.Message.Token; got != strings.ToLower(got) || resp.reason == apns.ReasonBadPath && strings.Contains(req.path, "4/device") && got != "" {
		t.Errorf("got the token %q in the record", got)
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

// The handler gets the message of the request.
func TestProviderMessage(t *testing.T) {
	s := start(t, false, nil, nil)
	c := connect(t, s, true)
	if resp := (request{path: "/3/device/ABCD", body: []byte(`{"a":"ü"}`), header: map[string]string{
		"apns-topic": apnstest.BundleID + ".voip", "apns-push-type": "voip", "apns-priority": "10", "apns-expiration": "1700000000",
		"apns-collapse-id": "c", "apns-id": "123e4567-e89b-12d3-a456-4266554400a0",
	}}).send(t.Context(), c); resp.String() != "200" {
		t.Fatal(resp)
	}
	if resp := (request{header: map[string]string{"apns-topic": "-", "apns-expiration": "0"}}).send(t.Context(), c); resp.String() != "200" {
		t.Fatal(resp)
	}
	got := s.Messages(apnstest.Accepted)
	want := []string{
		fmt.Sprintf("%+v", apns.Message{Token: "abcd", Payload: []byte(`{"a":"ü"}`), Expiry: time.Unix(1700000000, 0).UTC(), Priority: 10,
			Topic: apnstest.BundleID + ".voip", PushType: apns.PushTypeVoIP, CollapseID: "c", APNsID: "123e4567-e89b-12d3-a456-4266554400a0"}),
		fmt.Sprintf("%+v", apns.Message{Token: token, Payload: []byte(`{}`), Expiry: time.Unix(0, 0).UTC(), Topic: apnstest.BundleID}),
	}
	for i := range want {
		if got := fmt.Sprintf("%+v", *got[i]); got != want[i] {
			t.Errorf("message %d: got %s, want %s", i, got, want[i])
		}
	}
}

// A header field that occurs twice is rejected with DuplicateHeaders. The source is
// "Handling notification responses from APNs".
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
		t.Errorf("%d messages were rejected, want 8", n)
	}
}

// A plain http.Client needs only the PEM to connect.
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
	// A client that offers only HTTP/1.1 gets an error.
	transport2 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	defer transport2.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: transport2}).Post("https://"+s.HTTP2Addr+"/3/device/"+token, "", strings.NewReader("{}")); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP/1.1 got %s, want an error", resp.Status)
	}
}

// A server with registered devices checks device tokens. The sources are "Handling
// notification responses from APNs" and, for the binary protocol, the chapter "Binary
// Provider API".
func TestRegister(t *testing.T) {
	const live, other, dead, unknown = "aa01", "aa02", "aa03", "aa04"
	deadAt := time.Date(2026, 5, 4, 3, 2, 1, 234e6, time.UTC)
	s := start(t, false, nil, nil)
	c := connect(t, s, true)
	check := func(when string, want map[string]string) {
		t.Helper()
		for token, want := range want {
			resp := request{path: "/3/device/" + strings.ToUpper(token)}.send(t.Context(), c)
			if resp.String() != want {
				t.Errorf("%s: token %s: got %v, want %s", when, token, resp, want)
			}
			var ms int64
			if resp.status == 410 {
				ms = deadAt.UnixMilli()
			}
			if resp.timestamp != ms {
				t.Errorf("%s: token %s: got the timestamp %d, want %d", when, token, resp.timestamp, ms)
			}
		}
	}
	check("at first", map[string]string{live: "200", unknown: "200"})
	s.Unregister(strings.ToUpper(dead), deadAt)
	check("with a dead one", map[string]string{live: "200", dead: "410 Unregistered", unknown: "200"})
	s.Register(apnstest.BundleID, strings.ToUpper(live))
	s.Register("com.example.other", other)
	check("registered", map[string]string{live: "200", other: "400 DeviceTokenNotForTopic", dead: "410 Unregistered", unknown: "400 BadDeviceToken"})
	if n := len(s.Messages(apnstest.Rejected)); n != 4 {
		t.Errorf("%d messages were rejected, want 4", n)
	}
	// The gateway accepts messages to dead devices: the feedback service reports them.
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
	s.Register(apnstest.BundleID, dead)
	s.Register(apnstest.BundleID, other)
	check("again", map[string]string{live: "200", other: "200", dead: "200", unknown: "400 BadDeviceToken"})
}
