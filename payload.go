package apns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Payload is what a notification says: Apple's keys, which stand in the aps
// dictionary, and the app's own beside it. A field that is left zero is not
// written. What goes without a comment is explained in Apple's "Generating a
// remote notification".
//
// It is one way to make the bytes of Message.Payload, which may be any JSON: a
// key that Apple adds tomorrow need not wait for a field here.
type Payload struct {
	// Alert is the text to show.
	Alert Alert

	// Badge is the number on the app's icon. Nil leaves what is there, new(0)
	// removes it.
	Badge *int

	// Sound is the name of a file in the app's bundle or its Library/Sounds
	// folder, or "default". CriticalSound is there for critical alerts, in
	// place of Sound. In a Live Activity either one is part of the alert, and
	// is written there.
	Sound         string
	CriticalSound *CriticalSound

	// ThreadID groups notifications.
	ThreadID string

	// Category is one that the app registered: it decides about the buttons.
	Category string

	// ContentAvailable wakes the app up. As the only key in aps it makes a
	// background push; beside an alert, a badge or a sound, an alert push.
	ContentAvailable bool

	// MutableContent hands the notification to the app's service extension
	// before it is shown.
	MutableContent bool

	// TargetContentID names the window to bring forward.
	TargetContentID string

	InterruptionLevel InterruptionLevel

	// RelevanceScore is from 0 to 1 and sorts the summary, where 1 comes
	// first. Among Live Activities it may be any number.
	RelevanceScore *float64

	// FilterCriteria is what a Focus filter looks at.
	FilterCriteria string

	// LiveActivity starts, updates or ends a Live Activity.
	LiveActivity *LiveActivity

	// ContentChanged has the app's widgets, or controls, loaded anew.
	ContentChanged bool

	// URLArgs is for Safari websites, and fills the placeholders of the
	// site's urlFormatString. It has to be there even if there are none: nil
	// is not written, []string{} is.
	URLArgs []string

	// AccountID is for Apple Mail alone.
	AccountID string

	// MDM is the device's PushMagic. It calls the device to its management
	// server, and stands alone: without aps and without Custom.
	MDM string

	// Custom holds the app's own keys, any but aps and mdm. The values are
	// encoded as encoding/json does it.
	Custom map[string]any

	// MaxSize is the size in bytes that Encode allows. It is not part of the
	// payload. Zero means MaxPayload. VoIP pushes and broadcasts may have
	// MaxVoIPPayload, the binary protocol has MaxBinaryPayload.
	MaxSize int
}

// An Alert is the text of a notification. It stands there in full, or as a key
// into the app's Localizable.strings files; the arguments take the places of
// %@ and %1$@ in what is found there. Nil arguments are not written.
//
// In a Live Activity, Encode gives title and body the form that is used there:
// either the text or an object of key and arguments, not both.
type Alert struct {
	Title           string   `json:"title,omitzero"`
	TitleLocKey     string   `json:"title-loc-key,omitzero"`
	TitleLocArgs    []string `json:"title-loc-args,omitzero"`
	Subtitle        string   `json:"subtitle,omitzero"`
	SubtitleLocKey  string   `json:"subtitle-loc-key,omitzero"`
	SubtitleLocArgs []string `json:"subtitle-loc-args,omitzero"`
	Body            string   `json:"body,omitzero"`
	LocKey          string   `json:"loc-key,omitzero"` // of the body
	LocArgs         []string `json:"loc-args,omitzero"`

	// LaunchImage is a file in the app's bundle, shown while the app starts.
	LaunchImage string `json:"launch-image,omitzero"`
	// Action labels the button. Safari websites only.
	Action string `json:"action,omitzero"`
}

// A CriticalSound is the sound of a critical alert, for which an app needs an
// entitlement.
type CriticalSound struct {
	Name   string   // as Payload.Sound
	Volume *float64 // from 0, silent, to 1; nil is not written
}

// An InterruptionLevel says how much a notification may disturb.
type InterruptionLevel string

