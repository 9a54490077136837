package apnstest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const (
	channelsPath   = "/1/apps/" + apnstest.BundleID + "/channels"
	broadcastsPath = "/4/broadcasts/apps/" + apnstest.BundleID
	goodConfig     = `{"message-storage-policy":1,"push-type":"LiveActivity"}`
)

// A channelCheck is a request about channels, or a broadcast, and the response to it. In the
// header and the body, NONE and STORES stand for the IDs of channels that there are.
type channelCheck struct {
	name   string
	method string
	path   string
	header []string // names and values in turn
	body   string
	want   string // with a certificate; after a bar with a provider token, if that differs
}

// The sources are "Sending channel management requests to APNs" for the requests, and
// "Handling error responses from Apple Push Notification service" for the responses.
var managementChecks = []channelCheck{
	{"create", "POST", channelsPath, nil, goodConfig, "201"},
	{"create, not storing", "POST", channelsPath, nil, `{"push-type":"LiveActivity", "message-storage-policy":0}`, "201"},
	{"create, with an ID", "POST", channelsPath, []string{"apns-request-id", someUUID}, goodConfig, "201"},
	{"create, with an ID of another form", "POST", channelsPath, []string{"apns-request-id", "7"}, goodConfig, "400 BadMessageId"},
	{"create, no body", "POST", channelsPath, nil, "", "400 PayloadEmpty"},
	{"create, no JSON", "POST", channelsPath, nil, goodConfig + "}", "400 BadRequestPayload"},
	{"create, another attribute", "POST", channelsPath, nil, `{"message-storage-policy":1,"push-type":"LiveActivity","x":1}`, "400 BadRequestParams"},
	{"create, a policy in words", "POST", channelsPath, nil, `{"message-storage-policy":"1","push-type":"LiveActivity"}`, "400 MissingChannelQueueSize"},
	{"create, policy 2", "POST", channelsPath, nil, `{"message-storage-policy":2,"push-type":"LiveActivity"}`, "400 MissingChannelQueueSize"},
	{"create, no policy", "POST", channelsPath, nil, `{"push-type":"LiveActivity"}`, "400 MissingChannelQueueSize"},
	{"create, no push type", "POST", channelsPath, nil, `{"message-storage-policy":1}`, "400 MissingPushType"},
	{"create, push type of a push", "POST", channelsPath, nil, `{"message-storage-policy":1,"push-type":"liveactivity"}`, "400 InvalidPushType"},
	{"create, push type of a number", "POST", channelsPath, nil, `{"message-storage-policy":1,"push-type":1}`, "400 BadRequestParams"},
	{"create, too large", "POST", channelsPath, nil, `{"x":"` + strings.Repeat("x", 70_000) + `"}`, "413 PayloadTooLarge"},

	{"read", "GET", channelsPath, []string{"apns-channel-id", "STORES"}, "", "200"},
	{"read, no channel", "GET", channelsPath, nil, "", "400 MissingChannelId"},
	{"read, no base64", "GET", channelsPath, []string{"apns-channel-id", "a-b"}, "", "400 BadChannelId"},
	{"read, too long", "GET", channelsPath, []string{"apns-channel-id", strings.Repeat("AAAA", 300)}, "", "400 BadChannelId"},
	{"read, unknown", "GET", channelsPath, []string{"apns-channel-id", "AAAA"}, "", "400 ChannelNotRegistered"},
	{"list", "GET", "/1/apps/" + apnstest.BundleID + "/all-channels", nil, "", "200"},
	{"delete", "DELETE", channelsPath, []string{"apns-channel-id", "STORES"}, "", "204"},
	{"delete, no channel", "DELETE", channelsPath, nil, "", "400 MissingChannelId"},
	{"delete, unknown", "DELETE", channelsPath, []string{"apns-channel-id", "AAAA"}, "", "400 ChannelNotRegistered"},

	{"put", "PUT", channelsPath, nil, goodConfig, "405 MethodNotAllowed"},
	{"post to the list", "POST", "/1/apps/" + apnstest.BundleID + "/all-channels", nil, goodConfig, "405 MethodNotAllowed"},
	{"another path", "GET", "/1/apps/" + apnstest.BundleID, nil, "", "404 BadPath"},
	{"a longer path", "GET", channelsPath + "/x", nil, "", "404 BadPath"},
	{"another version", "GET", "/2/apps/" + apnstest.BundleID + "/channels", nil, "", "404 BadPath"},
	{"no bundle ID", "GET", "/1/apps//channels", nil, "", "404 BadPath"},
	{"a broadcast", "POST", broadcastsPath, nil, "{}", "404 BadPath"},
	{"another app", "GET", "/1/apps/com.example.other/all-channels", nil, "", "403 TopicMismatch|200"},
	{"a suffix", "GET", "/1/apps/" + apnstest.BundleID + ".push-type.liveactivity/all-channels", nil, "", "400 TopicDisallowed"},
	{"no token", "POST", channelsPath, []string{"authorization", "-"}, goodConfig, "201|403 MissingProviderToken"},
	{"a bad token", "POST", channelsPath, []string{"authorization", "bearer x"}, goodConfig, "201|403 InvalidProviderToken"},
}

