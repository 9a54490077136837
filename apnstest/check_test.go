package apnstest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The payload is one of a background push, and the push type is not.
func ExampleCheck() {
	for _, f := range apnstest.Check(&apns.Message{
		Token:   "c0ffee",
		Topic:   "com.example.app",
		Payload: []byte(`{"aps":{"content-available":1}}`),
	}) {
		fmt.Println(f.Field, f.Rule)
		fmt.Println("source:", f.Source)
	}
	// Output:
	// apns-push-type is alert, expected background for a payload with content-available and no alert, badge or sound
	// source: Sending notification requests to APNs
}

// The payloads that are right for the push types. The Live Activity's are those of the page
// "Starting and updating Live Activities with ActivityKit push notifications", in short.
const (
	alertPayload  = `{"aps":{"alert":"a"}}`
	silentPayload = `{"aps":{"content-available":1}}`
	mdmPayload    = `{"mdm":"magic"}`
	startPayload  = `{"aps":{"timestamp":1,"event":"start","content-state":{},"attributes-type":"T","attributes":{},"alert":{"title":{"loc-key":"k"},"body":"b","sound":"s"}}}`
	updatePayload = `{"aps":{"timestamp":1,"event":"update","content-state":{},"stale-date":2,"relevance-score":75}}`
	endPayload    = `{"aps":{"timestamp":1,"event":"end","dismissal-date":2}}`
	widgetPayload = `{"aps":{"content-changed":true}}`
)

// A checkTest is a message, and the findings about it: field and, in parentheses, reason.
type checkTest struct {
	name     string
	pushType apns.PushType
	payload  string
	change   func(*apns.Message) // nil: none
	want     string
}

func asBroadcast(m *apns.Message) { m.Token, m.Topic, m.Channel = "", "", "AAAA" }

