package apns_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"example.com/apns"
)

// marked types encode themselves as a number, which Swift reads.
type (
	swiftTime   time.Time
	pointerTime struct{ T time.Time }
	textTime    struct{ T time.Time }
)

func (t swiftTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Time(t).Sub(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())
}
func (*pointerTime) MarshalJSON() ([]byte, error) { return []byte("1"), nil }
func (textTime) MarshalText() ([]byte, error)     { return []byte("a"), nil }

type node struct {
	*node // encoding/json looks into it once
	Next  *node
	Any   any
	At    time.Time `json:"at,omitzero"`
}

// A time.Time is found wherever encoding/json encodes one, and nowhere else.
func TestContentStateWithTime(t *testing.T) {
	now := time.Unix(1700000000, 0)
	loop := &node{Any: 1}
	loop.node = loop
	type inner struct{ Ends time.Time }
	for _, test := range []struct {
		name  string
		state any
		want  string // the path; empty if there is none
	}{
		{"field", struct{ Ends time.Time }{now}, "Ends"},
		{"zero time", struct{ Ends time.Time }{}, "Ends"},
		{"tag", struct {
			T time.Time `json:"endsAt,omitzero"`
		}{now}, "endsAt"},
		{"tag without a name", struct {
			T time.Time `json:",omitzero"`
		}{now}, "T"},
		{"pointer", struct{ Ends *time.Time }{&now}, "Ends"},
		{"pointer to a pointer", map[string]any{"a": new(&now)}, "a"},
		{"interface", struct{ Ends any }{now}, "Ends"},
		{"named interface", struct{ Ends json.Marshaler }{now}, "Ends"},
		{"map", map[string]any{"a": 1, "b": now}, "b"},
		{"map of maps", map[string]map[int]time.Time{"a": {7: now}}, "a.7"},
		{"slice", map[string]any{"a": []any{1, []time.Time{now}}}, "a"},
		{"array", struct{ A [1]time.Time }{}, "A"},
		{"embedded", struct{ inner }{inner{now}}, "inner.Ends"},
		{"linked", &node{Next: &node{Next: &node{At: now}}}, "Next.Next.at"},
		{"in a loop that is embedded", func() *node { n := *loop; n.node = &n; n.Any = now; return &n }(), "Any"},

		{"number", struct{ Ends float64 }{722692800}, ""},
		{"text", map[string]string{"a": "2026-11-30T12:00:00Z"}, ""},
		{"raw", json.RawMessage(`{"a":"2026-11-30T12:00:00Z"}`), ""},
		{"its own form", struct{ Ends swiftTime }{swiftTime(now)}, ""},
		{"its own form, of the pointer", struct{ Ends *pointerTime }{&pointerTime{now}}, ""},
		{"its own text", struct{ Ends textTime }{textTime{now}}, ""},
		{"nil pointer", struct{ Ends *time.Time }{}, ""},
		{"nil interface", struct{ Ends any }{}, ""},
		{"left out by its tag", struct {
			Ends time.Time `json:"-"`
		}{now}, ""},
		{"not exported", struct{ ends time.Time }{now}, ""},
		{"omitzero", &node{}, ""},
		{"omitzero in a zone", &node{At: time.Time{}.In(time.FixedZone("", 3600))}, ""},
		{"a loop that is embedded", loop, ""},
		{"many bytes", map[string]any{"a": make([]byte, 1000), "b": []string{"a"}}, ""},
		{"empty", map[string]time.Time{}, ""},
	} {
		_, err := updated(apns.LiveActivity{ContentState: test.state}).Encode()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", test.name, err)
		case test.want != "" && (err == nil || err.Error() != "apns: payload: content-state."+test.want+" is a time.Time, "+swiftDate):
			t.Errorf("%s: got %v, want an error that names content-state.%s", test.name, err, test.want)
		}
	}

	// A loop is encoding/json's to find.
	var endless struct{ Next any }
	endless.Next = &endless
	_, err := updated(apns.LiveActivity{ContentState: &endless}).Encode()
	if err == nil || !strings.Contains(err.Error(), "cycle") {
		t.Errorf("got %v, want an error about a cycle", err)
	}
	// Elsewhere a time is the app's own affair.
	if _, err := (&apns.Payload{Custom: map[string]any{"at": now}}).Encode(); err != nil {
		t.Errorf("a time in a custom key: got %v, want no error", err)
	}
}
