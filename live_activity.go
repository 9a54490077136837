package apns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A LiveActivity is an event of a Live Activity. Encode writes times in whole seconds since
// 1970, and leaves out the zero Time. The source is "Starting and updating Live Activities
// with ActivityKit push notifications".
type LiveActivity struct {
	// Event is what happens to the activity. An ActivityStart also requires an alert,
	// AttributesType, Attributes and ContentState.
	Event ActivityEvent

	// Timestamp is the time of the event. It is required. The device shows the update with
	// the latest Timestamp.
	Timestamp time.Time

	// ContentState is the state that the app decodes as its ContentState, with Swift's
	// default decoder: a struct, a map or a json.RawMessage that encodes to a JSON object.
	// Nil is left out, which only an ActivityEnd allows.
	//
	// That decoder reads a Date from a number: the seconds since the start of 2001 in UTC.
	// So a time.Time in the ContentState or in Attributes is an error. Encode does not find the
	// time in a type that embeds a time.Time. Write the number:
	//
	//	t.Sub(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds()
	ContentState any

	// StaleDate is when the activity becomes outdated.
	StaleDate time.Time

	// DismissalDate is when an ended activity disappears from the Lock Screen, at most 4
	// hours after its end. A time in the past removes it at once. Only an ActivityEnd has
	// one.
	DismissalDate time.Time

	// AttributesType is the name of the Swift type of the activity to start. Only an
	// ActivityStart has this field and those that follow.
	AttributesType string
	// Attributes is the value of that type: a struct, a map or a json.RawMessage that
	// encodes to a JSON object.
	Attributes any

	// InputPushToken makes the started activity request a token for its updates. It
	// requires iOS 18.
	InputPushToken bool

	// InputPushChannel subscribes the started activity to the broadcast channel with this
	// ID, in base64. It requires iOS 18; on an earlier iOS the activity does not start.
	InputPushChannel string
}

// An ActivityEvent is what happens to a Live Activity.
type ActivityEvent string

// The events.
const (
	ActivityStart  ActivityEvent = "start"
	ActivityUpdate ActivityEvent = "update"
	ActivityEnd    ActivityEvent = "end"
)

func (e ActivityEvent) isKnown() bool {
	return e == ActivityStart || e == ActivityUpdate || e == ActivityEnd
}

// activityKeys has the keys of a Live Activity. In aps they are beside the other keys.
type activityKeys struct {
	Timestamp        unixTime        `json:"timestamp,omitzero"`
	Event            ActivityEvent   `json:"event,omitzero"`
	ContentState     json.RawMessage `json:"content-state,omitzero"`
	StaleDate        unixTime        `json:"stale-date,omitzero"`
	DismissalDate    unixTime        `json:"dismissal-date,omitzero"`
	AttributesType   string          `json:"attributes-type,omitzero"`
	Attributes       json.RawMessage `json:"attributes,omitzero"`
	InputPushToken   flag            `json:"input-push-token,omitzero"`
	InputPushChannel string          `json:"input-push-channel,omitzero"`
}

// activityAlert is the alert of a Live Activity. Its title and body hide those of Alert.
type activityAlert struct {
	Title any `json:"title,omitzero"`
	Body  any `json:"body,omitzero"`
	Alert
	Sound any `json:"sound,omitzero"`
}

type localized struct {
	Key  string   `json:"loc-key,omitzero"`
	Args []string `json:"loc-args,omitzero"`
}

type unixTime struct{ time.Time }

func (t unixTime) MarshalJSON() ([]byte, error) { return fmt.Append(nil, t.Unix()), nil }

// forActivity encodes the alert of a Live Activity.
func (a Alert) forActivity(sound any) (json.RawMessage, error) {
	title, err := textOrKey("title", a.Title, "title-loc-", a.TitleLocKey, a.TitleLocArgs)
	if err != nil {
		return nil, err
	}
	body, err := textOrKey("body", a.Body, "loc-", a.LocKey, a.LocArgs)
	if err != nil {
		return nil, err
	}
	a.TitleLocKey, a.TitleLocArgs, a.LocKey, a.LocArgs = "", nil, "", nil
	return encodeKeys("alert", activityAlert{title, body, a, sound}, a.Extra)
}

