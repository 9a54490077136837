package apns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

var sentAt = time.Unix(1700000000, 999_999_999)

// started is the smallest Live Activity that starts.
func started() *apns.Payload {
	return &apns.Payload{
		Alert: apns.Alert{Title: "T"},
		LiveActivity: &apns.LiveActivity{
			Event:          apns.ActivityStart,
			Timestamp:      sentAt,
			ContentState:   map[string]any{},
			AttributesType: "Game",
			Attributes:     map[string]any{},
		},
	}
}

func startedWith(change func(*apns.LiveActivity)) *apns.Payload {
	p := started()
	change(p.LiveActivity)
	return p
}

func updated(l apns.LiveActivity) *apns.Payload {
	l.Event, l.Timestamp = apns.ActivityUpdate, sentAt
	return &apns.Payload{LiveActivity: &l}
}

func ended(l apns.LiveActivity) *apns.Payload {
	l.Event, l.Timestamp = apns.ActivityEnd, sentAt
	return &apns.Payload{LiveActivity: &l}
}

// Tables 1 to 3 of Apple's "Generating a remote notification", key by key.
func TestPayloadKeys(t *testing.T) {
	alert := func(a apns.Alert) *apns.Payload { return &apns.Payload{Alert: a} }
	tests := []struct {
		p    *apns.Payload
		want string // of aps
	}{
		{&apns.Payload{}, ``},

		// Table 2.
		{alert(apns.Alert{Title: "a"}), `"alert":{"title":"a"}`},
		{alert(apns.Alert{Subtitle: "a"}), `"alert":{"subtitle":"a"}`},
		{alert(apns.Alert{Body: "a"}), `"alert":{"body":"a"}`},
		{alert(apns.Alert{LaunchImage: "a"}), `"alert":{"launch-image":"a"}`},
		{alert(apns.Alert{TitleLocKey: "a"}), `"alert":{"title-loc-key":"a"}`},
		{alert(apns.Alert{TitleLocArgs: []string{"a", "b"}}), `"alert":{"title-loc-args":["a","b"]}`},
		{alert(apns.Alert{SubtitleLocKey: "a"}), `"alert":{"subtitle-loc-key":"a"}`},
		{alert(apns.Alert{SubtitleLocArgs: []string{"a"}}), `"alert":{"subtitle-loc-args":["a"]}`},
		{alert(apns.Alert{LocKey: "a"}), `"alert":{"loc-key":"a"}`},
		{alert(apns.Alert{LocArgs: []string{"a"}}), `"alert":{"loc-args":["a"]}`},
		{alert(apns.Alert{LocArgs: []string{}}), `"alert":{"loc-args":[]}`},
		{alert(apns.Alert{Action: "a"}), `"alert":{"action":"a"}`},

		// Table 1.
		{&apns.Payload{Badge: new(0)}, `"badge":0`},
		{&apns.Payload{Badge: new(7)}, `"badge":7`},
		{&apns.Payload{Sound: "default"}, `"sound":"default"`},
		{&apns.Payload{ThreadID: "a"}, `"thread-id":"a"`},
		{&apns.Payload{Category: "a"}, `"category":"a"`},
		{&apns.Payload{ContentAvailable: true}, `"content-available":1`},
		{&apns.Payload{MutableContent: true}, `"mutable-content":1`},
		{&apns.Payload{TargetContentID: "a"}, `"target-content-id":"a"`},
		{&apns.Payload{InterruptionLevel: apns.InterruptionPassive}, `"interruption-level":"passive"`},
		{&apns.Payload{InterruptionLevel: apns.InterruptionActive}, `"interruption-level":"active"`},
		{&apns.Payload{InterruptionLevel: apns.InterruptionTimeSensitive}, `"interruption-level":"time-sensitive"`},
		{&apns.Payload{InterruptionLevel: apns.InterruptionCritical}, `"interruption-level":"critical"`},
		{&apns.Payload{RelevanceScore: new(0.0)}, `"relevance-score":0`},
		{&apns.Payload{RelevanceScore: new(0.25)}, `"relevance-score":0.25`},
		{&apns.Payload{RelevanceScore: new(1.0)}, `"relevance-score":1`},
		{&apns.Payload{FilterCriteria: "a"}, `"filter-criteria":"a"`},

		// Table 3.
		{&apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a"}}, `"sound":{"critical":1,"name":"a"}`},
		{&apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a", Volume: new(0.0)}}, `"sound":{"critical":1,"name":"a","volume":0}`},
		{&apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a", Volume: new(1.0)}}, `"sound":{"critical":1,"name":"a","volume":1}`},

		// Table 1, Live Activities; and "Starting and updating Live Activities
		// with ActivityKit push notifications".
		{updated(apns.LiveActivity{ContentState: struct{ Score int }{3}}),
			`"timestamp":1700000000,"event":"update","content-state":{"Score":3}`},
		{updated(apns.LiveActivity{ContentState: json.RawMessage(` { "a" : 1 } `)}),
			`"timestamp":1700000000,"event":"update","content-state":{"a":1}`},
		{updated(apns.LiveActivity{ContentState: map[string]any{}, StaleDate: time.Unix(0, 0)}),
			`"timestamp":1700000000,"event":"update","content-state":{},"stale-date":0`},
		{startedWith(func(l *apns.LiveActivity) { l.Attributes = map[string]int{"b": 2, "a": 1} }),
			`"alert":{"title":"T"},"timestamp":1700000000,"event":"start","content-state":{},"attributes-type":"Game","attributes":{"a":1,"b":2}`},
		{startedWith(func(l *apns.LiveActivity) { l.InputPushToken = true }),
			`"alert":{"title":"T"},"timestamp":1700000000,"event":"start","content-state":{},"attributes-type":"Game","attributes":{},"input-push-token":1`},
		{startedWith(func(l *apns.LiveActivity) { l.InputPushChannel = "YQ==" }),
			`"alert":{"title":"T"},"timestamp":1700000000,"event":"start","content-state":{},"attributes-type":"Game","attributes":{},"input-push-channel":"YQ=="`},
		{ended(apns.LiveActivity{}), `"timestamp":1700000000,"event":"end"`},
		{ended(apns.LiveActivity{DismissalDate: time.Unix(1700000001, 0).UTC()}),
			`"timestamp":1700000000,"event":"end","dismissal-date":1700000001`},
		{&apns.Payload{LiveActivity: ended(apns.LiveActivity{}).LiveActivity, RelevanceScore: new(-75.0)},
			`"relevance-score":-75,"timestamp":1700000000,"event":"end"`},

		// Keys without a field.
		{&apns.Payload{Extra: map[string]any{"z": 1, "a": []int{}}, Badge: new(1)}, `"badge":1,"a":[],"z":1`},
		{&apns.Payload{Extra: map[string]any{"z": "&"}}, `"z":"&"`},
		{&apns.Payload{Extra: map[string]any{}}, ``},
		{alert(apns.Alert{Extra: map[string]any{"summary-arg-count": 2}, Body: "b"}), `"alert":{"body":"b","summary-arg-count":2}`},
		{alert(apns.Alert{Extra: map[string]any{"sound": "s"}}), `"alert":{"sound":"s"}`}, // only in a Live Activity has it a field
		{alert(apns.Alert{Extra: map[string]any{}}), ``},
		{&apns.Payload{LiveActivity: ended(apns.LiveActivity{}).LiveActivity, Sound: "s", Alert: apns.Alert{Extra: map[string]any{"a": 1}}},
			`"alert":{"sound":"s","a":1},"timestamp":1700000000,"event":"end"`},

		// "Updating widgets with WidgetKit push notifications".
		{&apns.Payload{ContentChanged: true}, `"content-changed":true`},
		// "Configuring Safari Push Notifications".
		{&apns.Payload{URLArgs: []string{}}, `"url-args":[]`},
		{&apns.Payload{URLArgs: []string{"a", "b"}}, `"url-args":["a","b"]`},
		// In no page of Apple's: what its mail servers send.
		{&apns.Payload{AccountID: "a"}, `"account-id":"a"`},
	}
	for _, test := range tests {
		got, err := test.p.Encode()
		if want := `{"aps":{` + test.want + `}}`; err != nil || string(got) != want {
			t.Errorf("%+v:\ngot  %s, %v\nwant %s", test.p, got, err, want)
		}
	}
}

// Whole payloads of every kind, and the push type that each calls for. The other side agrees:
// apnstest.Check finds no rule that they break.
func TestGoldenPayloads(t *testing.T) {
	tests := []struct {
		name     string
		p        apns.Payload
		pushType apns.PushType
		want     string
	}{
		// "Generating a remote notification".
		{"alert", apns.Payload{
			Alert:             apns.Alert{Title: "Game Request", Subtitle: "Five Card Draw", Body: "Bob wants to play poker"},
			Badge:             new(9),
			Sound:             "bingbong.aiff",
			ThreadID:          "poker",
			Category:          "GAME_INVITATION",
			InterruptionLevel: apns.InterruptionTimeSensitive,
			RelevanceScore:    new(0.5),
			Custom:            map[string]any{"gameID": "12345678"},
		}, apns.PushTypeAlert, `{
			"aps": {
				"alert": {"title": "Game Request", "subtitle": "Five Card Draw", "body": "Bob wants to play poker"},
				"badge": 9,
				"sound": "bingbong.aiff",
				"thread-id": "poker",
				"category": "GAME_INVITATION",
				"interruption-level": "time-sensitive",
				"relevance-score": 0.5
			},
			"gameID": "12345678"
		}`},
		{"localized alert", apns.Payload{
			Alert: apns.Alert{
				TitleLocKey: "REQUEST", SubtitleLocKey: "OF_%@", SubtitleLocArgs: []string{"Bob"},
				LocKey: "GAME_PLAY_REQUEST_FORMAT", LocArgs: []string{"Shelly", "Rick"}, LaunchImage: "table.png",
			},
			MutableContent: true,
		}, apns.PushTypeAlert, `{
			"aps": {
				"alert": {
					"title-loc-key": "REQUEST",
					"subtitle-loc-key": "OF_%@",
					"subtitle-loc-args": ["Bob"],
					"loc-key": "GAME_PLAY_REQUEST_FORMAT",
					"loc-args": ["Shelly", "Rick"],
					"launch-image": "table.png"
				},
				"mutable-content": 1
			}
		}`},
		{"critical alert", apns.Payload{
			Alert:             apns.Alert{Title: "Smoke", Body: "In the kitchen"},
			CriticalSound:     &apns.CriticalSound{Name: "alarm.caf", Volume: new(0.75)},
			InterruptionLevel: apns.InterruptionCritical,
		}, apns.PushTypeAlert, `{
			"aps": {
				"alert": {"title": "Smoke", "body": "In the kitchen"},
				"sound": {"critical": 1, "name": "alarm.caf", "volume": 0.75},
				"interruption-level": "critical"
			}
		}`},
		// "Pushing background updates to your App".
		{"background", apns.Payload{
			ContentAvailable: true,
			Custom:           map[string]any{"acme2": []int{5, 8}, "acme1": "bar"},
			MaxSize:          apns.MaxBinaryPayload,
		}, apns.PushTypeBackground, `{
			"aps": {"content-available": 1},
			"acme1": "bar",
			"acme2": [5, 8]
		}`},
		// The key beside an alert is no background push.
		{"alert that wakes up", apns.Payload{
			Alert:            apns.Alert{Body: "Hi"},
			ContentAvailable: true,
		}, apns.PushTypeAlert, `{
			"aps": {"alert": {"body": "Hi"}, "content-available": 1}
		}`},
		// "Starting and updating Live Activities with ActivityKit push
		// notifications".
		{"Live Activity start", apns.Payload{
			Alert: apns.Alert{
				TitleLocKey: "%@ is on an adventure!", TitleLocArgs: []string{"Power Panda"},
				LocKey: "HEALTH", LocArgs: []string{},
			},
			Sound: "chime.aiff",
			LiveActivity: &apns.LiveActivity{
				Event:          "start",
				Timestamp:      time.Unix(1234, 0),
				ContentState:   map[string]any{"currentHealthLevel": 100, "eventDescription": "Begins"},
				AttributesType: "AdventureAttributes",
				Attributes:     map[string]any{"currentHealthLevel": 100},
				InputPushToken: true,
			},
		}, apns.PushTypeLiveActivity, `{
			"aps": {
				"alert": {
					"title": {"loc-key": "%@ is on an adventure!", "loc-args": ["Power Panda"]},
					"body": {"loc-key": "HEALTH", "loc-args": []},
					"sound": "chime.aiff"
				},
				"timestamp": 1234,
				"event": "start",
				"content-state": {"currentHealthLevel": 100, "eventDescription": "Begins"},
				"attributes-type": "AdventureAttributes",
				"attributes": {"currentHealthLevel": 100},
				"input-push-token": 1
			}
		}`},
		{"Live Activity update", apns.Payload{
			Alert:          apns.Alert{Title: "Delivery", Subtitle: "Today", LocKey: "NEAR"},
			CriticalSound:  &apns.CriticalSound{Name: "bell"},
			RelevanceScore: new(100.0),
			LiveActivity: &apns.LiveActivity{
				Event:        "update",
				Timestamp:    time.Unix(1234, 0),
				ContentState: map[string]any{"stopsAway": 1},
				StaleDate:    time.Unix(1650998941, 0),
			},
			ContentAvailable: true,
		}, apns.PushTypeLiveActivity, `{
			"aps": {
				"alert": {"title": "Delivery", "body": {"loc-key": "NEAR"}, "subtitle": "Today", "sound": {"critical": 1, "name": "bell"}},
				"content-available": 1,
				"relevance-score": 100,
				"timestamp": 1234,
				"event": "update",
				"content-state": {"stopsAway": 1},
				"stale-date": 1650998941
			}
		}`},
		{"Live Activity end", apns.Payload{
			LiveActivity: &apns.LiveActivity{
				Event:         "end",
				Timestamp:     time.Unix(1234, 0),
				ContentState:  map[string]any{"stopsAway": 0},
				DismissalDate: time.Unix(1663177260, 0),
			},
		}, apns.PushTypeLiveActivity, `{
			"aps": {
				"timestamp": 1234,
				"event": "end",
				"content-state": {"stopsAway": 0},
				"dismissal-date": 1663177260
			}
		}`},
		// "Updating widgets with WidgetKit push notifications".
		{"widget", apns.Payload{ContentChanged: true, ContentAvailable: true}, apns.PushTypeWidgets, `{
			"aps": {"content-available": 1, "content-changed": true}
		}`},
		// In no page of Apple's that could be read: what its servers take.
		{"MDM", apns.Payload{MDM: "5a2b1c9e-PushMagic"}, apns.PushTypeMDM, `{"mdm": "5a2b1c9e-PushMagic"}`},
		// "Configuring Safari Push Notifications".
		{"Safari", apns.Payload{
			Alert:   apns.Alert{Title: "Flight A998 Now Boarding", Body: "Boarding has begun", Action: "View"},
			URLArgs: []string{"boarding", "A998"},
		}, apns.PushTypeAlert, `{
			"aps": {
				"alert": {"title": "Flight A998 Now Boarding", "body": "Boarding has begun", "action": "View"},
				"url-args": ["boarding", "A998"]
			}
		}`},
		{"own keys only, as for VoIP", apns.Payload{
			Custom: map[string]any{"caller": map[string]any{"name": "Ann", "id": nil}},
		}, apns.PushTypeAlert, `{"aps": {}, "caller": {"id": null, "name": "Ann"}}`},
	}
	findings := map[string]string{
		// An app's own keys have an effect with a type that only the app knows, as voip.
		"own keys only, as for VoIP": "aps has no effect, expected alert, badge or sound with push type alert",
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var want bytes.Buffer
			if err := json.Compact(&want, []byte(test.want)); err != nil {
				t.Fatal(err)
			}
			for range 3 { // maps have no order
				got, err := test.p.Encode()
				if err != nil || string(got) != want.String() {
					t.Errorf("Encode:\ngot  %s, %v\nwant %s", got, err, want.String())
				}
			}
			if got := test.p.PushType(); got != test.pushType {
				t.Errorf("PushType: got %q, want %q", got, test.pushType)
			}
			m, err := test.p.Message(token)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, f := range apnstest.Check(m) {
				found = append(found, f.Field+" "+f.Rule)
			}
			if got := strings.Join(found, "; "); got != findings[test.name] {
				t.Errorf("Check: got %q, want %q", got, findings[test.name])
			}
		})
	}
}

// Only content-available alone makes a background push ("Pushing background
// updates to your App"): each other field of the payload that shows in aps
// changes the type.
func TestPushTypeOfEveryField(t *testing.T) {
	all := apns.Payload{
		Alert: apns.Alert{LocArgs: []string{}}, Badge: new(0), Sound: "a", CriticalSound: new(apns.CriticalSound),
		ThreadID: "a", Category: "a", MutableContent: true, TargetContentID: "a", InterruptionLevel: "a",
		RelevanceScore: new(0.0), FilterCriteria: "a", LiveActivity: new(apns.LiveActivity), ContentChanged: true,
		URLArgs: []string{}, AccountID: "a", MDM: "a", Extra: map[string]any{"a": 1}, Type: "a",
		ContentAvailable: true, Custom: map[string]any{"a": 1}, MaxSize: 1, ShortenBody: true,
	}
	want := map[string]apns.PushType{
		"LiveActivity": apns.PushTypeLiveActivity, "ContentChanged": apns.PushTypeWidgets, "MDM": apns.PushTypeMDM,
		"ContentAvailable": apns.PushTypeBackground, "Custom": apns.PushTypeBackground,
		"MaxSize": apns.PushTypeBackground, "ShortenBody": apns.PushTypeBackground, "Type": "a",
	}
	from := reflect.ValueOf(all)
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		if from.Field(i).IsZero() {
			t.Errorf("%s: this test does not set it", name)
		}
		p := &apns.Payload{ContentAvailable: true}
		reflect.ValueOf(p).Elem().Field(i).Set(from.Field(i))
		wanted, ok := want[name]
		if !ok {
			wanted = apns.PushTypeAlert
		}
		if got := p.PushType(); got != wanted {
			t.Errorf("content-available and %s: got %q, want %q", name, got, wanted)
		}
	}
	// A map without keys is as good as none.
	for name, p := range map[string]*apns.Payload{
		"Extra":       {ContentAvailable: true, Extra: map[string]any{}},
		"Alert.Extra": {ContentAvailable: true, Alert: apns.Alert{Extra: map[string]any{}}},
	} {
		m, err := p.Message(token)
		if err != nil || m.PushType != apns.PushTypeBackground || string(m.Payload) != `{"aps":{"content-available":1}}` {
			t.Errorf("content-available and an empty %s: got %+v, %v; want a background push", name, m, err)
		}
	}
	all.Type = ""
	if got := all.PushType(); got != apns.PushTypeMDM {
		t.Errorf("all at once: got %q, want mdm", got)
	}
}

