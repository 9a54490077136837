package apnstest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// A jwt is a provider token in the making; what it leaves out is that of a good
// one. See "Establishing a token-based connection to APNs".
type jwt struct {
	key          []byte // .p8
	alg, kid     string
	iss          string
	age          time.Duration
	der          bool // the form of the signature
	iat          string
	cut, padding bool
}

func (j jwt) sign(t *testing.T, s *apnstest.Server) string {
	t.Helper()
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	if j.key == nil {
		j.key = s.Certificates().AuthKey
	}
	block, _ := pem.Decode(j.key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := fmt.Sprintf(`{"alg":%q,"kid":%q}`, or(j.alg, "ES256"), or(j.kid, apnstest.KeyID))
	claims := fmt.Sprintf(`{"iss":%q,"iat":%s}`, or(j.iss, apnstest.TeamID), or(j.iat, strconv.FormatInt(time.Now().Add(-j.age).Unix(), 10)))
	b := encode([]byte(head)) + "." + encode([]byte(claims))
	if j.cut {
		return "bearer " + b
	}
	digest := sha256.Sum256([]byte(b))
	r, ss, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), ss.FillBytes(make([]byte, 32))...)
	if j.der {
		if signature, err = asn1.Marshal(struct{ R, S *big.Int }{r, ss}); err != nil {
			t.Fatal(err)
		}
	}
	if j.padding {
		return "bearer " + b + "." + base64.URLEncoding.EncodeToString(signature)
	}
	return "bearer " + b + "." + encode(signature)
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
					if r.Fate != apnstest.Accepted || r.Err != nil {
						t.Errorf("got the record %v, %v, want accepted", r.Fate, r.Err)
					}
				} else if r.Fate != apnstest.Refused || !errors.Is(r.Err, a.reason) {
					t.Errorf("got the record %v, %v, want refused, %v", r.Fate, r.Err, a.reason)
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

// Provider tokens on one connection: "Establishing a token-based connection to
// APNs".
func TestProviderTokens(t *testing.T) {
	type step struct {
		after time.Duration // the step before
		token string
		want  string
	}
	const (
		good    = "200"
		expired = "403 ExpiredProviderToken"
		invalid = "403 InvalidProviderToken"
		often   = "429 TooManyProviderTokenUpdates"
	)
	for name, steps := range map[string][]step{
		"good":                    {{0, "new", good}},
		"59 minutes old":          {{0, "59m", good}},
		"an hour old":             {{0, "60m", good}},
		"over an hour old":        {{0, "61m", expired}},
		"grows old":               {{0, "new", good}, {time.Hour, "new", good}, {time.Second, "new", expired}},
		"59 minutes ahead":        {{0, "-59m", good}},
		"61 minutes ahead":        {{0, "-61m", invalid}},
		"iat in milliseconds":     {{0, "ms", invalid}},
		"iat a string":            {{0, "string", invalid}},
		"wrong key":               {{0, "wrong key", invalid}},
		"unknown key ID":          {{0, "unknown", invalid}},
		"wrong team":              {{0, "wrong team", invalid}},
		"wrong alg":               {{0, "alg", invalid}},
		"none":                    {{0, "none", invalid}},
		"DER":                     {{0, "DER", invalid}},
		"padded":                  {{0, "padded", invalid}},
		"no signature":            {{0, "cut", invalid}},
		"changed early":           {{0, "new", good}, {19 * time.Minute, "new2", often}, {0, "new", good}},
		"changed in time":         {{0, "new", good}, {20 * time.Minute, "new2", good}},
		"changed back early":      {{0, "new", good}, {20 * time.Minute, "new2", good}, {time.Minute, "new", often}, {19 * time.Minute, "new", good}},
		"changed after a bad one": {{0, "DER", invalid}, {0, "new", good}},
		"changed after old one":   {{0, "61m", expired}, {0, "new", good}},
		"another team":            {{0, "new", good}, {time.Hour, "team", invalid}, {0, "new", good}},
		"another key":             {{0, "new", good}, {time.Hour, "key", "403 UnrelatedKeyIdInToken"}, {0, "new", good}},
		"that other team first":   {{0, "team", good}, {0, "new", invalid}},
		"that other key first":    {{0, "key", good}, {0, "new", "403 UnrelatedKeyIdInToken"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, nil)
			otherKey := s.AddAuthKey("OTHERKEY01", apnstest.TeamID)
			otherTeam := s.AddAuthKey("OTHERKEY02", "OTHERTEAM1")
			now := strconv.FormatInt(time.Now().Unix(), 10)
			tokens := map[string]string{
				"new":        jwt{}.sign(t, s),
				"59m":        jwt{age: 59 * time.Minute}.sign(t, s),
				"60m":        jwt{age: 60 * time.Minute}.sign(t, s),
				"61m":        jwt{age: 61 * time.Minute}.sign(t, s),
				"-59m":       jwt{age: -59 * time.Minute}.sign(t, s),
				"-61m":       jwt{age: -61 * time.Minute}.sign(t, s),
				"ms":         jwt{iat: now + "000"}.sign(t, s),
				"string":     jwt{iat: `"` + now + `"`}.sign(t, s),
				"wrong key":  jwt{key: otherKey}.sign(t, s),
				"unknown":    jwt{kid: "UNKNOWN001"}.sign(t, s),
				"wrong team": jwt{iss: "OTHERTEAM1"}.sign(t, s),
				"alg":        jwt{alg: "ES384"}.sign(t, s),
				"none":       jwt{alg: "none"}.sign(t, s),
				"DER":        jwt{der: true}.sign(t, s),
				"padded":     jwt{padding: true}.sign(t, s),
				"cut":        jwt{cut: true}.sign(t, s),
				"team":       jwt{key: otherTeam, kid: "OTHERKEY02", iss: "OTHERTEAM1"}.sign(t, s),
				"key":        jwt{key: otherKey, kid: "OTHERKEY01"}.sign(t, s),
			}
			tokens["new2"] = jwt{age: -time.Second}.sign(t, s)
			c := connect(t, s, false)
			for i, step := range steps {
				time.Sleep(step.after)
				a := request{header: map[string]string{"authorization": tokens[step.token]}}.send(t.Context(), c)
				if a.String() != step.want {
					t.Errorf("%s: step %d: got %v, want %s", name, i, a, step.want)
				}
			}
			if n := len(s.Records()); n != len(steps) {
				t.Errorf("%s: got %d records, want %d", name, n, len(steps))
			}
		})
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
	if n := len(s.Messages(apnstest.Refused)); n != 4 {
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

// What a handler returns, and what comes of it over HTTP/2 and in the records.
func TestProviderVerdicts(t *testing.T) {
	const accepted, refused, discarded = apnstest.Accepted, apnstest.Refused, apnstest.Discarded
	type fault = apnstest.Fault
	deadAt := time.Unix(1700000000, 0)
	for name, test := range map[string]struct {
		err  error
		want string // of the answer, or a part of the error
		fate apnstest.Fate
		last bool // the connection takes no more
	}{
		"nil":                   {nil, "200", accepted, false},
		"no error":              {apns.StatusNoError, "200", accepted, false},
		"reason":                {apns.ReasonTooManyRequests, "429 TooManyRequests", refused, false},
		"wrapped":               {fmt.Errorf("because: %w", apns.ReasonServiceUnavailable), "503 ServiceUnavailable", refused, false},
		"unknown reason":        {apns.Reason("MoonPhase"), "400 MoonPhase", refused, false},
		"shutdown, the reason":  {apns.ReasonShutdown, "503 Shutdown", refused, false},
		"shutdown":              {apns.StatusShutdown, "200", accepted, true},
		"shutdown, another ID":  {&apns.PushError{ID: 3, Status: apns.StatusShutdown}, "503 Shutdown", refused, false},
		"any other":             {errors.New("boom"), "500 InternalServerError", refused, false},
		"unknown status":        {apns.Status(99), "500 InternalServerError", refused, false},
		"status 8":              {apns.StatusInvalidToken, "400 BadDeviceToken", refused, false},
		"push error":            {&apns.PushError{HTTPStatus: 418, Reason: "Teapot"}, "418 Teapot", refused, false},
		"push error, bare":      {&apns.PushError{HTTPStatus: 502}, "502", refused, false},
		"push error of reason":  {&apns.PushError{Reason: apns.ReasonTooManyRequests}, "429 TooManyRequests", refused, false},
		"push error, 410":       {&apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt}, "410 Unregistered", refused, false},
		"push error of status":  {&apns.PushError{ID: 9, Status: apns.StatusMissingTopic}, "400 MissingTopic", refused, false},
		"fault":                 {fault{Err: apns.ReasonTooManyRequests}, "429 TooManyRequests", refused, false},
		"fault, accepted":       {fault{Err: apns.StatusNoError}, "200", accepted, false},
		"together":              {fault{Err: apns.StatusInvalidToken, End: apnstest.EndTogether}, "400 BadDeviceToken", refused, false},
		"no answer":             {fault{}, "deadline", discarded, false},
		"stall":                 {fault{End: apnstest.EndStall}, "deadline", discarded, false},
		"stall, accepted":       {fault{End: apnstest.EndStall, Err: apns.StatusNoError}, "deadline", accepted, false},
		"reset":                 {fault{End: apnstest.EndReset}, "; CANCEL", discarded, false},
		"reset, accepted":       {fault{End: apnstest.EndReset, Err: apns.StatusNoError}, "; CANCEL", accepted, false},
		"refuse":                {fault{End: apnstest.EndRefuse}, "REFUSED_STREAM", discarded, false},
		"refuse, accepted":      {fault{End: apnstest.EndRefuse, Err: apns.StatusNoError}, "REFUSED_STREAM", discarded, false},
		"close":                 {fault{End: apnstest.EndClose}, "EOF|reset", discarded, true},
		"bare":                  {fault{End: apnstest.EndBare}, "EOF|reset", discarded, true},
		"goaway":                {fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonIdleTimeout}, "200", accepted, true},
		"goaway, refused":       {fault{End: apnstest.EndGoAway, Err: apns.ReasonBadTopic}, "400 BadTopic", refused, true},
		"goaway now":            {fault{End: apnstest.EndGoAwayNow, Reason: apns.ReasonShutdown}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"goaway now, late":      {fault{End: apnstest.EndGoAwayNow, Reason: apns.ReasonShutdown, Delay: time.Second}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"goaway now, no reason": {fault{End: apnstest.EndGoAwayNow, Err: apns.StatusNoError}, "received Server's graceful shutdown GOAWAY", discarded, true},
		"late":                  {fault{Err: apns.ReasonBadTopic, Delay: 5 * time.Second}, "400 BadTopic", refused, false},
		"late goaway":           {fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Delay: 5 * time.Second}, "200", accepted, true},
		"late close":            {fault{End: apnstest.EndClose, Delay: 5 * time.Second}, "EOF|reset", discarded, true},
		"late reset":            {fault{End: apnstest.EndReset, Delay: 5 * time.Second}, "; CANCEL", discarded, false},
		"too late":              {fault{Err: apns.ReasonBadTopic, Delay: time.Hour}, "deadline", refused, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(m *apns.Message) error {
				if m.CollapseID == "2" {
					return test.err
				}
				return nil
			}, nil)
			c := connect(t, s, true)
			send := func(id string) answer {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				a := request{header: map[string]string{"apns-collapse-id": id}}.send(ctx, c)
				synctest.Wait()
				return a
			}
			if a := send("1"); a.String() != "200" {
				t.Fatalf("%s: the message before: got %v, want 200", name, a)
			}
			began := time.Now()
			a := send("2")
			ok := a.String() == test.want
			if a.err != nil {
				ok = slices.ContainsFunc(strings.Split(test.want, "|"), func(s string) bool { return strings.Contains(a.err.Error(), s) })
			}
			if !ok {
				t.Errorf("%s: got %v, want %s", name, a, test.want)
			}
			f, _ := errors.AsType[apnstest.Fault](test.err)
			if d := time.Since(began); a.err == nil && d != f.Delay {
				t.Errorf("%s: the answer took %v, want %v", name, d, f.Delay)
			}
			if want := deadAt.UnixMilli(); a.status == 410 && a.timestamp != want {
				t.Errorf("%s: got the timestamp %d, want %d", name, a.timestamp, want)
			}
			fates := []apnstest.Fate{accepted, test.fate, accepted}
			if test.last {
				fates = fates[:2]
			}
			if a := send("3"); (a.err != nil) != test.last || a.err == nil && a.status != 200 {
				t.Errorf("%s: the message after: got %v, want an error: %v", name, a, test.last)
			}
			var got []apnstest.Fate
			for _, r := range s.Records() {
				got = append(got, r.Fate)
			}
			if !slices.Equal(got, fates) {
				t.Errorf("%s: got the fates %v, want %v", name, got, fates)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Minute: "60", 1500 * time.Millisecond: "2"} {
		s := start(t, false, func(*apns.Message) error {
			return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
		}, nil)
		a := request{}.send(t.Context(), connect(t, s, true))
		if got := a.header.Get("retry-after"); got != want || a.String() != "429 TooManyRequests" {
			t.Errorf("%v: got %v, Retry-After %q; want 429, %q", after, a, got, want)
		}
	}
}

// A handler's Reason on the binary wire, as a bridge would say it.
func TestReasonOnTheBinaryWire(t *testing.T) {
	for err, status := range map[error]byte{
		apns.ReasonBadDeviceToken:                           8,
		apns.ReasonDeviceTokenNotForTopic:                   8,
		apns.ReasonUnregistered:                             8,
		apns.ReasonExpiredToken:                             8,
		apns.ReasonMissingDeviceToken:                       2,
		apns.ReasonMissingTopic:                             3,
		apns.ReasonBadTopic:                                 6,
		apns.ReasonTopicDisallowed:                          6,
		apns.ReasonPayloadEmpty:                             4,
		apns.ReasonPayloadTooLarge:                          7,
		apns.ReasonBadPriority:                              1,
		apns.ReasonShutdown:                                 1, // of this message; StatusShutdown is another matter
		apns.Reason("MoonPhase"):                            1,
		&apns.PushError{ID: 2, Reason: apns.ReasonBadTopic}: 6,
		apnstest.Fault{Err: apns.ReasonPayloadEmpty}:        4,
	} {
		s := start(t, false, func(*apns.Message) error { return err }, nil)
		c := open(t, s, "2195")
		if _, err := c.Write(build(t, message(2))); err != nil {
			t.Fatal(err)
		}
		if got, e := io.ReadAll(c); !bytes.Equal(got, []byte{8, status, 0, 0, 0, 2}) || e != nil {
			t.Errorf("%v: got % x, %v; want status %d", err, got, e, status)
		}
		if rs := s.Records(); len(rs) != 1 || rs[0].Fate != apnstest.Refused {
			t.Errorf("%v: got the records %v, want one refused", err, rs)
		}
	}
}

// A rawConn is a client that writes its frames by hand: RFC 9113, section 6.
type rawConn struct {
	*tls.Conn
	t *testing.T
}

type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

const (
	data, headers, rst, settings, ping, goAway, windowUpdate, continuation = 0, 1, 3, 4, 6, 7, 8, 9

	endStream, endHeaders, padded, priority = 1, 4, 8, 0x20
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func (f frame) append(b []byte) []byte {
	b = append(b, byte(len(f.payload)>>16), byte(len(f.payload)>>8), byte(len(f.payload)), f.kind, f.flags)
	return append(binary.BigEndian.AppendUint32(b, f.id), f.payload...)
}

func frames(fs ...frame) []byte {
	var b []byte
	for _, f := range fs {
		b = f.append(b)
	}
	return b
}

// block returns a header block, of literals alone (RFC 7541, section 6.2.2).
func block(pairs ...string) []byte {
	var b []byte
	for i, s := range pairs {
		if i%2 == 0 {
			b = append(b, 0)
		}
		if len(s) < 127 {
			b = append(b, byte(len(s)))
		} else {
			b = binary.AppendUvarint(append(b, 127), uint64(len(s)-127))
		}
		b = append(b, s...)
	}
	return b
}

// push returns the header block of a good request.
func pushBlock(more ...string) []byte {
	return block(append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/3/device/" + token}, more...)...)
}

func pushFrames(id uint32, body string, more ...string) []frame {
	return []frame{{headers, endHeaders, id, pushBlock(more...)}, {data, endStream, id, []byte(body)}}
}

func u32(n ...uint32) []byte {
	var b []byte
	for _, n := range n {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func setting(id byte, n uint32) frame {
	return frame{settings, 0, 0, append([]byte{0, id}, u32(n)...)}
}

// dialRaw connects with the client certificate or without; it writes nothing.
func dialRaw(t *testing.T, s *apnstest.Server, cert bool) rawConn {
	t.Helper()
	config := s.Config()
	raw, err := config.DialContext(t.Context(), "tcp", "localhost:443")
	if err != nil {
		t.Fatal(err)
	}
	config.TLS.ServerName = "localhost"
	config.TLS.NextProtos = []string{"h2"}
	if !cert {
		config.TLS.Certificates = nil
	}
	c := tls.Client(raw, config.TLS)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.NetConn().Close() })
	return rawConn{c, t}
}

// begin writes the preface, the settings, and the acknowledgement of the
// server's, which it awaits.
func (c rawConn) begin(fs ...frame) {
	c.t.Helper()
	c.write(append([]byte(preface), frames(append([]frame{{settings, 0, 0, nil}}, fs...)...)...))
	c.until(settings)
	c.write(frames(frame{settings, endStream, 0, nil}))
}

func (c rawConn) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c rawConn) next() (frame, error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil {
		return frame{}, err
	}
	f := frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
	_, err := io.ReadFull(c, f.payload)
	return f, err
}

// until skips frames up to one of the kind.
func (c rawConn) until(kind byte) frame {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for a frame of kind %d: %v", kind, err)
		}
		if f.kind == kind && !(kind == settings && f.flags != 0) {
			return f
		}
	}
}

// status returns what the header block of an answer begins with.
func (f frame) status() string {
	switch f.payload[0] {
	case 0x88:
		return "200"
	case 0x8c:
		return "400"
	case 0x8d:
		return "404"
	}
	return string(f.payload[2:5])
}

// over reports how the connection ends.
func (c rawConn) over() {
	c.t.Helper()
	for {
		f, err := c.next()
		if err == io.EOF {
			return
		}
		if err != nil || f.kind == headers {
			c.t.Errorf("after the GOAWAY: got %+v, %v; want the end", f, err)
			return
		}
	}
}

// alive reports whether the connection answers a PING.
func (c rawConn) alive() {
	c.t.Helper()
	c.write(frames(frame{ping, 0, 0, []byte("12345678")}))
	if f := c.until(ping); f.flags != 1 || string(f.payload) != "12345678" {
		c.t.Errorf("got the PING %+v, want it back", f)
	}
}

// "Handling notification responses from APNs": DuplicateHeaders.
func TestDuplicateHeaders(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	id := uint32(1)
	for _, name := range []string{":path", "authorization", "apns-topic", "apns-push-type", "apns-id", "apns-expiration", "apns-priority", "apns-collapse-id", "x-other"} {
		c.write(frames(pushFrames(id, "{}", name, "1", name, "1")...))
		if got := c.until(headers).status(); got != "400" {
			t.Errorf("%s twice: got the status %s, want 400", name, got)
		}
		if got := string(c.until(data).payload); got != `{"reason":"DuplicateHeaders"}` {
			t.Errorf("%s twice: got %s, want DuplicateHeaders", name, got)
		}
		id += 2
	}
	if n := len(s.Messages(apnstest.Refused)); n != 9 {
		t.Errorf("%d messages were refused, want 9", n)
	}
	c.write(frames(frame{headers, endHeaders | endStream, id, block(":scheme", "https")})) // neither method nor path
	if got := c.until(headers).status(); got != "404" {
		t.Errorf("nothing said: got the status %s, want 404", got)
	}
}

// What ends the connection with a GOAWAY, and its code: RFC 9113, sections 4 to
// 6.
func TestConnectionErrors(t *testing.T) {
	const protocol, flow, closed, size, compression = 1, 3, 5, 6, 9
	stalled := pushFrames(1, "{}")
	for name, test := range map[string]struct {
		fs   []byte
		want uint32
		last uint32
	}{
		"garbage":                     {bytes.Repeat([]byte("garbage "), 100), size, 0},
		"HTTP/1.1":                    {[]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"), size, 0},
		"frame too large":             {frames(frame{data, 0, 1, make([]byte, 16<<10+1)}), size, 0},
		"bad index":                   {frames(frame{headers, endHeaders, 1, []byte{0xff, 0xff, 0x7f}}), compression, 0},
		"cut block":                   {frames(frame{headers, endHeaders, 1, []byte{0, 10, 'a'}}), compression, 0},
		"cut block after a message":   {frames(append(stalled, frame{headers, endHeaders, 3, []byte{0, 10, 'a'}})...), compression, 1},
		"HEADERS padding":             {frames(frame{headers, endHeaders | padded, 1, []byte{5, 0, 0}}), protocol, 0},
		"HEADERS, no padding length":  {frames(frame{headers, endHeaders | padded, 1, nil}), protocol, 0},
		"HEADERS, no priority":        {frames(frame{headers, endHeaders | priority, 1, []byte{0, 0, 0}}), protocol, 0},
		"DATA padding":                {frames(frame{headers, endHeaders, 1, pushBlock()}, frame{data, padded, 1, []byte{3, 0, 0}}), protocol, 0},
		"stream 0":                    {frames(frame{headers, endHeaders, 0, pushBlock()}), protocol, 0},
		"even stream":                 {frames(frame{headers, endHeaders, 2, pushBlock()}), protocol, 0},
		"earlier stream":              {frames(append(pushFrames(5, "{}"), pushFrames(3, "{}")...)...), protocol, 5},
		"CONTINUATION alone":          {frames(frame{continuation, endHeaders, 1, nil}), protocol, 0},
		"no CONTINUATION":             {frames(frame{headers, 0, 1, pushBlock()}, frame{ping, 0, 0, make([]byte, 8)}), protocol, 0},
		"CONTINUATION of another":     {frames(frame{headers, 0, 1, pushBlock()}, frame{continuation, endHeaders, 3, nil}), protocol, 0},
		"CONTINUATIONs without end":   {frames(append([]frame{{headers, 0, 1, nil}}, slices.Repeat([]frame{{continuation, 0, 1, make([]byte, 16<<10)}}, 5)...)...), protocol, 0},
		"DATA of no stream":           {frames(frame{data, 0, 0, nil}), protocol, 0},
		"DATA of an idle stream":      {frames(frame{data, 0, 1, nil}), protocol, 0},
		"DATA after the end":          {frames(append(stalled, frame{data, 0, 1, nil})...), closed, 1},
		"HEADERS after the end":       {frames(append(stalled, frame{headers, endHeaders | endStream, 1, nil})...), closed, 1},
		"HEADERS in the middle":       {frames(stalled[0], frame{headers, endHeaders, 1, nil}), protocol, 0},
		"RST_STREAM of an idle one":   {frames(frame{rst, 0, 1, u32(0)}), protocol, 0},
		"RST_STREAM of 3 bytes":       {frames(frame{rst, 0, 1, make([]byte, 3)}), size, 0},
		"PING of 7 bytes":             {frames(frame{ping, 0, 0, make([]byte, 7)}), size, 0},
		"PING on a stream":            {frames(frame{ping, 0, 1, make([]byte, 8)}), protocol, 0},
		"SETTINGS of 5 bytes":         {frames(frame{settings, 0, 0, make([]byte, 5)}), size, 0},
		"SETTINGS on a stream":        {frames(frame{settings, 0, 1, nil}), protocol, 0},
		"initial window too large":    {frames(setting(4, 1<<31)), flow, 0},
		"WINDOW_UPDATE of 3 bytes":    {frames(frame{windowUpdate, 0, 0, make([]byte, 3)}), size, 0},
		"WINDOW_UPDATE of 0":          {frames(frame{windowUpdate, 0, 0, u32(0)}), protocol, 0},
		"window too large":            {frames(frame{windowUpdate, 0, 0, u32(1<<31 - 1)}), flow, 0},
		"window of a stream, as well": {frames(stalled[0], frame{windowUpdate, 0, 1, u32(1<<31 - 1)}), flow, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, func(*apns.Message) error { return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndStall} }, nil)
			c := dialRaw(t, s, true)
			c.begin()
			c.write(test.fs)
			f := c.until(goAway)
			if last, code := binary.BigEndian.Uint32(f.payload), binary.BigEndian.Uint32(f.payload[4:]); code != test.want || last != test.last {
				t.Errorf("got a GOAWAY with code %d, last stream %d (%s), want %d, %d", code, last, f.payload[8:], test.want, test.last)
			}
			c.CloseWrite()
			c.over()
			if n := len(s.Records()); (n == 1) != (test.last > 0) {
				t.Errorf("got %d records with last stream %d", n, test.last)
			}
		})
	}
	t.Run("no preface", func(t *testing.T) {
		c := dialRaw(t, start(t, false, nil, nil), true)
		c.write([]byte("POST /3/device/ab HTTP/1.1\r\n\r\n"))
		if f := c.until(goAway); binary.BigEndian.Uint32(f.payload[4:]) != protocol {
			t.Errorf("got %+v, want a PROTOCOL_ERROR", f)
		}
	})
}

