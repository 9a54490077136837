package apns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
)

// fullMessage has each field that is part of the JSON form.
func fullMessage() apns.Message {
	return apns.Message{
		ID:         7,
		Token:      "00c0ffee",
		Channel:    "AAAA",
		Payload:    []byte(`{"aps":{"alert":"Tom & Jerry <3"}}`),
		Expiry:     time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
		Priority:   apns.PriorityPowerSaving,
		Topic:      "com.example.app",
		PushType:   apns.PushTypeAlert,
		CollapseID: "score",
		APNsID:     "123e4567-e89b-12d3-a456-4266554400a0",
	}
}

func TestMessageJSON(t *testing.T) {
	tests := []struct {
		name string
		m    apns.Message
		want string
	}{
		{"all fields", fullMessage(), `{"id":7,"token":"00c0ffee","channel":"AAAA","payload":{"aps":{"alert":"Tom \u0026 Jerry \u003c3"}},"expiry":"2026-11-30T12:00:00Z","priority":5,` +
			`"topic":"com.example.app","push_type":"alert","collapse_id":"score","apns_id":"123e4567-e89b-12d3-a456-4266554400a0"}`},
		{"none", apns.Message{}, `{}`},
		{"now or never", apns.Message{Expiry: time.Unix(0, 0).UTC()}, `{"expiry":"1970-01-01T00:00:00Z"}`},
		{"before 1970", apns.Message{Expiry: time.Unix(-1, 0).UTC()}, `{"expiry":"1969-12-31T23:59:59Z"}`},
		{"a fraction of a second", apns.Message{Expiry: time.Unix(1, 5).UTC()}, `{"expiry":"1970-01-01T00:00:01.000000005Z"}`},
		{"any priority", apns.Message{Priority: 255}, `{"priority":255}`},
		{"largest ID", apns.Message{ID: 1<<32 - 1}, `{"id":4294967295}`},
		{"empty payload object", apns.Message{Payload: []byte("{}")}, `{"payload":{}}`},
		{"large number", apns.Message{Payload: []byte(`{"a":12345678901234567890.10,"a":1e999}`)}, `{"payload":{"a":12345678901234567890.10,"a":1e999}}`},
	}
	for _, test := range tests {
		got, err := json.Marshal(test.m)
		if err != nil || string(got) != test.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", test.name, got, err, test.want)
		}
		if ptr, err := json.Marshal(map[string]*apns.Message{"m": &test.m}); string(ptr) != `{"m":`+test.want+`}` {
			t.Errorf("%s, by pointer in a map:\ngot  %s, %v", test.name, ptr, err)
		}
		back := fullMessage() // nothing of it may stay
		if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, test.m) {
			t.Errorf("%s: read back:\ngot  %+v, %v\nwant %+v", test.name, back, err, test.m)
		}
	}
}

// A new field of Message gets into its JSON form, or into the list here.
func TestMessageJSONHasEachField(t *testing.T) {
	notInJSON := []string{"Value"}
	m := fullMessage()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back apns.Message
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	from, to := reflect.ValueOf(m), reflect.ValueOf(back)
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		switch {
		case slices.Contains(notInJSON, name):
		case from.Field(i).IsZero():
			t.Errorf("%s: fullMessage does not set it", name)
		case !reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()):
			t.Errorf("%s: got %v, want %v", name, to.Field(i), from.Field(i))
		}
	}
}

// A time is the same instant in any zone. It reads back in UTC.
func TestMessageJSONZone(t *testing.T) {
	for _, zone := range []*time.Location{time.FixedZone("", 5*3600+1800), time.FixedZone("", 1), time.Local} {
		m := apns.Message{Expiry: time.Date(2026, 11, 30, 12, 0, 0, 0, zone)}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back apns.Message
		if err := json.Unmarshal(b, &back); err != nil || back.Expiry != m.Expiry.UTC() {
			t.Errorf("%v: got %v, %v; want %v", zone, back.Expiry, err, m.Expiry.UTC())
		}
	}
	var m apns.Message
	if err := json.Unmarshal([]byte(`{"expiry":"2026-11-30T12:00:00+02:00"}`), &m); err != nil || m.Expiry != time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC) {
		t.Errorf("got %v, %v; want 10:00 in UTC", m.Expiry, err)
	}
}

