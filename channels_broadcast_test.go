package apns_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// What the fields of a broadcast are on the wire: "Sending broadcast push notification
// requests to APNs", whose table requires apns-channel-id, apns-expiration, apns-priority
// and apns-push-type. There is no apns-topic.
func TestBroadcastHeaders(t *testing.T) {
	var got string
	web := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = requestText(r, body)
		w.Header().Set("apns-request-id", "THE-REQUEST")
		w.Header().Set("apns-unique-id", "THE-UNIQUE")
	})
	config := trusting(web)
	config.BundleID = "com.example.app"
	client := http2Client(t, config)
	client.Addr = web.Listener.Addr().String()
	const head = "POST https://%s/4/broadcasts/apps/com.example.app\napns-channel-id: dHN0LXNyY2gtY2hubA==\n"
	for name, test := range map[string]struct {
		m    apns.Message
		want string
	}{
		"nothing set": {apns.Message{}, "apns-expiration: 0\napns-priority: 10\napns-push-type: liveactivity\ncontent-length: 2\n\n{}"},
		"all set": {apns.Message{ID: 7, PushType: apns.PushTypeLiveActivity, Priority: apns.PriorityPowerSaving, Expiry: expiry, APNsID: "123e4567-e89b-12d3-a456-4266554400a0"},
			"apns-expiration: 1700000000\napns-priority: 5\napns-push-type: liveactivity\napns-request-id: 123e4567-e89b-12d3-a456-4266554400a0\ncontent-length: 2\n\n{}"},
		"now or never": {apns.Message{Expiry: time.Unix(0, 0), Priority: apns.PriorityLowest}, "apns-expiration: 0\napns-priority: 1\napns-push-type: liveactivity\ncontent-length: 2\n\n{}"},
		"long ago":     {apns.Message{Expiry: time.Unix(-5, 0)}, "apns-expiration: 0\napns-priority: 10\napns-push-type: liveactivity\ncontent-length: 2\n\n{}"},
	} {
		for range 2 { // nothing is left over from the one before
			test.m.Channel, test.m.Payload = "dHN0LXNyY2gtY2hubA==", []byte("{}")
			receipt, err := client.Push(t.Context(), &test.m)
			if want := (apns.Receipt{APNsID: "THE-REQUEST", UniqueID: "THE-UNIQUE"}); err != nil || receipt != want {
				t.Errorf("%s: got %+v, %v, want %+v", name, receipt, err, want)
			}
			if want := fmt.Sprintf(head, client.Addr) + test.want; got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
			}
			// A message for a device has nothing of it.
			if _, err := client.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(got, "channel") || strings.Contains(got, "request-id") || !strings.Contains(got, "/3/device/"+token+"\napns-push-type: alert\napns-topic: com.example.app\n") {
				t.Errorf("after %s: a message for a device was\n%s", name, got)
			}
		}
	}
}

// A broadcastCase is a message, and the reason with which the server rejects it, if it does.
type broadcastCase struct {
	m      apns.Message
	reason apns.Reason
}

// broadcastCases returns broadcasts to channels that it creates, and a message for a device.
func broadcastCases(s *apnstest.Server) []broadcastCase {
	none := s.CreateChannel(apnstest.BundleID, apns.StoreNone)
	stores := s.CreateChannel(apnstest.BundleID, apns.StoreMostRecent)
	other := s.CreateChannel("com.example.other", apns.StoreNone)
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	large := []byte(`{"x":"` + strings.Repeat("x", apns.MaxVoIPPayload-8) + `"}`)
	cases := []broadcastCase{
		{apns.Message{Channel: none}, ""},
		{apns.Message{Channel: stores}, ""},
		{apns.Message{Channel: stores, Expiry: soon}, ""},
		{apns.Message{Channel: none, Expiry: soon}, apns.ReasonBadExpirationDate},
		{apns.Message{Channel: "AAAA"}, apns.ReasonChannelNotRegistered},
		{apns.Message{Channel: other}, apns.ReasonChannelNotRegistered},
		{apns.Message{Channel: "A"}, apns.ReasonBadChannelID},
		{apns.Message{Channel: none, Payload: large}, ""},
		{apns.Message{Channel: none, Payload: []byte("{}")}, apns.ReasonFeatureNotEnabled},
		{apns.Message{Token: "c0ffee"}, ""},
	}
	for i := range cases {
		m := &cases[i].m
		m.ID = uint32(i)
		if m.Payload == nil {
			m.Payload = payload
		}
	}
	return cases
}