// What is unusual and allowed.
func TestUnusualFrames(t *testing.T) {
	b := pushBlock("apns-id", "123e4567-e89b-12d3-a456-4266554400a0")
	body := frame{data, endStream, 1, []byte("{}")}
	for name, fs := range map[string][]byte{
		"CONTINUATION":         frames(frame{headers, 0, 1, b[:5]}, frame{continuation, 0, 1, b[5:9]}, frame{continuation, 0, 1, nil}, frame{continuation, endHeaders, 1, b[9:]}, body),
		"padding and priority": frames(frame{headers, endHeaders | padded | priority, 1, slices.Concat([]byte{3, 0, 0, 0, 0, 9}, b, make([]byte, 3))}, frame{data, endStream | padded, 1, []byte("\x02{}\x00\x00")}),
		"body in pieces":       frames(frame{headers, endHeaders, 1, b}, frame{data, 0, 1, []byte("{")}, frame{data, 0, 1, nil}, frame{ping, 0, 0, make([]byte, 8)}, frame{data, padded, 1, []byte("\x00}")}, frame{data, endStream, 1, nil}),
		"trailers":             frames(frame{headers, endHeaders, 1, b}, frame{data, 0, 1, []byte("{}")}, frame{headers, endHeaders | endStream, 1, block("x", "y")}),
		"unknown frame":        frames(frame{0xfa, 0xff, 7, []byte("x")}, frame{2, 0, 1, make([]byte, 5)}, frame{headers, endHeaders, 1, b}, body),
	} {
		for _, bytewise := range []bool{false, true} {
			s := start(t, false, nil, nil)
			c := dialRaw(t, s, true)
			c.begin()
			if bytewise {
				for i := range fs {
					c.write(fs[i : i+1])
				}
			} else {
				c.write(fs)
			}
			if f := c.until(headers); f.status() != "200" || f.flags&endStream == 0 || !bytes.Contains(f.payload, []byte("123e4567-e89b-12d3-a456-4266554400a0")) {
				t.Errorf("%s: got %+v, want status 200", name, f)
			}
			c.alive()
			if ms := s.Messages(apnstest.Accepted); len(ms) != 1 || string(ms[0].Payload) != "{}" {
				t.Errorf("%s: accepted %v, want one message", name, ms)
			}
		}
	}
}