func textOrKey(name, text, prefix, key string, args []string) (any, error) {
	switch {
	case key == "" && args != nil:
		return nil, payloadErrorf("%sargs is set and %skey is missing, expected both or neither in a Live Activity", prefix, prefix)
	case key != "" && text != "":
		return nil, payloadErrorf("%s and %skey are set, expected one of them in a Live Activity", name, prefix)
	case key != "":
		return localized{key, args}, nil
	case text != "":
		return text, nil
	}
	return nil, nil
}

func (l *LiveActivity) keys(hasAlert bool) (*activityKeys, error) {
	if err := l.check(hasAlert); err != nil {
		return nil, err
	}
	contentState, err := encodeObject("content-state", l.ContentState)
	if err != nil {
		return nil, err
	}
	attributes, err := encodeObject("attributes", l.Attributes)
	if err != nil {
		return nil, err
	}
	return &activityKeys{
		Timestamp:        unixTime{l.Timestamp},
		Event:            l.Event,
		ContentState:     contentState,
		StaleDate:        unixTime{l.StaleDate},
		DismissalDate:    unixTime{l.DismissalDate},
		AttributesType:   l.AttributesType,
		Attributes:       attributes,
		InputPushToken:   flag(l.InputPushToken),
		InputPushChannel: l.InputPushChannel,
	}, nil
}

// check checks that the event has the fields that it requires, and no others. The source is
// "Starting and updating Live Activities with ActivityKit push notifications".
func (l *LiveActivity) check(hasAlert bool) error {
	if !l.Event.isKnown() {
		return payloadErrorf("event is %q, expected %s, %s or %s", l.Event, ActivityStart, ActivityUpdate, ActivityEnd)
	}
	if l.Timestamp.IsZero() {
		return payloadErrorf("timestamp is missing, expected one in a Live Activity")
	}
	isStart := l.Event == ActivityStart
	var required, missing []string
	for _, f := range []struct {
		key        string
		isSet      bool
		isRequired bool
		only       ActivityEvent // the event that may have the key; empty means all
	}{
		{"alert", hasAlert, isStart, ""},
		{"attributes-type", l.AttributesType != "", isStart, ActivityStart},
		{"attributes", l.Attributes != nil, isStart, ActivityStart},
		{"content-state", l.ContentState != nil, l.Event != ActivityEnd, ""},
		{"input-push-token", l.InputPushToken, false, ActivityStart},
		{"input-push-channel", l.InputPushChannel != "", false, ActivityStart},
		{"dismissal-date", !l.DismissalDate.IsZero(), false, ActivityEnd},
	} {
		if f.isSet && f.only != "" && f.only != l.Event {
			return payloadErrorf("event is %q with %s, expected %s only with %q", l.Event, f.key, f.key, f.only)
		}
		if f.isRequired {
			required = append(required, f.key)
			if !f.isSet {
				missing = append(missing, f.key)
			}
		}
	}
	if missing != nil {
		return payloadErrorf("event is %q without %s, expected %s", l.Event, strings.Join(missing, ", "), strings.Join(required, ", "))
	}
	return nil
}

// encodeObject encodes a value that must be a JSON object, and that Swift's default decoder
// reads. It returns nil for nil.
func encodeObject(key string, v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := writeValue(&b, v); err != nil {
		return nil, payloadErrorf("%s: %w", key, err)
	}
	// The error does not quote the value: it may be long, and must not get into a log.
	if c := b.Bytes()[0]; c != '{' {
		return nil, payloadErrorf("%s is a %T, JSON that begins with %q, expected an object", key, v, c)
	}
	if path, ok := findTime(v); ok {
		return nil, payloadErrorf("%s is a time.Time, expected seconds since the start of 2001 as a float64, which is what Swift's default decoder reads",
			strings.Join(append([]string{key}, path...), "."))
	}
	return b.Bytes(), nil
}
