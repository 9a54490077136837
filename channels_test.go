package apns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// newChannels returns the Channels of the app of a Config, closed at the end of the test.
func newChannels(t *testing.T, config *apns.Config) *apns.Channels {
	t.Helper()
	if config.BundleID == "" {
		config.BundleID = apnstest.BundleID
	}
	c := &apns.Channels{Config: config}
	t.Cleanup(func() { c.Close() })
	return c
}

// A channelOp is one of the calls, with the channel that it is about.
type channelOp struct {
	name string
	call func(ctx context.Context, c *apns.Channels, id string) error
}

var channelOps = []channelOp{
	{"create", func(ctx context.Context, c *apns.Channels, _ string) error {
		_, err := c.Create(ctx, apns.StoreNone)
		return err
	}},
	{"read", func(ctx context.Context, c *apns.Channels, id string) error {
		_, err := c.Read(ctx, id)
		return err
	}},
	{"list", func(ctx context.Context, c *apns.Channels, _ string) error {
		_, err := c.List(ctx)
		return err
	}},
	{"delete", func(ctx context.Context, c *apns.Channels, id string) error { return c.Delete(ctx, id) }},
}

// wantChannelClass checks the outcome of a call, and that its error has the prefix apns: once.
func wantChannelClass(t *testing.T, what string, err error, want string, matches ...error) {
	t.Helper()
	wantClass(t, err, want, matches...)
	if err != nil && (strings.Count(err.Error(), "apns: ") != 1 || strings.Contains(err.Error(), "message ")) {
		t.Errorf("%s: got %q, want the prefix apns: once, and nothing about messages", what, err)
	}
	if t.Failed() {
		t.Fatalf("%s failed", what)
	}
}

func TestChannels(t *testing.T) {
	for _, memory := range []bool{false, true} {
		for _, token := range []bool{false, true} {
			for _, addr := range []string{"", apns.ChannelsProduction, apns.ChannelsSandbox, "own"} {
				t.Run(fmt.Sprintf("memory %t, token %t, %s", memory, token, addr), func(t *testing.T) {
					var ports []int
					s := apnstest.NewUnstartedServer(nil)
					s.InMemory = memory
					s.OnConnect = func(port int, _ tlsState) error {
						ports = append(ports, port)
						return nil
					}
					s.Start()
					defer s.Close()
					config := s.Config()
					if token {
						config = s.TokenConfig()
					}
					c := newChannels(t, config)
					if c.Addr = addr; addr == "own" {
						c.Addr = s.ChannelsAddr
					}
					testChannels(t, s, c)
					c.Close()
					if !slices.Equal(ports, []int{apnstest.ChannelsPort}) {
						t.Errorf("got connections to the ports %d, want one to %d", ports, apnstest.ChannelsPort)
					}
				})
			}
		}
	}
}

func testChannels(t *testing.T, s *apnstest.Server, c *apns.Channels) {
	ctx := t.Context()
	if ids, err := c.List(ctx); err != nil || ids == nil || len(ids) != 0 {
		t.Errorf("List without channels: got %#v, %v, want none", ids, err)
	}
	var want []string
	for _, storage := range []apns.StoragePolicy{apns.StoreNone, apns.StoreMostRecent} {
		id, err := c.Create(ctx, storage)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(ctx, id); got != storage || err != nil {
			t.Errorf("Read: got %v, %v, want %v", got, err, storage)
		}
		want = append(want, id)
	}
	other := s.CreateChannel("com.example.other", apns.StoreNone)
	if _, err := c.Read(ctx, other); !errors.Is(err, apns.ReasonChannelNotRegistered) {
		t.Errorf("Read of a channel of another app: got %v, want ChannelNotRegistered", err)
	}
	if ids, err := c.List(ctx); !slices.Equal(ids, want) || err != nil {
		t.Errorf("List: got %q, %v, want %q", ids, err, want)
	}
	if got := s.Channels(apnstest.BundleID); !slices.Equal(got, want) {
		t.Errorf("the server has the channels %q, want %q", got, want)
	}
	if err := c.Delete(ctx, want[0]); err != nil {
		t.Error(err)
	}
	for _, op := range channelOps {
		if op.name == "read" || op.name == "delete" {
			wantChannelClass(t, op.name, op.call(ctx, c, want[0]), "rejected", apns.ReasonChannelNotRegistered)
		}
	}
	if got := s.Channels(apnstest.BundleID); !slices.Equal(got, want[1:]) {
		t.Errorf("after Delete the server has the channels %q, want %q", got, want[1:])
	}
	if got := s.Channels("com.example.other"); !slices.Equal(got, []string{other}) {
		t.Errorf("the other app has the channels %q, want %q", got, other)
	}
	if rs := s.Records(); len(rs) != 0 {
		t.Errorf("got %d records, want none of a message", len(rs))
	}
}

