// Package dump names the bytes of a message of the binary protocol.
package dump

import (
	"fmt"
	"strconv"
	"time"
)

// A Field is a part of an encoded message.
type Field struct {
	At      int    // the offset in the message
	Bytes   []byte // the bytes of the field
	Name    string // for example "payload length"
	Meaning string // the value in words or digits
}

// Message returns the fields of a message, or as much of it as b has.
func Message(b []byte) []Field {
	d := &dump{b: b}
	d.message()
	return d.fields
}

type dump struct {
	b      []byte
	at     int // the offset of the next field
	fields []Field
}

var items = map[int]string{1: "device token", 2: "payload", 3: "identifier", 4: "expiry", 5: "priority"}

// message adds the fields of a message, or as much of it as b has.
func (d *dump) message() {
	switch d.number("command", 1, map[int]string{0: "simple format", 1: "extended format", 2: "framed format"}) {
	case 2:
		d.number("frame length", 4, nil)
		for d.at < len(d.b) {
			item := d.number("item", 1, items)
			d.data(items[item], d.number("item length", 2, nil))
		}
		return
	case 1:
		d.data("identifier", 4)
		d.data("expiry", 4)
	}
	for _, name := range []string{"device token", "payload"} {
		d.data(name, d.number(name+" length", 2, nil))
	}
}

// number adds a field of n bytes that is a number, and returns the number. It returns -1 if
// the field is cut short.
func (d *dump) number(name string, n int, meanings map[int]string) int {
	b := d.take(n)
	if len(b) < n {
		d.cutShort(b, n, name)
		return -1
	}
	v := 0
	for _, c := range b {
		v = v<<8 | int(c)
	}
	meaning := meanings[v]
	if meaning == "" {
		meaning = strconv.Itoa(v)
	}
	d.add(b, name, meaning)
	return v
}

// data adds a field of n bytes. Its name says how to show the meaning.
func (d *dump) data(name string, n int) {
	if n < 0 {
		return // its length is missing
	}
	b := d.take(n)
	if len(b) < n {
		d.cutShort(b, n, name)
		return
	}
	meaning := ""
	switch {
	case name == "payload":
		meaning = strconv.Quote(string(b))
	case name == "device token":
		meaning = fmt.Sprintf("%x", b)
	case name == "priority" && n == 1:
		meaning = strconv.Itoa(int(b[0]))
	case n == 4:
		v := int64(b[0])<<24 | int64(b[1])<<16 | int64(b[2])<<8 | int64(b[3])
		meaning = strconv.FormatInt(v, 10)
		if name == "expiry" && v == 0 {
			meaning = "0: one attempt, nothing kept"
		} else if name == "expiry" {
			meaning = time.Unix(v, 0).UTC().Format(time.RFC3339)
		}
	}
	d.add(b, name, meaning)
}

// cutShort adds a field of n bytes of which only b is there.
func (d *dump) cutShort(b []byte, n int, name string) {
	if len(b) > 0 {
		d.add(b, name, fmt.Sprintf("cut short: %d of %d bytes", len(b), n))
	}
}

// take returns the next n bytes, or fewer if b ends before.
func (d *dump) take(n int) []byte {
	n = min(n, len(d.b)-d.at)
	b := d.b[d.at : d.at+n]
	d.at += n
	return b
}

func (d *dump) add(b []byte, name, meaning string) {
	d.fields = append(d.fields, Field{d.at - len(b), b, name, meaning})
}