// The sources are "Sending broadcast push notification requests to APNs" for the requests,
// and "Handling error responses from Apple Push Notification service" for the responses.
var broadcastChecks = []channelCheck{
	{"good", "POST", broadcastsPath, nil, "{}", "200"},
	{"with an ID", "POST", broadcastsPath, []string{"apns-request-id", someUUID}, "{}", "200"},
	{"with an ID of another form", "POST", broadcastsPath, []string{"apns-request-id", "7"}, "{}", "400 BadMessageId"},
	{"stored", "POST", broadcastsPath, []string{"apns-channel-id", "STORES", "apns-expiration", "2000000000"}, "{}", "200"},
	{"storing, now or never", "POST", broadcastsPath, []string{"apns-channel-id", "STORES"}, "{}", "200"},
	{"not to be stored", "POST", broadcastsPath, []string{"apns-expiration", "2000000000"}, "{}", "400 BadExpirationDate"},
	{"no expiration", "POST", broadcastsPath, []string{"apns-expiration", "-"}, "{}", "400 BadExpirationDate"},
	{"expiration in words", "POST", broadcastsPath, []string{"apns-expiration", "soon"}, "{}", "400 BadExpirationDate"},
	{"priority 1", "POST", broadcastsPath, []string{"apns-priority", "1"}, "{}", "200"},
	{"priority 7", "POST", broadcastsPath, []string{"apns-priority", "7"}, "{}", "400 BadPriority"},
	{"no priority", "POST", broadcastsPath, []string{"apns-priority", "-"}, "{}", "400 BadPriority"},
	{"no push type", "POST", broadcastsPath, []string{"apns-push-type", "-"}, "{}", "400 MissingPushType"},
	{"push type alert", "POST", broadcastsPath, []string{"apns-push-type", "alert"}, "{}", "400 InvalidPushType"},
	{"no channel", "POST", broadcastsPath, []string{"apns-channel-id", "-"}, "{}", "400 MissingChannelId"},
	{"no base64", "POST", broadcastsPath, []string{"apns-channel-id", "AAA"}, "{}", "400 BadChannelId"},
	{"unknown", "POST", broadcastsPath, []string{"apns-channel-id", "AAAA"}, "{}", "400 ChannelNotRegistered"},
	{"of another app", "POST", "/4/broadcasts/apps/com.example.other", nil, "{}", "403 TopicMismatch|400 ChannelNotRegistered"},
	{"a suffix", "POST", broadcastsPath + ".push-type.liveactivity", nil, "{}", "400 TopicDisallowed"},
	{"no bundle ID", "POST", "/4/broadcasts/apps/", nil, "{}", "404 BadPath"},
	{"a longer path", "POST", broadcastsPath + "/x", nil, "{}", "404 BadPath"},
	{"another version", "POST", "/3/broadcasts/apps/" + apnstest.BundleID, nil, "{}", "404 BadPath"},
	{"GET", "GET", broadcastsPath, nil, "", "405 MethodNotAllowed"},
	{"channels", "GET", channelsPath, nil, "", "404 BadPath"},
	{"no token", "POST", broadcastsPath, []string{"authorization", "-"}, "{}", "200|403 MissingProviderToken"},
	{"no payload", "POST", broadcastsPath, nil, "", "400 PayloadEmpty"},
	{"5,120 bytes", "POST", broadcastsPath, nil, string(bytesOfJSON(5120)), "200"},
	{"5,121 bytes", "POST", broadcastsPath, nil, string(bytesOfJSON(5121)), "413 PayloadTooLarge"},
}

func TestManagementChecks(t *testing.T) {
	testChannelChecks(t, managementChecks, apns.ChannelsProduction, nil)
}

func TestBroadcastChecks(t *testing.T) {
	testChannelChecks(t, broadcastChecks, apns.Production, []string{
		"apns-channel-id", "NONE", "apns-expiration", "0", "apns-priority", "10", "apns-push-type", "liveactivity"})
}