// The requests: "Sending channel management requests to APNs".
func TestChannelsHeaders(t *testing.T) {
	var got string
	var protocol atomic.Value
	web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		body, _ := io.ReadAll(r.Body)
		got = requestText(r, body)
		switch r.Method + r.URL.Path {
		case "POST/1/apps/com.example.app/channels":
			w.Header().Set("apns-channel-id", "dHN0LXNyY2gtY2hubA==")
			w.WriteHeader(201)
		case "DELETE/1/apps/com.example.app/channels":
			w.WriteHeader(204)
		case "GET/1/apps/com.example.app/all-channels":
			io.WriteString(w, `{"channels":["dHN0LXNyY2gtY2hubA=="]}`)
		default:
			io.WriteString(w, `{"message-storage-policy":1,"push-type":"LiveActivity"}`)
		}
	})
	c := newChannels(t, trusting(web))
	c.Addr = web.Listener.Addr().String()
	const create = `POST https://%s/1/apps/com.example.app/channels
content-length: 55
content-type: application/json

{"message-storage-policy":%d,"push-type":"LiveActivity"}`
	for _, test := range []struct {
		name string
		call func() (any, error)
		want string // the request
		is   any    // the result
	}{
		{"create", func() (any, error) { return c.Create(t.Context(), apns.StoreNone) }, fmt.Sprintf(create, c.Addr, 0), "dHN0LXNyY2gtY2hubA=="},
		{"create, storing", func() (any, error) { return c.Create(t.Context(), apns.StoreMostRecent) }, fmt.Sprintf(create, c.Addr, 1), "dHN0LXNyY2gtY2hubA=="},
		{"read", func() (any, error) { return c.Read(t.Context(), "dHN0LXNyY2gtY2hubA==") },
			"GET https://" + c.Addr + "/1/apps/com.example.app/channels\napns-channel-id: dHN0LXNyY2gtY2hubA==\n\n", apns.StoreMostRecent},
		{"list", func() (any, error) { return c.List(t.Context()) }, "GET https://" + c.Addr + "/1/apps/com.example.app/all-channels\n\n", []string{"dHN0LXNyY2gtY2hubA=="}},
		{"delete", func() (any, error) { return nil, c.Delete(t.Context(), "dHN0LXNyY2gtY2hubA==") },
			"DELETE https://" + c.Addr + "/1/apps/com.example.app/channels\napns-channel-id: dHN0LXNyY2gtY2hubA==\n\n", nil},
	} {
		is, err := test.call()
		if err != nil || fmt.Sprint(is) != fmt.Sprint(test.is) {
			t.Errorf("%s: got %v, %v, want %v", test.name, is, err, test.is)
		}
		if got != test.want {
			t.Errorf("%s: got the request\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
	if p := protocol.Load(); p != "HTTP/2.0" {
		t.Errorf("got %v, want HTTP/2.0", p)
	}
}

// requestText returns a request as text, with its header sorted by name.
func requestText(r *http.Request, body []byte) string {
	text := fmt.Sprintf("%s https://%s%s\n", r.Method, r.Host, r.URL.Path)
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v+"\n")
		}
	}
	slices.Sort(lines)
	return text + strings.Join(lines, "") + "\n" + string(body)
}

