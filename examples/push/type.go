package main

import (
	"encoding/json"

	"example.com/apns"
)

// addType sets the push type that the payload shows, if -type is not given.
func addType(m *apns.Message) {
	if m.PushType == "" {
		m.PushType = shownType(m.Payload)
	}
}

// shownType returns the push type that a payload shows, as Payload.PushType does. For an alert
// it returns nothing: the library takes that as an alert, and checks it.
func shownType(payload []byte) apns.PushType {
	var object, aps map[string]json.RawMessage // a struct would also take other cases of the keys
	json.Unmarshal(payload, &object)
	json.Unmarshal(object["aps"], &aps) // a payload that is no such object shows nothing
	switch {
	case object["mdm"] != nil:
		return apns.PushTypeMDM
	case aps["event"] != nil:
		return apns.PushTypeLiveActivity
	case aps["content-changed"] != nil:
		return apns.PushTypeWidgets
	case string(aps["content-available"]) == "1" && len(aps) == 1:
		return apns.PushTypeBackground
	}
	return ""
}
