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

// These are embedded.
type (
	ending       struct{ Ends time.Time }
	endingToo    struct{ Ends time.Time }
	endingNumber struct{ Ends float64 }
	taggedTime   struct {
		T time.Time `json:"Ends"`
	}
	deep    struct{ ending }
	instant int
)

// sinceTime is zero if its number is.
type sinceTime struct {
	Number int
	At     time.Time
}

func (s *sinceTime) IsZero() bool { return s.Number == 0 }

// A time.Time is found wherever encoding/json encodes one, and nowhere else.
func TestContentStateWithTime(t *testing.T) {
	now := time.Unix(1700000000, 0).UTC()
	loop := &node{Any: 1}
	loop.node = loop
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
		{"embedded", struct{ ending }{ending{now}}, "Ends"},
		{"embedded pointer", struct{ *ending }{&ending{now}}, "Ends"},
		{"embedded twice", struct{ deep }{deep{ending{now}}}, "Ends"},
		{"embedded with a name", struct {
			ending `json:"a"`
		}{ending{now}}, "a.Ends"},
		{"hidden for Go, and not for encoding/json", struct {
			ending
			At float64 `json:"Ends"`
			T  time.Time
		}{ending{now}, 1, now}, "T"},
		{"two embedded, one with a tag", struct {
			endingToo
			taggedTime
		}{endingToo{now}, taggedTime{now}}, "Ends"},
		{"hidden for Go by another name", struct {
			taggedTime
			T float64
		}{taggedTime{now}, 1}, "Ends"},
		{"omitzero by a method", struct {
			S sinceTime `json:"s,omitzero"`
		}{sinceTime{1, now}}, "s.At"},
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
		{"embedded, left out by its tag", struct {
			ending `json:"-"`
		}{ending{now}}, ""},
		{"embedded nil pointer", struct{ *ending }{}, ""},
		{"embedded, no struct and not exported", struct{ instant }{1}, ""},
		{"hidden by the outer field", struct {
			ending
			Ends float64
		}{ending{now}, 1}, ""},
		{"hides the inner field", struct {
			endingNumber
			Ends time.Time
		}{endingNumber{1}, now}, "Ends"},
		{"pointer to the zero time, omitzero", struct {
			At *time.Time `json:"at,omitzero"`
		}{new(time.Time)}, ""},
		{"interface with a nil pointer, omitzero", struct {
			At interface{ IsZero() bool } `json:"at,omitzero"`
		}{(*time.Time)(nil)}, ""},
		{"empty interface with the zero time, omitzero", struct {
			At any `json:"at,omitzero"`
		}{time.Time{}}, "at"},
		{"hidden by the outer tag", struct {
			ending
			T float64 `json:"Ends"`
		}{ending{now}, 1}, ""},
		{"hides each other", struct {
			ending
			endingToo
		}{ending{now}, endingToo{now}}, ""},
		{"left out by a method", struct {
			S sinceTime `json:"s,omitzero"`
		}{sinceTime{0, now}}, ""},
	} {
		b, err := json.Marshal(test.state)
		if isWritten := strings.Contains(string(b), `"2023-11-14T`) || strings.Contains(string(b), `"0001-01-01T`); err != nil || isWritten != (test.want != "") {
			t.Errorf("%s: json.Marshal gives %s, %v; want a time if the path is not empty", test.name, b, err)
		}
		_, err = updated(apns.LiveActivity{ContentState: test.state}).Encode()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", test.name, err)
		case test.want != "" && (err == nil || err.Error() != "apns: payload: content-state."+test.want+" is a time.Time, "+swiftDate):
			t.Errorf("%s: got %v, want an error that names content-state.%s", test.name, err, test.want)
		}
	}

	// A type that embeds a time has its method, and so encodes itself.
	for _, state := range []any{struct{ time.Time }{now}, struct{ json.Marshaler }{now}} {
		_, err := updated(apns.LiveActivity{ContentState: map[string]any{"a": state}}).Encode()
		if err != nil {
			t.Errorf("%T: got %v, want no error", state, err)
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