// Each reason of the page "Handling error responses from Apple Push Notification service",
// with its status, has a constant.
var channelReasons = []struct {
	status int
	reason apns.Reason
	is     string
}{
	{400, apns.ReasonFeatureNotEnabled, "FeatureNotEnabled"},
	{400, apns.ReasonMissingChannelID, "MissingChannelId"},
	{400, apns.ReasonBadChannelID, "BadChannelId"},
	{400, apns.ReasonChannelNotRegistered, "ChannelNotRegistered"},
	{400, apns.ReasonBadRequestParams, "BadRequestParams"},
	{400, apns.ReasonBadRequestPayload, "BadRequestPayload"},
	{400, apns.ReasonPayloadEmpty, "PayloadEmpty"},
	{400, apns.ReasonBadMessageID, "BadMessageId"},
	{400, apns.ReasonMissingPushType, "MissingPushType"},
	{400, apns.ReasonInvalidPushType, "InvalidPushType"},
	{400, apns.ReasonCannotCreateChannelConfig, "CannotCreateChannelConfig"},
	{400, apns.ReasonBadExpirationDate, "BadExpirationDate"},
	{400, apns.ReasonTopicDisallowed, "TopicDisallowed"},
	{400, apns.ReasonBadPriority, "BadPriority"},
	{403, apns.ReasonBadCertificate, "BadCertificate"},
	{403, apns.ReasonBadCertificateEnvironment, "BadCertificateEnvironment"},
	{403, apns.ReasonTopicMismatch, "TopicMismatch"},
	{403, apns.ReasonMissingProviderToken, "MissingProviderToken"},
	{403, apns.ReasonExpiredProviderToken, "ExpiredProviderToken"},
	{403, apns.ReasonInvalidProviderToken, "InvalidProviderToken"},
	{404, apns.ReasonBadPath, "BadPath"},
	{405, apns.ReasonMethodNotAllowed, "MethodNotAllowed"},
	{413, apns.ReasonPayloadTooLarge, "PayloadTooLarge"},
	{429, apns.ReasonTooManyRequests, "TooManyRequests"},
	{429, apns.ReasonTooManyProviderTokenUpdates, "TooManyProviderTokenUpdates"},
	{500, apns.ReasonInternalServerError, "InternalServerError"},
	{503, apns.ReasonServiceUnavailable, "Service Unavailable"},
	{503, apns.ReasonServiceUnavailable, "ServiceUnavailable"},
	{503, apns.ReasonShutdown, "Shutdown"},
	{400, "MissingChannelQueueSize", "MissingChannelQueueSize"}, // which no page has
}