// A connection may be cut anywhere.
func TestCut(t *testing.T) {
	wire := slices.Concat([]byte(preface), frames(frame{settings, 0, 0, nil}), frames(pushFrames(1, "{}")...))
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		for n := range wire {
			c := dialRaw(t, s, true)
			c.write(wire[:n])
			if n%2 == 0 {
				c.Close()
			} else {
				c.NetConn().Close()
			}
			synctest.Wait()
		}
		if n := len(s.Records()); n != 0 {
			t.Errorf("got %d records of parts of a message, want none", n)
		}
		c := dialRaw(t, s, true)
		c.write(wire)
		if got := c.until(headers).status(); got != "200" {
			t.Errorf("the whole got the status %s, want 200", got)
		}
	})
}

// An answer does not wait for the rest of what the client says.
func TestAnswerAmidAFrame(t *testing.T) {
	next := frames(pushFrames(3, "{}")...)
	for n := range next {
		s := start(t, false, nil, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(append(frames(pushFrames(1, "{}")...), next[:n]...))
		if f := c.until(headers); f.id != 1 {
			t.Errorf("after %d bytes of the next: got an answer to %d, want 1", n, f.id)
		}
		c.write(next[n:])
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got an answer to %d, want 3", f.id)
		}
		c.NetConn().Close()
		s.Close()
	}
}