// The interruption levels. A device takes an alert without one for active.
const (
	InterruptionPassive       InterruptionLevel = "passive"        // adds to the list, lights up nothing
	InterruptionActive        InterruptionLevel = "active"         // lights up the screen, may sound
	InterruptionTimeSensitive InterruptionLevel = "time-sensitive" // breaks through a Focus
	InterruptionCritical      InterruptionLevel = "critical"       // breaks through the mute switch too
)

// A LiveActivity is an event in the life of a Live Activity. Times are written
// in whole UNIX seconds, the zero Time is not written. Apple's page is "Starting
// and updating Live Activities with ActivityKit push notifications".
type LiveActivity struct {
	// Event is "start", "update" or "end". A start needs an alert too, and
	// AttributesType and Attributes.
	Event string

	// Timestamp is required. Of several updates the newest one stays.
	Timestamp time.Time

	// ContentState is a struct, a map or a json.RawMessage that makes the JSON
	// object which the app decodes as its ContentState, with Swift's default
	// decoder.
	ContentState any

	// StaleDate is when the activity counts as outdated.
	StaleDate time.Time

	// DismissalDate is when an ended activity leaves the Lock Screen, at most
	// 4 hours after its end. In the past it means now.
	DismissalDate time.Time

	// AttributesType is the name of the Swift type to start with, Attributes
	// its content: a struct, a map or a json.RawMessage that makes an object.
	AttributesType string
	Attributes     any

	// InputPushToken has the started activity ask for a token to be updated
	// with. From iOS 18.
	InputPushToken bool

	// InputPushChannel subscribes the started activity to a broadcast channel,
	// of which this is the ID in base64. From iOS 18; before it, the activity
	// does not start.
	InputPushChannel string
}

// Encode returns the payload in JSON, {"aps":{...}} and the custom keys, with as
// few escapes as JSON allows. Equal payloads give equal bytes. A byte of a text
// that is not UTF-8 becomes U+FFFD.
//
// A payload that breaks a rule of Apple's is refused with an error that says
// which key, and what was expected; if it is too large, the error matches
// StatusInvalidPayloadSize. Rules that only Apple can judge are left to Apple.
func (p *Payload) Encode() ([]byte, error) {
	aps, err := p.encodeAPS()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteByte('{')
	custom := slices.Sorted(maps.Keys(p.Custom))
	switch {
	case p.MDM == "":
		b.WriteString(`"aps":`)
		b.Write(aps)
	case len(aps) > len(`{}`):
		key, _, _ := bytes.Cut(aps[len(`{"`):], []byte(`"`))
		return nil, fmt.Errorf("apns: payload: mdm is set and %s as well, expected mdm alone", key)
	case len(custom) > 0:
		return nil, fmt.Errorf("apns: payload: mdm is set and custom key %q as well, expected mdm alone", custom[0])
	default:
		b.WriteString(`"mdm":`)
		writeString(&b, p.MDM)
	}
	for _, key := range custom {
		if key == "aps" || key == "mdm" {
			return nil, fmt.Errorf("apns: payload: custom key is %q, expected any but aps and mdm", key)
		}
		b.WriteByte(',')
		writeString(&b, key)
		b.WriteByte(':')
		if err := writeJSON(&b, p.Custom[key]); err != nil {
			return nil, fmt.Errorf("apns: payload: custom key %q: %w", key, err)
		}
	}
	b.WriteByte('}')

	limit := p.MaxSize
	if limit == 0 {
		limit = MaxPayload
	}
	if b.Len() > limit {
		return nil, &fieldError{StatusInvalidPayloadSize, fmt.Sprintf(
			"payload has %d bytes, expected at most %d", b.Len(), limit)}
	}
	return b.Bytes(), nil
}