// The values are from the table in Apple's "Sending notification requests to
// APNs".
func TestPushTypes(t *testing.T) {
	for got, want := range map[apns.PushType]string{
		apns.PushTypeAlert:        "alert",
		apns.PushTypeBackground:   "background",
		apns.PushTypeLocation:     "location",
		apns.PushTypeVoIP:         "voip",
		apns.PushTypeComplication: "complication",
		apns.PushTypeFileProvider: "fileprovider",
		apns.PushTypeMDM:          "mdm",
		apns.PushTypeLiveActivity: "liveactivity",
		apns.PushTypePushToTalk:   "pushtotalk",
		apns.PushTypeWidgets:      "widgets",
		apns.PushTypeControls:     "controls",
	} {
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What encoding/json writes, and will not read again, is an error.
func TestPayloadTooDeep(t *testing.T) {
	state := map[string]any{}
	for range 10_000 {
		state = map[string]any{"a": state}
	}
	got, err := updated(apns.LiveActivity{ContentState: state}).Encode()
	if err == nil || !strings.HasPrefix(err.Error(), "apns: payload: ") {
		t.Errorf("got %d bytes, %v; want an error that begins with apns: payload:", len(got), err)
	}
}

// 4096 bytes, and 5120 for VoIP: Apple's "Generating a remote notification".
func TestPayloadSizes(t *testing.T) {
	tests := []struct {
		name    string
		limit   int
		payload func(filler string) *apns.Payload
	}{
		{"alert", 4096, func(s string) *apns.Payload { return &apns.Payload{Alert: apns.Alert{Body: s}} }},
		{"background", 4096, func(s string) *apns.Payload {
			return &apns.Payload{ContentAvailable: true, Custom: map[string]any{"a": s}}
		}},
		{"Live Activity", 4096, func(s string) *apns.Payload {
			return updated(apns.LiveActivity{ContentState: map[string]any{"a": s}})
		}},
		{"MDM", 4096, func(s string) *apns.Payload { return &apns.Payload{MDM: s} }},
		{"VoIP", 5120, func(s string) *apns.Payload {
			return &apns.Payload{Custom: map[string]any{"a": s}, Type: apns.PushTypeVoIP}
		}},
		{"broadcast", 5120, func(s string) *apns.Payload {
			p := updated(apns.LiveActivity{ContentState: map[string]any{"a": s}})
			p.MaxSize = apns.MaxVoIPPayload
			return p
		}},
		{"VoIP on the binary protocol", 2048, func(s string) *apns.Payload {
			return &apns.Payload{Custom: map[string]any{"a": s}, Type: apns.PushTypeVoIP, MaxSize: apns.MaxBinaryPayload}
		}},
		{"binary protocol", 2048, func(s string) *apns.Payload {
			return &apns.Payload{Alert: apns.Alert{Body: s}, MaxSize: apns.MaxBinaryPayload}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			least, err := test.payload("x").Encode()
			if err != nil {
				t.Fatal(err)
			}
			most := test.limit - len(least) + 1
			got, err := test.payload(strings.Repeat("x", most)).Encode()
			if err != nil || len(got) != test.limit {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, test.limit)
			}
			got, err = test.payload(strings.Repeat("x", most+1)).Encode()
			want := fmt.Sprintf("apns: payload has %d bytes, expected at most %d", test.limit+1, test.limit)
			if test.payload("").Alert.Body != test.payload("x").Alert.Body {
				want += " (ShortenBody shortens the text)"
			}
			if got != nil || err == nil || err.Error() != want || !errors.Is(err, apns.StatusInvalidPayloadSize) {
				t.Errorf("got %d bytes, %v; want %s", len(got), err, want)
			}
			if _, ok := errors.AsType[*apns.PushError](err); ok {
				t.Errorf("%v: a PushError, which only a server sends", err)
			}
		})
	}
	if apns.MaxPayload != 4096 || apns.MaxVoIPPayload != 5120 {
		t.Errorf("got limits of %d and %d, want 4096 and 5120", apns.MaxPayload, apns.MaxVoIPPayload)
	}
}

// Texts arrive as they are, in as few bytes as JSON allows, wherever they stand.
func TestPayloadTexts(t *testing.T) {
	tests := []struct{ text, want string }{
		{"Grüße, 世界 🎉", `"Grüße, 世界 🎉"`},
		{"<b>AT&T</b>", `"<b>AT&T</b>"`},
		{"a\"b\\c\n\x00", `"a\"b\\c\n\u0000"`},
		{"a\u2028b", `"a\u2028b"`},
		{"a\xffb", `"a\ufffdb"`},
	}
	for _, test := range tests {
		p := started()
		p.Alert = apns.Alert{Title: test.text, LocKey: test.text, LocArgs: []string{test.text}}
		p.LiveActivity.ContentState = map[string]string{"s": test.text}
		p.Custom = map[string]any{strings.ToValidUTF8(test.text, "\ufffd"): []string{test.text}}
		got, err := p.Encode()
		want := strings.ReplaceAll(`{"aps":{"alert":{"title":$,"body":{"loc-key":$,"loc-args":[$]}},"timestamp":1700000000,`+
			`"event":"start","content-state":{"s":$},"attributes-type":"Game","attributes":{}},@:[$]}`, "$", test.want)
		want = strings.ReplaceAll(want, "@", strings.ReplaceAll(test.want, `\ufffd`, "\ufffd"))
		if err != nil || string(got) != want {
			t.Errorf("%q:\ngot  %s, %v\nwant %s", test.text, got, err, want)
		}

		var back struct {
			APS struct{ Alert struct{ Title string } }
		}
		if err := json.Unmarshal(got, &back); err != nil {
			t.Errorf("%q: %v", test.text, err)
		}
		if text := strings.ToValidUTF8(test.text, "\ufffd"); back.APS.Alert.Title != text {
			t.Errorf("got %q, want %q", back.APS.Alert.Title, text)
		}
	}
}

// A receiver's view: what encoding/json reads is what was put in. And Encode
// leaves the payload as it was.
func TestPayloadRoundTrip(t *testing.T) {
	p := &apns.Payload{
		Alert:          apns.Alert{Title: "T", Body: "B", TitleLocKey: "K", TitleLocArgs: []string{"x", "y"}},
		Badge:          new(3),
		CriticalSound:  &apns.CriticalSound{Name: "s", Volume: new(0.5)},
		RelevanceScore: new(1e-7),
		MutableContent: true,
		ContentChanged: true,
		URLArgs:        []string{},
		Custom:         map[string]any{"n": 1.5, "deep": map[string]any{"a": []any{nil, true, "<>"}}},
	}
	before := fmt.Sprintf("%+v", *p)
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprintf("%+v", *p); after != before {
		t.Errorf("Encode changed the payload:\ngot  %s\nwant %s", after, before)
	}
	var got any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"aps": map[string]any{
			"alert":           map[string]any{"title": "T", "body": "B", "title-loc-key": "K", "title-loc-args": []any{"x", "y"}},
			"badge":           3.0,
			"sound":           map[string]any{"critical": 1.0, "name": "s", "volume": 0.5},
			"relevance-score": 1e-7,
			"mutable-content": 1.0,
			"content-changed": true,
			"url-args":        []any{},
		},
		"n":    1.5,
		"deep": map[string]any{"a": []any{nil, true, "<>"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\ngot  %v\nwant %v", got, want)
	}
}
