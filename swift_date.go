package apns

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// findTime looks for a time.Time in a value that encoding/json has encoded. It returns the
// names of the keys that lead to it. Like encoding/json it does not look into fields that are
// left out, and not into types that encode themselves. A type that embeds a time.Time has its
// MarshalJSON, and so encodes itself: its time is not found.
func findTime(v any) (path []string, ok bool) {
	f := timeFinder{visited: make(map[pointer]bool)}
	ok = f.find(reflect.ValueOf(v))
	slices.Reverse(f.path)
	return f.path, ok
}

type timeFinder struct {
	path    []string         // to what was found, the innermost first
	visited map[pointer]bool // a struct may embed a pointer to itself
}

type pointer struct {
	address uintptr
	to      reflect.Type
}

var (
	timeType          = reflect.TypeFor[time.Time]()
	marshalerType     = reflect.TypeFor[json.Marshaler]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
	zeroerType        = reflect.TypeFor[zeroer]()
)

func (f *timeFinder) find(v reflect.Value) bool {
	if !v.IsValid() {
		return false
	}
	t := v.Type()
	switch {
	case t == timeType:
		return true
	case t.Kind() == reflect.Interface || t.Kind() == reflect.Pointer && t.Elem() == timeType:
	case encodesItself(t) || encodesItself(reflect.PointerTo(t)):
		return false
	}
	switch t.Kind() {
	case reflect.Interface:
		return f.find(v.Elem())
	case reflect.Pointer:
		at := pointer{v.Pointer(), t}
		if v.IsNil() || f.visited[at] {
			return false
		}
		f.visited[at] = true
		return f.find(v.Elem())
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() <= reflect.Complex128 || t.Elem().Kind() == reflect.String {
			return false
		}
		for i := range v.Len() {
			if f.find(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if f.find(entries.Value()) {
				f.path = append(f.path, fmt.Sprint(entries.Key()))
				return true
			}
		}
	case reflect.Struct:
		for _, field := range writtenFields(t) {
			if f.findInField(field, v) {
				return true
			}
		}
	}
	return false
}

// findInField looks into a field of the struct v.
func (f *timeFinder) findInField(field jsonField, v reflect.Value) bool {
	v, err := v.FieldByIndexErr(field.index)
	if err != nil || field.omitZero && isZero(v) || !f.find(v) { // the error is a nil pointer that is embedded
		return false
	}
	f.path = append(f.path, field.name)
	return true
}

// A jsonField is a field of a struct as encoding/json writes it.
type jsonField struct {
	name     string
	isTagged bool  // the name is from the tag
	index    []int // for FieldByIndex: longer than 1 for a field of an embedded struct
	omitZero bool
}

// writtenFields returns the fields of a struct that encoding/json writes. The fields of an
// embedded struct without a name in its tag are among them.
func writtenFields(t reflect.Type) []jsonField {
	all := appendFields(nil, nil, t)
	return slices.DeleteFunc(slices.Clone(all), func(f jsonField) bool {
		return slices.ContainsFunc(all, f.isHiddenBy)
	})
}

// isHiddenBy reports whether encoding/json does not write f because of a field with the same
// name. It writes the field that is embedded least deeply, of those the one with a tag, and
// none if that leaves several.
func (f jsonField) isHiddenBy(other jsonField) bool {
	switch {
	case f.name != other.name || slices.Equal(f.index, other.index):
		return false
	case len(f.index) != len(other.index):
		return len(f.index) > len(other.index)
	}
	return other.isTagged || !f.isTagged
}

// appendFields appends the fields of a struct, which may hide each other. The outer types are
// those in which the struct is embedded.
func appendFields(fields []jsonField, index []int, t reflect.Type, outer ...reflect.Type) []jsonField {
	for i := range t.NumField() {
		field := t.Field(i)
		at := append(slices.Clip(index), i)
		embedded := field.Type // if it is a struct
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		isEmbedded := field.Anonymous && embedded.Kind() == reflect.Struct
		tag := field.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-", !field.IsExported() && !isEmbedded:
		case isEmbedded && name == "":
			// A struct that embeds itself has nothing new further in.
			if within := append(slices.Clip(outer), t); !slices.Contains(within, embedded) {
				fields = appendFields(fields, at, embedded, within...)
			}
		default:
			omitZero := slices.Contains(strings.Split(options, ","), "omitzero")
			fields = append(fields, jsonField{cmp.Or(name, field.Name), name != "", at, omitZero})
		}
	}
	return fields
}

// isZero reports whether the option omitzero leaves out a value.
func isZero(v reflect.Value) bool {
	t := v.Type()
	isPointer := t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface
	switch {
	case isPointer && v.IsNil(), t.Kind() == reflect.Interface && v.Elem().Kind() == reflect.Pointer && v.Elem().IsNil():
		return true
	case !v.CanInterface():
	case t.Implements(zeroerType):
		return v.Interface().(zeroer).IsZero()
	case !isPointer && reflect.PointerTo(t).Implements(zeroerType):
		p := reflect.New(t)
		p.Elem().Set(v)
		return p.Interface().(zeroer).IsZero()
	}
	return v.IsZero()
}

type zeroer interface{ IsZero() bool }

func encodesItself(t reflect.Type) bool {
	return t.Implements(marshalerType) || t.Implements(textMarshalerType)
}
