package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// payloadErrorf returns the error of a payload that breaks a rule. It matches ErrInvalid, and
// the error that the format wraps with %w.
func payloadErrorf(format string, args ...any) error {
	err := fmt.Errorf("payload: "+format, args...)
	return &fieldError{errors.Unwrap(err), err.Error()}
}

// encodeKeys encodes a struct, and adds the keys of extra. It is an error if a field of the
// struct has such a key. Errors call the object by the name.
func encodeKeys(name string, v any, extra map[string]any) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return nil, payloadErrorf("%s: %w", name, err)
	}
	if len(extra) == 0 {
		return b.Bytes(), nil
	}
	fields := reflect.VisibleFields(reflect.TypeOf(v))
	b.Truncate(b.Len() - len("}"))
	err := writeKeys(&b, "extra key of "+name, extra, func(key string) string {
		for _, f := range fields {
			if jsonName(f) == key {
				return "only keys without a field"
			}
		}
		return ""
	})
	b.WriteByte('}')
	return b.Bytes(), err
}

// jsonName returns the name that the tag of a field has for encoding/json.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// writeKeys writes the keys of a map and their values as a part of an object, sorted by key.
// The function expected returns "" for a key that is allowed. For any other key it returns what
// is expected in its place. Errors call a key by the kind.
func writeKeys(b *bytes.Buffer, kind string, m map[string]any, expected func(key string) string) error {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if want := expected(key); want != "" {
			return payloadErrorf("%s is %q, expected %s", kind, key, want)
		}
		// encoding/json replaces the wrong bytes. So two such keys may become the same.
		if !utf8.ValidString(key) {
			return payloadErrorf("%s is %q, expected UTF-8", kind, key)
		}
		if b.Bytes()[b.Len()-1] != '{' {
			b.WriteByte(',')
		}
		writeString(b, key)
		b.WriteByte(':')
		if err := writeValue(b, m[key]); err != nil {
			return payloadErrorf("%s %q: %w", kind, key, err)
		}
	}
	return nil
}

// writeValue writes a value of the caller's. It also checks what encoding/json takes unseen
// from a json.RawMessage or a json.Marshaler.
func writeValue(b *bytes.Buffer, v any) error {
	start := b.Len()
	if err := writeJSON(b, v); err != nil {
		return err
	}
	switch v.(type) {
	case nil, bool, int, int64, float64, string:
		return nil
	}
	return checkJSON(b.Bytes()[start:])
}

// checkJSON checks that JSON is UTF-8, and that no object has a key twice. Of a key that is
// there twice, some readers take the first value and others the last.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("JSON has bytes that are not UTF-8, expected UTF-8")
	}
	type object struct {
		keys    map[string]bool // nil for an array
		inValue bool            // the next token is a value, not a key
	}
	open := []object{{}} // the innermost last
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // which reads numbers that a float64 cannot have
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		in := &open[len(open)-1]
		if key, ok := token.(string); ok && in.keys != nil && !in.inValue {
			if in.keys[key] {
				return fmt.Errorf("JSON has the key %q twice in an object, expected once", key)
			}
			in.keys[key], in.inValue = true, true
			continue
		}
		switch token {
		case json.Delim('{'):
			in.inValue = false
			open = append(open, object{keys: make(map[string]bool)})
		case json.Delim('['):
			in.inValue = false
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			in.inValue = false
		}
	}
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