// A body waits for the windows: RFC 9113, section 6.9.
func TestWindows(t *testing.T) {
	const body = `{"reason":"BadTopic"}`
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "good" {
			return nil
		}
		return apns.ReasonBadTopic
	}, nil)
	c := dialRaw(t, s, true)
	c.begin(setting(4, 0))
	c.write(frames(slices.Concat(pushFrames(1, "{}"), pushFrames(3, "{}", "apns-collapse-id", "good"), pushFrames(5, "{}"))...))
	for _, want := range []uint32{1, 3, 5} {
		if f := c.until(headers); f.id != want {
			t.Errorf("got the header of an answer to %d, want %d", f.id, want)
		}
	}
	var got string
	read := func(want string, last bool) {
		t.Helper()
		f := c.until(data)
		got += string(f.payload)
		if f.id != 1 || string(f.payload) != want || (f.flags&endStream != 0) != last {
			t.Errorf("got %+v (%s), want %s on stream 1, last %v", f, f.payload, want, last)
		}
	}
	c.alive() // and no DATA yet: until would have skipped it
	c.write(frames(frame{windowUpdate, 0, 1, u32(5)}))
	read(body[:5], false)
	c.write(frames(frame{rst, 0, 5, u32(8)}, setting(4, 3)))
	read(body[5:8], false)
	c.write(frames(setting(4, 1), frame{windowUpdate, 0, 1, u32(2)})) // -2, and back to 0
	c.alive()
	c.write(frames(frame{windowUpdate, 0, 1, u32(100)}))
	read(body[8:], true)
	if got != body {
		t.Errorf("got %s, want %s", got, body)
	}

	// The window of the connection.
	c = dialRaw(t, s, true)
	c.begin(setting(4, 1<<20))
	left, id := 65535, uint32(1)
	for ; left >= len(body); left -= len(body) {
		c.write(frames(pushFrames(id, "{}")...))
		if f := c.until(data); string(f.payload) != body {
			t.Fatalf("got %s, want %s", f.payload, body)
		}
		id += 2
	}
	c.write(frames(pushFrames(id, "{}")...))
	if f := c.until(headers); f.id != id {
		t.Errorf("got an answer to %d, want %d", f.id, id)
	}
	if left > 0 {
		if f := c.until(data); string(f.payload) != body[:left] {
			t.Errorf("got %s, want %s", f.payload, body[:left])
		}
	}
	c.alive()
	c.write(frames(frame{windowUpdate, 0, 0, u32(1000)}))
	if f := c.until(data); string(f.payload) != body[left:] {
		t.Errorf("got %s, want %s", f.payload, body[left:])
	}
}

