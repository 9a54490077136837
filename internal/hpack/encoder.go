package hpack

import "encoding/binary"

// An Indexing says how Encoder.AppendField uses the dynamic table.
type Indexing int

const (
	// Literal never inserts the field (RFC 7541 section 6.2.2). The name is an index
	// if the static or the dynamic table has it. The value is not Huffman-coded.
	// It is for values that change with every block, and for secrets.
	Literal Indexing = iota

	// IndexName inserts the field if no table has its name. From then on it is like
	// Literal, and the name is an index. It is for names that are in every block
	// with values that change.
	IndexName

	// Index inserts the field unless a table has it (RFC 7541 section 6.2.1). From
	// then on it is one index (section 6.1). It is for fields that seldom change.
	Index
)

// The representations of a field and of a size update (RFC 7541 section 6): the
// first byte without its number, and the bits of the number's prefix.
const (
	indexed, indexedPrefix         = 0x80, 7
	inserted, insertedPrefix       = 0x40, 6
	notInserted, notInsertedPrefix = 0x00, 4
	sizeUpdate, sizeUpdatePrefix   = 0x20, 5
)

// An Encoder encodes the header blocks of one end of a connection. The zero value
// is ready to use; its table has up to 4,096 bytes. It is not safe for concurrent
// use.
type Encoder struct {
	shared *constants // nil until the first use
	table  table

	// next is the limit that holds from the next block on, smallest the lowest one
	// that was set since the last block.
	next, smallest int
}

func (e *Encoder) init() {
	if e.shared == nil {
		e.shared = shared()
		e.table.limit = defaultTableSize
		e.next, e.smallest = defaultTableSize, defaultTableSize
	}
}

// SetMaxTableSize sets the largest table that the peer allows, in bytes: its
// SETTINGS_HEADER_TABLE_SIZE. The Encoder uses at most 4,096. The new size holds
// from the next block on, whose AppendBegin announces it.
func (e *Encoder) SetMaxTableSize(n uint32) {
	e.init()
	e.next = int(min(n, defaultTableSize))
	e.smallest = min(e.smallest, e.next)
}

// AppendBegin begins a block. It appends nothing unless the size of the table changed
// since the last block. If it did, AppendBegin appends the new size, and before it the
// smallest size in between if that is lower than both (RFC 7541 section 4.2).
func (e *Encoder) AppendBegin(b []byte) []byte {
	e.init()
	if e.smallest < e.table.limit {
		b = e.appendSizeUpdate(b, e.smallest)
	}
	if e.next != e.table.limit {
		b = e.appendSizeUpdate(b, e.next)
	}
	e.smallest = e.next
	return b
}

func (e *Encoder) appendSizeUpdate(b []byte, n int) []byte {
	e.table.setLimit(n)
	return appendInt(b, sizeUpdate, sizeUpdatePrefix, n)
}

// AppendField appends a field. A field of the static table is always one index,
// whatever indexing says. A field larger than half of the dynamic table is not
// inserted, since it would evict most of the others; it is a literal instead.
//
// A field that is inserted is Huffman-coded where that is shorter.
func (e *Encoder) AppendField(b []byte, name, value string, indexing Indexing) []byte {
	e.init()
	index, exact := e.shared.static.find(name, value)
	if !exact && (index == 0 || indexing == Index) {
		i, found := e.find(name, value)
		exact = found && indexing == Index
		if exact || index == 0 {
			index = i
		}
	}
	if exact {
		return appendInt(b, indexed, indexedPrefix, index)
	}
	insert := indexing == Index || indexing == IndexName && index == 0
	if !insert || fieldSize(len(name), len(value)) > e.table.limit/2 {
		b = appendInt(b, notInserted, notInsertedPrefix, index)
		if index == 0 {
			b = appendRaw(b, name)
		}
		return appendRaw(b, value)
	}
	b = appendInt(b, inserted, insertedPrefix, index)
	if index == 0 {
		b = e.shared.huffman.appendString(b, name)
	}
	e.table.insert(field{[]byte(name), []byte(value)})
	return e.shared.huffman.appendString(b, value)
}

// find returns the index of the newest field of the dynamic table that has name
// and value, or else the index of the newest one that has the name, or else 0.
func (e *Encoder) find(name, value string) (index int, exact bool) {
	fields := e.table.fields[e.table.first:]
	for i := len(fields) - 1; i >= 0; i-- {
		f := &fields[i]
		if string(f.name) != name {
			continue
		}
		at := len(staticFields) + len(fields) - i
		if string(f.value) == value {
			return at, true
		}
		if index == 0 {
			index = at
		}
	}
	return index, false
}

// AppendLiteral appends a field in a form that depends on no dynamic table. The
// caller can keep the bytes and use them in any block of any connection. A field
// of the static table is one index. Any other is a literal without indexing (RFC
// 7541 section 6.2.2), whose name is an index if the static table has it, and
// whose strings are Huffman-coded where that is shorter.
func AppendLiteral(b []byte, name, value string) []byte {
	shared := shared()
	index, exact := shared.static.find(name, value)
	if exact {
		return appendInt(b, indexed, indexedPrefix, index)
	}
	b = appendInt(b, notInserted, notInsertedPrefix, index)
	if index == 0 {
		b = shared.huffman.appendString(b, name)
	}
	return shared.huffman.appendString(b, value)
}

// pathIndex is the index of the name ":path" in the static table.
const pathIndex = 4

// AppendPath appends the field ":path" in a form that depends on no dynamic table. Its
// value is dir and then name, and is not Huffman-coded.
func AppendPath(b []byte, dir, name string) []byte {
	b = appendInt(b, notInserted, notInsertedPrefix, pathIndex)
	b = appendInt(b, 0, 7, len(dir)+len(name))
	return append(append(b, dir...), name...)
}

// appendInt appends a number behind the bits that begin a byte (RFC 7541 section
// 5.1).
func appendInt(b []byte, first byte, prefix uint, n int) []byte {
	full := 1<<prefix - 1
	if n < full {
		return append(b, first|byte(n))
	}
	return binary.AppendUvarint(append(b, first|byte(full)), uint64(n-full))
}

// appendRaw appends a string without Huffman coding (RFC 7541 section 5.2).
func appendRaw(b []byte, s string) []byte {
	return append(appendInt(b, 0, 7, len(s)), s...)
}

// appendString appends a string, Huffman-coded if that is shorter.
func (h *huffmanCode) appendString(b []byte, s string) []byte {
	n := encodedLen(s)
	if n >= len(s) {
		return appendRaw(b, s)
	}
	return h.appendEncoded(appendInt(b, 0x80, 7, n), s)
}
