package apns_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"example.com/apns"
)

const swiftDate = "expected seconds since the start of 2001 as a float64, which is what Swift's default decoder reads"

// Each rule of a payload, and what its error says.
func TestPayloadRefusals(t *testing.T) {
	start := func(change func(*apns.Payload)) *apns.Payload {
		p := started()
		change(p)
		return p
	}
	state := map[string]any{"a": 1}
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	custom := func(key string, v any) *apns.Payload { return &apns.Payload{Custom: map[string]any{key: v}} }
	tests := []struct {
		name string
		p    *apns.Payload
		want string // after "apns: payload: "
	}{
		{"volume low", &apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a", Volume: new(-0.5)}}, "volume is -0.5, expected 0 to 1"},
		{"volume high", &apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a", Volume: new(1.5)}}, "volume is 1.5, expected 0 to 1"},
		{"volume NaN", &apns.Payload{CriticalSound: &apns.CriticalSound{Name: "a", Volume: new(math.NaN())}}, "volume is NaN, expected 0 to 1"},
		{"two sounds", &apns.Payload{Sound: "ping", CriticalSound: &apns.CriticalSound{}},
			"sound and a critical sound are set, expected one of them"},
		{"relevance low", &apns.Payload{RelevanceScore: new(-0.5)}, "relevance-score is -0.5, expected 0 to 1 outside Live Activities"},
		{"relevance high", &apns.Payload{RelevanceScore: new(75.0)}, "relevance-score is 75, expected 0 to 1 outside Live Activities"},
		{"relevance NaN", &apns.Payload{RelevanceScore: new(math.NaN())}, "relevance-score is NaN, expected a number"},
		{"relevance infinite", start(func(p *apns.Payload) { p.RelevanceScore = new(math.Inf(-1)) }), "relevance-score is -Inf, expected a number"},

		{"no event", &apns.Payload{LiveActivity: &apns.LiveActivity{Timestamp: sentAt}}, `event is "", expected start, update or end`},
		{"event", start(func(p *apns.Payload) { p.LiveActivity.Event = "Start" }), `event is "Start", expected start, update or end`},
		{"no timestamp", start(func(p *apns.Payload) { p.LiveActivity.Timestamp = time.Time{} }),
			"timestamp is missing, expected one in a Live Activity"},
		{"start, no alert", start(func(p *apns.Payload) { p.Alert = apns.Alert{} }),
			`event is "start" without alert, expected alert, attributes-type, attributes, content-state`},
		{"start, empty alert", start(func(p *apns.Payload) { p.Alert = apns.Alert{Extra: map[string]any{}} }),
			`event is "start" without alert, expected alert, attributes-type, attributes, content-state`},
		{"start, no attributes-type", start(func(p *apns.Payload) { p.LiveActivity.AttributesType = "" }),
			`event is "start" without attributes-type, expected alert, attributes-type, attributes, content-state`},
		{"start, no attributes", start(func(p *apns.Payload) { p.LiveActivity.Attributes = nil }),
			`event is "start" without attributes, expected alert, attributes-type, attributes, content-state`},
		{"start, no content-state", start(func(p *apns.Payload) { p.LiveActivity.ContentState = nil }),
			`event is "start" without content-state, expected alert, attributes-type, attributes, content-state`},
		{"start, nothing", &apns.Payload{LiveActivity: &apns.LiveActivity{Event: "start", Timestamp: sentAt}},
			`event is "start" without alert, attributes-type, attributes, content-state, expected alert, attributes-type, attributes, content-state`},
		{"start, dismissal-date", start(func(p *apns.Payload) { p.LiveActivity.DismissalDate = sentAt }),
			`event is "start" with dismissal-date, expected dismissal-date only with "end"`},
		{"update, no content-state", updated(apns.LiveActivity{}), `event is "update" without content-state, expected content-state`},
		{"update, attributes-type", updated(apns.LiveActivity{ContentState: state, AttributesType: "Game"}),
			`event is "update" with attributes-type, expected attributes-type only with "start"`},
		{"update, attributes", updated(apns.LiveActivity{ContentState: state, Attributes: state}),
			`event is "update" with attributes, expected attributes only with "start"`},
		{"update, input-push-token", updated(apns.LiveActivity{ContentState: state, InputPushToken: true}),
			`event is "update" with input-push-token, expected input-push-token only with "start"`},
		{"update, input-push-channel", updated(apns.LiveActivity{ContentState: state, InputPushChannel: "YQ=="}),
			`event is "update" with input-push-channel, expected input-push-channel only with "start"`},
		{"update, dismissal-date", updated(apns.LiveActivity{ContentState: state, DismissalDate: sentAt}),
			`event is "update" with dismissal-date, expected dismissal-date only with "end"`},
		{"end, attributes-type", ended(apns.LiveActivity{AttributesType: "Game"}),
			`event is "end" with attributes-type, expected attributes-type only with "start"`},
		{"end, attributes", ended(apns.LiveActivity{Attributes: state}),
			`event is "end" with attributes, expected attributes only with "start"`},
		{"activity with a sound", &apns.Payload{LiveActivity: ended(apns.LiveActivity{}).LiveActivity, Sound: "ping"},
			"sound is set and alert is missing, expected both or neither in a Live Activity"},
		{"activity with content-changed", start(func(p *apns.Payload) { p.ContentChanged = true }),
			"content-changed is set and a Live Activity as well, expected one of them"},
		{"activity with two sounds", start(func(p *apns.Payload) { p.Sound, p.CriticalSound = "ping", &apns.CriticalSound{} }),
			"sound and a critical sound are set, expected one of them"},
		{"activity with two titles", start(func(p *apns.Payload) { p.Alert = apns.Alert{Title: "T", TitleLocKey: "K"} }),
			"title and title-loc-key are set, expected one of them in a Live Activity"},
		{"activity with two bodies", start(func(p *apns.Payload) { p.Alert = apns.Alert{Body: "B", LocKey: "K"} }),
			"body and loc-key are set, expected one of them in a Live Activity"},
		{"activity with title arguments", start(func(p *apns.Payload) { p.Alert.TitleLocArgs = []string{"a"} }),
			"title-loc-args is set and title-loc-key is missing, expected both or neither in a Live Activity"},
		{"activity with body arguments", start(func(p *apns.Payload) { p.Alert.LocArgs = []string{"a"} }),
			"loc-args is set and loc-key is missing, expected both or neither in a Live Activity"},
		{"content-state array", updated(apns.LiveActivity{ContentState: []int{1}}),
			"content-state is a []int, JSON that begins with '[', expected an object"},
		{"content-state null", updated(apns.LiveActivity{ContentState: map[string]any(nil)}),
			"content-state is a map[string]interface {}, JSON that begins with 'n', expected an object"},
		{"attributes string", start(func(p *apns.Payload) { p.LiveActivity.Attributes = "secret" }),
			`attributes is a string, JSON that begins with '"', expected an object`},
		{"content-state unencodable", updated(apns.LiveActivity{ContentState: map[string]any{"f": func() {}}}),
			"content-state: json: unsupported type: func()"},
		{"attributes unencodable", start(func(p *apns.Payload) { p.LiveActivity.Attributes = math.NaN() }), "attributes: json: unsupported value: NaN"},

		{"MDM and aps", &apns.Payload{MDM: "m", Badge: new(0), Sound: "a"}, "mdm is set and badge as well, expected mdm alone"},
		{"MDM and custom", &apns.Payload{MDM: "m", Custom: map[string]any{"b": 1, "a": 2}},
			`mdm is set and custom key "a" as well, expected mdm alone`},
		{"custom aps", custom("aps", map[string]any{}), `custom key is "aps", expected any but aps and mdm`},
		{"custom mdm", custom("mdm", "m"), `custom key is "mdm", expected any but aps and mdm`},
		{"custom unencodable", custom("a\nb", func() {}), `custom key "a\nb": json: unsupported type: func()`},

		{"interruption level", &apns.Payload{InterruptionLevel: "Active"},
			`interruption-level is "Active", expected passive, active, time-sensitive or critical`},
		{"badge", &apns.Payload{Badge: new(-1)}, "badge is -1, expected 0 or more"},
		{"critical sound without a name", &apns.Payload{CriticalSound: &apns.CriticalSound{}},
			`name of the critical sound is empty, expected a file or "default"`},

		{"extra badge", &apns.Payload{Extra: map[string]any{"badge": 1}}, `extra key of aps is "badge", expected only keys without a field`},
		{"extra event", &apns.Payload{Extra: map[string]any{"event": "end"}}, `extra key of aps is "event", expected only keys without a field`},
		{"extra alert", &apns.Payload{Extra: map[string]any{"b": 1, "alert": "a"}}, `extra key of aps is "alert", expected only keys without a field`},
		{"extra key not UTF-8", &apns.Payload{Extra: map[string]any{"a\xff": 1}}, `extra key of aps is "a\xff", expected UTF-8`},
		{"extra unencodable", &apns.Payload{Extra: map[string]any{"a": func() {}}}, `extra key of aps "a": json: unsupported type: func()`},
		{"extra title", &apns.Payload{Alert: apns.Alert{Extra: map[string]any{"title": "a"}}},
			`extra key of alert is "title", expected only keys without a field`},
		{"extra sound", start(func(p *apns.Payload) { p.Alert.Extra = map[string]any{"sound": "a"} }),
			`extra key of alert is "sound", expected only keys without a field`},
		{"extra loc-key", start(func(p *apns.Payload) { p.Alert.Extra = map[string]any{"loc-key": "a"} }),
			`extra key of alert is "loc-key", expected only keys without a field`},
		{"MDM and extra", &apns.Payload{MDM: "m", Extra: map[string]any{"a": 1}}, "mdm is set and a as well, expected mdm alone"},

		{"custom key twice in raw JSON", custom("a", raw(`{"b":[{"c":1,"d":{},"c":2}]}`)), `custom key "a": JSON has the key "c" twice in an object, expected once`},
		{"custom key twice, escaped", custom("a", []any{raw(`{"b":1,"\u0062":2}`)}), `custom key "a": JSON has the key "b" twice in an object, expected once`},
		{"custom keys that become one", custom("a", map[string]int{"\xff": 1, "\xfe": 2}), `custom key "a": JSON has the key "�" twice in an object, expected once`},
		{"custom key not UTF-8", custom("\xff", 1), `custom key is "\xff", expected UTF-8`},
		{"custom raw JSON not UTF-8", custom("a", raw("\"\xff\"")), `custom key "a": JSON has bytes that are not UTF-8, expected UTF-8`},
		{"custom raw JSON invalid", custom("a", raw(`{"b":}`)),
			`custom key "a": json: error calling MarshalJSON for type json.RawMessage: invalid character '}' looking for beginning of value`},
		{"content-state key twice", updated(apns.LiveActivity{ContentState: raw(`{"a":1,"a":1}`)}),
			`content-state: JSON has the key "a" twice in an object, expected once`},
		{"attributes not UTF-8", start(func(p *apns.Payload) { p.LiveActivity.Attributes = raw("{\"\xff\":1}") }),
			"attributes: JSON has bytes that are not UTF-8, expected UTF-8"},
		{"extra key twice", &apns.Payload{Extra: map[string]any{"a": raw(`{"b":1,"b":1}`)}},
			`extra key of aps "a": JSON has the key "b" twice in an object, expected once`},

		{"content-state with a time", updated(apns.LiveActivity{ContentState: map[string]any{"a": []any{struct {
			T *time.Time `json:"at"`
		}{new(time.Now())}}}}), "content-state.a.at is a time.Time, " + swiftDate},
		{"attributes with a time", start(func(p *apns.Payload) { p.LiveActivity.Attributes = struct{ Begins time.Time }{} }),
			"attributes.Begins is a time.Time, " + swiftDate},

		{"type alert", &apns.Payload{ContentAvailable: true, Type: apns.PushTypeAlert}, `type is "alert", expected "background" for a payload with these fields`},
		{"type background", &apns.Payload{ContentAvailable: true, Badge: new(1), Type: apns.PushTypeBackground},
			`type is "background", expected "alert" for a payload with these fields`},
		{"type background alone", &apns.Payload{Type: apns.PushTypeBackground, Custom: map[string]any{"a": 1}},
			`type is "background", expected content-available with it`},
		{"type background with a badge alone", &apns.Payload{Type: apns.PushTypeBackground, Badge: new(1)},
			`type is "background", expected "alert" for a payload with these fields`},
		{"type liveactivity", &apns.Payload{Type: apns.PushTypeLiveActivity}, `type is "liveactivity", expected a Live Activity with it`},
		{"type mdm alone", &apns.Payload{Type: apns.PushTypeMDM}, `type is "mdm", expected mdm with it`},
		{"type widgets", &apns.Payload{Type: apns.PushTypeWidgets, ContentAvailable: true}, `type is "widgets", expected content-changed with it`},
		{"type controls", &apns.Payload{Type: apns.PushTypeControls}, `type is "controls", expected content-changed with it`},
		{"type controls of a Live Activity", &apns.Payload{Type: apns.PushTypeControls, LiveActivity: &apns.LiveActivity{}, ContentChanged: true},
			`type is "controls", expected "liveactivity" for a payload with these fields`},
		{"type voip", &apns.Payload{ContentChanged: true, Type: apns.PushTypeVoIP}, `type is "voip", expected "widgets" for a payload with these fields`},
		{"type mdm", &apns.Payload{MDM: "m", Type: apns.PushTypeAlert}, `type is "alert", expected "mdm" for a payload with these fields`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.p.Encode()
			if want := "apns: payload: " + test.want; err == nil || err.Error() != want || got != nil {
				t.Errorf("\ngot  %s, %v\nwant %s", got, err, want)
			}
			if !errors.Is(err, apns.ErrInvalid) {
				t.Errorf("%v: it does not match ErrInvalid", err)
			}
			if b, err := json.Marshal(test.p); b != nil || !errors.Is(err, apns.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("json.Marshal: got %s, %v; want %s", b, err, test.want)
			}
			if m, err := test.p.Message(token); m != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Message: got %v, %v; want %s", m, err, test.want)
			}
			if errors.Is(err, apns.StatusInvalidPayloadSize) {
				t.Errorf("%v: it matches StatusInvalidPayloadSize, and is not about the size", err)
			}
		})
	}
}