// The messages have the topic of their push type, unless change sets another.
var checkTests = []checkTest{
	{"alert", "alert", alertPayload, nil, ""},
	{"no push type", "", alertPayload, nil, ""},
	{"badge", "alert", `{"aps":{"badge":0}}`, nil, ""},
	{"sound", "alert", `{"aps":{"sound":"default"}}`, nil, ""},
	{"all keys", "alert", `{"a":1,"aps":{"alert":{"title":"t","title-loc-key":null,"title-loc-args":["a"],"subtitle":"s","body":"b","loc-args":[],"launch-image":"l"},
		"badge":1,"sound":{"critical":1,"name":"n","volume":0.5},"thread-id":"t","category":"c","content-available":1,"mutable-content":1,"target-content-id":"t",
		"interruption-level":"time-sensitive","relevance-score":0.5,"filter-criteria":"f","url-args":[]}}`, nil, ""},
	{"mail", "alert", `{"aps":{"account-id":"a"}}`, nil, ""},
	{"background", "background", silentPayload, nil, ""},
	{"background with custom keys", "background", `{"a":{"b":1},"aps":{"content-available":1}}`, nil, ""},
	{"mdm", "mdm", mdmPayload, withTopic("com.apple.mgmt.External.1"), ""},
	{"start", "liveactivity", startPayload, nil, ""},
	{"start with a critical sound", "liveactivity", strings.Replace(startPayload, `"sound":"s"`, `"sound":{"critical":1,"name":"n","volume":1}`, 1), nil, ""},
	{"update", "liveactivity", updatePayload, nil, ""},
	{"end", "liveactivity", endPayload, nil, ""},
	{"widgets", "widgets", widgetPayload, nil, ""},
	{"controls", "controls", widgetPayload, nil, ""},
	{"broadcast", "liveactivity", updatePayload, asBroadcast, ""},
	{"broadcast without a push type", "", endPayload, asBroadcast, ""},
	{"largest broadcast", "liveactivity", updatePayload + strings.Repeat(" ", apns.MaxVoIPPayload-len(updatePayload)), asBroadcast, ""},
	{"broadcast that starts", "liveactivity", startPayload, asBroadcast, "aps.event"},
	{"too large broadcast", "liveactivity", updatePayload + strings.Repeat(" ", apns.MaxVoIPPayload+1-len(updatePayload)), asBroadcast, "payload (PayloadTooLarge)"},
	{"voip without aps", "voip", `{"caller":"c"}`, nil, ""},
	{"pushtotalk without aps", "pushtotalk", `{}`, nil, ""},
	{"location", "location", `{"aps":{}}`, nil, ""},
	{"fileprovider", "fileprovider", `{"domain":"d"}`, nil, ""},
	{"complication", "complication", `{"data":1}`, nil, ""},
	{"a pass of Wallet", "alert", `{}`, withTopic("pass.com.example"), ""},
	{"the last of two keys counts", "alert", `{"aps":1,"aps":{"badge":1}}`, nil, ""},
	{"an escaped key", "alert", `{"\u0061ps" : { "a\u006cert" : "\"}" } }`, nil, ""},

	{"priority 7", "alert", alertPayload, withPriority(7), "apns-priority (BadPriority)"},
	{"background 10", "background", silentPayload, withPriority(10), "apns-priority (BadPriority)"},
	{"background 1", "background", silentPayload, withPriority(1), "apns-priority (BadPriority)"},
	{"background 5", "background", silentPayload, withPriority(5), ""},
	{"live activity 1", "liveactivity", endPayload, withPriority(1), "apns-priority"},
	{"live activity 10", "liveactivity", endPayload, withPriority(10), ""},
	{"collapse ID of 64 bytes", "alert", alertPayload, func(m *apns.Message) { m.CollapseID = strings.Repeat("x", 64) }, ""},
	{"collapse ID of 65 bytes", "alert", alertPayload, func(m *apns.Message) { m.CollapseID = strings.Repeat("x", 65) }, "apns-collapse-id (BadCollapseId)"},
	{"apns-id", "alert", alertPayload, func(m *apns.Message) { m.APNsID = someUUID }, ""},
	{"bad apns-id", "alert", alertPayload, func(m *apns.Message) { m.APNsID = someUUID + "0" }, "apns-id (BadMessageId)"},
	{"expiration", "alert", alertPayload, func(m *apns.Message) { m.Expiry = time.Unix(0, 0) }, ""},
	{"expiration before 1970", "alert", alertPayload, func(m *apns.Message) { m.Expiry = time.Unix(-1, 0) }, "apns-expiration (BadExpirationDate)"},
	{"no token", "alert", alertPayload, func(m *apns.Message) { m.Token = "" }, "device token (MissingDeviceToken)"},
	{"bad token", "alert", alertPayload, func(m *apns.Message) { m.Token = "xy" }, "device token (BadDeviceToken)"},
	{"token of 101 bytes", "alert", alertPayload, func(m *apns.Message) { m.Token = strings.Repeat("ab", 101) }, ""},

	{"unknown push type", "telepathy", alertPayload, nil, "apns-push-type (InvalidPushType)"},
	{"no topic", "voip", `{}`, withTopic(""), ""},
	{"topic without suffix", "voip", `{}`, withTopic("com.example.app"), "apns-topic (BadTopic)"},
	{"suffix alone", "liveactivity", endPayload, withTopic(".push-type.liveactivity"), "apns-topic (BadTopic)"},
	{"mdm to an app", "mdm", mdmPayload, nil, "apns-topic (BadTopic)"},
	{"alert with a suffix", "alert", alertPayload, withTopic("com.example.app.voip"), "apns-topic"},
	{"background with a suffix", "background", silentPayload, withTopic("com.example.app.voip-ptt"), "apns-topic"},

	{"the suffix twice", "voip", `{}`, withTopic("com.example.app.voip.voip"), "apns-topic"},
	{"two suffixes", "liveactivity", endPayload, withTopic("com.example.app.voip.push-type.liveactivity"), "apns-topic"},
	{"a topic with a hyphen", "voip", `{}`, withTopic("com.Example-1.app.voip"), ""},
	{"a topic with a space", "alert", alertPayload, withTopic("My App"), "apns-topic"},
	{"a topic with an underscore", "voip", `{}`, withTopic("com.example.my_app.voip"), "apns-topic"},
	{"a URL as topic", "alert", alertPayload, withTopic("https://example.com"), "apns-topic"},

	{"empty", "alert", "", nil, "payload (PayloadEmpty)"},
	{"too large", "alert", `{"aps":{"alert":"` + strings.Repeat("x", 4096) + `"}}`, nil, "payload (PayloadTooLarge)"},
	{"large voip", "voip", `{"x":"` + strings.Repeat("x", 5120-8) + `"}`, nil, ""},
	{"too large voip", "voip", `{"x":"` + strings.Repeat("x", 5120-7) + `"}`, nil, "payload (PayloadTooLarge)"},
	{"no JSON", "alert", `{"aps":`, nil, "payload (BadRequestPayload)"},
	{"array", "voip", `[]`, nil, "payload (BadRequestPayload)"},
	{"number", "alert", `1`, nil, "payload (BadRequestPayload)"},
	{"not UTF-8", "alert", "{\"aps\":{\"alert\":\"\xff\"}}", nil, "payload"},

	{"no aps", "alert", `{"alert":"a"}`, nil, "aps"},
	{"no aps", "background", `{}`, nil, "aps"},
	{"no aps", "liveactivity", `{}`, nil, "aps"},
	{"aps is a string", "alert", `{"aps":"a"}`, nil, "aps"},
	{"aps without an effect", "alert", `{"aps":{"thread-id":"t"}}`, nil, "aps"},
	{"empty aps", "alert", `{"aps":{}}`, nil, "aps"},
	{"background as alert", "alert", silentPayload, nil, "apns-push-type"},
	{"mdm as alert", "alert", mdmPayload, nil, "apns-push-type"},
	{"alert as mdm", "mdm", alertPayload, withTopic("com.apple.mgmt.x"), "mdm, aps"},
	{"mdm is a number", "mdm", `{"mdm":1}`, withTopic("com.apple.mgmt.x"), "mdm"},
	{"alert as background", "background", `{"aps":{"alert":"a","content-available":1}}`, nil, "aps.alert"},
	{"sound and badge as background", "background", `{"aps":{"sound":"s","badge":1,"content-available":1}}`, nil, "aps.sound, aps.badge"},
	{"background with 0", "background", `{"aps":{"content-available":0}}`, nil, "aps.content-available"},
	{"background with true", "background", `{"aps":{"content-available":true}}`, nil, "aps.content-available, aps.content-available"},
	{"no content-available", "background", `{"aps":{}}`, nil, "aps.content-available"},

	{"unknown key", "alert", `{"aps":{"alert":"a","content_available":1}}`, nil, "aps.content_available"},
	{"badge as a string", "alert", `{"aps":{"badge":"1"}}`, nil, "aps.badge"},
	{"alert as a number", "alert", `{"aps":{"alert":1}}`, nil, "aps.alert"},
	{"body as a number", "alert", `{"aps":{"alert":{"body":1}}}`, nil, "aps.alert.body"},
	{"title as an object", "alert", `{"aps":{"alert":{"title":{}}}}`, nil, "aps.alert.title"},
	{"loud", "alert", `{"aps":{"sound":{"critical":true,"volume":1.5}}}`, nil, "aps.sound.critical, aps.sound.volume"},
	{"interruption level", "alert", `{"aps":{"alert":"a","interruption-level":"loud"}}`, nil, "aps.interruption-level"},
	{"relevance", "alert", `{"aps":{"alert":"a","relevance-score":1.5}}`, nil, "aps.relevance-score"},

	{"update as alert", "alert", `{"aps":{"timestamp":1,"event":"update","content-state":{}}}`, nil, "aps.timestamp, aps.event, aps.content-state"},
	{"no timestamp", "liveactivity", `{"aps":{"event":"end"}}`, nil, "aps.timestamp"},
	{"milliseconds", "liveactivity", `{"aps":{"event":"end","timestamp":1700000000000}}`, nil, "aps.timestamp"},
	{"no event", "liveactivity", `{"aps":{"timestamp":1}}`, nil, "aps.event"},
	{"unknown event", "liveactivity", `{"aps":{"timestamp":1,"event":"stop"}}`, nil, "aps.event"},
	{"bare start", "liveactivity", `{"aps":{"timestamp":1,"event":"start"}}`, nil, "aps.alert, aps.attributes-type, aps.attributes, aps.content-state"},
	{"update without state", "liveactivity", `{"aps":{"timestamp":1,"event":"update"}}`, nil, "aps.content-state"},
	{"update with attributes", "liveactivity", `{"aps":{"timestamp":1,"event":"update","content-state":{},"attributes":{}}}`, nil, "aps.attributes"},
	{"update with a dismissal", "liveactivity", `{"aps":{"timestamp":1,"event":"update","content-state":{},"dismissal-date":2}}`, nil, "aps.dismissal-date"},
	{"end with a token", "liveactivity", `{"aps":{"timestamp":1,"event":"end","input-push-token":1}}`, nil, "aps.input-push-token"},
	{"sound beside the alert", "liveactivity", `{"aps":{"timestamp":1,"event":"end","sound":"s"}}`, nil, "aps.sound"},
	{"loud start", "liveactivity", strings.Replace(startPayload, `"sound":"s"`, `"sound":{"critical":true,"volume":1.5}`, 1), nil, "aps.alert.sound.critical, aps.alert.sound.volume"},
	{"sound of a start as a number", "liveactivity", strings.Replace(startPayload, `"sound":"s"`, `"sound":1`, 1), nil, "aps.alert.sound"},
	{"widgets as liveactivity", "liveactivity", strings.Replace(endPayload, `"aps":{`, `"aps":{"content-changed":true,`, 1), nil, "aps.content-changed"},
	{"widgets as alert", "alert", widgetPayload, nil, "aps.content-changed"},
	{"alert as widgets", "widgets", alertPayload, nil, "aps.content-changed"},
	{"alert as controls", "controls", alertPayload, nil, "aps.content-changed"},
}

