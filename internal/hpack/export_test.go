package hpack

import "slices"

// A Field is a field of a table.
type Field struct{ Name, Value string }

// Table returns the fields of the dynamic table, newest first, and its size and
// limit as the decoder counts them.
func (d *Decoder) Table() (fields []Field, size, limit int) { return d.table.export() }

// Retained returns how many bytes the decoder keeps alive, counted as in the table.
func (d *Decoder) Retained() int {
	n := cap(d.scratch)
	for _, f := range d.table.fields[:cap(d.table.fields)] {
		n += cap(f.name) + cap(f.value) + 32
	}
	return n
}

// Table is like that of the Decoder. The limit is the one that was announced.
func (e *Encoder) Table() (fields []Field, size, limit int) {
	e.init()
	return e.table.export()
}

func (t *table) export() (fields []Field, size, limit int) {
	for i := range t.len() {
		f := t.at(i)
		fields = append(fields, Field{string(f.name), string(f.value)})
	}
	return fields, t.size, t.limit
}

// StaticField returns the field of the static table with an index from 1 on.
func StaticField(i int) Field { return Field{staticFields[i-1].name, staticFields[i-1].value} }

const StaticFields = len(staticFields)

// FindStatic looks a field up in the static table.
func FindStatic(name, value string) (index int, exact bool) { return shared().static.find(name, value) }

// HuffmanCode returns the code of a symbol (0 to 256) and its length in bits.
func HuffmanCode(symbol int) (code uint32, bits uint) {
	h := &shared().huffman
	bits = bitsOf(symbol)
	i := slices.Index(h.sorted[:], uint16(symbol))
	return uint32(i) + h.ranges[bits].base, bits
}

func AppendHuffman(b []byte, s string) []byte { return shared().huffman.appendEncoded(b, s) }
func HuffmanLen(s string) int                 { return encodedLen(s) }

func AppendDecodedHuffman(dst, b []byte) ([]byte, error) {
	return shared().huffman.appendDecoded(dst, b)
}

var AppendInt = appendInt

// ReadInt reads a number and returns it and how many bytes of b it has.
func ReadInt(b []byte, prefix uint) (n, size int, err error) {
	r := reader{rest: b}
	n = r.int(prefix)
	return n, len(b) - len(r.rest), r.err
}
