package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// messageJSON is the JSON form of a Message.
type messageJSON struct {
	ID         uint32          `json:"id,omitzero"`
	Token      string          `json:"token,omitzero"`
	Channel    string          `json:"channel,omitzero"`
	Payload    json.RawMessage `json:"payload,omitempty"`
	Expiry     expiryJSON      `json:"expiry,omitzero"`
	Priority   Priority        `json:"priority,omitzero"`
	Topic      string          `json:"topic,omitzero"`
	PushType   PushType        `json:"push_type,omitzero"`
	CollapseID string          `json:"collapse_id,omitzero"`
	APNsID     string          `json:"apns_id,omitzero"`
}

// MarshalJSON returns the message in JSON. The payload is in it as JSON, not as text or base64.
// Expiry is an RFC 3339 time in UTC, with fractions of a second if it has them.
//
// The error matches ErrInvalid if JSON cannot express the message: the payload is not a JSON
// object, a string is not UTF-8, or Expiry is not within the years 0 to 9999.
func (m Message) MarshalJSON() ([]byte, error) {
	for _, s := range []struct {
		name, value string
		said        error
	}{
		{"token", m.Token, StatusInvalidToken},
		{"channel ID", m.Channel, ReasonBadChannelID},
		{"topic", m.Topic, ReasonBadTopic},
		{"push type", string(m.PushType), ReasonInvalidPushType},
		{"collapse ID", m.CollapseID, ReasonBadCollapseID},
		{"APNs ID", m.APNsID, ReasonBadMessageID},
	} {
		if !utf8.ValidString(s.value) {
			return nil, &fieldError{s.said, s.name + " is not UTF-8, expected UTF-8"}
		}
	}
	if len(m.Payload) > 0 && !(json.Valid(m.Payload) && utf8.Valid(m.Payload)) {
		return nil, &fieldError{ReasonBadRequestPayload, "payload is not JSON in UTF-8, expected a JSON object"}
	}
	if err := checkObject(m.Payload); err != nil {
		return nil, err
	}
	expiry := m.Expiry.UTC()
	if year := expiry.Year(); year < 0 || year > 9999 {
		return nil, &fieldError{ReasonBadExpirationDate, fmt.Sprintf("expiry is in the year %d, expected 0 to 9999", year)}
	}
	var b bytes.Buffer
	err := writeJSON(&b, messageJSON{m.ID, m.Token, m.Channel, m.Payload, expiryJSON{expiry}, m.Priority, m.Topic, m.PushType, m.CollapseID, m.APNsID})
	if err != nil {
		return nil, fmt.Errorf("apns: message: %w", err)
	}
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON wrote. Fields that are left out, or are null, become
// zero. Value stays as it is. Unknown fields are ignored. A JSON null leaves the message as it
// is.
//
// The error matches ErrInvalid if the payload is not a JSON object in UTF-8.
//
// The payload loses the white space between its values. The escapes of <, >, &, U+2028 and
// U+2029 become those characters, since json.Marshal writes such escapes. So the payload is
// never larger than the one that was marshalled.
func (m *Message) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var j messageJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("apns: message: %w", plainTypeError(err))
	}
	if string(j.Payload) == "null" {
		j.Payload = nil
	}
	if !utf8.Valid(j.Payload) {
		return &fieldError{ReasonBadRequestPayload, "payload is not UTF-8, expected a JSON object in UTF-8"}
	}
	if err := checkObject(j.Payload); err != nil {
		return err
	}
	m.ID, m.Token, m.Channel, m.Payload = j.ID, j.Token, j.Channel, minimal(j.Payload)
	m.Expiry, m.Priority = j.Expiry.UTC(), j.Priority
	m.Topic, m.PushType, m.CollapseID, m.APNsID = j.Topic, j.PushType, j.CollapseID, j.APNsID
	return nil
}

// An expiryJSON is the JSON form of Message.Expiry.
type expiryJSON struct{ time.Time }

func (e *expiryJSON) UnmarshalJSON(b []byte) error {
	if err := e.Time.UnmarshalJSON(b); err != nil {
		return errors.New(`expiry is no RFC 3339 time in quotes, expected one as "2026-11-30T12:00:00Z"`)
	}
	return nil
}

// plainTypeError returns an error of json.Unmarshal. If that is about a value of the wrong
// type, the result names types of JSON in place of types of Go.
func plainTypeError(err error) error {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	isNumber := e.Type.Kind() == reflect.Uint32 || e.Type.Kind() == reflect.Uint8
	number, isWrong := strings.CutPrefix(e.Value, "number ")
	switch {
	case e.Field == "":
		return fmt.Errorf("it is %s, expected an object", withArticle(e.Value))
	case isNumber && isWrong:
		if len(number) > 10 { // it may be a token
			number = fmt.Sprintf("a number of %d characters", len(number))
		}
		return fmt.Errorf("%s is %s, expected an integer from 0 to %d", e.Field, number, uint64(1)<<e.Type.Bits()-1)
	case isNumber:
		return fmt.Errorf("%s is %s, expected a number", e.Field, withArticle(e.Value))
	}
	return fmt.Errorf("%s is %s, expected a string", e.Field, withArticle(e.Value))
}

// withArticle returns the name of a type of JSON, as encoding/json has it, with its article.
func withArticle(kind string) string {
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "a boolean"
	}
	return "a " + kind
}

// checkObject checks that a payload is a JSON object or empty. The payload must be valid
// JSON or empty.
func checkObject(payload []byte) error {
	payload = trimSpace(payload)
	if len(payload) == 0 || payload[0] == '{' {
		return nil
	}
	is := "a number"
	switch payload[0] {
	case '"':
		is = "a string"
	case '[':
		is = "an array"
	case 't', 'f':
		is = "a boolean"
	case 'n':
		is = "null"
	}
	return &fieldError{ReasonBadRequestPayload, "payload is " + is + ", expected a JSON object"}
}

// minimal returns valid JSON without white space and without the escapes that json.Marshal
// makes for HTML and JavaScript.
func minimal(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		panic(err) // json.Unmarshal has read it
	}
	b = compact.Bytes()
	out := b[:0]
	for len(b) > 0 {
		n := 1
		if b[0] == '\\' {
			n = 2 // the escape of a backslash begins no other escape
		}
		if r := unescaped(b); r != 0 {
			out = utf8.AppendRune(out, r)
			n = len(`\u0026`)
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// unescaped returns the character whose escape json.Marshal makes, or 0 if b does not begin
// with such an escape.
func unescaped(b []byte) rune {
	if len(b) < len(`\u0026`) || b[0] != '\\' {
		return 0
	}
	switch string(bytes.ToLower(b[:len(`\u0026`)])) {
	case `\u003c`:
		return '<'
	case `\u003e`:
		return '>'
	case `\u0026`:
		return '&'
	case `\u2028`:
		return '\u2028'
	case `\u2029`:
		return '\u2029'
	}
	return 0
}
