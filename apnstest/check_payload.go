package apnstest

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.com/apns"
)

// The rules about payloads.

// payload checks the payload of a message.
func (in *inspection) payload(m *apns.Message) {
	b := m.Payload
	if !in.binary && !in.payloadSize(len(b)) || in.lenient {
		return
	}
	if !json.Valid(b) || kindOf(b) != objectKind {
		// Apple documents the reason for broadcasts.
		in.refuse(apns.ReasonBadRequestPayload, "payload", sourceBroadcast, "is no JSON object, expected one as {\"aps\":{...}}")
		return
	}
	if !utf8.Valid(b) {
		in.flag("payload", sourceGenerate, "is not all UTF-8, expected JSON in UTF-8")
	}
	var buf [32]member // saves an allocation
	top := appendMembers(buf[:0], b)
	aps, mdm := top.get("aps"), top.get("mdm")
	var buf2 [32]member
	keys := object(buf2[:0])
	if aps != nil {
		keys = appendMembers(keys, aps)
	}
	if in.binary {
		in.pushType = typeOfPayload(keys, mdm)
		if in.pushType == apns.PushTypeBackground && m.Priority == apns.PriorityImmediate {
			in.flag("priority", sourceBinary, "is 10, expected 5 for a payload with content-available alone")
		}
	}
	switch {
	case in.pushType == apns.PushTypeMDM:
		in.mdm(aps, mdm)
	case mdm != nil && aps == nil:
		in.flag("apns-push-type", sourceSend, "is %s, expected mdm for a payload with mdm", in.pushType)
	case !in.systemReads() || strings.HasPrefix(m.Topic, "pass."): // a pass of Wallet has no aps
	case aps == nil:
		in.flag("aps", sourceGenerate, "is missing, expected a dictionary with Apple's keys")
	case kindOf(aps) != objectKind:
		in.flag("aps", sourceGenerate, "is %v, expected an object", kindOf(aps))
	default:
		in.kinds("aps.", apsKinds, keys, true)
		in.keys(keys)
	}
}

// payloadSize checks the size of a payload, and reports whether there is a payload that is
// not too large.
func (in *inspection) payloadSize(n int) bool {
	limit := apns.MaxPayload
	if in.pushType == apns.PushTypeVoIP || in.broadcast {
		limit = apns.MaxVoIPPayload
	}
	switch {
	case n == 0:
		in.refuse(apns.ReasonPayloadEmpty, "payload", sourceRespond, "is empty, expected a JSON object")
		return false
	case n > limit:
		in.refuse(apns.ReasonPayloadTooLarge, "payload", sourceSend, "has %d bytes, expected at most %d", n, limit)
		return false
	}
	return true
}

// typeOfPayload returns the push type that a message on the binary protocol would have: that
// protocol has none.
func typeOfPayload(aps object, mdm []byte) apns.PushType {
	switch {
	case mdm != nil:
		return apns.PushTypeMDM
	case len(aps) == 1 && isOne(aps.get("content-available")):
		return apns.PushTypeBackground
	}
	return apns.PushTypeAlert
}

// systemReads reports whether the system of the device reads aps. With the other push types
// the app gets the payload, and its keys are the app's own.
func (in *inspection) systemReads() bool {
	switch in.pushType {
	case apns.PushTypeAlert, apns.PushTypeBackground, apns.PushTypeLiveActivity, apns.PushTypeWidgets, apns.PushTypeControls:
		return true
	}
	return false
}

func (in *inspection) mdm(aps, mdm []byte) {
	switch {
	case mdm == nil:
		in.flag("mdm", sourceMDM, "is missing, expected the device's PushMagic with push type mdm")
	case kindOf(mdm) != stringKind:
		in.flag("mdm", sourceMDM, "is %v, expected a string", kindOf(mdm))
	}
	if aps != nil {
		in.flag("aps", sourceMDM, "is set, expected mdm alone with push type mdm")
	}
}

// The kinds of values. The sources are Tables 1 to 3 of "Generating a remote notification"
// and, for the alert of a Live Activity, "Starting and updating Live Activities with
// ActivityKit push notifications".
var (
	apsKinds = map[string]kind{
		"alert": objectKind | stringKind, "badge": numberKind, "sound": stringKind | objectKind,
		"thread-id": stringKind, "category": stringKind, "content-available": numberKind, "mutable-content": numberKind,
		"target-content-id": stringKind, "interruption-level": stringKind, "relevance-score": numberKind, "filter-criteria": stringKind,
		"stale-date": numberKind, "content-state": objectKind, "timestamp": numberKind, "event": stringKind,
		"dismissal-date": numberKind, "attributes-type": stringKind, "attributes": objectKind,
		"input-push-token": numberKind, "input-push-channel": stringKind, "content-changed": boolKind,
		"url-args": arrayKind, "account-id": stringKind,
	}
	alertKinds = map[string]kind{
		"title": stringKind, "subtitle": stringKind, "body": stringKind, "launch-image": stringKind,
		"title-loc-key": stringKind | nullKind, "title-loc-args": arrayKind | nullKind,
		"subtitle-loc-key": stringKind, "subtitle-loc-args": arrayKind, "loc-key": stringKind, "loc-args": arrayKind,
		"action-loc-key": stringKind | nullKind, "action": stringKind, "summary-arg": stringKind, "summary-arg-count": numberKind,
	}
	activityAlertKinds = map[string]kind{"title": stringKind | objectKind, "body": stringKind | objectKind, "sound": stringKind | objectKind}
	soundKinds         = map[string]kind{"critical": numberKind, "name": stringKind, "volume": numberKind}
)