func (c *broadcastCase) check(t *testing.T, err error) {
	t.Helper()
	if c.reason == "" {
		if err != nil {
			t.Errorf("message %d: got %v, want nil", c.m.ID, err)
		}
		return
	}
	e, ok := err.(*apns.PushError)
	if !ok || e.Reason != c.reason || e.ID != c.m.ID || e.HTTPStatus != 400 || len(e.APNsID) != 36 || strings.Contains(err.Error(), c.m.Channel) {
		t.Errorf("message %d: got %v, want a *PushError with %s and no channel", c.m.ID, err, c.reason)
	}
}

// Broadcasts and messages for devices go through one Client or Conn, with the same outcomes.
func TestBroadcast(t *testing.T) {
	for _, token := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, func(m *apns.Message) error {
				if string(m.Payload) == "{}" {
					return apns.ReasonFeatureNotEnabled
				}
				return nil
			})
			config := s.Config()
			if token {
				config = s.TokenConfig()
			}
			config.BundleID = apnstest.BundleID
			cases := broadcastCases(s)
			conn := dialHTTP2(t, config)
			client := http2Client(t, config)
			for i := range cases {
				cases[i].check(t, conn.WritePushMsg(t.Context(), &cases[i].m))
				_, err := client.Push(t.Context(), &cases[i].m)
				cases[i].check(t, err)
			}
			all := func(yield func(*apns.Message) bool) {
				for i := range cases {
					if !yield(&cases[i].m) {
						return
					}
				}
			}
			for r := range client.PushAll(t.Context(), all) {
				cases[r.Message.ID].check(t, r.Err)
			}
			checkBroadcastRecords(t, s.Records(), 3*len(cases))
		})
	}
}

func checkBroadcastRecords(t *testing.T, rs []apnstest.Record, want int) {
	t.Helper()
	if len(rs) != want {
		t.Errorf("got %d records, want %d", len(rs), want)
	}
	for _, r := range rs {
		m := r.Message
		switch {
		case (m.Channel == "") == (m.Token == ""):
			t.Errorf("got a record with the channel %q and the token %q, want one of them", m.Channel, m.Token)
		case m.Channel != "" && (m.Topic != "" || m.PushType != apns.PushTypeLiveActivity || m.Priority != apns.PriorityImmediate):
			t.Errorf("got a record with topic %q, push type %q and priority %d", m.Topic, m.PushType, m.Priority)
		}
	}
}

