package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
)

// A Payload is the content of a notification: Apple's keys, which are in the aps
// dictionary, and the app's own keys beside it. Encode leaves out a field that is zero.
// Apple's page "Generating a remote notification" explains the keys in full.
//
// [Payload.Message] makes the whole Message for a device. [Payload.Encode] makes only the bytes
// of Message.Payload, and so does encoding/json. Those bytes may be any JSON object: a Payload
// is one way to make them.
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

	// Category is the name of a category that the app registered. The category has the
	// buttons of the notification.
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

	// RelevanceScore sorts the notification summary: the highest comes first. It is a number
	// from 0 to 1, and in a Live Activity any number. Nil leaves it out.
	RelevanceScore *float64

	// FilterCriteria is a string by which a Focus decides whether to show the notification.
	FilterCriteria string

	// LiveActivity starts, updates or ends a Live Activity.
	LiveActivity *LiveActivity

	// ContentChanged reloads the app's widgets or controls. It is an error in a Live Activity,
	// which is a push of another type.
	ContentChanged bool

	// URLArgs fills the placeholders of a Safari website's urlFormatString. A website
	// requires the key. If it has no placeholders, set []string{}: Encode leaves out nil.
	URLArgs []string

	// AccountID is only for Apple Mail.
	AccountID string

	// Extra has keys of the aps dictionary that have no field here, such as one that Apple
	// adds later. A key that has a field is an error.
	Extra map[string]any

	// MDM is the device's PushMagic. It tells the device to contact its management server.
	// It must be the only key: without aps and without Custom.
	MDM string

	// Custom has the app's own keys: any but aps and mdm. Encode encodes the values with
	// encoding/json.
	Custom map[string]any

	// Type is the push type. Empty means the one that the fields above show: see
	// [Payload.PushType]. Set Type for location, voip, complication, fileprovider, pushtotalk
	// and controls, which they do not show. It is not part of the payload.
	Type PushType

	// MaxSize is the largest size in bytes that Encode allows. Zero means MaxVoIPPayload if
	// Type is PushTypeVoIP, and MaxPayload otherwise. Set it to MaxVoIPPayload for a
	// broadcast, and to MaxBinaryPayload for the binary protocol. It is not part of the
	// payload.
	MaxSize int

	// ShortenBody lets Encode shorten Alert.Body at its end if the payload would be too
	// large. As much of the text as fits stays, followed by "…". Encode cuts only between
	// characters as a reader sees them, as far as the tables of package unicode tell: an
	// emoji of several code points stays whole. It is not part of the payload.
	ShortenBody bool
}

// An Alert is the text of a notification. Each part is either the text itself, or a key in the
// app's Localizable.strings files with arguments. The arguments replace %@ and %1$@ in the
// string that the files have for the key. Encode leaves out nil arguments.
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

	// Extra has keys of the alert that have no field here. A key that has a field is an
	// error.
	Extra map[string]any `json:"-"`
}

// isEmpty reports whether the alert has no keys.
func (a Alert) isEmpty() bool {
	if len(a.Extra) == 0 {
		a.Extra = nil
	}
	return reflect.ValueOf(a).IsZero()
}