// What each reason means for a call, and for a broadcast over a Conn.
func TestChannelReasons(t *testing.T) {
	var answer apns.PushError
	var calls atomic.Int32
	s := apnstest.NewUnstartedServer(func(*apns.Message) error { return &answer })
	s.OnChannelCall = func(string, string) error {
		calls.Add(1)
		return &answer
	}
	s.Start()
	defer s.Close()
	id := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
	for _, test := range channelReasons {
		answer = apns.PushError{HTTPStatus: test.status, Reason: apns.Reason(test.is), RetryAfter: 7 * time.Second}
		class, matches, retryable := "rejected", []error{test.reason}, false
		switch test.reason {
		case apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonMissingProviderToken,
			apns.ReasonExpiredProviderToken, apns.ReasonInvalidProviderToken:
			class, matches = "not sent", append(matches, apns.ErrRefused)
		case apns.ReasonTooManyProviderTokenUpdates, apns.ReasonShutdown:
			class = "not sent"
		case apns.ReasonTooManyRequests, apns.ReasonInternalServerError, apns.ReasonServiceUnavailable:
			retryable = true
		}
		check := func(what string, err error) {
			t.Helper()
			wantClass(t, err, class, matches...)
			if e, ok := errors.AsType[*apns.PushError](err); ok {
				if e.HTTPStatus != test.status || string(e.Reason) != test.is || e.RetryAfter != 7*time.Second || len(e.APNsID) != 36 || e.Retryable() != retryable {
					t.Errorf("%s, %s: got %+v, retryable %t", test.is, what, *e, e.Retryable())
				}
			}
		}
		for _, op := range channelOps {
			c := newChannels(t, s.Config())
			calls.Store(0)
			err := op.call(t.Context(), c, id)
			check(op.name, err)
			wantChannelClass(t, test.is, err, class)
			c.Close()
			want := int32(1)
			if test.reason == apns.ReasonShutdown {
				want = 2 // on two connections
			}
			if n := calls.Load(); n != want {
				t.Errorf("%s, %s: the server had %d calls, want %d", test.is, op.name, n, want)
			}
		}
		config := s.Config()
		config.BundleID = apnstest.BundleID
		conn := dialHTTP2(t, config)
		check("broadcast", conn.WritePushMsg(t.Context(), &apns.Message{Channel: id, Payload: payload}))
		conn.Close()
	}
	if got := s.Channels(apnstest.BundleID); !slices.Equal(got, []string{id}) {
		t.Errorf("the server has the channels %q, want %q: each call was rejected", got, id)
	}
}

// What a server may answer that is not Apple's word, or is not what was asked for.
func TestChannelsAnswers(t *testing.T) {
	const id = "AAAA"
	large := `{"channels":["` + strings.Repeat("A", 5<<20) + `"]}`
	for _, test := range []struct {
		op      string
		status  int
		channel string // header
		body    string
		want    string
	}{
		{"create", 201, id, "", "accepted"},
		{"create", 201, id, "something", "accepted"},
		{"create", 201, "", "", "in doubt"},
		{"create", 201, "a b", "", "in doubt"},
		{"create", 200, id, "", "in doubt"},
		{"create", 204, id, "", "in doubt"},
		{"create", 301, id, "", "in doubt"},
		{"create", 502, "", "Bad Gateway", "in doubt"},
		{"create", 500, "", "", "in doubt"},
		{"create", 400, "", "", "rejected"},
		{"create", 404, "", "<html>", "rejected"},
		{"read", 200, "", `{"message-storage-policy":0,"push-type":"LiveActivity"}`, "accepted"},
		{"read", 200, "", `{"message-storage-policy":2,"x":1}`, "accepted"}, // for what Apple adds
		{"read", 200, "", `{"push-type":"LiveActivity"}`, "in doubt"},
		{"read", 200, "", `{"message-storage-policy":"1"}`, "in doubt"},
		{"read", 200, "", "", "in doubt"},
		{"read", 200, "", `{"message-storage-policy":`, "in doubt"},
		{"read", 201, "", `{"message-storage-policy":0}`, "in doubt"},
		{"list", 200, "", `{"channels":["AAAA","BBBB"]}`, "accepted"},
		{"list", 200, "", `{"channels":[]}`, "accepted"},
		{"list", 200, "", `{"channels":null}`, "in doubt"},
		{"list", 200, "", `{}`, "in doubt"},
		{"list", 200, "", `["AAAA"]`, "in doubt"},
		{"list", 200, "", large, "in doubt"},
		{"delete", 204, "", "", "accepted"},
		{"delete", 200, "", "", "in doubt"},
		{"delete", 404, "", `{"reason":"BadPath"}`, "rejected"},
	} {
		web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
			if test.channel != "" {
				w.Header().Set("apns-channel-id", test.channel)
			}
			w.WriteHeader(test.status)
			io.WriteString(w, test.body)
		})
		c := newChannels(t, trusting(web))
		c.Addr = web.Listener.Addr().String()
		for _, op := range channelOps {
			if op.name == test.op {
				what := fmt.Sprintf("%s, %d %q %.50q", op.name, test.status, test.channel, test.body)
				wantChannelClass(t, what, op.call(t.Context(), c, id), test.want)
			}
		}
		c.Close()
		web.Close()
	}
}

