package apnstest

import (
	"encoding/hex"
	"fmt"
	"strings"

	"example.com/apns"
)

// A Finding is a rule of Apple's that a message breaks.
type Finding struct {
	// Field is what breaks the rule: a header field such as "apns-priority", a key of the
	// payload such as "aps.alert", the "payload" as a whole, or the "device token". On the
	// binary protocol the priority is "priority".
	Field string

	// Rule says what is wrong with the field, and what is expected. It has names of keys
	// and push types, and no other content of the message.
	Rule string

	// Source is the title of the page of Apple's documentation that has the rule.
	Source string

	// Reason is the reason with which Apple's server rejects the message. It is empty if
	// the server accepts the message. Apple may then drop the message silently, or the
	// device may ignore the field.
	Reason apns.Reason
}

// String returns, for example, "aps.alert: is set, expected content-available alone with
// push type background (Pushing background updates to your App)".
func (f Finding) String() string {
	s := f.Field + ": " + f.Rule + " (" + f.Source + ")"
	if f.Reason != "" {
		s += ": " + string(f.Reason)
	}
	return s
}

// Check returns the rules of Apple's HTTP/2 provider API that a message breaks, whoever
// sends it to whichever device. It returns nil if there are none. A [Server] checks each
// message in the same way: see the field Lenient.
//
// The fields of the message have the defaults that an apns.Client gives them. The topic is
// checked only if the message has one. Check knows the rules that Apple's documentation
// has. It does not know what else Apple's servers check.
func Check(m *apns.Message) []Finding {
	in := inspection{broadcast: m.Channel != "", pushType: m.PushType, priority: m.Priority}
	switch {
	case in.pushType != "":
	case in.broadcast:
		in.pushType = apns.PushTypeLiveActivity
	default:
		in.pushType = apns.PushTypeAlert
	}
	switch {
	case in.priority != 0:
	case in.pushType == apns.PushTypeBackground:
		in.priority = apns.PriorityPowerSaving
	default:
		in.priority = apns.PriorityImmediate
	}
	if m.APNsID != "" && !isUUID(m.APNsID) {
		in.badID()
	}
	if !m.Expiry.IsZero() && m.Expiry.Unix() < 0 {
		in.badExpiration() // a Client sends 0 instead
	}
	in.message(m)
	return in.findings
}

// The pages of Apple's documentation that have the rules.
const (
	sourceSend         = "Sending notification requests to APNs"
	sourceRespond      = "Handling notification responses from APNs"
	sourceGenerate     = "Generating a remote notification"
	sourceBackground   = "Pushing background updates to your App"
	sourceLiveActivity = "Starting and updating Live Activities with ActivityKit push notifications"
	sourceWidgets      = "Updating widgets with WidgetKit push notifications"
	sourceControls     = "Updating controls locally and remotely"
	sourceBroadcasts   = "Setting up broadcast push notifications"
	sourceBroadcast    = "Handling error responses from Apple Push Notification service"
	sourceBinary       = "Binary Provider API (Local and Remote Notification Programming Guide)"
	sourceMDM          = "Device Management"
)

// An inspection checks a message.
type inspection struct {
	binary    bool // the message came on the binary protocol
	broadcast bool // it is for a channel
	lenient   bool // the content is not checked
	pushType  apns.PushType
	priority  apns.Priority

	findings []Finding
}

// flag adds a finding about a message that Apple's server accepts.
func (in *inspection) flag(field, source, format string, args ...any) {
	in.refuse("", field, source, format, args...)
}

// refuse adds a finding about a message that Apple's server rejects.
func (in *inspection) refuse(reason apns.Reason, field, source, format string, args ...any) {
	if in.binary {
		reason = "" // no source says with which status the binary gateway rejected such a message
	}
	in.findings = append(in.findings, Finding{field, fmt.Sprintf(format, args...), source, reason})
}

// reason returns the reason with which the server rejects the message, or an empty one.
func (in *inspection) reason() apns.Reason {
	for _, f := range in.findings {
		if f.Reason != "" {
			return f.Reason
		}
	}
	return ""
}

// message checks a message of the HTTP/2 provider API.
func (in *inspection) message(m *apns.Message) {
	switch in.priority {
	case apns.PriorityImmediate, apns.PriorityPowerSaving, apns.PriorityLowest:
		in.priorityFits()
	default:
		in.badPriority()
	}
	if n := len(m.CollapseID); n > maxCollapseID {
		in.refuse(apns.ReasonBadCollapseID, "apns-collapse-id", sourceSend, "has %d bytes, expected at most %d", n, maxCollapseID)
	}
	if !in.lenient && !in.broadcast {
		in.topic(m.Topic)
	}
	in.payload(m)
	if !in.broadcast {
		in.deviceToken(m.Token)
	}
}

