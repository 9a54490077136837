package apnstest

import (
	"slices"
	"strconv"

	"example.com/apns"
)

// The rules about Live Activities. The source is "Starting and updating Live Activities with
// ActivityKit push notifications".

// activityKeys are the keys of aps that only a Live Activity has.
var activityKeys = []string{
	"timestamp", "event", "content-state", "stale-date", "dismissal-date",
	"attributes-type", "attributes", "input-push-token", "input-push-channel",
}

// noActivity checks that aps has no keys of a Live Activity.
func (in *inspection) noActivity(aps object) {
	if in.pushType == apns.PushTypeBackground {
		return // which allows no key at all
	}
	for _, m := range aps {
		if slices.Contains(activityKeys, string(m.key)) {
			in.flag("aps."+string(m.key), sourceLiveActivity, "is set, expected push type liveactivity with it, got %s", in.pushType)
		}
	}
}

// liveActivity checks the keys of a Live Activity.
func (in *inspection) liveActivity(aps object) {
	flag := func(key, rule string) { in.flag("aps."+key, sourceLiveActivity, "%s", rule) }
	if aps.get("timestamp") == nil {
		flag("timestamp", "is missing, expected seconds since 1970")
	}
	for _, key := range []string{"timestamp", "stale-date", "dismissal-date"} {
		if n, err := strconv.ParseFloat(string(aps.get(key)), 64); err == nil && n >= 1e11 { // in seconds, the year 5138
			flag(key, "is too large, expected seconds since 1970, not milliseconds")
		}
	}
	if aps.get("sound") != nil {
		flag("sound", "is set, expected it in alert with push type liveactivity")
	}
	var event string
	if b := aps.get("event"); b != nil && kindOf(b) == stringKind {
		event = string(unquote(b))
	}
	require := func(keys ...string) {
		for _, key := range keys {
			if aps.get(key) == nil {
				flag(key, "is missing, expected it with the event "+event)
			}
		}
	}
	forbid := func(want string, keys ...string) {
		for _, key := range keys {
			if aps.get(key) != nil {
				flag(key, "is set, expected it with the event "+want+" alone")
			}
		}
	}
	if event == "start" && in.broadcast {
		in.flag("aps.event", sourceBroadcasts, "is start, expected update or end in a broadcast")
	}
	switch event {
	case "start":
		require("alert", "attributes-type", "attributes", "content-state")
		forbid("end", "dismissal-date")
	case "update":
		require("content-state")
		forbid("end", "dismissal-date")
		forbid("start", "attributes-type", "attributes", "input-push-token", "input-push-channel")
	case "end":
		forbid("start", "attributes-type", "attributes", "input-push-token", "input-push-channel")
	default:
		flag("event", "is missing or unknown, expected start, update or end")
	}
}
