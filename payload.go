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

// A Payload is the content of a notification: Apple's keys, which are in the aps
// dictionary, and the app's own keys beside it. Encode leaves out a field that is zero.
// Apple's page "Generating a remote notification" explains the keys in full.
//
// A Payload is one way to make the bytes of Message.Payload, which may be any JSON object.
// So a key without a field here can be sent as well.
type Payload struct {
	// Alert is the text to show.
	Alert Alert

	// Badge is the number on the app's icon. Nil leaves the icon as it is, new(0) removes
	// the number.
	Badge *int

	// Sound is the name of a file in the app's bundle or in its Library/Sounds folder, or
	// "default". Empty means no sound. In a Live Activity the sound is part of the alert,
	// and so Encode writes it there.
	Sound string

	// CriticalSound takes the place of Sound in a critical alert. Nil means none.
	CriticalSound *CriticalSound

	// ThreadID groups notifications: a device shows those with the same ThreadID together.
	ThreadID string

	// Category is a category that the app registered. It determines the buttons of the
	// notification.
	Category string

	// ContentAvailable wakes the app. If it is the only key in aps, the push is a
	// background push. With an alert, a badge or a sound it is an alert push.
	ContentAvailable bool

	// MutableContent passes the notification to the app's service extension before the
	// device shows it.
	MutableContent bool

	// TargetContentID identifies the window to bring forward.
	TargetContentID string

	// InterruptionLevel says how much the notification may disturb. A device treats an
	// alert without one as InterruptionActive.
	InterruptionLevel InterruptionLevel

	// RelevanceScore sorts the notification summary: a number from 0 to 1, highest first.
	// In a Live Activity it may be any number.
	RelevanceScore *float64

	// FilterCriteria is the string that a Focus filter evaluates.
	FilterCriteria string

	// LiveActivity starts, updates or ends a Live Activity.
	LiveActivity *LiveActivity

	// ContentChanged reloads the app's widgets or controls.
	ContentChanged bool

	// URLArgs fills the placeholders of a Safari website's urlFormatString. A website
	// requires the key, even if it has no placeholders: Encode leaves out nil, and writes
	// []string{}.
	URLArgs []string

	// AccountID is only for Apple Mail.
	AccountID string

	// MDM is the device's PushMagic. It tells the device to contact its management server.
	// It must be the only key: without aps and without Custom.
	MDM string

	// Custom has the app's own keys: any but aps and mdm. Encode encodes the values with
	// encoding/json.
	Custom map[string]any

	// MaxSize is the largest size in bytes that Encode allows. It is not part of the
	// payload. Zero means MaxPayload. The limit is MaxVoIPPayload for VoIP pushes and
	// broadcasts, and MaxBinaryPayload on the binary protocol.
	MaxSize int
}

// An Alert is the text of a notification. Each part is either the text itself or a key in
// the app's Localizable.strings files. The arguments replace %@ and %1$@ in the string with
// that key. Encode leaves out nil arguments.
//
// In a Live Activity, Encode writes title and body in the form that is required there:
// either the text or an object with key and arguments, not both.
type Alert struct {
	Title           string   `json:"title,omitzero"`
	TitleLocKey     string   `json:"title-loc-key,omitzero"`
	TitleLocArgs    []string `json:"title-loc-args,omitzero"`
	Subtitle        string   `json:"subtitle,omitzero"`
	SubtitleLocKey  string   `json:"subtitle-loc-key,omitzero"`
	SubtitleLocArgs []string `json:"subtitle-loc-args,omitzero"`
	Body            string   `json:"body,omitzero"`
	LocKey          string   `json:"loc-key,omitzero"` // that of Body
	LocArgs         []string `json:"loc-args,omitzero"`

	// LaunchImage is a file in the app's bundle, which is shown while the app starts.
	LaunchImage string `json:"launch-image,omitzero"`
	// Action is the label of the button. It is only for Safari websites.
	Action string `json:"action,omitzero"`
}

// A CriticalSound is the sound of a critical alert. An app needs an entitlement for it.
type CriticalSound struct {
	Name   string   // a file or "default", as for Payload.Sound
	Volume *float64 // from 0 (silent) to 1; nil is left out
}

// An InterruptionLevel says how much a notification may disturb.
type InterruptionLevel string

// The interruption levels.
const (
	InterruptionPassive       InterruptionLevel = "passive"        // adds to the list without lighting up the screen
	InterruptionActive        InterruptionLevel = "active"         // lights up the screen, and may play a sound
	InterruptionTimeSensitive InterruptionLevel = "time-sensitive" // also breaks through a Focus
	InterruptionCritical      InterruptionLevel = "critical"       // also overrides the mute switch
)

// A LiveActivity is an event of a Live Activity. Encode writes times in whole seconds since
// 1970, and leaves out the zero Time. The source is "Starting and updating Live Activities
// with ActivityKit push notifications".
type LiveActivity struct {
	// Event is "start", "update" or "end". A start also requires an alert, AttributesType
	// and Attributes.
	Event string

	// Timestamp is the time of the event. It is required. The device shows the update with
	// the latest Timestamp.
	Timestamp time.Time

	// ContentState is the state that the app decodes as its ContentState, with Swift's
	// default decoder: a struct, a map or a json.RawMessage that encodes to a JSON object.
	// Nil is left out.
	ContentState any

	// StaleDate is when the activity becomes outdated.
	StaleDate time.Time

	// DismissalDate is when an ended activity disappears from the Lock Screen, at most 4
	// hours after its end. A time in the past removes it at once.
	DismissalDate time.Time

	// AttributesType is the name of the Swift type of the activity to start.
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

// Encode returns the payload in JSON: {"aps":{...}} and the custom keys, with few escapes.
// Equal payloads give equal bytes. A byte of a text that is not UTF-8 becomes U+FFFD.
//
// If the payload breaks a rule, the error says which key is wrong, and what was expected.
// If it is too large, the error matches StatusInvalidPayloadSize. Encode checks no rule
// that depends on what only Apple knows.
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

// PushType returns the type of push that the payload requires: mdm, liveactivity, widgets,
// background or alert. It is background if aps has content-available and nothing else.
//
// A payload does not show the other types. A push for a control has the same payload
// as one for a widget. A payload for location, voip, complication, fileprovider or
// pushtotalk may have any form.
func (p *Payload) PushType() PushType {
	switch {
	case p.MDM != "":
		return PushTypeMDM
	case p.LiveActivity != nil:
		return PushTypeLiveActivity
	case p.ContentChanged:
		return PushTypeWidgets
	case p.ContentAvailable:
		// All other fields, also those of later versions, are in aps.
		others := *p
		others.ContentAvailable, others.Custom, others.MaxSize = false, nil, 0
		if reflect.ValueOf(others).IsZero() {
			return PushTypeBackground
		}
	}
	return PushTypeAlert
}

// apsKeys is the aps dictionary. The form of alert and sound depends on the other keys.
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

// activityKeys has the keys of a Live Activity. In aps they are beside the other keys.
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

// A flag is written as 1, or left out.
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

// sound returns the value of the key sound, or nil if there is none.
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

// encodeObject encodes a value that must be a JSON object. It returns nil for nil.
func encodeObject(key string, v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return nil, fmt.Errorf("apns: payload: %s: %w", key, err)
	}
	// The error does not quote the value: it may be long, and must not get into a log.
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