func withTopic(topic string) func(*apns.Message) { return func(m *apns.Message) { m.Topic = topic } }
func withPriority(p apns.Priority) func(*apns.Message) {
	return func(m *apns.Message) { m.Priority = p }
}

func (test checkTest) message() *apns.Message {
	m := &apns.Message{Token: token, PushType: test.pushType, Topic: test.pushType.Topic(apnstest.BundleID), Payload: []byte(test.payload)}
	if test.change != nil {
		test.change(m)
	}
	return m
}

// listFindings returns what checkTest.want has.
func listFindings(findings []apnstest.Finding) string {
	var list []string
	for _, f := range findings {
		s := f.Field
		if f.Reason != "" {
			s += " (" + string(f.Reason) + ")"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

func TestCheck(t *testing.T) {
	for _, test := range checkTests {
		t.Run(test.name, func(t *testing.T) {
			findings := apnstest.Check(test.message())
			if got := listFindings(findings); got != test.want {
				t.Errorf("got the findings %q, want %q", got, test.want)
			}
			for _, f := range findings {
				if !strings.HasPrefix(f.Rule, "is ") && !strings.HasPrefix(f.Rule, "has ") && !strings.HasPrefix(f.Rule, "does ") && !strings.HasPrefix(f.Rule, "ends ") ||
					!strings.Contains(f.Rule, "expected ") || f.Source == "" {
					t.Errorf("got %v, want a rule with what is expected, and its source", f)
				}
			}
		})
	}
}

// A server checks as Check does. It rejects what has a reason, and accepts the rest.
func TestServerChecks(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		s := start(t, false, nil, func(s *apnstest.Server) { s.Lenient = lenient })
		c := connect(t, s, false)
		bearer := jwt{}.sign(t, s)
		for _, test := range checkTests {
			m := test.message()
			if m.PushType == "" || m.Topic == "" || m.Expiry.Unix() == -1 {
				continue // a Client would send something else
			}
			header := fields("authorization", bearer, "apns-topic", m.Topic, "apns-push-type", string(m.PushType), "apns-priority", "10")
			switch {
			case m.Priority != 0:
				header["apns-priority"] = fmt.Sprint(m.Priority)
			case m.PushType == apns.PushTypeBackground:
				header["apns-priority"] = "5"
			}
			if m.CollapseID != "" {
				header["apns-collapse-id"] = m.CollapseID
			}
			if m.APNsID != "" {
				header["apns-id"] = m.APNsID
			}
			resp := request{path: "/3/device/" + m.Token, header: header, body: m.Payload}.send(t.Context(), c)
			rs := s.Records()
			r := rs[len(rs)-1]
			want, wantStatus := test.want, 200
			content := slices.Contains([]string{"unknown push type", "background 10", "background 1", "no JSON", "array", "number"}, test.name) || strings.HasPrefix(test.want, "apns-topic")
			if lenient && (content || !strings.Contains(want, "(")) {
				want = ""
			}
			if i := strings.Index(want, "("); i >= 0 {
				wantStatus = 400
				if want == "payload (PayloadTooLarge)" {
					wantStatus = 413
				}
				if !strings.Contains(want, "("+string(resp.reason)+")") {
					t.Errorf("lenient %v, %s: got the reason %v, want that of %s", lenient, test.name, resp.reason, want)
				}
			}
			if got := listFindings(r.Findings); got != want || resp.status != wantStatus {
				t.Errorf("lenient %v, %s: got %v and the findings %q, want status %d and %q", lenient, test.name, resp, got, wantStatus, want)
			}
		}
	}
}

// A lenient server takes push types and topics that are not in Apple's documentation yet.
// With a certificate the topic must still be of its app.
func TestLenientTopic(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) { s.Lenient = true })
	for _, test := range []struct {
		cert        bool
		topic, want string
	}{
		{true, apnstest.BundleID + ".push-type.new", "200"},
		{true, apnstest.BundleID + "new", "400 TopicDisallowed"},
		{true, "com.example.other", "400 TopicDisallowed"},
		{false, "com.example.other.push-type.new", "200"},
		{false, "-", "400 MissingTopic"},
	} {
		req := pushType("new", test.topic)
		if !test.cert {
			req.header["authorization"] = jwt{}.sign(t, s)
		}
		if resp := req.send(t.Context(), connect(t, s, test.cert)); resp.String() != test.want {
			t.Errorf("certificate %v, topic %s: got %v, want %s", test.cert, test.topic, resp, test.want)
		}
	}
}