// PushType returns the type of push that the payload calls for: mdm,
// liveactivity, widgets, background or alert. It is background where aps has
// content-available and nothing else.
//
// The others do not show: a push for a control has the payload of one for a
// widget, and what is meant for location, voip, complication, fileprovider or
// pushtotalk may look like anything.
func (p *Payload) PushType() PushType {
	switch {
	case p.MDM != "":
		return PushTypeMDM
	case p.LiveActivity != nil:
		return PushTypeLiveActivity
	case p.ContentChanged:
		return PushTypeWidgets
	case p.ContentAvailable:
		// Whatever else is set, in fields of today or tomorrow, is in aps.
		rest := *p
		rest.ContentAvailable, rest.Custom, rest.MaxSize = false, nil, 0
		if reflect.ValueOf(rest).IsZero() {
			return PushTypeBackground
		}
	}
	return PushTypeAlert
}

// The aps dictionary. Of alert and sound, the keys around them decide the form.
type apsKeys struct {
	Alert             any               `json:"alert,omitzero"`
	Badge             *int              `json:"badge,omitzero"`
	Sound             any               `json:"sound,omitzero"`
	ThreadID          string            `json:"thread-id,omitzero"`
	Category          string            `json:"category,omitzero"`
	ContentAvailable  flag              `json:"content-available,omitzero"`
	MutableContent    flag              `json:"mutable-content,omitzero"`
	TargetContentID   string            `json:"target-content-id,omitzero"`
	InterruptionLevel InterruptionLevel `json:"interruption-level,omitzero"`
	RelevanceScore    *float64          `json:"relevance-score,omitzero"`
	FilterCriteria    string            `json:"filter-criteria,omitzero"`
	*activityKeys
	ContentChanged bool     `json:"content-changed,omitzero"`
	URLArgs        []string `json:"url-args,omitzero"`
	AccountID      string   `json:"account-id,omitzero"`
}

// The keys of a Live Activity, which stand among the others.
type activityKeys struct {
	Timestamp        unixTime        `json:"timestamp,omitzero"`
	Event            string          `json:"event,omitzero"`
	ContentState     json.RawMessage `json:"content-state,omitzero"`
	StaleDate        unixTime        `json:"stale-date,omitzero"`
	DismissalDate    unixTime        `json:"dismissal-date,omitzero"`
	AttributesType   string          `json:"attributes-type,omitzero"`
	Attributes       json.RawMessage `json:"attributes,omitzero"`
	InputPushToken   flag            `json:"input-push-token,omitzero"`
	InputPushChannel string          `json:"input-push-channel,omitzero"`
}

type criticalKeys struct {
	Critical flag     `json:"critical"`
	Name     string   `json:"name,omitzero"`
	Volume   *float64 `json:"volume,omitzero"`
}

// The alert of a Live Activity. Its title and body hide the ones of Alert.
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

// A flag is 1 or absent.
type flag bool

func (flag) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

type unixTime struct{ time.Time }

func (t unixTime) MarshalJSON() ([]byte, error) { return fmt.Append(nil, t.Unix()), nil }