func (f frame) maxStreams() int {
	for p := f.payload; len(p) >= 6; p = p[6:] {
		if binary.BigEndian.Uint16(p) == 3 {
			return int(binary.BigEndian.Uint32(p[2:]))
		}
	}
	return -1
}

// "Sending notification requests to APNs": one stream until the first message
// with a valid token was accepted.
func TestLimitOfOne(t *testing.T) {
	s := start(t, false, func(m *apns.Message) error {
		if m.CollapseID == "bad" {
			return apns.ReasonBadTopic
		}
		return nil
	}, func(s *apnstest.Server) { s.StreamLimit = 7 })
	c := dialRaw(t, s, false)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	if got := c.until(settings).maxStreams(); got != 1 {
		t.Errorf("with provider tokens: got a limit of %d, want 1", got)
	}
	c.write(frames(frame{settings, endStream, 0, nil}))
	s.SetStreamLimit(9) // of which this one hears later
	bearer := jwt{}.sign(t, s)
	for i, more := range [][]string{
		{"authorization", jwt{der: true}.sign(t, s), "apns-topic", "t"},
		{"authorization", bearer, "apns-topic", "t", "apns-collapse-id", "bad"},
	} {
		c.write(frames(pushFrames(uint32(2*i+1), "{}", more...)...))
		if f, err := c.next(); err != nil || f.kind == settings && f.flags == 0 {
			t.Errorf("before an accepted one: got %+v, %v", f, err)
		}
		c.until(data)
	}
	c.write(frames(pushFrames(5, "{}", "authorization", bearer, "apns-topic", "t")...))
	if got := c.until(settings).maxStreams(); got != 9 {
		t.Errorf("after an accepted one: got a limit of %d, want 9", got)
	}
	if got := c.until(headers).status(); got != "200" {
		t.Errorf("got the status %s, want 200", got)
	}
	// A higher limit may be used before it is acknowledged.
	c.write(frames(frame{headers, endHeaders, 7, pushBlock()}, frame{headers, endHeaders, 9, pushBlock()}))
	c.alive()

	c = dialRaw(t, s, false)
	c.begin()
	c.write(frames(frame{headers, endHeaders, 1, pushBlock()}, frame{headers, endHeaders, 3, pushBlock()}))
	f := c.until(goAway)
	if last, code := binary.BigEndian.Uint32(f.payload), binary.BigEndian.Uint32(f.payload[4:]); last != 0 || code != 11 || string(f.payload[8:]) != "Maximum active streams violated" {
		t.Errorf("two streams: got a GOAWAY with code %d, last stream %d, %s", code, last, f.payload[8:])
	}

	// With a certificate the limit is there at once.
	c = dialRaw(t, s, true)
	c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
	if got := c.until(settings).maxStreams(); got != 9 {
		t.Errorf("with a certificate: got a limit of %d, want 9", got)
	}
}