func TestMessageJSONInvalid(t *testing.T) {
	const secret = "5ec7e7"
	for name, test := range map[string]struct {
		m    apns.Message
		said error
		want string
	}{
		"payload in text":    {apns.Message{Payload: []byte(secret + "!")}, apns.ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"},
		"payload cut short":  {apns.Message{Payload: []byte(`{"a":"` + secret)}, apns.ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"},
		"two payloads":       {apns.Message{Payload: []byte(`{}{}`)}, apns.ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"},
		"payload of a blank": {apns.Message{Payload: []byte(" ")}, apns.ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"},
		"payload in Latin-1": {apns.Message{Payload: []byte("{\"a\":\"\xff\"}")}, apns.ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"},
		"payload null":       {apns.Message{Payload: []byte("null")}, apns.ReasonBadRequestPayload, "payload is null, expected a JSON object"},
		"payload string":     {apns.Message{Payload: []byte(` "` + secret + `"`)}, apns.ReasonBadRequestPayload, "payload is a string, expected a JSON object"},
		"payload number":     {apns.Message{Payload: []byte("-1")}, apns.ReasonBadRequestPayload, "payload is a number, expected a JSON object"},
		"payload boolean":    {apns.Message{Payload: []byte("false")}, apns.ReasonBadRequestPayload, "payload is a boolean, expected a JSON object"},
		"payload array":      {apns.Message{Payload: []byte("\t[{}]")}, apns.ReasonBadRequestPayload, "payload is an array, expected a JSON object"},
		"token":              {apns.Message{Token: secret + "\xff"}, apns.StatusInvalidToken, "token is not UTF-8, expected UTF-8"},
		"topic":              {apns.Message{Topic: "\xff"}, apns.ReasonBadTopic, "topic is not UTF-8, expected UTF-8"},
		"push type":          {apns.Message{PushType: "\xff"}, apns.ReasonInvalidPushType, "push type is not UTF-8, expected UTF-8"},
		"collapse ID":        {apns.Message{CollapseID: "\xff"}, apns.ReasonBadCollapseID, "collapse ID is not UTF-8, expected UTF-8"},
		"APNs ID":            {apns.Message{APNsID: "\xff"}, apns.ReasonBadMessageID, "APNs ID is not UTF-8, expected UTF-8"},
		"late":               {apns.Message{Expiry: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, apns.ReasonBadExpirationDate, "expiry is in the year 10000, expected 0 to 9999"},
		"early":              {apns.Message{Expiry: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}, apns.ReasonBadExpirationDate, "expiry is in the year -1, expected 0 to 9999"},
	} {
		b, err := json.Marshal([]any{test.m})
		if b != nil || !errors.Is(err, apns.ErrInvalid) || !errors.Is(err, test.said) {
			t.Errorf("%s: got %s, %v; want ErrInvalid and %v", name, b, err, test.said)
		}
		if want := "json: error calling MarshalJSON for type apns.Message: apns: " + test.want; fmt.Sprint(err) != want {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, want)
		}
		if strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%s: %v has the token or the payload in it", name, err)
		}
	}
}

func TestMessageJSONRead(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                    "apns: message: it is an array, expected an object",
		`"5ec7e7"`:              "apns: message: it is a string, expected an object",
		`5`:                     "apns: message: it is a number, expected an object",
		`{"id":-1}`:             "apns: message: id is -1, expected an integer from 0 to 4294967295",
		`{"id":4294967296}`:     "apns: message: id is 4294967296, expected an integer from 0 to 4294967295",
		`{"id":55555555555}`:    "apns: message: id is a number of 11 characters, expected an integer from 0 to 4294967295",
		`{"priority":256}`:      "apns: message: priority is 256, expected an integer from 0 to 255",
		`{"priority":1.5}`:      "apns: message: priority is 1.5, expected an integer from 0 to 255",
		`{"priority":"5ec7e7"}`: "apns: message: priority is a string, expected a number",
		`{"priority":true}`:     "apns: message: priority is a boolean, expected a number",
		`{"token":["5ec7e7"]}`:  "apns: message: token is an array, expected a string",
		`{"topic":{"a":1}}`:     "apns: message: topic is an object, expected a string",
		`{"push_type":7}`:       "apns: message: push_type is a number, expected a string",
		`{"expiry":"5ec7e7"}`:   `apns: message: expiry is no RFC 3339 time in quotes, expected one as "2026-11-30T12:00:00Z"`,
		`{"expiry":1764504000}`: `apns: message: expiry is no RFC 3339 time in quotes, expected one as "2026-11-30T12:00:00Z"`,
		`{"payload":"5ec7e7"}`:  "apns: payload is a string, expected a JSON object",
		`{"payload":555}`:       "apns: payload is a number, expected a JSON object",
		`{"payload":[{}]}`:      "apns: payload is an array, expected a JSON object",
		`{"payload":true}`:      "apns: payload is a boolean, expected a JSON object",

		"{\"payload\":{\"a\":\"5ec7e7\xff\"}}": "apns: payload is not UTF-8, expected a JSON object in UTF-8",
	} {
		m := fullMessage()
		err := json.Unmarshal([]byte(in), &m)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", in, err, want)
		}
		if isPayload := strings.Contains(in, "payload"); errors.Is(err, apns.ErrInvalid) != isPayload || errors.Is(err, apns.ReasonBadRequestPayload) != isPayload {
			t.Errorf("%s: %v matches ErrInvalid and ReasonBadRequestPayload: %v, want %v", in, err, !isPayload, isPayload)
		}
		if !reflect.DeepEqual(m, fullMessage()) {
			t.Errorf("%s: the message became %+v, want it unchanged", in, m)
		}
	}
	var m apns.Message
	if err := json.Unmarshal([]byte(`{"token":"ab","added_later":{"a":1}}`), &m); err != nil || m.Token != "ab" {
		t.Errorf("got %v, %v; want an unknown field ignored", m, err)
	}
	if err := json.Unmarshal([]byte(`null`), &m); err != nil || m.Token != "ab" {
		t.Errorf("got %v, %v; want the message as it was before null", m, err)
	}
	m.Payload, m.Expiry = []byte("{}"), time.Unix(1, 0)
	if err := json.Unmarshal([]byte(`{"payload": null, "expiry": null}`), &m); err != nil || m.Payload != nil || !m.Expiry.IsZero() {
		t.Errorf("got %v, %v; want no payload and no expiry", m, err)
	}
	m.Value = "the caller's"
	in := []byte(`{"payload":{"a":1}}`)
	if err := json.Unmarshal(in, &m); err != nil {
		t.Fatal(err)
	}
	clear(in)
	if string(m.Payload) != `{"a":1}` {
		t.Errorf("got %s, want a payload that shares no memory with the JSON", m.Payload)
	}
	if m.Value != "the caller's" {
		t.Errorf("got the Value %v, want it as it was", m.Value)
	}
}

// What json.Marshal writes in place of <, >, &, U+2028 and U+2029 is larger. So a payload that
// fits would not fit any more when it is read.
func TestMessageJSONDoesNotGrow(t *testing.T) {
	const head, tail = `{"aps":{"alert":"`, `"}}`
	full := head + strings.Repeat("&", apns.MaxPayload-len(head)-len(tail)) + tail
	for name, encode := range map[string]func(m *apns.Message) ([]byte, error){
		"Marshal":       func(m *apns.Message) ([]byte, error) { return json.Marshal(m) },
		"MarshalIndent": func(m *apns.Message) ([]byte, error) { return json.MarshalIndent(m, "", "\t") },
		"Encoder": func(m *apns.Message) ([]byte, error) {
			var b bytes.Buffer
			err := json.NewEncoder(&b).Encode(m)
			return b.Bytes(), err
		},
		"Encoder without HTML": func(m *apns.Message) ([]byte, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			err := e.Encode(m)
			return b.Bytes(), err
		},
		"twice": func(m *apns.Message) ([]byte, error) {
			b, err := json.Marshal(m)
			if err != nil {
				return nil, err
			}
			return json.Marshal(json.RawMessage(b))
		},
		"in upper case": func(m *apns.Message) ([]byte, error) {
			b, err := json.Marshal(m)
			return bytes.ReplaceAll(b, []byte(`\u003c`), []byte(`\u003C`)), err
		},
	} {
		for _, test := range []struct{ payload, want string }{
			{full, full},
			{`{"<>&":"` + "\u2028\u2029" + `"}`, `{"<>&":"` + "\u2028\u2029" + `"}`},
			{`{"a":"\\u0026\\\u0026\"\u0041\n"}`, `{"a":"\\u0026\\&\"\u0041\n"}`}, // only those escapes
			{"\n{ \"a b\" :\t[ 1 , 2 ] }\r\n", `{"a b":[1,2]}`},
		} {
			b, err := encode(&apns.Message{Token: token, Payload: []byte(test.payload)})
			if err != nil {
				t.Fatal(err)
			}
			var m apns.Message
			if err := json.Unmarshal(b, &m); err != nil || string(m.Payload) != test.want {
				t.Fatalf("%s:\ngot  %.200s, %v\nwant %.200s", name, m.Payload, err, test.want)
			}
		}
	}

	b, err := json.Marshal(&apns.Message{Token: token, Payload: []byte(full)})
	if err != nil {
		t.Fatal(err)
	}
	var m apns.Message
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	_, err = http2Client(t, inMemory(t, nil).Config()).Push(t.Context(), &m)
	wantClass(t, err, "accepted")
}

// A message reads back equal, but for white space in the payload and the escapes that
// json.Marshal makes. What cannot be written is ErrInvalid.
func FuzzMessageJSON(f *testing.F) {
	f.Add(uint32(7), token, []byte(payload), int64(1700000000), int64(0), uint8(10), "com.example.app", "alert", "c", "")
	f.Add(uint32(0), "", []byte(`{ "<\u003c\\u003c\u2028" : [1e999, "\ud800"] }`), int64(0), int64(1), uint8(0), "<&>", "\u2028", "\xff", "\"")
	f.Add(uint32(0), "", []byte("null"), int64(0), int64(1), uint8(0), "", "", "", "")
	f.Add(uint32(0), "", []byte(" [{}]"), int64(0), int64(1), uint8(0), "", "", "", "")
	f.Add(uint32(0), "", []byte(`"\`), int64(-1<<62), int64(1), uint8(255), "", "", "", "")
	f.Fuzz(func(t *testing.T, id uint32, token string, payload []byte, seconds, nanoseconds int64, priority uint8, topic, pushType, collapseID, apnsID string) {
		m := apns.Message{
			ID: id, Token: token, Payload: payload, Expiry: time.Unix(seconds, nanoseconds), Priority: apns.Priority(priority),
			Topic: topic, PushType: apns.PushType(pushType), CollapseID: collapseID, APNsID: apnsID,
		}
		b, err := json.Marshal(m)
		if err != nil {
			if !errors.Is(err, apns.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			return
		}
		var back apns.Message
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if len(back.Payload) > len(payload) {
			t.Fatalf("the payload grew from %d bytes to %d", len(payload), len(back.Payload))
		}
		if len(payload) > 0 && bytes.TrimLeft(payload, " \t\r\n")[0] != '{' {
			t.Fatalf("%q was marshalled, want an error for a payload that is no object", payload)
		}
		if len(payload) > 0 && canonical(t, back.Payload) != canonical(t, payload) {
			t.Fatalf("payload:\ngot  %s\nwant %s", back.Payload, payload)
		}
		want := m
		back.Payload, want.Payload, want.Expiry = nil, nil, m.Expiry.UTC()
		if !reflect.DeepEqual(back, want) {
			t.Fatalf("\ngot  %+v\nwant %+v", back, want)
		}
	})
}

// canonical returns JSON without white space, with all that json.Marshal escapes escaped.
func canonical(t *testing.T, b []byte) string {
	t.Helper()
	out, err := json.Marshal(json.RawMessage(b))
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return string(out)
}

// A queue holds messages as JSON. The producer writes a message, the consumer reads it.
func ExampleMessage_MarshalJSON() {
	b, err := json.Marshal(&apns.Message{
		Token:    "00c0ffee",
		Payload:  apns.AlertPayload("Hello"),
		Expiry:   time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
		PushType: apns.PushTypeAlert,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))

	var m apns.Message
	if err := json.Unmarshal(b, &m); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Token, string(m.Payload))
	// Output:
	// {"token":"00c0ffee","payload":{"aps":{"alert":"Hello"}},"expiry":"2026-11-30T12:00:00Z","push_type":"alert"}
	// 00c0ffee {"aps":{"alert":"Hello"}}
}
