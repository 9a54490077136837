package apns

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// findTime looks for a time.Time in a value that encoding/json has encoded. It returns the
// names of the fields and keys that lead to it. It does not look where encoding/json does not:
// into fields that are left out, and into types that encode themselves.
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
		for i := range t.NumField() {
			if f.findInField(t.Field(i), v.Field(i)) {
				return true
			}
		}
	}
	return false
}

func (f *timeFinder) findInField(field reflect.StructField, v reflect.Value) bool {
	tag := field.Tag.Get("json")
	name, options, _ := strings.Cut(tag, ",")
	switch {
	case tag == "-", !field.IsExported() && !field.Anonymous:
		return false
	case slices.Contains(strings.Split(options, ","), "omitzero") && isZero(v):
		return false
	case !f.find(v):
		return false
	}
	if name == "" {
		name = field.Name
	}
	f.path = append(f.path, name)
	return true
}

// isZero reports whether the option omitzero leaves out a value.
func isZero(v reflect.Value) bool {
	if v.Type() == timeType && v.CanInterface() {
		return v.Interface().(time.Time).IsZero()
	}
	return v.IsZero()
}

func encodesItself(t reflect.Type) bool {
	return t.Implements(marshalerType) || t.Implements(textMarshalerType)
}