// The texts of errors say what was being done.
func TestChannelErrorTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer error
		s := inMemory(t, nil, func(s *apnstest.Server) { s.OnChannelCall = func(string, string) error { return answer } })
		c := newChannels(t, s.Config())
		for _, test := range []struct {
			op, want string
			answer   error
		}{
			{"create", "apns: creating a channel: rejected: CannotCreateChannelConfig (HTTP status 400)", apns.ReasonCannotCreateChannelConfig},
			{"read", "apns: reading a channel: rejected: TopicMismatch (HTTP status 403)", apns.ReasonTopicMismatch},
			{"list", "apns: listing the channels: not sent: the server refuses this sender: BadCertificate (HTTP status 403)", apns.ReasonBadCertificate},
			{"delete", "apns: deleting a channel: in doubt: the server reset the stream (CANCEL)", apnstest.Fault{End: apnstest.EndRST}},
		} {
			answer = test.answer
			id := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
			for _, op := range channelOps {
				if op.name != test.op {
					continue
				}
				if err := op.call(t.Context(), c, id); err == nil || err.Error() != test.want {
					t.Errorf("got %v\nwant %s", err, test.want)
				}
			}
		}
	})
}

// A call that breaks a rule is not sent.
func TestChannelsLocalChecks(t *testing.T) {
	noDial := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("the call was to be sent")
	}
	for name, test := range map[string]struct {
		bundleID string
		call     func(c *apns.Channels) error
		reason   apns.Reason
	}{
		"no bundle ID":             {"", func(c *apns.Channels) error { _, err := c.List(t.Context()); return err }, apns.ReasonBadPath},
		"a path in the bundle ID":  {"com/example", func(c *apns.Channels) error { _, err := c.List(t.Context()); return err }, apns.ReasonBadPath},
		"a query in the bundle ID": {"com?x", func(c *apns.Channels) error { _, err := c.Create(t.Context(), 0); return err }, apns.ReasonBadPath},
		"a bundle ID in UTF-8":     {"com.é", func(c *apns.Channels) error { return c.Delete(t.Context(), "AAAA") }, apns.ReasonBadPath},
		"storage policy 2":         {"a.b", func(c *apns.Channels) error { _, err := c.Create(t.Context(), 2); return err }, apns.ReasonBadRequestParams},
		"storage policy -1":        {"a.b", func(c *apns.Channels) error { _, err := c.Create(t.Context(), -1); return err }, apns.ReasonBadRequestParams},
		"read without an ID":       {"a.b", func(c *apns.Channels) error { _, err := c.Read(t.Context(), ""); return err }, apns.ReasonMissingChannelID},
		"read with a line break":   {"a.b", func(c *apns.Channels) error { _, err := c.Read(t.Context(), "AA\nA"); return err }, apns.ReasonBadChannelID},
		"delete without an ID":     {"a.b", func(c *apns.Channels) error { return c.Delete(t.Context(), "") }, apns.ReasonMissingChannelID},
		"delete with a space":      {"a.b", func(c *apns.Channels) error { return c.Delete(t.Context(), "AA A") }, apns.ReasonBadChannelID},
	} {
		c := &apns.Channels{Config: &apns.Config{BundleID: test.bundleID, DialContext: noDial}}
		wantChannelClass(t, name, test.call(c), "invalid", test.reason)
		c.Close()
	}
	var zero apns.Channels
	wantChannelClass(t, "a zero Channels", zero.Delete(t.Context(), "AAAA"), "invalid", apns.ReasonBadPath)
}