func (p *Payload) encodeAPS() ([]byte, error) {
	sound, err := p.sound()
	if err != nil {
		return nil, err
	}
	if s := p.RelevanceScore; s != nil {
		switch {
		case math.IsNaN(*s) || math.IsInf(*s, 0):
			return nil, fmt.Errorf("apns: payload: relevance-score is %v, expected a number", *s)
		case p.LiveActivity == nil && (*s < 0 || *s > 1):
			return nil, fmt.Errorf("apns: payload: relevance-score is %v, expected 0 to 1 outside Live Activities", *s)
		}
	}
	keys := apsKeys{
		Badge:             p.Badge,
		ThreadID:          p.ThreadID,
		Category:          p.Category,
		ContentAvailable:  flag(p.ContentAvailable),
		MutableContent:    flag(p.MutableContent),
		TargetContentID:   p.TargetContentID,
		InterruptionLevel: p.InterruptionLevel,
		RelevanceScore:    p.RelevanceScore,
		FilterCriteria:    p.FilterCriteria,
		ContentChanged:    p.ContentChanged,
		URLArgs:           p.URLArgs,
		AccountID:         p.AccountID,
	}
	hasAlert := !reflect.ValueOf(p.Alert).IsZero()
	switch {
	case p.LiveActivity == nil:
		keys.Sound = sound
		if hasAlert {
			keys.Alert = p.Alert
		}
	case hasAlert:
		keys.Alert, err = p.Alert.forActivity(sound)
	case sound != nil:
		err = fmt.Errorf("apns: payload: sound is set and alert is missing, expected both or neither in a Live Activity")
	}
	if err == nil && p.LiveActivity != nil {
		keys.activityKeys, err = p.LiveActivity.keys(hasAlert)
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := writeJSON(&b, keys); err != nil {
		return nil, fmt.Errorf("apns: payload: aps: %w", err)
	}
	return b.Bytes(), nil
}

// sound returns nil where there is none.
func (p *Payload) sound() (any, error) {
	c := p.CriticalSound
	switch {
	case c == nil && p.Sound == "":
		return nil, nil
	case c == nil:
		return p.Sound, nil
	case p.Sound != "":
		return nil, fmt.Errorf("apns: payload: sound is %q and a critical sound as well, expected one of them", p.Sound)
	case c.Volume != nil && !(*c.Volume >= 0 && *c.Volume <= 1): // NaN is neither
		return nil, fmt.Errorf("apns: payload: volume is %v, expected 0 to 1", *c.Volume)
	}
	return criticalKeys{true, c.Name, c.Volume}, nil
}

func (a Alert) forActivity(sound any) (any, error) {
	title, err := textOrKey("title", a.Title, "title-loc-", a.TitleLocKey, a.TitleLocArgs)
	if err != nil {
		return nil, err
	}
	body, err := textOrKey("body", a.Body, "loc-", a.LocKey, a.LocArgs)
	if err != nil {
		return nil, err
	}
	a.TitleLocKey, a.TitleLocArgs, a.LocKey, a.LocArgs = "", nil, "", nil
	return activityAlert{title, body, a, sound}, nil
}

func textOrKey(name, text, prefix, key string, args []string) (any, error) {
	switch {
	case key == "" && args != nil:
		return nil, fmt.Errorf("apns: payload: %sargs is set and %skey is missing, expected both or neither in a Live Activity", prefix, prefix)
	case key != "" && text != "":
		return nil, fmt.Errorf("apns: payload: %s is %q and %skey is %q, expected one of them in a Live Activity", name, text, prefix, key)
	case key != "":
		return localized{key, args}, nil
	case text != "":
		return text, nil
	}
	return nil, nil
}

func (l *LiveActivity) keys(hasAlert bool) (*activityKeys, error) {
	switch l.Event {
	case "start", "update", "end":
	default:
		return nil, fmt.Errorf("apns: payload: event is %q, expected start, update or end", l.Event)
	}
	if l.Timestamp.IsZero() {
		return nil, fmt.Errorf("apns: payload: timestamp is missing, expected one in a Live Activity")
	}
	if l.Event == "start" {
		var missing []string
		if !hasAlert {
			missing = append(missing, "alert")
		}
		if l.AttributesType == "" {
			missing = append(missing, "attributes-type")
		}
		if l.Attributes == nil {
			missing = append(missing, "attributes")
		}
		if missing != nil {
			return nil, fmt.Errorf("apns: payload: event is \"start\" without %s, expected alert, attributes-type and attributes",
				strings.Join(missing, ", "))
		}
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

// encodeObject returns nil for nil.
func encodeObject(key string, v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return nil, fmt.Errorf("apns: payload: %s: %w", key, err)
	}
	// The value itself may be long, and is nobody's business in a log.
	if c := b.Bytes()[0]; c != '{' {
		return nil, fmt.Errorf("apns: payload: %s is a %T, JSON that begins with %q, expected an object", key, v, c)
	}
	return b.Bytes(), nil
}

func writeJSON(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return nil
}

func writeString(b *bytes.Buffer, s string) {
	if err := writeJSON(b, s); err != nil {
		panic(err) // a string always encodes
	}
}
