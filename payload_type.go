package apns

import (
	"bytes"
	"strings"
)

// impliedPushType returns the push type that a payload requires, or "" if the payload does not
// show it. It is PushTypeLiveActivity if aps has the keys event and content-state, and
// PushTypeBackground if aps has content-available and nothing else. The sources are "Starting
// and updating Live Activities with ActivityKit push notifications" and "Pushing background
// updates to your App".
//
// The payload need not be JSON. If it may be read in two ways, because it has aps twice or an
// escape in a key, the result is "".
func impliedPushType(payload []byte) PushType {
	if !mayHaveContentKey(payload) {
		return ""
	}
	var inAPS, hasAPS, isEvent, hasState, isAvailable bool
	keys, depth := 0, 0
	for i := 0; i < len(payload); i++ {
		switch payload[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			text, rest := cutString(payload[i:])
			i = len(payload) - len(rest) - 1
			value, isKey := bytes.CutPrefix(trimSpace(rest), []byte{':'})
			value = trimSpace(value)
			switch {
			case !isKey:
			case bytes.IndexByte(text, '\\') >= 0 && (depth == 1 || depth == 2 && inAPS):
				return ""
			case depth == 1 && string(text) == "aps":
				if hasAPS {
					return ""
				}
				inAPS, hasAPS = true, true
			case depth == 1:
				inAPS = false
			case depth == 2 && inAPS:
				keys++
				switch string(text) {
				case "event":
					event, _ := cutString(value)
					isEvent = ActivityEvent(event).isKnown()
				case "content-state":
					hasState = bytes.HasPrefix(value, []byte{'{'})
				case "content-available":
					// If the key is alone, its value ends with aps.
					number, _, _ := bytes.Cut(value, []byte{'}'})
					isAvailable = string(bytes.TrimRight(number, jsonSpace)) == "1"
				}
			}
		}
	}
	switch {
	case depth != 0:
	case isEvent && hasState:
		return PushTypeLiveActivity
	case isAvailable && keys == 1:
		return PushTypeBackground
	}
	return ""
}

// mayHaveContentKey reports whether a payload has a key that begins with "content-". For most
// messages this is the whole check, so it is fast: it looks for the dash, which is rare.
func mayHaveContentKey(payload []byte) bool {
	for i := 0; ; i++ {
		dash := bytes.IndexByte(payload[i:], '-')
		if dash < 0 {
			return false
		}
		i += dash
		if bytes.HasSuffix(payload[:i], []byte(`"content`)) {
			return true
		}
	}
}

// cutString returns the text between the quotes of the JSON string at the start of b, and what
// follows the string. It returns nil and nil if b does not begin with a string.
func cutString(b []byte) (text, rest []byte) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil
	}
	for i := 1; ; i++ {
		quote := bytes.IndexByte(b[i:], '"')
		if quote < 0 {
			return nil, nil
		}
		i += quote
		before := bytes.TrimRight(b[1:i], `\`)
		if (i-1-len(before))%2 == 0 { // else a backslash escapes the quote
			return b[1:i], b[i+1:]
		}
	}
}

// jsonSpace is the white space of JSON.
const jsonSpace = " \t\r\n"

func trimSpace(b []byte) []byte {
	for len(b) > 0 && strings.IndexByte(jsonSpace, b[0]) >= 0 {
		b = b[1:]
	}
	return b
}