func testChannelChecks(t *testing.T, checks []channelCheck, addr string, header []string) {
	for _, test := range checks {
		for _, cert := range []bool{true, false} {
			calls := 0
			s := start(t, false, func(*apns.Message) error {
				calls++
				return nil
			}, func(s *apnstest.Server) {
				s.OnChannelCall = func(string, string) error {
					calls++
					return nil
				}
			})
			ids := strings.NewReplacer(
				"NONE", s.CreateChannel(apnstest.BundleID, apns.StoreNone),
				"STORES", s.CreateChannel(apnstest.BundleID, apns.StoreMostRecent))
			want, withToken, both := strings.Cut(test.want, "|")
			all := slices.Concat(header, test.header)
			if !cert {
				all = slices.Concat([]string{"authorization", jwt{}.sign(t, s)}, all)
				if both {
					want = withToken
				}
			}
			for i := range all {
				all[i] = ids.Replace(all[i])
			}
			resp := sendTo(t, s, addr, cert, test.method, test.path, all, test.body)
			if got := resp.String(); got != want {
				t.Errorf("%s, certificate %t: got %s, want %s", test.name, cert, got, want)
			}
			good := resp.status/100 == 2
			if (calls == 1) != good {
				t.Errorf("%s: the handler was called %d times, status %d", test.name, calls, resp.status)
			}
			isPush := addr == apns.Production && !strings.Contains(test.path, "/4/")
			if id := resp.header.Get("apns-request-id"); isUUID(id) == isPush || good && strings.Contains(strings.Join(all, " "), someUUID) && id != someUUID {
				t.Errorf("%s: got the apns-request-id %q", test.name, id)
			}
			if id := resp.header.Get("apns-id"); isUUID(id) != isPush {
				t.Errorf("%s: got the apns-id %q", test.name, id)
			}
			s.Close()
		}
	}
}

// sendTo sends a request on a connection of its own. A header field with the value "-" is
// left out.
func sendTo(t *testing.T, s *apnstest.Server, addr string, cert bool, method, path string, header []string, body string) response {
	t.Helper()
	config := s.Config()
	if !cert {
		config.TLS.Certificates = nil
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config.TLS, DialContext: config.DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i+1] == "-" {
			req.Header.Del(header[i])
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	var rejection struct{ Reason apns.Reason }
	if resp.StatusCode/100 != 2 && err == nil {
		err = json.Unmarshal(b, &rejection)
	}
	return response{status: resp.StatusCode, reason: rejection.Reason, header: resp.Header, err: err}
}

// The responses of a success: their status, the ID of the channel and the body.
func TestManagementResponses(t *testing.T) {
	s := start(t, false, nil, nil)
	config := s.Config()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config.TLS, DialContext: config.DialContext}
	defer transport.CloseIdleConnections()
	send := func(method, path, channel, body string) (int, string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+apns.ChannelsSandbox+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		if channel != "" {
			req.Header.Set("apns-channel-id", channel)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("apns-channel-id"), string(b)
	}
	const list = "/1/apps/" + apnstest.BundleID + "/all-channels"
	if status, _, body := send("GET", list, "", ""); status != 200 || body != `{"channels":[]}` {
		t.Errorf("list without channels: got %d %s", status, body)
	}
	status, id, body := send("POST", channelsPath, "", goodConfig)
	if raw, err := base64.StdEncoding.DecodeString(id); status != 201 || err != nil || len(raw) != 16 || body != "" {
		t.Errorf("create: got %d %q %s", status, id, body)
	}
	if status, _, body := send("GET", channelsPath, id, ""); status != 200 || body != goodConfig {
		t.Errorf("read: got %d %s", status, body)
	}
	quoted, _ := json.Marshal(map[string][]string{"channels": {id}})
	if status, _, body := send("GET", list, "", ""); status != 200 || body != string(quoted) {
		t.Errorf("list: got %d %s, want %s", status, body, quoted)
	}
	if status, _, body := send("DELETE", channelsPath, id, ""); status != 204 || body != "" {
		t.Errorf("delete: got %d %s", status, body)
	}
	if ids := s.Channels(apnstest.BundleID); len(ids) != 0 {
		t.Errorf("got the channels %q, want none", ids)
	}
}

// What OnChannelCall is told, and that its error keeps the call from taking effect.
func TestOnChannelCall(t *testing.T) {
	var got []string
	var answer error
	s := start(t, false, nil, func(s *apnstest.Server) {
		s.OnChannelCall = func(operation, channel string) error {
			got = append(got, operation+" "+channel)
			return answer
		}
	})
	id := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
	config := s.TokenConfig()
	c := &apns.Channels{Config: config}
	defer c.Close()
	for _, answer = range []error{nil, apns.StatusNoError, apns.ReasonServiceUnavailable} {
		got = nil
		_, createErr := c.Create(t.Context(), apns.StoreNone)
		_, readErr := c.Read(t.Context(), id)
		_, listErr := c.List(t.Context())
		for _, err := range []error{createErr, readErr, listErr} {
			if (err == nil) != (answer == nil || answer == apns.StatusNoError) {
				t.Errorf("the answer is %v, got %v", answer, err)
			}
		}
		if want := []string{"create ", "read " + id, "list "}; !slices.Equal(got, want) {
			t.Errorf("got the calls %q, want %q", got, want)
		}
	}
	if n := len(s.Channels(apnstest.BundleID)); n != 3 {
		t.Errorf("got %d channels, want 3", n)
	}
	if err := c.Delete(t.Context(), id); err == nil || len(s.Channels(apnstest.BundleID)) != 3 {
		t.Errorf("got %v, want an error and nothing deleted", err)
	}
	if got[len(got)-1] != "delete "+id {
		t.Errorf("got the call %q, want delete", got[len(got)-1])
	}
}