// Where the server has no HTTP/2, or does not take the credentials, or is not there.
func TestChannelsDial(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	binary := s.Config()
	binary.TLS.NextProtos = []string{}
	stranger := apnstest.NewServer(nil) // whose certificate s does not take
	defer stranger.Close()
	unknown := s.Config()
	unknown.TLS.Certificates = stranger.Config().TLS.Certificates
	nobody := s.Config()
	nobody.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") }
	for name, test := range map[string]struct {
		config  *apns.Config
		addr    string
		matches []error
		text    string
	}{
		"no ALPN":                {binary, "", nil, "did not negotiate HTTP/2"},
		"a binary gateway":       {s.Config(), gateway, nil, "did not negotiate HTTP/2"},
		"an unknown certificate": {unknown, "", []error{apns.ErrRefused, apns.ReasonMissingProviderToken}, "the server refuses this sender"},
		"no address":             {s.Config(), "nowhere", nil, "expected host:port"},
		"nobody":                 {nobody, "", nil, "nobody is there"},
	} {
		c := newChannels(t, test.config)
		c.Addr = test.addr
		err := c.Delete(t.Context(), "AAAA")
		wantClass(t, err, "not sent", test.matches...)
		if err == nil || !strings.Contains(err.Error(), test.text) || !strings.HasPrefix(err.Error(), "apns: deleting a channel: not sent: ") {
			t.Errorf("%s: got %v, want %q in it", name, err, test.text)
		}
	}
}

// All that an app can have are listed, and one more cannot be created.
func TestChannelsLimit(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	var want []string
	for range 10_000 {
		want = append(want, s.CreateChannel(apnstest.BundleID, apns.StoreNone))
	}
	c := newChannels(t, s.TokenConfig())
	for range 3 { // more than the window of the connection
		if got, err := c.List(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %d IDs, %v, want the %d that there are", len(got), err, len(want))
		}
	}
	_, err := c.Create(t.Context(), apns.StoreNone)
	wantChannelClass(t, "Create", err, "rejected", apns.ReasonCannotCreateChannelConfig)
	if err := c.Delete(t.Context(), want[5000]); err != nil {
		t.Fatal(err)
	}
	id, err := c.Create(t.Context(), apns.StoreMostRecent)
	if err != nil {
		t.Fatal(err)
	}
	want = append(slices.Delete(want, 5000, 5001), id)
	if got := s.Channels(apnstest.BundleID); !slices.Equal(got, want) {
		t.Error("the server has other channels, or in another order")
	}
}

// The calls go through a proxy, and do not need net/http's HTTP/2.
func TestChannelsProxy(t *testing.T) {
	t.Setenv("GODEBUG", "http2client=0")
	s := apnstest.NewServer(nil)
	defer s.Close()
	p := startProxy(t, "http", s.Config().DialContext)
	config := s.TokenConfig()
	config.DialContext = apns.ProxyDialContext(http.ProxyURL(p.url(t, "jo:s3cret@")), nil)
	c := newChannels(t, config)
	id, err := c.Create(t.Context(), apns.StoreNone)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf("CONNECT %s HTTP/1.1, Host %[1]s, Basic am86czNjcmV0", apns.ChannelsProduction)
	if seen := p.seen(); !slices.Equal(seen, []string{want}) {
		t.Errorf("the proxy got %q, want %q", seen, want)
	}
}

func TestStoragePolicyString(t *testing.T) {
	for p, want := range map[apns.StoragePolicy]string{apns.StoreNone: "StoreNone", apns.StoreMostRecent: "StoreMostRecent", 7: "StoragePolicy(7)", -1: "StoragePolicy(-1)"} {
		if got := fmt.Sprint(p); got != want {
			t.Errorf("%d: got %s, want %s", p, got, want)
		}
		if b, err := json.Marshal(p); err != nil || string(b) != fmt.Sprintf("%d", p) {
			t.Errorf("%d: got %s, %v in JSON, want Apple's number", p, b, err)
		}
	}
}