func TestSetStreamLimit(t *testing.T) {
	s := start(t, false, func(*apns.Message) error { return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndStall} }, nil)
	c := dialRaw(t, s, true)
	c.begin()
	for id := uint32(1); id < 10; id += 2 {
		c.write(frames(pushFrames(id, "{}")...))
	}
	s.SetStreamLimit(2)
	if got := c.until(settings).maxStreams(); got != 2 {
		t.Errorf("got a limit of %d, want 2", got)
	}
	c.write(frames(pushFrames(11, "{}")...)) // not acknowledged yet
	c.alive()
	c.write(frames(frame{settings, endStream, 0, nil}))
	c.alive()
	for id := uint32(1); id < 10; id += 2 {
		c.write(frames(frame{rst, 0, id, u32(8)}))
	}
	c.write(frames(pushFrames(13, "{}")...))
	c.alive()
	s.SetStreamLimit(3)
	if got := c.until(settings).maxStreams(); got != 3 {
		t.Errorf("got a limit of %d, want 3", got)
	}
	c.write(frames(append([]frame{{settings, endStream, 0, nil}}, pushFrames(15, "{}")...)...))
	c.alive()
	c.write(frames(pushFrames(17, "{}")...))
	if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 15 || binary.BigEndian.Uint32(f.payload[4:]) != 11 {
		t.Errorf("got the GOAWAY %+v, want ENHANCE_YOUR_CALM and stream 15", f)
	}
	if n := len(s.Messages(apnstest.Accepted)); n != 8 {
		t.Errorf("%d messages were accepted, want 8", n)
	}
}