// A CriticalSound is the sound of a critical alert. An app needs an entitlement for it.
type CriticalSound struct {
	Name   string   // a file or "default", as for Payload.Sound; required
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

// Message returns a message with the payload for the device with the token. It has the push
// type of [Payload.PushType], and the priority that the type requires: PriorityPowerSaving
// for a background push. The caller may set the other fields, or use the message again with
// another token. The error is that of Encode.
//
// For a broadcast, pass an empty token, set Channel in the Message, and set MaxSize to
// MaxVoIPPayload.
func (p *Payload) Message(token string) (*Message, error) {
	b, err := p.Encode()
	if err != nil {
		return nil, err
	}
	m := &Message{Token: token, Payload: b, PushType: p.PushType()}
	if m.PushType == PushTypeBackground {
		m.Priority = PriorityPowerSaving
	}
	return m, nil
}

// Encode returns the payload in JSON: {"aps":{...}} and the custom keys, with few escapes.
// Equal payloads give equal bytes. A byte of a text that is not UTF-8 becomes U+FFFD.
//
// If the payload breaks a rule, the error matches ErrInvalid, and says which key is wrong and
// what was expected. If it is too large, the error also matches StatusInvalidPayloadSize.
// Encode checks only what the payload shows, and not, for example, whether the app has a
// Category.
func (p *Payload) Encode() ([]byte, error) {
	limit := p.MaxSize
	switch {
	case limit != 0:
	case p.Type == PushTypeVoIP:
		limit = MaxVoIPPayload
	default:
		limit = MaxPayload
	}
	b, err := p.encode()
	if err != nil {
		return nil, err
	}
	least, hint := "", ""
	if len(b) > limit && p.Alert.Body != "" {
		shortest, err := p.encodeWithBody(ellipsis)
		if err != nil {
			return nil, err
		}
		switch {
		case p.ShortenBody && len(shortest) <= limit:
			return p.encodeShortened(limit, shortest)
		case p.ShortenBody:
			b, least = shortest, " with the body left out"
		case len(shortest) <= limit:
			hint = " (ShortenBody shortens the text)"
		}
	}
	if len(b) > limit {
		return nil, &fieldError{StatusInvalidPayloadSize, fmt.Sprintf(
			"payload has %d bytes%s, expected at most %d%s", len(b), least, limit, hint)}
	}
	return b, nil
}

// MarshalJSON returns what [Payload.Encode] returns. json.Marshal then escapes <, > and & in
// it, which makes it larger. To avoid that, use Encode.
func (p Payload) MarshalJSON() ([]byte, error) { return p.Encode() }

// UnmarshalJSON always returns an error: a Payload cannot be unmarshalled. JSON that is a
// payload already goes into Message.Payload as it is.
func (p *Payload) UnmarshalJSON([]byte) error {
	return errors.New("apns: a Payload cannot be unmarshalled, expected its JSON in Message.Payload as it is")
}

// encode is Encode without a limit.
func (p *Payload) encode() ([]byte, error) {
	if err := p.checkType(); err != nil {
		return nil, err
	}
	aps, err := p.encodeAPS()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteByte('{')
	switch {
	case p.MDM == "":
		b.WriteString(`"aps":`)
		b.Write(aps)
	case len(aps) > len(`{}`):
		key, _, _ := bytes.Cut(aps[len(`{"`):], []byte(`"`))
		return nil, payloadErrorf("mdm is set and %s as well, expected mdm alone", key)
	case len(p.Custom) > 0:
		return nil, payloadErrorf("mdm is set and custom key %q as well, expected mdm alone", slices.Min(slices.Collect(maps.Keys(p.Custom))))
	default:
		b.WriteString(`"mdm":`)
		writeString(&b, p.MDM)
	}
	err = writeKeys(&b, "custom key", p.Custom, func(key string) string {
		if key == "aps" || key == "mdm" {
			return "any but aps and mdm"
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// PushType returns Type, or the type of push that the other fields show if Type is empty:
// mdm, liveactivity, widgets, background or alert. It is background if aps has
// content-available and nothing else.
//
// A payload does not show the other types. A push for a control has the same payload
// as one for a widget. A payload for location, voip, complication, fileprovider or
// pushtotalk may have any form.
func (p *Payload) PushType() PushType {
	if p.Type != "" {
		return p.Type
	}
	return p.shownType()
}

// shownType returns the push type that the fields show, without regard to Type.
func (p *Payload) shownType() PushType {
	switch {
	case p.MDM != "":
		return PushTypeMDM
	case p.LiveActivity != nil:
		return PushTypeLiveActivity
	case p.ContentChanged:
		return PushTypeWidgets
	case p.ContentAvailable:
		// All other fields are in aps. So is a field that a later version adds.
		others := *p
		others.ContentAvailable, others.Custom = false, nil
		others.Type, others.MaxSize, others.ShortenBody = "", 0, false
		if len(others.Extra) == 0 {
			others.Extra = nil
		}
		if others.Alert.isEmpty() {
			others.Alert = Alert{}
		}
		if reflect.ValueOf(others).IsZero() {
			return PushTypeBackground
		}
	}
	return PushTypeAlert
}

// checkType checks that the fields do not contradict Type.
func (p *Payload) checkType() error {
	shown := p.shownType()
	if p.Type == "" || p.Type.fits(shown) {
		return nil
	}
	if missing := p.missingForType(); missing != "" {
		return payloadErrorf("type is %q, expected %s with it", p.Type, missing)
	}
	return payloadErrorf("type is %q, expected %q for a payload with these fields", p.Type, shown)
}

// fits reports whether a payload whose fields show a type may be of type t.
func (t PushType) fits(shown PushType) bool {
	switch t {
	case PushTypeAlert, PushTypeBackground, PushTypeMDM, PushTypeLiveActivity, PushTypeWidgets:
		return t == shown
	case PushTypeControls:
		return shown == PushTypeWidgets
	}
	return shown == PushTypeAlert || shown == PushTypeBackground
}

// missingForType returns what the payload lacks to be of its Type. It returns "" if the fields
// show another type even with that.
func (p *Payload) missingForType() (key string) {
	with := *p
	switch p.Type {
	case PushTypeBackground:
		with.ContentAvailable, key = true, "content-available"
	case PushTypeLiveActivity:
		with.LiveActivity, key = new(LiveActivity), "a Live Activity"
	case PushTypeWidgets, PushTypeControls:
		with.ContentChanged, key = true, "content-changed"
	case PushTypeMDM:
		with.MDM, key = "x", "mdm"
	}
	if !p.Type.fits(with.shownType()) {
		return ""
	}
	return key
}

// apsKeys is the aps dictionary. The form of alert and sound depends on the other keys.
type apsKeys struct {
	Alert             json.RawMessage   `json:"alert,omitzero"`
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

type criticalKeys struct {
	Critical flag     `json:"critical"`
	Name     string   `json:"name,omitzero"`
	Volume   *float64 `json:"volume,omitzero"`
}

// A flag is written as 1, or left out.
type flag bool

func (flag) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

func (p *Payload) encodeAPS() ([]byte, error) {
	if err := p.checkValues(); err != nil {
		return nil, err
	}
	sound, err := p.sound()
	if err != nil {
		return nil, err
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
	hasAlert := !p.Alert.isEmpty()
	switch {
	case p.LiveActivity == nil:
		keys.Sound = sound
		if hasAlert {
			keys.Alert, err = encodeKeys("alert", p.Alert, p.Alert.Extra)
		}
	case p.ContentChanged:
		err = payloadErrorf("content-changed is set and a Live Activity as well, expected one of them")
	case hasAlert:
		keys.Alert, err = p.Alert.forActivity(sound)
	case sound != nil:
		err = payloadErrorf("sound is set and alert is missing, expected both or neither in a Live Activity")
	}
	if err == nil && p.LiveActivity != nil {
		keys.activityKeys, err = p.LiveActivity.keys(hasAlert)
	}
	if err != nil {
		return nil, err
	}
	return encodeKeys("aps", keys, p.Extra)
}

// checkValues checks the fields that may have only certain values.
func (p *Payload) checkValues() error {
	switch p.InterruptionLevel {
	case "", InterruptionPassive, InterruptionActive, InterruptionTimeSensitive, InterruptionCritical:
	default:
		return payloadErrorf("interruption-level is %q, expected %s, %s, %s or %s", p.InterruptionLevel,
			InterruptionPassive, InterruptionActive, InterruptionTimeSensitive, InterruptionCritical)
	}
	if p.Badge != nil && *p.Badge < 0 {
		return payloadErrorf("badge is %d, expected 0 or more", *p.Badge)
	}
	if s := p.RelevanceScore; s != nil {
		switch {
		case math.IsNaN(*s) || math.IsInf(*s, 0):
			return payloadErrorf("relevance-score is %v, expected a number", *s)
		case p.LiveActivity == nil && (*s < 0 || *s > 1):
			return payloadErrorf("relevance-score is %v, expected 0 to 1 outside Live Activities", *s)
		}
	}
	return nil
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
		return nil, payloadErrorf("sound and a critical sound are set, expected one of them")
	case c.Name == "":
		return nil, payloadErrorf("name of the critical sound is empty, expected a file or \"default\"")
	case c.Volume != nil && !(*c.Volume >= 0 && *c.Volume <= 1): // NaN is neither
		return nil, payloadErrorf("volume is %v, expected 0 to 1", *c.Volume)
	}
	return criticalKeys{true, c.Name, c.Volume}, nil
}