// kinds checks the kinds of the values of an object. all says that no other keys are known.
func (in *inspection) kinds(path string, kinds map[string]kind, o object, all bool) {
	for _, m := range o {
		want, known := kinds[string(m.key)]
		switch {
		case known && kindOf(m.value)&want == 0:
			in.flag(path+string(m.key), sourceGenerate, "is %v, expected %v", kindOf(m.value), want)
		case !known && all:
			in.flag(path+string(m.key), sourceGenerate, "is none of Apple's keys and is ignored, expected custom keys beside aps")
		}
	}
}

// keys checks the keys of aps against each other and against the push type.
func (in *inspection) keys(aps object) {
	if alert := aps.get("alert"); alert != nil && kindOf(alert) == objectKind {
		kinds := alertKinds
		if in.pushType == apns.PushTypeLiveActivity {
			kinds = activityAlertKinds
		}
		parts := appendMembers(nil, alert)
		in.kinds("aps.alert.", kinds, parts, false)
		if in.pushType == apns.PushTypeLiveActivity { // it has the sound in the alert
			in.sound("aps.alert.sound", parts.get("sound"))
		}
	}
	in.sound("aps.sound", aps.get("sound"))
	if level := aps.get("interruption-level"); level != nil && kindOf(level) == stringKind {
		switch string(unquote(level)) {
		case "passive", "active", "time-sensitive", "critical":
		default:
			in.flag("aps.interruption-level", sourceGenerate, "is none of the levels, expected passive, active, time-sensitive or critical")
		}
	}
	if in.pushType != apns.PushTypeLiveActivity {
		in.between("aps.relevance-score", aps.get("relevance-score"), 0, 1)
		in.noActivity(aps)
	}
	changed, widgets := aps.get("content-changed"), in.pushType == apns.PushTypeWidgets || in.pushType == apns.PushTypeControls
	if changed != nil && !widgets {
		in.flag("aps.content-changed", sourceWidgets, "is set, expected push type widgets or controls with it, got %s", in.pushType)
	}
	switch in.pushType {
	case apns.PushTypeBackground:
		in.background(aps)
	case apns.PushTypeAlert:
		in.alert(aps)
	case apns.PushTypeLiveActivity:
		in.liveActivity(aps)
	}
	if widgets && string(changed) != "true" {
		source := sourceWidgets
		if in.pushType == apns.PushTypeControls {
			source = sourceControls
		}
		in.flag("aps.content-changed", source, "is not true, expected true with push type %s", in.pushType)
	}
}

// sound checks the parts of a sound that is an object, as that of a critical alert.
func (in *inspection) sound(field string, sound []byte) {
	if sound == nil || kindOf(sound) != objectKind {
		return
	}
	parts := appendMembers(nil, sound)
	in.kinds(field+".", soundKinds, parts, false)
	in.between(field+".volume", parts.get("volume"), 0, 1)
}

func (in *inspection) between(field string, value []byte, least, most float64) {
	if value == nil || kindOf(value) != numberKind {
		return
	}
	if n, err := strconv.ParseFloat(string(value), 64); err != nil || n < least || n > most {
		in.flag(field, sourceGenerate, "is out of range, expected %v to %v", least, most)
	}
}

func (in *inspection) background(aps object) {
	for _, m := range aps {
		if string(m.key) != "content-available" {
			in.flag("aps."+string(m.key), sourceBackground, "is set, expected content-available alone with push type background")
		}
	}
	if !isOne(aps.get("content-available")) {
		in.flag("aps.content-available", sourceBackground, "is not 1, expected 1 with push type background")
	}
}

// alert checks that an alert push has an effect. Apple Mail's pushes have an account-id alone.
func (in *inspection) alert(aps object) {
	switch {
	case aps.get("alert") != nil || aps.get("badge") != nil || aps.get("sound") != nil || aps.get("account-id") != nil:
	case isOne(aps.get("content-available")):
		in.flag("apns-push-type", sourceSend, "is alert, expected background for a payload with content-available and no alert, badge or sound")
	case aps.get("event") != nil || aps.get("content-changed") != nil: // flagged for their push type
	default:
		in.flag("aps", sourceSend, "has no effect, expected alert, badge or sound with push type alert")
	}
}

// isOne reports whether a value is the number 1.
func isOne(value []byte) bool { return string(value) == "1" }