// Limits change while a polite client is busy.
func TestLimitsUnderLoad(t *testing.T) {
	s := start(t, false, nil, nil)
	c := connect(t, s, true)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				if a := (request{}).send(ctx, c); a.String() != "200" {
					t.Errorf("got %v, want 200", a)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			if n := len(s.Messages(apnstest.Accepted)); n != 1000 {
				t.Errorf("%d messages were accepted, want 1000", n)
			}
			return
		case <-time.After(time.Millisecond):
			s.SetStreamLimit([]int{1, 2, 100}[i%3])
		}
	}
}

// HEADERS without end, and no requests.
func TestFlood(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin()
	var b []byte
	for i := range uint32(1001) {
		b = frame{headers, endHeaders, 2*i + 1, pushBlock()}.append(b)
	}
	c.write(b)
	if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 0 || binary.BigEndian.Uint32(f.payload[4:]) != 11 {
		t.Errorf("got the GOAWAY %+v, want ENHANCE_YOUR_CALM and that nothing was processed", f)
	}
	if n := len(s.Records()); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

// GOAWAYs, and what they say of the messages that are on their way.
func TestGoAwayFrames(t *testing.T) {
	late := apnstest.Fault{Err: apns.StatusNoError, Delay: time.Minute}
	stall := apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndStall, Delay: time.Hour}
	now := apnstest.Fault{End: apnstest.EndGoAwayNow, Reason: apns.ReasonShutdown}
	graceful := apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError, Reason: apns.ReasonShutdown}
	lateNow := now
	lateNow.Delay = time.Second
	for name, test := range map[string]struct {
		errs     map[string]error // by the collapse ID, which is the stream's number
		last     []uint32         // of the GOAWAYs
		answered []uint32
		records  int
	}{
		"now":                {map[string]error{"3": now}, []uint32{1}, []uint32{1}, 2},
		"now, first":         {map[string]error{"1": now}, []uint32{0}, nil, 1},
		"now, a late one":    {map[string]error{"1": late, "3": now}, []uint32{1}, []uint32{1}, 2},
		"now, a stalled one": {map[string]error{"1": stall, "5": now}, []uint32{3}, []uint32{3}, 3},
		"graceful":           {map[string]error{"3": graceful}, []uint32{3}, []uint32{1, 3}, 2},
		"graceful, late":     {map[string]error{"1": late, "3": graceful}, []uint32{3}, []uint32{3, 1}, 2},
		"graceful, then now": {map[string]error{"1": lateNow, "3": graceful, "5": late}, []uint32{3, 0}, []uint32{3}, 2},
		"shutdown":           {map[string]error{"1": late, "3": apns.StatusShutdown}, []uint32{3}, []uint32{3, 1}, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(m *apns.Message) error { return test.errs[m.CollapseID] }, nil)
			c := dialRaw(t, s, true)
			c.SetDeadline(time.Time{})
			c.begin()
			var fs []frame
			for id := uint32(1); id < 10; id += 2 {
				fs = append(fs, pushFrames(id, "{}", "apns-collapse-id", fmt.Sprint(id))...)
			}
			c.write(frames(fs...))
			var last, answered []uint32
			for {
				f, err := c.next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					break
				}
				switch f.kind {
				case goAway:
					last = append(last, binary.BigEndian.Uint32(f.payload))
					if got := string(f.payload[8:]); got != `{"reason":"Shutdown"}` {
						t.Errorf("%s: the GOAWAY says %s, want the reason", name, got)
					}
				case headers:
					answered = append(answered, f.id)
				}
			}
			if !slices.Equal(last, test.last) || !slices.Equal(answered, test.answered) {
				t.Errorf("%s: got GOAWAYs %d and answers to %d, want %d and %d", name, last, answered, test.last, test.answered)
			}
			if n := len(s.Records()); n != test.records {
				t.Errorf("%s: got %d records, want %d", name, n, test.records)
			}
			began := time.Now()
			c.Close()
			s.Close()
			if d := time.Since(began); d > 0 {
				t.Errorf("%s: Close took %v, want nothing", name, d)
			}
		})
	}
}

