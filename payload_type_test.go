package apns_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A message without a push type is refused if its payload shows another type than alert. Only
// keys of aps count, so that no payload is refused that may be right. The sources are
// "Starting and updating Live Activities with ActivityKit push notifications" and "Pushing
// background updates to your App".
func TestForgottenPushType(t *testing.T) {
	tests := []struct {
		payload string
		want    apns.PushType // empty if the message is sent
	}{
		{`{"aps":{"content-available":1}}`, apns.PushTypeBackground},
		{` { "a" : [{"aps":{}}] , "aps" : { "content-available" : 1 } , "b":2 } `, apns.PushTypeBackground},
		{`{"aps":{"content-available":1},"alert":"mine","b":{"\"":"\\"}}`, apns.PushTypeBackground},
		{`{"aps":{"timestamp":1,"event":"update","content-state":{"a":1}}}`, apns.PushTypeLiveActivity},
		{`{"aps":{"content-state":{},"event":"end"}}`, apns.PushTypeLiveActivity},
		{`{"aps":{"alert":{"title":"}"},"event" : "start","content-state" : {"content-available":1},"attributes":{}}}`, apns.PushTypeLiveActivity},

		// An alert.
		{`{"aps":{"alert":"a","content-available":1}}`, ""},
		{`{"aps":{"content-available":1,"alert":"a"}}`, ""},
		{`{"aps":{"content-available":1,"badge":0}}`, ""},
		{`{"aps":{"content-available":1,"\u0061lert":"a"}}`, ""},
		{`{"aps":{"content-available":0}}`, ""},
		{`{"aps":{"content-available":10}}`, ""},
		{`{"aps":{"content-available":"1"}}`, ""},
		{`{"aps":{"content-changed":true}}`, ""}, // widgets or controls
		// Not a key of aps.
		{`{"aps":{"alert":"a"},"content-available":1}`, ""},
		{`{"content-available":1}`, ""},
		{`{"aps":{"alert":"\"content-available\":1"}}`, ""},
		{`{"aps":{"alert":{"content-available":1}}}`, ""},
		{`{"aps":{"alert":"a"},"x":{"aps":{"content-available":1}}}`, ""},
		{`{"x":{"content-available":1},"aps":{}}`, ""},
		{`{"aps":[{"content-available":1}]}`, ""},
		{`["aps",{"content-available":1}]`, ""},
		{`{"aps":"content-available","content-available":1}`, ""},
		// An event, and a content-state, of the app's own.
		{`{"aps":{"alert":"a"},"event":"update","content-state":{}}`, ""},
		{`{"aps":{"alert":"a","event":"update"},"content-state":{}}`, ""},
		{`{"aps":{"alert":"a","content-state":{"event":"update"}}}`, ""},
		{`{"aps":{"alert":"event","content-state":{}}}`, ""},
		{`{"aps":{"alert":"a","event":"concert","content-state":{}}}`, ""},
		{`{"aps":{"alert":"a","event":"update","content-state":"open"}}`, ""},
		// Not clear, or no JSON.
		{`{"aps":{"content-available":1},"\u0061ps":{"alert":"a"}}`, ""},
		{`{"aps":{"event":"update","event":"concert","content-state":{}}}`, ""},
		{`{"aps":{"content-available":1},"aps":{"alert":"a"}}`, ""},
		{`{"aps":{"content-available":1}`, ""},
		{`{"aps":{"content-available":1`, ""},
		{`{"aps":{"content-available":`, ""},
		{`{"aps":{"content-available"`, ""},
		{`{"aps":{"content-available`, ""},
		{`"content-\`, ""},
		{`}{"content-`, ""},
	}
	s := inMemory(t, nil)
	conn := dialHTTP2(t, s.Config())
	client := http2Client(t, s.Config())
	for _, test := range tests {
		m := &apns.Message{Token: token, Payload: []byte(test.payload)}
		err := conn.WritePushMsg(t.Context(), m)
		_, pushed := client.Push(t.Context(), m)
		for _, err := range []error{err, pushed} {
			if test.want == "" {
				if err != nil && classes(err)[0] != "rejected" { // the server refuses what is no JSON
					t.Errorf("%s: got %v, want it sent", test.payload, err)
				}
				continue
			}
			wantClass(t, err, "invalid", apns.ReasonInvalidPushType)
			if want := `apns: push type is empty, expected "` + string(test.want) + `"`; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s:\ngot  %v\nwant %s", test.payload, err, want)
			}
		}
		m.PushType = apns.PushTypeLocation // the caller knows better
		if err := conn.WritePushMsg(t.Context(), m); err != nil && classes(err)[0] == "invalid" {
			t.Errorf("%s, with a push type: got %v, want it sent", test.payload, err)
		}
		if _, err := apns.BuildMsg(m); err != nil {
			t.Errorf("%s, on the binary protocol, which has no push type: got %v", test.payload, err)
		}
	}
}

// A payload is refused for a forgotten push type only if encoding/json finds the keys as well.
func FuzzForgottenPushType(f *testing.F) {
	s := apnstest.NewUnstartedServer(nil)
	s.InMemory = true
	s.Start()
	f.Cleanup(s.Close)
	conn, err := apns.Dial(f.Context(), apns.Production, s.Config())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	for _, payload := range []string{
		`{"aps":{"content-available":1}}`,
		`{"aps":{"event":"update","content-state":{"a":1}}}`,
		`{"a":["{",{"aps":{}}],"aps":{"content-available":1,"alert":"\\\""}}`,
		`{"aps":{"alert":"a"},"event":"end","content-state":{}}`,
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		err := conn.WritePushMsg(t.Context(), &apns.Message{Token: token, Payload: payload})
		if !errors.Is(err, apns.ErrInvalid) || !errors.Is(err, apns.ReasonInvalidPushType) || !json.Valid(payload) {
			return
		}
		var top, aps map[string]json.RawMessage
		if json.Unmarshal(payload, &top) != nil || json.Unmarshal(top["aps"], &aps) != nil {
			t.Fatalf("%s: got %v, and there is no aps", payload, err)
		}
		var event apns.ActivityEvent
		json.Unmarshal(aps["event"], &event)
		isEvent := event == apns.ActivityStart || event == apns.ActivityUpdate || event == apns.ActivityEnd
		isActivity := isEvent && strings.HasPrefix(string(aps["content-state"]), "{")
		isBackground := len(aps) == 1 && string(aps["content-available"]) == "1"
		if !isActivity && !isBackground {
			t.Fatalf("%s: got %v, want it sent", payload, err)
		}
	})
}
