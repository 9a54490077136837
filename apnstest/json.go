package apnstest

import (
	"bytes"
	"encoding/json"
	"strings"
)

// A member is a member of a JSON object.
type member struct {
	key   []byte
	value []byte // JSON
}

// An object has the members of a JSON object, in their order.
type object []member

// get returns the value of a key, or nil. The last of several members with the same key
// counts, as for encoding/json.
func (o object) get(key string) []byte {
	for i := len(o) - 1; i >= 0; i-- {
		if string(o[i].key) == key {
			return o[i].value
		}
	}
	return nil
}

// appendMembers appends the members of a JSON object to o. b must be valid JSON. A value
// that is no object has no members.
func appendMembers(o object, b []byte) object {
	if kindOf(b) != objectKind {
		return o
	}
	i := skipSpace(b, skipSpace(b, 0)+1)
	for b[i] != '}' {
		end := skipValue(b, i)
		key := unquote(b[i:end])
		i = skipSpace(b, skipSpace(b, end)+1) // the colon
		end = skipValue(b, i)
		o = append(o, member{key, b[i:end]})
		if i = skipSpace(b, end); b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return o
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n' {
		i++
	}
	return i
}

// skipValue returns the end of the JSON value at b[i].
func skipValue(b []byte, i int) int {
	for depth := 0; ; {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n':
			i++
		default: // a number, true, false or null
			for i < len(b) && !strings.ContainsRune("{}[],: \t\r\n", rune(b[i])) {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// unquote returns the text of a JSON string.
func unquote(b []byte) []byte {
	if text := b[1 : len(b)-1]; bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		panic(err) // the JSON is valid
	}
	return []byte(text)
}

// A kind is a set of kinds of JSON values.
type kind uint8

const (
	objectKind kind = 1 << iota
	arrayKind
	stringKind
	numberKind
	boolKind
	nullKind
)

// kindOf returns the kind of a JSON value.
func kindOf(b []byte) kind {
	switch b[skipSpace(b, 0)] {
	case '{':
		return objectKind
	case '[':
		return arrayKind
	case '"':
		return stringKind
	case 't', 'f':
		return boolKind
	case 'n':
		return nullKind
	}
	return numberKind
}

// String returns, for example, "an object or a string".
func (k kind) String() string {
	var names []string
	for i, name := range [...]string{"an object", "an array", "a string", "a number", "a boolean", "null"} {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}