// Without the header field apns-push-type a push counts as an alert, and has a finding. With
// a certificate the topic must be its own.
func TestServerFindings(t *testing.T) {
	s := start(t, false, nil, func(s *apnstest.Server) { s.Lenient = false })
	c := connect(t, s, true)
	for _, test := range []struct {
		req        request
		want, resp string
	}{
		{request{body: []byte(alertPayload)}, "apns-push-type", "200"},
		{request{}, "apns-push-type, aps", "200"},
		{request{header: fields("apns-priority", "x", "apns-push-type", "alert"), body: []byte(alertPayload)}, "apns-priority (BadPriority)", "400 BadPriority"},
		{request{header: fields("apns-expiration", "x", "apns-push-type", "alert"), body: []byte(alertPayload)}, "apns-expiration (BadExpirationDate)", "400 BadExpirationDate"},
		{request{header: fields("apns-topic", "com.example.other", "apns-push-type", "alert"), body: []byte(alertPayload)}, "", "400 TopicDisallowed"},
	} {
		resp := test.req.send(t.Context(), c)
		rs := s.Records()
		if got := listFindings(rs[len(rs)-1].Findings); got != test.want || resp.String() != test.resp {
			t.Errorf("%+v: got %v and the findings %q, want %s and %q", test.req, resp, got, test.resp, test.want)
		}
	}
}

// On the binary protocol messages have no push type and no topic, and the content of a
// payload is no reason to reject one. The source about priority 10 is the chapter "Binary
// Provider API".
func TestBinaryFindings(t *testing.T) {
	for payload, want := range map[string]string{
		alertPayload:  "",
		silentPayload: "priority",
		mdmPayload:    "",
		`{"aps":{"content-available":1,"sound":""}}`: "",
		`{}`:                        "aps",
		`no JSON`:                   "payload",
		`{"aps":{"x":1,"badge":1}}`: "aps.x",
	} {
		for _, lenient := range []bool{false, true} {
			s := start(t, false, nil, func(s *apnstest.Server) { s.Lenient = lenient })
			c := open(t, s, "2195")
			if _, err := c.Write(build(t, &apns.Message{Token: token, Priority: apns.PriorityImmediate, Payload: []byte(payload)})); err != nil {
				t.Fatal(err)
			}
			if err := s.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			r := s.Records()[0]
			if lenient {
				want = ""
			}
			if got := listFindings(r.Findings); got != want || r.Outcome != apnstest.Accepted {
				t.Errorf("lenient %v, %s: got %v and the findings %q, want accepted and %q", lenient, payload, r.Outcome, got, want)
			}
		}
	}
}