// A GOAWAY that comes while a message is decided about does not deny it.
func TestGoAwayWhileDeciding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			if m.CollapseID == "1" {
				return apnstest.Fault{End: apnstest.EndGoAwayNow, Delay: time.Second}
			}
			time.Sleep(time.Minute)
			return nil
		}, nil)
		c := dialRaw(t, s, true)
		c.begin()
		c.write(frames(append(pushFrames(1, "{}", "apns-collapse-id", "1"), pushFrames(3, "{}")...)...))
		if f := c.until(goAway); binary.BigEndian.Uint32(f.payload) != 3 {
			t.Errorf("got %+v, want a last stream of 3", f)
		}
		time.Sleep(time.Hour)
		if n := len(s.Messages(apnstest.Accepted)); n != 1 {
			t.Errorf("%d messages were accepted, want 1", n)
		}
	})
}

// OnConnect over HTTP/2: the reason is in a GOAWAY.
func TestOnConnectHTTP2(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		want  string // "": no GOAWAY
		delay time.Duration
	}{
		"reason":      {apns.ReasonBadCertificate, `{"reason":"BadCertificate"}`, 0},
		"shutdown":    {apns.StatusShutdown, `{"reason":"Shutdown"}`, 0},
		"other":       {errors.New("boom"), `{"reason":"InternalServerError"}`, 0},
		"late":        {apnstest.Fault{Err: apns.ReasonIdleTimeout, Delay: time.Hour}, `{"reason":"IdleTimeout"}`, time.Hour},
		"goaway":      {apnstest.Fault{End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}, `{"reason":"Shutdown"}`, 0},
		"nothing":     {apnstest.Fault{}, "", 0},
		"no error":    {apnstest.Fault{Err: apns.StatusNoError}, "", 0},
		"bare ending": {apnstest.Fault{Err: apns.ReasonShutdown, End: apnstest.EndBare}, `{"reason":"Shutdown"}`, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, func(s *apnstest.Server) {
				s.OnConnect = func(port int, _ tls.ConnectionState) error {
					if port != apns.ProviderPort {
						t.Errorf("got the port %d", port)
					}
					return test.err
				}
			})
			c := dialRaw(t, s, true)
			c.SetDeadline(time.Time{})
			began := time.Now()
			c.write(append([]byte(preface), frames(pushFrames(1, "{}")...)...))
			got := ""
			for {
				f, err := c.next()
				if err != nil {
					if err != io.EOF {
						t.Errorf("%s: %v", name, err)
					}
					break
				}
				if f.kind == goAway {
					got = string(f.payload[8:])
				}
			}
			if d := time.Since(began); got != test.want || d != test.delay || len(s.Records()) != 0 {
				t.Errorf("%s: got %q after %v, %d records; want %q after %v, none", name, got, d, len(s.Records()), test.want, test.delay)
			}
		})
	}
}

// A client that gives up on a late answer has its stream back.
func TestResetOfALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(m *apns.Message) error {
			return apnstest.Fault{Err: apns.StatusNoError, Delay: time.Second}
		}, func(s *apnstest.Server) { s.StreamLimit = 1 })
		c := dialRaw(t, s, true)
		c.begin()
		c.write(frames(slices.Concat(pushFrames(1, "{}"), []frame{{rst, 0, 1, u32(8)}}, pushFrames(3, "{}"))...))
		if f := c.until(headers); f.id != 3 {
			t.Errorf("got an answer to %d, want 3", f.id)
		}
		c.write(frames(frame{rst, 0, 3, u32(8)})) // of one that is over
		c.alive()
		if n := len(s.Messages(apnstest.Accepted)); n != 2 {
			t.Errorf("%d messages were accepted, want 2", n)
		}
	})
}

// Close, whatever is going on.
func TestCloseAmidHTTP2(t *testing.T) {
	for _, memory := range []bool{true, false} {
		run := func(t *testing.T) {
			deaf := make(chan struct{})
			s := start(t, memory, func(m *apns.Message) error {
				switch m.CollapseID {
				case "late":
					return apnstest.Fault{Err: apns.ReasonBadTopic, Delay: time.Hour}
				case "stall":
					return apnstest.Fault{End: apnstest.EndStall}
				case "end":
					close(deaf)
				}
				return apns.ReasonBadTopic
			}, func(s *apnstest.Server) { s.BufferSize = 4 << 10 })
			late := dialRaw(t, s, true)
			late.begin()
			late.write(frames(append(pushFrames(1, "{}", "apns-collapse-id", "late"), pushFrames(3, "{}", "apns-collapse-id", "stall")...)...))
			half := dialRaw(t, s, true)
			half.begin()
			half.write(frames(frame{headers, 0, 1, pushBlock()}))
			blocked := dialRaw(t, s, true)
			blocked.begin(setting(4, 0))
			blocked.write(frames(pushFrames(1, "{}", "apns-collapse-id", "end")...))
			<-deaf
			// One that writes and never reads.
			pinging := dialRaw(t, s, true)
			pinging.begin()
			var writing sync.WaitGroup
			writing.Go(func() {
				pings := bytes.Repeat(frames(frame{ping, 0, 0, make([]byte, 8)}), 100)
				for {
					if _, err := pinging.Write(pings); err != nil {
						return
					}
					time.Sleep(time.Microsecond) // or the bubble's time stands still
				}
			})
			if err := s.Wait(t.Context(), 3); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond)
			began := time.Now()
			s.Close()
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("Close took %v", d)
			}
			writing.Wait()
		}
		if memory {
			synctest.Test(t, run)
		} else {
			run(t)
		}
	}
}
