package apns_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"example.com/apns"
)

// A Message has what its type of push requires: "Sending notification requests to APNs".
func TestPayloadMessage(t *testing.T) {
	tests := []struct {
		name string
		p    apns.Payload
		want apns.Message
	}{
		{"alert", apns.Payload{Alert: apns.Alert{Body: "Hi"}},
			apns.Message{PushType: apns.PushTypeAlert, Payload: []byte(`{"aps":{"alert":{"body":"Hi"}}}`)}},
		{"alert that wakes up", apns.Payload{Alert: apns.Alert{Body: "Hi"}, ContentAvailable: true},
			apns.Message{PushType: apns.PushTypeAlert, Payload: []byte(`{"aps":{"alert":{"body":"Hi"},"content-available":1}}`)}},
		{"background", apns.Payload{ContentAvailable: true},
			apns.Message{PushType: apns.PushTypeBackground, Priority: apns.PriorityPowerSaving, Payload: []byte(`{"aps":{"content-available":1}}`)}},
		{"background, said", apns.Payload{ContentAvailable: true, Type: apns.PushTypeBackground},
			apns.Message{PushType: apns.PushTypeBackground, Priority: apns.PriorityPowerSaving, Payload: []byte(`{"aps":{"content-available":1}}`)}},
		{"Live Activity", *ended(apns.LiveActivity{}),
			apns.Message{PushType: apns.PushTypeLiveActivity, Payload: []byte(`{"aps":{"timestamp":1700000000,"event":"end"}}`)}},
		{"widgets", apns.Payload{ContentChanged: true},
			apns.Message{PushType: apns.PushTypeWidgets, Payload: []byte(`{"aps":{"content-changed":true}}`)}},
		{"controls", apns.Payload{ContentChanged: true, Type: apns.PushTypeControls},
			apns.Message{PushType: apns.PushTypeControls, Payload: []byte(`{"aps":{"content-changed":true}}`)}},
		{"MDM", apns.Payload{MDM: "m"}, apns.Message{PushType: apns.PushTypeMDM, Payload: []byte(`{"mdm":"m"}`)}},
		{"VoIP", apns.Payload{Type: apns.PushTypeVoIP, Custom: map[string]any{"a": 1}},
			apns.Message{PushType: apns.PushTypeVoIP, Payload: []byte(`{"aps":{},"a":1}`)}},
		{"location", apns.Payload{Type: apns.PushTypeLocation, ContentAvailable: true},
			apns.Message{PushType: apns.PushTypeLocation, Payload: []byte(`{"aps":{"content-available":1}}`)}},
		{"Push to Talk", apns.Payload{Type: apns.PushTypePushToTalk, Custom: map[string]any{"activeSpeaker": "Ann"}},
			apns.Message{PushType: apns.PushTypePushToTalk, Payload: []byte(`{"aps":{},"activeSpeaker":"Ann"}`)}},
		{"a later type", apns.Payload{Type: "later", Extra: map[string]any{"a": 1}},
			apns.Message{PushType: "later", Payload: []byte(`{"aps":{"a":1}}`)}},
	}
	s := inMemory(t, nil)
	config := s.TokenConfig()
	client := http2Client(t, config)
	for _, test := range tests {
		test.want.Token = token
		got, err := test.p.Message(token)
		if err != nil || !reflect.DeepEqual(got, &test.want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.name, got, err, &test.want)
			continue
		}
		if test.want.PushType == apns.PushTypeMDM || test.want.PushType == "later" {
			continue // its topic is not the app's; the server does not know it
		}
		if _, err := client.Push(t.Context(), got); err != nil {
			t.Errorf("%s: got %v, want it accepted", test.name, err)
		}
	}
}

// A Payload is for encoding only. The doc says so, and so does the error.
func TestPayloadUnmarshals(t *testing.T) {
	const want = "apns: a Payload cannot be unmarshalled, expected its JSON in Message.Payload as it is"
	for _, in := range []string{`{"aps":{"alert":"5ec7e7"}}`, `{}`, `"5ec7e7"`} {
		p := apns.Payload{ThreadID: "t"}
		if err := json.Unmarshal([]byte(in), &p); err == nil || err.Error() != want || p.ThreadID != "t" {
			t.Errorf("%s: got %v, %v; want %s, and the payload as it was", in, p, err, want)
		}
	}
}

// encoding/json marshals a Payload as Encode does, wherever it is.
func TestPayloadMarshals(t *testing.T) {
	p := apns.Payload{Alert: apns.Alert{Body: "A & B"}, MaxSize: 100}
	encoded, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(string(encoded), "&", `\u0026`) // json.Marshal's
	type nested struct {
		P apns.Payload
		Q *apns.Payload
		R any
	}
	for _, test := range []struct {
		v    any
		want string
	}{
		{p, want},
		{&p, want},
		{nested{p, &p, p}, fmt.Sprintf(`{"P":%s,"Q":%s,"R":%s}`, want, want, want)},
		{map[string]apns.Payload{"a": p}, `{"a":` + want + `}`},
		{[]apns.Payload{p}, `[` + want + `]`},
		{(*apns.Payload)(nil), "null"},
	} {
		if got, err := json.Marshal(test.v); err != nil || string(got) != test.want {
			t.Errorf("%T:\ngot  %s, %v\nwant %s", test.v, got, err, test.want)
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil || b.String() != string(encoded)+"\n" {
		t.Errorf("without escapes:\ngot  %s, %v\nwant %s", b.String(), err, encoded)
	}
}