// A broadcast that breaks a rule is not sent, whether the Client knows the protocol or not.
func TestBroadcastRules(t *testing.T) {
	const id = "dHN0LXNyY2gtY2hubA=="
	for name, test := range map[string]struct {
		bundleID string
		m        apns.Message
		reason   apns.Reason
	}{
		"a token and a channel":   {"a.b", apns.Message{Token: token, Channel: id}, apns.ReasonBadChannelID},
		"neither":                 {"a.b", apns.Message{}, apns.ReasonMissingDeviceToken},
		"no bundle ID":            {"", apns.Message{Channel: id}, apns.ReasonBadPath},
		"a path in the bundle ID": {"../a", apns.Message{Channel: id}, apns.ReasonBadPath},
		"a blank in the channel":  {"a.b", apns.Message{Channel: id + " "}, apns.ReasonBadChannelID},
		"a line in the channel":   {"a.b", apns.Message{Channel: "AAAA\r\nx: y"}, apns.ReasonBadChannelID},
		"a topic":                 {"a.b", apns.Message{Channel: id, Topic: "a.b"}, apns.ReasonBadTopic},
		"a collapse ID":           {"a.b", apns.Message{Channel: id, CollapseID: "x"}, apns.ReasonBadCollapseID},
		"an alert":                {"a.b", apns.Message{Channel: id, PushType: apns.PushTypeAlert}, apns.ReasonInvalidPushType},
		"widgets":                 {"a.b", apns.Message{Channel: id, PushType: apns.PushTypeWidgets}, apns.ReasonInvalidPushType},
		"a bad APNs ID":           {"a.b", apns.Message{Channel: id, APNsID: "7"}, apns.ReasonBadMessageID},
		"priority 7":              {"a.b", apns.Message{Channel: id, Priority: 7}, apns.ReasonBadPriority},
		"5,121 bytes":             {"a.b", apns.Message{Channel: id, Payload: make([]byte, 5121)}, apns.ReasonPayloadTooLarge},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil)
			config := s.Config()
			config.BundleID = test.bundleID
			m := test.m
			if m.Payload == nil {
				m.Payload = payload
			}
			client := http2Client(t, config)
			for range 2 {
				_, err := client.Push(t.Context(), &m)
				wantClass(t, err, "invalid", test.reason)
				if strings.Contains(err.Error(), "AAAA") || strings.Contains(err.Error(), "dHN0") || strings.Contains(err.Error(), token) {
					t.Errorf("%s: got %v, want no channel ID and no token in it", name, err)
				}
			}
			wantClass(t, dialHTTP2(t, config).WritePushMsg(t.Context(), &m), "invalid", test.reason)
			if rs := s.Records(); len(rs) != 0 {
				t.Errorf("%s: %d messages were sent, want none", name, len(rs))
			}
			if t.Failed() {
				t.Fatalf("%s failed", name)
			}
		})
	}
}

// The binary protocol has no broadcasts.
func TestBroadcastOnBinaryProtocol(t *testing.T) {
	for _, m := range []*apns.Message{
		{Channel: "AAAA", Payload: payload},
		{Channel: "AAAA", Payload: payload, Token: token},
		{Channel: "AAAA", Payload: payload, Priority: apns.PriorityImmediate},
	} {
		before := []byte("before")
		b, err := apns.AppendMsg(before, m)
		wantClass(t, err, "invalid", apns.StatusMissingToken)
		if !bytes.Equal(b, before) {
			t.Errorf("got %q, want nothing appended", b)
		}
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil)
			conn := dialPush(t, s)
			wantClass(t, conn.WritePushMsg(t.Context(), m), "invalid")
			if err := conn.WritePushMsg(t.Context(), message(1)); err != nil {
				t.Error(err)
			}
			client := newClient(t, s)
			_, err := client.Push(t.Context(), m)
			wantClass(t, err, "invalid", apns.StatusMissingToken)
		})
	}
}

// A broadcast in doubt, one that is resent, and one that expires.
func TestBroadcastOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer func(*apns.Message) error
		s := inMemory(t, func(m *apns.Message) error { return answer(m) })
		config := s.TokenConfig()
		id := s.CreateChannel(apnstest.BundleID, apns.StoreMostRecent)
		client := http2Client(t, config)
		for name, test := range map[string]struct {
			answers []error
			expires time.Duration
			want    string
		}{
			"reset":     {[]error{apnstest.Fault{End: apnstest.EndRST}}, 0, "in doubt"},
			"refused":   {[]error{apnstest.Fault{End: apnstest.EndRefusedStream}}, 0, "accepted"},
			"503, once": {[]error{apns.ReasonServiceUnavailable}, 0, "accepted"},
			"shutdown":  {[]error{apns.ReasonShutdown}, 0, "accepted"},
			"expires":   {[]error{&apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 10 * time.Second}}, 3 * time.Second, "expired"},
		} {
			answer = inTurn(test.answers...)
			m := &apns.Message{Channel: id, Payload: payload}
			if test.expires > 0 {
				m.Expiry = time.Now().Add(test.expires)
			}
			_, err := client.Push(t.Context(), m)
			wantClass(t, err, test.want)
			if t.Failed() {
				t.Fatalf("%s failed", name)
			}
		}
	})
}