// maxCollapseID is the largest size of a collapse ID in bytes.
const maxCollapseID = 64

func (in *inspection) badID() {
	in.refuse(apns.ReasonBadMessageID, "apns-id", sourceSend, "is no UUID, expected one as %s", "123e4567-e89b-12d3-a456-4266554400a0")
}

func (in *inspection) badExpiration() {
	in.refuse(apns.ReasonBadExpirationDate, "apns-expiration", sourceSend, "is no time, expected seconds since 1970, or 0")
}

func (in *inspection) badPriority() {
	in.refuse(apns.ReasonBadPriority, "apns-priority", sourceSend, "is none of the priorities, expected 10, 5 or 1")
}

// priorityFits checks the priority against the push type. That a wrong priority of a
// background push is an error is documented; that the error is BadPriority is not.
func (in *inspection) priorityFits() {
	switch {
	case in.lenient:
	case in.pushType == apns.PushTypeBackground && in.priority != apns.PriorityPowerSaving:
		in.refuse(apns.ReasonBadPriority, "apns-priority", sourceSend, "is %d, expected 5 with push type background (without the field it is 10)", in.priority)
	case in.pushType == apns.PushTypeLiveActivity && in.priority == apns.PriorityLowest:
		in.flag("apns-priority", sourceLiveActivity, "is 1, expected 5 or 10 with push type liveactivity")
	}
}

// topic checks the push type, and the topic against it.
func (in *inspection) topic(topic string) {
	suffix := in.pushType.Topic("")
	base, fits := strings.CutSuffix(topic, suffix)
	switch {
	case !isPushType(in.pushType):
		in.refuse(apns.ReasonInvalidPushType, "apns-push-type", sourceSend, "is none of the push types, expected one as alert or background")
	case topic == "":
	case !fits || base == "":
		in.refuse(apns.ReasonBadTopic, "apns-topic", sourceSend, "does not fit, expected the bundle ID and %s with push type %s", suffix, in.pushType)
	case in.pushType == apns.PushTypeMDM && !strings.HasPrefix(topic, "com.apple.mgmt."):
		in.refuse(apns.ReasonBadTopic, "apns-topic", sourceMDM, "does not fit, expected one that begins with com.apple.mgmt. with push type mdm")
	case !isBundleID(topic):
		in.flag("apns-topic", sourceSend, "is no bundle ID, expected only letters, digits, hyphens and periods")
	case suffix != "":
		if t := typeOfTopic(base); t != "" {
			in.flag("apns-topic", sourceSend, "ends in %s%s, expected the bundle ID and %s with push type %s", t.Topic(""), suffix, suffix, in.pushType)
		}
	default:
		if t := typeOfTopic(topic); t != "" {
			in.flag("apns-topic", sourceSend, "ends in %s, expected push type %s with it, or the bundle ID alone with push type %s", t.Topic(""), t, in.pushType)
		}
	}
}

// pushTypes has the push types. The source is "Sending notification requests to APNs".
var pushTypes = [...]apns.PushType{
	apns.PushTypeAlert, apns.PushTypeBackground, apns.PushTypeLocation, apns.PushTypeVoIP,
	apns.PushTypeComplication, apns.PushTypeFileProvider, apns.PushTypeMDM, apns.PushTypeLiveActivity,
	apns.PushTypePushToTalk, apns.PushTypeWidgets, apns.PushTypeControls,
}

func isPushType(t apns.PushType) bool {
	for _, p := range pushTypes {
		if t == p {
			return true
		}
	}
	return false
}

// typeOfTopic returns the push type whose suffix a topic has, or an empty one.
func typeOfTopic(topic string) apns.PushType {
	for _, t := range pushTypes {
		if suffix := t.Topic(""); suffix != "" && strings.HasSuffix(topic, suffix) {
			return t
		}
	}
	return ""
}

// isBundleID reports whether a topic has only characters that a bundle ID can have.
func isBundleID(topic string) bool {
	for _, r := range topic {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' {
			return false
		}
	}
	return true
}

// deviceToken checks the device token. Apple's documentation gives its length no limit: the
// limit of 100 bytes is the binary protocol's alone.
func (in *inspection) deviceToken(token string) {
	if token == "" {
		in.refuse(apns.ReasonMissingDeviceToken, "device token", sourceRespond, "is missing, expected one in the path")
		return
	}
	if _, err := hex.DecodeString(token); err != nil {
		in.refuse(apns.ReasonBadDeviceToken, "device token", sourceSend, "is invalid, expected bytes in hexadecimal")
	}
}
